//! Replicas of a service: who of the grants is one, where they say that they listen, and what they say of their load.

use plimsoll_client::v1;
use plimsoll_client::v1::policy_object::Object;

use crate::rng::Rng;

/// The service that an operator puts and deletes; mostly it is there.
pub(super) const SERVICE: &str = "model";
/// Addresses that replicas share, so that one takes another's now and then.
const ADDRESSES: u64 = 4;

/// The service, of one class or another.
pub(super) fn service(rng: &mut Rng) -> v1::PolicyObject {
    let balancing = [v1::Balancing::LeastLoaded, v1::Balancing::RoundRobin, v1::Balancing::Affinity];
    let class = if rng.percent(80) { "batch" } else { "low" };
    v1::PolicyObject {
        object: Some(Object::Service(v1::Service {
            name: SERVICE.to_owned(),
            class: class.to_owned(),
            balancing: rng.pick(&balancing).copied().unwrap_or_default().into(),
            ..v1::Service::default()
        })),
    }
}

/// Makes a request one of a replica, now and then: of the service's own pool and class, or of others, which is refused.
pub(super) fn perhaps(rng: &mut Rng, spec: &mut v1::ReservationSpec) {
    if rng.percent(12) {
        spec.service = SERVICE.to_owned();
        spec.pool.clear();
        if rng.percent(85) {
            spec.class.clear();
        }
    }
}

/// Where a replica listens; `None` where it does so no more. Now and then nowhere that there is.
pub(super) fn announcement(rng: &mut Rng) -> Option<v1::Endpoint> {
    let port = rng.between(1, ADDRESSES);
    let address = if rng.percent(3) { "nowhere".to_owned() } else { format!("10.0.0.1:{port}") };
    let draining = rng.percent(20);
    (!rng.percent(10)).then(|| v1::Endpoint { address, draining, ..v1::Endpoint::default() })
}

/// What a replica says of its load.
pub(super) fn report(rng: &mut Rng, name: String, token: u64) -> v1::LoadReport {
    let load = v1::EndpointLoad {
        utilization_permille: u32::try_from(rng.between(0, 1_200)).unwrap_or(0),
        rate_milli: rng.between(0, 50_000),
        in_flight: u32::try_from(rng.between(0, 9)).unwrap_or(0),
        ..v1::EndpointLoad::default()
    };
    v1::LoadReport { name, token, load: Some(load) }
}
