//! What makes no sense of levels and rules, and what `admit` asks of the places of members.

use std::collections::{BTreeMap, BTreeSet};

use crate::admit::Sight;
use crate::limits::{MAX_AFFINITY, MAX_LEVELS};
use crate::topology::rules::ConflictKind;
use crate::{
    Blocker, Conflict, Domain, Ledger, MemberPlacement, NODE_LEVEL, Placement, PolicyObject, Pool, Reason,
    Refusal, Request, Surroundings,
};

/// Longest key or value of a label that a rule or level names, in bytes.
const MAX_TEXT: u64 = 316;

/// True for requests that ledgers before `SINCE_VERSION` do not know.
pub(crate) fn asks_for_topology(request: &Request) -> bool {
    !request.topology.is_unconstrained() || !request.affinity.is_empty()
}

/// True for policy that ledgers before `SINCE_VERSION` do not know.
pub(crate) fn is_of_topology(object: &PolicyObject) -> bool {
    matches!(object, PolicyObject::Pool(pool) if !pool.topology.is_empty())
}

/// Every way in which what a request asks of its places makes no sense, whatever its pool.
pub(crate) fn validate_place(request: &Request) -> Vec<Blocker> {
    let mut bad = Vec::new();
    let topology = &request.topology;
    for (field, level) in topology.levels() {
        text(&mut bad, field, level, 1);
    }
    if (topology.slice_size == 0) != topology.slice_level.is_empty() {
        bad.push(invalid("topology.slice_size", topology.slice_size.into(), 1));
    }
    let group = topology.group();
    for (field, members) in
        [("gang.min_members", request.gang.min_members), ("gang.max_members", request.gang.max_members)]
    {
        if members % group != 0 {
            bad.push(invalid(&format!("{field} in groups"), members.into(), group.into()));
        }
    }
    let many = request.affinity.len() as u64;
    if many > MAX_AFFINITY as u64 {
        bad.push(invalid("affinity", many, MAX_AFFINITY as u64));
    }
    for rule in &request.affinity {
        text(&mut bad, "affinity.key", &rule.key, 1);
        text(&mut bad, "affinity.value", &rule.value, 0);
        text(&mut bad, "affinity.level", &rule.level, 1);
        if rule.weight > 100 {
            bad.push(invalid("affinity.weight", rule.weight.into(), 100));
        }
    }
    bad
}

/// Every way in which the levels of a pool make no sense.
pub(crate) fn validate_levels(pool: &Pool) -> Vec<Blocker> {
    let mut bad = Vec::new();
    let many = pool.topology.len() as u64;
    if many > MAX_LEVELS as u64 {
        bad.push(invalid("pool.topology", many, MAX_LEVELS as u64));
    }
    let mut seen = BTreeSet::new();
    for level in &pool.topology {
        text(&mut bad, "pool.topology", level, 1);
        if level == NODE_LEVEL || !seen.insert(level) {
            bad.push(invalid(&format!("pool.topology {level:?}"), 2, 1));
        }
    }
    bad
}

fn text(bad: &mut Vec<Blocker>, field: &str, value: &str, least: u64) {
    let length = value.len() as u64;
    if !(least..=MAX_TEXT).contains(&length) {
        bad.push(invalid(field, length, if length < least { least } else { MAX_TEXT }));
    }
}

fn invalid(field: &str, value: u64, expected: u64) -> Blocker {
    Blocker::new(Reason::InvalidArgument, field, value, expected)
}

impl Pool {
    /// How far inside a level is: 0 for the outermost of the pool's levels, their number for `node`. `None` where there is no such level.
    pub fn depth_of(&self, level: &str) -> Option<usize> {
        if level == NODE_LEVEL {
            return Some(self.topology.len());
        }
        self.topology.iter().position(|known| known == level)
    }
}

impl Ledger {
    /// Levels that the pool does not have, or that are the wrong way round. For new requests.
    pub(crate) fn check_levels(&self, request: &Request) -> Result<(), Refusal> {
        let Some(pool) = self.pool(&request.pool) else { return Ok(()) };
        let mut bad = self.unknown_levels(request);
        let depth = |level: &str| pool.depth_of(level);
        let asked = &request.topology;
        if bad.is_empty() {
            for (field, level) in asked.levels() {
                // A wish or a group outside of what is required says nothing.
                if let (Some(inner), Some(outer)) = (depth(level), depth(&asked.required))
                    && inner < outer
                {
                    bad.push(invalid(field, inner as u64, outer as u64));
                }
            }
        } else {
            bad.iter_mut().for_each(|blocker| blocker.reason = Reason::InvalidArgument);
        }
        if bad.is_empty() { Ok(()) } else { Err(Refusal { reason: Reason::InvalidArgument, blockers: bad }) }
    }

    /// Levels that a request must have and its pool does not: they went after it was submitted. `limit` is how many levels there are.
    pub fn unknown_levels(&self, request: &Request) -> Vec<Blocker> {
        let Some(pool) = self.pool(&request.pool) else { return Vec::new() };
        let asked = request.topology.levels().map(|(_, level)| level);
        let levels: BTreeSet<&str> =
            asked.chain(request.affinity.iter().map(|rule| rule.level.as_str())).collect();
        let unknown = levels.into_iter().filter(|level| pool.depth_of(level).is_none());
        let blocker = |level: &str| Blocker {
            limit: pool.topology.len() as u64 + 1,
            ..Blocker::new(Reason::TopologyMismatch, format!("level {level} of pool {}", pool.name), 1, 0)
        };
        unknown.map(blocker).collect()
    }

    /// What of the places of members against each other and against other work would keep a new grant from them: the part of
    /// [`Ledger::admit`] that is not about amounts.
    pub fn beside_blockers(&self, request: &Request, placement: &Placement) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        self.check_topology(request, &placement.members, &mut blockers);
        self.check_affinity(request, placement, Sight::Both, &mut blockers);
        blockers
    }

    /// Where the members are against each other. O(members).
    pub(crate) fn check_topology(
        &self,
        request: &Request,
        members: &[MemberPlacement],
        blockers: &mut Vec<Blocker>,
    ) {
        let asked = &request.topology;
        if asked.is_unconstrained() {
            return;
        }
        blockers.extend(self.unknown_levels(request));
        if !asked.required.is_empty() {
            blockers.extend(self.apart(members, &asked.required));
        }
        if asked.slice_size > 0 {
            let size = asked.slice_size as usize;
            let groups = members.chunks(size);
            let odd = members.len() % size;
            if odd > 0 {
                blockers.push(Blocker::new(
                    Reason::TopologyMismatch,
                    format!("members in groups of {size}"),
                    members.len() as u64,
                    (members.len() - odd) as u64,
                ));
            }
            blockers.extend(groups.filter_map(|group| self.apart(group, &asked.slice_level)));
        }
    }

    /// What stands in the way of members that are not all in one domain of a level: the domain with most of them.
    fn apart(&self, members: &[MemberPlacement], level: &str) -> Option<Blocker> {
        let mut by_domain: BTreeMap<Domain, u64> = BTreeMap::new();
        for member in members {
            if let Some(domain) = self.chain(member.node).and_then(|chain| chain.at(member.node, level)) {
                *by_domain.entry(domain).or_default() += 1;
            }
        }
        let most = by_domain.iter().max_by_key(|(domain, count)| (**count, std::cmp::Reverse(*domain)));
        let together = most.map_or(0, |(_, count)| *count);
        let asked = members.len() as u64;
        let subject = || most.map_or_else(|| level.to_owned(), |(domain, _)| self.domain_name(level, domain));
        (together < asked).then(|| Blocker::new(Reason::TopologyMismatch, subject(), asked, together))
    }

    /// `rack a/3`: a level and a domain of it.
    pub fn domain_name(&self, level: &str, domain: &Domain) -> String {
        let name_of = |id| self.node(id).map_or_else(|| id.0.to_string(), |node| node.name().to_owned());
        format!("{level} {}", domain.name(name_of))
    }

    /// Other work that has to be there, or must not be. O(members x (labels + rules) x levels).
    pub(crate) fn check_affinity(
        &self,
        request: &Request,
        placement: &Placement,
        seen: Sight,
        blockers: &mut Vec<Blocker>,
    ) {
        let surroundings = Surroundings::seen(self.work(), seen);
        if surroundings.are_indifferent(request, &request.pool) {
            return;
        }
        let nodes: BTreeSet<_> = placement.members.iter().map(|member| member.node).collect();
        let mut found: BTreeMap<Conflict, u32> = BTreeMap::new();
        for node in nodes {
            let Some(chain) = self.chain(node) else { continue };
            for conflict in surroundings.conflicts(request, chain, node) {
                *found.entry(conflict).or_default() += 1;
            }
        }
        let blocker = |(conflict, nodes): (Conflict, u32)| Blocker { nodes, ..self.blocker_of(&conflict) };
        blockers.extend(found.into_iter().map(blocker));
    }

    /// What stands in the way where a rule about other work does not hold.
    pub fn blocker_of(&self, conflict: &Conflict) -> Blocker {
        let place = match &conflict.domain {
            Some(Domain::Path(values)) => values.join("/"),
            Some(domain) => self.domain_name(NODE_LEVEL, domain),
            None => "no such domain".to_owned(),
        };
        let (words, asked, available) = match conflict.kind {
            ConflictKind::Missing => ("with", 1, 0),
            ConflictKind::Present => ("apart from", 0, conflict.members),
            ConflictKind::Repelled => ("kept away as", 0, conflict.members),
        };
        Blocker::new(
            Reason::AffinityConflict,
            format!("{words} {} in {place}", conflict.rule),
            asked,
            available,
        )
    }
}
