//! Rates of calls and of traffic: what becomes a quota.

use serde_json::{Map, Value};

use super::output::Output;
use super::tree::At;

/// `network: { rate_limiting, bandwidth }`.
pub(super) fn read(at: &At<'_, '_>, out: &mut Output) {
    let mut rates = Map::new();
    if let Some(limiting) = at.get("rate_limiting") {
        rates.extend(limiting.get("global").and_then(|at| rate(&at)).map(|rate| ("api".to_owned(), rate)));
        for (service, limits) in limiting.get("per_service").map(|at| at.entries()).unwrap_or_default() {
            rates.extend(rate(&limits).map(|rate| (format!("api/{service}"), rate)));
            limits.tell_of(
                "concurrent_requests",
                "how many calls are under way is not counted: a rate bounds how many begin",
            );
            limits.tell_of("respect_robots_txt", "what a page may be read by is for its reader to ask");
        }
        if rates.len() > 1 && rates.contains_key("api") {
            limiting.note("each rate counts by itself: who calls a service takes of it and of api (plimsoll take network/api)");
        }
    }
    if let Some(bandwidth) = at.get("bandwidth") {
        for (key, name) in [("ingress_limit", "ingress"), ("egress_limit", "egress")] {
            rates.extend(bandwidth.get(key).and_then(|at| at.value()).map(|limit| (name.to_owned(), limit)));
        }
        bandwidth.note("holds for who takes its tokens, bits, before sending (plimsoll take network/egress -n 8000): traffic itself is not held back");
    }
    out.merge("Quota", "network", "rate", rates);
}

fn rate(at: &At<'_, '_>) -> Option<Value> {
    let (key, unit) =
        [("requests_per_second", "s"), ("requests_per_minute", "min"), ("requests_per_hour", "h")]
            .into_iter()
            .find(|(key, _)| at.get(key).is_some())?;
    let number = at.get(key)?.whole()?;
    let burst = at
        .get("burst_size")
        .and_then(|at| at.whole())
        .map_or_else(String::new, |burst| format!(" burst {burst}"));
    Some(format!("{number}/{unit}{burst}").into())
}
