//! Validators at the edge: what they refuse is in no log, and an answer once given is given again.

use plimsoll_proto::v1;
use plimsoll_proto::v1::ErrorReason;
use plimsoll_proto::v1::policy_object::Object;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;

use super::harness::*;

fn validator(expressions: &[&str]) -> v1::PolicyObject {
    let rule = |expression: &&str| v1::ValidatorRule {
        expression: (*expression).to_owned(),
        message: format!("not {expression}"),
        path: "spec.resources.cpu".to_owned(),
    };
    let object = v1::Validator {
        name: "small".to_owned(),
        subject: "Reservation".to_owned(),
        rules: expressions.iter().map(rule).collect(),
        ..Default::default()
    };
    v1::PolicyObject { object: Some(Object::Validator(object)) }
}

async fn apply(served: &Served, expressions: &[&str]) -> Result<u64, tonic::Status> {
    let mut client = PolicyServiceClient::new(served.channel.clone());
    let request = v1::ApplyPolicyRequest { objects: vec![validator(expressions)], ..Default::default() };
    client.apply_policy(request).await.map(|applied| applied.into_inner().revision)
}

#[tokio::test]
async fn what_a_rule_refuses_is_in_no_log_and_an_answer_once_given_is_given_again() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let asked =
        v1::CreateReservationRequest { request_id: "a-request-asked-once".to_owned(), ..create(cpu(1_000)) };
    let granted =
        served.reservations().create_reservation(asked.clone()).await.expect("granted").into_inner();
    let applied = apply(&served, &["request.cpu < 1", "request.members > 1"]).await.expect("applied");

    let again = served.reservations().create_reservation(asked).await.expect("the same").into_inner();
    assert_eq!(again.revision, granted.revision);
    // A repeat is an entry of the log too.
    let before = served.coordinator.core().status().revision;
    assert_eq!(before.0, applied + 1);
    let refused = served.reservations().create_reservation(create(cpu(1_000))).await.expect_err("refused");
    let said = details(&refused);
    assert_eq!(
        (refused.code(), said.reason),
        (tonic::Code::FailedPrecondition, ErrorReason::ValidationFailed)
    );
    let line = |which: &str| ("spec.resources.cpu".to_owned(), format!("not {which} (validator small)"));
    assert_eq!(said.violations, [line("request.cpu < 1"), line("request.members > 1")]);
    let batch = v1::BatchCreateReservationsRequest { requests: vec![create(cpu(1_000)), create(cpu(100))] };
    let batch = served.reservations().batch_create_reservations(batch).await.expect("answered").into_inner();
    let failed = |result: &v1::BatchCreateReservationsResult| match &result.result {
        Some(v1::batch_create_reservations_result::Result::Failure(failure)) => {
            failure.field_violations.len()
        }
        _ => 0,
    };
    assert_eq!(batch.results.iter().map(failed).collect::<Vec<_>>(), [2, 1]);
    let revision = served.coordinator.core().status().revision;
    assert_eq!(revision, before, "nothing was proposed since");
    served.stop().await;
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_is_not_stored() {
    let served = single().await;
    let refused = apply(&served, &["request.cpu < 1", "request.colour == 1", "request.memory < 1gi"]).await;
    let said = details(&refused.expect_err("two are wrong"));
    assert_eq!(said.reason, ErrorReason::InvalidPolicy);
    let fields: Vec<&str> = said.violations.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        ["objects[0].validator.rules[1].expression", "objects[0].validator.rules[2].expression"]
    );
    assert!(said.violations[1].1.contains("1:18: `1gi` is not a quantity; did you mean `1Gi`?"), "{said:?}");
    served.stop().await;
}
