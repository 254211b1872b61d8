//! Elastic pools in the model: `docs/semantics.md` 5.15.

use plimsoll_ledger::{Elastic, Elasticity, ScalingTarget};

use super::*;

impl Model {
    fn elastic_of(&self, pool: &str) -> Option<Elastic> {
        self.pools.get(pool).map(|pool| pool.elastic)
    }

    fn is_elastic(&self, pool: &str) -> bool {
        self.elastic_of(pool).is_some_and(|elastic| elastic.elasticity == Elasticity::Elastic)
    }

    /// Where a node is, given its registration and where it was.
    pub(super) fn place_of(
        &self,
        reg: &Registration,
        lent: Option<&Lent>,
        pool: &str,
    ) -> (String, Option<Lent>) {
        let home = self.pool_of(reg);
        match lent {
            Some(lent) if lent.home == home && self.is_elastic(&home) && self.is_elastic(pool) => {
                (pool.to_owned(), Some(lent.clone()))
            }
            _ => (home, None),
        }
    }

    pub(super) fn move_node(&mut self, id: u32, from: &str, to: &str) -> Result<(), Reason> {
        if self.version < 9 {
            return Err(Reason::UnsupportedVersion);
        }
        let n = self.nodes.get(&id).ok_or(Reason::NotFound)?.clone();
        let (Some(source), Some(target)) = (self.elastic_of(from), self.elastic_of(to)) else {
            return Err(Reason::PoolNotFound);
        };
        let started =
            self.intents.values().any(|intent| intent.removes.is_none() && intent.node == n.reg.name);
        if n.pool != from
            || from == to
            || !self.is_elastic(from)
            || !self.is_elastic(to)
            || !n.open()
            || n.health != NodeHealth::Available
            || !n.pending.is_empty()
            || started
        {
            return Err(Reason::WrongState);
        }
        let on = |r: &&Res| r.members.iter().any(|(node, _)| *node == id);
        if self.reservations.values().filter(on).any(|r| occupies(r.state) || r.state == State::Planned) {
            return Err(Reason::InUse);
        }
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let stays_ms = or(source.idle_timeout_ms, 300_000);
        if n.lent.as_ref().is_some_and(|lent| self.clock < lent.at + stays_ms) {
            return Err(Reason::WrongState);
        }
        let heard = |pool: &str| {
            let of = self.nodes.values().filter(|n| n.pool == pool);
            of.filter(|n| matches!(n.health, NodeHealth::Available | NodeHealth::Suspect)).count() as u64
        };
        if heard(from) <= u64::from(source.min_nodes) {
            return Err(Reason::LimitExceeded);
        }
        let of_pool = ScalingTarget::Pool(from.to_owned());
        if let Some(policy) = self.scaled.values().find(|policy| policy.target == of_pool)
            && self.present(policy) + self.coming(policy) <= self.wishes[&policy.name].desired
        {
            return Err(Reason::WrongState);
        }
        if target.max_nodes > 0 && heard(to) >= u64::from(target.max_nodes) {
            return Err(Reason::LimitExceeded);
        }
        let since = self.clock.saturating_sub(or(target.growth_ms, 60_000));
        let came = self.nodes.values().filter(|n| n.pool == to);
        let came = came.filter(|n| n.lent.as_ref().is_some_and(|lent| lent.at > since)).count() as u64;
        if came >= or(target.growth_nodes.into(), 1) {
            return Err(Reason::RateExceeded);
        }
        if self.calendar_needs(from, &n) {
            return Err(Reason::ReservedByCalendar);
        }
        self.keep_no_places(id);
        let (now, n) = (self.clock, self.nodes.get_mut(&id).expect("looked up above"));
        let home = n.lent.take().map_or_else(|| from.to_owned(), |lent| lent.home);
        n.lent = Some(Lent { home, at: now });
        n.pool = to.to_owned();
        Ok(())
    }

    /// What policy says of pools' nodes: bounds, the version, and nothing that scales a static pool.
    pub(super) fn elastic_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let mut pools: BTreeMap<String, Elasticity> =
            self.pools.iter().map(|(name, pool)| (name.clone(), pool.elastic.elasticity)).collect();
        let mut scaled = self.scaled.clone();
        for object in put {
            match object {
                PolicyObject::Pool(pool) => {
                    let of = pool.elastic;
                    pools.insert(pool.name.clone(), of.elasticity);
                    if of != Elastic::default() && self.version < 9 {
                        reasons.push(Reason::UnsupportedVersion);
                    }
                    let bounds =
                        (of.min_nodes, of.max_nodes, of.growth_nodes, of.growth_ms, of.idle_timeout_ms);
                    let idle = of.elasticity != Elasticity::Elastic && bounds != (0, 0, 0, 0, 0);
                    let time = |ms: u64| ms != 0 && !(1_000..=366 * 86_400_000).contains(&ms);
                    let apart = of.max_nodes > 0 && of.min_nodes > of.max_nodes;
                    let many = [of.min_nodes, of.max_nodes, of.growth_nodes].iter().any(|n| *n > 1_000_000);
                    if idle
                        || apart
                        || many
                        || time(of.growth_ms)
                        || time(of.idle_timeout_ms)
                        || of.fragmentation_permille > 1_000
                    {
                        reasons.push(Reason::InvalidArgument);
                    }
                }
                PolicyObject::ScalingPolicy(policy) => {
                    drop(scaled.insert(policy.name.clone(), policy.clone()))
                }
                _ => {}
            }
        }
        let fixed = |policy: &plimsoll_ledger::ScalingPolicy| {
            !delete.contains(&PolicyName::ScalingPolicy(policy.name.clone()))
                && matches!(&policy.target, ScalingTarget::Pool(pool) if pools.get(pool) == Some(&Elasticity::Static))
        };
        if scaled.values().any(fixed) {
            reasons.push(Reason::InvalidArgument);
        }
        reasons
    }
}
