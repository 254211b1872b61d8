//! The coordinator without its listeners: a replica of the ledger, the intake, the leader's loops, watches and history.
//!
//! `Core` is a cheap handle. Mutations go through [`Core::submit`], which works on the leader only; everything else
//! works on any replica.

mod agents;
pub mod backup;
mod bodies;
mod config;
mod digest;
pub mod doctor;
mod encoding;
mod error;
mod estimates;
mod fork;
mod fragmentation;
mod history;
mod identity;
mod intake;
mod leader;
mod loads;
mod lost;
mod machine;
mod notice;
mod past;
mod record;
mod scrub;
mod start;
mod status;
mod stored;
mod turned_away;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use plimsoll_consensus::Group;
use plimsoll_ledger::{Answer, Blocker, Entry, Ledger, Reason, Request, Reservation};
use plimsoll_mutants::mutant;
use plimsoll_scheduler::forecast::{Change, Plan};
use plimsoll_scheduler::{Closed, Explanation, Scene, StartEstimate};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

pub use agents::{AgentHub, AgentNotice, AgentSession, HeartbeatError, Sampled, SessionClosed};
pub use bodies::BodyError;
pub use config::{CallLimits, CoreConfig, Data, IntakeLimits, Stores, Timings};
pub use digest::{StateDigest, StateDump};
pub use error::{HistoryError, ReadError, StartError, SubmitError};
pub(crate) use fragmentation::{ByPool, Measured};
pub use history::History;
pub use identity::IdentityError;
pub use loads::{LoadBook, Metrics};
pub use machine::LedgerMachine;
pub use record::Record;
pub use scrub::Scrubbed;
pub use status::{CoreStatus, Counters};
pub use turned_away::TurnedAway;
pub use view::{Consistency, LedgerView};
pub use watch::Watcher;

use start::Inner;

/// A running replica of the ledger. Clones are handles to the same one.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

impl Core {
    /// Opens the stores, restores the ledger, joins the group (or waits to be added to one) and starts the loops.
    /// With `config.bootstrap` an empty replica becomes the only voter of a new group.
    ///
    /// # Errors
    /// Where the stores cannot be opened or hold something else than expected.
    pub async fn start(
        config: CoreConfig,
        dialer: Arc<dyn plimsoll_consensus::Dialer>,
        clock: Arc<dyn crate::clock::Clock>,
    ) -> Result<Core, StartError> {
        Ok(Core { inner: start::start(config, dialer, clock).await? })
    }

    /// Proposes one command and waits until it is applied. The verdict of a `Submit` is ignored: the leader's planner
    /// makes it. Refusals are inside the answer.
    ///
    /// # Errors
    /// [`SubmitError::NotLeader`] and [`SubmitError::Overloaded`] are definite: nothing was or will be done.
    /// [`SubmitError::Unknown`] is not: repeat under the same request id.
    pub async fn submit(&self, entry: Entry) -> Result<Answer, SubmitError> {
        if mutant!("ack-before-commit")
            && let Ok(answer) = self.inner.validate_only(entry.clone(), self.hint()).await
        {
            let core = self.clone();
            tokio::spawn(async move { core.inner.intake.submit(vec![entry], core.hint()).await });
            return Ok(answer);
        }
        let mut answers = self.inner.intake.submit(vec![entry], self.hint()).await;
        answers.pop().unwrap_or(Err(SubmitError::Stopped))
    }

    /// Proposes many commands that stay together (as few log entries as possible), answered in their order. Renewals,
    /// releases and the like among them are applied before new requests.
    pub async fn submit_many(&self, entries: Vec<Entry>) -> Vec<Result<Answer, SubmitError>> {
        self.inner.intake.submit(entries, self.hint()).await
    }

    /// What [`Core::submit`] would answer now, without writing anything. Works on the leader only.
    ///
    /// # Errors
    /// [`SubmitError::NotLeader`] elsewhere.
    pub async fn validate_only(&self, entry: Entry) -> Result<Answer, SubmitError> {
        self.inner.validate_only(entry, self.hint()).await
    }

    /// What a change would come to, tried on a copy: nothing is written. Works on the leader only, one at a time.
    ///
    /// # Errors
    /// [`SubmitError::NotLeader`] elsewhere.
    pub async fn plan(
        &self,
        requester: String,
        change: Change,
        horizon_ms: u64,
    ) -> Result<Plan, SubmitError> {
        // Boxed: it is large, and rare.
        Box::pin(self.inner.plan(requester, change, horizon_ms, self.hint())).await
    }

    /// Waits until all that was acknowledged anywhere before this call is applied here; one ReadIndex round serves all
    /// callers of a moment. Returns the revision reached.
    ///
    /// # Errors
    /// Where no leader answers in time, or the replica stops.
    pub async fn linearize(&self) -> Result<Revision, ReadError> {
        self.inner.linearize().await
    }

    /// The ledger, at or after `min_revision` (0: any). The view holds a read lock: take what is needed and drop it
    /// before the next `await`.
    ///
    /// # Errors
    /// Where no leader answers in time (linearizable), or `min_revision` is not reached in time.
    pub async fn read(
        &self,
        consistency: Consistency,
        min_revision: Revision,
    ) -> Result<LedgerView<'_>, ReadError> {
        self.inner.read(consistency, min_revision).await
    }

    /// The applied ledger of this replica at this moment; short for a stale read without conditions.
    pub fn local(&self) -> LedgerView<'_> {
        self.inner.local()
    }

    /// Every record from `from` on (0: only those after the present one), gapless, at the watcher's own pace.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] where `from` is no longer kept, [`HistoryError::Future`] where it is far ahead.
    pub fn watch(&self, from: Revision) -> Result<Watcher, HistoryError> {
        self.inner.watch(from)
    }

    /// Up to `limit` records from `from` on that are applied here; empty at the end of the log.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] where `from` is no longer kept.
    pub fn history(&self, from: Revision, limit: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
        self.inner.hub.read(from, limit)
    }

    /// The ledger as it was at a revision, rebuilt here. O(state + revisions since its base); one at a time.
    ///
    /// # Errors
    /// [`HistoryError::Compacted`] where nothing is left to rebuild it from, [`HistoryError::Future`] where it is ahead.
    pub async fn past(&self, revision: Revision) -> Result<Arc<Ledger>, HistoryError> {
        let applied = self.inner.ledger.read().revision();
        if revision > applied {
            return Err(HistoryError::Future { wanted: revision, applied });
        }
        self.inner.past.at(revision).await
    }

    /// The latest revision at a ledger time.
    ///
    /// # Errors
    /// [`HistoryError::TooEarly`] before the first record that is kept.
    pub fn revision_at(&self, time: LedgerTime) -> Result<Revision, HistoryError> {
        self.inner.past.revision_at(time)
    }

    /// Oldest revision of which the state can be rebuilt here; `None` where there is none yet.
    pub fn first_state(&self) -> Option<Revision> {
        self.inner.past.first()
    }

    /// Oldest revision of which a record is kept here.
    pub fn first_revision(&self) -> Revision {
        self.inner.history.first_revision()
    }

    /// Why a reservation is where it is, from the applied state of this replica.
    pub fn explain(&self, id: ReservationId) -> Option<Explanation> {
        // The lock is held for the copy alone.
        let (scene, aside) = {
            let ledger = self.inner.ledger.read();
            let known = ledger.reservation(id)?;
            match overflowed(&ledger, known) {
                Some(blocker) => {
                    let asked = self.whole(&ledger, known).map(|whole| Arc::clone(&whole.request));
                    // What it asked is only told of where it can be read: get says why not.
                    let asked = asked.unwrap_or_else(|_| Arc::clone(&known.request));
                    let scene = Scene::of_request(&ledger, &asked, &known.requester);
                    (scene, Some((blocker, known.changed)))
                }
                None => (Scene::of_reservation(&ledger, id)?, None),
            }
        };
        let mut explanation = scene.closing(self.closed()).explain();
        if let Some((blocker, changed)) = aside {
            explanation.blockers.insert(0, blocker);
            (explanation.admissible, explanation.placement) = (false, None);
            explanation.decision_revision = changed;
        }
        Some(explanation)
    }

    /// When one that waits is expected to start, by the state in `ledger`, which is this replica's; while it leads, with the starts that it keeps
    /// free. `rank` is asked for its place in the queue where it is far back. `None` where it does not wait.
    pub fn estimate(
        &self,
        ledger: &Ledger,
        reservation: &Reservation,
        rank: impl FnOnce() -> u64,
    ) -> Option<StartEstimate> {
        self.inner.estimates.of(ledger, reservation, rank)
    }

    /// A reservation of a ledger with all that it asked, for who shows it: one that is set aside has that in its body. The ledger may be this replica's or one of
    /// the past.
    ///
    /// # Errors
    /// Where its body is lost or damaged.
    pub fn whole(
        &self,
        ledger: &Ledger,
        reservation: &Arc<Reservation>,
    ) -> Result<Arc<Reservation>, BodyError> {
        self.inner.machine.bodies().whole(ledger, reservation)
    }

    /// What would stand in the way of a request now.
    pub fn explain_request(&self, request: &Request, requester: &str) -> Explanation {
        let scene = Scene::of_request(&self.inner.ledger.read(), request, requester);
        scene.closing(self.closed()).explain()
    }

    /// Where this replica, while it leads, puts no best effort for now.
    fn closed(&self) -> Closed {
        Closed::clone(&self.inner.agents.closed())
    }

    /// Digest of the whole state and the chain hash. `at` 0 means now; otherwise waits for that revision.
    ///
    /// # Errors
    /// [`ReadError::Moved`] where the ledger is already past `at`; [`ReadError::TimedOut`] where it does not get there.
    pub async fn state_digest(&self, at: Revision) -> Result<StateDigest, ReadError> {
        self.inner.dump(at, false).await.map(|dump| dump.digest())
    }

    /// Every row of the state in canonical order. `at` as for [`Core::state_digest`].
    ///
    /// # Errors
    /// As for [`Core::state_digest`].
    pub async fn dump(&self, at: Revision) -> Result<StateDump, ReadError> {
        self.inner.dump(at, true).await
    }

    /// How this replica and its group are.
    pub fn status(&self) -> CoreStatus {
        self.inner.status()
    }

    /// Numbers that only ever grow, and present depths, for `/metrics`.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// The consensus group: membership, transfer of leadership, change notifications, the peer service.
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// Agents' sessions (they work on the leader only).
    pub fn agents(&self) -> &AgentHub {
        &self.inner.agents
    }

    /// What endpoints say of their load, until it is written (it is on the leader only).
    pub fn loads(&self) -> &LoadBook {
        &self.inner.loads
    }

    /// Requests for which a service had no endpoint: those of this coordinator's clients, and on the leader those of all.
    pub fn turned_away(&self) -> &TurnedAway {
        &self.inner.turned_away
    }

    /// Tells of every applied revision at which endpoints changed (see [`Ledger::endpoints_changed`]).
    pub(crate) fn endpoint_changes(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.inner.machine.endpoint_changes()
    }

    /// How fragmented pools are.
    pub(crate) fn measured(&self) -> &Measured {
        &self.inner.measured
    }

    /// A copy of the ledger, for what is tried on it and takes long; `None` while another is being tried on, or where it could not be made.
    pub(crate) async fn copy(&self) -> Option<Ledger> {
        self.inner.copy().await
    }

    /// Tells how many scaling policies and elastic pools there are here.
    pub(crate) fn scaling_changes(&self) -> tokio::sync::watch::Receiver<usize> {
        self.inner.machine.scaling_changes()
    }

    /// True while this replica leads and its first entry is applied.
    pub(crate) fn serving(&self) -> tokio::sync::watch::Receiver<bool> {
        self.inner.serving.clone()
    }

    /// What the leader saw of targets of scaling (it is on the leader only).
    pub fn looks(&self) -> &crate::scaling::Looks {
        &self.inner.looks
    }

    /// What replicas of services use, as this replica has seen it.
    pub fn rightsizing(&self) -> &crate::scaling::Rightsizing {
        &self.inner.rightsizing
    }

    /// Where the coordinators are, this one first.
    pub(crate) fn member_addresses(&self) -> Vec<String> {
        let own = self.inner.config.node_id;
        let group = self.inner.group.metrics();
        let first = group.members.get(&own).into_iter();
        let others = group.members.iter().filter(|(id, _)| **id != own).map(|(_, member)| member);
        first.chain(others).map(|member| member.address.clone()).collect()
    }

    /// True on the leader.
    pub fn is_leader(&self) -> bool {
        self.inner.group.is_leader()
    }

    /// The leader's id and advertised peer address. That port serves the client API too, so calls are forwarded there.
    pub fn leader_address(&self) -> Option<(u64, String)> {
        self.inner.group.leader()
    }

    /// Id of this replica.
    pub fn node_id(&self) -> u64 {
        self.inner.config.node_id
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &CoreConfig {
        &self.inner.config
    }

    /// How full the disk with the data is; `None` where none are kept there.
    pub(crate) fn disk(&self) -> Option<&plimsoll_store::rocks::Headroom> {
        self.inner.disk.as_ref()
    }

    /// What was read again of the data on the disk.
    pub fn scrubbed(&self) -> &Scrubbed {
        &self.inner.scrubbed
    }

    /// The leader's clock, for stamps outside the log (none in answers).
    pub fn clock(&self) -> &Arc<dyn crate::clock::Clock> {
        &self.inner.clock
    }

    /// Hands leadership to another voter if it is here, stops the loops, fails what waits, closes the stores.
    pub async fn shutdown(&self) {
        self.inner.shutdown().await;
    }

    /// Stops this replica because its state cannot be trusted, and marks its data so that it is not started again.
    pub(crate) async fn halt(&self, why: String) {
        self.inner.halt(why).await;
    }

    /// Why this replica stopped itself; `None` where it did not.
    pub fn fault(&self) -> Option<&str> {
        self.inner.fault.get().map(String::as_str)
    }

    /// Makes this replica differ from the others from the next command on.
    #[cfg(test)]
    pub(crate) fn break_chain(&self) {
        self.inner.break_chain();
    }

    /// Waits until the core has ended: after [`Core::shutdown`], or because it failed (the log says why). A process
    /// that still runs then should exit.
    pub async fn ended(&self) {
        self.inner.ended().await;
    }

    /// Where to find the leader, for refusals.
    fn hint(&self) -> Option<(u64, String)> {
        self.inner.group.leader().filter(|(id, _)| *id != self.inner.config.node_id)
    }
}

/// Why one that is set aside is not looked at: how many of its queue go before it that are aside too, and how many wait in memory.
fn overflowed(ledger: &Ledger, reservation: &Reservation) -> Option<Blocker> {
    let aside = reservation.aside.as_ref().filter(|_| !reservation.state.is_final())?;
    let queue = &reservation.request.queue;
    let before = ledger.aside_in(queue).take_while(|id| *id != reservation.id).count() as u64;
    let waiting = ledger.pending_of_queue(queue) as u64;
    let subject = format!(
        "set aside ({}): {waiting} of queue {queue} wait in memory, and of those set aside {before} go before it",
        aside.how.name()
    );
    let limit = ledger.queue(queue).map_or(0, |queue| queue.max_pending.into());
    Some(Blocker { limit, ..Blocker::new(Reason::Overflowed, subject, before, waiting) })
}
