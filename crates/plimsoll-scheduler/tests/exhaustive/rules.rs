//! Which places are allowed: `docs/semantics.md`, section 5, rules 1 to 13, and 5.25.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Affinity, DeviceGrant, GpuAsk, GpuShare, MemberPlacement, Node, Pool, Qos, Request};
use plimsoll_types::NodeId;

use super::bounds;
use super::quota;
use super::scene::{Scene, charge_of, domain_of, labels_of, taken_of};
use super::slices;

/// A rule that a place may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    Members,
    Spread,
    Pool,
    Eligible,
    Labels,
    Countables,
    Backed,
    Amounts,
    Devices,
    Failed,
    Model,
    LeastMemory,
    Mode,
    Whole,
    Room,
    Slices,
    Compute,
    Quota,
    Required,
    Groups,
    Together,
    FirstOfItsKind,
    Apart,
    Repelled,
    Limits,
    Calendar,
    Hours,
}

impl Rule {
    /// Those that some small case breaks alone, so that it shows when one is forgotten.
    pub(crate) const TELLING: [Rule; 20] = [
        Rule::Spread,
        Rule::Pool,
        Rule::Eligible,
        Rule::Labels,
        Rule::Countables,
        Rule::Backed,
        Rule::Amounts,
        Rule::Failed,
        Rule::Model,
        Rule::LeastMemory,
        Rule::Whole,
        Rule::Room,
        Rule::Slices,
        Rule::Compute,
        Rule::Quota,
        Rule::Required,
        Rule::Groups,
        Rule::Together,
        Rule::Apart,
        Rule::Repelled,
    ];
}

impl Scene<'_> {
    /// The first rule that a whole placement breaks.
    pub(crate) fn broken(&self, request: &Request, members: &[MemberPlacement]) -> Option<Rule> {
        self.broken_so_far(request, members).or_else(|| self.broken_by_all(request, members))
    }

    /// The first rule that members break whoever else comes: more of them break it still.
    pub(crate) fn broken_so_far(&self, request: &Request, members: &[MemberPlacement]) -> Option<Rule> {
        let Some(pool) = self.pool(&request.pool) else { return Some(Rule::Pool) };
        let mut seen = BTreeSet::new();
        for member in members {
            let Some(node) = self.node(member.node) else { return Some(Rule::Pool) };
            let again = !seen.insert(member.node);
            let broken = [
                (Rule::Spread, request.gang.spread && again),
                (Rule::Pool, node.pool != request.pool),
                (Rule::Eligible, !self.empty && !node.is_eligible()),
                (Rule::Labels, !request.requirements.required.matches(&labels_of(node))),
            ];
            let broken = broken.into_iter().find(|(rule, broken)| *broken && self.minds(*rule));
            if let Some((rule, _)) = broken {
                return Some(rule);
            }
        }
        self.short(request, pool, members).or_else(|| self.broken_on_devices(request, members))
    }

    /// The first rule of those about all members together.
    fn broken_by_all(&self, request: &Request, members: &[MemberPlacement]) -> Option<Rule> {
        let Some(pool) = self.pool(&request.pool) else { return Some(Rule::Pool) };
        let count = members.len() as u32;
        let nodes: Vec<&Node> = members.iter().filter_map(|member| self.node(member.node)).collect();
        let together = |nodes: &[&Node], level: &str| {
            let domains: BTreeSet<Option<String>> =
                nodes.iter().map(|node| domain_of(node, pool, level)).collect();
            domains.len() <= 1 && !domains.contains(&None)
        };
        let asked = &request.topology;
        let size = asked.slice_size as usize;
        let grouped = size == 0
            || nodes.len().is_multiple_of(size)
                && nodes.chunks(size).all(|group| together(group, &asked.slice_level));
        let charge = charge_of(&request.requirements.amounts, members);
        let broken = [
            (Rule::Members, count < request.gang.min_members || count > request.gang.max_members),
            (Rule::Quota, quota::is_short(self, request, &charge)),
            (Rule::Required, !asked.required.is_empty() && !together(&nodes, &asked.required)),
            (Rule::Groups, !grouped),
            // What an empty fleet could hold is a matter of nodes and quotas alone.
            (Rule::Limits, !self.empty && bounds::is_over_a_limit(self, request, members.len() as u64)),
            (Rule::Calendar, !self.empty && bounds::is_kept_for_others(self, request, &charge)),
            (Rule::Hours, !self.empty && bounds::is_out_of_hours(self, request)),
        ];
        let first = broken.into_iter().find(|(rule, broken)| *broken && self.minds(*rule));
        // An empty fleet is asked what could be one day: with other work there, or without.
        let beside = || if self.empty { None } else { self.conflict(request, pool, &nodes) };
        first.map(|(rule, _)| rule).or_else(beside)
    }

    fn minds(&self, rule: Rule) -> bool {
        self.forgotten != Some(rule)
    }

    /// Rule 6.
    fn short(&self, request: &Request, pool: &Pool, members: &[MemberPlacement]) -> Option<Rule> {
        let mut on: BTreeMap<NodeId, u64> = BTreeMap::new();
        members.iter().for_each(|member| *on.entry(member.node).or_default() += 1);
        for (name, amount) in request.requirements.amounts.iter() {
            if let Some(total) = pool.countables.get(name) {
                let asked = amount.0 * members.len() as u64;
                if asked + self.used_in(&pool.name, name) > total.0 && self.minds(Rule::Countables) {
                    return Some(Rule::Countables);
                }
                continue;
            }
            for (id, count) in &on {
                let real = self.node(*id).map_or(0, |node| node.allocatable.get(name).0);
                let permille = pool.oversubscription.get(name).map_or(1_000, |permille| u64::from(*permille));
                let more = amount.0 * count;
                let too_much = more + self.used_on(*id, name) > real * permille / 1_000;
                let unbacked = request.qos != Some(Qos::BestEffort)
                    && more + self.used_on(*id, name) - self.loose_on(*id, name) > real;
                if unbacked && self.minds(Rule::Backed) {
                    return Some(Rule::Backed);
                }
                if too_much && self.minds(Rule::Amounts) {
                    return Some(Rule::Amounts);
                }
            }
        }
        None
    }

    /// Rules 7 and 8.
    fn broken_on_devices(&self, request: &Request, members: &[MemberPlacement]) -> Option<Rule> {
        let Some(gpu) = &request.requirements.gpu else {
            return members.iter().any(|member| !member.devices.is_empty()).then_some(Rule::Devices);
        };
        let mut before: Vec<(NodeId, DeviceGrant)> = self
            .members()
            .flat_map(|(_, member)| member.devices.iter().map(|grant| (member.node, *grant)))
            .collect();
        for member in members {
            let ascending = member.devices.windows(2).all(|two| two[0].device < two[1].device);
            if member.devices.len() != gpu.count as usize || !ascending {
                return Some(Rule::Devices);
            }
            for grant in &member.devices {
                let there: Vec<DeviceGrant> = before
                    .iter()
                    .filter(|(node, other)| *node == member.node && other.device == grant.device)
                    .map(|(_, other)| *other)
                    .collect();
                let broken = self.broken_on_device(gpu, member.node, grant, &there);
                if broken.is_some() {
                    return broken;
                }
                before.push((member.node, *grant));
            }
        }
        None
    }

    fn broken_on_device(
        &self,
        gpu: &GpuAsk,
        node: NodeId,
        grant: &DeviceGrant,
        there: &[DeviceGrant],
    ) -> Option<Rule> {
        let device = self.node(node)?.registration.devices.get(usize::from(grant.device.0));
        let Some(device) = device else { return Some(Rule::Devices) };
        let Some(taken) = taken_of(device, gpu.share) else { return Some(Rule::Mode) };
        let is_instance = matches!(gpu.share, GpuShare::Mig(_));
        let milli: u64 = there.iter().map(|other| u64::from(other.milli)).sum();
        let bytes: u64 = there.iter().map(|other| other.memory_bytes).sum();
        let shared = gpu.share != GpuShare::Whole;
        let taken_whole = there.iter().any(|other| other.milli == 1_000 && other.slices.is_none());
        let broken = [
            (Rule::Failed, device.failed),
            (Rule::Model, !gpu.models.is_empty() && !gpu.models.contains(&device.model)),
            (Rule::LeastMemory, device.memory_bytes < gpu.min_device_memory_bytes),
            (Rule::Mode, is_instance != device.mig.is_some()),
            (Rule::Mode, (u64::from(grant.milli), grant.memory_bytes) != taken || taken.0 > 1_000),
            (Rule::Mode, !is_instance && there.iter().any(|other| other.slices.is_some())),
            (Rule::Mode, is_instance && there.iter().any(|other| other.slices.is_none())),
            (Rule::Whole, !shared && !there.is_empty()),
            (Rule::Whole, shared && taken_whole),
            (
                Rule::Room,
                shared && !is_instance && (milli + taken.0 > 1_000 || bytes + taken.1 > device.memory_bytes),
            ),
            (Rule::Slices, !slices::are_allowed(device, gpu.share, grant) || slices::overlap(grant, there)),
            (
                Rule::Compute,
                slices::compute(grant, there) > device.mig.as_ref().map_or(0, |cut| cut.compute_slices),
            ),
        ];
        broken.into_iter().find(|(rule, broken)| *broken && self.minds(*rule)).map(|(rule, _)| rule)
    }

    /// Rule 13.
    fn conflict(&self, request: &Request, pool: &Pool, nodes: &[&Node]) -> Option<Rule> {
        let same = |one: &Node, other: &Node, level: &str| {
            let domain = domain_of(one, pool, level);
            domain.is_some() && domain == domain_of(other, pool, level)
        };
        let carries =
            |labels: &plimsoll_types::Labels, rule: &Affinity| labels.get(&rule.key) == Some(&rule.value);
        let work: Vec<_> = self
            .members()
            .filter_map(|(one, member)| Some((one, self.node(member.node)?)))
            .filter(|(_, node)| node.pool == pool.name)
            .collect();
        for node in nodes {
            for rule in request.affinity.iter().filter(|rule| rule.weight == 0) {
                let meant = || work.iter().filter(|(one, _)| carries(&one.request.labels, rule));
                let there = meant().any(|(_, other)| same(node, other, &rule.level));
                let first = carries(&request.labels, rule) && meant().next().is_none();
                if rule.anti && there && self.minds(Rule::Apart) {
                    return Some(Rule::Apart);
                }
                let excused = there || first && self.minds(Rule::FirstOfItsKind);
                if !(rule.anti || excused) && self.minds(Rule::Together) {
                    return Some(Rule::Together);
                }
            }
            for (one, other) in &work {
                let repels = one.request.affinity.iter().any(|rule| {
                    rule.weight == 0
                        && rule.anti
                        && carries(&request.labels, rule)
                        && same(node, other, &rule.level)
                });
                if repels && self.minds(Rule::Repelled) {
                    return Some(Rule::Repelled);
                }
            }
        }
        None
    }
}
