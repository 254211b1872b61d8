//! Forks: taken in steps while the ledger goes on, and equal to it at one revision all the same.

mod fixture;

use std::collections::BTreeSet;

use plimsoll_ledger::{
    Command, Entry, EventObject, Fork, Ledger, MemberPlacement, Outcome, Placement, Registration, Request,
    Requirements, RowKey, Stamp, State, Verdict, Wait,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Revision};
use proptest::prelude::*;

/// Applies a command, and notes whose events it made.
fn apply(ledger: &mut Ledger, command: Command, seen: &mut BTreeSet<ReservationId>) -> Outcome {
    let revision = Revision(ledger.revision().0 + 1);
    let stamp = Stamp { revision, proposed_at: LedgerTime(1_000 + revision.0 * 10) };
    let applied = ledger.apply(stamp, &Entry::system(command));
    for event in &applied.events {
        match &event.object {
            EventObject::Reservation(reservation, _) => drop(seen.insert(reservation.id)),
            EventObject::ReservationForgotten(id) => drop(seen.insert(*id)),
            _ => {}
        }
    }
    applied.answer.outcome
}

fn request(cpu_millis: u64) -> Request {
    Request {
        pool: "default".into(),
        class: "standard".into(),
        requirements: Requirements { amounts: Resources::new(cpu_millis, 0), ..Requirements::default() },
        auto_confirm: true,
        wait: Wait::Queue { deadline_ms: 0 },
        ..Request::default()
    }
}

/// Something happens: a grant, a wait, an end, a renewal.
fn step(ledger: &mut Ledger, choice: u8, seen: &mut BTreeSet<ReservationId>) {
    let live: Vec<_> = ledger.reservations().filter(|held| !held.state.is_final()).cloned().collect();
    let picked = live.get(usize::from(choice) % live.len().max(1));
    let command = match (choice % 4, picked) {
        (0, _) | (_, None) => {
            let members = vec![MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 }];
            let verdict = Verdict::Place(Placement { members });
            Command::Submit { request: request(u64::from(choice) * 10 + 1), verdict }
        }
        (1, _) => {
            let verdict = Verdict::Blocked(Vec::new());
            Command::Submit { request: request(1), verdict }
        }
        (2, Some(held)) => Command::Cancel { reservation: held.id },
        (_, Some(held)) => Command::Renew { reservation: held.id, token: held.token, ttl_ms: 0 },
    };
    apply(ledger, command, seen);
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    let mut seen = BTreeSet::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION }, &mut seen);
    let registration = Registration {
        name: "n1".into(),
        incarnation: 1,
        capacity: Resources::new(8_000, 1 << 30),
        ..Registration::default()
    };
    apply(&mut ledger, Command::RegisterNode(registration), &mut seen);
    ledger
}

/// The rows that a fork has.
fn forked(ledger: &Ledger) -> Vec<(RowKey, plimsoll_ledger::Row)> {
    let ended = |key: &RowKey| match key {
        RowKey::Reservation(id) => ledger.reservation(*id).is_some_and(|held| held.state.is_final()),
        RowKey::Idempotency(..) | RowKey::RemovedNode(_) => true,
        _ => false,
    };
    ledger.rows().filter(|(key, _)| !ended(key)).collect()
}

proptest! {
    #[test]
    fn a_fork_taken_in_steps_is_the_ledger_at_its_end(
        before in prop::collection::vec(any::<u8>(), 0..40),
        between in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..12),
        size in 1usize..5,
    ) {
        let mut ledger = ledger();
        for choice in before {
            step(&mut ledger, choice, &mut BTreeSet::new());
        }
        let mut fork = Fork::begin(&ledger);
        let mut seen = BTreeSet::new();
        for choices in between {
            if !fork.step(&ledger, size) {
                break;
            }
            for choice in choices {
                step(&mut ledger, choice, &mut seen);
            }
        }
        let copy = fork.finish(&ledger, seen).into_ledger().expect("its rows belong together");
        prop_assert_eq!(copy.revision(), ledger.revision());
        prop_assert_eq!(forked(&copy), forked(&ledger));
        prop_assert_eq!(copy.check_invariants(), vec![]);
    }
}

#[test]
fn who_is_assumed_to_stay_stays_to_the_end_of_the_longest_duration() {
    let mut ledger = ledger();
    let mut seen = BTreeSet::new();
    let members = vec![MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 }];
    let lasting = Request { max_duration_ms: 3_600_000, ..request(100) };
    for request in [lasting, request(100)] {
        let verdict = Verdict::Place(Placement { members: members.clone() });
        apply(&mut ledger, Command::Submit { request, verdict }, &mut seen);
    }
    let mut fork = ledger.fork().expect("a fork");
    let ids: Vec<ReservationId> = seen.into_iter().collect();
    assert!(ids.iter().all(|id| fork.assume_kept(*id)));
    let due = fork.next_due().expect("the one with an end");
    assert!(due.0 > 3_600_000 && due.0 < 3_700_000, "{due:?}");
    let stamp = Stamp { revision: Revision(fork.revision().0 + 1), proposed_at: due };
    fork.apply(stamp, &Entry::system(Command::Expire { limit: 10 }));
    let state = |id: &ReservationId| fork.reservation(*id).map(|held| held.state);
    assert_eq!([state(&ids[0]), state(&ids[1])], [Some(State::Expired), Some(State::Active)]);
}
