//! The openb trace through three processes: 8,152 tasks on 1,213 nodes, the leader killed half-way.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use plimsoll_agent::SimulatedNode;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::inventory::Inventory;
use plimsoll_client::{Client, Error, v1};
use plimsoll_tests::{Cluster, trace};

use crate::failover::live;
use crate::fleet;

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).expect("the trace opens");
    reader.deserialize().collect::<Result<_, _>>().expect("the trace is CSV")
}

fn number(row: &BTreeMap<String, String>, column: &str) -> u64 {
    row[column].parse().expect("a number")
}

fn nodes(path: &Path) -> Vec<SimulatedNode> {
    let node = |row: &BTreeMap<String, String>| {
        let gpus = u32::try_from(number(row, "gpu")).expect("a few");
        let gpus = FakeGpus::of(&row["model"].to_ascii_lowercase(), 16 << 30, gpus);
        let memory = number(row, "memory_mib") << 20;
        let inventory = Inventory::simulated(&row["sn"], number(row, "cpu_milli"), memory, &gpus);
        SimulatedNode {
            name: row["sn"].clone(),
            pool: String::new(),
            inventory,
            extra: plimsoll_types::Resources::default(),
        }
    };
    rows(path).iter().map(node).collect()
}

fn request(row: &BTreeMap<String, String>) -> v1::CreateReservationRequest {
    let count = u32::try_from(number(row, "num_gpu")).expect("a few");
    let milli = u32::try_from(number(row, "gpu_milli")).expect("at most 1000");
    let gpu = (count > 0).then(|| v1::GpuAsk {
        count,
        milli: if count == 1 { milli } else { 1_000 },
        ..Default::default()
    });
    let amounts = v1::Quantities {
        cpu_millis: number(row, "cpu_milli"),
        memory_bytes: number(row, "memory_mib") << 20,
        ..Default::default()
    };
    let requirements = v1::Requirements { amounts: Some(amounts), gpu, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: row["name"].clone(),
        requirements: Some(requirements),
        ttl_ms: 86_400_000,
        auto_confirm: true,
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

/// Id and token where it was granted, `None` where it was refused for good.
async fn submit(client: Client, request: v1::CreateReservationRequest) -> Option<(String, u64)> {
    match client.create_reservation(request).await {
        Ok(response) => response.reservation.map(|r| (r.id, r.token)),
        Err(Error::Refused(_)) => None,
        Err(error) => panic!("neither granted nor refused: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openb_trace_loses_no_grant_when_the_leader_is_killed_half_way() {
    let dir = tempfile::tempdir().expect("a directory");
    let (Some(fleet_file), Some(work_file)) =
        (trace("openb_nodes", dir.path()), trace("openb_pods_default", dir.path()))
    else {
        return;
    };
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), nodes(&fleet_file)).await;
    let client = cluster.client().await;
    let work = rows(&work_file);
    assert_eq!(work.len(), 8_152);
    let (first, second) = work.split_at(work.len() / 2);
    let run = |rows: &[BTreeMap<String, String>]| {
        let client = client.clone();
        let requests: Vec<_> = rows.iter().map(request).collect();
        tokio::spawn(async move {
            let calls = stream::iter(requests).map(|request| submit(client.clone(), request));
            calls.buffer_unordered(64).filter_map(|granted| async { granted }).collect::<Vec<_>>().await
        })
    };
    let mut granted = run(first).await.expect("no panic");
    let rest = run(second);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    granted.extend(rest.await.expect("no panic"));
    cluster.member_mut(leader).restart();

    let acknowledged: BTreeMap<String, u64> = granted.iter().cloned().collect();
    assert_eq!(acknowledged.len(), granted.len(), "no two calls were answered with one reservation");
    let held = live(&client).await;
    for (id, token) in &acknowledged {
        assert_eq!(held.get(id).map(|r| r.token), Some(*token), "{id} was acknowledged");
    }
    assert_eq!(held.len(), acknowledged.len(), "none was granted twice");
    let mut used: BTreeMap<&str, u32> = BTreeMap::new();
    for device in held.values().flat_map(|r| &r.allocations).flat_map(|a| &a.devices) {
        *used.entry(&device.uuid).or_default() += device.milli;
    }
    assert!(used.values().all(|milli| *milli <= 1_000), "a device is oversold");
    println!("{} of {} granted, {} devices in use", granted.len(), work.len(), used.len());
    assert!(granted.len() > 7_000, "only {} of {} granted", granted.len(), work.len());
    cluster.assert_digests_equal().await;
}
