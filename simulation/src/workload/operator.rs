//! The operator: cordons, drains, fences, fails and removes nodes, breaks devices, changes policy and the membership of the
//! cluster, all at the wrong moment. Afterwards it puts right what it did.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{Client, Error, v1};

use super::{NODES, calendar, client, deadline, rules, tell, wishes};
use crate::board::{Board, Phase};
use crate::history::{Answer, Call};
use crate::net::PORT;
use crate::request::{Effect, Request};
use crate::rng::Rng;

/// Calls with an unknown outcome that are asked again, at most.
const MOST_SETTLED: usize = 60;
/// Between tries of what must be done in the end.
const PAUSE: Duration = Duration::from_millis(100);
/// Coordinators that the operator never goes below.
const FEWEST_VOTERS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Choice {
    Cordon,
    Uncordon,
    Drain,
    Interrupt,
    Fence,
    Fail,
    RemoveNode,
    BreakDevice,
    MendDevice,
    Apply,
    ApplyIf,
    Schedule,
    Delete,
    Transfer,
    Members,
}

const WEIGHTS: [(u64, Choice); 15] = [
    (3, Choice::Cordon),
    (9, Choice::Uncordon),
    (3, Choice::Drain),
    (3, Choice::Interrupt),
    (2, Choice::Fence),
    (2, Choice::Fail),
    (2, Choice::RemoveNode),
    (2, Choice::BreakDevice),
    (4, Choice::MendDevice),
    (9, Choice::Apply),
    (2, Choice::ApplyIf),
    (8, Choice::Schedule),
    (5, Choice::Delete),
    (3, Choice::Transfer),
    (8, Choice::Members),
];

/// Whoever runs the cluster.
pub struct Operator {
    client: Client,
    rng: Rng,
    board: Arc<Board>,
    worker: usize,
    next_id: u64,
    /// Coordinators that run and were never members.
    spares: Vec<u64>,
    nodes: Vec<v1::Node>,
    /// The organisation has what it begins with.
    founded: bool,
}

impl Operator {
    /// The operator, who counts as this worker; `members` are those of the beginning, `spares` those that may join.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(worker: usize, board: Arc<Board>, members: &[u64], spares: &[u64]) -> Result<Operator, Error> {
        let client = client(board.seed, "operator", members)?;
        let rng = Rng::of(board.seed, "operator-choices");
        let (spares, nodes) = (spares.to_vec(), Vec::new());
        Ok(Operator { client, rng, board, worker, next_id: 0, spares, nodes, founded: false })
    }

    /// Operates until the chaos is over.
    pub async fn run(mut self) {
        while self.board.phase() == Phase::Chaos {
            let pause_ms = self.rng.between(200, 2_500);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            if self.rng.percent(30) || self.nodes.is_empty() {
                let client = self.client.with_timeout(deadline(&mut self.rng));
                if let Ok(answer) = client.list_nodes(v1::ListNodesRequest::default()).await {
                    self.nodes = answer.nodes;
                }
            }
            let Some(choice) = self.rng.weighted(&WEIGHTS) else { return };
            let found = !self.founded && self.rng.percent(60);
            let request = match choice {
                _ if found => Some(self.found()),
                Choice::Members => self.change_members().await,
                _ => self.request(choice),
            };
            if let Some(request) = request {
                let patient = request.effect() == Effect::Members;
                let longest = if patient { Duration::from_secs(5) } else { deadline(&mut self.rng) };
                let client = self.client.with_timeout(longest);
                let answer = send(&self.board, &client, self.worker, request).await;
                self.founded |= found && answer.done().is_some();
            }
        }
    }

    fn found(&mut self) -> Request {
        let (request_id, objects) = (self.id(), rules::founding(&mut self.rng));
        Request::Apply(v1::ApplyPolicyRequest { request_id, objects, ..Default::default() })
    }

    fn request(&mut self, choice: Choice) -> Option<Request> {
        let name = (*self.rng.pick(&NODES)?).to_owned();
        let reason = "simulated".to_owned();
        let request_id = self.id();
        let epoch = self.nodes.iter().find(|node| node.name.ends_with(&name)).map_or(1, |node| node.epoch);
        Some(match choice {
            Choice::Cordon => {
                Request::Cordon(v1::CordonNodeRequest { request_id, name, reason, validate_only: false })
            }
            Choice::Uncordon => {
                Request::Uncordon(v1::UncordonNodeRequest { request_id, name, validate_only: false })
            }
            Choice::Drain => {
                let deadline_ms = self.rng.weighted(&[(1, 0), (2, 500), (2, 3_000)])?;
                let validate_only = false;
                Request::Drain(v1::DrainNodeRequest { request_id, validate_only, name, reason, deadline_ms })
            }
            Choice::Interrupt => {
                let in_ms = self.rng.weighted(&[(1, 0), (3, 1_500), (2, 6_000)])?;
                let validate_only = false;
                Request::Interrupt(v1::InterruptNodeRequest { request_id, validate_only, name, in_ms, epoch })
            }
            Choice::Fence => {
                Request::Fence(v1::FenceNodeRequest { request_id, validate_only: false, name, epoch })
            }
            Choice::Fail => {
                Request::Fail(v1::FailNodeRequest { request_id, validate_only: false, name, epoch })
            }
            Choice::RemoveNode => {
                Request::Remove(v1::RemoveNodeRequest { request_id, validate_only: false, name })
            }
            Choice::BreakDevice | Choice::MendDevice => {
                let failed = matches!(choice, Choice::BreakDevice);
                let devices: Vec<(String, String)> = self
                    .nodes
                    .iter()
                    .flat_map(|node| node.devices.iter().map(|one| (node.name.clone(), one.uuid.clone())))
                    .collect();
                let (name, uuid) = self.rng.pick(&devices)?.clone();
                let validate_only = false;
                Request::Device(v1::SetDeviceHealthRequest { request_id, validate_only, name, uuid, failed })
            }
            Choice::Apply | Choice::ApplyIf => {
                let many = if self.rng.percent(30) { 2 } else { 1 };
                let objects = (0..many).map(|_| wishes::policy(&mut self.rng)).collect();
                let if_revision =
                    if matches!(choice, Choice::ApplyIf) { self.rng.between(1, 400) } else { 0 };
                let rest = v1::ApplyPolicyRequest::default();
                Request::Apply(v1::ApplyPolicyRequest { request_id, objects, if_revision, ..rest })
            }
            Choice::Schedule => {
                let objects = vec![calendar::schedule(&mut self.rng)];
                Request::Apply(v1::ApplyPolicyRequest { request_id, objects, ..Default::default() })
            }
            Choice::Delete => {
                let names = vec![wishes::policy_name(&mut self.rng)];
                Request::Delete(v1::DeletePolicyRequest { request_id, names, ..Default::default() })
            }
            Choice::Transfer => {
                Request::Transfer(v1::TransferLeaderRequest { request_id, validate_only: false, to: 0 })
            }
            Choice::Members => return None,
        })
    }

    /// One step of membership: a new coordinator comes, an old one goes, or one takes another's place. `None` where there
    /// is nobody left who may come, and nobody may go.
    async fn change_members(&mut self) -> Option<Request> {
        let client = self.client.with_timeout(Duration::from_secs(2));
        let members = client.list_members(v1::ListMembersRequest::default()).await.ok()?.members;
        let there: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
        let voters: Vec<u64> = members.iter().filter(|member| member.voter).map(|member| member.id).collect();
        let waiting: Vec<u64> = self.spares.iter().copied().filter(|id| !there.contains(id)).collect();
        let request_id = self.id();
        let validate_only = false;
        // Any may go, the leader too. Clients and agents know the members of the beginning: there are fewer spare ones than
        // those, so one of them is left to ask.
        let old_id = *self.rng.pick(&voters)?;
        // Whoever came and went never comes back: ids are never used again.
        let coming = waiting.into_iter().find(|id| !self.board.was_member(*id));
        if let Some(learner) = members.iter().find(|member| !member.voter) {
            // A change that was cut short is finished.
            let (id, address) = (learner.id, learner.address.clone());
            let learner = false;
            return Some(Request::AddMember(v1::AddMemberRequest {
                request_id,
                validate_only,
                id,
                address,
                learner,
            }));
        }
        if let Some(id) = coming {
            let address = format!("c{id}:{PORT}");
            self.board.joins(id);
            if self.rng.percent(60) {
                let replace =
                    v1::ReplaceMemberRequest { request_id, validate_only, old_id, new_id: id, address };
                return Some(Request::ReplaceMember(replace));
            }
            let learner = false;
            let add = v1::AddMemberRequest { request_id, validate_only, id, address, learner };
            return Some(Request::AddMember(add));
        }
        (voters.len() > FEWEST_VOTERS).then_some(Request::RemoveMember(v1::RemoveMemberRequest {
            request_id,
            validate_only,
            id: old_id,
        }))
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("sim-{}-operator-call-{:05}", self.board.seed, self.next_id)
    }
}

/// Makes a call and records what came of it.
pub(crate) async fn send(board: &Board, client: &Client, worker: usize, request: Request) -> Answer {
    let called_ms = Board::now_ms();
    let answer = Answer::of(request.clone().send(client).await);
    let answered_ms = Board::now_ms();
    board.trace.add(
        answered_ms,
        format_args!(
            "w{worker} {} {} {} since {called_ms}: {} {}",
            request.kind(),
            request.request_id(),
            request.about(),
            answer.word(),
            answer.done().map(tell).unwrap_or_default()
        ),
    );
    board.history.add(Call { worker, request, called_ms, answered_ms, answer: answer.clone() });
    answer
}

/// The faults being over: asks again what is unknown, with the same request id, which settles it; and puts right what the
/// operator did, so that the cluster can be well.
///
/// # Errors
/// What cannot be settled or put right in time.
pub async fn settle(board: &Board, client: &Client, worker: usize, until_ms: u64) -> Result<(), String> {
    let calls = board.history.calls();
    let unknown = calls.into_iter().filter(|call| matches!(call.answer, Answer::Unknown(_)));
    let mut asked = BTreeSet::new();
    for call in unknown.filter(|call| call.request.is_logged()) {
        if asked.len() < MOST_SETTLED && asked.insert(call.request.request_id().to_owned()) {
            until_definite(board, client, worker, &call.request, until_ms).await?;
        }
    }
    let mut next_id = 0;
    let mut id = || {
        next_id += 1;
        format!("sim-{}-repair-{next_id:05}", board.seed)
    };
    let pool = v1::Pool { name: "default".to_owned(), ..Default::default() };
    let pool = v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(pool)) };
    let cap = v1::PolicyName { kind: v1::PolicyKind::NodeLimits.into(), name: "cap".to_owned() };
    // A pool that takes nodes away is made one that does not: it may not be deleted while in use.
    let side = v1::Pool { name: wishes::SIDE_POOL.to_owned(), ..Default::default() };
    let side = v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(side)) };
    let objects = vec![pool, side];
    let mut repairs = vec![
        Request::Apply(v1::ApplyPolicyRequest { request_id: id(), objects, ..Default::default() }),
        Request::Delete(v1::DeletePolicyRequest { request_id: id(), names: vec![cap], ..Default::default() }),
    ];
    // What users may have is no matter of being well. Each by itself: one that is refused keeps the others from nothing.
    for quota in rules::QUOTAS {
        let objects = vec![rules::no_quota(quota)];
        repairs.push(Request::Apply(v1::ApplyPolicyRequest {
            request_id: id(),
            objects,
            ..Default::default()
        }));
    }
    let (kind, name) = (v1::PolicyKind::Validator.into(), rules::VALIDATOR.to_owned());
    let names = vec![v1::PolicyName { kind, name }];
    repairs.push(Request::Delete(v1::DeletePolicyRequest { request_id: id(), names, ..Default::default() }));
    // What is kept for some is there for nobody else.
    for name in calendar::SCHEDULES {
        let names = vec![v1::PolicyName { kind: v1::PolicyKind::Schedule.into(), name: name.to_owned() }];
        repairs.push(Request::Delete(v1::DeletePolicyRequest {
            request_id: id(),
            names,
            ..Default::default()
        }));
    }
    for node in NODES {
        let name = node.to_owned();
        repairs.push(Request::Uncordon(v1::UncordonNodeRequest {
            request_id: id(),
            name,
            validate_only: false,
        }));
    }
    for repair in repairs {
        until_definite(board, client, worker, &repair, until_ms).await?;
    }
    // Nodes that were removed, failed or fenced are back only when their agents start anew.
    board.restart_agents();
    Ok(())
}

/// Asks until the answer is definite and comes from the cluster.
async fn until_definite(
    board: &Board,
    client: &Client,
    worker: usize,
    request: &Request,
    until_ms: u64,
) -> Result<(), String> {
    loop {
        let answer = send(board, client, worker, request.clone()).await;
        match &answer {
            Answer::Done(_) => return Ok(()),
            Answer::Refused(reason) if reason != "UNAVAILABLE" => return Ok(()),
            Answer::Refused(_) | Answer::Unknown(_) => {}
        }
        if Board::now_ms() > until_ms {
            return Err(format!("I22: {} stays {}", request.request_id(), answer.word()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
