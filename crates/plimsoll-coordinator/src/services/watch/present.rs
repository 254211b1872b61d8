//! What is there when a watch begins, and is sent before what happens. All of one revision is kept until it is sent: watches
//! that begin at one revision share it, and there is a bound on all together.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use plimsoll_ledger::{EventObject, Ledger};
use plimsoll_types::{LedgerTime, Revision};

use crate::core::LedgerView;
use crate::services::problem::Problem;

/// Most objects kept for watches that still send them. An object costs a pointer, and itself where it has changed since.
const MOST_OBJECTS: usize = 4_000_000;
/// When to come back where there are more.
const RETRY_AFTER_MS: u64 = 1_000;

/// All objects at one revision.
pub(super) struct Present {
    pub(super) revision: Revision,
    pub(super) time: LedgerTime,
    pub(super) objects: Vec<EventObject>,
}

/// Those that are being sent. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Presents {
    sending: Arc<Mutex<Vec<Weak<Present>>>>,
}

impl Presents {
    /// All objects of this view. Refused where too many are kept for others already.
    pub(super) fn of(&self, view: &LedgerView<'_>) -> Result<Arc<Present>, Problem> {
        self.share(view.revision(), || (view.log_time(), present_objects(view)))
    }

    fn share(
        &self,
        revision: Revision,
        read: impl FnOnce() -> (LedgerTime, Vec<EventObject>),
    ) -> Result<Arc<Present>, Problem> {
        let mut sending = self.sending.lock();
        sending.retain(|present| present.strong_count() > 0);
        let kept: Vec<Arc<Present>> = sending.iter().filter_map(Weak::upgrade).collect();
        if let Some(same) = kept.iter().find(|present| present.revision == revision) {
            return Ok(Arc::clone(same));
        }
        let count: usize = kept.iter().map(|present| present.objects.len()).sum();
        if count > MOST_OBJECTS {
            return Err(Problem::watches_begin(count, MOST_OBJECTS, RETRY_AFTER_MS));
        }
        let (time, objects) = read();
        let present = Arc::new(Present { revision, time, objects });
        sending.push(Arc::downgrade(&present));
        Ok(present)
    }
}

/// Every object that there is; they are shared with the ledger.
fn present_objects(ledger: &Ledger) -> Vec<EventObject> {
    let mut objects = Vec::new();
    objects.extend(ledger.pools().map(|pool| EventObject::Pool(Arc::clone(pool))));
    objects.extend(ledger.classes().map(|class| EventObject::Class(Arc::clone(class))));
    objects.extend(ledger.all_node_limits().map(|limits| EventObject::NodeLimits(Arc::clone(limits))));
    objects.extend(ledger.queues().map(|queue| EventObject::Queue(Arc::clone(queue))));
    objects.extend(ledger.quota_policies().map(|quota| EventObject::Quota(Arc::clone(quota))));
    objects.extend(ledger.schedules().map(|schedule| EventObject::Schedule(Arc::clone(schedule))));
    objects.extend(ledger.services().map(|service| EventObject::Service(Arc::clone(service))));
    objects.extend(ledger.scaling_policies().map(|policy| EventObject::ScalingPolicy(Arc::clone(policy))));
    let contentions = ledger.contentions().filter(|one| one.is_open());
    objects.extend(contentions.map(|one| EventObject::Contention(Arc::clone(one))));
    objects.extend(ledger.validators().map(|object| EventObject::Validator(Arc::clone(object))));
    objects.extend(ledger.nodes().map(|node| EventObject::Node(Arc::clone(node))));
    let reservations = ledger.reservations().filter(|reservation| !reservation.state.is_final());
    objects.extend(reservations.map(|reservation| EventObject::Reservation(Arc::clone(reservation), None)));
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(count: usize) -> (LedgerTime, Vec<EventObject>) {
        (LedgerTime(1), vec![EventObject::Leader(1); count])
    }

    #[test]
    fn watches_that_begin_at_one_revision_share_what_is_there() {
        let presents = Presents::default();
        let first = presents.share(Revision(7), || objects(3)).expect("room");
        let second = presents.share(Revision(7), || unreachable!("it is there")).expect("room");
        assert!(Arc::ptr_eq(&first, &second));
        let other = presents.share(Revision(8), || objects(4)).expect("room");
        assert_eq!((other.revision, other.objects.len()), (Revision(8), 4));
    }

    #[test]
    fn there_is_a_bound_and_it_is_free_again_when_they_are_sent() {
        let presents = Presents::default();
        let large =
            presents.share(Revision(1), || objects(MOST_OBJECTS + 1)).expect("the first may be large");
        let refused = presents.share(Revision(2), || objects(1)).err().expect("refused");
        assert!(refused.into_status().message().contains("4000001"), "it says how many there are");
        assert!(presents.share(Revision(1), || objects(1)).is_ok(), "it costs nothing");
        drop(large);
        assert!(presents.share(Revision(2), || objects(1)).is_ok());
    }
}
