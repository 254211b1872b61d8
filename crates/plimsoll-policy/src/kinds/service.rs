//! `kind: Service`.

use plimsoll_ledger::Balancing;
use plimsoll_proto::convert::balancing_to_v1;
use plimsoll_proto::v1;
use plimsoll_types::quantity::{parse_cpu_millis, parse_duration_ms};

use super::{labels, name, text};
use crate::context::{Block, Context};

/// Keys of `metadata`.
pub(crate) const METADATA: [&str; 2] = ["name", "labels"];
/// Keys of `spec`.
pub(crate) const SPEC: [&str; 6] = ["pool", "class", "balancing", "loadBound", "subset", "slowStart"];

/// Policies as files write them.
pub(crate) fn balancing() -> [(&'static str, v1::Balancing); 6] {
    Balancing::NAMED.map(|(name, policy)| (name, balancing_to_v1(policy)))
}

/// Reads a service.
pub(crate) fn read(context: &mut Context<'_>, metadata: &Block<'_>, spec: &Block<'_>) -> v1::Service {
    let mut service = v1::Service {
        name: name(context, metadata, "service"),
        labels: labels(context, metadata, "service"),
        ..v1::Service::default()
    };
    for (key, value) in [("pool", &mut service.pool), ("class", &mut service.class)] {
        *value = text(context, spec, key, &format!("service.{key}"), &format!("spec.{key}"));
    }
    if let Some(balancing) =
        spec.get("balancing").and_then(|node| context.word(node, "spec.balancing", &balancing()))
    {
        service.balancing = balancing.into();
    }
    // Thousandths, written as cpu is: 1.25.
    context.locate("service.load_bound_permille", spec.mark_of("loadBound"), "spec.loadBound");
    let bound =
        spec.get("loadBound").and_then(|node| context.quantity(node, "spec.loadBound", parse_cpu_millis));
    service.load_bound_permille = bound.map_or(0, |bound| u32::try_from(bound).unwrap_or(u32::MAX));
    context.locate("service.subset_size", spec.mark_of("subset"), "spec.subset");
    let size = spec.get("subset").and_then(|node| context.integer(node, "spec.subset", 0, u32::MAX.into()));
    service.subset_size = size.and_then(|size| u32::try_from(size).ok()).unwrap_or_default();
    context.locate("service.slow_start_ms", spec.mark_of("slowStart"), "spec.slowStart");
    let ramp =
        spec.get("slowStart").and_then(|node| context.quantity(node, "spec.slowStart", parse_duration_ms));
    service.slow_start_ms = ramp.unwrap_or_default();
    service
}
