//! The Cluster Autoscaler's external gRPC protocol, as its client. It has no key for one machine: a group is told how many nodes it is to
//! have. So this is done by numbers: the group's target is raised to as many as the policy's machines are, and each machine takes an
//! instance that no other has. Asked again, the numbers are right already and the instance is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint};

use crate::externalgrpc::cloud_provider_client::CloudProviderClient;
use crate::externalgrpc::instance_status::InstanceState;
use crate::externalgrpc::{
    ExternalGrpcNode, Instance, NodeGroupDeleteNodesRequest, NodeGroupIncreaseSizeRequest,
    NodeGroupNodesRequest, NodeGroupTargetSizeRequest, RefreshRequest,
};
use crate::{Ask, Machines, ProviderError, Started};

const CONNECT: Duration = Duration::from_secs(5);

/// What the machines of each group of this process have taken and not written yet: one call at a time, so that two never take the same.
#[derive(Default)]
pub(crate) struct Groups {
    taken: Mutex<BTreeMap<String, BTreeMap<u64, String>>>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// A server, and a node group of it, or one for each template.
pub(crate) struct ExternalGrpc {
    client: CloudProviderClient<Channel>,
    address: String,
    group: String,
    groups: Arc<Groups>,
}

impl ExternalGrpc {
    pub(crate) fn new(
        address: &str,
        group: &str,
        groups: Arc<Groups>,
    ) -> Result<ExternalGrpc, ProviderError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| ProviderError::never(format!("{address}: {error}")))?;
        let client = CloudProviderClient::new(endpoint.connect_timeout(CONNECT).connect_lazy());
        Ok(ExternalGrpc { client, address: address.to_owned(), group: group.to_owned(), groups })
    }

    async fn take(&self, ask: &Ask) -> Result<Started, ProviderError> {
        let id = self.group_of(ask);
        let mut groups = self.groups.taken.lock().await;
        let own = groups.entry(format!("{} {id}", self.address)).or_default();
        let mut client = self.client.clone();
        client.refresh(RefreshRequest {}).await.map_err(|status| self.failed(&id, "Refresh", &status))?;
        let instances = self.instances(&id).await?;
        // What is written is known to whoever leads; what this process has given out since may not be written yet.
        own.retain(|_, instance| instances.iter().any(|one| one.id == *instance));
        let mine = own.get(&ask.machine).cloned();
        let free = |one: &&Instance| {
            is_coming(one) && !ask.taken.contains(&one.id) && !own.values().any(|taken| *taken == one.id)
        };
        if let Some(instance) = mine.or_else(|| instances.iter().find(free).map(|one| one.id.clone())) {
            own.insert(ask.machine, instance.clone());
            return Ok(Started { node: node_name(&instance), handle: instance });
        }
        let answer = client
            .node_group_target_size(NodeGroupTargetSizeRequest { id: id.clone() })
            .await
            .map_err(|status| self.failed(&id, "NodeGroupTargetSize", &status))?;
        let size = i64::from(answer.into_inner().target_size);
        let wanted = i64::try_from(ask.wanted).unwrap_or(i64::MAX);
        if size < wanted {
            let delta = i32::try_from(wanted - size).unwrap_or(i32::MAX);
            let request = NodeGroupIncreaseSizeRequest { delta, id: id.clone() };
            client
                .node_group_increase_size(request)
                .await
                .map_err(|status| self.failed(&id, "NodeGroupIncreaseSize", &status))?;
        }
        let have = instances.len();
        Err(ProviderError::underway(format!(
            "group {id} has {have} instances of {}: the next is on its way",
            size.max(wanted)
        )))
    }

    async fn give_back(&self, ask: &Ask) -> Result<(), ProviderError> {
        let id = self.group_of(ask);
        let mut groups = self.groups.taken.lock().await;
        let own = groups.entry(format!("{} {id}", self.address)).or_default();
        let handle = match ask.handle.is_empty() {
            true => own.get(&ask.machine).cloned().unwrap_or_default(),
            false => ask.handle.clone(),
        };
        let known = self.instances(&id).await?.into_iter().find(|one| one.id == handle);
        let leaving = known.filter(|one| state_of(one) != InstanceState::InstanceDeleting);
        if leaving.is_some() {
            let node = ExternalGrpcNode {
                provider_id: handle,
                name: ask.node.clone(),
                ..ExternalGrpcNode::default()
            };
            let request = NodeGroupDeleteNodesRequest { nodes: vec![node], id: id.clone() };
            let mut client = self.client.clone();
            client
                .node_group_delete_nodes(request)
                .await
                .map_err(|status| self.failed(&id, "NodeGroupDeleteNodes", &status))?;
        }
        own.remove(&ask.machine);
        Ok(())
    }

    /// The node group of a machine: such a group has nodes of one kind, so each template has its own where the name says so.
    fn group_of(&self, ask: &Ask) -> String {
        self.group.replace(plimsoll_ledger::TEMPLATE_IN_GROUP, &ask.template_name)
    }

    async fn instances(&self, id: &str) -> Result<Vec<Instance>, ProviderError> {
        let mut client = self.client.clone();
        let answer = client
            .node_group_nodes(NodeGroupNodesRequest { id: id.to_owned() })
            .await
            .map_err(|status| self.failed(id, "NodeGroupNodes", &status))?;
        Ok(answer.into_inner().instances)
    }

    fn failed(&self, group: &str, what: &str, status: &tonic::Status) -> ProviderError {
        let message = format!("{} {group}: {what}: {}: {}", self.address, status.code(), status.message());
        // A group that is not there, or that has had enough, is no better later, but for what people do; attempts are bounded anyway.
        match status.code() {
            tonic::Code::Unimplemented => ProviderError::never(message),
            _ => ProviderError::again(message),
        }
    }
}

impl Machines for ExternalGrpc {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        self.take(ask).boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.give_back(ask).boxed()
    }
}

fn state_of(instance: &Instance) -> InstanceState {
    instance.status.as_ref().map_or(InstanceState::Unspecified, |status| status.instance_state())
}

/// It runs, or will, as far as its provider says.
fn is_coming(instance: &Instance) -> bool {
    let faulty = instance.status.as_ref().and_then(|status| status.error_info.as_ref());
    state_of(instance) != InstanceState::InstanceDeleting
        && faulty.is_none_or(|info| info.error_code.is_empty())
}

/// The node's name: the last part of the provider's id, `<provider>://<id>`.
fn node_name(instance: &str) -> String {
    let last = instance.rsplit('/').next().unwrap_or(instance);
    last.to_lowercase()
}
