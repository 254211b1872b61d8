//! Passing calls on to the leader, byte for byte, so that any coordinator accepts any call.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use parking_lot::Mutex;
use plimsoll_consensus::Dialer;
use plimsoll_mutants::mutant;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use super::caller::{self, Actor};
use crate::core::Core;
use crate::services::problem::Problem;

/// Marks a call that was passed on once; it is not passed on again, so that two coordinators that each think the other
/// leads do not play ball.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("plimsoll-forwarded-by");

/// Where the leader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// This coordinator, and it takes commands.
    Here,
    /// At this address.
    At(String),
    /// Nowhere, or not ready.
    None,
}

/// Passes calls on. One connection, to the present leader.
pub(super) struct Forwarder {
    core: Core,
    dialer: Arc<dyn Dialer>,
    channel: Mutex<Option<(String, Channel)>>,
}

impl Forwarder {
    pub(super) fn new(core: Core, dialer: Arc<dyn Dialer>) -> Forwarder {
        Forwarder { core, dialer, channel: Mutex::new(None) }
    }

    /// Where the leader is now: another coordinator's address, or here.
    pub(super) fn leader(&self) -> Leader {
        if self.core.is_leader() {
            return if self.core.status().serving { Leader::Here } else { Leader::None };
        }
        match self.core.leader_address() {
            Some((id, address)) if id != self.core.node_id() => Leader::At(address),
            _ => Leader::None,
        }
    }

    /// Passes a call on and gives back the leader's answer as it comes, streams included. `left` is the time that the
    /// caller grants.
    pub(super) async fn pass_on(
        &self,
        address: &str,
        mut request: Request<Body>,
        actor: &Actor,
        left: Option<Duration>,
    ) -> Result<Response<Body>, Problem> {
        let headers = request.headers_mut();
        headers.insert(FORWARDED, HeaderValue::from(self.core.node_id()));
        // A name that does not fit into a header is the leader's to refuse: it then sees this coordinator's own name.
        if let Some(actor) = caller::header(actor) {
            headers.insert(caller::ACTOR, actor);
        }
        if mutant!("forwarded-loses-actor") {
            headers.remove(caller::ACTOR);
        }
        if let Some(left) = left {
            headers.insert("grpc-timeout", timeout_header(left));
        }
        // What the connection left behind here means nothing there.
        request.extensions_mut().clear();
        let mut channel = self.channel(address);
        let ready = std::future::poll_fn(|context| channel.poll_ready(context)).await;
        ready.map_err(|error| self.unreachable(address, &error, true))?;
        channel.call(request).await.map_err(|error| {
            let never_sent = is_connect_error(&error);
            self.unreachable(address, &error, never_sent)
        })
    }

    fn channel(&self, address: &str) -> Channel {
        let mut kept = self.channel.lock();
        match &*kept {
            Some((known, channel)) if known == address => channel.clone(),
            _ => {
                let channel = self.dialer.channel(address);
                *kept = Some((address.to_owned(), channel.clone()));
                channel
            }
        }
    }

    fn unreachable(&self, address: &str, error: &tonic::transport::Error, definite: bool) -> Problem {
        tracing::debug!(address, error = %error_chain(error), "the leader could not be reached");
        if definite {
            Problem::not_leader(Some(address)).because("the leader cannot be reached from here")
        } else {
            Problem::outcome_unknown("the connection to the leader broke")
        }
    }
}

/// True where the call cannot have reached the other side.
fn is_connect_error(error: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Milliseconds, as the gRPC protocol writes timeouts: at most eight digits.
fn timeout_header(left: Duration) -> HeaderValue {
    let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).clamp(1, 99_999_999);
    HeaderValue::try_from(format!("{left_ms}m")).expect("digits and a letter")
}

/// Reads the header that gRPC clients set: up to eight digits and a unit.
pub(super) fn timeout_of(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3_600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_and_written() {
        let read = |text: &'static str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            timeout_of(&headers)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        for bad in ["", "m", "100", "123456789m", "-1S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(timeout_header(Duration::from_micros(1)), "1m");
        assert_eq!(timeout_header(Duration::from_secs(30)), "30000m");
    }
}
