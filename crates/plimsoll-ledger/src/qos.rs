//! Quality of service: which grants stand on capacity that is there, and which on what others leave idle (`docs/semantics.md` 5.11).
//!
//! Invariants: what is *backed* (guaranteed and burstable grants, and the remains on silent nodes) is never granted past what a node has; what
//! is taken in all, best-effort grants with it, never past what its pool offers of the node. Devices and countables are never offered twice.

use std::borrow::Cow;

use plimsoll_mutants::mutant;
use plimsoll_types::{Amount, LedgerTime, NodeId, Resources};

use crate::admit::Sight;
use crate::ledger::Slot;
use crate::limits::{MAX_ITEMS, MAX_OVERSUBSCRIPTION_PERMILLE};
use crate::{
    Blocker, Class, GpuShare, Ledger, Node, NodeUsage, PolicyObject, Pool, Reason, Refusal, Request,
    Reservation,
};

/// First ledger version that knows quality of service and oversubscription.
pub(crate) const SINCE_VERSION: u32 = 7;

/// What the holder of a grant may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// All of it, and nothing beyond: capacity that is there, and no advisory share of a device.
    Guaranteed,
    /// What was asked, on capacity that is there; beyond it whatever happens to be idle, up to `burst`.
    Burstable,
    /// What others leave idle, or what a pool offers beyond what its nodes have. First to leave.
    BestEffort,
}

impl Qos {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Qos); 3] =
        [("guaranteed", Qos::Guaranteed), ("burstable", Qos::Burstable), ("best_effort", Qos::BestEffort)];
}

impl Request {
    /// True where it takes only what is idle or oversubscribed.
    pub fn is_best_effort(&self) -> bool {
        self.qos == Some(Qos::BestEffort)
    }
}

impl Reservation {
    /// True where what it holds stands on no capacity of its own.
    pub fn is_best_effort(&self) -> bool {
        self.request.is_best_effort()
    }

    /// How long it waited for its grant, from its start on where that lay ahead, in milliseconds; `None` before, and for one that was taken back:
    /// its later grants say nothing of how soon it was decided.
    pub fn first_wait_ms(&self) -> Option<u64> {
        let asked_at = self.submitted_at.max(LedgerTime(self.request.start_at_ms));
        let granted = self.granted_at.0 > 0 && self.preempted.is_none();
        granted.then(|| self.granted_at.ms_since(asked_at))
    }
}

impl Class {
    /// Whether a grant after such a wait missed the class's target; `None` where it has none.
    pub fn misses(&self, wait_ms: u64) -> Option<bool> {
        self.latency_target_ms.map(|target_ms| wait_ms > target_ms)
    }
}

impl Pool {
    /// How much of a resource may be promised in all on a node that has `real` of it.
    pub fn offers(&self, name: &str, real: Amount) -> Amount {
        let Some(permille) = self.oversubscription.get(name) else { return real };
        let offered = u128::from(real.0) * u128::from(*permille) / 1_000;
        // Half the range, as all amounts.
        Amount(u64::try_from(offered).unwrap_or(u64::MAX).min(u64::MAX >> 1)).max(real)
    }

    /// The same of everything that a node has.
    pub fn offers_of<'a>(&self, real: &'a Resources) -> Cow<'a, Resources> {
        let mut offered = Cow::Borrowed(real);
        for name in self.oversubscription.keys() {
            offered.to_mut().set(name, self.offers(name, real.get(name)));
        }
        offered
    }
}

impl NodeUsage {
    /// What is taken of a resource by those who stand on capacity that is there: now.
    pub fn backed(&self, name: &str) -> Amount {
        self.used.get(name).saturating_sub(self.loose.get(name))
    }

    /// The same once those who were given notice have left.
    pub fn backed_later(&self, name: &str) -> Amount {
        match &self.kept {
            Some(kept) => kept.used.get(name).saturating_sub(kept.loose.get(name)),
            None => self.backed(name),
        }
    }

    fn used_as(&self, name: &str, sight: Sight) -> Amount {
        match sight {
            Sight::Both => self.spoken_for(name),
            Sight::Now => self.used.get(name),
            Sight::Later => self.later(name),
        }
    }

    fn backed_as(&self, name: &str, sight: Sight) -> Amount {
        match sight {
            Sight::Both => self.backed(name).max(self.backed_later(name)),
            Sight::Now => self.backed(name),
            Sight::Later => self.backed_later(name),
        }
    }
}

/// What is left of a resource on a node for a request, and what it is left of: for best effort all that the pool offers of the node less all
/// that is taken; for others also what the node has less what is backed.
pub(crate) fn node_room(
    pool: &Pool,
    slot: &Slot,
    request: &Request,
    name: &str,
    sight: Sight,
) -> (Amount, Amount) {
    let real = slot.node.allocatable.get(name);
    let offered = pool.offers(name, real);
    let free = offered.saturating_sub(slot.usage.used_as(name, sight));
    if request.is_best_effort() || mutant!("sell-idle-as-guaranteed") {
        return (free, offered);
    }
    (free.min(real.saturating_sub(slot.usage.backed_as(name, sight))), real)
}

impl Ledger {
    /// The quality of service of a new request: its own, or that of its class where it names none.
    pub(crate) fn qos_of(&self, request: &Request) -> Option<Qos> {
        request.qos.or_else(|| self.class(&request.class).and_then(|class| class.qos))
    }

    /// A new request with the quality of service that its class gives it where it names none.
    pub fn with_qos<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        match self.qos_of(request) {
            qos if qos == request.qos => Cow::Borrowed(request),
            qos => Cow::Owned(Request { qos, ..request.clone() }),
        }
    }

    /// What may be promised of a node in all, best effort with it: what it has, unless its pool oversubscribes some of that.
    pub fn offered<'a>(&self, node: &'a Node) -> Cow<'a, Resources> {
        match self.pool(&node.pool) {
            Some(pool) => pool.offers_of(&node.allocatable),
            None => Cow::Borrowed(&node.allocatable),
        }
    }

    /// What is left of a node for those who stand on capacity that is there: what it has less what is backed or kept for such. `None` where its
    /// pool oversubscribes nothing: then [`Ledger::open`] says it.
    pub fn open_backed(&self, id: NodeId) -> Option<Resources> {
        let slot = self.slot(id)?;
        self.pool(&slot.node.pool).filter(|pool| !pool.oversubscription.is_empty())?;
        let mut open = slot.node.allocatable.clone();
        for (name, real) in slot.node.allocatable.iter() {
            open.set(name, real.saturating_sub(slot.usage.backed_as(name, Sight::Both)));
        }
        Some(open)
    }

    /// Refuses a request whose quality of service, or its class's, makes no sense.
    pub(crate) fn check_qos(&self, request: &Request) -> Result<(), Refusal> {
        let qos = self.qos_of(request);
        let mut bad = Vec::new();
        let share = request.requirements.gpu.as_ref().map(|gpu| gpu.share);
        if qos == Some(Qos::Guaranteed) && matches!(share, Some(GpuShare::Milli(_) | GpuShare::Memory(_))) {
            // The wall around a share is advisory: nobody can guarantee it.
            let subject = "qos guaranteed: a share of a device is advisory; ask for whole devices, an instance, or burstable";
            bad.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
        }
        if !request.burst.is_zero() && qos != Some(Qos::Burstable) {
            let subject = "burst: only what is burstable uses more than it asks";
            bad.push(Blocker::new(Reason::InvalidArgument, subject, 1, 0));
        }
        for (name, most) in request.burst.iter() {
            let least = request.requirements.amounts.get(name);
            if most < least || least.is_zero() {
                let subject = format!("burst.{name}");
                bad.push(Blocker::new(Reason::InvalidArgument, subject, most.0, least.0));
            }
        }
        if bad.is_empty() { Ok(()) } else { Err(Refusal { reason: Reason::InvalidArgument, blockers: bad }) }
    }

    /// What is wrong with the quality of service of what is put.
    pub(crate) fn check_qos_policy(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_qos) {
            self.knows(SINCE_VERSION, "quality of service", blockers);
        }
    }
}

/// Every way in which a pool's oversubscription makes no sense.
pub(crate) fn validate_oversubscription(pool: &Pool) -> Vec<Blocker> {
    let refuse = |field: String, value: u64, most: u64| Blocker {
        limit: most,
        ..Blocker::new(Reason::InvalidArgument, field, value, most)
    };
    let mut bad = Vec::new();
    let many = pool.oversubscription.len();
    if many > MAX_ITEMS {
        bad.push(refuse("pool.oversubscription".to_owned(), many as u64, MAX_ITEMS as u64));
    }
    for (name, permille) in &pool.oversubscription {
        let field = format!("pool.oversubscription.{name}");
        if name == crate::GPU || pool.countables.contains_key(name) {
            // Two cannot have one device, nor one licence.
            bad.push(refuse(field, (*permille).into(), 0));
        } else if !(1_000..=MAX_OVERSUBSCRIPTION_PERMILLE).contains(permille) {
            bad.push(refuse(field, (*permille).into(), MAX_OVERSUBSCRIPTION_PERMILLE.into()));
        }
    }
    bad
}

/// True for what of a request ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_qos(request: &Request) -> bool {
    request.qos.is_some() || !request.burst.is_zero()
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_qos(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Pool(pool) => !pool.oversubscription.is_empty(),
        PolicyObject::Class(class) => class.qos.is_some() || class.latency_target_ms.is_some(),
        PolicyObject::NodeLimits(_)
        | PolicyObject::Queue(_)
        | PolicyObject::Quota(_)
        | PolicyObject::Schedule(_)
        | PolicyObject::Service(_)
        | PolicyObject::ScalingPolicy(_)
        | PolicyObject::Validator(_) => false,
    }
}
