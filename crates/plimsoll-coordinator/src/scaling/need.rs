//! How many machines more those who wait would need: their placement is tried on machines of the declared template, by the planner's own
//! rules. And how many have to stay for the calendar.

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Command, DEFAULT_CLASS, Device, Entry, Fleet, LATEST_VERSION, Ledger, PolicyObject, Pool, Reason,
    Registration, Request, Reservation, ScalingPolicy, ScalingTarget, Stamp, Strategy, Verdict, WorkTemplate,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{LedgerTime, Resources, Revision};

/// Most requests of a queue that are tried in one look.
const MOST_REQUESTS: usize = 256;
/// Most machines that they are tried on.
const MOST_MACHINES: u64 = 128;

/// What those who wait would need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Requests that would fit on more machines.
    pub(super) requests: u64,
    /// So many more than there are now.
    pub(super) machines: u64,
}

/// Machines that those who wait for a pool would need beside those that are there. O(requests x machines).
pub(super) fn waiting(ledger: &Ledger, policy: &ScalingPolicy, pool: &str, fleet: &Fleet) -> Waiting {
    if policy.template.resources.is_zero() {
        return Waiting::default();
    }
    let waits = ledger.pending(pool).filter_map(|id| ledger.reservation(id)).filter(|one| lacks_room(one));
    // What a gang that lost members has a claim on counts as if it waited for it: nothing of that is given up meanwhile.
    let claims = ledger.repair_claims(pool, ledger.clock());
    let claimed = claims.filter_map(|gang| ledger.lacking(gang)).map(|lacking| alone(&lacking));
    let requests = claimed.chain(waits.map(|one| alone(&one.request)));
    let requests: Vec<Request> = requests.take(MOST_REQUESTS).collect();
    let members: u64 = requests.iter().map(|request| u64::from(request.gang.max_members.max(1))).sum();
    let room = policy.rules.max.saturating_sub(fleet.present);
    placed(ledger, policy, pool, &requests, members.min(room).min(MOST_MACHINES))
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
    placed(ledger, policy, &request.pool, &[alone(request)], members).requests > 0
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
    let offered = &policy.template;
    let of_amounts = sum.iter().filter_map(|(name, amount)| {
        let one = offered.resources.get(name).0;
        (one > 0).then(|| amount.0.div_ceil(one))
    });
    let devices = offered.gpus();
    let of_gpus = if devices > 0 { gpus.div_ceil(devices) } else { 0 };
    of_amounts.max().unwrap_or(0).max(of_gpus).min(policy.rules.max)
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
    policy: &ScalingPolicy,
    pool: &str,
    requests: &[Request],
    machines: u64,
) -> Waiting {
    if requests.is_empty() || machines == 0 {
        return Waiting::default();
    }
    let Some(pool) = ledger.pool(pool) else { return Waiting::default() };
    let scratch = of_template(ledger, pool, &policy.template, machines);
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
    Waiting { requests: fit, machines: used.len() as u64 }
}

/// A ledger with nothing but machines of the template in the pool, which is filled one after the other.
fn of_template(ledger: &Ledger, pool: &Pool, template: &WorkTemplate, machines: u64) -> Ledger {
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
    for number in 0..machines {
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
    scratch
}
