//! Services and endpoints in the model: `docs/semantics.md` 5.7.

use plimsoll_ledger::{Announcement, LoadReport};

use super::*;

impl Model {
    pub(super) fn service_of(&self, request: &Request) -> Result<(), Reason> {
        if request.service.is_empty() {
            return Ok(());
        }
        if self.version < 5 {
            return Err(Reason::UnsupportedVersion);
        }
        let service = self.services.get(&request.service).ok_or(Reason::ServiceNotFound)?;
        let fits = (&service.pool, &service.class) == (&request.pool, &request.class);
        if fits { Ok(()) } else { Err(Reason::InvalidArgument) }
    }

    pub(super) fn set_endpoint(
        &mut self,
        id: u64,
        token: u64,
        announced: Option<&Announcement>,
    ) -> Result<(), Reason> {
        if self.version < 5 {
            return Err(Reason::UnsupportedVersion);
        }
        let stands = [State::Held, State::Active, State::Partial, State::Preempting];
        let service = self.with_token(id, token, &stands)?.request.service;
        if service.is_empty() {
            return Err(Reason::WrongState);
        }
        let mut since = self.clock;
        if let Some(new) = announced {
            let port = new.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) || new.weight_milli > 1_000_000 {
                return Err(Reason::InvalidArgument);
            }
            for (other, r) in &mut self.reservations {
                let has = r.endpoint.as_ref().is_some_and(|(known, _)| known.address == new.address);
                if has && *other == id {
                    since = r.endpoint.as_ref().map_or(since, |(_, since)| *since);
                } else if has && r.request.service == service {
                    r.endpoint = None;
                    self.loads.remove(other);
                }
            }
        }
        let r = self.reservations.get_mut(&id).expect("its token is right");
        let address = |of: &Option<(Announcement, u64)>| of.as_ref().map(|(known, _)| known.address.clone());
        let new = announced.map(|new| (new.clone(), since));
        if address(&r.endpoint) != address(&new) {
            self.loads.remove(&id);
        }
        r.endpoint = new;
        Ok(())
    }

    pub(super) fn report_load(&mut self, reports: &[LoadReport]) -> Result<(), Reason> {
        if self.version < 5 {
            return Err(Reason::UnsupportedVersion);
        }
        if self.version < 16
            && reports.iter().any(|report| report.measured_only || !report.metrics.is_empty())
        {
            return Err(Reason::UnsupportedVersion);
        }
        if reports.iter().any(|report| report.metrics.len() > 16) {
            return Err(Reason::InvalidArgument);
        }
        for report in reports {
            let id = report.reservation.0;
            if self.reservations.get(&id).is_some_and(|r| r.endpoint.is_some()) {
                self.loads.insert(id, (report.clone(), self.clock));
            }
        }
        Ok(())
    }

    /// It is no endpoint any more.
    pub(super) fn leave_service(&mut self, id: u64) {
        if let Some(r) = self.reservations.get_mut(&id) {
            r.endpoint = None;
        }
        self.loads.remove(&id);
    }

    /// What keeps services from being put, or what they are of from being deleted: section 7.
    pub(super) fn service_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let touches = put.iter().any(|object| matches!(object, PolicyObject::Service(_)))
            || delete.iter().any(|name| matches!(name, PolicyName::Service(_)));
        if self.version < 5 && touches {
            return vec![Reason::UnsupportedVersion];
        }
        let mut after = self.services.clone();
        for object in put {
            if let PolicyObject::Service(service) = object {
                after.insert(service.name.clone(), service.clone());
            }
        }
        after.retain(|name, _| !delete.contains(&PolicyName::Service(name.clone())));
        let mut reasons = Vec::new();
        for service in after.values() {
            let pool = PolicyName::Pool(service.pool.clone());
            let class = PolicyName::Class(service.class.clone());
            for (name, there, missing) in [
                (pool, self.pools.contains_key(&service.pool), Reason::PoolNotFound),
                (class, self.classes.contains_key(&service.class), Reason::ClassNotFound),
            ] {
                let comes = put.iter().any(|object| object.name() == name);
                if delete.contains(&name) || !(there || comes) {
                    reasons.push(if there { Reason::InUse } else { missing });
                }
            }
        }
        reasons
    }
}
