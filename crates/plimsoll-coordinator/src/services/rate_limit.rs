//! Envoy's rate limit service: a proxy asks before each request, and rates of quotas answer.
//!
//! The domain is the quota. Of a descriptor's entries, `rate` names the rate, and all others together are the scope: who has another one does not share.
//! What no rate is about is not limited.

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll_ledger::Rate;
use plimsoll_xds::pb::envoy::config::core::v3::HeaderValue;
use plimsoll_xds::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit,
};
use plimsoll_xds::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use plimsoll_xds::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

use super::api::Api;
use super::edge::Actor;
use super::problem::Problem;
use super::slices::{RateKey, Slices, Spent};
use crate::telemetry::RateDecisions;

/// Most descriptors of one request.
const MOST_DESCRIPTORS: usize = 64;
/// The entry that names the rate.
const RATE: &str = "rate";
/// An entry whose value alone is a scope.
const SCOPE: &str = "scope";

/// The service.
#[derive(Clone)]
pub(super) struct RateLimits {
    api: Api,
    slices: Slices,
    decisions: RateDecisions,
}

impl RateLimits {
    pub(super) fn new(api: Api, decisions: RateDecisions) -> RateLimits {
        RateLimits { slices: Slices::new(api.clone()), api, decisions }
    }

    /// The rates that descriptors are about, by place of the descriptor.
    fn rates(&self, request: &RateLimitRequest) -> BTreeMap<usize, (RateKey, Rate)> {
        let view = self.api.core.local();
        let Some(quota) = view.quota_policy(&request.domain) else { return BTreeMap::new() };
        let named = |(place, descriptor): (usize, &RateLimitDescriptor)| {
            let key = key_of(&request.domain, descriptor)?;
            let rate = *quota.rates.get(&key.rate)?;
            Some((place, (key, rate)))
        };
        request.descriptors.iter().enumerate().filter_map(named).collect()
    }
}

#[tonic::async_trait]
impl RateLimitService for RateLimits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        if request.descriptors.len() > MOST_DESCRIPTORS {
            let what =
                format!("has {} elements, at most {MOST_DESCRIPTORS} are allowed", request.descriptors.len());
            return Err(Problem::invalid("descriptors", what).into());
        }
        let rates = self.rates(&request);
        let mut wanted: BTreeMap<RateKey, u64> = BTreeMap::new();
        for (place, (key, _)) in &rates {
            let hits = hits_of(&request, &request.descriptors[*place]);
            let sum = wanted.entry(key.clone()).or_default();
            *sum = sum.saturating_add(hits);
        }
        // Without a hit a proxy only looks.
        wanted.retain(|_, hits| *hits > 0);
        let wanted: Vec<(RateKey, u64)> = wanted.into_iter().collect();
        let spent = if wanted.is_empty() { Spent::All } else { self.slices.spend(&actor, &wanted).await? };
        for (place, (key, _)) in wanted.iter().enumerate() {
            let is_over = matches!(spent, Spent::None { rate, .. } if rate == place);
            self.decisions.made(&key.quota, &key.rate, spent == Spent::All, is_over);
        }
        let over = match spent {
            Spent::All => None,
            Spent::None { rate, retry_after_ms } => Some((&wanted[rate].0, retry_after_ms)),
        };
        let status = |place: usize| match rates.get(&place) {
            None => DescriptorStatus { code: Code::Ok.into(), ..DescriptorStatus::default() },
            Some((key, rate)) => status(key, *rate, self.slices.left(key), over),
        };
        Ok(Response::new(RateLimitResponse {
            overall_code: if over.is_some() { Code::OverLimit } else { Code::Ok }.into(),
            statuses: (0..request.descriptors.len()).map(status).collect(),
            response_headers_to_add: over.map(|(_, wait_ms)| retry_after(wait_ms)).into_iter().collect(),
        }))
    }
}

/// What a descriptor names; `None` where it names no rate.
fn key_of(quota: &str, descriptor: &RateLimitDescriptor) -> Option<RateKey> {
    let rate = descriptor.entries.iter().find(|entry| entry.key == RATE)?;
    let others = descriptor.entries.iter().filter(|entry| entry.key != RATE);
    let words = others.map(|entry| match entry.key.as_str() {
        SCOPE => entry.value.clone(),
        key => format!("{key}={}", entry.value),
    });
    let scope = words.collect::<Vec<_>>().join(",");
    Some(RateKey { quota: quota.to_owned(), rate: rate.value.clone(), scope })
}

/// Hits of a descriptor: its own number, else that of the request, else one.
fn hits_of(request: &RateLimitRequest, descriptor: &RateLimitDescriptor) -> u64 {
    descriptor.hits_addend.unwrap_or_else(|| u64::from(request.hits_addend.max(1)))
}

fn status(key: &RateKey, rate: Rate, left: u64, over: Option<(&RateKey, u64)>) -> DescriptorStatus {
    let unit = match rate.period_ms {
        1_000 => Some(Unit::Second),
        60_000 => Some(Unit::Minute),
        3_600_000 => Some(Unit::Hour),
        86_400_000 => Some(Unit::Day),
        _ => None,
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let current_limit = unit.map(|unit| RateLimit {
        requests_per_unit: small(rate.tokens),
        unit: unit.into(),
        name: format!("{}/{}", key.quota, key.rate),
    });
    let wait_ms = over.filter(|(which, _)| *which == key).map(|(_, wait_ms)| wait_ms);
    DescriptorStatus {
        code: if wait_ms.is_some() { Code::OverLimit } else { Code::Ok }.into(),
        current_limit,
        limit_remaining: small(left),
        duration_until_reset: wait_ms.and_then(|ms| Duration::from_millis(ms).try_into().ok()),
    }
}

/// In whole seconds, as HTTP has it.
fn retry_after(wait_ms: u64) -> HeaderValue {
    HeaderValue { key: "retry-after".to_owned(), value: wait_ms.div_ceil(1_000).max(1).to_string() }
}
