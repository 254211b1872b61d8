//! `NodeService`: nodes and devices, and the operator's word on them.

use std::sync::Arc;

use plimsoll_ledger::{AdminChange, Command, Node, NodeHealth, Outcome};
use plimsoll_proto::limits::MAX_TEXT_BYTES;
use plimsoll_proto::v1::node_service_server::NodeService;
use plimsoll_proto::{convert, v1};
use plimsoll_types::{DeviceIndex, NodeEpoch, NodeId, Revision, Selector};
use prost::Message;
use tonic::{Request, Response, Status};

use super::api::{Api, as_of};
use super::edge::Actor;
use super::intent::Intent;
use super::names;
use super::page::is_descending;
use super::problem::Problem;
use crate::core::{Consistency, Sampled};

/// Silent nodes named in one answer.
const MOST_UNREACHABLE: usize = 1_000;

/// Nodes whose samples one answer has.
const MOST_SAMPLES: usize = 1_000;

/// The id of no node: ids are given out from 0 on, and memory ends before they do.
const NOBODY: NodeId = NodeId(u32::MAX);

/// The service.
#[derive(Clone)]
pub(super) struct Nodes {
    api: Api,
}

/// Fields that every change of a node has.
struct Change<'a, M> {
    actor: Actor,
    method: &'static str,
    name: String,
    request_id: String,
    validate_only: bool,
    rest: &'a M,
}

impl Nodes {
    pub(super) fn new(api: Api) -> Nodes {
        Nodes { api }
    }

    /// Finds the node, does what `command` makes of it, and shows the node afterwards (`None` where it is gone).
    async fn change<M: Message>(
        &self,
        change: Change<'_, M>,
        command: impl FnOnce(&Node) -> Result<Command, Problem>,
    ) -> Result<(Option<v1::Node>, u64, u64), Problem> {
        let name = names::object("nodes", &change.name)?;
        let (id, command) = {
            // A new leader may not yet have applied all that was acknowledged before it.
            let view = self.api.core.read(Consistency::Linearizable, Revision(0)).await?;
            match view.node_by_name(name) {
                Some(node) => (node.id, command(node)?),
                // The request that is repeated here, or a later one, removed the node: the answer is remembered, whatever
                // the command. Were it forgotten in the meantime, there is nothing to remove under this id.
                None if view.remembered(&change.actor.0, &change.request_id).is_some() => {
                    (NOBODY, Command::RemoveNode { node: NOBODY })
                }
                None => return Err(Problem::not_found("node", name)),
            }
        };
        let Change { actor, method, request_id, validate_only, rest, .. } = change;
        let intent = Intent::of_command(&actor, method, request_id, validate_only, rest, command)?;
        let answer = self.api.submit(intent).await?;
        let shown = match &answer.outcome {
            Outcome::Node(node) => Some(convert::node_to_v1(node, &self.api.local())),
            _ => self.present(id),
        };
        Ok((shown, answer.revision.0, answer.log_time.0))
    }

    fn present(&self, id: NodeId) -> Option<v1::Node> {
        let view = self.api.local();
        view.node(id).map(|node| convert::node_to_v1(node, &view))
    }
}

/// One call that changes a node and answers with it.
macro_rules! change {
    ($self:ident, $request:ident, $method:literal, $response:ident, $command:expr) => {{
        let actor = Actor::of(&$request);
        let mut request = $request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let name = request.name.clone();
        let change = Change { actor, method: $method, name, request_id, validate_only, rest: &request };
        let (node, revision, log_time_ms) = $self.change(change, |node| $command(node, &request)).await?;
        Ok(Response::new(v1::$response { node, revision, log_time_ms }))
    }};
}

#[tonic::async_trait]
impl NodeService for Nodes {
    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let request = request.into_inner();
        let name = names::object("nodes", &request.name)?;
        let view = self.api.read_at(request.consistency, request.min_revision, as_of!(request)).await?;
        let node = view.node_by_name(name).ok_or_else(|| Problem::not_found("node", name))?;
        Ok(Response::new(v1::GetNodeResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            node: Some(convert::node_to_v1(node, &view)),
        }))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let mut request = request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let min_revision = std::mem::take(&mut request.min_revision);
        let page = self.api.page(size, &token, &request.encode_to_vec())?;
        let filter = Filter::read(&request)?;
        let after = page.after_number()?;
        let min_revision = min_revision.max(page.revision.0);
        let view = self.api.read_at(request.consistency, min_revision, as_of!(request)).await?;
        let all: Box<dyn Iterator<Item = &Arc<Node>>> = if is_descending(request.order)? {
            Box::new(view.nodes().rev().filter(|node| after.is_none_or(|after| u64::from(node.id.0) < after)))
        } else {
            Box::new(view.nodes().filter(|node| after.is_none_or(|after| u64::from(node.id.0) > after)))
        };
        let mut nodes: Vec<_> = all.filter(|node| filter.wants(node)).take(page.size + 1).collect();
        let mut next_page_token = String::new();
        if nodes.len() > page.size {
            nodes.truncate(page.size);
            let last = nodes.last().map_or(0, |node| u64::from(node.id.0));
            next_page_token = page.next(&last.to_be_bytes(), view.revision());
        }
        let silent = |node: &&Arc<Node>| matches!(node.health, NodeHealth::Suspect | NodeHealth::Lost);
        let unreachable = view.nodes().filter(silent).filter(|node| filter.wants(node));
        Ok(Response::new(v1::ListNodesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            nodes: nodes.into_iter().map(|node| convert::node_to_v1(node, &view)).collect(),
            next_page_token,
            unreachable: unreachable.take(MOST_UNREACHABLE).map(|node| node.name().to_owned()).collect(),
        }))
    }

    async fn get_node_samples(
        &self,
        request: Request<v1::GetNodeSamplesRequest>,
    ) -> Result<Response<v1::GetNodeSamplesResponse>, Status> {
        let asked = request.into_inner().names;
        if asked.is_empty() || asked.len() > MOST_SAMPLES {
            let given = asked.len();
            return Err(
                Problem::invalid("names", format!("{given} are given, not 1 to {MOST_SAMPLES}")).into()
            );
        }
        let core = &self.api.core;
        if !core.is_leader() {
            return Err(Problem::not_leader(None).into());
        }
        let mut nodes = Vec::new();
        for name in &asked {
            let name = names::object("nodes", name)?;
            let id = self.api.local().node_by_name(name).map(|node| node.id);
            if let Some(Sampled { sample, stale }) = id.and_then(|id| core.agents().sample(id)) {
                nodes.push(v1::MeasuredNode { node: name.to_owned(), sample: Some(sample), stale });
            }
        }
        Ok(Response::new(v1::GetNodeSamplesResponse { nodes }))
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::CordonNodeResponse>, Status> {
        change!(
            self,
            request,
            "cordon",
            CordonNodeResponse,
            |node: &Node, request: &v1::CordonNodeRequest| {
                let reason = reason(&request.reason)?;
                Ok(Command::SetNodeAdmin { node: node.id, admin: AdminChange::Cordon { reason } })
            }
        )
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::UncordonNodeResponse>, Status> {
        change!(
            self,
            request,
            "uncordon",
            UncordonNodeResponse,
            |node: &Node, _: &v1::UncordonNodeRequest| {
                Ok(Command::SetNodeAdmin { node: node.id, admin: AdminChange::Uncordon })
            }
        )
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        change!(self, request, "drain", DrainNodeResponse, |node: &Node, request: &v1::DrainNodeRequest| {
            let admin =
                AdminChange::Drain { reason: reason(&request.reason)?, deadline_ms: request.deadline_ms };
            Ok(Command::SetNodeAdmin { node: node.id, admin })
        })
    }

    async fn interrupt_node(
        &self,
        request: Request<v1::InterruptNodeRequest>,
    ) -> Result<Response<v1::InterruptNodeResponse>, Status> {
        change!(
            self,
            request,
            "interrupt",
            InterruptNodeResponse,
            |node: &Node, request: &v1::InterruptNodeRequest| {
                Ok(Command::InterruptNode {
                    node: node.id,
                    epoch: epoch(node, request.epoch),
                    in_ms: request.in_ms,
                })
            }
        )
    }

    async fn fence_node(
        &self,
        request: Request<v1::FenceNodeRequest>,
    ) -> Result<Response<v1::FenceNodeResponse>, Status> {
        change!(self, request, "fence", FenceNodeResponse, |node: &Node, request: &v1::FenceNodeRequest| {
            Ok(Command::SetNodeHealth {
                node: node.id,
                epoch: epoch(node, request.epoch),
                health: NodeHealth::Fenced,
            })
        })
    }

    async fn fail_node(
        &self,
        request: Request<v1::FailNodeRequest>,
    ) -> Result<Response<v1::FailNodeResponse>, Status> {
        change!(self, request, "fail", FailNodeResponse, |node: &Node, request: &v1::FailNodeRequest| {
            Ok(Command::SetNodeHealth {
                node: node.id,
                epoch: epoch(node, request.epoch),
                health: NodeHealth::Failed,
            })
        })
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let actor = Actor::of(&request);
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let name = request.name.clone();
        let change = Change { actor, method: "remove", name, request_id, validate_only, rest: &request };
        let (_, revision, log_time_ms) =
            self.change(change, |node| Ok(Command::RemoveNode { node: node.id })).await?;
        Ok(Response::new(v1::RemoveNodeResponse { revision, log_time_ms }))
    }

    async fn set_device_health(
        &self,
        request: Request<v1::SetDeviceHealthRequest>,
    ) -> Result<Response<v1::SetDeviceHealthResponse>, Status> {
        change!(
            self,
            request,
            "device",
            SetDeviceHealthResponse,
            |node: &Node, request: &v1::SetDeviceHealthRequest| {
                let device = device_of(node, &request.uuid)
                    .ok_or_else(|| Problem::not_found("device", &request.uuid))?;
                Ok(Command::SetDeviceHealth { node: node.id, device, failed: request.failed })
            }
        )
    }
}

/// What is asked for.
struct Filter {
    pool: String,
    states: Vec<v1::NodeState>,
    selector: Selector,
    name_prefix: String,
}

impl Filter {
    fn read(request: &v1::ListNodesRequest) -> Result<Filter, Problem> {
        let mut states = Vec::new();
        for (index, state) in request.states.iter().enumerate() {
            let state =
                v1::NodeState::try_from(*state).ok().filter(|state| *state != v1::NodeState::Unspecified);
            states
                .push(state.ok_or_else(|| Problem::invalid(&format!("states[{index}]"), "is not a state"))?);
        }
        let pool = if request.pool.is_empty() { "" } else { names::object("pools", &request.pool)? };
        let selector = convert::selector_from_v1(&request.select);
        let selector = selector.map_err(|violations| Problem::fields("select", violations))?;
        Ok(Filter { pool: pool.to_owned(), states, selector, name_prefix: request.name_prefix.clone() })
    }

    fn wants(&self, node: &Node) -> bool {
        (self.pool.is_empty() || self.pool == node.pool)
            && (self.states.is_empty() || self.states.contains(&convert::node_state(node)))
            && node.name().starts_with(&self.name_prefix)
            && (self.selector.terms.is_empty() || self.selector.matches(&node.effective_labels()))
    }
}

/// The incarnation that a change is about; 0 for the present one.
fn epoch(node: &Node, asked: u64) -> NodeEpoch {
    if asked == 0 { node.epoch } else { NodeEpoch(asked) }
}

/// A device of a node by its unique id.
pub(super) fn device_of(node: &Node, uuid: &str) -> Option<DeviceIndex> {
    let index = node.registration.devices.iter().position(|device| device.uuid == uuid)?;
    u16::try_from(index).ok().map(DeviceIndex)
}

fn reason(reason: &str) -> Result<String, Problem> {
    if reason.len() > MAX_TEXT_BYTES {
        let what = format!("has {} bytes, at most {MAX_TEXT_BYTES} are kept", reason.len());
        return Err(Problem::invalid("reason", what));
    }
    Ok(reason.to_owned())
}
