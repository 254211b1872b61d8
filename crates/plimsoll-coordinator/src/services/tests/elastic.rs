//! What is said of pools whose nodes come and go: who lent what, why nothing moves, and how fragmented they are.

use std::sync::Arc;

use plimsoll_proto::v1;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_proto::v1::scaling_service_client::ScalingServiceClient;
use plimsoll_proto::v1::{Elasticity, ErrorReason};
use plimsoll_provider::RealProviders;

use super::harness::*;

fn pool(name: &str, elasticity: Elasticity, fragmentation_permille: u32) -> v1::PolicyObject {
    let idle_timeout_ms = if elasticity == Elasticity::Elastic { 1_000 } else { 0 };
    let elasticity = elasticity.into();
    let pool = v1::Pool { elasticity, idle_timeout_ms, fragmentation_permille, ..Default::default() };
    let pool = v1::Pool { name: name.to_owned(), ..pool };
    v1::PolicyObject { object: Some(v1::policy_object::Object::Pool(pool)) }
}

fn of_pool(spec: v1::ReservationSpec, pool: &str) -> v1::CreateReservationRequest {
    let wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    create(v1::ReservationSpec { pool: pool.to_owned(), wait, ..spec })
}

#[tokio::test]
async fn a_node_is_lent_and_everybody_is_told() {
    let served = single().await;
    served.coordinator.scale_with(Arc::new(RealProviders::default()), "test");
    let mut policies = PolicyServiceClient::new(served.channel.clone());
    let mut scaling = ScalingServiceClient::new(served.channel.clone());
    let _agents = [served.agent("n1").await, served.agent("n2").await];
    let objects = vec![
        pool("default", Elasticity::Elastic, 0),
        pool("other", Elasticity::Elastic, 0),
        pool("fixed", Elasticity::Static, 0),
    ];
    let apply = v1::ApplyPolicyRequest { objects, ..Default::default() };
    policies.apply_policy(apply).await.expect("applied");
    assert_eq!(served.metric("plimsoll_nodes_lent{pool=\"default\"}"), Some(0.0));
    let explain = |name: &str| v1::ExplainScalingRequest { name: name.to_owned() };
    let fixed = scaling.explain_scaling(explain("pool/fixed")).await.expect("known").into_inner();
    assert!(fixed.scaling_policy.is_none() && !fixed.elastic.expect("it says so").moves);

    // Nothing in the pool can ever hold it, and a node of the other may.
    served.reservations().create_reservation(of_pool(cpu(4_000), "other")).await.expect("it waits");
    until("a node is lent", || served.metric("plimsoll_nodes_lent{pool=\"default\"}") == Some(1.0)).await;
    let elastic = scaling.explain_scaling(explain("pool/other")).await.expect("known").into_inner().elastic;
    let elastic = elastic.expect("it is elastic");
    assert_eq!((elastic.nodes, elastic.borrowed.len(), elastic.growth_left), (1, 1, 0), "{elastic:?}");
    let listed =
        served.nodes().list_nodes(v1::ListNodesRequest::default()).await.expect("listed").into_inner();
    let lent: Vec<_> = listed.nodes.iter().filter(|node| node.home_pool == "default").collect();
    assert_eq!((lent.len(), lent[0].pool.as_str(), lent[0].came_from_pool.as_str()), (1, "other", "default"));

    // The other node is not free to go.
    let taken = of_pool(cpu(1_000), "default");
    served.reservations().create_reservation(taken).await.expect("placed");
    served.reservations().create_reservation(of_pool(cpu(4_000), "other")).await.expect("it waits");
    let mut said = Vec::new();
    for _ in 0..600 {
        let elastic = scaling.explain_scaling(explain("pool/default")).await.expect("known").into_inner();
        said = elastic.elastic.expect("it is elastic").latest_look;
        if said.iter().any(|line| line.ends_with("stays: it has work")) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(said.iter().any(|line| line.ends_with("stays: it has work")), "{said:?}");
    let nobody = scaling.explain_scaling(explain("pool/nobody")).await.expect_err("it is not there");
    assert_eq!(details(&nobody).reason, ErrorReason::NotFound);
    served.stop().await;
}

#[tokio::test]
async fn fragmentation_is_shown_against_the_pools_threshold() {
    let served = single().await;
    let mut policies = PolicyServiceClient::new(served.channel.clone());
    let _agent = served.agent("n1").await;
    let apply = v1::ApplyPolicyRequest {
        objects: vec![pool("default", Elasticity::Unspecified, 500)],
        ..Default::default()
    };
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
