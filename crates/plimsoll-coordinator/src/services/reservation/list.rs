//! `ListReservations`: pages in the order of ids, filtered.

use std::sync::Arc;

use plimsoll_ledger::{Ledger, Reservation, State};
use plimsoll_proto::{convert, v1};
use plimsoll_types::{Labels, ReservationId};
use prost::Message;

use crate::services::api::{Api, as_of};
use crate::services::names;
use crate::services::page::{Page, is_descending};
use crate::services::problem::Problem;
use crate::services::start;

/// Reservations looked at under one lock, so that a long list never holds up the ledger.
const LOOK: usize = 10_000;

pub(super) async fn list(
    api: &Api,
    mut request: v1::ListReservationsRequest,
) -> Result<v1::ListReservationsResponse, Problem> {
    let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
    let (consistency, min_revision) = (request.consistency, std::mem::take(&mut request.min_revision));
    let page = api.page(size, &token, &request.encode_to_vec())?;
    let filter = Filter::read(&request)?;
    let after = page.after_number()?.map(ReservationId);
    let mut found = Vec::new();
    let least = min_revision.max(page.revision.0);
    if let Some(past) = api.past(consistency, least, as_of!(request)).await? {
        return of_the_past(api, &past, &filter, after, &page).await;
    }
    let age_ms = api.read(consistency, least).await?.age_ms();
    // What is here by now is what was read, or newer; the page shows what is here when its turn comes.
    let (revision, age_ms, mut go_on) = {
        let _turn = api.turn().await;
        let view = api.local();
        let age_ms = if age_ms == 0 { 0 } else { view.age_ms() };
        (view.revision(), age_ms, filter.add(api, &view, after, page.size, &mut found)?)
    };
    while let Some(last) = go_on {
        tokio::task::yield_now().await;
        let _turn = api.turn().await;
        go_on = filter.add(api, &api.core.local(), Some(last), page.size, &mut found)?;
    }
    let mut next_page_token = String::new();
    if found.len() > page.size {
        found.truncate(page.size);
        let last = found.last().map_or(0, |(id, _)| id.0);
        next_page_token = page.next(&last.to_be_bytes(), revision);
    }
    if request.with_start {
        start::fill(&api.core, &api.core.local(), &mut found);
    }
    let reservations = found.into_iter().map(|(_, shown)| shown).collect();
    Ok(v1::ListReservationsResponse { revision: revision.0, age_ms, reservations, next_page_token })
}

/// A page of what was: nobody waits for that state, and it changes no more.
async fn of_the_past(
    api: &Api,
    past: &Ledger,
    filter: &Filter,
    after: Option<ReservationId>,
    page: &Page,
) -> Result<v1::ListReservationsResponse, Problem> {
    let mut found = Vec::new();
    let mut go_on = filter.add(api, past, after, page.size, &mut found)?;
    while let Some(last) = go_on {
        tokio::task::yield_now().await;
        go_on = filter.add(api, past, Some(last), page.size, &mut found)?;
    }
    let mut next_page_token = String::new();
    if found.len() > page.size {
        found.truncate(page.size);
        let last = found.last().map_or(0, |(id, _)| id.0);
        next_page_token = page.next(&last.to_be_bytes(), past.revision());
    }
    let reservations = found.into_iter().map(|(_, shown)| shown).collect();
    Ok(v1::ListReservationsResponse { revision: past.revision().0, age_ms: 0, reservations, next_page_token })
}

/// What is asked for. Empty fields let all pass.
struct Filter {
    pool: String,
    states: Vec<State>,
    class: String,
    tenant: String,
    requester: String,
    node: Option<String>,
    spec_name: String,
    labels: Labels,
    id_prefix: String,
    live_only: bool,
    newest_first: bool,
}

/// What one look found, and where to go on; `None` at the end.
struct Look {
    found: Vec<Arc<Reservation>>,
    go_on_after: Option<ReservationId>,
}

impl Filter {
    fn read(request: &v1::ListReservationsRequest) -> Result<Filter, Problem> {
        let mut states = Vec::new();
        for (index, state) in request.states.iter().enumerate() {
            let state = v1::ReservationState::try_from(*state).ok().and_then(convert::state_from_v1);
            states
                .push(state.ok_or_else(|| Problem::invalid(&format!("states[{index}]"), "is not a state"))?);
        }
        let node = if request.node.is_empty() {
            None
        } else {
            Some(names::object("nodes", &request.node)?.to_owned())
        };
        let pool = if request.pool.is_empty() { "" } else { names::object("pools", &request.pool)? };
        Ok(Filter {
            pool: pool.to_owned(),
            states,
            class: request.class.clone(),
            tenant: request.tenant.clone(),
            requester: request.requester.clone(),
            node,
            spec_name: request.spec_name.clone(),
            labels: request.labels.clone(),
            id_prefix: request.id_prefix.clone(),
            live_only: request.live_only,
            newest_first: is_descending(request.order)?,
        })
    }

    fn wants(&self, reservation: &Reservation) -> bool {
        let request = &reservation.request;
        let same = |asked: &str, is: &str| asked.is_empty() || asked == is;
        (self.states.is_empty() || self.states.contains(&reservation.state))
            && !(self.live_only && reservation.state.is_final())
            && same(&self.pool, &request.pool)
            && same(&self.class, &request.class)
            && same(&self.tenant, &request.tenant)
            && same(&self.requester, &reservation.requester)
            && same(&self.spec_name, &request.name)
            // Those of one that is set aside are in its body.
            && (reservation.aside.is_some() || self.wants_labels(reservation))
            && (self.id_prefix.is_empty() || reservation.id.to_string().starts_with(&self.id_prefix))
    }

    fn wants_labels(&self, reservation: &Reservation) -> bool {
        self.labels.iter().all(|(key, value)| reservation.request.labels.get(key) == Some(value))
    }

    /// Adds what one look past `after` finds, up to one more than the page takes. Where to go on; `None` where it is done.
    fn add(
        &self,
        api: &Api,
        ledger: &Ledger,
        after: Option<ReservationId>,
        page_size: usize,
        found: &mut Vec<(ReservationId, v1::Reservation)>,
    ) -> Result<Option<ReservationId>, Problem> {
        let look = self.look(ledger, after, page_size + 1 - found.len())?;
        for reservation in &look.found {
            // One of which a part is lost does not keep the others from being listed.
            let whole = api.core.whole(ledger, reservation).unwrap_or_else(|error| {
                tracing::error!(%error, "it is listed without what it asked");
                Arc::clone(reservation)
            });
            if reservation.aside.is_none() || self.wants_labels(&whole) {
                found.push((reservation.id, convert::reservation_to_v1(&whole, ledger)));
            }
        }
        Ok(look.go_on_after.filter(|_| found.len() <= page_size))
    }

    /// Looks at reservations past `after`, until `most` are found or enough were looked at.
    fn look(&self, ledger: &Ledger, after: Option<ReservationId>, most: usize) -> Result<Look, Problem> {
        if let Some(name) = &self.node {
            let node = ledger.node_by_name(name).ok_or_else(|| Problem::not_found("node", name))?;
            let holders = ledger.usage(node.id).into_iter().flat_map(|usage| &usage.holders);
            let all: Vec<_> = holders.filter_map(|id| ledger.reservation(*id)).collect();
            return Ok(if self.newest_first {
                self.scan(
                    all.into_iter()
                        .rev()
                        .filter(|reservation| after.is_none_or(|after| reservation.id < after)),
                    most,
                )
            } else {
                self.scan(
                    all.into_iter().filter(|reservation| after.is_none_or(|after| reservation.id > after)),
                    most,
                )
            });
        }
        Ok(if self.newest_first {
            let older = ledger.reservations().rev();
            self.scan(
                older.skip_while(|reservation| after.is_some_and(|after| reservation.id >= after)),
                most,
            )
        } else {
            let first = after.map_or(ReservationId(0), |after| ReservationId(after.0.saturating_add(1)));
            self.scan(ledger.reservations_from(first), most)
        })
    }

    fn scan<'a>(&self, reservations: impl Iterator<Item = &'a Arc<Reservation>>, most: usize) -> Look {
        let mut found = Vec::new();
        for (looked_at, reservation) in reservations.enumerate() {
            if self.wants(reservation) {
                found.push(Arc::clone(reservation));
            }
            if found.len() >= most || looked_at + 1 >= LOOK {
                return Look { found, go_on_after: Some(reservation.id) };
            }
        }
        Look { found, go_on_after: None }
    }
}
