//! Plays a file: holders that work, save and leave, and the leader between what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{
    AdminChange, Command, EventObject, LATEST_VERSION, Node, NodeHealth, Outcome, PolicyObject, Refusal,
    Registration, Reservation, State,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};

use super::clock::MIDNIGHT_MS;
use super::file::{Action, File, Step};
use super::leader::Leader;
use super::report::Report;

/// What somebody does with a grant.
#[derive(Clone, Copy, Default)]
struct Work {
    /// Leaves by itself so long after its grant began.
    runs_ms: Option<u64>,
    /// Leaves so long after it was given notice, before its grace is over.
    saves_ms: Option<u64>,
}

struct Play {
    leader: Leader,
    report: Report,
    work: BTreeMap<ReservationId, Work>,
    /// Who leaves when, with the token that it has then.
    leaving: BTreeMap<ReservationId, (LedgerTime, Revision)>,
}

/// The report of a file.
///
/// # Errors
/// A step that makes no sense: a name that is not there, a policy that is refused.
pub(crate) fn play(file: File) -> Result<String, String> {
    let begin = file.steps.first().map_or(MIDNIGHT_MS, |step| step.at_ms);
    let mut play = Play {
        leader: Leader::new(LedgerTime(begin)),
        report: Report::new(&file.title, &file.about),
        work: BTreeMap::new(),
        leaving: BTreeMap::new(),
    };
    play.set_up(&file)?;
    let mut now_ms = begin;
    for step in &file.steps {
        if step.at_ms < now_ms {
            return Err(format!("steps go back from {now_ms} to {}", step.at_ms));
        }
        now_ms = step.at_ms;
        play.advance_to(LedgerTime(now_ms));
        play.act(step, &file)?;
        play.settle();
    }
    play.advance_to(LedgerTime(file.until_ms));
    play.report.end(&play.leader);
    Ok(play.report.text())
}

impl Play {
    fn set_up(&mut self, file: &File) -> Result<(), String> {
        self.leader.apply(Command::Upgrade { to: LATEST_VERSION });
        let put: Vec<PolicyObject> = file.policy.clone();
        let command = Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) };
        if let Outcome::Refused(refusal) = self.leader.apply(command) {
            return Err(format!("the policy is refused: {refusal:?}"));
        }
        for node in &file.nodes {
            if let Outcome::Refused(refusal) = self.leader.apply(Command::RegisterNode(node.clone())) {
                return Err(format!("node {} is refused: {refusal:?}", node.name));
            }
        }
        self.leader.planner.sync_policies(&self.leader.ledger);
        self.leader.events.clear();
        self.settle();
        Ok(())
    }

    /// Runs on until then: whoever is done leaves, leases are renewed, and what is due happens.
    fn advance_to(&mut self, at: LedgerTime) {
        loop {
            let leaving = self.leaving.values().map(|(when, _)| *when);
            let due = self.leader.next_due().into_iter().chain(leaving).chain(self.next_renewal()).min();
            let Some(due) = due.filter(|due| *due <= at) else { break };
            self.leader.now = self.leader.now.max(due);
            self.renew();
            self.leave();
            self.settle();
        }
        self.leader.now = self.leader.now.max(at);
        self.settle();
    }

    fn settle(&mut self) {
        self.leader.settle();
        self.hear();
    }

    fn act(&mut self, step: &Step, file: &File) -> Result<(), String> {
        match &step.action {
            Action::Note(text) => self.report.note(text),
            Action::Look => self.report.look(&self.leader),
            Action::Submit { request, name, by, runs_ms, saves_ms } => {
                let asked =
                    file.requests.get(request).ok_or_else(|| format!("there is no request {request:?}"))?;
                let mut asked = asked.clone();
                asked.name.clone_from(name);
                let id = ReservationId(self.leader.ledger.revision().0 + 1);
                self.work.insert(id, Work { runs_ms: *runs_ms, saves_ms: *saves_ms });
                self.report.names.insert(id, name.clone());
                if let Outcome::Refused(Refusal { reason, blockers }) = self.leader.submit(&asked, by) {
                    self.report.refused(self.leader.now, name, reason, &blockers);
                }
            }
            Action::Release(name) => {
                let id = self.id_of(name)?;
                self.release(id);
            }
            Action::Cancel(name) => {
                let reservation = self.id_of(name)?;
                self.leader.change(Command::Cancel { reservation });
                self.leader.note_end();
            }
            Action::Cordon(name) => {
                self.administer(name, AdminChange::Cordon { reason: "scenario".into() })?
            }
            Action::Uncordon(name) => self.administer(name, AdminChange::Uncordon)?,
            Action::Fail(name) => {
                let node = self.node(name)?;
                let health = NodeHealth::Failed;
                self.leader.change(Command::SetNodeHealth { node: node.id, epoch: node.epoch, health });
                // What ends with it may be what a strict queue waited behind.
                self.leader.note_end();
            }
            Action::Return(name) => {
                let node = self.node(name)?;
                let registration = Registration {
                    incarnation: node.registration.incarnation + 1,
                    ..node.registration.clone()
                };
                self.leader.change(Command::RegisterNode(registration));
            }
            Action::Interrupt(name, in_ms) => {
                let node = self.node(name)?;
                let (node, epoch) = (node.id, node.epoch);
                self.leader.change(Command::InterruptNode { node, epoch, in_ms: *in_ms });
            }
            Action::Measure(name, above) => {
                let node = self.node(name)?;
                self.leader.measure(&node, *above);
            }
        }
        self.hear();
        Ok(())
    }

    fn administer(&mut self, name: &str, admin: AdminChange) -> Result<(), String> {
        let node: NodeId = self.node(name)?.id;
        self.leader.change(Command::SetNodeAdmin { node, admin });
        Ok(())
    }

    fn node(&self, name: &str) -> Result<Arc<Node>, String> {
        let known = self.leader.ledger.node_by_name(name).cloned();
        known.ok_or_else(|| format!("there is no node {name:?}"))
    }

    fn id_of(&self, name: &str) -> Result<ReservationId, String> {
        let known = self.report.names.iter().rev().find(|(_, known)| *known == name);
        known.map(|(id, _)| *id).ok_or_else(|| format!("nobody is called {name:?}"))
    }

    /// What happened, for the report and for those whom it concerns.
    fn hear(&mut self) {
        for event in std::mem::take(&mut self.leader.events) {
            self.report.event(&event, &self.leader.ledger);
            let EventObject::Reservation(after, before) = &event.object else { continue };
            self.concern(after, *before, event.log_time);
        }
        let planned: Vec<_> = self.leader.planner.planned_starts().collect();
        self.report.promises(self.leader.now, &planned);
    }

    fn concern(&mut self, after: &Reservation, before: Option<State>, at: LedgerTime) {
        let work = self.work.get(&after.id).copied().unwrap_or_default();
        let ends = Some(after.hard_end).filter(|end| end.0 > 0);
        match after.state {
            State::Active | State::Partial => {
                let begun = !before.is_some_and(State::is_occupying);
                let done = work.runs_ms.map(|length| after.granted_at.plus_ms(length));
                // A window may have cut it since; else only what begins is news.
                if let Some(when) = done.into_iter().chain(ends).min().filter(|_| begun || ends.is_some()) {
                    self.leaving.insert(after.id, (when, after.token));
                }
            }
            State::Preempting => {
                if let Some(saves_ms) = work.saves_ms {
                    self.leaving.insert(after.id, (at.plus_ms(saves_ms), after.token));
                } else {
                    self.leaving.remove(&after.id);
                }
            }
            _ => drop(self.leaving.remove(&after.id)),
        }
    }

    fn leave(&mut self) {
        let now = self.leader.now;
        let gone: Vec<(ReservationId, Revision)> = self
            .leaving
            .iter()
            .filter(|(_, (when, _))| *when <= now)
            .map(|(id, (_, token))| (*id, *token))
            .collect();
        for (id, token) in gone {
            self.leaving.remove(&id);
            if self.leader.token_of(id) == token {
                self.release(id);
                self.hear();
            }
        }
    }

    /// A holder gives its grant back; one that was given notice would have it again.
    fn release(&mut self, reservation: ReservationId) {
        let token = self.leader.token_of(reservation);
        let held = self.leader.ledger.reservation(reservation);
        if held.is_some_and(|held| held.state == State::Preempting) {
            self.leader.change(Command::Requeue { reservation, token });
        } else {
            self.leader.change(Command::Release { reservation, token });
            self.leader.note_end();
        }
    }

    /// Leases without an end are renewed when half of them is over.
    fn next_renewal(&self) -> Option<LedgerTime> {
        self.renewable().map(|held| LedgerTime(held.deadline.0.saturating_sub(held.ttl_ms / 2))).min()
    }

    fn renewable(&self) -> impl Iterator<Item = &Reservation> {
        let held = self.leader.ledger.reservations().map(AsRef::as_ref);
        held.filter(|one| matches!(one.state, State::Active | State::Partial) && one.hard_end.0 == 0)
            .filter(|one| !self.report.unrenewed.contains(&one.id))
    }

    fn renew(&mut self) {
        let now = self.leader.now;
        let due = |held: &&Reservation| held.deadline.0.saturating_sub(held.ttl_ms / 2) <= now.0;
        let due: Vec<(ReservationId, Revision)> =
            self.renewable().filter(due).map(|held| (held.id, held.token)).collect();
        for (reservation, token) in due {
            let came = self.leader.apply(Command::Renew { reservation, token, ttl_ms: 0 });
            if let Outcome::Refused(Refusal { reason, blockers }) = came {
                self.report.unrenewed(now, reservation, reason, &blockers);
            }
        }
    }
}
