//! Agents of nodes, in the leader's memory: sessions, heartbeats, silent nodes, leases as they change.
//!
//! Heartbeats never reach the log. The leader proposes what follows from them: a node silent for `suspect_after_ms` is
//! suspect, one heard of again is available, one silent past the safe end of all its leases is lost. Nobody is judged
//! before a full period of leadership is over, and where no agent at all is heard of, the fault may be ours: then
//! nothing is declared lost.

mod health;
mod samples;
mod session;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use plimsoll_ledger::{
    Command, Entry, EventObject, Ledger, Node, NodeHealth, Outcome, Refusal, Registration, Reservation,
};
use plimsoll_scheduler::Closed;
use plimsoll_types::{NodeEpoch, NodeId, ReservationId, Revision};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::intake::Intake;
use super::{Record, SubmitError};

use samples::Kept;
pub(super) use samples::Latest;
pub use samples::Sampled;
use session::SessionState;
pub use session::{AgentNotice, AgentSession, HeartbeatError, SessionClosed};

/// All agents' sessions. Clones are handles to the same.
#[derive(Clone)]
pub struct AgentHub {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<HubState>,
    ledger: Arc<RwLock<Ledger>>,
    intake: Arc<Intake>,
    suspect_after_ms: u64,
}

#[derive(Default)]
struct HubState {
    /// Since when this replica leads; `None` where it does not.
    leading_since: Option<Instant>,
    stopped: bool,
    next_session: u64,
    sessions: BTreeMap<u64, SessionState>,
    nodes: BTreeMap<NodeId, Attached>,
    /// Last word of each node, session or not.
    heard: BTreeMap<NodeId, Instant>,
    /// What each node measured last; of nodes that the ledger has, and so as many as those at most.
    samples: BTreeMap<NodeId, Kept>,
    /// Classes whose best effort nodes take none of for now, by what the leader makes of samples.
    closed: Arc<Closed>,
    /// Where reservations are, among attached nodes: an ended reservation no longer says so itself.
    held: BTreeMap<ReservationId, Vec<NodeId>>,
    /// Nodes with a change of health in flight.
    judging: BTreeSet<NodeId>,
}

/// A node registered in a session.
struct Attached {
    session: u64,
    /// Events up to here were in the state that the session began with.
    since: Revision,
    /// What it holds.
    holds: BTreeSet<ReservationId>,
}

/// Most notices that wait for one session, beyond those it begins with.
const MOST_NOTICES: usize = 65_536;

impl AgentHub {
    pub(super) fn new(ledger: Arc<RwLock<Ledger>>, intake: Arc<Intake>, suspect_after_ms: u64) -> AgentHub {
        let shared = Shared { state: Mutex::default(), ledger, intake, suspect_after_ms };
        AgentHub { shared: Arc::new(shared) }
    }

    /// Opens a session; one may carry many nodes. Dropping it ends it, and its nodes fall silent.
    ///
    /// # Errors
    /// [`SubmitError::NotLeader`] elsewhere than on the leader.
    pub fn open(&self, actor: &str) -> Result<AgentSession, SubmitError> {
        let mut state = self.shared.state.lock();
        if state.stopped {
            return Err(SubmitError::Stopped);
        }
        if state.leading_since.is_none() {
            return Err(SubmitError::NotLeader { leader: None });
        }
        let id = state.next_session;
        state.next_session += 1;
        let wake = Arc::new(Notify::new());
        state
            .sessions
            .insert(id, SessionState { queue: VecDeque::new(), closed: None, wake: Arc::clone(&wake) });
        Ok(AgentSession::new(self.clone(), id, actor.to_owned(), wake))
    }

    /// Number of open sessions.
    pub fn sessions(&self) -> usize {
        self.shared.state.lock().sessions.len()
    }

    /// Milliseconds since a node was last heard of by this leader; `None` where it never was.
    pub fn silent_ms(&self, node: NodeId) -> Option<u64> {
        let heard = *self.shared.state.lock().heard.get(&node)?;
        u64::try_from(heard.elapsed().as_millis()).ok()
    }

    /// This replica leads from now on: every node gets a full period.
    pub(super) fn begin(&self, ledger: &Ledger) {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        state.leading_since = Some(now);
        state.heard = ledger.nodes().map(|node| (node.id, now)).collect();
        state.judging.clear();
    }

    /// This replica no longer leads, or stops: all sessions end.
    pub(super) fn end(&self, why: SessionClosed) {
        let mut state = self.shared.state.lock();
        state.leading_since = None;
        state.stopped |= why == SessionClosed::Stopped;
        state.nodes.clear();
        state.heard.clear();
        state.samples.clear();
        state.closed = Arc::default();
        state.held.clear();
        state.judging.clear();
        for session in state.sessions.values_mut() {
            session.close(why);
        }
    }

    /// Passes on what happened to attached nodes and to what they hold.
    pub(super) fn feed(&self, records: &[Arc<Record>]) {
        let mut state = self.shared.state.lock();
        if state.nodes.is_empty() && state.samples.is_empty() {
            return;
        }
        for record in records {
            for event in &record.events {
                match &event.object {
                    EventObject::Reservation(reservation, _) => {
                        state.reservation(record.revision, reservation)
                    }
                    EventObject::Node(node) => state.node(record.revision, node),
                    EventObject::NodeRemoved(id, _) => {
                        state.detach(*id);
                        state.samples.remove(id);
                    }
                    EventObject::ReservationForgotten(_)
                    | EventObject::Pool(_)
                    | EventObject::PoolDeleted(_)
                    | EventObject::Class(_)
                    | EventObject::ClassDeleted(_)
                    | EventObject::NodeLimits(_)
                    | EventObject::NodeLimitsDeleted(_)
                    | EventObject::Queue(_)
                    | EventObject::QueueDeleted(_)
                    | EventObject::Quota(_)
                    | EventObject::QuotaDeleted(_)
                    | EventObject::Validator(_)
                    | EventObject::ValidatorDeleted(_)
                    | EventObject::Schedule(_)
                    | EventObject::ScheduleDeleted(_)
                    | EventObject::Service(_)
                    | EventObject::ServiceDeleted(_)
                    | EventObject::ScalingPolicy(_)
                    | EventObject::ScalingPolicyDeleted(_)
                    | EventObject::Scaling(_)
                    | EventObject::Intent(_)
                    | EventObject::Contention(_)
                    | EventObject::Leader(_)
                    | EventObject::Version(_) => {}
                }
            }
        }
    }

    async fn register(
        &self,
        session: u64,
        actor: &str,
        registration: Registration,
    ) -> Result<Result<Arc<Node>, Refusal>, SubmitError> {
        let name = registration.name.clone();
        if !self.is_known(&registration) {
            let entry = Entry {
                actor: actor.to_owned(),
                request_id: String::new(),
                request_hash: [0; 32],
                command: Command::RegisterNode(registration),
            };
            let answer = self
                .shared
                .intake
                .submit(vec![entry], None)
                .await
                .pop()
                .unwrap_or(Err(SubmitError::Stopped))?;
            if let Outcome::Refused(refusal) = answer.outcome {
                return Ok(Err(refusal));
            }
        }
        let ledger = self.shared.ledger.read();
        let Some(node) = ledger.node_by_name(&name).cloned() else {
            // Removed again since.
            return Err(SubmitError::Unknown);
        };
        let mut state = self.shared.state.lock();
        if state.leading_since.is_none() {
            return Err(SubmitError::NotLeader { leader: None });
        }
        state.attach(session, &ledger, &node);
        Ok(Ok(node))
    }

    /// True where registering would change nothing.
    fn is_known(&self, registration: &Registration) -> bool {
        let ledger = self.shared.ledger.read();
        ledger.node_by_name(&registration.name).is_some_and(|node| {
            node.registration == *registration
                && node.health == NodeHealth::Available
                && node
                    .fence_pending
                    .iter()
                    .all(|pending| registration.running.contains(&pending.reservation))
        })
    }

    fn heartbeat(&self, session: u64, id: NodeId, epoch: NodeEpoch) -> Result<(), HeartbeatError> {
        let health = {
            let ledger = self.shared.ledger.read();
            let node = ledger.node(id).filter(|node| node.epoch == epoch).ok_or(HeartbeatError::Fenced)?;
            node.health
        };
        let mut state = self.shared.state.lock();
        if state.nodes.get(&id).is_none_or(|attached| attached.session != session) {
            return Err(HeartbeatError::Fenced);
        }
        match health {
            NodeHealth::Available | NodeHealth::Suspect | NodeHealth::Failed => {
                state.heard.insert(id, Instant::now());
                Ok(())
            }
            NodeHealth::Lost | NodeHealth::Fenced => Err(HeartbeatError::Lost),
        }
    }

    fn close(&self, session: u64) {
        let mut state = self.shared.state.lock();
        state.sessions.remove(&session);
        let nodes: Vec<NodeId> = state
            .nodes
            .iter()
            .filter(|(_, attached)| attached.session == session)
            .map(|(id, _)| *id)
            .collect();
        for node in nodes {
            state.detach(node);
        }
    }
}

impl HubState {
    /// Ties a node to a session and queues what it holds now.
    fn attach(&mut self, session: u64, ledger: &Ledger, node: &Arc<Node>) {
        self.detach(node.id);
        self.heard.insert(node.id, Instant::now());
        let Some(open) = self.sessions.get_mut(&session) else { return };
        let mut holds = BTreeSet::new();
        for reservation in ledger.holders(node.id) {
            holds.insert(reservation.id);
            self.held.entry(reservation.id).or_default().push(node.id);
            open.queue.push_back(AgentNotice::Lease(node.id, Arc::clone(reservation)));
        }
        open.wake.notify_one();
        self.nodes.insert(node.id, Attached { session, since: ledger.revision(), holds });
    }

    fn detach(&mut self, node: NodeId) {
        let Some(attached) = self.nodes.remove(&node) else { return };
        for id in attached.holds {
            if let Some(nodes) = self.held.get_mut(&id) {
                nodes.retain(|held| *held != node);
                if nodes.is_empty() {
                    self.held.remove(&id);
                }
            }
        }
    }

    fn reservation(&mut self, revision: Revision, reservation: &Arc<Reservation>) {
        let before = self.held.remove(&reservation.id).unwrap_or_default();
        let mut now: Vec<NodeId> = Vec::new();
        if reservation.state.is_occupying() {
            for member in &reservation.members {
                if self.nodes.contains_key(&member.node) && !now.contains(&member.node) {
                    now.push(member.node);
                }
            }
        }
        for node in before.iter().filter(|node| !now.contains(node)) {
            if let Some(attached) = self.nodes.get_mut(node) {
                attached.holds.remove(&reservation.id);
            }
            self.tell(
                *node,
                revision,
                AgentNotice::LeaseEnded(*node, reservation.id, Some(Arc::clone(reservation))),
            );
        }
        for node in &now {
            if let Some(attached) = self.nodes.get_mut(node) {
                attached.holds.insert(reservation.id);
            }
            self.tell(*node, revision, AgentNotice::Lease(*node, Arc::clone(reservation)));
        }
        if !now.is_empty() {
            self.held.insert(reservation.id, now);
        }
    }

    fn node(&mut self, revision: Revision, node: &Arc<Node>) {
        self.tell(node.id, revision, AgentNotice::Node(Arc::clone(node)));
    }

    fn tell(&mut self, node: NodeId, revision: Revision, notice: AgentNotice) {
        let Some(attached) = self.nodes.get(&node) else { return };
        if revision <= attached.since {
            return;
        }
        if let Some(session) = self.sessions.get_mut(&attached.session) {
            session.push(notice);
        }
    }
}
