//! I25: a new grant leaves every window and advance reservation that it runs into what is kept for it, by arithmetic of this file's own.
//!
//! Countables are left out: they are a pool's, and I1 has them. What others were given notice for counts once they have left.

use std::collections::BTreeSet;
use std::sync::Arc;

use plimsoll_ledger::{
    Command, GpuShare, NodeAdmin, NodeHealth, Request, Reservation, Schedule, matches_pattern,
};
use plimsoll_types::{LedgerTime, NodeId};

use super::{Findings, Invariant, members_take};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Calendar;

impl Invariant for Calendar {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        // The victims of an entry count for nothing, though they may be there still.
        if matches!(step.entry.command, Command::Preempt { .. } | Command::Relocate { .. }) {
            return;
        }
        for (before, after) in step.moved() {
            let goes_on = before.is_some_and(|one| one.state.is_occupying());
            let granted = after.token == step.revision && after.state.is_occupying() && !goes_on;
            let pool = Kept { picture: &step.after, pool: &after.request.pool };
            if !granted || !pool.keeps_anything() {
                continue;
            }
            for at in pool.moments(step.after.log_time, after) {
                for resource in ["cpu", "memory", "gpu"] {
                    if let Some(wrong) = pool.shortage(at, resource, after) {
                        let detail = format!("{} was granted, and at {} {wrong}", after.id, at.0);
                        findings.add("I25", step.revision, detail);
                    }
                }
            }
        }
    }
}

/// What the calendar of a pool keeps.
struct Kept<'a> {
    picture: &'a Picture,
    pool: &'a str,
}

impl Kept<'_> {
    fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.picture.schedules.values().filter(|one| one.pool == self.pool)
    }

    /// Advance reservations that have no place yet.
    fn plans(&self) -> impl Iterator<Item = &Arc<Reservation>> {
        self.picture.planned.iter().filter(|one| one.is_advance() && one.request.pool == self.pool)
    }

    fn keeps_anything(&self) -> bool {
        self.schedules().next().is_some() || self.plans().next().is_some()
    }

    /// Now, and the start of all that a grant runs into.
    fn moments(&self, now: LedgerTime, granted: &Reservation) -> BTreeSet<LedgerTime> {
        let end = if granted.hard_end.0 == 0 { LedgerTime(u64::MAX) } else { granted.hard_end };
        let windows = self.schedules().flat_map(|one| &one.windows).map(|window| window.start);
        let starts = windows.chain(self.plans().map(|plan| LedgerTime(plan.request.start_at_ms)));
        starts.filter(|start| now < *start && *start < end).chain([now]).collect()
    }

    /// Nodes that count.
    fn nodes(&self) -> BTreeSet<NodeId> {
        let such = self.picture.nodes.values().filter(|node| {
            node.pool == self.pool
                && node.health == NodeHealth::Available
                && node.admin == NodeAdmin::Schedulable
        });
        such.map(|node| node.id).collect()
    }

    fn offered(&self, nodes: &BTreeSet<NodeId>, resource: &str) -> u128 {
        let of = |id: &NodeId| {
            let Some(node) = self.picture.nodes.get(id) else { return 0 };
            let gpu = resource == "gpu";
            let healthy = node.registration.devices.iter().filter(|device| gpu && !device.failed).count();
            let remains = node.fence_pending.iter().map(|left| {
                let milli = left.devices.iter().filter(|_| gpu).map(|grant| u128::from(grant.milli));
                u128::from(left.amounts.get(resource).0) + milli.sum::<u128>()
            });
            let has = u128::from(node.allocatable.get(resource).0) + 1_000 * healthy as u128;
            has.saturating_sub(remains.sum())
        };
        nodes.iter().map(of).sum()
    }

    /// What others take on these nodes at a moment, of those that such is true of.
    fn taken(
        &self,
        nodes: &BTreeSet<NodeId>,
        resource: &str,
        at: LedgerTime,
        granted: &Reservation,
        such: impl Fn(&Reservation) -> bool,
    ) -> u128 {
        let ahead = at > self.picture.log_time;
        let stays = |one: &Reservation| !ahead || one.hard_end.0 == 0 || one.hard_end > at;
        let others = self.picture.occupying().filter(|one| one.id != granted.id && stays(one) && such(one));
        others.map(|one| charge(one, resource, |node| nodes.contains(node))).sum()
    }

    /// What is kept for others than one who asks this.
    fn kept(&self, nodes: &BTreeSet<NodeId>, resource: &str, at: LedgerTime, granted: &Reservation) -> u128 {
        let open = |plan: &&Arc<Reservation>| {
            plan.request.start_at_ms <= at.0 && at.0 < plan.request.start_at_ms + plan.request.max_duration_ms
        };
        let plans: Vec<_> = self.plans().filter(open).collect();
        let counts_for = |request: &Request, schedule: &Schedule| {
            self.schedules().find(|one| may_use(one, request)).is_some_and(|one| one.name == schedule.name)
        };
        let mut kept: u128 = plans.iter().map(|plan| most(&plan.request, resource)).sum();
        for schedule in self.schedules().filter(|one| !may_use(one, &granted.request)) {
            if schedule.windows.iter().any(|window| window.start <= at && at < window.end) {
                let held = self.taken(nodes, resource, at, granted, |one| counts_for(&one.request, schedule));
                let of_plans = plans.iter().filter(|plan| counts_for(&plan.request, schedule));
                let planned: u128 = of_plans.map(|plan| most(&plan.request, resource)).sum();
                kept += u128::from(schedule.resources.get(resource).0).saturating_sub(held + planned);
            }
        }
        kept
    }

    fn shortage(&self, at: LedgerTime, resource: &str, granted: &Reservation) -> Option<String> {
        let charged = charge(granted, resource, |_| true);
        let nodes = self.nodes();
        let kept = self.kept(&nodes, resource, at, granted);
        let offered = self.offered(&nodes, resource);
        let used = self.taken(&nodes, resource, at, granted, |_| true);
        let left = offered.saturating_sub(used).saturating_sub(kept);
        let wrong = charged > 0 && kept > 0 && charged > left;
        wrong.then(|| format!("{charged} {resource} of {offered}, {used} used, {kept} kept"))
    }
}

/// What a grant is charged of a resource for its members on such nodes.
fn charge(one: &Reservation, resource: &str, such: impl Fn(&NodeId) -> bool) -> u128 {
    let there = one.members.iter().filter(|member| resource == "gpu" && such(&member.node));
    let milli: u128 = there.flat_map(|member| &member.devices).map(|grant| u128::from(grant.milli)).sum();
    members_take(one, resource, |member| such(&member.node)) + milli
}

/// What an advance reservation will take at the most.
fn most(request: &Request, resource: &str) -> u128 {
    let of = |needs: &plimsoll_ledger::Requirements, members: u32| {
        let gpu = needs.gpu.as_ref().filter(|_| resource == "gpu").map_or(0, |ask| {
            u128::from(ask.count)
                * match ask.share {
                    GpuShare::Milli(milli) => u128::from(milli),
                    GpuShare::Whole | GpuShare::Memory(_) | GpuShare::Mig(_) => 1_000,
                }
        });
        u128::from(members) * (u128::from(needs.amounts.get(resource).0) + gpu)
    };
    match request.roles.is_empty() {
        true => of(&request.requirements, request.gang.max_members),
        false => request.roles.iter().map(|role| of(&role.requirements, role.max_members)).sum(),
    }
}

/// A schedule is one that a request may use.
fn may_use(schedule: &Schedule, request: &Request) -> bool {
    let any = |patterns: &[String], text: &str| {
        !text.is_empty() && patterns.iter().any(|pattern| matches_pattern(pattern, text))
    };
    let users = &schedule.users;
    any(&users.pipelines, request.labels.get("pipeline").unwrap_or(&request.name))
        || any(&users.queues, &request.queue)
        || any(&users.tenants, &request.tenant)
        || any(&users.classes, &request.class)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{State, Users, Window};
    use plimsoll_types::Resources;

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    /// A grant of one core of a node of 8, for `tenant`, up to `end`, where 7.5 cores are kept for ada in this window.
    fn granted(tenant: &str, end: u64, window: (u64, u64)) -> Step {
        let mut one = reservation(1);
        let (pool, tenant) = ("default".to_owned(), tenant.to_owned());
        one.request = Arc::new(Request { pool: pool.clone(), tenant, ..Request::default() });
        one.hard_end = LedgerTime(end);
        let mut step = step(&[node(0)], &[one]);
        let windows = vec![Window { start: LedgerTime(window.0), end: LedgerTime(window.1) }];
        let users = Users { tenants: vec!["ad*".to_owned()], ..Users::default() };
        let resources = Resources::default().with("cpu", 7_500);
        let name = "kept".to_owned();
        let schedule = Schedule { name, pool, resources, users, windows, ..Schedule::default() };
        step.after_mut().schedules.insert(schedule.name.clone(), Arc::new(schedule));
        step
    }

    #[test]
    fn a_grant_that_leaves_a_window_short_is_found_and_one_that_may_use_it_or_ends_before_is_not() {
        assert_eq!(found(&mut Calendar, &granted("alan", 0, (500, 5_000))), ["I25"], "open");
        assert_eq!(found(&mut Calendar, &granted("alan", 9_000, (5_000, 7_000))), ["I25"], "runs into it");
        assert_eq!(found(&mut Calendar, &granted("ada", 0, (500, 5_000))), Vec::<&str>::new());
        assert_eq!(found(&mut Calendar, &granted("alan", 5_000, (5_000, 7_000))), Vec::<&str>::new());
        assert_eq!(found(&mut Calendar, &granted("alan", 0, (500, 1_000))), Vec::<&str>::new(), "over");
    }

    #[test]
    fn a_grant_that_leaves_an_advance_reservation_short_is_found() {
        let mut step = granted("alan", 0, (0, 1));
        let mut plan = reservation(2);
        plan.state = State::Planned;
        plan.members = Vec::new();
        let mut request = Request { pool: "default".to_owned(), ..Request::default() };
        request.requirements.amounts = Resources::new(7_500, 0);
        (request.gang.min_members, request.gang.max_members) = (1, 1);
        (request.start_at_ms, request.max_duration_ms) = (4_000, 2_000);
        plan.request = Arc::new(request);
        let after = step.after_mut();
        after.planned.push(Arc::new(plan));
        assert_eq!(found(&mut Calendar, &step), ["I25"]);
        step.after_mut().planned.clear();
        assert_eq!(found(&mut Calendar, &step), Vec::<&str>::new());
    }
}
