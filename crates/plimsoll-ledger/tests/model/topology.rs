//! Topology and affinity in the model: `docs/semantics.md` 5.5.

use super::*;

impl Model {
    /// Levels that the request names and its pool does not have, or that are outside of the required one.
    pub(super) fn levels_make_sense(&self, request: &Request) -> bool {
        let levels = &self.pools[&request.pool].topology;
        let depth = |level: &str| {
            if level == "node" { Some(levels.len()) } else { levels.iter().position(|known| known == level) }
        };
        let asked = &request.topology;
        let named = [&asked.required, &asked.preferred, &asked.slice_level];
        let inner = [&asked.preferred, &asked.slice_level];
        named.into_iter().all(|level| level.is_empty() || depth(level).is_some())
            && request.affinity.iter().all(|rule| depth(&rule.level).is_some())
            && (asked.required.is_empty()
                || inner.into_iter().all(|level| level.is_empty() || depth(level) >= depth(&asked.required)))
    }

    /// Pool and values from the outermost level down to this one.
    fn domain(&self, node: u32, level: &str) -> Option<(String, Vec<String>)> {
        let node = self.nodes.get(&node)?;
        if level == "node" {
            return Some((node.pool.clone(), vec!["node".into(), node.reg.name.clone()]));
        }
        let levels = &self.pools.get(&node.pool)?.topology;
        let depth = levels.iter().position(|known| known == level)?;
        let labels = labels(&node.reg);
        let values: Option<Vec<String>> =
            levels[..=depth].iter().map(|level| labels.get(level).cloned()).collect();
        Some((node.pool.clone(), values?))
    }

    fn together(&self, members: &[(u32, Vec<DeviceGrant>)], level: &str) -> bool {
        let domains: Vec<_> = members.iter().map(|(node, _)| self.domain(*node, level)).collect();
        domains.iter().all(|domain| domain.is_some() && *domain == domains[0])
    }

    pub(super) fn place_reasons(
        &self,
        request: &Request,
        members: &[(u32, Vec<DeviceGrant>)],
        all: &[(u32, Vec<DeviceGrant>)],
    ) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let asked = &request.topology;
        let size = asked.slice_size as usize;
        let apart = !asked.required.is_empty() && !self.together(all, &asked.required);
        let split = size > 0
            && all.chunks(size).any(|group| group.len() < size || !self.together(group, &asked.slice_level));
        if apart || split || !asked.is_unconstrained() && !self.levels_are_there(request) {
            reasons.push(Reason::TopologyMismatch);
        }
        if members.iter().any(|(node, _)| !self.rules_hold(request, *node)) {
            reasons.push(Reason::AffinityConflict);
        }
        reasons
    }

    fn levels_are_there(&self, request: &Request) -> bool {
        let asked = plimsoll_ledger::Topology { required: String::new(), ..request.topology.clone() };
        let outer = &request.topology.required;
        self.levels_make_sense(&Request { topology: asked, ..request.clone() })
            && (outer.is_empty() || outer == "node" || self.pools[&request.pool].topology.contains(outer))
    }

    fn rules_hold(&self, request: &Request, node: u32) -> bool {
        let pool = &self.nodes[&node].pool;
        let carries =
            |r: &Res, key: &str, value: &str| r.request.labels.get(key).is_some_and(|own| own == value);
        let own = request.affinity.iter().filter(|rule| rule.weight == 0).all(|rule| {
            let here = self.domain(node, &rule.level);
            let others: Vec<u32> = self
                .counted()
                .filter(|r| carries(r, &rule.key, &rule.value))
                .flat_map(|r| r.members.iter().map(|(node, _)| *node))
                .filter(|other| self.nodes[other].pool == *pool)
                .collect();
            let there = here.is_some() && others.iter().any(|other| self.domain(*other, &rule.level) == here);
            let first = others.is_empty() && request.labels.get(&rule.key) == Some(&rule.value);
            if rule.anti { !there } else { there || first }
        });
        let of_others = self.counted().all(|r| {
            let rules = r.request.affinity.iter().filter(|rule| rule.anti && rule.weight == 0);
            rules.filter(|rule| request.labels.get(&rule.key) == Some(&rule.value)).all(|rule| {
                let here = self.domain(node, &rule.level);
                here.is_none() || r.members.iter().all(|(other, _)| self.domain(*other, &rule.level) != here)
            })
        });
        own && of_others
    }
}
