//! Unary calls about reservations: the life of a grant, keys, refusals, look-ups.

use plimsoll_proto::v1;
use plimsoll_proto::v1::explain_reservation_request::Subject;
use plimsoll_proto::v1::{ErrorReason, ReservationState};

use super::harness::*;

#[tokio::test]
async fn a_grant_is_confirmed_renewed_resized_and_released() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let created = client.create_reservation(create(cpu(1_000))).await.expect("granted").into_inner();
    let held = created.reservation.expect("shown");
    assert_eq!((held.state(), held.token), (ReservationState::Held, created.revision));
    assert_eq!(held.allocations[0].node, "node-01");
    assert_eq!(held.name, format!("pools/default/reservations/{}", held.id));
    let (name, token) = (held.name.clone(), held.token);

    let confirm = v1::ConfirmReservationRequest { name: name.clone(), token, ..Default::default() };
    let confirmed = client.confirm_reservation(confirm).await.expect("confirmed").into_inner();
    assert_eq!(confirmed.reservation.expect("shown").state(), ReservationState::Active);
    let renew =
        v1::RenewReservationRequest { name: held.id.clone(), token, ttl_ms: 90_000, ..Default::default() };
    let renewed = client.renew_reservation(renew).await.expect("renewed").into_inner();
    let lease_end = renewed.reservation.expect("shown").lease_deadline_ms;
    assert_eq!(lease_end, renewed.log_time_ms + 90_000);
    let amounts = Some(v1::Quantities { cpu_millis: 2_000, ..Default::default() });
    let resize = v1::ResizeReservationRequest { name: name.clone(), token, amounts, ..Default::default() };
    let resized = client.resize_reservation(resize).await.expect("resized").into_inner();
    assert_eq!(resized.reservation.expect("shown").amounts.expect("amounts").cpu_millis, 2_000);

    let stale = v1::ReleaseReservationRequest { name: name.clone(), token: token - 1, ..Default::default() };
    let fenced = client.release_reservation(stale).await.expect_err("an old token");
    assert_eq!(details(&fenced).reason, ErrorReason::Fenced);
    let release = v1::ReleaseReservationRequest { name: name.clone(), token, ..Default::default() };
    let released = client.release_reservation(release).await.expect("released").into_inner();
    assert_eq!(released.reservation.expect("shown").state(), ReservationState::Released);
    served.stop().await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_another_one_under_its_key_a_conflict() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let request =
        v1::CreateReservationRequest { request_id: "0123456789abcdef".to_owned(), ..create(cpu(1_000)) };
    let first = client.create_reservation(request.clone()).await.expect("granted").into_inner();
    let second = client.create_reservation(request.clone()).await.expect("the same").into_inner();
    assert_eq!(first, second);
    let other = v1::CreateReservationRequest { spec: Some(cpu(2_000)), ..request };
    let conflict = client.create_reservation(other).await.expect_err("another request");
    assert_eq!(details(&conflict).reason, ErrorReason::KeyConflict);
    served.stop().await;
}

#[tokio::test]
async fn refusals_tell_everything_and_are_definite() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let mut spec = cpu(1_000);
    spec.pool = "No Pool".to_owned();
    spec.ttl_ms = 5;
    let request = v1::CreateReservationRequest { request_id: "0123456789abcdef".to_owned(), ..create(spec) };
    let invalid = client.create_reservation(request).await.expect_err("two fields are wrong");
    let fields: Vec<_> = details(&invalid).violations.into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["spec.pool", "spec.ttl_ms"]);
    assert_eq!(invalid.code(), tonic::Code::InvalidArgument);

    let infeasible = client.create_reservation(create(cpu(64_000))).await.expect_err("too large for ever");
    let told = details(&infeasible);
    assert_eq!((told.reason, told.definite), (ErrorReason::Infeasible, true));
    assert!(!told.blockers.is_empty());
    client.create_reservation(create(cpu(3_000))).await.expect("granted");
    let full = client.create_reservation(create(cpu(3_000))).await.expect_err("no room now");
    assert_eq!(details(&full).reason, ErrorReason::NoCapacity);
    assert_eq!(full.code(), tonic::Code::ResourceExhausted);

    let short = v1::CreateReservationRequest { request_id: "short".to_owned(), ..create(cpu(1)) };
    assert_eq!(
        client.create_reservation(short).await.expect_err("a short key").code(),
        tonic::Code::InvalidArgument
    );
    let unknown = v1::GetReservationRequest { name: "r-zzzz".to_owned(), ..Default::default() };
    assert_eq!(client.get_reservation(unknown).await.expect_err("nothing").code(), tonic::Code::NotFound);
    served.stop().await;
}

#[tokio::test]
async fn validate_only_decides_and_changes_nothing() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let before = served.coordinator.core().status().revision;
    let request = v1::CreateReservationRequest { validate_only: true, ..create(cpu(1_000)) };
    let would = client.create_reservation(request).await.expect("it would").into_inner();
    assert_eq!(would.reservation.expect("shown").state(), ReservationState::Held);
    let request = v1::CreateReservationRequest { validate_only: true, ..create(cpu(64_000)) };
    let would_not = client.create_reservation(request).await.expect_err("it would not");
    assert_eq!(details(&would_not).reason, ErrorReason::Infeasible);
    assert_eq!(served.coordinator.core().status().revision, before);
    served.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages_and_ids_by_their_beginning() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    let mut ids = Vec::new();
    for number in 0..5 {
        let spec = v1::ReservationSpec { tenant: format!("team-{}", number % 2), ..cpu(100) };
        let created = client.create_reservation(create(spec)).await.expect("granted").into_inner();
        ids.push(created.reservation.expect("shown").id);
    }
    let mut seen = Vec::new();
    let mut request =
        v1::ListReservationsRequest { page_size: 2, node: "node-01".to_owned(), ..Default::default() };
    loop {
        let page = client.list_reservations(request.clone()).await.expect("a page").into_inner();
        seen.extend(page.reservations.into_iter().map(|reservation| reservation.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, ids);
    let other = v1::ListReservationsRequest { tenant: "team-1".to_owned(), ..request };
    let changed = client.list_reservations(other.clone()).await.expect_err("other fields with a token");
    assert_eq!(changed.code(), tonic::Code::InvalidArgument);
    let newest = v1::SortOrder::Descending.into();
    let other = v1::ListReservationsRequest {
        page_token: String::new(),
        node: String::new(),
        order: newest,
        ..other
    };
    let page = client.list_reservations(other).await.expect("a page").into_inner();
    let found: Vec<_> = page.reservations.iter().map(|reservation| &reservation.id).collect();
    assert_eq!(found, [&ids[3], &ids[1]]);

    let get = |name: &str| v1::GetReservationRequest { name: name.to_owned(), ..Default::default() };
    let ambiguous = client.get_reservation(get("r-0")).await.expect_err("five begin so");
    assert_eq!(ambiguous.code(), tonic::Code::InvalidArgument);
    let found = client.get_reservation(get(&ids[2])).await.expect("there").into_inner();
    assert_eq!(found.reservation.expect("shown").id, ids[2]);
    served.stop().await;
}

#[tokio::test]
async fn an_explanation_names_blockers_rank_and_a_change_that_would_do() {
    let served = single().await;
    let _agent = served.agent("node-01").await;
    let mut client = served.reservations();
    client.create_reservation(create(cpu(3_000))).await.expect("granted");
    let wait = Some(v1::WaitPolicy { queue: true, deadline_ms: 0 });
    let queued =
        client.create_reservation(create(v1::ReservationSpec { wait, ..cpu(2_000) })).await.expect("queued");
    let id = queued.into_inner().reservation.expect("shown").id;
    let subject = Some(Subject::Name(id.clone()));
    let request = v1::ExplainReservationRequest { subject, ..Default::default() };
    let explanation = client.explain_reservation(request).await.expect("explained").into_inner().explanation;
    let explanation = explanation.expect("one");
    assert_eq!((explanation.rank, explanation.queue_length, explanation.admissible), (1, 1, false));
    assert_eq!(explanation.reservation.expect("shown").id, id);
    assert!(!explanation.blockers.is_empty());
    let less = explanation.suggestions.iter().find(|suggestion| suggestion.field.ends_with("cpu_millis"));
    assert_eq!(less.expect("half of it fits").to, 1_000);

    let subject = Some(Subject::Spec(cpu(500)));
    let request = v1::ExplainReservationRequest { subject, ..Default::default() };
    let explanation = client.explain_reservation(request).await.expect("explained").into_inner().explanation;
    let explanation = explanation.expect("one");
    assert!(explanation.admissible && explanation.placement[0].node == "node-01");
    served.stop().await;
}
