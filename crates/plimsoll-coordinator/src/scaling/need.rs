//! How many machines more those who wait would need: their placement is tried on machines of the declared templates, by the planner's own
//! rules. And how many have to stay for the calendar.

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Command, DEFAULT_CLASS, Device, Entry, Fleet, LATEST_VERSION, Ledger, NodeTemplate, PolicyObject, Pool,
    Reason, Registration, Request, Reservation, ScalingPolicy, ScalingTarget, Stamp, Strategy, Verdict,
    WorkTemplate,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{LedgerTime, NodeId, Resources, Revision};

use super::expand;

/// Most requests of a queue that are tried in one look.
const MOST_REQUESTS: usize = 256;
/// Most machines that they are tried on.
pub(super) const MOST_MACHINES: u64 = 128;

/// What those who wait would need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Requests that would fit on more machines.
    pub(super) requests: u64,
    /// So many more than there are now.
    pub(super) machines: u64,
    /// Of which templates and why, where there are several.
    pub(super) lines: Vec<String>,
}

/// Machines that those who wait for a pool would need beside those that are there. O(requests x machines).
pub(super) fn waiting(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    pool: &str,
    fleet: &Fleet,
    now: LedgerTime,
) -> Waiting {
    if !policy.templates.is_empty() {
        let found = expand::expansion(ledger, policy, pool, &who_wait(ledger, pool), now);
        let machines = if found.requests > 0 { fleet.starting + found.machines() } else { 0 };
        return Waiting { requests: found.requests, machines, lines: found.lines };
    }
    if policy.template.resources.is_zero() {
        return Waiting::default();
    }
    let requests = who_wait(ledger, pool);
    let members: u64 = requests.iter().map(|request| u64::from(request.gang.max_members.max(1))).sum();
    let room = policy.rules.max.saturating_sub(fleet.present);
    placed(ledger, &policy.template, pool, &requests, members.min(room).min(MOST_MACHINES))
}

/// Templates of the next machines, so many of them as are missing and may be asked for now.
pub(super) fn next_templates(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    missing: u64,
    now: LedgerTime,
) -> Vec<String> {
    match &policy.target {
        ScalingTarget::Pool(pool) if !policy.templates.is_empty() && missing > 0 => {
            expand::next(ledger, policy, pool, &who_wait(ledger, pool), missing, now)
        }
        ScalingTarget::Pool(pool) => {
            let powered = ledger.power(pool).and_then(|power| expand::machines_powered(policy, power));
            let missing = powered.map_or(missing, |most| missing.min(most));
            (0..missing).map(|_| String::new()).collect()
        }
        ScalingTarget::Service(_) => (0..missing).map(|_| String::new()).collect(),
    }
}

/// Those who wait for room of their own, in the order of the queue.
fn who_wait(ledger: &Ledger, pool: &str) -> Vec<Request> {
    let waits = ledger.pending(pool).filter_map(|id| ledger.reservation(id)).filter(|one| lacks_room(one));
    // What a gang that lost members has a claim on counts as if it waited for it: nothing of that is given up meanwhile.
    let claims = ledger.repair_claims(pool, ledger.clock());
    let claimed = claims.filter_map(|gang| ledger.lacking(gang)).map(|lacking| alone(&lacking));
    let requests = claimed.chain(waits.map(|one| alone(&one.request)));
    requests.take(MOST_REQUESTS).collect()
}

/// True where a request that nothing now there can ever hold would fit on machines that a provider can start, or on a node that another elastic
/// pool may lend.
pub(crate) fn may_come(ledger: &Ledger, request: &Request) -> bool {
    if plimsoll_scheduler::elastic::may_be_lent(ledger, request) {
        return true;
    }
    let target = ScalingTarget::Pool(request.pool.clone());
    let Some(policy) = ledger.scaling_policy_of(&target).filter(|policy| policy.provider.is_some()) else {
        return false;
    };
    let members = u64::from(request.gang.max_members.max(1)).min(policy.rules.max).min(MOST_MACHINES);
    let alone = [alone(request)];
    policy.offers().iter().any(|template| {
        let most = if template.max > 0 { members.min(template.max) } else { members };
        placed(ledger, &template.machine(), &request.pool, &alone, most).requests > 0
    })
}

/// Machines that have to stay for what the calendar keeps within `ahead_ms` and for advance reservations: as many as hold that together with
/// what is taken now.
pub(super) fn kept(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    pool: &str,
    now: LedgerTime,
    ahead_ms: u64,
) -> u64 {
    if !ledger.calendar().has(pool) {
        return 0;
    }
    let until = now.plus_ms(ahead_ms);
    let mut sum = Resources::default();
    let mut gpus = 0_u64;
    let mut add = |amounts: &Resources, times: u64| {
        if let Ok(all) = amounts.checked_mul(times) {
            // What does not fit in a number is more than any pool has: the policy's max bounds it.
            let _ = sum.add_assign(&all);
        }
    };
    let opens = |at: Option<plimsoll_ledger::Window>| at.is_some_and(|window| window.start <= until);
    for schedule in ledger.schedules().filter(|one| one.pool == pool && opens(one.next_at(now))) {
        add(&schedule.resources, 1);
    }
    let planned = |one: &&Reservation| {
        one.request.pool == pool
            && !one.state.is_final()
            && one.request.start_at_ms > now.0
            && one.request.start_at_ms <= until.0
    };
    for reservation in ledger.reservations().map(AsRef::as_ref).filter(planned) {
        for (needs, members) in reservation.request.kinds_with_most() {
            add(&needs.amounts, members.into());
            let devices = needs.gpu.as_ref().map_or(0, |gpu| u64::from(gpu.count));
            gpus = gpus.saturating_add(devices.saturating_mul(members.into()));
        }
    }
    if sum.is_zero() && gpus == 0 {
        return 0;
    }
    for node in ledger.nodes().filter(|node| node.pool == pool) {
        if let Some(usage) = ledger.usage(node.id) {
            add_to(&mut sum, &usage.used);
            gpus += usage.devices.iter().filter(|device| device.grants > 0).count() as u64;
        }
    }
    covering(&policy.offers(), sum, gpus).min(policy.rules.max)
}

/// Machines that have as much together: first for the GPUs, then for each amount that they leave, each time of the template that has most of it.
/// What no template has is not asked of them.
fn covering(templates: &[NodeTemplate], mut sum: Resources, mut gpus: u64) -> u64 {
    let mut machines = 0_u64;
    let mut take = |template: &NodeTemplate, many: u64, sum: &mut Resources, gpus: &mut u64| {
        machines = machines.saturating_add(many);
        *gpus = gpus.saturating_sub(template.offers.gpus().saturating_mul(many));
        match template.offers.resources.checked_mul(many) {
            Ok(all) => sum.saturating_sub_assign(&all),
            // More than a number holds is more than is asked.
            Err(_) => *sum = Resources::default(),
        }
    };
    let best = templates.iter().rev().max_by_key(|one| one.offers.gpus()).filter(|one| one.offers.gpus() > 0);
    if let Some(best) = best.filter(|_| gpus > 0) {
        let many = gpus.div_ceil(best.offers.gpus());
        take(best, many, &mut sum, &mut gpus);
    }
    let names: Vec<String> = sum.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let of = |one: &NodeTemplate| one.offers.resources.get(&name).0;
        let best = templates.iter().rev().max_by_key(|one| of(one)).filter(|one| of(one) > 0);
        let left = sum.get(&name).0;
        if let Some(best) = best.filter(|_| left > 0) {
            take(best, left.div_ceil(of(best)), &mut sum, &mut gpus);
        }
    }
    machines
}

fn add_to(sum: &mut Resources, more: &Resources) {
    // As above.
    let _ = sum.add_assign(more);
}

/// True where it is room of its own that a request lacks, now: no machine is bought for what the calendar keeps, or for later.
fn lacks_room(reservation: &Reservation) -> bool {
    let is_kept = reservation.blockers.iter().any(|blocker| blocker.reason == Reason::ReservedByCalendar);
    reservation.request.start_at_ms == 0 && !is_kept && reservation.lacks_nodes()
}

/// The request as it is about machines alone: queue and service are looked at where it is placed.
fn alone(request: &Request) -> Request {
    Request {
        queue: String::new(),
        service: String::new(),
        max_cost_micros: 0,
        start_at_ms: 0,
        ..request.clone()
    }
}

/// How many of these requests fit on at most `machines` of the template, and how many of those they take.
fn placed(
    ledger: &Ledger,
    template: &WorkTemplate,
    pool: &str,
    requests: &[Request],
    machines: u64,
) -> Waiting {
    if requests.is_empty() || machines == 0 {
        return Waiting::default();
    }
    let Some(pool) = ledger.pool(pool) else { return Waiting::default() };
    let machines = (0..machines).map(|_| template);
    let (scratch, _) = of_machines(ledger, pool, machines);
    let mut planner = Planner::new(&scratch, 0);
    let asked: Vec<&Request> = requests.iter().collect();
    let mut used = BTreeSet::new();
    let mut fit = 0;
    for (verdict, _) in planner.plan_batch(&scratch, &asked) {
        if let Verdict::Place(placement) = verdict {
            fit += 1;
            used.extend(placement.members.iter().map(|member| member.node));
        }
    }
    Waiting { requests: fit, machines: used.len() as u64, lines: Vec::new() }
}

/// A ledger with nothing but these machines in the pool, which are filled one after the other; and their nodes, in that order.
pub(super) fn of_machines<'a>(
    ledger: &Ledger,
    pool: &Pool,
    machines: impl Iterator<Item = &'a WorkTemplate>,
) -> (Ledger, Vec<NodeId>) {
    let mut scratch = Ledger::new();
    let mut apply = |command: Command| {
        let stamp = Stamp { revision: Revision(scratch.revision().0 + 1), proposed_at: LedgerTime(1) };
        scratch.apply(stamp, &Entry::system(command));
    };
    apply(Command::Upgrade { to: LATEST_VERSION });
    let packed = Pool { strategy: Strategy::FirstFit, countables: Default::default(), ..pool.clone() };
    let classes = ledger.classes().filter(|class| class.name != DEFAULT_CLASS);
    let mut put = vec![PolicyObject::Pool(packed)];
    put.extend(classes.map(|class| PolicyObject::Class(class.as_ref().clone())));
    put.extend(ledger.all_node_limits().map(|limits| PolicyObject::NodeLimits(limits.as_ref().clone())));
    apply(Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) });
    for (number, template) in machines.enumerate() {
        let models = template.devices.iter().flat_map(|device| (0..device.count).map(move |_| device));
        let devices = models.enumerate().map(|(index, device)| Device {
            uuid: format!("template-{number}-{index}"),
            model: device.model.clone(),
            memory_bytes: device.memory_bytes,
            ..Device::default()
        });
        apply(Command::RegisterNode(Registration {
            name: format!("template-{number}"),
            incarnation: 1,
            pool: pool.name.clone(),
            labels: template.labels.clone(),
            capacity: template.resources.clone(),
            devices: devices.collect(),
            ..Registration::default()
        }));
    }
    // Numbers of nodes are given in the order in which they come.
    let nodes = scratch.nodes().map(|node| node.id).collect();
    (scratch, nodes)
}
