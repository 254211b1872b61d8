//! Which endpoints a service has: an index over reservations, and what each endpoint's state follows from.

use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_mutants::mutant;
use plimsoll_types::{ReservationId, Revision};

use crate::scaling::DRAIN_SINCE_VERSION;
use crate::{EndpointState, Ledger, Load, NodeAdmin, Reservation, RowPlace, Service, State};

/// Reservations with an endpoint, by service and address.
pub(crate) type Endpoints = BTreeMap<String, BTreeMap<String, ReservationId>>;

impl Ledger {
    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Reservations that are endpoints of a service, in order of their addresses. O(log services) to begin.
    pub fn endpoints(&self, service: &str) -> impl Iterator<Item = &Arc<Reservation>> {
        let ids = self.endpoints.get(service).into_iter().flat_map(BTreeMap::values);
        ids.filter_map(|id| self.reservations.get(id))
    }

    /// The reservation whose endpoint of a service has this address.
    pub fn endpoint_at(&self, service: &str, address: &str) -> Option<&Arc<Reservation>> {
        self.endpoints.get(service)?.get(address).and_then(|id| self.reservations.get(id))
    }

    /// Whether a reservation's endpoint takes requests; `None` where it has none. O(members).
    pub fn endpoint_state(&self, reservation: &Reservation) -> Option<EndpointState> {
        let endpoint = reservation.endpoint.as_deref()?;
        Some(match reservation.state {
            State::Active | State::Partial => {
                let leaves = endpoint.announced.draining
                    || self.is_drained(reservation)
                    || self.is_let_go(reservation) && !mutant!("let-go-without-a-word");
                if leaves { EndpointState::Draining } else { EndpointState::Serving }
            }
            State::Preempting | State::Releasing => EndpointState::Draining,
            _ => EndpointState::Unavailable,
        })
    }

    /// Revision at which anything last changed that [`Ledger::endpoints`], their states or loads, or services are made of; later where nobody
    /// knows. What was made of them before is good for as long as this does not move.
    pub fn endpoints_changed(&self) -> Revision {
        self.endpoints_changed
    }

    /// The latest load that an endpoint reported.
    pub fn load(&self, id: ReservationId) -> Option<&Load> {
        self.loads.get(&id)
    }

    fn is_drained(&self, reservation: &Reservation) -> bool {
        reservation.members.iter().any(|member| {
            self.node(member.node).is_some_and(|node| matches!(node.admin, NodeAdmin::Draining { .. }))
        })
    }

    /// True for the replica of a machine that is to be removed: from the entry on that says so, it drains. From ledger version 12 on. O(intents).
    fn is_let_go(&self, reservation: &Reservation) -> bool {
        self.meta.version >= DRAIN_SINCE_VERSION
            && self.removal_of(&reservation.request.name).is_some_and(|removal| {
                let policy = self.scaling_policy(&removal.policy);
                policy.is_some_and(|policy| policy.target.is_service(&reservation.request.service))
            })
    }

    pub(crate) fn put_service(&mut self, service: Arc<Service>) {
        self.touched.row(RowPlace::Service(service.name.clone()));
        self.note_endpoints();
        self.services.insert(service.name.clone(), service);
    }

    pub(crate) fn remove_service(&mut self, name: &str) {
        self.touched.row(RowPlace::Service(name.to_owned()));
        self.note_endpoints();
        self.services.remove(name);
    }

    pub(crate) fn put_load(&mut self, load: Load) {
        self.touched.row(RowPlace::Load(load.report.reservation));
        self.note_endpoints();
        self.loads.insert(load.report.reservation, load);
    }

    /// The load of an endpoint that is there no more is nobody's.
    pub(crate) fn forget_load(&mut self, id: ReservationId) {
        if self.loads.remove(&id).is_some() {
            self.touched.row(RowPlace::Load(id));
        }
    }

    pub(crate) fn note_endpoints(&mut self) {
        self.endpoints_changed = self.meta.revision;
    }

    /// Notes a change of a reservation where it is one of its endpoint: a renewal is none.
    pub(crate) fn follow_endpoint(&mut self, old: Option<&Reservation>, new: &Reservation) {
        let before =
            old.and_then(|old| old.endpoint.as_ref().map(|endpoint| (endpoint, old.state, old.token)));
        if before != new.endpoint.as_ref().map(|endpoint| (endpoint, new.state, new.token)) {
            self.note_endpoints();
        }
    }

    pub(crate) fn link_endpoint(&mut self, reservation: &Reservation) {
        if let Some(endpoint) = &reservation.endpoint {
            let of_service = self.endpoints.entry(reservation.request.service.clone()).or_default();
            of_service.insert(endpoint.announced.address.clone(), reservation.id);
        }
    }

    pub(crate) fn unlink_endpoint(&mut self, reservation: &Reservation) {
        let Some(endpoint) = &reservation.endpoint else { return };
        let service = &reservation.request.service;
        let Some(of_service) = self.endpoints.get_mut(service) else { return };
        of_service.remove(&endpoint.announced.address);
        if of_service.is_empty() {
            self.endpoints.remove(service);
        }
    }
}
