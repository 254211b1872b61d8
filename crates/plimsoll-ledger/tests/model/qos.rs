//! Quality of service in the model: `docs/semantics.md` 5.11, every sum made anew.

use plimsoll_ledger::Qos;

use super::*;

fn loose(request: &Request) -> bool {
    request.qos == Some(Qos::BestEffort)
}

/// True where who holds `victim` stands on what is idle and who asks does not.
pub(super) fn gives_way(claimant: &Request, victim: &Request) -> bool {
    loose(victim) && !loose(claimant)
}

/// True where who asks takes only what is idle, and who holds `victim` stands on what is there.
pub(super) fn out_of_reach(claimant: &Request, victim: &Request) -> bool {
    loose(claimant) && !loose(victim)
}

impl Model {
    /// What is left of a resource of a node for a request: of all that is offered for those who take what is idle, else also of what is there.
    pub(super) fn room(&self, request: &Request, node: u32, name: &str) -> u64 {
        let real = self.nodes[&node].allocatable.get(name).0;
        let ratio = self.pools[&request.pool].oversubscription.get(name).copied().unwrap_or(1_000);
        let offered = (u128::from(real) * u128::from(ratio) / 1_000).min(u128::from(u64::MAX >> 1)) as u64;
        let used = self.used(node, name);
        let in_all = offered.max(real).saturating_sub(used);
        if loose(request) {
            in_all
        } else {
            in_all.min(real.saturating_sub(used - self.loose_on(node, name)))
        }
    }

    /// What those who take what is idle have on a node.
    fn loose_on(&self, node: u32, name: &str) -> u64 {
        if !self.pools.contains_key(&self.nodes[&node].pool) {
            return 0;
        }
        let holding = self.counted().filter(|r| loose(&r.request));
        let on_nodes = holding.filter(|r| !self.pools[&r.request.pool].countables.contains_key(name));
        on_nodes
            .map(|r| r.amounts.get(name).0 * r.members.iter().filter(|(on, _)| *on == node).count() as u64)
            .sum()
    }

    /// The request as its class fills it in, where it makes sense.
    pub(super) fn with_qos(&self, request: &Request) -> Result<Request, Reason> {
        let mut filled = request.clone();
        filled.qos = request.qos.or_else(|| self.qos.get(&request.class).copied().flatten());
        let share = request.requirements.gpu.as_ref().map(|gpu| gpu.share);
        let advisory = matches!(share, Some(GpuShare::Milli(_) | GpuShare::Memory(_)));
        let bursts = !request.burst.is_zero();
        let too_little = |(name, most): (&str, plimsoll_types::Amount)| {
            let asked = request.requirements.amounts.get(name);
            asked.is_zero() || most < asked
        };
        let wrong = filled.qos == Some(Qos::Guaranteed) && advisory
            || bursts && filled.qos != Some(Qos::Burstable)
            || request.burst.iter().any(too_little);
        if wrong { Err(Reason::InvalidArgument) } else { Ok(filled) }
    }

    pub(super) fn qos_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for object in put {
            let says = match object {
                PolicyObject::Pool(pool) => !pool.oversubscription.is_empty(),
                PolicyObject::Class(class) => class.qos.is_some() || class.latency_target_ms.is_some(),
                _ => false,
            };
            if says && self.version < 7 {
                reasons.push(Reason::UnsupportedVersion);
            }
            if let PolicyObject::Pool(pool) = object
                && pool.oversubscription.iter().any(|(name, ratio)| {
                    name == "gpu" || pool.countables.contains_key(name) || !(1_000..=100_000).contains(ratio)
                })
            {
                reasons.push(Reason::InvalidArgument);
            }
        }
        reasons
    }
}
