//! I30: of a queue that sets aside, only those leave memory who are past its bound, they come back in order and with what they asked, and while they are
//! aside nobody gives them anything, nor anything at once to one of their queue who would go after them.

use std::cmp::Reverse;
use std::sync::Arc;

use plimsoll_ledger::{Command, Overflow, Queue, Reservation, State};
use plimsoll_proto::codec;
use plimsoll_types::ReservationId;

use super::{Findings, Invariant};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Overflowing;

impl Invariant for Overflowing {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        for (before, after) in step.moved() {
            if let Some(wrong) = wrong(step, before, after) {
                findings.add("I30", step.revision, format!("{} {wrong}", after.id));
            }
        }
    }
}

fn wrong(step: &Step, before: Option<&Arc<Reservation>>, after: &Arc<Reservation>) -> Option<String> {
    let was_aside = before.is_some_and(|before| before.aside.is_some());
    match (&after.aside, was_aside) {
        (Some(_), _) if after.state != State::Pending && !after.state.is_final() => {
            Some(format!("is aside and {:?}", after.state))
        }
        (Some(_), false) => {
            if !matches!(step.entry.command, Command::SetAside { .. }) {
                return Some(format!("is set aside by {:?}", step.entry.command));
            }
            let queue = step.after.queues.get(&after.request.queue).and_then(sets_aside);
            let Some(bound) = queue else { return Some("is set aside of a queue that does not".to_owned()) };
            let before_it = before_it(&step.after, after).count();
            (before_it < bound).then(|| format!("is set aside with {before_it} before it, {bound} may wait"))
        }
        (None, true) => {
            let aside = before.and_then(|before| before.aside.as_ref())?;
            if !matches!(step.entry.command, Command::Return { .. }) {
                return Some(format!("is aside no more by {:?}", step.entry.command));
            }
            if blake3::hash(&codec::encode_request(&after.request)) != aside.body_hash {
                return Some("comes back with another request".to_owned());
            }
            let earlier = before_it(&step.after, after).find(|other| other.aside.is_some());
            earlier.map(|earlier| format!("comes back before {}", earlier.id))
        }
        (None, false) => {
            let is_granted_at_once = before.is_none() && after.state.is_occupying();
            let mut first = before_it(&step.after, after).filter(|other| other.aside.is_some());
            let passed = first.next().filter(|_| is_granted_at_once)?;
            Some(format!("is granted at once before {}, which is aside", passed.id))
        }
        (Some(_), true) => None,
    }
}

/// How many may wait in memory, of a queue that sets others aside.
fn sets_aside(queue: &Arc<Queue>) -> Option<usize> {
    (queue.overflow != Overflow::Reject && queue.max_pending > 0).then_some(queue.max_pending as usize)
}

/// Who waits in the same queue, in memory or aside, and goes before it by class, then age.
fn before_it<'a>(
    picture: &'a Picture,
    one: &'a Reservation,
) -> impl Iterator<Item = &'a Arc<Reservation>> + 'a {
    let place = |one: &Reservation| -> (Reverse<i32>, ReservationId) { (Reverse(one.priority), one.id) };
    let waits = |other: &Reservation| other.state == State::Pending || other.is_waiting();
    let same = move |other: &&Arc<Reservation>| other.request.queue == one.request.queue && waits(other);
    let named = picture.reservations.values().filter(move |_| !one.request.queue.is_empty());
    named.filter(same).filter(move |other| place(other) < place(one))
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Aside, AsideHow, Request};

    use super::*;
    use crate::invariants::fixture::{found, reservation, step};

    /// One of a queue in which one may wait.
    fn waiting(id: u64) -> Reservation {
        let request = Arc::new(Request { queue: "bulk".into(), ..Request::default() });
        Reservation { state: State::Pending, members: Vec::new(), request, ..reservation(id) }
    }

    fn aside(one: Reservation) -> Reservation {
        let body_hash = *blake3::hash(&codec::encode_request(&one.request)).as_bytes();
        Reservation {
            aside: Some(Box::new(Aside { how: AsideHow::Spilled, body_hash, body_bytes: 1 })),
            ..one
        }
    }

    fn moving(command: Command, before: &[Reservation], after: &[Reservation]) -> Step {
        let mut step = step(&[], after);
        let queue = Queue {
            name: "bulk".into(),
            max_pending: 1,
            overflow: Overflow::SpillToDisk,
            ..Queue::default()
        };
        let rows = before.iter().map(|one| (one.id, Arc::new(one.clone()))).collect();
        step.before_mut().reservations = rows;
        step.before_mut().queues.insert(queue.name.clone(), Arc::new(queue.clone()));
        step.after_mut().queues.insert(queue.name.clone(), Arc::new(queue));
        step.entry.command = command;
        step
    }

    fn set_aside() -> Command {
        Command::SetAside { aside: Vec::new() }
    }

    fn back() -> Command {
        Command::Return { requests: Vec::new() }
    }

    #[test]
    fn who_has_room_is_not_set_aside() {
        let both = [waiting(1), waiting(2)];
        let last = [waiting(1), aside(waiting(2))];
        assert_eq!(found(&mut Overflowing, &moving(set_aside(), &both, &last)), Vec::<&str>::new());
        let first = [aside(waiting(1)), waiting(2)];
        assert_eq!(found(&mut Overflowing, &moving(set_aside(), &both, &first)), ["I30"]);
        let expire = Command::Expire { limit: 1 };
        assert_eq!(found(&mut Overflowing, &moving(expire, &both, &last)), ["I30"]);
    }

    #[test]
    fn they_come_back_in_order_and_as_they_were() {
        let before = [aside(waiting(1)), aside(waiting(2))];
        let first = [waiting(1), aside(waiting(2))];
        assert_eq!(found(&mut Overflowing, &moving(back(), &before, &first)), Vec::<&str>::new());
        let last = [aside(waiting(1)), waiting(2)];
        assert_eq!(found(&mut Overflowing, &moving(back(), &before, &last)), ["I30"]);
        let request = Arc::new(Request { name: "other".into(), ..Request::clone(&waiting(1).request) });
        let other = [Reservation { request, ..waiting(1) }, aside(waiting(2))];
        assert_eq!(found(&mut Overflowing, &moving(back(), &before, &other)), ["I30"]);
    }

    #[test]
    fn nobody_is_granted_past_those_who_are_aside() {
        let granted = |id| Reservation { state: State::Active, ..waiting(id) };
        let before = [aside(waiting(1))];
        let after = [aside(waiting(1)), granted(2)];
        let submit = Command::Expire { limit: 1 };
        assert_eq!(found(&mut Overflowing, &moving(submit.clone(), &before, &after)), ["I30"]);
        let above = [aside(waiting(1)), Reservation { priority: 99, ..granted(2) }];
        assert_eq!(found(&mut Overflowing, &moving(submit, &before, &above)), Vec::<&str>::new());
        let started = [Reservation { state: State::Active, ..aside(waiting(1)) }];
        assert_eq!(found(&mut Overflowing, &moving(set_aside(), &before, &started)), ["I30"]);
    }
}
