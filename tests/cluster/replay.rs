//! `plimsoll replay` on three processes, the leader killed half-way: what its document says is what the cluster holds.

use std::collections::BTreeMap;

use plimsoll_tests::{Cluster, plimsoll, trace};
use serde_json::Value;

use crate::failover::live;

const ROWS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_the_loss_of_the_leader_and_tells_the_truth() {
    let dir = tempfile::tempdir().expect("a directory");
    let (Some(nodes), Some(work)) =
        (trace("openb_nodes", dir.path()), trace("openb_pods_default", dir.path()))
    else {
        return;
    };
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut command = tokio::process::Command::new(plimsoll());
    command.env("PLIMSOLL_HOME", dir.path().join("home")).args(["--addr", &cluster.addresses().join(",")]);
    command.args(["replay", "--no-departures", "--keep", "--seed", "7", "--limit", &ROWS.to_string()]);
    command.arg("--nodes").arg(&nodes).arg("--workload").arg(&work);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = command.spawn().expect("the command starts");
    let client = cluster.client().await;
    // Half-way is when the cluster holds grants.
    while live(&client).await.len() < ROWS / 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.member_mut(leader).kill();
    let ended = running.wait_with_output().await.expect("it ends");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    cluster.member_mut(leader).restart();

    let document: Value = serde_json::from_slice(&ended.stdout).expect("one JSON document");
    let requests = document["requests"].as_array().expect("a list");
    assert_eq!(requests.len(), ROWS);
    let granted: BTreeMap<&str, &Value> = requests
        .iter()
        .filter(|request| request["outcome"] == "granted")
        .map(|request| (request["name"].as_str().expect("a name"), request))
        .collect();
    let held = live(&client).await;
    assert_eq!(held.len(), granted.len(), "what is held is what was said to be granted, and nothing twice");
    for reservation in held.values() {
        let name = reservation.spec.as_ref().map_or("", |spec| spec.name.as_str());
        let row =
            granted.get(name).unwrap_or_else(|| panic!("{name} is held and was not said to be granted"));
        assert_eq!(row["node"], Value::from(reservation.allocations[0].node.as_str()), "{name}");
    }
    assert_eq!(document["summary"]["granted"], Value::from(granted.len()));
    assert!(granted.len() > ROWS / 2, "only {} granted", granted.len());
    cluster.assert_digests_equal().await;
}
