//! What is said of pools: how fragmented they are.

use plimsoll_proto::v1;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;

use super::harness::*;

fn pool(name: &str, fragmentation_permille: u32) -> v1::PolicyObject {
    let pool = v1::Pool { name: name.to_owned(), fragmentation_permille, ..Default::default() };
    v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(pool)) }
}

fn of_pool(spec: v1::ReservationSpec, pool: &str) -> v1::CreateReservationRequest {
    let wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    create(v1::ReservationSpec { pool: pool.to_owned(), wait, ..spec })
}

#[tokio::test]
async fn fragmentation_is_shown_against_the_pools_threshold() {
    let served = single().await;
    let mut policies = PolicyServiceClient::new(served.channel.clone());
    let _agent = served.agent("n1").await;
    let apply = v1::ApplyPolicyRequest { objects: vec![pool("default", 500)], ..Default::default() };
    policies.apply_policy(apply).await.expect("applied");
    let line =
        "plimsoll_fragmentation_over_threshold{pool=\"default\",model=\"a100\",memory=\"85899345920\"}";
    assert_eq!(served.metric(line), Some(0.0));
    let gpus = |count, milli| {
        let gpu = Some(v1::GpuAsk { count, milli, ..Default::default() });
        let requirements = Some(v1::Requirements { gpu, ..Default::default() });
        of_pool(v1::ReservationSpec { requirements, ..Default::default() }, "default")
    };
    served.reservations().create_reservation(gpus(1, 500)).await.expect("placed");
    served.reservations().create_reservation(gpus(2, 0)).await.expect("it waits");
    assert_eq!(served.metric(line), Some(1.0), "half of what is free is of no use to those two");
    let listed = policies.list_pools(v1::ListPoolsRequest::default()).await.expect("listed").into_inner();
    let one = &listed.statuses[0].fragmentation[0];
    assert_eq!((one.free_milli, one.stranded_milli, one.over_threshold), (1_500, 750, true));
    let get = v1::GetPoolRequest { name: "default".to_owned(), ..Default::default() };
    let got = policies.get_pool(get).await.expect("there").into_inner();
    assert_eq!(got.status.expect("shown").fragmentation, listed.statuses[0].fragmentation);
    served.stop().await;
}
