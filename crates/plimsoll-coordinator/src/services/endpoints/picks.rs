//! Picks of this coordinator: one balancer for each service that was asked for, made of the endpoints that the ledger has.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use plimsoll_endpoints::{Asked, Finish, ServiceBalancer};
use plimsoll_ledger::Ledger;
use plimsoll_proto::convert;
use plimsoll_proto::v1::{self, ErrorReason};
use plimsoll_types::Revision;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::services::problem::Problem;

/// All balancers of a coordinator.
pub(super) struct Picks {
    state: Mutex<State>,
}

struct State {
    /// Each with the revision of the endpoints that it knows (see [`Ledger::endpoints_changed`]).
    services: BTreeMap<String, (Revision, ServiceBalancer)>,
    draws: StdRng,
}

impl Picks {
    pub(super) fn new(seed: u64) -> Picks {
        let draws = StdRng::seed_from_u64(seed);
        Picks { state: Mutex::new(State { services: BTreeMap::new(), draws }) }
    }

    /// The endpoint for a request. O(log endpoints) at most where nothing changed; O(endpoints) where something did.
    pub(super) fn pick(
        &self,
        ledger: &Ledger,
        name: &str,
        now_us: u64,
        asked: &v1::PickEndpointRequest,
    ) -> Result<v1::PickEndpointResponse, Problem> {
        let mut state = self.state.lock();
        let Some(service) = ledger.service(name) else {
            state.services.remove(name);
            return Err(Problem::new(ErrorReason::ServiceNotFound, format!("there is no service {name:?}")));
        };
        let draw = state.draws.next_u64();
        let (known, balancer) = state.services.entry(name.to_owned()).or_insert_with(|| {
            // It serves all clients, so it keeps to no subset.
            (Revision(0), ServiceBalancer::new(convert::service_to_v1(service), None))
        });
        if *known != ledger.endpoints_changed() {
            *known = ledger.endpoints_changed();
            let shown = ledger.endpoints(name).filter_map(|one| convert::service_endpoint_to_v1(one, ledger));
            balancer.follow(now_us, &convert::service_to_v1(service), shown);
        }
        let wanted = Asked { key: &asked.key, input_units: asked.input_units, blocks: &asked.blocks };
        let (endpoint, number) = balancer
            .pick(now_us, draw, &wanted)
            .map_err(|nobody| Problem::new(ErrorReason::NoEndpoint, nobody.to_string()))?;
        Ok(v1::PickEndpointResponse {
            revision: ledger.revision().0,
            endpoint: Some(v1::ServiceEndpoint::clone(endpoint)),
            pick_id: format!("{name}/{number}"),
            balancing: convert::balancing_to_v1(service.balancing).into(),
        })
    }

    /// How requests went. Returns how many of them were known.
    pub(super) fn finish(&self, now_us: u64, finished: &[v1::FinishedPick]) -> u32 {
        if finished.is_empty() {
            return 0;
        }
        let mut state = self.state.lock();
        let mut known = 0;
        for one in finished {
            let Some((name, number)) = one.pick_id.rsplit_once('/') else { continue };
            let (Ok(number), Some((_, balancer))) = (number.parse(), state.services.get_mut(name)) else {
                continue;
            };
            let how = match (one.cancelled, one.failed) {
                (true, _) => Finish::Cancelled,
                (false, true) => Finish::Failed,
                (false, false) => Finish::Answered { output_units: one.output_units },
            };
            known += u32::from(balancer.finish(now_us, number, how));
        }
        known
    }
}
