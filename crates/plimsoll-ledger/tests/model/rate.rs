//! Rates of the model: `docs/semantics.md` 5.3. What is left is tried out, token by token.

use plimsoll_ledger::Rate;

use super::*;

const NS_PER_MS: u128 = 1_000_000;
const MINUTE_MS: u64 = 60_000;
/// Name of the rate that submissions take from.
const REQUESTS: &str = "requests";

/// Quota, rate, and for whom.
pub(crate) type Taker = (String, String, String);

/// When a bucket is full again, once `tokens` are taken of it now; `None` where they may not be.
fn taken(rate: &Rate, arrival_ns: u128, now_ns: u128, tokens: u64) -> Option<u128> {
    let needs = |n: u64| {
        let period_ns = u128::from(rate.period_ms) * NS_PER_MS;
        (u128::from(n) * period_ns).div_ceil(rate.tokens.into())
    };
    let after = arrival_ns.max(now_ns) + needs(tokens);
    (tokens <= rate.burst && after <= now_ns + needs(rate.burst)).then_some(after)
}

impl Model {
    pub(super) fn take_tokens(&mut self, taker: Taker, tokens: u64) -> Result<Came, Reason> {
        if self.version < 4 {
            return Err(Reason::UnsupportedVersion);
        }
        let rate = self.quotas.get(&taker.0).and_then(|quota| quota.rates.get(&taker.1));
        let rate = *rate.ok_or(Reason::NotFound)?;
        if tokens == 0 {
            return Err(Reason::InvalidArgument);
        }
        let arrival = self.arrivals.get(&taker).copied().unwrap_or_default();
        let at = |ms: u64| u128::from(self.clock + ms) * NS_PER_MS;
        let after = taken(&rate, arrival, at(0), tokens);
        let full = after.unwrap_or(arrival);
        let left = (1..=rate.burst).rev().find(|n| taken(&rate, full, at(0), *n).is_some());
        // The first millisecond at which they may be: a bucket of these histories is full within a minute.
        let wait_ms = (0..MINUTE_MS).find(|ms| taken(&rate, full, at(*ms), tokens).is_some());
        let retry_after_ms = match after {
            Some(_) => 0,
            None if tokens > rate.burst => u64::MAX,
            None => wait_ms.expect("it gathers so many"),
        };
        if let Some(after) = after {
            self.arrivals.insert(taker, after);
        }
        let taken = if after.is_some() { tokens } else { 0 };
        Ok(Came::Tokens { taken, left: left.unwrap_or_default(), retry_after_ms })
    }

    fn request_rates(&self, request: &Request) -> Vec<(Taker, Rate)> {
        let user = if request.tenant.is_empty() { &self.actor } else { &request.tenant };
        let of = |quota: &plimsoll_ledger::QuotaPolicy| {
            let rate = *quota.rates.get(REQUESTS)?;
            Some(((quota.name.clone(), REQUESTS.to_owned(), user.clone()), rate))
        };
        self.quotas_about(request, user).filter_map(of).collect()
    }

    pub(super) fn submit_rates(&self, request: &Request) -> Result<(), Reason> {
        let now_ns = u128::from(self.clock) * NS_PER_MS;
        let is_spent = |(taker, rate): &(Taker, Rate)| {
            let arrival = self.arrivals.get(taker).copied().unwrap_or_default();
            taken(rate, arrival, now_ns, 1).is_none()
        };
        if self.request_rates(request).iter().any(is_spent) { Err(Reason::RateExceeded) } else { Ok(()) }
    }

    /// A submission that was taken on.
    pub(super) fn count_submission(&mut self, request: &Request) {
        let now_ns = u128::from(self.clock) * NS_PER_MS;
        for (taker, rate) in self.request_rates(request) {
            let arrival = self.arrivals.get(&taker).copied().unwrap_or_default();
            let after = taken(&rate, arrival, now_ns, 1).expect("there was one when it was checked");
            self.arrivals.insert(taker, after);
        }
    }

    /// Buckets that have been full since a whole minute that is over, and since when.
    pub(super) fn rates_due(&self) -> Vec<(u64, Taker)> {
        let due = |(taker, arrival): (&Taker, &u128)| {
            let minutes = arrival.div_ceil(u128::from(MINUTE_MS) * NS_PER_MS);
            (u64::try_from(minutes).expect("of this age") * MINUTE_MS, taker.clone())
        };
        self.arrivals.iter().map(due).filter(|(at, _)| *at <= self.clock).collect()
    }
}
