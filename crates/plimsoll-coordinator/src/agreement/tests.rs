//! Three coordinators, one of which goes another way.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_consensus::NodeInfo;
use plimsoll_ledger::{Command, Entry};

use super::*;
use crate::Coordinator;
use crate::config::CoordinatorConfig;
use crate::dialer::TcpDialer;

async fn start(node_id: u64, data_dir: &std::path::Path) -> Result<Coordinator, crate::ServeError> {
    let config = CoordinatorConfig {
        node_id,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        bootstrap: node_id == 1,
        data_dir: Some(data_dir.join(node_id.to_string())),
        ..CoordinatorConfig::default()
    };
    Coordinator::serve(config).await
}

async fn reached(coordinator: &Coordinator, revision: Revision) {
    let read = coordinator.core().read(crate::core::Consistency::Stale, revision).await;
    read.map(drop).expect("it follows");
}

/// Applies one more command everywhere, and returns its revision.
async fn step(cluster: &[Coordinator]) -> Revision {
    let answer = loop {
        match cluster[0].core().submit(Entry::system(Command::Expire { limit: 1 })).await {
            Ok(answer) => break answer,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    for coordinator in cluster {
        reached(coordinator, answer.revision).await;
    }
    answer.revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_that_differs_from_the_majority_stops_and_is_not_started_again() {
    let place = tempfile::tempdir().expect("a directory");
    let mut cluster = Vec::new();
    for id in 1..=3 {
        cluster.push(start(id, place.path()).await.expect("serves"));
    }
    step(&cluster[..1]).await;
    for member in &cluster[1..] {
        let address = member.addresses().peer.expect("bound").to_string();
        let info = NodeInfo { address, incarnation: member.core().config().incarnation.clone() };
        cluster[0].core().group().add_voter(member.core().node_id(), info).await.expect("added");
    }
    let dialer: Arc<dyn Dialer> = Arc::new(TcpDialer::default());
    let compare = async |at: usize, revision| {
        let (agreement, core) = (Agreement::default(), cluster[at].core());
        agreement.compare_chains(core, &peers::others(core, &dialer), revision).await;
        agreement.compare_states(core, &peers::others(core, &dialer)).await;
        agreement
    };
    let before = step(&cluster).await;
    for at in 0..3 {
        let found = compare(at, before).await;
        assert_eq!((found.agreed(), found.differing()), (before.0, 0));
    }

    cluster[2].core().break_chain();
    let broken = step(&cluster).await;
    let after = step(&cluster).await;
    let found = compare(0, after).await;
    assert_eq!(found.differing(), 1, "one of the three has something else");
    assert_eq!(cluster[0].core().fault(), None, "and it is not this one");
    compare(2, after).await;
    let why = cluster[2].core().fault().expect("it stopped").to_owned();
    let named = ["coordinators 1, 2, a majority", "cluster replace 3", &format!("difference is at {broken}")];
    assert!(named.iter().all(|name| why.contains(name)), "{why}");
    cluster[2].core().ended().await;

    // Its directory says why, and is refused.
    cluster.pop().expect("the third").shutdown().await;
    let refused = start(3, place.path()).await.err().expect("marked");
    let chain = format!("{:?}", causes(&refused));
    assert!(chain.contains("a majority"), "{chain}");
    for coordinator in cluster {
        coordinator.shutdown().await;
    }
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect()
}
