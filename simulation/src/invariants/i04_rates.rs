//! I4 of rates: in no stretch of time more tokens are taken than the burst and what comes in it, none are denied that are there, and clients
//! are told what the log has.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Command, Outcome, Rate, Request, matches_pattern};
use plimsoll_types::Revision;

use super::{Findings, Invariant, is_of_tier};
use crate::history::Answer;
use crate::oracle::{Case, Step};
use crate::request::Effect;

/// See the module.
#[derive(Default)]
pub(super) struct Rates {
    /// Tokens taken, by quota, rate and scope: when, in milliseconds, and how many.
    takes: BTreeMap<(String, String, String), Vec<(u64, u64)>>,
    /// When the tokens of a quota's rate may be missing up to, by all that may have been taken before policy changed, in nanoseconds.
    owing: BTreeMap<(String, String), u128>,
    /// The same by scope, with what was taken since: a rate that is always asked for more than it has never catches up.
    arrivals: BTreeMap<(String, String, String), u128>,
}

const NS_PER_MS: u128 = 1_000_000;

impl Invariant for Rates {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        // A rate that is put anew is told from the one before by nothing: what was taken is forgotten here, which only allows more. The
        // ledger may go on counting it: whether a denial was right goes by the most that may be missing.
        if matches!(&step.entry.command, Command::ApplyPolicy { .. }) {
            self.arrivals.clear();
            for quota in step.before.quotas.values() {
                for (name, rate) in &quota.rates {
                    let until_ns = u128::from(step.after.log_time.0) * NS_PER_MS + time_for(rate, rate.burst);
                    let owing = self.owing.entry((quota.name.clone(), name.clone())).or_default();
                    *owing = until_ns.max(*owing);
                }
            }
        }
        self.takes.retain(|(quota, rate, _), _| {
            let rate_in = |quotas: &BTreeMap<String, _>| -> Option<Rate> {
                let quota: &std::sync::Arc<plimsoll_ledger::QuotaPolicy> = quotas.get(quota)?;
                quota.rates.get(rate).copied()
            };
            let (old, new) = (rate_in(&step.before.quotas), rate_in(&step.after.quotas));
            new.is_some() && old == new && !matches!(&step.entry.command, Command::ApplyPolicy { .. })
        });
        if step.replayed {
            return;
        }
        match (&step.entry.command, &step.outcome) {
            (Command::TakeTokens { quota, rate, scope, tokens }, Outcome::Tokens(told)) => {
                let key = (quota.clone(), rate.clone(), scope.clone());
                self.took(step, key, *tokens, told.taken, findings);
            }
            (Command::Submit { request, .. }, Outcome::Reservation(_)) => {
                for key in counted(step, request) {
                    self.took(step, key, 1, 1, findings);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let taken: BTreeMap<&str, (u64, bool)> = case
            .steps
            .values()
            .filter_map(|step| match &step.outcome {
                Outcome::Tokens(told) => Some((step.request_id.as_str(), (told.taken, step.replayed))),
                _ => None,
            })
            .collect();
        // A refusal before the log (a version that is not in force yet) is not kept under its id: the same call once more may take effect.
        let takes = || case.calls.iter().filter(|call| call.request.effect() == Effect::Tokens);
        let elsewhere: BTreeSet<&str> = takes()
            .filter(|call| !matches!(call.answer, Answer::Refused(_)))
            .map(|call| call.request.request_id())
            .collect();
        for call in takes() {
            // One take in each call; its id is made of the call's and its place.
            let id = format!("{}/0", call.request.request_id());
            let logged = taken.get(id.as_str()).map_or(0, |(taken, _)| *taken);
            let wrong = match &call.answer {
                Answer::Done(done) => done.taken != Some(logged) || logged == 0,
                Answer::Refused(_) => logged > 0 && !elsewhere.contains(call.request.request_id()),
                Answer::Unknown(_) => false,
            };
            if wrong {
                let detail = format!("{id}: told {:?}, and {logged} tokens were taken", call.answer);
                findings.add("I9", Revision(0), detail);
            }
        }
    }
}

impl Rates {
    fn took(
        &mut self,
        step: &Step,
        key: (String, String, String),
        asked: u64,
        taken: u64,
        findings: &mut Findings,
    ) {
        let rule = step.before.quotas.get(&key.0).and_then(|quota| quota.rates.get(&key.1)).copied();
        let Some(rule) = rule else {
            findings.add("I4", step.revision, format!("{key:?} is a rate that is not there"));
            return;
        };
        let now_ms = step.after.log_time.0;
        let takes = self.takes.entry(key.clone()).or_default();
        if taken > 0 {
            takes.push((now_ms, taken));
        }
        // Most that any stretch up to now has beyond what came in it, in tokens x periods.
        let (mut sum, mut beyond) = (0, 0);
        for (since_ms, tokens) in takes.iter().rev() {
            sum += u128::from(*tokens) * u128::from(rule.period_ms);
            let came = u128::from(now_ms - since_ms) * u128::from(rule.tokens);
            beyond = beyond.max(sum.saturating_sub(came));
        }
        let burst = u128::from(rule.burst) * u128::from(rule.period_ms);
        if taken > 0 && (taken != asked || beyond > burst) {
            findings.add("I4", step.revision, format!("{key:?}: {taken} tokens of {asked} beyond {rule:?}"));
        }
        let now_ns = u128::from(now_ms) * NS_PER_MS;
        let owing_ns = self.owing.get(&(key.0.clone(), key.1.clone())).copied().unwrap_or_default();
        let arrival_ns = self.arrivals.entry(key.clone()).or_insert(owing_ns);
        *arrival_ns = (*arrival_ns).max(now_ns) + time_for(&rule, taken);
        // Times are rounded up: one token of grace.
        if taken == 0 && *arrival_ns + time_for(&rule, asked + 1) <= now_ns + time_for(&rule, rule.burst) {
            let latest: Vec<_> = takes.iter().rev().take(5).collect();
            let detail =
                format!("{key:?}: {asked} tokens denied at {now_ms} ms, which {rule:?} has after {latest:?}");
            findings.add("I4", step.revision, detail);
        }
    }
}

/// How long it takes until so many tokens come, in nanoseconds, rounded up.
fn time_for(rate: &Rate, tokens: u64) -> u128 {
    (u128::from(tokens) * u128::from(rate.period_ms) * NS_PER_MS).div_ceil(u128::from(rate.tokens.max(1)))
}

/// The rates that count a submission.
fn counted(step: &Step, request: &Request) -> Vec<(String, String, String)> {
    let user = if request.tenant.is_empty() { &step.entry.actor } else { &request.tenant };
    let first = step.before.queues.get(&request.queue);
    let up = std::iter::successors(first, |queue| step.before.queues.get(&queue.parent));
    let path: Vec<&String> = up.map(|queue| &queue.name).collect();
    let about = step.before.quotas.values().filter(|quota| {
        quota.rates.contains_key("requests")
            && (quota.queue.is_empty() || path.contains(&&quota.queue))
            && (quota.tenant.is_empty() || matches_pattern(&quota.tenant, user))
            && is_of_tier(&step.before, quota, user)
    });
    about.map(|quota| (quota.name.clone(), "requests".to_owned(), user.clone())).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::{QuotaPolicy, Tokens};
    use plimsoll_types::LedgerTime;

    use super::*;
    use crate::invariants::fixture::{found, node, step};

    /// Takes of a rate of 2 a second, at most 3 at once: when, how many were asked (0: policy is put), how many were taken.
    fn look(takes: &[(u64, u64, u64)]) -> Vec<&'static str> {
        let mut rates = Rates::default();
        let mut all = Vec::new();
        for (at_ms, asked, taken) in takes {
            let is_put = *asked == 0;
            let mut one = step(&[node(0)], &[]);
            let api = [("api".to_owned(), Rate { tokens: 2, period_ms: 1_000, burst: 3 })];
            let quota = QuotaPolicy { name: "hours".to_owned(), rates: api.into(), ..QuotaPolicy::default() };
            let quota = Arc::new(quota);
            one.before_mut().quotas.insert("hours".to_owned(), Arc::clone(&quota));
            one.after_mut().quotas.insert("hours".to_owned(), quota);
            one.after_mut().log_time = LedgerTime(*at_ms);
            let (quota, rate, scope) = ("hours".to_owned(), "api".to_owned(), String::new());
            one.entry.command = if is_put {
                Command::ApplyPolicy { put: Vec::new(), delete: Vec::new(), if_revision: Revision(0) }
            } else {
                Command::TakeTokens { quota, rate, scope, tokens: *asked }
            };
            let told = Outcome::Tokens(Tokens { taken: *taken, left: 0, retry_after_ms: 0 });
            one.outcome = if is_put { Outcome::Done } else { told };
            all.extend(found(&mut rates, &one));
        }
        all
    }

    #[test]
    fn more_tokens_than_there_are_are_found_and_so_is_a_denial_of_those_that_are_there() {
        let nothing = Vec::<&str>::new();
        assert_eq!(look(&[(1_000, 3, 3), (1_500, 1, 1), (2_000, 1, 1)]), nothing);
        assert_eq!(look(&[(1_000, 3, 3), (1_499, 1, 1)]), ["I4"]);
        assert_eq!(look(&[(1_000, 3, 3), (1_499, 1, 0)]), nothing);
        assert_eq!(look(&[(1_000, 3, 3), (2_000, 1, 0)]), ["I4"]);
        assert_eq!(look(&[(1_000, 2, 1)]), ["I4"], "all or none");
        assert_eq!(look(&[(1_000, 4, 0)]), nothing, "never so many");
        let put = |then_ms| look(&[(1_000, 3, 3), (1_100, 0, 0), (then_ms, 1, 0)]);
        assert_eq!(put(1_200), nothing, "the ledger may still count what was taken before");
        assert_eq!(put(2_600), ["I4"], "by then a whole burst has come in");
    }
}
