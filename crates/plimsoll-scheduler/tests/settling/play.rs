//! Plays what happens, with the leader between, and then lets those who were given notice leave until nobody has to.

use plimsoll_ledger::{AdminChange, Command, Outcome, PolicyObject, Request, Reservation, State};
use plimsoll_types::{DeviceIndex, NodeId, ReservationId, Revision};

use super::asks::Deed;
use super::law::Law;
use super::tally::Tally;
use super::worlds::{World, ledger_of, queue};
use crate::leader::Leader;

/// A cluster in simulated time.
pub(crate) struct Play<'a> {
    world: &'a World,
    pub(crate) leader: Leader,
    pub(crate) law: Law,
    pub(crate) tally: Tally,
    /// The leader takes each preemption for a change of something else: for the test of the test.
    pub(crate) forgets: bool,
}

impl<'a> Play<'a> {
    pub(crate) fn new(world: &'a World) -> Play<'a> {
        let ledger = ledger_of(world);
        let now = ledger.clock();
        let mut play = Play {
            world,
            leader: Leader::of(ledger, now),
            law: Law::default(),
            tally: Tally::default(),
            forgets: false,
        };
        play.settle();
        play
    }

    pub(crate) fn act(&mut self, deed: &Deed) {
        let nodes = self.leader.ledger.nodes().count();
        let node = |index: usize| NodeId((index % nodes) as u32);
        match deed {
            Deed::Ask(request) => self.ask(request),
            Deed::Plan(request, ahead_ms) => {
                let start_at_ms = self.leader.now.0 + ahead_ms;
                let max_duration_ms = request.max_duration_ms.max(60_000);
                self.ask(&Request { start_at_ms, max_duration_ms, ..Request::clone(request) });
            }
            Deed::Leave => self.leave(),
            Deed::Release(index) => self.release(*index),
            Deed::Pass(ms) => self.pass(*ms),
            Deed::Cordon(index, on) => {
                let admin =
                    if *on { AdminChange::Cordon { reason: "fan".into() } } else { AdminChange::Uncordon };
                self.leader.change(Command::SetNodeAdmin { node: node(*index), admin });
            }
            Deed::Device(index, failed) => {
                let (node, device) = (node(*index), DeviceIndex(0));
                self.leader.change(Command::SetDeviceHealth { node, device, failed: *failed });
            }
            Deed::Give(index, permille) => {
                let put = vec![PolicyObject::Queue(queue(self.world, *index, *permille))];
                let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
                self.leader.apply(command);
                self.leader.planner.sync_policies(&self.leader.ledger);
            }
        }
        self.settle();
    }

    /// Lets those who were given notice leave, round by round, until nobody has to any more; the rounds that it took.
    pub(crate) fn come_to_rest(&mut self) -> usize {
        let most = self.leader.ledger.reservations().count() + 1;
        for round in 0..=most {
            self.leave();
            self.settle();
            let waits = |one: &Reservation| {
                one.state == State::Preempting || one.state == State::Planned && !one.is_advance()
            };
            if !self.leader.ledger.reservations().any(|one| waits(one)) {
                return round;
            }
        }
        let left = self.ids(|one| matches!(one.state, State::Preempting | State::Planned));
        panic!("it does not settle: {left:?}");
    }

    fn ask(&mut self, request: &Request) {
        self.leader.submit(request, "eve");
    }

    /// Those who were given notice stop at once; whose time is over anyway leaves for good.
    fn leave(&mut self) {
        for reservation in self.ids(|one| one.state == State::Preempting) {
            let token = self.leader.token_of(reservation);
            let came = self.leader.change(Command::Requeue { reservation, token });
            if matches!(came, Outcome::Refused(_)) {
                self.leader.change(Command::Release { reservation, token });
            }
        }
    }

    fn release(&mut self, index: usize) {
        let holding = self.ids(|one| matches!(one.state, State::Held | State::Active | State::Partial));
        let Some(reservation) = holding.get(index % holding.len().max(1)).copied() else { return };
        let token = self.leader.token_of(reservation);
        self.leader.change(Command::Release { reservation, token });
        self.leader.note_end();
    }

    fn pass(&mut self, ms: u64) {
        let then = self.leader.now.plus_ms(ms);
        while let Some(due) = self.leader.next_due().filter(|due| *due <= then) {
            self.leader.now = due;
            self.settle();
        }
        self.leader.now = then;
    }

    fn settle(&mut self) {
        self.leader.settle();
        if self.forgets {
            self.leader.planner.note_end(&self.leader.ledger);
            self.leader.settle();
        }
        for event in std::mem::take(&mut self.leader.events) {
            self.law.read(&event);
            self.tally.read(&self.leader.ledger, &event);
        }
        self.tally.look(&self.leader.ledger);
        assert_eq!(self.leader.ledger.check_invariants(), vec![]);
        assert_eq!(self.leader.planner.check(&self.leader.ledger), Vec::<String>::new());
        assert_eq!(self.leader.found_in_vain, vec![], "what is found is lawful and enough");
        // Whoever is told to look again at a moment that has come already looks again and again.
        let (now, due) = (self.leader.now, self.leader.next_due());
        assert!(due.is_none_or(|due| due > now), "due {due:?} and left undone at {now:?}");
    }

    fn ids(&self, which: impl Fn(&Reservation) -> bool) -> Vec<ReservationId> {
        self.leader.ledger.reservations().filter(|one| which(one)).map(|one| one.id).collect()
    }
}
