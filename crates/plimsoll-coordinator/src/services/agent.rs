//! `AgentService`: one stream an agent; registrations, heartbeats and reports up, leases down.
//!
//! One task serves a stream, so that what goes down is in order: after a node is registered come all its leases, then
//! their changes. A change may be told twice, never before the registration and never after something newer.

mod leases;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use plimsoll_ledger::{Command, Entry, Node, Refusal, Reservation};
use plimsoll_proto::limits::MAX_DEVICES;
use plimsoll_proto::reason::Details;
use plimsoll_proto::v1::agent_service_server::AgentService;
use plimsoll_proto::v1::connect_request::Message as Up;
use plimsoll_proto::v1::connect_response::Message as Down;
use plimsoll_proto::{convert, v1};
use plimsoll_types::{NodeEpoch, NodeId, ReservationId, Revision};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::AnswerStream;
use super::api::Api;
use super::edge::Actor;
use super::endpoints::{self, MOST_REPORTS};
use super::names;
use super::node::device_of;
use super::problem::Problem;
use crate::core::{AgentNotice, AgentSession, Metrics, SubmitError};

/// Notices taken at once.
const NOTICES: usize = 256;
/// Messages that wait for the connection.
const MESSAGES: usize = 1_024;
/// Most nodes in one message.
const MOST_NODES: usize = 10_000;
/// A node may miss so many heartbeats before it is suspect.
const HEARTBEATS: u64 = 5;

/// The service.
#[derive(Clone)]
pub(super) struct Agents {
    api: Api,
}

impl Agents {
    pub(super) fn new(api: Api) -> Agents {
        Agents { api }
    }
}

type Answers = mpsc::Sender<Result<v1::ConnectResponse, Status>>;

#[tonic::async_trait]
impl AgentService for Agents {
    type ConnectStream = AnswerStream<v1::ConnectResponse>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let actor = Actor::of(&request);
        let session = self.api.core.agents().open(&actor.0).map_err(Problem::from)?;
        let (answers, receiver) = mpsc::channel(MESSAGES);
        let served = Served {
            api: self.api.clone(),
            actor,
            session: Arc::new(session),
            nodes: BTreeMap::new(),
            told: BTreeSet::new(),
            registering: FuturesUnordered::new(),
            answers,
        };
        tokio::spawn(served.run(request.into_inner()));
        Ok(Response::new(AnswerStream::new(receiver)))
    }
}

/// What the nodes of one message came to.
struct Registered {
    sequence: u64,
    nodes: Vec<(String, Result<Arc<Node>, Refused>)>,
}

/// Why a node was not registered.
enum Refused {
    /// A registration that makes no sense.
    Invalid(Vec<convert::Violation>),
    /// The ledger's word.
    Ledger(Refusal),
    /// This coordinator cannot do it: the stream ends.
    Core(SubmitError),
}

/// A stream being served.
struct Served {
    api: Api,
    actor: Actor,
    session: Arc<AgentSession>,
    /// Nodes registered in this stream, by name.
    nodes: BTreeMap<String, NodeId>,
    /// Leases that the agent was told of.
    told: BTreeSet<(NodeId, ReservationId)>,
    registering: FuturesUnordered<BoxFuture<'static, Registered>>,
    answers: Answers,
}

impl Served {
    async fn run(mut self, mut requests: Streaming<v1::ConnectRequest>) {
        let answers = self.answers.clone();
        let session = Arc::clone(&self.session);
        loop {
            let step = tokio::select! {
                biased;
                () = answers.closed() => return,
                Some(registered) = self.registering.next() => self.registered(registered).await,
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    Ok(None) => return,
                    Err(status) => {
                        let _ = answers.send(Err(status)).await;
                        return;
                    }
                },
                notices = session.next(NOTICES) => match notices {
                    Ok(notices) => self.tell(notices).await,
                    Err(closed) => Err(Problem::not_leader(None).because(&closed.to_string())),
                },
            };
            if let Err(problem) = step {
                // Nobody may be left to read it, then it does not matter.
                let _ = answers.send(Err(problem.into())).await;
                return;
            }
        }
    }

    async fn take(&mut self, request: v1::ConnectRequest) -> Result<(), Problem> {
        let sequence = request.sequence;
        match request.message.ok_or_else(|| Problem::invalid("message", "is missing"))? {
            Up::Register(register) => self.register(sequence, register),
            Up::Heartbeat(heartbeat) => self.heartbeat(sequence, heartbeat).await,
            Up::LeaseReport(report) => self.lease_report(sequence, &report).await,
            Up::LeaseEnded(ended) => self.lease_ended(&ended),
            Up::DeviceReport(report) => self.device_report(&report),
        }
    }

    /// Begins to register nodes; what comes of them is told when all are through.
    fn register(&mut self, sequence: u64, register: v1::RegisterNodes) -> Result<(), Problem> {
        check_count("register.nodes", register.nodes.len(), MOST_NODES)?;
        let session = Arc::clone(&self.session);
        let version = self.api.core.local().meta().version;
        let one = move |node: v1::NodeRegistration| {
            let session = Arc::clone(&session);
            async move {
                let result = match convert::registration_from_v1(&node) {
                    Ok(registration) => match session.register(registration.for_version(version)).await {
                        Ok(result) => result.map_err(Refused::Ledger),
                        Err(error) => Err(Refused::Core(error)),
                    },
                    Err(violations) => Err(Refused::Invalid(violations)),
                };
                (node.name, result)
            }
        };
        let all = join_all(register.nodes.into_iter().map(one));
        self.registering.push(Box::pin(async move { Registered { sequence, nodes: all.await } }));
        Ok(())
    }

    async fn registered(&mut self, registered: Registered) -> Result<(), Problem> {
        let mut nodes = Vec::with_capacity(registered.nodes.len());
        for (name, result) in registered.nodes {
            let failure = match result {
                Ok(node) => {
                    self.nodes.insert(name, node.id);
                    nodes.push(self.node_registered(&node));
                    continue;
                }
                Err(Refused::Invalid(violations)) => Details::invalid(violations).into_failure(),
                Err(Refused::Ledger(refusal)) => Details::from(&refusal).into_failure(),
                Err(Refused::Core(error)) => return Err(error.into()),
            };
            nodes.push(v1::NodeRegistered { node: name, failure: Some(failure), ..Default::default() });
        }
        let suspect_after_ms = self.api.core.config().timings.suspect_after_ms;
        let answer = v1::NodesRegistered {
            nodes,
            heartbeat_interval_ms: (suspect_after_ms / HEARTBEATS).max(1),
            suspect_after_ms,
        };
        self.send(registered.sequence, Down::Registered(answer)).await
    }

    /// A node with all its leases, as they are now.
    fn node_registered(&mut self, node: &Node) -> v1::NodeRegistered {
        let now = self.now();
        let view = self.api.core.local();
        let node = view.node(node.id).map_or(node, |present| present);
        let mut leases = Vec::new();
        for reservation in view.holders(node.id) {
            self.told.insert((node.id, reservation.id));
            leases.extend(leases::lease(&view, reservation, node.id, now));
        }
        v1::NodeRegistered {
            node: node.name().to_owned(),
            epoch: node.epoch.0,
            failure: None,
            leases,
            state: convert::node_state(node).into(),
        }
    }

    async fn heartbeat(&mut self, sequence: u64, heartbeat: v1::Heartbeat) -> Result<(), Problem> {
        check_count("heartbeat.nodes", heartbeat.nodes.len(), MOST_NODES)?;
        let mut refused = Vec::new();
        for beat in heartbeat.nodes {
            check_count(
                "heartbeat.nodes.sample.devices",
                beat.sample.as_ref().map_or(0, |s| s.devices.len()),
                MAX_DEVICES,
            )?;
            let seen = self.nodes.get(&beat.node).copied();
            let seen = seen.filter(|id| self.session.heartbeat(*id, NodeEpoch(beat.epoch)).is_ok());
            if let Some(id) = seen {
                check_count("heartbeat.nodes.loads", beat.loads.len(), MOST_REPORTS)?;
                self.take_loads(id, &beat.loads);
                check_count("heartbeat.nodes.uses", beat.uses.len(), MOST_REPORTS)?;
                self.take_uses(id, &beat.uses);
            }
            match (seen, beat.sample) {
                (None, _) => refused.push(beat.node),
                (Some(id), Some(sample)) => self.session.sampled(id, sample),
                (Some(_), None) => {}
            }
        }
        let clock_ms = self.now();
        self.send(sequence, Down::HeartbeatSeen(v1::HeartbeatSeen { clock_ms, refused })).await
    }

    /// Loads of endpoints with a member on the node. What does not count is left out: an endpoint may have ended meanwhile, or not be announced yet.
    fn take_loads(&self, node: NodeId, loads: &[v1::LoadReport]) {
        if loads.is_empty() {
            return;
        }
        let view = self.api.core.local();
        let here = |load: &plimsoll_ledger::LoadReport| {
            let replica = view.reservation(load.reservation);
            replica.is_some_and(|replica| replica.members.iter().any(|member| member.node == node))
        };
        let read = loads.iter().filter_map(|report| match endpoints::report(&view, report) {
            Ok(load) => Some(load),
            Err(problem) => {
                tracing::debug!(reservation = %report.name, ?problem, "a load does not count");
                None
            }
        });
        self.api.core.loads().take_in(read.filter(here));
    }

    /// What workloads of endpoints use of the node, in parts of what they were granted there.
    fn take_uses(&self, node: NodeId, uses: &[v1::LeaseUse]) {
        if uses.is_empty() {
            return;
        }
        let view = self.api.core.local();
        let measured = uses.iter().filter_map(|of| {
            let replica = view.reservation(names::reservation(&of.reservation).ok()?)?;
            let counts = replica.token.0 == of.token && replica.endpoint.is_some();
            counts.then(|| (replica.id, parts_used(replica, node, of)))
        });
        let measured: Vec<_> = measured.filter(|(_, metrics)| !metrics.is_empty()).collect();
        self.api.core.loads().take_measured(&measured);
    }

    /// Tells the agent to stop what the ledger does not know as running there.
    async fn lease_report(&mut self, sequence: u64, report: &v1::LeaseReport) -> Result<(), Problem> {
        check_count("lease_report.running", report.running.len(), MOST_NODES)?;
        let Some(id) = self.nodes.get(&report.node).copied() else { return Ok(()) };
        let stopped: Vec<_> = {
            let view = self.api.core.local();
            report
                .running
                .iter()
                .filter_map(|running| leases::stopped(&view, id, &report.node, running))
                .collect()
        };
        for lease in stopped {
            self.send(sequence, Down::LeaseStopped(lease)).await?;
        }
        Ok(())
    }

    /// A workload that is gone gives its grant back. The word of one node does not end a gang with members elsewhere.
    fn lease_ended(&self, ended: &v1::LeaseEnded) -> Result<(), Problem> {
        let Some(node) = self.nodes.get(&ended.node).copied() else { return Ok(()) };
        let reservation = names::reservation(&ended.reservation)?;
        let token = Revision(ended.token);
        // A member that came by a repair has a token of its own there.
        let all_of_it = {
            let view = self.api.core.local();
            let known = view.reservation(reservation).filter(|known| {
                known.token_on(node) == token && known.members.iter().all(|member| member.node == node)
            });
            known.map(|known| known.token)
        };
        if let Some(token) = all_of_it {
            self.propose(Command::Release { reservation, token });
        }
        Ok(())
    }

    fn device_report(&self, report: &v1::DeviceReport) -> Result<(), Problem> {
        let Some(node) = self.nodes.get(&report.node).copied() else { return Ok(()) };
        let device = {
            let view = self.api.core.local();
            let present = view.node(node).filter(|present| present.epoch.0 == report.epoch);
            present.and_then(|node| device_of(node, &report.uuid))
        };
        if let Some(device) = device {
            self.propose(Command::SetDeviceHealth { node, device, failed: report.failed });
        }
        Ok(())
    }

    /// Proposes what an agent reports. The agent hears of it by what changes, and reports again where it matters.
    fn propose(&self, command: Command) {
        let actor = self.actor.0.to_string();
        let entry = Entry { actor, request_id: String::new(), request_hash: [0; 32], command };
        let core = self.api.core.clone();
        tokio::spawn(async move {
            if let Err(error) = core.submit(entry).await {
                tracing::debug!(%error, "an agent's report was not taken in");
            }
        });
    }

    async fn tell(&mut self, notices: Vec<AgentNotice>) -> Result<(), Problem> {
        let mut messages = Vec::with_capacity(notices.len());
        {
            let now = self.now();
            let core = self.api.core.clone();
            let view = core.local();
            for notice in notices {
                messages.extend(self.message(&view, notice, now));
            }
        }
        for message in messages {
            self.send(0, message).await?;
        }
        Ok(())
    }

    fn message(&mut self, ledger: &plimsoll_ledger::Ledger, notice: AgentNotice, now: u64) -> Option<Down> {
        match notice {
            AgentNotice::Lease(node, reservation) => {
                let lease = Some(leases::lease(ledger, &reservation, node, now)?);
                Some(if self.told.insert((node, reservation.id)) {
                    Down::LeaseGranted(v1::LeaseGranted { lease })
                } else {
                    Down::LeaseUpdated(v1::LeaseUpdated { lease })
                })
            }
            AgentNotice::LeaseEnded(node, id, reservation) => {
                self.told.remove(&(node, id));
                let name = ledger.node(node).map(|node| node.name().to_owned());
                let name = name.or_else(|| self.name_of(node))?;
                Some(Down::LeaseStopped(v1::LeaseStopped {
                    node: name,
                    reservation: id.to_string(),
                    token: reservation.as_ref().map_or(0, |reservation| reservation.token.0),
                    reason: convert::end_reason_to_v1(
                        reservation.and_then(|reservation| reservation.end_reason),
                    )
                    .into(),
                }))
            }
            AgentNotice::Node(node) => Some(Down::NodeUpdated(v1::NodeUpdated {
                node: node.name().to_owned(),
                epoch: node.epoch.0,
                state: convert::node_state(&node).into(),
            })),
        }
    }

    /// Name of a node of this stream that the ledger no longer has.
    fn name_of(&self, node: NodeId) -> Option<String> {
        self.nodes.iter().find(|(_, known)| **known == node).map(|(name, _)| name.clone())
    }

    /// Ledger time now: the leader's clock, which the log never runs ahead of for long.
    fn now(&self) -> u64 {
        self.api.core.clock().now_ms().max(self.api.core.local().clock().0)
    }

    async fn send(&mut self, sequence: u64, message: Down) -> Result<(), Problem> {
        let (revision, log_time_ms) = {
            let view = self.api.core.local();
            (view.revision().0, view.log_time().0)
        };
        let response = v1::ConnectResponse { revision, log_time_ms, sequence, message: Some(message) };
        // A client that left is noticed by the loop.
        let _ = self.answers.send(Ok(response)).await;
        Ok(())
    }
}

fn check_count(field: &str, count: usize, most: usize) -> Result<(), Problem> {
    if count > most {
        return Err(Problem::invalid(
            field,
            format!("{count} are given, at most {most} are taken in one message"),
        ));
    }
    Ok(())
}

/// What a lease uses of what it was granted on a node, in thousandths of a percent, by the names of metrics. Of what was not granted nothing is said.
fn parts_used(replica: &Reservation, node: NodeId, of: &v1::LeaseUse) -> Metrics {
    let part = |name: &str, used: u64| {
        let here = replica.members.iter().filter(|member| member.node == node);
        let granted: u128 = here.map(|member| u128::from(replica.amounts_of(member).get(name).0)).sum();
        let part = (u128::from(used) * 100_000).checked_div(granted)?;
        Some(u64::try_from(part).unwrap_or(u64::MAX))
    };
    let parts = [
        ("cpu", of.cpu_millis.and_then(|used| part("cpu", used))),
        ("memory", of.memory_bytes.and_then(|used| part("memory", used))),
        ("gpu", of.gpu_permille.map(|permille| u64::from(permille) * 100)),
    ];
    parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), part?))).collect()
}
