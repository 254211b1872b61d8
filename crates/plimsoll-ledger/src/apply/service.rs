//! Services and their endpoints: `SetEndpoint`, `ReportLoad`, and what keeps a service from being put or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_types::{ReservationId, Revision};

use super::lease::require;
use crate::ledger::Context;
use crate::limits::{MAX_LOADS, MAX_SERVICES};
use crate::service::{METRICS_SINCE_VERSION, SINCE_VERSION, validate_announcement, validate_metrics};
use crate::{
    Announcement, Blocker, Endpoint, Ledger, Load, LoadReport, Outcome, PolicyName, PolicyObject, Reason,
    Refusal, Request, Reservation, State,
};

/// True where a change puts or deletes services.
pub(super) fn touches_services(put: &[PolicyObject], delete: &[PolicyName]) -> bool {
    put.iter().any(|object| matches!(object, PolicyObject::Service(_)))
        || delete.iter().any(|name| matches!(name, PolicyName::Service(_)))
}

impl Ledger {
    /// A replica says where it listens, or (with `None`) that it does so no more.
    pub(crate) fn apply_set_endpoint(
        &mut self,
        context: &mut Context<'_>,
        id: ReservationId,
        token: Revision,
        announced: Option<&Announcement>,
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "endpoints")?;
        let old = self.find_with_token(id, token)?;
        require(&old, &[State::Held, State::Active, State::Partial, State::Preempting])?;
        if old.request.service.is_empty() {
            let subject = format!("{id} names no service");
            return Err(Refusal::one(Reason::WrongState, subject, 1, 0));
        }
        let mut new = Reservation::clone(&old);
        new.endpoint = match announced {
            None => None,
            Some(announced) => {
                let bad = validate_announcement(announced);
                if !bad.is_empty() {
                    return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
                }
                self.move_endpoint(context, &old, announced);
                let known =
                    old.endpoint.as_ref().filter(|known| known.announced.address == announced.address);
                let since = known.map_or(context.now, |known| known.since);
                Some(Arc::new(Endpoint { announced: announced.clone(), since }))
            }
        };
        let address = |r: &Reservation| r.endpoint.as_ref().map(|known| known.announced.address.clone());
        if address(&old) != address(&new) {
            self.forget_load(id);
        }
        Ok(self.store(context, "endpoint", new, Some(old.state)))
    }

    /// An address is one endpoint's: who had it before (a replica that was started anew under another lease) has none any more.
    fn move_endpoint(&mut self, context: &mut Context<'_>, to: &Reservation, announced: &Announcement) {
        let earlier = self.endpoint_at(&to.request.service, &announced.address).cloned();
        if let Some(earlier) = earlier.filter(|earlier| earlier.id != to.id) {
            let state = earlier.state;
            let bare = Reservation { endpoint: None, ..Reservation::clone(&earlier) };
            self.store(context, "endpoint/moved", bare, Some(state));
        }
    }

    /// The leader's own: what endpoints said of their load since the last such entry. Those that are gone meanwhile are passed over.
    pub(crate) fn apply_report_load(
        &mut self,
        context: &mut Context<'_>,
        reports: &[LoadReport],
    ) -> Result<Outcome, Refusal> {
        self.require_version(SINCE_VERSION, "load reports")?;
        let (count, most) = (reports.len() as u64, MAX_LOADS as u64);
        if count > most {
            return Err(Refusal::one(Reason::InvalidArgument, "reports", count, most));
        }
        if reports.iter().any(LoadReport::names_metrics) {
            self.require_version(METRICS_SINCE_VERSION, "metrics of endpoints")?;
        }
        let bad: Vec<Blocker> = reports.iter().flat_map(validate_metrics).collect();
        if !bad.is_empty() {
            return Err(Refusal { reason: Reason::InvalidArgument, blockers: bad });
        }
        for report in reports {
            let known = self.reservations.get(&report.reservation);
            if known.is_some_and(|reservation| reservation.endpoint.is_some()) {
                self.put_load(Load { report: report.clone(), at: context.now });
            }
        }
        Ok(Outcome::Done)
    }

    /// Everything that keeps a request from being one of its service.
    pub(crate) fn check_service(&self, request: &Request) -> Result<(), Refusal> {
        if request.service.is_empty() {
            return Ok(());
        }
        self.require_version(SINCE_VERSION, "services")?;
        let Some(service) = self.service(&request.service) else {
            return Err(Refusal::one(Reason::ServiceNotFound, request.service.as_str(), 1, 0));
        };
        let fields = [("pool", &request.pool, &service.pool), ("class", &request.class, &service.class)];
        let differ = fields.into_iter().filter(|(_, asked, has)| asked != has);
        let blockers: Vec<Blocker> = differ
            .map(|(field, asked, has)| {
                let subject = format!("{field} {asked}: service {} is of {field} {has}", service.name);
                Blocker::new(Reason::InvalidArgument, subject, 1, 0)
            })
            .collect();
        if blockers.is_empty() { Ok(()) } else { Err(Refusal { reason: Reason::InvalidArgument, blockers }) }
    }

    /// Everything that keeps services from being put, or pools and classes that they name from being deleted.
    pub(crate) fn check_services(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        if touches_services(put, delete) && !self.knows(SINCE_VERSION, "services", blockers) {
            return;
        }
        let puts = put.iter().filter_map(|object| match object {
            PolicyObject::Service(service) => Some((service.name.as_str(), service)),
            _ => None,
        });
        let there = self.services.values().map(|service| (service.name.as_str(), service.as_ref()));
        let mut after: BTreeMap<_, _> = there.chain(puts).collect();
        for name in delete {
            if let PolicyName::Service(name) = name {
                after.remove(name.as_str());
            }
        }
        if after.len() > MAX_SERVICES {
            blockers.push(Blocker::new(
                Reason::TableFull,
                "services",
                after.len() as u64,
                MAX_SERVICES as u64,
            ));
        }
        let named: BTreeSet<PolicyName> = put.iter().map(PolicyObject::name).collect();
        let deleted: BTreeSet<&PolicyName> = delete.iter().collect();
        for service in after.values() {
            let needs = [
                (PolicyName::Pool(service.pool.clone()), Reason::PoolNotFound),
                (PolicyName::Class(service.class.clone()), Reason::ClassNotFound),
            ];
            for (need, missing) in needs {
                let was_there = self.has_policy(&need);
                if !deleted.contains(&need) && (was_there || named.contains(&need)) {
                    continue;
                }
                let (kind, name) = (need.kind(), need.name());
                let (reason, subject) = if was_there {
                    (Reason::InUse, format!("{kind} {name}: service {} is of it", service.name))
                } else {
                    (missing, format!("{name}, the {kind} of service {}", service.name))
                };
                blockers.push(Blocker::new(reason, subject, 1, 0));
            }
        }
    }
}
