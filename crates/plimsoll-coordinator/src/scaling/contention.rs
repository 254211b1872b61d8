//! What contention asks of a pool's scaling: machines for what is missing, where the pool's policy resolves it so; and how much is missing, as a
//! metric.

use plimsoll_ledger::{GPU, Ledger, NodeTemplate, PoolDemand, Resolve, ScalingPolicy, WHOLE_DEVICE_MILLI};

/// Most that the metric says, in thousandths of a percent: where a pool has nothing of what is asked.
const MOST_MILLI: u64 = 100_000_000;

/// Machines of the template beside those that take work that would have what is missing of the resource that needs most of them; `None` where
/// nothing is contended that the pool resolves by scaling; only then is the demand asked for.
pub(super) fn machines<'a>(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    pool: &str,
    demand: impl Fn() -> &'a PoolDemand,
) -> Option<(u64, String)> {
    let object = ledger.pool(pool).filter(|pool| ledger.resolves_by(pool, Resolve::Scale))?;
    let resolved = ledger.contentions_of(&object.name).filter(|one| one.resolving.contains(&Resolve::Scale));
    let needed = resolved.filter_map(|one| {
        let seen = demand().resources.get(&one.resource)?;
        // Of several templates, the one that has most of it.
        let of = |template: &NodeTemplate| match one.resource.as_str() {
            GPU => template.offers.gpus().saturating_mul(WHOLE_DEVICE_MILLI.into()),
            other => template.offers.resources.get(other).0,
        };
        let offered = policy.offers().iter().map(of).max().unwrap_or(0);
        let missing = seen.demand.saturating_sub(seen.open);
        (offered > 0 && missing > 0).then(|| (missing.div_ceil(offered), one.resource.clone()))
    });
    needed.max()
}

/// What is missing of the resource that is contended most, in thousandths of a percent of what the pool has.
pub(super) fn pressure_milli(demand: &PoolDemand) -> u64 {
    let worst = demand.resources.values().map(|seen| seen.pressure_permille()).max().unwrap_or(0);
    worst.saturating_mul(100).min(MOST_MILLI)
}

#[cfg(test)]
mod tests {
    use plimsoll_autoscaler::Policy as Rules;
    use plimsoll_ledger::{
        Command, ContentionPolicy, Entry, PolicyObject, Pool, Request, Requirements, ScalingTarget, Stamp,
        Verdict, Wait, WorkTemplate,
    };
    use plimsoll_types::{LedgerTime, Resources, Revision};

    use super::*;

    #[test]
    fn what_is_missing_is_asked_of_the_template_where_the_pool_says_so() {
        let mut ledger = Ledger::new();
        let mut now_ms = 1_000;
        let mut apply = |ledger: &mut Ledger, command: Command, pause_ms: u64| {
            now_ms += pause_ms;
            let stamp =
                Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(now_ms) };
            ledger.apply(stamp, &Entry::system(command));
            LedgerTime(now_ms)
        };
        let contention = ContentionPolicy { resolve: [Resolve::Scale].into(), ..ContentionPolicy::default() };
        let pool = Pool { name: "default".to_owned(), contention: Some(contention), ..Pool::default() };
        let policy = ScalingPolicy {
            name: "grow".to_owned(),
            target: ScalingTarget::Pool("default".to_owned()),
            rules: Rules { max: 9, ..Rules::default() },
            template: WorkTemplate { resources: Resources::new(4_000, 1 << 33), ..WorkTemplate::default() },
            max_leaving: 1,
            start_within_ms: 60_000,
            ..ScalingPolicy::default()
        };
        let put = vec![PolicyObject::Pool(pool), PolicyObject::ScalingPolicy(policy.clone())];
        let request = Request {
            pool: "default".to_owned(),
            class: "standard".to_owned(),
            requirements: Requirements { amounts: Resources::new(3_000, 1 << 30), ..Requirements::default() },
            wait: Wait::Queue { deadline_ms: 0 },
            ..Request::default()
        };
        apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION }, 0);
        apply(&mut ledger, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }, 0);
        for _ in 0..3 {
            let verdict = Verdict::Blocked(Vec::new());
            apply(&mut ledger, Command::Submit { request: request.clone(), verdict }, 0);
        }
        let now = apply(&mut ledger, Command::Expire { limit: 1 }, 10_000);
        let demand = ledger.contended("default", now);
        assert_eq!(machines(&ledger, &policy, "default", || &demand), None, "nothing is open yet");
        for resource in ["cpu", "memory"] {
            let (pool, resource) = ("default".to_owned(), resource.to_owned());
            apply(&mut ledger, Command::ObserveContention { pool, resource }, 0);
        }
        // 9 cores on machines of 4; 3 GiB would fit on one.
        assert_eq!(machines(&ledger, &policy, "default", || &demand), Some((3, "cpu".to_owned())));
        assert_eq!(pressure_milli(&demand), MOST_MILLI, "there is nothing of it");
    }
}
