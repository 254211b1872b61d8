//! The ledger: state, read access, and the entry point `apply`.
//!
//! Invariants: stored facts change only through `put_*` of `index.rs`, which keep every derived index in step and note
//! the row as touched; everything derived can be rebuilt from the rows (`rows.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, LedgerTime, NodeId, ReservationId, Resources, Revision};

use crate::answers::Answers;
use crate::calendar::{Calendar, Schedule};
use crate::capacity;
use crate::class_order::HeldByClass;
use crate::contention::Contentions;
use crate::endpoints::Endpoints;
use crate::hours::Awaited;
use crate::limits::{MAX_REMEMBERED, PREEMPTION_WINDOW_MS, REMEMBER_MS};
use crate::overflow::Overflows;
use crate::processing::Batched;
use crate::quota::QuotaTree;
use crate::recent::RecentRequests;
use crate::removed::RemovedNodes;
use crate::repair::Repairing;
use crate::spot::SpotIndex;
use crate::topology::Work;
use crate::touched::Touched;
use crate::usage::{OddPrices, QuotaIndex, UsageBook};
use crate::{
    Answer, Applied, Blocker, Class, Command, DEFAULT_CLASS, DEFAULT_POOL, DeviceUsage, Entry, Event,
    EventObject, GENESIS_CLASSES, Intent, Load, Meta, Node, NodeLimits, NodeUsage, Outcome, Pool, Queue,
    QueueUse, QuotaPolicy, Reason, Refusal, Remembered, Reservation, Scaling, ScalingPolicy, Service, Stamp,
    State, Validator, Verdict, Violation,
};

/// Newest ledger version that this build can run.
pub const LATEST_VERSION: u32 = 16;

/// A node with what is taken of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) node: Arc<Node>,
    pub(crate) usage: NodeUsage,
}

/// Pending reservations in order of class, then age.
pub(crate) type Waiting = BTreeSet<(Reverse<i32>, ReservationId)>;

/// The replicated state machine. Equal entries in equal order make equal ledgers, on every replica.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    // Stored facts.
    pub(crate) meta: Meta,
    pub(crate) pools: BTreeMap<String, Arc<Pool>>,
    pub(crate) classes: BTreeMap<String, Arc<Class>>,
    pub(crate) node_limits: BTreeMap<String, Arc<NodeLimits>>,
    pub(crate) queues: BTreeMap<String, Arc<Queue>>,
    pub(crate) quota_policies: BTreeMap<String, Arc<QuotaPolicy>>,
    /// What is spent and committed of their meters.
    pub(crate) book: UsageBook,
    pub(crate) validators: BTreeMap<String, Arc<Validator>>,
    pub(crate) schedules: BTreeMap<String, Arc<Schedule>>,
    pub(crate) services: BTreeMap<String, Arc<Service>>,
    /// What their endpoints said last of their load.
    pub(crate) loads: BTreeMap<ReservationId, Load>,
    pub(crate) scaling_policies: BTreeMap<String, Arc<ScalingPolicy>>,
    /// What their targets want, by policy.
    pub(crate) scalings: BTreeMap<String, Arc<Scaling>>,
    /// Machines to be started or removed, and those that are there.
    pub(crate) intents: BTreeMap<Revision, Arc<Intent>>,
    /// What those who wait lack, and lacked.
    pub(crate) contentions: Contentions,
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) reservations: BTreeMap<ReservationId, Arc<Reservation>>,
    pub(crate) answers: Answers,
    pub(crate) removed: RemovedNodes,
    /// What queues used over time, by queue and pool.
    pub(crate) queue_uses: BTreeMap<(String, String), Arc<QueueUse>>,
    // Derived from them.
    pub(crate) node_names: BTreeMap<String, NodeId>,
    /// Per pool, in order of class and age.
    pub(crate) pending: BTreeMap<String, Waiting>,
    /// The same of those that name a queue: per queue and pool.
    pub(crate) queued: BTreeMap<(String, String), Waiting>,
    /// Who is set aside from bounded queues, and what they asked.
    pub(crate) overflows: Overflows,
    /// Gangs that lost members, per pool.
    pub(crate) repairing: BTreeMap<String, Repairing>,
    /// What queues have of their quotas.
    pub(crate) quota: QuotaTree,
    /// The same once those who were given notice have left, and those for whom they leave are there.
    pub(crate) quota_kept: QuotaTree,
    /// Quotas by whom they are about.
    pub(crate) quota_index: QuotaIndex,
    /// What is kept of pools, and what is taken of those.
    pub(crate) calendar: Calendar,
    pub(crate) deadlines: BTreeSet<(LedgerTime, ReservationId)>,
    pub(crate) ended: BTreeSet<(LedgerTime, ReservationId)>,
    pub(crate) drains: BTreeSet<(LedgerTime, NodeId)>,
    pub(crate) countables_used: BTreeMap<String, Resources>,
    pub(crate) countables_kept: BTreeMap<String, Resources>,
    /// Per pool, when notice was given, to whom.
    pub(crate) preempted: BTreeMap<String, BTreeSet<(LedgerTime, ReservationId)>>,
    /// Grants of queues that decide in batches.
    pub(crate) batched: Batched,
    /// Who waits for hours.
    pub(crate) awaited: Awaited,
    /// What classes hold of pools that go by their weights.
    pub(crate) held_by_class: HeldByClass,
    pub(crate) counts: BTreeMap<State, u64>,
    /// Who is in which domain.
    pub(crate) work: Work,
    /// Nodes that cost something else than their pool's prices.
    pub(crate) odd_prices: OddPrices,
    /// How much of which work is on spot nodes.
    pub(crate) spots: SpotIndex,
    /// Who listens where, by service.
    pub(crate) endpoints: Endpoints,
    /// When anything of endpoints changed last. Not stored: after a restart it is that of the latest entry.
    pub(crate) endpoints_changed: Revision,
    /// A cache: equal requests share memory.
    pub(crate) recent: RecentRequests,
    // Rows changed since they were last taken.
    pub(crate) touched: Touched,
    // What `guard.rs` found since it was last taken.
    pub(crate) violations: Vec<Violation>,
}

/// What one `apply` has at hand: the entry's identity after clamping, and what happened so far.
pub(crate) struct Context<'a> {
    pub(crate) revision: Revision,
    pub(crate) now: LedgerTime,
    pub(crate) actor: &'a str,
    pub(crate) events: Vec<Event>,
}

impl Context<'_> {
    pub(crate) fn event(&mut self, rule: &'static str, object: EventObject) {
        let (revision, log_time) = (self.revision, self.now);
        self.events.push(Event { revision, log_time, actor: self.actor.to_owned(), rule, object });
    }
}

impl Ledger {
    /// The ledger before the first entry: version 1, the pool `default` and the classes of `GENESIS_CLASSES`.
    pub fn new() -> Ledger {
        let mut ledger = Ledger { meta: Meta { version: 1, ..Meta::default() }, ..Ledger::default() };
        ledger.put_pool(Arc::new(Pool { name: DEFAULT_POOL.to_owned(), ..Pool::default() }));
        for (name, priority, preemptible) in GENESIS_CLASSES {
            let class = Class { name: name.to_owned(), priority, preemptible, ..Class::default() };
            ledger.put_class(Arc::new(class));
        }
        ledger.touched.meta();
        ledger
    }

    /// Applies one entry of the log. Total and infallible; cost O(log n) for the everyday commands.
    ///
    /// # Panics
    /// Where `stamp.revision` does not follow the ledger's: the log itself is broken then, and going on would diverge.
    pub fn apply(&mut self, stamp: Stamp, entry: &Entry) -> Applied {
        assert_eq!(stamp.revision.0, self.meta.revision.0 + 1, "entries apply once, in log order");
        self.meta.revision = stamp.revision;
        let before = if mutant!("time-goes-back") { LedgerTime(0) } else { self.meta.clock };
        self.meta.clock = before.max(stamp.proposed_at);
        self.touched.meta();
        let now = self.meta.clock;
        let refused = |reason: Reason| {
            let refusal = Refusal::one(reason, format!("request_id {:?}", entry.request_id), 1, 0);
            Answer { revision: stamp.revision, log_time: now, outcome: Outcome::Refused(refusal) }
        };
        if let Some(earlier) = self.remembered(&entry.actor, &entry.request_id) {
            if earlier.request_hash == entry.request_hash {
                return Applied { answer: earlier.answer.clone(), replayed: true, events: Vec::new() };
            }
            return Applied { answer: refused(Reason::KeyConflict), replayed: false, events: Vec::new() };
        }
        let mut context = Context { revision: stamp.revision, now, actor: &entry.actor, events: Vec::new() };
        let outcome = match self.dispatch(&mut context, &entry.command) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        };
        let answer = Answer { revision: stamp.revision, log_time: now, outcome };
        if !entry.request_id.is_empty() && is_final_word(&entry.command, &answer.outcome) {
            self.remember(entry, &answer);
        }
        Applied { answer, replayed: false, events: context.events }
    }

    fn dispatch(&mut self, context: &mut Context<'_>, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Submit { request, verdict } => self.apply_submit(context, request, verdict),
            Command::Place { reservation, placement } => self.apply_place(context, *reservation, placement),
            Command::Preempt { reservation, placement, victims } => {
                self.apply_preempt(context, *reservation, placement, victims)
            }
            Command::Relocate { reservation, placement } => {
                self.apply_relocate(context, *reservation, placement)
            }
            Command::Evict { reservation, overload } => self.apply_evict(context, *reservation, overload),
            Command::Confirm { reservation, token } => self.apply_confirm(context, *reservation, *token),
            Command::Renew { reservation, token, ttl_ms } => {
                self.apply_renew(context, *reservation, *token, *ttl_ms)
            }
            Command::Resize { reservation, token, amounts } => {
                self.apply_resize(context, *reservation, *token, amounts)
            }
            Command::Release { reservation, token } => self.apply_release(context, *reservation, *token),
            Command::Requeue { reservation, token } => self.apply_requeue(context, *reservation, *token),
            Command::Cancel { reservation } => self.apply_cancel(context, *reservation),
            Command::Expire { limit } => Ok(self.apply_expire(context, *limit)),
            Command::RegisterNode(registration) => self.apply_register_node(context, registration),
            Command::SetNodeHealth { node, epoch, health } => {
                self.apply_set_node_health(context, *node, *epoch, *health)
            }
            Command::SetNodeAdmin { node, admin } => self.apply_set_node_admin(context, *node, admin),
            Command::SetDeviceHealth { node, device, failed } => {
                self.apply_set_device_health(context, *node, *device, *failed)
            }
            Command::RemoveNode { node } => self.apply_remove_node(context, *node),
            Command::InterruptNode { node, epoch, in_ms } => {
                self.apply_interrupt_node(context, *node, *epoch, *in_ms)
            }
            Command::MoveNode { node, from, to } => self.apply_move_node(context, *node, from, to),
            Command::ApplyPolicy { put, delete, if_revision } => {
                self.apply_policy(context, put, delete, *if_revision)
            }
            Command::OpenWindows { schedule, changed, windows, until } => {
                self.apply_open_windows(context, schedule, *changed, windows, *until)
            }
            Command::SetEndpoint { reservation, token, announced } => {
                self.apply_set_endpoint(context, *reservation, *token, announced.as_ref())
            }
            Command::ReportLoad { reports } => self.apply_report_load(context, reports),
            Command::SetDesired(decided) => self.apply_set_desired(context, decided),
            Command::PinScale { target, to, for_ms } => self.apply_pin_scale(context, target, *to, *for_ms),
            Command::OpenIntent { policy, machine, template } => {
                self.apply_open_intent(context, policy, *machine, template)
            }
            Command::StepIntent { intent, attempts, step } => {
                self.apply_step_intent(context, *intent, *attempts, step)
            }
            Command::ObserveContention { pool, resource } => {
                self.apply_observe_contention(context, pool, resource)
            }
            Command::SetAside { aside } => self.apply_set_aside(context, aside),
            Command::Return { requests } => self.apply_return(context, requests),
            Command::BecomeLeader { leader } => Ok(self.apply_become_leader(context, *leader)),
            Command::Upgrade { to } => self.apply_upgrade(context, *to),
            Command::TakeTokens { quota, rate, scope, tokens } => {
                self.apply_take_tokens(context, quota, rate, scope, *tokens)
            }
        }
    }

    /// A new leader: every live lease runs a full length from here. O(1): due times are re-read when they come up.
    fn apply_become_leader(&mut self, context: &mut Context<'_>, leader: u64) -> Outcome {
        self.meta.leader = leader;
        self.meta.rearmed_at = context.now;
        context.event("leader", EventObject::Leader(leader));
        Outcome::Done
    }

    fn apply_upgrade(&mut self, context: &mut Context<'_>, to: u32) -> Result<Outcome, Refusal> {
        let version = u64::from(self.meta.version);
        if to <= self.meta.version {
            return Err(Refusal::one(Reason::WrongState, "ledger version", to.into(), version));
        }
        if to > LATEST_VERSION {
            return Err(Refusal::one(
                Reason::UnsupportedVersion,
                "ledger version",
                to.into(),
                LATEST_VERSION.into(),
            ));
        }
        let before = std::mem::replace(&mut self.meta.version, to);
        if (before + 1..=to).contains(&capacity::SINCE_VERSION) {
            self.fill_capacity_labels(context);
        }
        context.event("upgrade", EventObject::Version(to));
        Ok(Outcome::Done)
    }

    /// Refuses what ledgers before version `since` do not know.
    pub(crate) fn require_version(&self, since: u32, subject: &str) -> Result<(), Refusal> {
        if self.meta.version >= since {
            return Ok(());
        }
        Err(Refusal::one(Reason::UnsupportedVersion, subject, since.into(), self.meta.version.into()))
    }

    /// True where the ledger's version knows what a change puts; where it does not, that is noted.
    pub(crate) fn knows(&self, since: u32, subject: &str, blockers: &mut Vec<Blocker>) -> bool {
        match self.require_version(since, subject) {
            Ok(()) => true,
            Err(refusal) => {
                blockers.extend(refusal.blockers);
                false
            }
        }
    }

    fn remember(&mut self, entry: &Entry, answer: &Answer) {
        if self.answers.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.answers.first().cloned()
        {
            self.forget_answer(&oldest);
        }
        self.put_remembered(Arc::new(Remembered {
            actor: entry.actor.clone(),
            request_id: entry.request_id.clone(),
            request_hash: entry.request_hash,
            answer: answer.clone(),
            keep_until: answer.log_time.plus_ms(REMEMBER_MS),
        }));
    }

    /// Counters and clocks.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Revision of the latest entry.
    pub fn revision(&self) -> Revision {
        self.meta.revision
    }

    /// Nothing was ever registered, submitted or put: entries so far changed leaders and versions, if anything.
    pub fn is_untouched(&self) -> bool {
        self.meta.next_node == 0
            && self.meta.policy_changed == Revision(0)
            && self.reservations.is_empty()
            && self.answers.len() == 0
    }

    /// Ledger time: the largest stamp so far.
    pub fn clock(&self) -> LedgerTime {
        self.meta.clock
    }

    /// A reservation, ended ones included until they are forgotten.
    pub fn reservation(&self, id: ReservationId) -> Option<&Arc<Reservation>> {
        self.reservations.get(&id)
    }

    /// All reservations, by ascending id.
    pub fn reservations(&self) -> impl DoubleEndedIterator<Item = &Arc<Reservation>> {
        self.reservations.values()
    }

    /// Reservations from `from` on, by ascending id.
    pub fn reservations_from(&self, from: ReservationId) -> impl Iterator<Item = &Arc<Reservation>> {
        self.reservations.range(from..).map(|(_, reservation)| reservation)
    }

    /// Number of reservations per state.
    pub fn counts(&self) -> &BTreeMap<State, u64> {
        &self.counts
    }

    /// Reservations that have not ended. O(states).
    pub fn live(&self) -> u64 {
        self.counts.iter().filter(|(state, _)| !state.is_final()).map(|(_, count)| count).sum()
    }

    /// A node by id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.slot(id).map(|slot| &slot.node)
    }

    /// A node by name.
    pub fn node_by_name(&self, name: &str) -> Option<&Arc<Node>> {
        self.node_names.get(name).and_then(|id| self.node(*id))
    }

    /// All nodes, by ascending id.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Arc<Node>> {
        self.slots.iter().flatten().map(|slot| &slot.node)
    }

    /// What is taken of a node.
    pub fn usage(&self, id: NodeId) -> Option<&NodeUsage> {
        self.slot(id).map(|slot| &slot.usage)
    }

    /// What is open to new grants on a node, best effort with them: what is offered of it less what is taken or kept. Zero for a node that is not there.
    pub fn open(&self, id: NodeId) -> Resources {
        let Some(slot) = self.slot(id) else { return Resources::default() };
        let offered = self.offered(&slot.node);
        let mut open = offered.saturating_sub(&slot.usage.used);
        if let Some(kept) = &slot.usage.kept {
            let later = offered.saturating_sub(&kept.used);
            open = open.smaller_of(&later);
        }
        open
    }

    /// What new grants find taken of a node's devices: now, or once those who leave have left.
    pub fn devices_spoken_for(&self, id: NodeId) -> Vec<DeviceUsage> {
        let Some(usage) = self.usage(id) else { return Vec::new() };
        (0..usage.devices.len()).map(|index| usage.device_spoken_for(index)).collect()
    }

    /// What is left of a node: allocatable less used, never below zero. Zero for a node that is not there.
    pub fn free(&self, id: NodeId) -> Resources {
        self.slot(id).map(|slot| slot.node.allocatable.saturating_sub(&slot.usage.used)).unwrap_or_default()
    }

    /// A pool by name.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.get(name)
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values()
    }

    /// A class by name.
    pub fn class(&self, name: &str) -> Option<&Arc<Class>> {
        self.classes.get(name)
    }

    /// All classes, by name.
    pub fn classes(&self) -> impl Iterator<Item = &Arc<Class>> {
        self.classes.values()
    }

    /// Node limits by name.
    pub fn node_limits(&self, name: &str) -> Option<&Arc<NodeLimits>> {
        self.node_limits.get(name)
    }

    /// All node limits, by name.
    pub fn all_node_limits(&self) -> impl Iterator<Item = &Arc<NodeLimits>> {
        self.node_limits.values()
    }

    /// What is taken of a pool's countables.
    pub fn countables_used(&self, pool: &str) -> Resources {
        self.countables_used.get(pool).cloned().unwrap_or_default()
    }

    /// What will be taken of a pool's countables once those who were given notice have left.
    pub fn countable_kept(&self, pool: &str, name: &str) -> Amount {
        self.countables_kept.get(pool).map(|amounts| amounts.get(name)).unwrap_or_default()
    }

    /// What new grants have to leave alone of a pool's countables: what is taken now, or once those who leave have left.
    pub fn countable_spoken_for(&self, pool: &str, name: &str) -> Amount {
        let of = |table: &BTreeMap<String, Resources>| table.get(pool).map(|amounts| amounts.get(name));
        of(&self.countables_used).max(of(&self.countables_kept)).unwrap_or_default()
    }

    /// A queue by name.
    pub fn queue(&self, name: &str) -> Option<&Arc<Queue>> {
        self.queues.get(name)
    }

    /// All queues, by name.
    pub fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.values()
    }

    /// A validator by name.
    pub fn validator(&self, name: &str) -> Option<&Arc<Validator>> {
        self.validators.get(name)
    }

    /// All validators, by name.
    pub fn validators(&self) -> impl Iterator<Item = &Arc<Validator>> {
        self.validators.values()
    }

    /// A schedule by name.
    pub fn schedule(&self, name: &str) -> Option<&Arc<Schedule>> {
        self.schedules.get(name)
    }

    /// All schedules, by name.
    pub fn schedules(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values()
    }

    /// What is kept of pools for schedules and advance reservations.
    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The tree of queues with what is taken of their quotas.
    pub fn quota(&self) -> &QuotaTree {
        &self.quota
    }

    /// The same once those who were given notice have left, and those for whom they leave are there.
    pub fn quota_kept(&self) -> &QuotaTree {
        &self.quota_kept
    }

    /// Reservations of a pool that were preempted within the last hour, as far as they are still known. O(them).
    pub fn recent_preemptions(&self, pool: &str) -> u64 {
        let since = LedgerTime(self.clock().0.saturating_sub(PREEMPTION_WINDOW_MS));
        self.preempted.get(pool).map_or(0, |all| all.range((since, ReservationId(0))..).count() as u64)
    }

    /// Prices of the pools that name one, in thousandths: what [`QuotaTree::share`] weighs pools by. O(pools).
    pub fn prices_milli(&self) -> BTreeMap<String, u32> {
        let priced = self.pools.values().filter(|pool| pool.price_milli > 0);
        priced.map(|pool| (pool.name.clone(), pool.price_milli)).collect()
    }

    /// Pending reservations of a pool: priority descending, then age.
    pub fn pending(&self, pool: &str) -> impl Iterator<Item = ReservationId> {
        self.pending.get(pool).into_iter().flatten().map(|(_, id)| *id)
    }

    /// Number of pending reservations of a pool.
    pub fn pending_len(&self, pool: &str) -> usize {
        self.pending.get(pool).map_or(0, BTreeSet::len)
    }

    /// Queues with requests that wait for something of a pool.
    pub fn queues_waiting(&self, pool: &str) -> impl Iterator<Item = &str> {
        self.queued.keys().filter(move |(_, of)| of == pool).map(|(queue, _)| queue.as_str())
    }

    /// Pending reservations of a queue that wait for something of a pool: priority descending, then age.
    pub fn pending_in(&self, queue: &str, pool: &str) -> impl Iterator<Item = ReservationId> {
        self.queued.get(&(queue.to_owned(), pool.to_owned())).into_iter().flatten().map(|(_, id)| *id)
    }

    /// Number of pending reservations that name just this queue, or none, and wait for something of a pool: those that a strict order keeps
    /// ahead of a new one. O(queues that wait).
    pub fn pending_ahead(&self, queue: &str, pool: &str) -> usize {
        if !queue.is_empty() {
            return self.queued.get(&(queue.to_owned(), pool.to_owned())).map_or(0, BTreeSet::len);
        }
        let queued = self.queued.iter().filter(|((_, of), _)| of == pool).map(|(_, waiting)| waiting.len());
        self.pending_len(pool) - queued.sum::<usize>()
    }

    /// Number of pending reservations of a queue. O(pools it waits for).
    pub fn pending_of_queue(&self, queue: &str) -> usize {
        self.of_queue(queue).map(Waiting::len).sum()
    }

    /// The remembered answer under a request id; `None` for the empty id.
    pub fn remembered(&self, actor: &str, request_id: &str) -> Option<&Arc<Remembered>> {
        if request_id.is_empty() {
            return None;
        }
        self.answers.get(actor, request_id)
    }

    pub(crate) fn slot(&self, id: NodeId) -> Option<&Slot> {
        self.slots.get(id.0 as usize).and_then(Option::as_ref)
    }

    pub(crate) fn slot_mut(&mut self, id: NodeId) -> Option<&mut Slot> {
        self.slots.get_mut(id.0 as usize).and_then(Option::as_mut)
    }

    /// Priority of a class as the queue uses it; the default class's where the class is gone.
    pub(crate) fn priority_of(&self, class: &str) -> i32 {
        self.classes.get(class).or_else(|| self.classes.get(DEFAULT_CLASS)).map_or(0, |class| class.priority)
    }
}

/// False where the leader will try again under the same request id: a place that was taken meanwhile is no answer yet.
fn is_final_word(command: &Command, outcome: &Outcome) -> bool {
    let placed = matches!(command, Command::Submit { verdict: Verdict::Place(_), .. });
    !(placed
        && matches!(outcome, Outcome::Refused(refusal) if refusal.reason >= Reason::NodeNotAvailable || refusal.reason == Reason::NotFound))
}
