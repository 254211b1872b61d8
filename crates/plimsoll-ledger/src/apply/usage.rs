//! Limits, budgets and rates in the log: what a change of quotas must keep, tokens taken, rows dropped.

use plimsoll_types::LedgerTime;

use crate::ledger::Context;
use crate::limits::{MAX_QUOTAS, MAX_USAGE};
use crate::usage::{REQUESTS, Rate, TIERS_SINCE_VERSION, Usage, UsageKey, UsageOf, user_of};
use crate::{
    Blocker, Ledger, Outcome, PolicyName, PolicyObject, QuotaPolicy, Reason, Refusal, Request, RowPlace,
    Tokens, Verdict, Wait,
};

/// First ledger version that knows quotas of users, budgets, rates, prices in money and default durations.
pub(crate) const SINCE_VERSION: u32 = 4;

/// Most bytes of what a taker of tokens names.
const LONGEST_SCOPE: usize = 253;

impl Ledger {
    /// Takes tokens of a rate, all or none.
    pub(crate) fn apply_take_tokens(
        &mut self,
        context: &Context<'_>,
        quota: &str,
        rate: &str,
        scope: &str,
        tokens: u64,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "rates")?;
        let Some(policy) = self.quota_policies.get(quota) else {
            return Err(Refusal::one(Reason::NotFound, format!("quota {quota}"), 1, 0));
        };
        let Some(rule) = policy.rates.get(rate).copied() else {
            return Err(Refusal::one(Reason::NotFound, format!("rate {rate} of quota {quota}"), 1, 0));
        };
        if tokens == 0 || scope.len() > LONGEST_SCOPE {
            let (field, value, most) = if tokens == 0 {
                ("tokens", 0, 1)
            } else {
                ("scope", scope.len() as u64, LONGEST_SCOPE as u64)
            };
            return Err(Refusal::one(Reason::InvalidArgument, field, value, most));
        }
        let told = self.take(&rate_key(quota, rate, scope), rule, tokens, context.now)?;
        Ok(Outcome::Tokens(told))
    }

    /// What keeps a request from being submitted, or from waiting, whatever the planner found: rates of submissions, limits that waiting does not help
    /// against. `least` is the least of it that is of use.
    pub(crate) fn check_submit_usage(
        &self,
        request: &Request,
        requester: &str,
        verdict: &Verdict,
    ) -> Result<(), Refusal> {
        if !self.counts_usage() {
            return Ok(());
        }
        for (key, rule) in self.request_rates(request, requester) {
            let arrival_ns = self.book.get(&key).map_or(0, |row| row.spent);
            let (told, _) = rule.take(arrival_ns, self.meta.clock, 1);
            if told.taken == 0 {
                let subject = format!(
                    "requests of user {} in quota {}, again in {} ms",
                    key.who, key.quota, told.retry_after_ms
                );
                let blocker = Blocker::new(Reason::RateExceeded, subject, 1, told.left);
                let blockers = vec![Blocker { limit: rule.burst, ..blocker }];
                return Err(Refusal { reason: Reason::RateExceeded, blockers });
            }
        }
        let total = crate::quota::least(request);
        let least = self.cheapest(&total, &request.pool);
        let short = self.shortages(request, requester, least, &Default::default());
        let refuse = request.wait == Wait::Refuse || short.iter().any(|short| short.at_once);
        if short.is_empty() || !refuse {
            return Ok(());
        }
        let mut blockers: Vec<Blocker> = short.into_iter().map(|short| short.blocker).collect();
        blockers.sort_by_key(|blocker| blocker.reason);
        let reason = blockers[0].reason;
        if let Verdict::Blocked(more) | Verdict::Infeasible(more) = verdict {
            let of_usage = [Reason::LimitExceeded, Reason::BudgetExhausted];
            blockers.extend(more.iter().filter(|blocker| !of_usage.contains(&blocker.reason)).cloned());
        }
        Err(Refusal { reason, blockers })
    }

    /// Counts a submission that was taken on against the rates of its user.
    pub(crate) fn count_submission(&mut self, request: &Request, requester: &str) {
        if !self.counts_usage() {
            return;
        }
        let now = self.meta.clock;
        for (key, rule) in self.request_rates(request, requester) {
            // There was room when it was checked; a full table forgets the take, not the request.
            let _counted = self.take(&key, rule, 1, now);
        }
    }

    fn request_rates(&self, request: &Request, requester: &str) -> Vec<(UsageKey, Rate)> {
        let user = user_of(request, requester);
        let near = self.quota_index.near(user, self.quota.path(&request.queue));
        let quotas = near.filter_map(|name| self.quota_policies.get(name));
        let about = quotas.filter(|quota| quota.is_about_user(user));
        about
            .filter_map(|quota| Some((rate_key(&quota.name, REQUESTS, user), *quota.rates.get(REQUESTS)?)))
            .collect()
    }

    fn take(&mut self, key: &UsageKey, rule: Rate, tokens: u64, now: LedgerTime) -> Result<Tokens, Refusal> {
        let old = self.book.get(key).map_or(0, |row| row.spent);
        if old == 0 && self.book.len() >= MAX_USAGE {
            return Err(Refusal::one(Reason::TableFull, "usage", MAX_USAGE as u64 + 1, MAX_USAGE as u64));
        }
        let (told, arrival_ns) = rule.take(old, now, tokens);
        if told.taken > 0 {
            let key = key.clone();
            self.put_usage(Usage { key, period: 0, spent: arrival_ns, committed: 0, stamp: LedgerTime(0) });
        }
        Ok(told)
    }

    /// Everything that keeps quotas from being in order once all is put and deleted.
    pub(crate) fn check_quotas(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if let Err(refusal) = self.require_version(SINCE_VERSION, "quotas") {
            if put.iter().any(is_of_usage) {
                blockers.extend(refusal.blockers);
            }
            return;
        }
        if put.iter().any(is_of_tiers) {
            self.knows(TIERS_SINCE_VERSION, "tiers of users", blockers);
        }
        let gone = |of: &str| delete.iter().any(|name| matches!(name, PolicyName::Quota(name) if name == of));
        let new = put.iter().filter_map(|object| match object {
            PolicyObject::Quota(quota) => Some(quota),
            _ => None,
        });
        let new: Vec<&QuotaPolicy> = new.filter(|quota| !gone(&quota.name)).collect();
        let kept = self.quota_policies.values().map(AsRef::as_ref);
        let kept = kept.filter(|old| !gone(&old.name) && new.iter().all(|quota| quota.name != old.name));
        let after: Vec<&QuotaPolicy> = kept.chain(new.iter().copied()).collect();
        if after.len() > MAX_QUOTAS {
            let (count, most) = (after.len() as u64, MAX_QUOTAS as u64);
            let blocker = Blocker::new(Reason::InvalidArgument, "quotas", count, most);
            blockers.push(Blocker { limit: most, ..blocker });
        }
        for quota in after.iter().filter(|quota| !quota.queue.is_empty()) {
            let put = put
                .iter()
                .any(|object| matches!(object, PolicyObject::Queue(queue) if queue.name == quota.queue));
            let deleted =
                delete.iter().any(|name| matches!(name, PolicyName::Queue(name) if *name == quota.queue));
            if deleted || !(put || self.queues.contains_key(&quota.queue)) {
                let reason = if deleted { Reason::InUse } else { Reason::QueueNotFound };
                let subject = format!("{}, the queue of quota {}", quota.queue, quota.name);
                blockers.push(Blocker::new(reason, subject, 1, 0));
            }
        }
        for name in delete {
            let PolicyName::Quota(name) = name else { continue };
            let committed =
                self.book.of_quota(name).filter(|row| row.at(self.meta.clock).committed > 0).count();
            if committed > 0 {
                blockers.push(Blocker::new(Reason::InUse, format!("quota {name}"), 0, committed as u64));
            }
        }
        self.check_currencies(put, &after, blockers);
    }

    /// One cluster counts in one currency: no sum is over two.
    fn check_currencies(&self, put: &[PolicyObject], quotas: &[&QuotaPolicy], blockers: &mut Vec<Blocker>) {
        let new_pools = put.iter().filter_map(|object| match object {
            PolicyObject::Pool(pool) => Some(pool),
            _ => None,
        });
        let is_new = |name: &str| {
            put.iter().any(|object| matches!(object, PolicyObject::Pool(pool) if pool.name == name))
        };
        let kept = self.pools.values().map(AsRef::as_ref).filter(|pool| !is_new(&pool.name));
        let of_pools = kept.chain(new_pools).map(|pool| ("pool", &pool.name, &pool.currency));
        let of_quotas = quotas.iter().map(|quota| ("quota", &quota.name, &quota.currency));
        let mut named = of_pools.chain(of_quotas).filter(|(_, _, currency)| !currency.is_empty());
        let Some((_, _, first)) = named.next() else { return };
        for (kind, name, currency) in named.filter(|(_, _, currency)| *currency != first) {
            let subject = format!("currency {currency} of {kind} {name}: this cluster counts in {first}");
            blockers.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
        }
    }

    /// Drops rows that say nothing any more; at most `limit`.
    pub(crate) fn forget_usage(&mut self, now: LedgerTime, limit: u32) {
        for _ in 0..limit {
            match self.book.first_due() {
                Some((due, key)) if *due <= now => {
                    let key = key.clone();
                    self.remove_usage(&key);
                }
                _ => break,
            }
        }
    }

    pub(crate) fn put_usage(&mut self, row: Usage) {
        self.touched.row(RowPlace::Usage(row.key.clone()));
        self.book.put(row);
    }

    pub(crate) fn remove_usage(&mut self, key: &UsageKey) {
        self.touched.row(RowPlace::Usage(key.clone()));
        self.book.remove(key);
    }

    /// Drops all rows of a quota that goes: nothing is committed of it.
    pub(crate) fn remove_usage_of(&mut self, quota: &str) {
        let keys: Vec<UsageKey> = self.book.of_quota(quota).map(|row| row.key.clone()).collect();
        for key in keys {
            self.remove_usage(&key);
        }
    }
}

/// Key of a rate's row.
fn rate_key(quota: &str, rate: &str, scope: &str) -> UsageKey {
    UsageKey { quota: quota.to_owned(), of: UsageOf::Rate(rate.to_owned()), who: scope.to_owned() }
}

/// True for what ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_usage(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Quota(_) => true,
        PolicyObject::Pool(pool) => !pool.prices.is_empty() || !pool.currency.is_empty(),
        PolicyObject::Class(class) => class.default_duration_ms != 0,
        PolicyObject::NodeLimits(_)
        | PolicyObject::Queue(_)
        | PolicyObject::Schedule(_)
        | PolicyObject::Service(_)
        | PolicyObject::ScalingPolicy(_)
        | PolicyObject::Validator(_) => false,
    }
}

/// True for what ledgers before [`TIERS_SINCE_VERSION`] do not know.
pub(crate) fn is_of_tiers(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Quota(quota) if quota.tier.is_some())
}

/// True for what of a request ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_usage(request: &Request) -> bool {
    request.max_cost_micros != 0
}
