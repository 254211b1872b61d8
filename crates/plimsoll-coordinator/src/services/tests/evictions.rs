//! Eviction thresholds, from what an agent measures to who has to leave.

use std::time::{Duration, Instant};

use plimsoll_proto::v1;
use plimsoll_proto::v1::connect_request::Message as Up;
use plimsoll_proto::v1::connect_response::Message as Down;
use plimsoll_proto::v1::explain_reservation_request::Subject;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_proto::v1::{ErrorReason, PreemptionRule, Qos, ReservationState};

use super::harness::*;

/// A heartbeat with so much of the node's memory in use, in thousandths; what the coordinator tells the agent until it answers that.
async fn beat(agent: &mut Agent, used_permille: u64) -> Vec<Down> {
    let total = 8 << 30;
    let used = total / 1_000 * used_permille;
    let sample = v1::NodeSample {
        memory_used_bytes: Some(used),
        memory_available_bytes: Some(total - used),
        ..Default::default()
    };
    let (node, epoch) = (agent.node.node.clone(), agent.node.epoch);
    let nodes = vec![v1::NodeHeartbeat { node, epoch, sample: Some(sample), ..Default::default() }];
    let message = Some(Up::Heartbeat(v1::Heartbeat { nodes }));
    agent.up.send(v1::ConnectRequest { sequence: 9, message }).await.expect("open");
    let mut told = Vec::new();
    loop {
        match agent.next().await {
            Down::HeartbeatSeen(_) => return told,
            other => told.push(other),
        }
    }
}

fn batch(qos: Qos) -> v1::ReservationSpec {
    let wait = Some(v1::WaitPolicy { queue: true, ..Default::default() });
    v1::ReservationSpec { class: "batch".to_owned(), qos: qos.into(), auto_confirm: true, wait, ..cpu(500) }
}

async fn explain(served: &Served, subject: Subject) -> v1::Explanation {
    let request = v1::ExplainReservationRequest { subject: Some(subject), ..Default::default() };
    let answer = served.reservations().explain_reservation(request).await.expect("explained").into_inner();
    answer.explanation.expect("an explanation")
}

#[tokio::test]
async fn best_effort_leaves_a_node_that_measures_too_full_and_what_is_backed_stays() {
    let served = single().await;
    let mut agent = served.agent("node-01").await;
    let class = v1::Class {
        name: "batch".to_owned(),
        priority: 10,
        grace_ms: 60_000,
        evict_when: "memory > 90% for 1s".to_owned(),
        ..Default::default()
    };
    let object = v1::PolicyObject { object: Some(v1::policy_object::Object::Class(class)) };
    let apply = v1::ApplyPolicyRequest { objects: vec![object], ..Default::default() };
    PolicyServiceClient::new(served.channel.clone()).apply_policy(apply).await.expect("applied");
    let mut granted = Vec::new();
    for qos in [Qos::BestEffort, Qos::Guaranteed, Qos::Burstable, Qos::Unspecified] {
        let created = served.reservations().create_reservation(create(batch(qos))).await.expect("granted");
        granted.push(created.into_inner().reservation.expect("shown").id);
    }
    let get = async |id: &String| {
        let request = v1::GetReservationRequest { name: id.clone(), ..Default::default() };
        let answer = served.reservations().get_reservation(request).await.expect("there").into_inner();
        answer.reservation.expect("shown")
    };

    // Nobody leaves below the threshold, and nobody at the first sample above it.
    for used_permille in [899, 899, 950] {
        beat(&mut agent, used_permille).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(get(&granted[0]).await.state(), ReservationState::Active);
    let begun = Instant::now();
    let mut told = Vec::new();
    while get(&granted[0]).await.state() == ReservationState::Active {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody has to leave");
        told.extend(beat(&mut agent, 950).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let leaving = get(&granted[0]).await;
    assert_eq!(leaving.state(), ReservationState::Preempting);
    let preempted = leaving.preempted.expect("it is told");
    assert_eq!((preempted.rule(), preempted.by.as_str()), (PreemptionRule::Threshold, ""));
    let evicted = preempted.evicted.expect("with the numbers");
    assert_eq!((evicted.node.as_str(), evicted.gauge.as_str()), ("node-01", "memory"));
    assert_eq!((evicted.measured_permille, evicted.above_permille), (949, 900));
    assert!(evicted.over_ms >= 1_000, "{} ms", evicted.over_ms);
    told.extend(beat(&mut agent, 950).await);
    let notice = told.iter().any(|one| match one {
        Down::LeaseUpdated(updated) => {
            updated.lease.as_ref().is_some_and(|lease| lease.reservation == granted[0])
        }
        _ => false,
    });
    assert!(notice, "its agent hears of it: {told:?}");

    // The next one waits for a sample without him; and who is backed stays in any case.
    for _ in 0..5 {
        beat(&mut agent, 990).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for id in &granted[1..] {
        let holder = get(id).await;
        assert_eq!((holder.state(), &holder.preempted), (ReservationState::Active, &None));
    }

    // Best effort of the class is not put there, which is explained.
    let told = explain(&served, Subject::Spec(batch(Qos::BestEffort))).await;
    assert!(!told.admissible && told.placement.is_empty(), "{told:?}");
    let blocker = &told.blockers[0];
    assert_eq!(blocker.reason(), ErrorReason::NodeNotAvailable);
    assert!(blocker.subject.contains("memory at 98.9%, and class batch leaves above 90%"), "{blocker:?}");
    assert!(
        explain(&served, Subject::Spec(batch(Qos::Burstable))).await.admissible,
        "it may be backed there"
    );
    let waiting = served.reservations().create_reservation(create(batch(Qos::BestEffort))).await;
    let waiting = waiting.expect("it waits").into_inner().reservation.expect("shown");
    assert_eq!(waiting.state(), ReservationState::Pending);
    assert!(waiting.blockers[0].subject.contains("class batch leaves above 90%"), "{:?}", waiting.blockers);

    // It is put there once the node has room again.
    let begun = Instant::now();
    while get(&waiting.id).await.state() == ReservationState::Pending {
        assert!(begun.elapsed() < Duration::from_secs(20), "it waits on");
        beat(&mut agent, 500).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(get(&waiting.id).await.state(), ReservationState::Active);
    served.stop().await;
}
