//! Whose class's turn it is in a pool (`docs/semantics.md` 5.26): the higher one's always, or that of the class that holds least by its weight.
//!
//! Invariant: `held_by_class` has, for each pool that goes by weights, what the grants of each class hold of it, and nothing of other pools.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_types::Resources;

use crate::limits::MAX_WEIGHT_MILLI;
use crate::{Blocker, Class, Ledger, PolicyObject, Pool, QueueDiscipline, Reason, Reservation};

/// First ledger version that knows weights of classes.
pub(crate) const SINCE_VERSION: u32 = 14;

/// Which class goes first where several wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassOrder {
    /// The one of the highest priority.
    #[default]
    Strict,
    /// The one whose grants hold the smallest part of the pool for its weight.
    Weighted,
}

/// By pool and class.
pub(crate) type HeldByClass = BTreeMap<String, BTreeMap<String, Resources>>;

impl Class {
    /// Its weight beside other classes, in thousandths.
    pub fn weight(&self) -> u32 {
        self.weight_milli.unwrap_or(1_000)
    }
}

impl Ledger {
    /// What grants of each class hold of a pool that goes by the weights of classes, `gpu` in thousandths of devices; `None` for any other.
    pub fn held_by_class(&self, pool: &str) -> Option<&BTreeMap<String, Resources>> {
        self.held_by_class.get(pool)
    }

    /// Counts what a grant holds for its class, or takes it out.
    pub(crate) fn count_by_class(&mut self, reservation: &Reservation, is_there: bool) {
        let Some(classes) = self.held_by_class.get_mut(&reservation.request.pool) else { return };
        let Some(taken) = reservation.charge() else { return };
        let held = classes.entry(reservation.request.class.clone()).or_default();
        crate::index::change_resources(held, &taken, is_there);
        if held.is_zero() {
            classes.remove(&reservation.request.class);
        }
    }

    /// The same from nothing: pools were put or deleted, or all rows are there. O(reservations) where a pool goes by weights.
    pub(crate) fn recount_by_class(&mut self) {
        let weighted = self.pools.values().filter(|pool| pool.class_order == ClassOrder::Weighted);
        self.held_by_class = weighted.map(|pool| (pool.name.clone(), BTreeMap::new())).collect();
        if self.held_by_class.is_empty() {
            return;
        }
        let holds = |one: &&Arc<Reservation>| one.state.is_occupying();
        let holding: Vec<Arc<Reservation>> = self.reservations.values().filter(holds).cloned().collect();
        for reservation in &holding {
            self.count_by_class(reservation, true);
        }
    }

    /// What is wrong with weights that are put.
    pub(crate) fn check_class_order(&self, put: &[PolicyObject], blockers: &mut Vec<Blocker>) {
        if put.iter().any(is_of_class_order) {
            self.knows(SINCE_VERSION, "weights of classes", blockers);
        }
    }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_class_order(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Pool(pool) => pool.class_order != ClassOrder::default(),
        PolicyObject::Class(class) => class.weight_milli.is_some(),
        _ => false,
    }
}

/// A pool whose queue is planned ahead by class cannot go by weights, which change with every grant.
pub(crate) fn validate_class_order(pool: &Pool) -> Option<Blocker> {
    use QueueDiscipline::{ByQueueOrder, Skip, Strict};
    let is_planned = !matches!(pool.queueing, ByQueueOrder | Strict | Skip);
    (is_planned && pool.class_order == ClassOrder::Weighted).then(|| {
        let subject = format!("pool.class_order weighted with queueing {}", pool.queueing);
        Blocker::new(Reason::InvalidArgument, subject, 1, 0)
    })
}

/// Field, value, least and most of a class's weight.
pub(crate) fn class_bounds(class: &Class) -> (&'static str, u64, u64, u64) {
    ("class.weight_milli", class.weight().into(), 0, MAX_WEIGHT_MILLI.into())
}
