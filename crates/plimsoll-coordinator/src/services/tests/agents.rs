//! Agents and nodes.

use plimsoll_proto::v1;
use plimsoll_proto::v1::connect_request::Message as Up;
use plimsoll_proto::v1::connect_response::Message as Down;
use plimsoll_proto::v1::{EndReason, ErrorReason, NodeState};

use super::harness::*;

#[tokio::test]
async fn an_agent_hears_of_leases_as_they_begin_change_and_end() {
    let served = single().await;
    let mut agent = served.agent("node-01").await;
    assert!(agent.node.epoch > 0 && agent.node.leases.is_empty());
    let mut client = served.reservations();
    let gpu = Some(v1::GpuAsk { count: 1, ..Default::default() });
    let requirements = Some(v1::Requirements { gpu, ..cpu(500).requirements.expect("some") });
    let spec = v1::ReservationSpec { requirements, ttl_ms: 60_000, hold_ms: 30_000, ..Default::default() };
    let created = client.create_reservation(create(spec)).await.expect("granted").into_inner();
    let held = created.reservation.expect("shown");

    let Down::LeaseGranted(granted) = agent.next().await else { panic!("a grant first") };
    let lease = granted.lease.expect("a lease");
    assert_eq!((lease.node.as_str(), &lease.reservation, lease.token), ("node-01", &held.id, held.token));
    assert_eq!(lease.allocations[0].devices[0].uuid, "GPU-node-01-0");
    assert!(
        lease.remaining_ms > 20_000 && lease.remaining_ms <= 30_000,
        "the hold runs: {}",
        lease.remaining_ms
    );
    let confirm =
        v1::ConfirmReservationRequest { name: held.id.clone(), token: held.token, ..Default::default() };
    client.confirm_reservation(confirm).await.expect("confirmed");
    let Down::LeaseUpdated(updated) = agent.next().await else { panic!("then a change") };
    assert!(updated.lease.expect("a lease").remaining_ms > 50_000);
    let release =
        v1::ReleaseReservationRequest { name: held.id.clone(), token: held.token, ..Default::default() };
    client.release_reservation(release).await.expect("released");
    let Down::LeaseStopped(stopped) = agent.next().await else { panic!("then the end") };
    assert_eq!((stopped.reservation.as_str(), stopped.reason()), (held.id.as_str(), EndReason::Released));
    served.stop().await;
}

#[tokio::test]
async fn heartbeats_are_seen_and_unknown_nodes_are_told_to_register() {
    let served = single().await;
    let mut agent = served.agent("node-01").await;
    let beat = |node: &str, epoch| v1::NodeHeartbeat {
        node: node.to_owned(),
        epoch,
        sample: None,
        ..Default::default()
    };
    let nodes = vec![beat("node-01", agent.node.epoch), beat("node-02", 1), beat("node-01", 1)];
    let message = Some(Up::Heartbeat(v1::Heartbeat { nodes }));
    agent.up.send(v1::ConnectRequest { sequence: 9, message }).await.expect("open");
    let Down::HeartbeatSeen(seen) = agent.next().await else { panic!("an answer") };
    assert_eq!(seen.refused, ["node-02", "node-01"]);
    assert!(seen.clock_ms > 0);

    let running = vec![v1::RunningLease { reservation: "r-zzzz".to_owned(), token: 3 }];
    let report = v1::LeaseReport { node: "node-01".to_owned(), epoch: agent.node.epoch, running };
    let message = Some(Up::LeaseReport(report));
    agent.up.send(v1::ConnectRequest { sequence: 10, message }).await.expect("open");
    let Down::LeaseStopped(stopped) = agent.next().await else { panic!("it should not run") };
    assert_eq!((stopped.reservation.as_str(), stopped.token), ("r-zzzz", 3));
    served.stop().await;
}

#[tokio::test]
async fn the_newest_sample_of_a_node_is_kept_and_any_coordinator_shows_it() {
    let all = three().await;
    let mut agent = all[0].agent("node-01").await;
    let names = vec!["nodes/node-01".to_owned(), "nobody".to_owned()];
    let request = v1::GetNodeSamplesRequest { names };
    let none = all[0].nodes().get_node_samples(request.clone()).await.expect("answered").into_inner();
    assert_eq!(none.nodes, [], "nothing is known yet, which is not zero");

    let device = |uuid: &str| v1::DeviceSample {
        uuid: uuid.to_owned(),
        utilization_permille: Some(500),
        ..Default::default()
    };
    let sample = |cpu_permille, devices: &[&str]| v1::NodeSample {
        age_ms: 20,
        cpu_permille,
        devices: devices.iter().map(|uuid| device(uuid)).collect(),
        ..Default::default()
    };
    let beats = [
        (agent.node.epoch, Some(sample(Some(100), &[]))),
        (agent.node.epoch, Some(sample(Some(900), &["GPU-node-01-0", "GPU-somewhere"]))),
        (agent.node.epoch, None),
        (agent.node.epoch + 1, Some(sample(Some(1), &[]))),
    ];
    for (epoch, sample) in beats {
        let nodes =
            vec![v1::NodeHeartbeat { node: "node-01".to_owned(), epoch, sample, ..Default::default() }];
        let message = Some(Up::Heartbeat(v1::Heartbeat { nodes }));
        agent.up.send(v1::ConnectRequest { sequence: 9, message }).await.expect("open");
        let Down::HeartbeatSeen(_) = agent.next().await else { panic!("an answer") };
    }
    for served in &all {
        let answer = served.nodes().get_node_samples(request.clone()).await.expect("answered").into_inner();
        let [measured] = answer.nodes.try_into().expect("one is known");
        let found = measured.sample.clone().expect("readings");
        assert_eq!(
            (measured.node.as_str(), found.cpu_permille),
            ("node-01", Some(900)),
            "not of another epoch"
        );
        assert_eq!((found.memory_used_bytes, measured.stale), (None, false));
        assert_eq!(found.devices, [device("GPU-node-01-0")], "only of what is registered");
        assert!(found.age_ms >= 20 && found.age_ms < 10_000, "{}", found.age_ms);
    }
    assert_eq!(all[0].metric("plimsoll_node_measured_cpu_ratio{node=\"node-01\"}"), Some(0.9));
    assert_eq!(all[1].metric("plimsoll_node_measured_cpu_ratio{node=\"node-01\"}"), None);
    let none = v1::GetNodeSamplesRequest::default();
    let refused = all[0].nodes().get_node_samples(none).await.expect_err("names nobody");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    for served in all {
        served.stop().await;
    }
}

#[tokio::test]
async fn a_registration_that_makes_no_sense_is_refused_alone() {
    let served = single().await;
    let agent = served.agent("node-01").await;
    let nodes = vec![registration("node-02"), registration("Not A Name")];
    let message = Some(Up::Register(v1::RegisterNodes { nodes }));
    agent.up.send(v1::ConnectRequest { sequence: 2, message }).await.expect("open");
    let mut agent = agent;
    let Down::Registered(registered) = agent.next().await else { panic!("an answer") };
    assert_eq!(registered.nodes[0].failure, None);
    let failure = registered.nodes[1].failure.clone().expect("refused");
    assert_eq!(failure.reason(), ErrorReason::InvalidArgument);
    served.stop().await;
}

#[tokio::test]
async fn operators_cordon_drain_and_mark_devices() {
    let served = single().await;
    let mut agent = served.agent("node-01").await;
    let mut nodes = served.nodes();
    let cordon =
        v1::CordonNodeRequest { name: "node-01".to_owned(), reason: "disk".to_owned(), ..Default::default() };
    let cordoned = nodes.cordon_node(cordon).await.expect("cordoned").into_inner().node.expect("shown");
    assert_eq!((cordoned.state(), cordoned.reason.as_str()), (NodeState::Cordoned, "disk"));
    let Down::NodeUpdated(updated) = agent.next().await else { panic!("the agent hears of it") };
    assert_eq!(updated.state(), NodeState::Cordoned);
    let refused =
        served.reservations().create_reservation(create(cpu(1))).await.expect_err("no node is free");
    assert_eq!(details(&refused).reason, ErrorReason::NoCapacity);
    let uncordon = v1::UncordonNodeRequest { name: "nodes/node-01".to_owned(), ..Default::default() };
    let free = nodes.uncordon_node(uncordon).await.expect("uncordoned").into_inner().node.expect("shown");
    assert_eq!(free.state(), NodeState::Available);

    let uuid = "GPU-node-01-1".to_owned();
    let failed =
        v1::SetDeviceHealthRequest { name: "node-01".to_owned(), uuid, failed: true, ..Default::default() };
    let node = nodes.set_device_health(failed).await.expect("marked").into_inner().node.expect("shown");
    assert!(node.devices[1].failed && !node.devices[0].failed);
    let unknown =
        v1::SetDeviceHealthRequest { name: "node-01".to_owned(), uuid: "GPU-x".into(), ..Default::default() };
    assert_eq!(
        nodes.set_device_health(unknown).await.expect_err("no such device").code(),
        tonic::Code::NotFound
    );

    let states = vec![NodeState::Available.into()];
    let list = v1::ListNodesRequest { states, name_prefix: "node-".to_owned(), ..Default::default() };
    let list = nodes.list_nodes(list).await.expect("a list").into_inner();
    assert_eq!(list.nodes.len(), 1);
    served.stop().await;
}
