//! The leader dies under load; all die; a follower accepts every call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_client::{Client, v1};
use plimsoll_tests::Cluster;

use crate::fleet;

pub(crate) fn one_core(name: String) -> v1::CreateReservationRequest {
    let amounts = v1::Quantities { cpu_millis: 100, memory_bytes: 1 << 20, ..Default::default() };
    let requirements = v1::Requirements { amounts: Some(amounts), ..Default::default() };
    let spec = v1::ReservationSpec {
        name,
        requirements: Some(requirements),
        ttl_ms: 3_600_000,
        auto_confirm: true,
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

/// All reservations that have not ended, by id.
pub(crate) async fn live(client: &Client) -> BTreeMap<String, v1::Reservation> {
    let mut all = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListReservationsRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.list_reservations(request).await.expect("a list");
        all.extend(page.reservations.into_iter().map(|r| (r.id.clone(), r)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_grant_is_lost_when_the_leader_is_killed_under_load() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(20)).await;
    let client = cluster.client().await;
    let mut calls = Vec::new();
    for lane in 0..16 {
        let client = client.clone();
        calls.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for index in 0..60 {
                let response = client.create_reservation(one_core(format!("load-{lane}-{index}"))).await;
                let reservation =
                    response.expect("retried until it is done").reservation.expect("a reservation");
                acknowledged.push((reservation.id, reservation.token));
            }
            acknowledged
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    let mut acknowledged = BTreeMap::new();
    for call in calls {
        acknowledged.extend(call.await.expect("no panic"));
    }
    assert_eq!(acknowledged.len(), 16 * 60, "each call made one reservation of its own");
    cluster.member_mut(leader).restart();
    let held = live(&client).await;
    for (id, token) in &acknowledged {
        assert_eq!(held.get(id).map(|r| r.token), Some(*token), "{id} was acknowledged");
    }
    assert_eq!(held.len(), acknowledged.len(), "none was granted twice");
    cluster.assert_digests_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_three_were_killed() {
    let mut cluster = Cluster::start(3).await;
    let nodes = fleet::register(&cluster.addresses(), fleet::small(4)).await;
    let client = cluster.client().await;
    let mut ids = BTreeSet::new();
    for index in 0..50 {
        let response = client.create_reservation(one_core(format!("r-{index}"))).await.expect("granted");
        ids.insert(response.reservation.expect("a reservation").id);
    }
    for id in 1..=3 {
        cluster.member_mut(id).kill();
    }
    for id in 1..=3 {
        cluster.member_mut(id).restart();
    }
    cluster.leader().await;
    let held: BTreeSet<String> = live(&cluster.client().await).await.into_keys().collect();
    assert_eq!(held, ids);
    client.create_reservation(one_core("after".into())).await.expect("it serves again");
    cluster.assert_digests_equal().await;
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_coordinator_accepts_any_call_and_a_repeat_gets_the_same_answer() {
    let cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(2)).await;
    let mut answers = Vec::new();
    for member in &cluster.members {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", member.address)).expect("address");
        let mut service =
            v1::reservation_service_client::ReservationServiceClient::new(endpoint.connect_lazy());
        let request = v1::CreateReservationRequest {
            request_id: "0123456789abcdef0123".into(),
            ..one_core("same".into())
        };
        answers.push(service.create_reservation(request).await.expect("granted").into_inner());
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
    assert_eq!(live(&cluster.client().await).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over_first() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(2)).await;
    let client = cluster.client().await;
    client.create_reservation(one_core("before".into())).await.expect("granted");
    let leader = cluster.leader().await;
    assert_eq!(cluster.member_mut(leader).terminate(), Some(0), "{}", cluster.member(leader).log());
    client.create_reservation(one_core("after".into())).await.expect("somebody else leads");
    cluster.member_mut(leader).restart();
    cluster.assert_digests_equal().await;
}
