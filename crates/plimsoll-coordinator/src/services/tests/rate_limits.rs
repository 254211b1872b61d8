//! Envoy's rate limit service.

use std::time::{Duration, Instant};

use plimsoll_proto::v1;
use plimsoll_proto::v1::policy_service_client::PolicyServiceClient;
use plimsoll_xds::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use plimsoll_xds::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::transport::Channel;

use super::harness::*;

fn rate(tokens: u64, period_ms: u64, burst: u64) -> v1::UsageRate {
    v1::UsageRate { tokens, period_ms, burst }
}

async fn put_quota(channel: Channel, rates: &[(&str, v1::UsageRate)]) {
    let rates = rates.iter().map(|(name, rate)| ((*name).to_owned(), *rate)).collect();
    let quota = v1::UsageQuota { name: "edge".to_owned(), rates, ..Default::default() };
    let objects = vec![v1::PolicyObject { object: Some(v1::policy_object::Object::Quota(quota)) }];
    let apply = v1::ApplyPolicyRequest { objects, ..Default::default() };
    PolicyServiceClient::new(channel).apply_policy(apply).await.expect("applied");
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), hits_addend: None }
}

async fn ask(channel: &Channel, hits: u32, descriptors: &[RateLimitDescriptor]) -> RateLimitResponse {
    let request =
        RateLimitRequest { domain: "edge".to_owned(), descriptors: descriptors.to_vec(), hits_addend: hits };
    let answer = RateLimitServiceClient::new(channel.clone()).should_rate_limit(request).await;
    answer.expect("answered").into_inner()
}

#[tokio::test]
async fn a_burst_passes_and_then_what_the_time_brings() {
    let served = single().await;
    put_quota(served.channel.clone(), &[("api", rate(20, 1_000, 30))]).await;
    let begin = Instant::now();
    let (mut passed, mut over) = (0, 0);
    while begin.elapsed() < Duration::from_secs(3) {
        let answer = ask(&served.channel, 0, &[descriptor(&[("rate", "api")])]).await;
        match answer.overall_code() {
            Code::Ok => passed += 1,
            _ => over += 1,
        }
        if answer.overall_code() == Code::OverLimit {
            assert_eq!(answer.response_headers_to_add[0].key, "retry-after");
            assert!(answer.statuses[0].duration_until_reset.is_some(), "{answer:?}");
        }
        assert_eq!(answer.statuses[0].current_limit.as_ref().map(|limit| limit.requests_per_unit), Some(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Thirty at once, and sixty in three seconds.
    assert!((70..=91).contains(&passed), "{passed} passed, {over} were over the limit");
    assert!(over > 100, "{over}");
    served.stop().await;
}

#[tokio::test]
async fn many_decisions_are_one_command_of_the_log() {
    let served = single().await;
    put_quota(served.channel.clone(), &[("api", rate(100_000, 1_000, 100_000))]).await;
    let before = served.coordinator.core().status().revision;
    for _ in 0..2_000 {
        let answer = ask(&served.channel, 0, &[descriptor(&[("rate", "api")])]).await;
        assert_eq!(answer.overall_code(), Code::Ok);
    }
    let commands = served.coordinator.core().status().revision.0 - before.0;
    assert!(commands < 200, "{commands} revisions for 2,000 decisions");
    served.stop().await;
}

#[tokio::test]
async fn of_several_rates_all_are_spent_or_none() {
    let served = single().await;
    put_quota(served.channel.clone(), &[("all", rate(1, 3_600_000, 10)), ("each", rate(1, 3_600_000, 2))])
        .await;
    let of = |user: &str| [descriptor(&[("rate", "all")]), descriptor(&[("rate", "each"), ("user", user)])];
    for call in 0..6 {
        let answer = ask(&served.channel, 0, &of("ada")).await;
        let expected = if call < 2 { Code::Ok } else { Code::OverLimit };
        assert_eq!(answer.overall_code(), expected, "call {call}: {answer:?}");
        assert_eq!(answer.statuses[0].code(), Code::Ok, "there is enough for all together");
        assert_eq!(answer.statuses[1].code(), expected);
    }
    // Ada's refused calls cost the others nothing: eight are left for four other users.
    for user in ["bob", "cy", "dot", "eve"] {
        for _ in 0..2 {
            assert_eq!(ask(&served.channel, 0, &of(user)).await.overall_code(), Code::Ok, "{user}");
        }
    }
    assert_eq!(ask(&served.channel, 0, &of("fay")).await.overall_code(), Code::OverLimit);
    served.stop().await;
}

#[tokio::test]
async fn what_no_rate_is_about_passes_and_hits_are_counted() {
    let served = single().await;
    put_quota(served.channel.clone(), &[("api", rate(1, 3_600_000, 10))]).await;
    for entries in [&[("rate", "other")][..], &[("user", "ada")], &[]] {
        assert_eq!(
            ask(&served.channel, 0, &[descriptor(entries)]).await.overall_code(),
            Code::Ok,
            "{entries:?}"
        );
    }
    let api = [descriptor(&[("rate", "api"), ("scope", "a")])];
    assert_eq!(ask(&served.channel, 7, &api).await.overall_code(), Code::Ok);
    assert_eq!(ask(&served.channel, 7, &api).await.overall_code(), Code::OverLimit);
    assert_eq!(ask(&served.channel, 3, &api).await.overall_code(), Code::Ok, "three are left");
    let free = RateLimitDescriptor { hits_addend: Some(0), ..api[0].clone() };
    assert_eq!(
        ask(&served.channel, 0, &[free]).await.overall_code(),
        Code::Ok,
        "without a hit one only looks"
    );
    assert_eq!(
        ask(&served.channel, 11, &[descriptor(&[("rate", "api")])]).await.overall_code(),
        Code::OverLimit
    );
    served.stop().await;
}

#[tokio::test]
async fn a_follower_passes_the_question_on() {
    let served = three().await;
    put_quota(served[0].channel.clone(), &[("api", rate(1, 3_600_000, 4))]).await;
    let mut codes = Vec::new();
    for call in 0..6 {
        let answer = ask(&served[call % 3].channel, 0, &[descriptor(&[("rate", "api")])]).await;
        codes.push(answer.overall_code());
    }
    assert_eq!(codes, [[Code::Ok; 4].as_slice(), &[Code::OverLimit; 2]].concat());
    for one in served {
        one.stop().await;
    }
}
