//! A second ledger, written from `docs/semantics.md` alone: no index, no sharing, every sum made anew. It is slow and
//! plain on purpose; where it and the real ledger differ, one of them or the page is wrong.

mod admission;
mod calendar;
pub(crate) mod clause;
pub(crate) mod contention;
mod elastic;
mod eviction;
mod life;
mod nodes;
mod overflow;
mod policy;
mod preemption;
mod processing;
mod qos;
mod quota;
mod rate;
mod relocate;
mod repair;
pub(crate) mod scaling;
mod service;
mod slices;
mod spot;
mod topology;
mod usage;

use std::collections::BTreeMap;

use plimsoll_ledger::{
    AdminChange, Command, DeviceGrant, EndReason, Entry, GpuShare, NodeHealth, Outcome, Placement,
    PolicyName, PolicyObject, PreemptionRule, Reason, Registration, Request, State, Verdict, Wait,
};
use plimsoll_types::{Labels, Resources};

const HOUR_MS: u64 = 3_600_000;

/// What a command came to, without the details that the state comparison covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    To(&'static str),
    Expired(u32, bool),
    Tokens { taken: u64, left: u64, retry_after_ms: u64 },
    Refused(Reason),
}

#[derive(Clone, Debug)]
pub(crate) struct Res {
    pub(crate) request: Request,
    pub(crate) priority: i32,
    pub(crate) state: State,
    pub(crate) resume: State,
    pub(crate) amounts: Resources,
    pub(crate) members: Vec<(u32, Vec<DeviceGrant>)>,
    pub(crate) token: u64,
    pub(crate) granted_at: u64,
    /// By whom, by which rule, when, and with how much grace.
    pub(crate) preempted: Option<(u64, PreemptionRule, u64, u64)>,
    pub(crate) ttl_ms: u64,
    pub(crate) deadline: u64,
    pub(crate) hard_end: u64,
    pub(crate) ended_at: u64,
    pub(crate) end: Option<EndReason>,
    pub(crate) requester: String,
    pub(crate) bill: Vec<usage::Bill>,
    /// 0 where it has no tab.
    pub(crate) paid_until: u64,
    /// What it cost when it ended last, in millionths.
    pub(crate) cost: u64,
    /// What it said, and since when it is at that address.
    pub(crate) endpoint: Option<(plimsoll_ledger::Announcement, u64)>,
    /// Since when, until when, and how many members it had.
    pub(crate) repair: Option<(u64, u64, u32)>,
    /// Token of each member; none where all have the reservation's.
    pub(crate) tokens: Vec<u64>,
    /// It is set aside from its queue, or ended so.
    pub(crate) aside: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Nod {
    pub(crate) reg: Registration,
    pub(crate) epoch: u64,
    pub(crate) pool: String,
    pub(crate) allocatable: Resources,
    pub(crate) schedulable: bool,
    /// What runs there has to leave.
    pub(crate) drains: bool,
    pub(crate) drain: u64,
    pub(crate) health: NodeHealth,
    pub(crate) since: u64,
    pub(crate) pending: Vec<(u64, Resources, Vec<DeviceGrant>)>,
    pub(crate) lent: Option<Lent>,
    /// When its provider gave notice, and when it goes.
    pub(crate) interruption: Option<(u64, u64)>,
}

/// A node that moved: the pool that it is of, and when it came to where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lent {
    pub(crate) home: String,
    pub(crate) at: u64,
}

/// A node that was removed: its name, its devices' uuids, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) name: String,
    pub(crate) uuids: Vec<String>,
    pub(crate) at: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    hash: [u8; 32],
    came: Came,
    revision: u64,
    reservation: Option<u64>,
    until: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) clock: u64,
    rearmed: u64,
    policy_changed: u64,
    next_node: u32,
    pools: BTreeMap<String, plimsoll_ledger::Pool>,
    classes: BTreeMap<String, (i32, u64)>,
    limits: BTreeMap<String, plimsoll_ledger::NodeLimits>,
    queues: BTreeMap<String, plimsoll_ledger::Queue>,
    quotas: BTreeMap<String, plimsoll_ledger::QuotaPolicy>,
    /// What ended grants have used, one by one: quota, meter, whose, period, how much.
    spent: Vec<(usage::Line, u64)>,
    /// Lines of which anything is taken, and in which period it was.
    rows: BTreeMap<(String, plimsoll_ledger::Meter, String), u64>,
    /// When each bucket of a rate is full again, in nanoseconds.
    arrivals: BTreeMap<rate::Taker, u128>,
    /// Who asks.
    actor: String,
    validators: std::collections::BTreeSet<String>,
    pub(crate) schedules: BTreeMap<String, plimsoll_ledger::Schedule>,
    pub(crate) services: BTreeMap<String, plimsoll_ledger::Service>,
    pub(crate) loads: BTreeMap<u64, (plimsoll_ledger::LoadReport, u64)>,
    pub(crate) scaled: BTreeMap<String, plimsoll_ledger::ScalingPolicy>,
    /// Revision of the latest put of each.
    scaled_at: BTreeMap<String, u64>,
    pub(crate) wishes: BTreeMap<String, scaling::Wish>,
    pub(crate) intents: BTreeMap<u64, scaling::Wanted>,
    pub(crate) contentions: BTreeMap<u64, contention::Episode>,
    /// When each request was submitted.
    submitted: BTreeMap<u64, u64>,
    /// Latency targets of classes, in milliseconds.
    targets: BTreeMap<String, Option<u64>>,
    /// What a grant of a class counts for, in thousandths.
    multipliers: BTreeMap<String, Option<u32>>,
    /// What is kept of pools for classes.
    guaranteed: BTreeMap<String, BTreeMap<String, Resources>>,
    /// What stood in the way of those who wait: the wording is the ledger's, and read off it.
    pub(crate) blockers: BTreeMap<u64, Vec<plimsoll_ledger::Blocker>>,
    pub(crate) nodes: BTreeMap<u32, Nod>,
    pub(crate) reservations: BTreeMap<u64, Res>,
    kept: BTreeMap<(String, String), Kept>,
    pub(crate) version: u32,
    pub(crate) removed: BTreeMap<u32, Gone>,
    /// Preemptible, grace, protected run.
    rules: BTreeMap<String, (bool, u64, u64)>,
    /// What a class says of those who say nothing.
    qos: BTreeMap<String, Option<plimsoll_ledger::Qos>>,
    /// When best effort of a class leaves a node.
    leaves: BTreeMap<String, plimsoll_ledger::EvictWhen>,
    /// Looks at the world as it will be once those who were given notice have left.
    later: std::cell::Cell<bool>,
    /// Looks at the world without these.
    gone: std::cell::RefCell<Vec<u64>>,
    /// How often the rules of usage were met, by what came of it.
    pub(crate) met: BTreeMap<&'static str, u64>,
    /// A clause of the law of preemption that it does not know.
    pub(crate) forgets: Option<clause::Clause>,
}

impl Model {
    pub(crate) fn new() -> Model {
        let mut model = Model { version: 1, ..Model::default() };
        let pool = plimsoll_ledger::Pool { name: "default".into(), ..Default::default() };
        model.pools.insert("default".into(), pool);
        for (name, priority) in
            [("critical", 100), ("high", 75), ("standard", 50), ("low", 25), ("batch", 10)]
        {
            model.classes.insert(name.into(), (priority, 0));
            model.rules.insert(name.into(), (priority < 50, 0, 0));
        }
        model
    }

    /// Applies one entry. Returns what it came to and the revision that the answer cites.
    pub(crate) fn step(&mut self, proposed_at: u64, entry: &Entry) -> (Came, u64) {
        self.revision += 1;
        self.clock = self.clock.max(proposed_at);
        self.actor.clone_from(&entry.actor);
        let key = (entry.actor.clone(), entry.request_id.clone());
        if let Some(kept) = self.kept.get(&key) {
            if kept.hash == entry.request_hash {
                return (kept.came.clone(), kept.revision);
            }
            return (Came::Refused(Reason::KeyConflict), self.revision);
        }
        let mut touched = None;
        let came = match self.command(&entry.command, &mut touched) {
            Ok(came) => came,
            Err(reason) => Came::Refused(reason),
        };
        if let Some(what) = usage::met(&came) {
            *self.met.entry(what).or_default() += 1;
        }
        if !entry.request_id.is_empty() {
            let placed = matches!(&entry.command, Command::Submit { verdict: Verdict::Place(_), .. });
            let again =
                matches!(&came, Came::Refused(r) if *r == Reason::NotFound || *r >= Reason::NodeNotAvailable);
            if !(placed && again) {
                let until = self.clock + 24 * HOUR_MS;
                let kept = Kept {
                    hash: entry.request_hash,
                    came: came.clone(),
                    revision: self.revision,
                    reservation: touched,
                    until,
                };
                self.kept.insert(key, kept);
            }
        }
        (came, self.revision)
    }

    fn command(&mut self, command: &Command, touched: &mut Option<u64>) -> Result<Came, Reason> {
        let id_of = |command: &Command| match command {
            Command::Place { reservation, .. }
            | Command::Preempt { reservation, .. }
            | Command::Relocate { reservation, .. }
            | Command::Confirm { reservation, .. }
            | Command::Renew { reservation, .. }
            | Command::Resize { reservation, .. }
            | Command::Release { reservation, .. }
            | Command::Requeue { reservation, .. }
            | Command::Evict { reservation, .. }
            | Command::SetEndpoint { reservation, .. }
            | Command::Cancel { reservation } => Some(reservation.0),
            _ => None,
        };
        let id = id_of(command).unwrap_or_default();
        match command {
            Command::Submit { request, verdict } => {
                self.submit(request, verdict)?;
                self.submitted.insert(self.revision, self.clock);
                *touched = Some(self.revision);
            }
            Command::Place { placement, .. } => self.place(id, placement)?,
            Command::Preempt { placement, victims, .. } => {
                let victims: Vec<u64> = victims.iter().map(|victim| victim.0).collect();
                self.preempt(id, placement, &victims)?;
            }
            Command::Relocate { placement, .. } => self.relocate(id, placement)?,
            Command::Evict { overload, .. } => self.evict(id, overload)?,
            Command::Confirm { token, .. } => self.confirm(id, token.0)?,
            Command::Renew { token, ttl_ms, .. } => self.renew(id, token.0, *ttl_ms)?,
            Command::Resize { token, amounts, .. } => self.resize(id, token.0, amounts)?,
            Command::Release { token, .. } => {
                let stands = [State::Held, State::Active, State::Partial, State::Preempting];
                self.with_token(id, token.0, &stands)?;
                self.finish(id, State::Released, EndReason::Released);
            }
            Command::Requeue { token, .. } => {
                if self.version < 4 {
                    return Err(Reason::UnsupportedVersion);
                }
                let r = self.with_token(id, token.0, &[State::Preempting])?;
                if r.state == State::Unknown {
                    return Err(Reason::WrongState);
                }
                if r.hard_end > 0 && self.clock >= r.hard_end {
                    return Err(Reason::Expired);
                }
                self.take_back(id);
            }
            Command::Cancel { .. } => {
                let r = self.reservations.get(&id).ok_or(Reason::NotFound)?;
                if r.state.is_final() {
                    return Err(Reason::WrongState);
                }
                let to = if occupies(r.state) { State::Released } else { State::Rejected };
                self.finish(id, to, EndReason::Cancelled);
            }
            Command::Expire { limit } => return Ok(self.expire((*limit).max(1))),
            Command::RegisterNode(reg) => {
                self.register(reg)?;
                return Ok(Came::To("node"));
            }
            Command::SetNodeHealth { node, epoch, health } => {
                self.set_health(node.0, epoch.0, *health)?;
                return Ok(Came::To("node"));
            }
            Command::SetNodeAdmin { node, admin } => {
                if matches!(admin, AdminChange::Uncordon) {
                    self.keep_leaving(node.0)?;
                }
                let now = self.clock;
                let n = self.nodes.get_mut(&node.0).ok_or(Reason::NotFound)?;
                n.schedulable = matches!(admin, AdminChange::Uncordon);
                if n.schedulable {
                    n.interruption = None;
                }
                n.drains = matches!(admin, AdminChange::Drain { .. });
                n.drain = match admin {
                    AdminChange::Drain { deadline_ms, .. } if *deadline_ms > 0 => now + deadline_ms,
                    _ => 0,
                };
                if !n.open() || n.health != NodeHealth::Available {
                    self.keep_no_places(node.0);
                }
                return Ok(Came::To("node"));
            }
            Command::SetDeviceHealth { node, device, failed } => {
                let n = self.nodes.get_mut(&node.0).ok_or(Reason::NotFound)?;
                let devices = &mut n.reg.devices;
                let index = usize::from(device.0);
                let device = devices.get_mut(index).ok_or(Reason::NotFound)?;
                let was = std::mem::replace(&mut device.failed, *failed);
                if was != *failed || !n.open() || n.health != NodeHealth::Available {
                    self.keep_no_places(node.0);
                }
                if *failed && !was {
                    self.lose_on(node.0, &[index]);
                }
                return Ok(Came::To("node"));
            }
            Command::RemoveNode { node } => {
                self.nodes.get(&node.0).ok_or(Reason::NotFound)?;
                if !self.holders(node.0).is_empty() {
                    return Err(Reason::InUse);
                }
                self.forget_node(node.0);
                return Ok(Came::To("done"));
            }
            Command::InterruptNode { node, epoch, in_ms } => {
                self.interrupt(node.0, epoch.0, *in_ms)?;
                return Ok(Came::To("node"));
            }
            Command::MoveNode { node, from, to } => {
                self.move_node(node.0, from, to)?;
                return Ok(Came::To("node"));
            }
            Command::ApplyPolicy { put, delete, if_revision } => {
                self.policy(put, delete, if_revision.0)?;
                return Ok(Came::To("done"));
            }
            Command::OpenWindows { schedule, changed, windows, .. } => {
                self.open(schedule, changed.0, windows)?;
                return Ok(Came::To("done"));
            }
            Command::BecomeLeader { .. } => {
                self.rearmed = self.clock;
                return Ok(Came::To("done"));
            }
            Command::SetEndpoint { token, announced, .. } => {
                self.set_endpoint(id, token.0, announced.as_ref())?;
            }
            Command::ReportLoad { reports } => {
                self.report_load(reports)?;
                return Ok(Came::To("done"));
            }
            Command::SetDesired(decided) => {
                self.set_desired(decided)?;
                self.note_scaled(decided);
                return Ok(Came::To("done"));
            }
            Command::PinScale { target, to, for_ms } => {
                self.pin_scale(target, *to, *for_ms)?;
                return Ok(Came::To("done"));
            }
            Command::OpenIntent { policy, machine, template } => {
                self.open_intent(policy, machine.map(|machine| machine.0), template)?;
                return Ok(Came::To("done"));
            }
            Command::StepIntent { intent, attempts, step } => {
                self.step_intent(intent.0, *attempts, step)?;
                return Ok(Came::To("done"));
            }
            Command::ObserveContention { pool, resource } => {
                self.observe(pool, resource)?;
                return Ok(Came::To("done"));
            }
            Command::SetAside { aside } => {
                self.set_aside(aside)?;
                return Ok(Came::To("done"));
            }
            Command::Return { requests } => {
                self.bring_back(requests)?;
                return Ok(Came::To("done"));
            }
            Command::TakeTokens { quota, rate, scope, tokens } => {
                return self.take_tokens((quota.clone(), rate.clone(), scope.clone()), *tokens);
            }
            Command::Upgrade { to } => {
                if *to <= self.version {
                    return Err(Reason::WrongState);
                }
                if *to > 16 {
                    return Err(Reason::UnsupportedVersion);
                }
                let before = std::mem::replace(&mut self.version, *to);
                if before < 11 && *to >= 11 {
                    self.fill_nodes();
                }
                return Ok(Came::To("done"));
            }
        }
        touched.get_or_insert(id);
        Ok(Came::To("reservation"))
    }

    fn forget_node(&mut self, id: u32) {
        self.keep_no_places(id);
        if let Some(n) = self.nodes.remove(&id).filter(|_| self.version >= 2) {
            let uuids = n.reg.devices.iter().map(|device| device.uuid.clone()).collect();
            self.removed.insert(id, Gone { name: n.reg.name, uuids, at: self.clock });
        }
    }

    pub(crate) fn queue(&self, pool: &str) -> Vec<u64> {
        let pending = self.reservations.iter().filter(|(_, r)| r.waits() && r.request.pool == pool);
        let mut pending: Vec<(i32, u64)> = pending.map(|(id, r)| (-r.priority, *id)).collect();
        pending.sort_unstable();
        pending.into_iter().map(|(_, id)| id).collect()
    }

    fn holders(&self, node: u32) -> Vec<u64> {
        let on = |r: &Res| occupies(r.state) && r.members.iter().any(|(n, _)| *n == node);
        self.reservations.iter().filter(|(_, r)| on(r)).map(|(id, _)| *id).collect()
    }
}

/// What the real ledger's outcome is in the model's words.
pub(crate) fn came(outcome: &Outcome) -> Came {
    match outcome {
        Outcome::Done => Came::To("done"),
        Outcome::Reservation(_) => Came::To("reservation"),
        Outcome::Node(_) => Came::To("node"),
        Outcome::Expired { ended, more } => Came::Expired(*ended, *more),
        Outcome::Tokens(told) => {
            Came::Tokens { taken: told.taken, left: told.left, retry_after_ms: told.retry_after_ms }
        }
        Outcome::Refused(refusal) => Came::Refused(refusal.reason),
    }
}

fn makes_sense(request: &Request) -> bool {
    let length = |ms: u64| ms == 0 || (1_000..=366 * 24 * HOUR_MS).contains(&ms);
    let gang = request.gang;
    let amounts = request.requirements.amounts.iter();
    let fits = |a: u64| u128::from(a) * u128::from(gang.max_members) <= u128::from(u64::MAX >> 1);
    let gpu = request.requirements.gpu.as_ref().is_none_or(|gpu| match gpu.share {
        GpuShare::Whole => (1..=256).contains(&gpu.count),
        GpuShare::Milli(m) => gpu.count == 1 && (1..1000).contains(&m),
        GpuShare::Memory(b) => gpu.count == 1 && b > 0 && b <= u64::MAX >> 1,
        GpuShare::Mig(_) => gpu.count == 1,
    });
    length(request.ttl_ms)
        && length(request.hold_ms)
        && request.max_duration_ms <= 366 * 24 * HOUR_MS
        && (request.start_at_ms == 0 || request.max_duration_ms >= 1_000)
        && request.hours.as_ref().is_none_or(|hours| {
            request.start_at_ms == 0 && (1_000..=366 * 24 * HOUR_MS).contains(&hours.longest_wait_ms)
        })
        && (1..=1024).contains(&gang.min_members)
        && (gang.min_members..=1024).contains(&gang.max_members)
        && amounts.map(|(_, a)| a.0).all(fits)
        && (request.topology.slice_size == 0) == request.topology.slice_level.is_empty()
        && repair::makes_sense(request)
        && [gang.min_members, gang.max_members].iter().all(|n| n % request.topology.slice_size.max(1) == 0)
        && gpu
}

fn labels(reg: &Registration) -> Labels {
    let mut labels = reg.labels.clone();
    labels.entry("node".into()).or_insert_with(|| reg.name.clone());
    if let Some(device) = reg.devices.first() {
        labels.entry("gpu".into()).or_insert_with(|| device.model.clone());
    }
    labels
}

fn count_nodes(members: &[(u32, Vec<DeviceGrant>)]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    members.iter().for_each(|(node, _)| *counts.entry(*node).or_default() += 1);
    counts
}

fn occupies(state: State) -> bool {
    matches!(state, State::Held | State::Active | State::Partial | State::Unknown | State::Preempting)
}

impl Res {
    pub(crate) fn waits(&self) -> bool {
        self.state == State::Pending && !self.aside
            || self.state == State::Planned && !self.members.is_empty()
    }

    pub(crate) fn is_advance(&self) -> bool {
        self.state == State::Planned && self.members.is_empty()
    }
}

fn at_most(time: u64, hard_end: u64) -> u64 {
    if hard_end > 0 { time.min(hard_end) } else { time }
}

fn least(reasons: Vec<Reason>) -> Result<(), Reason> {
    reasons.into_iter().min().map_or(Ok(()), Err)
}
