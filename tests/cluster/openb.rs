//! `plimsoll replay` on three processes whose leader is killed half-way: first on a little work, then on the whole openb trace,
//! 8,152 tasks on 1,213 nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use plimsoll_tests::{Cluster, plimsoll, trace};
use serde_json::Value;

use crate::failover::live;

const FINISHES_IN: Duration = Duration::from_secs(300);

/// Replays `work` with `--keep`, kills the leader on the way, and compares the document with the ledger.
/// How many were granted.
async fn replay_and_kill(nodes: &Path, work: &Path, rows: usize) -> usize {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let home = tempfile::tempdir().expect("a directory");
    let mut command = tokio::process::Command::new(plimsoll());
    command.env("PLIMSOLL_HOME", home.path()).args(["--addr", &cluster.addresses().join(",")]);
    command.arg("replay").arg("--nodes").arg(nodes).arg("--workload").arg(work);
    command.args(["--strategy", "best_fit", "--seed", "1", "--no-departures", "--keep"]);
    command.args(["--limit", &rows.to_string()]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the replay starts");
    let replay = tokio::spawn(tokio::time::timeout(FINISHES_IN, child.wait_with_output()));

    while !replay.is_finished() && live(&client).await.len() < rows / 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!replay.is_finished(), "it was over before the leader could be killed");
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    let out = replay.await.expect("no panic").expect("it ends in time").expect("it is a child of ours");
    cluster.member_mut(leader).restart();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");

    let document: Value = serde_json::from_slice(&out.stdout).expect("one JSON document");
    let requests = document["requests"].as_array().expect("a list");
    assert_eq!(requests.len(), rows);
    let granted: BTreeMap<&str, &Value> = requests
        .iter()
        .filter(|row| row["outcome"] == "granted")
        .map(|row| (row["name"].as_str().expect("a name"), row))
        .collect();
    assert_eq!(document["summary"]["granted"], granted.len(), "{said}");
    let pending = requests.iter().filter(|row| row["outcome"] == "pending").count();
    assert_eq!(pending, 0, "what was asked for was answered");

    let held = live(&client).await;
    assert_eq!(
        held.len(),
        granted.len(),
        "nothing is held that the document does not know, and nothing twice"
    );
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for reservation in held.values() {
        let name = reservation.spec.as_ref().map_or("", |spec| spec.name.as_str());
        assert!(names.insert(name), "{name} was granted twice");
        let row = granted.get(name).expect("every held one is in the document");
        let nodes: Vec<&str> = reservation.allocations.iter().map(|a| a.node.as_str()).collect();
        assert_eq!(row["node"].as_str(), Some(nodes.join(",").as_str()), "{name}");
        for device in reservation.allocations.iter().flat_map(|allocation| &allocation.devices) {
            *used.entry(&device.uuid).or_default() += device.milli;
        }
    }
    assert!(used.values().all(|milli| *milli <= 1_000), "a device is oversold");
    println!("{} of {rows} granted, {} devices in use", granted.len(), used.len());
    cluster.assert_digests_equal().await;
    granted.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_the_loss_of_the_leader() {
    let dir = tempfile::tempdir().expect("a directory");
    let (nodes, work) = (dir.path().join("nodes.csv"), dir.path().join("work.csv"));
    let mut fleet = "sn,cpu_milli,memory_mib,gpu,model\n".to_owned();
    for index in 0..40 {
        fleet += &format!("small-{index:03},32000,131072,8,A10\n");
    }
    let mut tasks = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n".to_owned();
    for index in 0..1_500 {
        let milli = [100, 250, 500, 1000][index % 4];
        tasks += &format!("task-{index:04},200,256,1,{milli}\n");
    }
    std::fs::write(&nodes, fleet).expect("a file");
    std::fs::write(&work, tasks).expect("a file");
    let granted = replay_and_kill(&nodes, &work, 1_500).await;
    assert!(granted > 500, "only {granted} granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openb_trace_loses_no_grant_when_the_leader_is_killed_half_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (Some(nodes), Some(work)) =
        (trace("openb_nodes", dir.path()), trace("openb_pods_default", dir.path()))
    else {
        return;
    };
    let granted = replay_and_kill(&nodes, &work, 8_152).await;
    assert!(granted > 7_000, "only {granted} granted");
}
