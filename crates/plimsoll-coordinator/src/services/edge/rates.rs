//! How many calls one caller may make: a token bucket for each, so that a busy tenant slows down itself and nobody else.
//!
//! What keeps or gives back is never counted: a caller at its limit can still renew and release. Nor is what a proxy asks before each request of others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::core::CallLimits;
use crate::services::problem::Problem;

/// Most callers remembered. A caller whose bucket is full again is the same as one never seen.
const MOST_CALLERS: usize = 10_000;
/// Micro-calls in a call: buckets fill in steps smaller than one call.
const CALL: u64 = 1_000_000;

/// Calls that are not counted: they keep a lease, give something back, tell how things are, or limit others.
const FREE: &[&str] = &[
    "/plimsoll.v1.ReservationService/ConfirmReservation",
    "/plimsoll.v1.ReservationService/RenewReservation",
    "/plimsoll.v1.ReservationService/BatchRenewReservations",
    "/plimsoll.v1.ReservationService/ReleaseReservation",
    "/plimsoll.v1.ReservationService/BatchReleaseReservations",
    "/plimsoll.v1.ReservationService/CancelReservation",
    "/plimsoll.v1.AgentService/Connect",
    "/plimsoll.v1.ClusterService/GetStatus",
    "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
    "/grpc.health.v1.Health/Check",
];

/// Buckets of all callers.
pub(in crate::services) struct Rates {
    limits: CallLimits,
    buckets: Mutex<BTreeMap<Arc<str>, Bucket>>,
}

/// What one caller has left.
#[derive(Clone, Copy)]
struct Bucket {
    micro_calls: u64,
    at: Instant,
}

impl Rates {
    pub(in crate::services) fn new(limits: CallLimits) -> Rates {
        Rates { limits, buckets: Mutex::default() }
    }

    /// Counts a call, or refuses it with the time after which one is free again.
    pub(super) fn take(&self, actor: &Arc<str>, path: &str, now: Instant) -> Result<(), Problem> {
        let CallLimits { per_second, burst } = self.limits;
        if per_second == 0 || FREE.contains(&path) {
            return Ok(());
        }
        let full = burst.max(1).saturating_mul(CALL);
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MOST_CALLERS && !buckets.contains_key(actor) {
            buckets.retain(|_, bucket| bucket.left(per_second, full, now) < full);
            if buckets.len() >= MOST_CALLERS {
                // So many busy callers at once: one starts anew, the memory stays bounded.
                buckets.pop_first();
            }
        }
        let bucket = buckets.entry(Arc::clone(actor)).or_insert(Bucket { micro_calls: full, at: now });
        let left = bucket.left(per_second, full, now);
        let (rest, is_enough) = left.checked_sub(CALL).map_or((left, false), |rest| (rest, true));
        *bucket = Bucket { micro_calls: rest, at: now };
        drop(buckets);
        if is_enough {
            return Ok(());
        }
        // A bucket gains `per_second` micro-calls in a microsecond.
        let retry_after_ms = (CALL - left).div_ceil(per_second).div_ceil(1_000).max(1);
        Err(Problem::rate_limited(per_second, retry_after_ms))
    }
}

impl Bucket {
    fn left(&self, per_second: u64, full: u64, now: Instant) -> u64 {
        let elapsed: Duration = now.saturating_duration_since(self.at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.micro_calls.saturating_add(micros.saturating_mul(per_second)).min(full)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::reason::Details;
    use plimsoll_proto::v1::ErrorReason;

    use super::*;

    const CREATE: &str = "/plimsoll.v1.ReservationService/CreateReservation";

    #[test]
    fn a_caller_at_its_limit_may_renew_and_release_and_slows_nobody_else() {
        let rates = Rates::new(CallLimits { per_second: 10, burst: 3 });
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        let now = Instant::now();
        for _ in 0..3 {
            rates.take(&ada, CREATE, now).expect("within the burst");
        }
        let status = rates.take(&ada, CREATE, now).expect_err("at the limit").into_status();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let details = Details::from_status(&status).expect("ours");
        assert_eq!((details.reason, details.retry_after_ms), (ErrorReason::RateLimited, 100));
        for path in FREE {
            rates.take(&ada, path, now).expect("never counted");
        }
        rates.take(&bob, CREATE, now).expect("somebody else");
        rates.take(&ada, CREATE, now + Duration::from_millis(99)).expect_err("not yet");
        rates.take(&ada, CREATE, now + Duration::from_millis(100)).expect("after the time that was told");
    }

    #[test]
    fn memory_is_bounded_and_zero_means_no_limit() {
        let rates = Rates::new(CallLimits { per_second: 1, burst: 1 });
        let now = Instant::now();
        for index in 0..MOST_CALLERS + 100 {
            rates.take(&format!("caller-{index}").into(), CREATE, now).expect("its first");
        }
        assert!(rates.buckets.lock().len() <= MOST_CALLERS);
        let free = Rates::new(CallLimits { per_second: 0, burst: 0 });
        for _ in 0..1_000 {
            free.take(&"ada".into(), CREATE, now).expect("no limit");
        }
    }

    #[test]
    fn what_is_free_is_a_method() {
        for path in FREE {
            assert!(super::super::methods::find(path).is_some(), "{path}");
        }
    }
}
