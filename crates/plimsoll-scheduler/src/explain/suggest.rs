//! The smallest single changes that would admit a request now. The planner's scratch view says which are worth trying, a proof which are true.

mod bounds;

use std::cmp::Reverse;
use std::collections::BTreeSet;

use plimsoll_ledger::{
    Blocker, GpuShare, Ledger, MigProfile, NodeAdmin, PolicyObject, ProfileName, Reason, Request, Verdict,
    device_matches,
};
use plimsoll_types::quantity::format_resource;
use plimsoll_types::{Amount, ReservationId};

use super::{Scene, SingleChange, Suggestion};
use crate::Planner;
use crate::fit::NodeView;
use crate::fleet::split;
use crate::preemption::victims::Candidate;

/// Most holders that are looked at for one that could end.
const MOST_HOLDERS: usize = 4_096;
/// Most changes of one kind that are tried where each names an object.
const MOST_TRIED: usize = 4;
/// Most pools that are looked at.
const MOST_POOLS: usize = 32;
/// Steps in which compute, memory and bytes are made smaller: nobody asks for odd numbers of them.
const CPU_STEP_MILLIS: u64 = 100;
const BYTES_STEP: u64 = 64 << 20;
/// Steps in which a duration is made shorter, in milliseconds.
const DURATION_STEP_MS: u64 = 60_000;
/// The longest duration that is proposed where a request has none, in these steps: 31 days, as far as a plan looks.
const LONGEST_STEPS: u64 = 31 * 24 * 60;

/// What is tried, and what was found so far.
struct Search<'a> {
    scene: &'a Scene,
    planner: &'a mut Planner,
    found: Vec<Suggestion>,
}

impl Scene {
    /// Single changes that would admit the request now, the request's own first.
    pub(super) fn suggest(&self, planner: &mut Planner, blockers: &[Blocker]) -> Vec<Suggestion> {
        let mut search = Search { scene: self, planner, found: Vec::new() };
        search.devices();
        search.gang();
        search.topology();
        search.labels();
        search.amounts();
        search.duration();
        search.hours();
        search.pools();
        search.nodes();
        search.policy(blockers);
        search.victims();
        search.found
    }
}

impl Search<'_> {
    /// Fewer devices, any model, a smaller device, a share of one.
    fn devices(&mut self) {
        let request = &*self.scene.request;
        let Some(gpu) = &request.requirements.gpu else { return };
        let with = |change: &dyn Fn(&mut plimsoll_ledger::GpuAsk)| {
            let mut changed = request.clone();
            if let Some(gpu) = &mut changed.requirements.gpu {
                change(gpu);
            }
            changed
        };
        let fewer = |count: u64| with(&|gpu| gpu.count = u32::try_from(count).unwrap_or(1));
        if let Some(count) = self.largest(1, u64::from(gpu.count), &fewer) {
            self.request(format!("ask for {count} GPUs in place of {}", gpu.count), fewer(count));
        }
        if !gpu.models.is_empty() {
            self.request("accept any GPU model".to_owned(), with(&|gpu| gpu.models.clear()));
        }
        if gpu.min_device_memory_bytes > 0 {
            self.request(
                "accept GPUs of any memory".to_owned(),
                with(&|gpu| gpu.min_device_memory_bytes = 0),
            );
        }
        let shares: &[u16] = match gpu.share {
            GpuShare::Whole if gpu.count == 1 => &[750, 500, 250],
            GpuShare::Milli(milli) if milli > 500 => &[500, 250],
            GpuShare::Milli(milli) if milli > 250 => &[250],
            _ => &[],
        };
        for milli in shares {
            let whole = if gpu.share == GpuShare::Whole { "a whole one" } else { "what is asked" };
            let description = format!("take {milli} thousandths of a GPU in place of {whole}");
            let share = GpuShare::Milli(*milli);
            if self.request(description, with(&|gpu| gpu.share = share)) {
                break;
            }
        }
        if let GpuShare::Mig(asked) = gpu.share {
            for name in self.smaller_profiles(asked) {
                let share = GpuShare::Mig(name);
                if self
                    .request(format!("take a {name} in place of a {asked}"), with(&|gpu| gpu.share = share))
                {
                    break;
                }
            }
        }
    }

    /// Profiles of the pool's devices that are smaller than one of them, the largest first.
    fn smaller_profiles(&self, asked: ProfileName) -> Vec<ProfileName> {
        let scene = self.scene;
        let nodes = scene.ledger.nodes().filter(|node| node.pool == scene.request.pool);
        let layouts =
            nodes.flat_map(|node| &node.registration.devices).filter_map(|device| device.mig.as_ref());
        let mut found = BTreeSet::new();
        for layout in layouts {
            let size = |profile: &MigProfile| (profile.memory_slices, profile.compute_slices);
            let Some(asked) = layout.profile(asked).map(size) else { continue };
            let smaller = layout.profiles.iter().filter(|profile| size(profile) < asked);
            found.extend(smaller.map(|profile| (Reverse(size(profile)), profile.name)));
        }
        found.into_iter().map(|(_, name)| name).take(MOST_TRIED).collect()
    }

    /// At any time.
    fn hours(&mut self) {
        let request = &*self.scene.request;
        let Some(hours) = &request.hours else { return };
        let changed = Request { hours: None, ..request.clone() };
        self.request(format!("do not wait for the hours of schedule {}", hours.schedule), changed);
    }

    fn gang(&mut self) {
        let request = &*self.scene.request;
        let least = request.gang.min_members;
        let fewer = |members: u64| {
            let mut fewer = request.clone();
            fewer.gang.min_members = u32::try_from(members).unwrap_or(1);
            fewer
        };
        if request.roles.is_empty()
            && let Some(members) = self.largest(1, least.into(), &fewer)
        {
            self.request(format!("accept {members} members in place of {least}"), fewer(members));
        }
        for (index, role) in request.roles.iter().enumerate() {
            let fewer = |members: u64| {
                let members = u32::try_from(members).unwrap_or(1);
                let mut fewer = request.clone();
                fewer.roles[index].min_members = members;
                fewer.gang.min_members -= role.min_members - members;
                fewer
            };
            if let Some(members) = self.largest(1, role.min_members.into(), &fewer) {
                let (name, least) = (&role.name, role.min_members);
                let description = format!("accept {members} members of role {name} in place of {least}");
                self.request(description, fewer(members));
            }
        }
        if request.gang.spread && least > 1 {
            let mut together = request.clone();
            together.gang.spread = false;
            self.request("accept several members on one node".to_owned(), together);
        }
    }

    /// A wider domain, no groups, a rule about other work less.
    fn topology(&mut self) {
        for (description, changed) in crate::topology::changes(&self.scene.ledger, &self.scene.request) {
            self.request(description, changed);
        }
    }

    /// Without one of the conditions on labels, or without all of them.
    fn labels(&mut self) {
        let request = &*self.scene.request;
        let terms = &request.requirements.required.terms;
        let mut any = false;
        for (index, term) in terms.iter().enumerate().filter(|_| terms.len() > 1) {
            let mut without = request.clone();
            without.requirements.required.terms.remove(index);
            any |= self.request(format!("drop the required label {}", term.key), without);
        }
        if !terms.is_empty() && !any {
            let mut anywhere = request.clone();
            anywhere.requirements.required.terms.clear();
            self.request("drop the required labels".to_owned(), anywhere);
        }
    }

    /// The most of each amount that fits, in round steps.
    fn amounts(&mut self) {
        let request = &*self.scene.request;
        let asked = request
            .kinds()
            .enumerate()
            .flat_map(|(kind, needs)| needs.amounts.iter().map(move |(name, amount)| (kind, name, amount)));
        for (kind, name, amount) in asked {
            let step = match name {
                "cpu" => CPU_STEP_MILLIS,
                "memory" => BYTES_STEP,
                name if name.starts_with("storage/") => BYTES_STEP,
                _ => 1,
            };
            let smaller = |steps: u64| {
                let mut smaller = request.clone();
                let needs = match smaller.roles.get_mut(kind) {
                    Some(role) => &mut role.requirements,
                    None => &mut smaller.requirements,
                };
                needs.amounts.set(name, Amount(steps.saturating_mul(step)));
                smaller
            };
            let Some(steps) = self.largest(1, amount.0.div_ceil(step), &smaller) else { continue };
            let role =
                request.roles.get(kind).map_or_else(String::new, |role| format!(" for role {}", role.name));
            let description = format!(
                "ask for {} of {name}{role} in place of {}",
                format_resource(name, steps.saturating_mul(step)),
                format_resource(name, amount.0)
            );
            self.request(description, smaller(steps));
        }
    }

    /// Budgets are committed for the longest duration, and what is kept for later leaves room until then: a shorter one may do.
    fn duration(&mut self) {
        let (ledger, request) = (&self.scene.ledger, &*self.scene.request);
        let shorter = |steps: u64| Request { max_duration_ms: steps * DURATION_STEP_MS, ..request.clone() };
        let is_kept = ledger.calendar().has(&request.pool);
        let whole = match request.max_duration_ms {
            // It has no end of its own, and one is told where it is within sight.
            0 if is_kept => LONGEST_STEPS,
            own => own.div_ceil(DURATION_STEP_MS),
        };
        if !(ledger.counts_usage() || is_kept) || whole < 2 {
            return;
        }
        if let Some(steps) = self.largest(1, whole, &shorter) {
            let in_place = match request.max_duration_ms / DURATION_STEP_MS {
                0 => String::new(),
                whole_m => format!(" in place of {whole_m}m"),
            };
            self.request(format!("run for {steps}m at most{in_place}"), shorter(steps));
        }
    }

    fn pools(&mut self) {
        let request = &*self.scene.request;
        let pools: Vec<String> =
            self.scene.ledger.pools().map(|pool| pool.name.clone()).take(MOST_POOLS).collect();
        for pool in pools.into_iter().filter(|pool| *pool != request.pool) {
            let elsewhere = Request { pool: pool.clone(), ..request.clone() };
            self.request(format!("ask in pool {pool} in place of {}", request.pool), elsewhere);
        }
    }

    /// Nodes that an operator keeps new work off, and that have room.
    fn nodes(&mut self) {
        let request = &*self.scene.request;
        let (amounts, _) = split(&self.scene.ledger, request);
        let kept_off = |view: &&NodeView| {
            view.node.admin != NodeAdmin::Schedulable
                && request.requirements.required.matches(&view.labels)
                && view.fit_amounts(request, &amounts).is_ok()
        };
        let nodes: Vec<_> = self
            .planner
            .fleet()
            .pool_views(&request.pool)
            .filter(kept_off)
            .map(|view| (view.node.id, view.node.name().to_owned()))
            .take(MOST_TRIED)
            .collect();
        for (node, name) in nodes {
            self.offer(format!("uncordon node {name}"), SingleChange::Uncordon(node));
        }
    }

    /// More of what a quota, a limit or a pool's countable is short of, or less of what is kept for others, and no more than that.
    fn policy(&mut self, blockers: &[Blocker]) {
        for blocker in blockers {
            let more = blocker.asked.saturating_sub(blocker.available);
            match blocker.reason {
                Reason::QuotaExceeded => self.quota(&blocker.subject, more),
                Reason::CountableExhausted => self.countable(&blocker.subject, more),
                Reason::LimitExceeded | Reason::BudgetExhausted => self.limit(blocker, more),
                Reason::ReservedByCalendar => self.calendar(blocker, more),
                Reason::SpotShare | Reason::LabelMismatch => self.spot(blocker),
                _ => {}
            }
        }
    }

    /// `subject` is `RESOURCE in queue NAME`, as quotas name themselves.
    fn quota(&mut self, subject: &str, more: u64) {
        let Some((resource, queue)) = subject.split_once(" in queue ") else { return };
        let Some(queue) = self.scene.ledger.queue(queue) else { return };
        let pool = &self.scene.request.pool;
        let shown = if resource == plimsoll_ledger::GPU {
            format!("{} thousandths of a GPU", more)
        } else {
            format!("{} of {resource}", format_resource(resource, more))
        };
        let raise = |nominal: u64, limit: u64| {
            let mut raised = plimsoll_ledger::Queue::clone(queue);
            let of_pool = raised.quotas.entry(pool.clone()).or_default();
            let quota = of_pool.entry(resource.into()).or_default();
            quota.nominal = Amount(quota.nominal.0.saturating_add(nominal));
            quota.limit = quota.limit.map(|most| Amount(most.0.saturating_add(limit)));
            SingleChange::Policy(Box::new(PolicyObject::Queue(raised)))
        };
        let has_limit = self.scene.ledger.quota().cell(&queue.name, pool, resource);
        let name = &queue.name;
        if has_limit.is_some_and(|cell| cell.quota.limit.is_some())
            && self.offer(format!("raise the limit of queue {name} by {shown}"), raise(0, more))
        {
            return;
        }
        self.offer(format!("raise the quota of queue {name} by {shown}"), raise(more, more));
    }

    fn countable(&mut self, name: &str, more: u64) {
        let Some(pool) = self.scene.ledger.pool(&self.scene.request.pool) else { return };
        let mut raised = plimsoll_ledger::Pool::clone(pool);
        let Some(total) = raised.countables.get_mut(name) else { return };
        *total = Amount(total.0.saturating_add(more));
        let description = format!("give pool {} {} more of {name}", pool.name, format_resource(name, more));
        self.offer(description, SingleChange::Policy(Box::new(PolicyObject::Pool(raised))));
    }

    /// A grant of a lower class whose end alone would make room.
    fn victims(&mut self) {
        for id in &self.scene.in_the_way {
            let class = self.scene.ledger.reservation(*id).map(|held| held.request.class.clone());
            let description = format!("end {id}, of class {}", class.unwrap_or_default());
            self.offer(description, SingleChange::End(*id));
        }
    }

    /// The largest number below `most` and from `least` on with which the planner finds a place; `None` where there is none. What fits with a
    /// number is taken to fit with less; a proof follows.
    fn largest(&mut self, least: u64, most: u64, with: &dyn Fn(u64) -> Request) -> Option<u64> {
        if most <= least || !self.fits(&with(least)) {
            return None;
        }
        let (mut fits, mut fails) = (least, most);
        while fails - fits > 1 {
            let middle = fits + (fails - fits) / 2;
            if self.fits(&with(middle)) {
                fits = middle;
            } else {
                fails = middle;
            }
        }
        Some(fits)
    }

    fn fits(&mut self, request: &Request) -> bool {
        let scene = self.scene;
        matches!(self.planner.place_for(&scene.ledger, request, &scene.requester), Verdict::Place(_))
    }

    /// Offers a changed request, where it fits and that is proven.
    fn request(&mut self, description: String, request: Request) -> bool {
        self.fits(&request) && self.offer(description, SingleChange::Request(Box::new(request)))
    }

    /// Offers a change, where it is proven.
    fn offer(&mut self, description: String, change: SingleChange) -> bool {
        let Some(nodes) = self.scene.prove(&change) else { return false };
        self.found.push(Suggestion { description, change, nodes });
        true
    }
}

/// Grants of a lower class, or of best effort for who is backed, without which a node would have room for a member: those who would be asked to leave first, first. O(some thousand
/// holders).
pub(super) fn in_the_way(ledger: &Ledger, request: &Request, priority: i32) -> Vec<ReservationId> {
    let (amounts, _) = split(ledger, request);
    let prices = ledger.prices_milli();
    let mut found: Vec<Candidate> = Vec::new();
    let mut looked = 0;
    for node in ledger.nodes().filter(|node| node.pool == request.pool && node.is_eligible()) {
        if looked >= MOST_HOLDERS {
            break;
        }
        let any_device = |gpu: &plimsoll_ledger::GpuAsk| {
            let devices = &node.registration.devices;
            devices.iter().any(|device| device_matches(gpu, device))
        };
        if request.requirements.gpu.as_ref().is_some_and(|gpu| !any_device(gpu)) {
            continue;
        }
        let Some(view) = NodeView::applied(ledger, node.id, node.effective_labels()) else {
            continue;
        };
        for holder in ledger.holders(node.id) {
            looked += 1;
            let gives_way = holder.is_best_effort() && !request.is_best_effort();
            if !(gives_way || holder.priority < priority) || !holder.state.is_occupying() {
                continue;
            }
            let candidate = Candidate::new(ledger, &prices, holder);
            let mut room = view.clone();
            for (amounts, devices) in candidate.on_node(ledger, node.id) {
                room.give_back(&amounts, &devices, candidate.reservation.is_best_effort());
            }
            if room.fit(request, &amounts).is_ok() {
                found.push(candidate);
            }
        }
    }
    found.sort_by_key(|candidate| (candidate.preference, candidate.reservation.id));
    found.dedup_by_key(|candidate| candidate.reservation.id);
    found.into_iter().take(MOST_TRIED).map(|candidate| candidate.reservation.id).collect()
}
