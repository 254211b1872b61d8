//! Power of a pool: what its nodes, and the machines on their way to it, draw at most, beside what it may (`docs/semantics.md` 5.9).

use super::{NodeTemplate, POWER, ScalingPolicy, ScalingTarget};
use crate::{Intent, Ledger, PolicyObject};

/// A pool's power, in watts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// It may draw so much.
    pub budget: u64,
    /// Its nodes, and those on their way, draw so much at most.
    pub committed: u64,
}

impl Power {
    /// Watts that are left.
    pub fn left(&self) -> u64 {
        self.budget.saturating_sub(self.committed)
    }
}

impl Ledger {
    /// The power of a pool that has a budget of it. Nodes count for as long as they are known, heard of or not: a silent one may draw what it did.
    /// O(nodes + intents).
    pub fn power(&self, pool: &str) -> Option<Power> {
        let budget = self.pool(pool)?.power_budget_watts;
        if budget == 0 {
            return None;
        }
        let nodes = self.nodes().filter(|node| node.pool == pool);
        let there = nodes.map(|node| node.registration.capacity.get(POWER).0).fold(0, u64::saturating_add);
        let policy = self.scaling_policy_of(&ScalingTarget::Pool(pool.to_owned()));
        let coming = policy.map_or(0, |policy| self.watts_coming(policy));
        Some(Power { budget, committed: there.saturating_add(coming) })
    }

    /// What machines on their way draw at most.
    fn watts_coming(&self, policy: &ScalingPolicy) -> u64 {
        let coming = |intent: &&std::sync::Arc<Intent>| {
            intent.starts() && intent.is_open() && !self.is_present(policy, intent)
        };
        let watts = |template: &str| policy.offer(template).map_or(0, |offer| NodeTemplate::watts(&offer));
        let intents = self.intents_of(&policy.name).filter(coming);
        intents.map(|intent| watts(&intent.template)).fold(0, u64::saturating_add)
    }
}

/// True for policy that ledgers before version 12 do not know.
pub(crate) fn is_of_power(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if pool.power_budget_watts > 0)
}
