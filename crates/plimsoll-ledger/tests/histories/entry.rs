//! Steps to entries: indices are resolved against the ledger of the moment.

use std::sync::Arc;

use plimsoll_ledger::{
    AdminChange, Announcement, Command, Entry, Gauge, IntentStep, Ledger, LoadReport, NodeHealth, Overload,
    Placement, Registration, Request, Reservation, ScaleDecided, ScalingTarget, SetAsideOne, Verdict, Window,
};
use plimsoll_types::{DeviceIndex, LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision};

use super::GIB;
use super::fleet::{layout, registration};
use super::placing::placement;
use super::policy::policy;
use super::step::Step;

/// The entry that a step comes to.
pub(crate) fn entry(ledger: &Ledger, step: &Step) -> Entry {
    let token =
        |r: &Reservation, right: bool| if right { r.token } else { Revision(r.token.0.wrapping_sub(1)) };
    let nobody = ReservationId(u64::MAX);
    let with = |index: usize, make: &dyn Fn(&Reservation) -> Command| match pick(ledger, index) {
        Some(r) => make(&r),
        None => Command::Cancel { reservation: nobody },
    };
    let mut entry = Entry::system(Command::Expire { limit: 1 });
    entry.command = match step {
        Step::Submit { request, verdict, nodes, device, key } => {
            if let Some(key) = key {
                entry.request_id = format!("key-{}", key % 3);
                entry.request_hash = [key / 3; 32];
            }
            let verdict = match verdict {
                0 => Verdict::Infeasible(Vec::new()),
                1 | 2 => Verdict::Blocked(Vec::new()),
                _ => Verdict::Place(placement(ledger, request, nodes, *device)),
            };
            let mut request = request.clone();
            // Every fourth or so is for later, where it says how long.
            if request.start_at_ms > 0 {
                request.start_at_ms = (ledger.clock().0 + request.start_at_ms).saturating_sub(5_000);
            }
            // Now and then one that may cost but little: who asks, ledgers before this version do not know.
            if ledger.meta().version >= 4 && device % 3 == 2 {
                request.max_cost_micros = 9_000;
            }
            Command::Submit { request, verdict }
        }
        Step::Place { pick: index, nodes, device } => with(*index, &|r| Command::Place {
            reservation: r.id,
            placement: placement(ledger, &r.request, nodes, *device),
        }),
        Step::Preempt { pick: index, victims, device } => {
            // Somebody who waits, and some of those who hold something, where there are such.
            let all: Vec<_> = ledger.reservations().cloned().collect();
            let mut waiting: Vec<_> = all.iter().filter(|r| r.is_waiting()).collect();
            waiting.sort_by_key(|r| std::cmp::Reverse((r.priority, !r.request.queue.is_empty())));
            waiting.truncate(4);
            let holding: Vec<_> = all.iter().filter(|r| r.state.is_occupying()).collect();
            let anybody = all.first();
            let Some(r) = waiting.get(index % waiting.len().max(1)).copied().or(anybody) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            // On one node, mostly: those below it, or some of them.
            let node = victims.first().map_or(0, |n| (*n % 3) as u32);
            let below = |v: &&Arc<Reservation>| {
                let lends = !r.request.queue.is_empty() && v.request.queue != r.request.queue;
                v.members.iter().any(|m| m.node.0 == node) && (v.priority < r.priority || lends)
            };
            let chosen: Vec<&Arc<Reservation>> = match victims.len() {
                3 => victims.iter().filter_map(|n| holding.get(n % holding.len().max(1)).copied()).collect(),
                2 => holding.iter().copied().filter(below).take(1).collect(),
                _ => holding.iter().copied().filter(below).collect(),
            };
            let nodes: Vec<u32> = if victims.len() == 3 {
                chosen.iter().flat_map(|v| &v.members).map(|m| m.node.0).collect()
            } else {
                vec![node; r.request.gang.min_members as usize]
            };
            Command::Preempt {
                reservation: r.id,
                placement: placement(ledger, &r.request, &nodes, *device),
                victims: chosen.iter().map(|v| v.id).collect(),
            }
        }
        Step::Relocate { pick: index, nodes, device } => {
            // Mostly one that may go, to one node.
            let may: Vec<_> = ledger.reservations().filter(|r| ledger.may_relocate(r).is_ok()).collect();
            let anybody = ledger.reservations().next();
            let Some(r) = may.get(index % may.len().max(1)).copied().or(anybody) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            Command::Relocate {
                reservation: r.id,
                placement: placement(ledger, &r.request, &nodes[..1], *device),
            }
        }
        Step::Unplan(index) => with(*index, &|r| Command::Preempt {
            reservation: r.id,
            placement: Placement { members: Vec::new() },
            victims: Vec::new(),
        }),
        Step::Repair { pick: index, nodes, device } => {
            // One that lost members, mostly in as many places as fit what it lacks.
            let lacking = ledger.reservations().filter_map(|r| Some((r.id, ledger.lacking(r)?)));
            let lacking: Vec<_> = lacking.collect();
            let Some((id, request)) = lacking.get(index % lacking.len().max(1)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            Command::Place { reservation: *id, placement: placement(ledger, request, nodes, *device) }
        }
        Step::Confirm(index, right) => {
            with(*index, &|r| Command::Confirm { reservation: r.id, token: token(r, *right) })
        }
        Step::Renew(index, right, ttl_ms) => {
            with(*index, &|r| Command::Renew { reservation: r.id, token: token(r, *right), ttl_ms: *ttl_ms })
        }
        Step::Resize(index, cpu) => with(*index, &|r| Command::Resize {
            reservation: r.id,
            token: r.token,
            amounts: Resources::new(*cpu, GIB).with("license/x", cpu % 3),
        }),
        Step::Release(index, right) => {
            with(*index, &|r| Command::Release { reservation: r.id, token: token(r, *right) })
        }
        Step::Requeue(index, right) => {
            with(*index, &|r| Command::Requeue { reservation: r.id, token: token(r, *right) })
        }
        Step::Evict { pick: index, gauge, measured_permille, over_ms, right } => {
            // One of best effort that holds something, where there is such; anybody now and then.
            let holds = |r: &&Arc<Reservation>| r.state.is_occupying() && !r.members.is_empty();
            let all: Vec<_> = ledger.reservations().filter(holds).collect();
            let loose: Vec<_> = all.iter().filter(|r| r.is_best_effort()).copied().collect();
            let chosen = if loose.is_empty() || index % 8 == 0 { &all } else { &loose };
            let Some(r) = chosen.get(index % chosen.len().max(1)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let node = r.members[0].node;
            let epoch = ledger.node(node).map_or(NodeEpoch(0), |n| n.epoch);
            let epoch = if *right { epoch } else { NodeEpoch(epoch.0.wrapping_sub(1)) };
            let gauge = if *gauge { Gauge::Memory } else { Gauge::Cpu };
            let (measured_permille, over_ms) = (*measured_permille, *over_ms);
            let overload = Overload { node, epoch, gauge, measured_permille, over_ms };
            Command::Evict { reservation: r.id, overload }
        }
        Step::Cancel(index) => with(*index, &|r| Command::Cancel { reservation: r.id }),
        Step::Expire(limit) => Command::Expire { limit: *limit },
        Step::Register { index, incarnation, cpu_millis, devices, running, cut } => {
            let mut registration = registration(*index, *incarnation, *cpu_millis, *devices);
            if let Some(device) = registration.devices.first_mut() {
                device.mig = layout(*cut);
            }
            if *running {
                registration.running = ledger.reservations().map(|r| r.id).collect();
            }
            Command::RegisterNode(registration)
        }
        Step::Health(node, health, right) => {
            let epoch = ledger.node(NodeId(*node)).map_or(NodeEpoch(0), |n| n.epoch);
            let epoch = if *right { epoch } else { NodeEpoch(epoch.0.wrapping_sub(1)) };
            Command::SetNodeHealth { node: NodeId(*node), epoch, health: *health }
        }
        Step::FailUnderGang(index) => {
            // By chance alone, the node of a gang on several seldom fails while it holds something.
            let apart = |r: &&Reservation| r.members.iter().any(|member| member.node != r.members[0].node);
            let gangs: Vec<&Reservation> = ledger.reservations().map(AsRef::as_ref).filter(apart).collect();
            let node = gangs.get(index % gangs.len().max(1)).map_or(NodeId(0), |gang| gang.members[0].node);
            let epoch = ledger.node(node).map_or(NodeEpoch(0), |n| n.epoch);
            Command::SetNodeHealth { node, epoch, health: NodeHealth::Failed }
        }
        Step::Admin(node, change) => {
            let reason = "test".to_owned();
            let admin = match change {
                0 => AdminChange::Cordon { reason },
                1 => AdminChange::Drain { reason, deadline_ms: 4_000 },
                2 => AdminChange::Drain { reason, deadline_ms: 0 },
                _ => AdminChange::Uncordon,
            };
            Command::SetNodeAdmin { node: NodeId(*node), admin }
        }
        Step::Device(node, device, failed) => {
            Command::SetDeviceHealth { node: NodeId(*node), device: DeviceIndex(*device), failed: *failed }
        }
        Step::MoveNode { pick: index, back, wait } => {
            // Mostly one that is free to go, where both pools are elastic and there is such a one.
            let pools = ["default", "gpu"];
            let to = |from: &str| if from == pools[0] { pools[1] } else { pools[0] };
            let may: Vec<_> =
                ledger.nodes().filter(|n| ledger.may_move(n.id, &n.pool, to(&n.pool)).is_ok()).collect();
            let all: Vec<_> = ledger.nodes().collect();
            let from = if may.is_empty() || *wait { &all } else { &may };
            let Some(n) = from.get(index % from.len().max(1)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let (from, to) = (n.pool.clone(), to(&n.pool).to_owned());
            let (from, to) = if *back && *wait { (to, from) } else { (from, to) };
            Command::MoveNode { node: n.id, from, to }
        }
        Step::RemoveNode(node) => Command::RemoveNode { node: NodeId(*node) },
        Step::Policy(change, stale) => {
            let (put, delete) = policy(*change);
            let if_revision = if *stale { Revision(1) } else { Revision(0) };
            Command::ApplyPolicy { put, delete, if_revision }
        }
        Step::Endpoint { pick: index, right, port, draining } => {
            // Mostly one of a service.
            let replicas: Vec<_> = ledger.reservations().filter(|r| !r.request.service.is_empty()).collect();
            let replica = replicas.get(index % replicas.len().max(1)).map(|r| Arc::clone(r));
            let Some(r) = replica.filter(|_| index % 7 > 0).or_else(|| pick(ledger, *index)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let announced = (*port < 3).then(|| Announcement {
                address: format!("10.0.0.1:{port}"),
                weight_milli: if index % 31 == 0 { 1_000_001 } else { 1_000 },
                draining: *draining,
                ..Announcement::default()
            });
            Command::SetEndpoint { reservation: r.id, token: token(&r, *right), announced }
        }
        Step::Loads(picks) => {
            let ids: std::collections::BTreeSet<_> =
                picks.iter().filter_map(|index| pick(ledger, *index)).map(|r| r.id).collect();
            let endpoints = ledger.endpoints("web").map(|r| r.id);
            let ids: std::collections::BTreeSet<_> = ids.into_iter().chain(endpoints).collect();
            let report = |reservation: ReservationId| LoadReport {
                reservation,
                utilization_permille: ledger.revision().0 as u32,
                rate_milli: 1_000,
                errors_milli: 0,
                in_flight: 1,
                queue_depth: 0,
                latency_us: 7,
                metrics: match ledger.revision().0 % 3 {
                    0 => [("cpu".to_owned(), 1_000 * u64::from(reservation.0 as u32 % 200))].into(),
                    // More than one report may name, now and then.
                    1 => (0..ledger.revision().0 % 20).map(|n| (format!("m{n}"), n)).collect(),
                    _ => Default::default(),
                },
                measured_only: ledger.revision().0.is_multiple_of(5),
            };
            Command::ReportLoad { reports: ids.into_iter().map(report).collect() }
        }
        Step::Interrupt { node, in_ms, right } => {
            let epoch = ledger.node(NodeId(*node)).map_or(NodeEpoch(0), |n| n.epoch);
            let epoch = if *right { epoch } else { NodeEpoch(epoch.0.wrapping_sub(1)) };
            Command::InterruptNode { node: NodeId(*node), epoch, in_ms: *in_ms }
        }
        Step::Leader => Command::BecomeLeader { leader: 1 },
        Step::Upgrade(to) => Command::Upgrade { to: *to },
        Step::Desire(desired, right) => {
            let back = if *right { 0 } else { 5 };
            Command::SetDesired(ScaleDecided {
                policy: "grow".to_owned(),
                desired: *desired,
                computed_from: Revision(ledger.revision().0.saturating_sub(back)),
                rule: if desired % 2 == 0 { "waiting" } else { "contention cpu" }.to_owned(),
                inputs: vec!["2 requests wait".to_owned(); if desired % 6 == 5 { 33 } else { 1 }],
            })
        }
        Step::Pin(to, for_ms) => {
            let target = ScalingTarget::Pool("default".to_owned());
            Command::PinScale { target, to: *to, for_ms: *for_ms }
        }
        Step::Machine(which, template) => {
            let ids: Vec<Revision> = ledger.intents().map(|intent| intent.id).collect();
            let machine =
                which.map(|which| ids.get(which % ids.len().max(1)).copied().unwrap_or(Revision(1)));
            // Now and then one that is not declared, or one where none may be.
            let templates = ledger.scaling_policy("grow").map_or(&[][..], |policy| &policy.templates);
            let template = match (template, which) {
                (0, _) => "none",
                (1, _) | (_, Some(_)) => "",
                (more, None) => {
                    templates.get(usize::from(*more) % templates.len().max(1)).map_or("", |one| &one.name)
                }
            };
            Command::OpenIntent { policy: "grow".to_owned(), machine, template: template.to_owned() }
        }
        Step::Proceed(which, what, right) => {
            let intents: Vec<_> = ledger.intents().collect();
            let Some(intent) = intents.get(which % intents.len().max(1)) else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let step = match what {
                0..=2 => IntentStep::Act,
                3 => IntentStep::Answered { handle: format!("vm-{}", intent.id.0), node: String::new() },
                4 => IntentStep::Later { detail: "busy".to_owned(), after_ms: 2_000 },
                5 | 6 => IntentStep::Ready,
                _ => IntentStep::Failed { detail: "no room".to_owned() },
            };
            let attempts = if *right { intent.attempts } else { intent.attempts + 1 };
            Command::StepIntent { intent: intent.id, attempts, step }
        }
        Step::Boot(which) => {
            let names: Vec<String> =
                ledger.intents().filter(|one| one.starts()).map(|one| one.node.clone()).collect();
            let Some(name) = names.get(which % names.len().max(1)).cloned() else {
                return Entry::system(Command::Cancel { reservation: nobody });
            };
            let mut booted = registration(9, 1, 8_000, 0);
            booted.capacity.set("power", plimsoll_types::Amount(120));
            Command::RegisterNode(Registration { name, ..booted })
        }
        Step::Observe(which) => {
            // Mostly what the leader would look at.
            let due = ledger.contentions_due(ledger.clock());
            let some = due.get(usize::from(*which) % due.len().max(1)).cloned().filter(|_| *which < 6);
            let (pool, resource) = some.unwrap_or_else(|| {
                let pool = if *which == 7 { "gpu" } else { "default" };
                (pool.to_owned(), ["cpu", "gpu", "memory", "license/x"][usize::from(*which) % 4].to_owned())
            });
            Command::ObserveContention { pool, resource }
        }
        Step::SetAside(index, right) => {
            let queues = ledger.queues_to_even();
            let queue = queues.get(index % queues.len().max(1)).copied().unwrap_or("speech");
            let mut ids = ledger.to_set_aside(queue, 1 + index % 3);
            if !right || ids.is_empty() {
                ids.extend(pick(ledger, *index).map(|r| r.id));
            }
            let one = |id: ReservationId| SetAsideOne {
                reservation: id,
                body: vec![7; 1 + (id.0 % 5) as usize].into(),
                body_hash: [1; 32],
            };
            Command::SetAside { aside: ids.into_iter().map(one).collect() }
        }
        Step::Return(index, right) => {
            let queues: Vec<&str> = ledger.queues_aside().collect();
            let queue = queues.get(index % queues.len().max(1)).copied().unwrap_or("speech");
            let mut ids = ledger.to_return(queue, 1 + index % 3);
            if !right || ids.is_empty() {
                ids.extend(ledger.aside_in(queue).nth(index % 4));
            }
            // What is left of them, with the amounts: bodies are nothing to a ledger.
            let asked = ids.into_iter().filter_map(|id| ledger.reservation(id)).map(|r| {
                let mut request = Request::clone(&r.request);
                request.requirements.amounts = r.amounts.clone();
                if !right && index % 5 == 0 {
                    request.requirements.amounts.cpu_millis.0 ^= 1;
                }
                (r.id, request)
            });
            Command::Return { requests: asked.collect() }
        }
        Step::Take { which, who, tokens } => Command::TakeTokens {
            quota: ["user", "day", "day", "day", "org"][usize::from(*which).min(4)].to_owned(),
            rate: if *which == 4 { "requests" } else { "api" }.to_owned(),
            scope: ["ada", "bob"][usize::from(*who)].to_owned(),
            tokens: *tokens,
        },
        Step::Windows(which, ahead_ms, length_ms, right) => {
            let schedule = ["night", "always", "other", "evening"][usize::from(*which)];
            let changed = ledger.schedule(schedule).map_or(Revision(1), |known| known.changed);
            let changed = if *right { changed } else { Revision(changed.0 + 1) };
            let start = ledger.clock().plus_ms(*ahead_ms);
            let first = Window { start, end: start.plus_ms(*length_ms) };
            let second = Window { start: first.end.plus_ms(ahead_ms % 2 * 5_000), end: LedgerTime(u64::MAX) };
            let windows = if length_ms % 3 == 0 { vec![first, second] } else { vec![first] };
            let (schedule, until) = (schedule.to_owned(), start);
            Command::OpenWindows { schedule, changed, windows, until }
        }
    };
    entry
}

fn pick(ledger: &Ledger, index: usize) -> Option<Arc<Reservation>> {
    let live: Vec<&Arc<Reservation>> = ledger.reservations().collect();
    (!live.is_empty()).then(|| Arc::clone(live[index % live.len()]))
}
