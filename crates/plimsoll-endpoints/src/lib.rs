//! The endpoints of a service, as the API shows them, in a picker. A coordinator answers `PickEndpoint` with it, and a client picks for itself
//! with it: the same policy on the same facts.
//!
//! Pure: time and random bits are arguments. Invariants: a pick is one of the endpoints that were given last; what was picked counts as outstanding
//! until it is finished, for a minute at most.

mod flights;
mod weigher;

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_balancer::{
    Endpoint, EndpointId, Health, NoEndpoint, Outcome, Picker, Policy, Request, Settings, SlowStart, Subset,
};
use plimsoll_proto::v1;

use flights::Flights;
pub use plimsoll_balancer::{EjectionSettings, LoadReport};
pub use weigher::{Facts, Member, Weigher};

/// One service, balanced.
pub struct ServiceBalancer {
    /// Of a client that keeps to a subset; `None` for one that uses all endpoints.
    client: Option<u64>,
    service: v1::Service,
    picker: Picker,
    /// Shared, so that a pick copies none of it.
    endpoints: BTreeMap<EndpointId, Arc<v1::ServiceEndpoint>>,
    /// Resource names of reservations are what endpoints are told apart by; the picker wants numbers.
    numbers: BTreeMap<(String, u64), EndpointId>,
    next_number: u64,
    flights: Flights,
}

/// What is known of a request when its endpoint is chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// What ties requests together; empty for nothing.
    pub key: &'a str,
    /// Its size: tokens, bytes; 0 where nobody counts.
    pub input_units: u64,
    /// Ids of the blocks of its prompt, each standing for all before it too.
    pub blocks: &'a [u64],
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It was answered; the size of the answer, 0 where nobody counts.
    Answered {
        /// Tokens, messages, bytes.
        output_units: u64,
    },
    /// The endpoint failed it.
    Failed,
    /// Its caller gave it up, or it was never sent.
    Cancelled,
}

/// Nobody may be given a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "service {service}: {why} (endpoints: {serving} serving, {draining} draining, {unavailable} unavailable)"
)]
pub struct Nobody {
    /// Name of the service.
    pub service: String,
    /// Why.
    pub why: NoEndpoint,
    /// Endpoints that take requests.
    pub serving: usize,
    /// Endpoints that finish what they have.
    pub draining: usize,
    /// Endpoints of which the lease is not confirmed or the node is silent.
    pub unavailable: usize,
}

impl ServiceBalancer {
    /// A service without endpoints.
    pub fn new(service: v1::Service, client: Option<u64>) -> ServiceBalancer {
        let picker = picker_of(&service, client);
        ServiceBalancer {
            client,
            service,
            picker,
            endpoints: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            flights: Flights::default(),
        }
    }

    /// Takes up the present state. A service that was put anew begins with a new picker: what the old one learned may be of another policy.
    /// O(endpoints log endpoints).
    pub fn follow(
        &mut self,
        now_us: u64,
        service: &v1::Service,
        endpoints: impl IntoIterator<Item = v1::ServiceEndpoint>,
    ) {
        if *service != self.service {
            self.service = service.clone();
            self.picker = picker_of(service, self.client);
            self.flights.forget_all();
        }
        let before = std::mem::take(&mut self.endpoints);
        let mut numbers = BTreeMap::new();
        for endpoint in endpoints {
            // The token is the grant's: one that was requeued and granted again is another endpoint.
            let name = (endpoint.reservation.clone(), endpoint.token);
            let number = self.numbers.get(&name).copied().unwrap_or_else(|| {
                self.next_number += 1;
                EndpointId(self.next_number)
            });
            numbers.insert(name, number);
            self.endpoints.insert(number, Arc::new(endpoint));
        }
        self.numbers = numbers;
        self.picker.set_endpoints(self.endpoints.iter().filter_map(|(id, of)| balanced(*id, of)));
        for (id, endpoint) in &self.endpoints {
            let Some(load) = &endpoint.load else { continue };
            if before.get(id).and_then(|known| known.load.as_ref()) != Some(load) {
                let there = load.in_flight.saturating_add(load.queue_depth);
                let cpu_permille = load.metrics.get("cpu").map_or(0, |parts| parts / 100);
                let report = LoadReport {
                    cpu_utilization_permille: u32::try_from(cpu_permille).unwrap_or(u32::MAX),
                    application_utilization_permille: load.utilization_permille,
                    requests_per_s_milli: load.rate_milli,
                    errors_per_s_milli: load.errors_milli,
                    requests_there: (!load.measured_only).then_some(there),
                };
                // One that was written long ago counts from then, not from when it is heard of here.
                let at_us = load.report_time_ms.saturating_mul(1_000).min(now_us);
                self.picker.report(at_us, *id, &report);
            }
        }
    }

    /// The endpoint for a request, and the number under which it is finished. `draw` is 64 random bits. Costs as [`Picker::pick`].
    ///
    /// # Errors
    /// Where no endpoint may be given a request.
    pub fn pick(
        &mut self,
        now_us: u64,
        draw: u64,
        asked: &Asked<'_>,
    ) -> Result<(&Arc<v1::ServiceEndpoint>, u64), Nobody> {
        for flight in self.flights.forget_old(now_us) {
            self.picker.cancelled(flight);
        }
        let request = Request {
            key: hash_of(asked.key, draw),
            units: asked.input_units.max(1),
            blocks: asked.blocks,
            model: None,
            model_load_us: 0,
        };
        let chosen = self.picker.pick(now_us, draw, &request).map_err(|why| self.nobody(why))?;
        let id = self.picker.endpoint(chosen).map(|endpoint| endpoint.id);
        let flight = self.picker.started(now_us, chosen, &request);
        let number = self.flights.keep(now_us, flight);
        match id.and_then(|id| self.endpoints.get(&id)) {
            Some(endpoint) => Ok((endpoint, number)),
            // The picker has those of `endpoints` alone.
            None => Err(self.nobody(NoEndpoint::Empty)),
        }
    }

    /// How a request went. False where it is not known, or no more.
    pub fn finish(&mut self, now_us: u64, number: u64, how: Finish) -> bool {
        let Some(flight) = self.flights.take(number) else { return false };
        match how {
            Finish::Cancelled => self.picker.cancelled(flight),
            Finish::Failed => self.picker.finished(now_us, flight, Outcome::Failure),
            Finish::Answered { output_units } => {
                let outcome = Outcome::Success { output_units: output_units.max(1) };
                self.picker.finished(now_us, flight, outcome);
            }
        }
        true
    }

    /// The service.
    pub fn service(&self) -> &v1::Service {
        &self.service
    }

    /// Its endpoints, those that take no requests included.
    pub fn endpoints(&self) -> impl Iterator<Item = &v1::ServiceEndpoint> {
        self.endpoints.values().map(AsRef::as_ref)
    }

    fn nobody(&self, why: NoEndpoint) -> Nobody {
        let count = |state| self.endpoints.values().filter(|endpoint| endpoint.state() == state).count();
        Nobody {
            service: self.service.name.clone(),
            why,
            serving: count(v1::EndpointState::Serving),
            draining: count(v1::EndpointState::Draining),
            unavailable: count(v1::EndpointState::Unavailable),
        }
    }
}

/// What the policy of a service says, in the balancer's words.
fn picker_of(service: &v1::Service, client: Option<u64>) -> Picker {
    let policy = match service.balancing() {
        v1::Balancing::RoundRobin => Policy::RoundRobin,
        v1::Balancing::Unspecified | v1::Balancing::LeastLoaded => Policy::LeastLoaded,
        v1::Balancing::Latency => Policy::Latency,
        v1::Balancing::Weighted => Policy::Weighted,
        v1::Balancing::Affinity => Policy::Affinity,
        v1::Balancing::Predictive => Policy::Predictive,
    };
    let mut settings = Settings::default();
    if service.load_bound_permille > 0 {
        settings.affinity.load_bound_permille = Some(service.load_bound_permille);
    }
    let size = service.subset_size;
    settings.subset = client.filter(|_| size > 0).map(|client| Subset { client, size });
    settings.slow_start =
        SlowStart { window_us: service.slow_start_ms.saturating_mul(1_000), ..settings.slow_start };
    Picker::new(policy, settings)
}

/// `None` for one that is not even there in panic: its node is silent, or its lease not confirmed.
fn balanced(id: EndpointId, from: &v1::ServiceEndpoint) -> Option<Endpoint> {
    let health = match from.state() {
        v1::EndpointState::Serving => Health::Healthy,
        v1::EndpointState::Draining => Health::Draining,
        v1::EndpointState::Unavailable | v1::EndpointState::Unspecified => return None,
    };
    let said = from.endpoint.as_ref()?;
    Some(Endpoint {
        weight: said.weight_milli.unwrap_or(1_000),
        priority: said.priority,
        health,
        ready_since_us: said.since_time_ms.saturating_mul(1_000),
        concurrency: said.concurrency,
        ..Endpoint::new(id)
    })
}

/// A key as the balancer has it; a request without one may go anywhere.
fn hash_of(key: &str, draw: u64) -> u64 {
    if key.is_empty() {
        return draw;
    }
    let hash = blake3::hash(key.as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight of 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(balancing: v1::Balancing) -> v1::Service {
        v1::Service { name: "web".into(), balancing: balancing.into(), ..v1::Service::default() }
    }

    fn endpoint(number: u64, state: v1::EndpointState) -> v1::ServiceEndpoint {
        let endpoint = v1::Endpoint { address: format!("10.0.0.{number}:80"), ..v1::Endpoint::default() };
        v1::ServiceEndpoint {
            reservation: format!("pools/default/reservations/{number}"),
            endpoint: Some(endpoint),
            state: state.into(),
            token: number,
            ..v1::ServiceEndpoint::default()
        }
    }

    fn serving(numbers: impl IntoIterator<Item = u64>) -> Vec<v1::ServiceEndpoint> {
        numbers.into_iter().map(|number| endpoint(number, v1::EndpointState::Serving)).collect()
    }

    fn of(balancing: v1::Balancing, endpoints: Vec<v1::ServiceEndpoint>) -> ServiceBalancer {
        let mut balancer = ServiceBalancer::new(service(balancing), None);
        balancer.follow(0, &service(balancing), endpoints);
        balancer
    }

    /// Addresses of picks that are answered at once, with draws that are all different.
    fn picks(balancer: &mut ServiceBalancer, now_us: u64, key: &str, count: u64) -> Vec<String> {
        let asked = Asked { key, ..Asked::default() };
        let draws = (1..=count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        draws
            .map(|draw| {
                let (endpoint, number) = balancer.pick(now_us, draw, &asked).expect("somebody serves");
                let address = endpoint.endpoint.clone().expect("it has an address").address;
                assert!(balancer.finish(now_us, number, Finish::Answered { output_units: 1 }));
                address
            })
            .collect()
    }

    #[test]
    fn only_those_that_serve_are_picked_and_what_is_left_says_why_nobody_is() {
        let mut all = serving([1]);
        all.push(endpoint(2, v1::EndpointState::Draining));
        all.push(endpoint(3, v1::EndpointState::Unavailable));
        let mut balancer = of(v1::Balancing::RoundRobin, all.clone());
        assert_eq!(picks(&mut balancer, 0, "", 4), ["10.0.0.1:80"; 4]);
        let rest = all.split_off(1);
        balancer.follow(1, &service(v1::Balancing::RoundRobin), rest);
        let nobody = balancer.pick(1, 7, &Asked::default()).expect_err("nobody serves");
        assert_eq!((nobody.serving, nobody.draining, nobody.unavailable), (0, 1, 1));
        assert!(nobody.to_string().contains("0 serving, 1 draining, 1 unavailable"), "{nobody}");
    }

    #[test]
    fn what_is_outstanding_counts_until_it_is_finished_or_a_minute_is_over() {
        let mut balancer = of(v1::Balancing::LeastLoaded, serving([1, 2]));
        let asked = Asked::default();
        let (first, number) = balancer.pick(0, 1, &asked).map(|(e, n)| (e.clone(), n)).expect("two serve");
        // With one request on the first, the next goes to the other, whatever is drawn.
        for draw in 0..20 {
            let (next, taken) =
                balancer.pick(1, draw, &asked).map(|(e, n)| (e.clone(), n)).expect("two serve");
            assert_ne!(next, first, "draw {draw}");
            assert!(balancer.finish(1, taken, Finish::Cancelled));
        }
        assert!(balancer.finish(2, number, Finish::Answered { output_units: 0 }));
        assert!(!balancer.finish(2, number, Finish::Failed), "once only");
        let (_, old) = balancer.pick(3, 1, &asked).expect("two serve");
        drop(picks(&mut balancer, 60_000_004, "", 1));
        assert!(!balancer.finish(60_000_005, old, Finish::Failed), "it was taken for over");
    }

    #[test]
    fn a_key_stays_with_its_endpoint_while_others_come_and_go() {
        let mut balancer = of(v1::Balancing::Affinity, serving(1..=8));
        let home = picks(&mut balancer, 0, "session-7", 1);
        let gone: u64 = if home == ["10.0.0.3:80"] { 4 } else { 3 };
        balancer.follow(1, &service(v1::Balancing::Affinity), serving((1..=9).filter(|n| *n != gone)));
        let again = picks(&mut balancer, 1, "session-7", 1);
        // The ninth may be nearer on the ring; nothing else moves a key.
        assert!(again == home || again == ["10.0.0.9:80"], "{home:?} {again:?}");
    }

    #[test]
    fn a_client_with_an_id_keeps_to_its_subset() {
        let few = v1::Service { subset_size: 2, ..service(v1::Balancing::RoundRobin) };
        let mut balancer = ServiceBalancer::new(few.clone(), Some(5));
        balancer.follow(0, &few, serving(1..=10));
        let seen: std::collections::BTreeSet<String> = picks(&mut balancer, 0, "", 40).into_iter().collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
    }
}
