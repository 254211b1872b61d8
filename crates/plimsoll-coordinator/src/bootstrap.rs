//! Beginning a new cluster, but only where the others say that there is none: a member that lost its data and is started
//! once more with `--bootstrap` would otherwise begin a second cluster of its own, beside the one that it left.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_consensus::{Dialer, Error};
use plimsoll_proto::v1;
use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::time::Instant;

use crate::core::Core;

/// Longest wait for the group to say what is in its own data.
const OWN_DATA: Duration = Duration::from_millis(500);
/// Longest wait for all others to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pause between questions.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// No new cluster was begun.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is one already.
    #[error(
        "no new cluster was begun: the coordinator at {peer} is in cluster {cluster:?} already (members: {members}), and \
         the data of node {node_id} here belong to none. If this node was a member and has lost its data: empty its data \
         directory, start it without --bootstrap under a new --node-id, and run `plimsoll cluster replace {node_id} \
         ADDRESS`. If it is new: start it without --bootstrap, and run `plimsoll cluster join ADDRESS`"
    )]
    Exists {
        /// Who says so.
        peer: String,
        /// Its cluster.
        cluster: String,
        /// Ids and addresses of its members.
        members: String,
        /// This coordinator.
        node_id: u64,
    },
    /// Nobody knows whether there is one.
    #[error(
        "no new cluster was begun: {peer} does not answer ({why}), so nobody can say whether there is one already. Start \
         it first, or leave it out of --peers"
    )]
    Silent {
        /// Who does not answer.
        peer: String,
        /// Why not.
        why: String,
    },
    /// The group did not begin.
    #[error("no new cluster was begun")]
    Group(#[source] Error),
}

/// Begins a cluster with this core as its only voter, after all `peers` have said that they are in none. Does nothing where
/// the core's own data are those of a member.
pub(crate) async fn begin(
    core: &Core,
    dialer: &Arc<dyn Dialer>,
    cluster: &str,
    peers: &[String],
) -> Result<(), BootstrapError> {
    if is_member(core).await {
        return Ok(());
    }
    let until = Instant::now() + PATIENCE;
    for peer in peers {
        let status = loop {
            match ask(dialer, peer).await {
                Ok(status) => break status,
                Err(why) if Instant::now() >= until => {
                    return Err(BootstrapError::Silent { peer: peer.clone(), why });
                }
                Err(why) => {
                    tracing::info!(peer, why, "waiting for a peer before a new cluster is begun");
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        };
        if !status.members.is_empty() {
            let member = |member: &v1::Member| format!("{} at {}", member.id, member.address);
            return Err(BootstrapError::Exists {
                peer: peer.clone(),
                cluster: if status.cluster_id.is_empty() { cluster.to_owned() } else { status.cluster_id },
                members: status.members.iter().map(member).collect::<Vec<_>>().join(", "),
                node_id: core.node_id(),
            });
        }
    }
    match core.group().initialize().await {
        Ok(()) | Err(Error::AlreadyInitialized) => Ok(()),
        Err(error) => Err(BootstrapError::Group(error)),
    }
}

/// Whether this core's data are those of a member. The group says so a moment after its start.
async fn is_member(core: &Core) -> bool {
    let mut status = core.group().watch();
    let found = status.wait_for(|status| !status.members.is_empty());
    matches!(tokio::time::timeout(OWN_DATA, found).await, Ok(Ok(_)))
}

async fn ask(dialer: &Arc<dyn Dialer>, peer: &str) -> Result<v1::CoordinatorStatus, String> {
    let mut client = ClusterServiceClient::new(dialer.channel(peer));
    match tokio::time::timeout(ANSWER_WITHIN, client.get_status(v1::GetStatusRequest::default())).await {
        Err(_) => Err("no answer in time".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Ok(Ok(response)) => {
            response.into_inner().status.ok_or_else(|| "it says nothing of itself".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::CoordinatorConfig;
    use crate::{Coordinator, ServeError};

    fn config(node_id: u64, bootstrap: bool, peers: &[SocketAddr]) -> CoordinatorConfig {
        CoordinatorConfig {
            node_id,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bootstrap,
            peers: peers.iter().map(ToString::to_string).collect(),
            ..CoordinatorConfig::default()
        }
    }

    fn address(coordinator: &Coordinator) -> SocketAddr {
        coordinator.addresses().client.expect("bound")
    }

    #[tokio::test]
    async fn a_wiped_member_does_not_begin_a_second_cluster() {
        let second = Coordinator::serve(config(2, false, &[])).await.expect("serves");
        let peers = [address(&second)];
        let first = Coordinator::serve(config(1, true, &peers)).await.expect("the others are in none");
        assert_eq!(first.core().group().metrics().members.len(), 1);

        // Node 3 was never there, or lost all that it had: asked for a new cluster, it finds the first one.
        let peers = [address(&second), address(&first)];
        let refused = Coordinator::serve(config(3, true, &peers)).await.err().expect("there is one");
        let ServeError::Bootstrap(error) = &refused else { panic!("{refused}") };
        let said = error.to_string();
        let named = ["1 at 127.0.0.1", "plimsoll cluster replace 3", "without --bootstrap"];
        assert!(named.iter().all(|name| said.contains(name)), "{said}");
        for coordinator in [first, second] {
            coordinator.shutdown().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_a_peer_is_silent_nothing_is_begun() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let refused = Coordinator::serve(config(1, true, &[free])).await.err().expect("nobody answers");
        assert!(matches!(refused, ServeError::Bootstrap(BootstrapError::Silent { .. })), "{refused}");
    }
}
