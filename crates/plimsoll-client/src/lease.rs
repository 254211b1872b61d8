//! `Lease`: a grant that is kept. It renews itself, says when it is lost, and gives back what it holds.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use plimsoll_proto::v1::{
    CancelReservationRequest, ConfirmReservationRequest, CreateReservationRequest, ErrorReason,
    GetReservationRequest, ReleaseReservationRequest, RenewReservationRequest, Reservation, ReservationSpec,
    ReservationState, WaitReservationResponse,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Client;
use crate::env::workload_env;
use crate::error::Error;
use crate::retry::millis;
use crate::wait::is_waiting;

/// Pause between tries where a renewal is refused for now.
const RETRY_MS: u64 = 500;

/// A grant that is kept: renewed at a third of its length until it is released or dropped.
///
/// Time is counted from before a renewal was sent, so the coordinators never end the lease before this side knows.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    id: String,
    token: u64,
    state: watch::Receiver<LeaseState>,
    renewer: Option<DropGuard>,
    /// Drop gives it back.
    held: bool,
}

/// How a lease stands at the coordinators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is granted, or nobody could be asked and it was not lost before.
    Granted,
    /// It was given notice.
    Leaving,
    /// It is granted no more.
    Gone,
}

#[derive(Clone, Debug)]
struct LeaseState {
    reservation: Reservation,
    deadline: Instant,
    lost: Option<String>,
}

impl Lease {
    /// Asks for a reservation, waits where it is queued, and keeps it. Dropping the future gives the place back.
    ///
    /// # Errors
    /// As for every call, and [`Error::LeaseLost`] where it ended before it was granted.
    pub async fn acquire(client: &Client, spec: ReservationSpec) -> Result<Lease, Error> {
        let lease = Lease::acquire_until(client, spec, |_, _| {}, std::future::pending()).await?;
        Ok(lease.expect("nobody gives up, so there is a lease"))
    }

    /// Like [`Lease::acquire`]; `seen` gets each step on the way, and `None` comes back where `give_up` was first: then the
    /// place has been given back, as far as a coordinator could be reached.
    ///
    /// # Errors
    /// As for [`Lease::acquire`].
    pub async fn acquire_until(
        client: &Client,
        mut spec: ReservationSpec,
        seen: impl FnMut(&Reservation, Option<&WaitReservationResponse>),
        give_up: impl Future<Output = ()>,
    ) -> Result<Option<Lease>, Error> {
        spec.auto_confirm = true;
        let request = CreateReservationRequest {
            spec: Some(spec),
            request_id: client.ids().request_id(),
            validate_only: false,
        };
        let place = Place { client: client.clone(), request: Some(request), id: None };
        place.take_unless(seen, give_up).await
    }

    /// Waits for the next grant of a reservation that was taken back and waits again, and keeps it; `seen` and `give_up` as for
    /// [`Lease::acquire_until`].
    ///
    /// # Errors
    /// As for every call, and [`Error::LeaseLost`] where it ended before it was granted.
    pub async fn acquire_again(
        client: &Client,
        reservation: &str,
        seen: impl FnMut(&Reservation, Option<&WaitReservationResponse>),
        give_up: impl Future<Output = ()>,
    ) -> Result<Option<Lease>, Error> {
        let place = Place {
            client: client.clone(),
            request: Some(CreateReservationRequest::default()),
            id: Some(reservation.to_owned()),
        };
        place.take_unless(seen, give_up).await
    }

    /// Keeps a reservation that was granted earlier: confirms it where it is held, renews it otherwise.
    ///
    /// # Errors
    /// As for every call, and [`Error::LeaseLost`] where it has ended.
    pub async fn take_over(client: &Client, reservation: Reservation) -> Result<Lease, Error> {
        let sent = Instant::now();
        let (name, token) = (reservation.id.clone(), reservation.token);
        let (granted, log_time_ms) = match reservation.state() {
            ReservationState::Held => {
                let request =
                    ConfirmReservationRequest { name, token, ..ConfirmReservationRequest::default() };
                let answer = client.confirm_reservation(request).await?;
                (answer.reservation, answer.log_time_ms)
            }
            state if is_granted(state) => {
                let request = RenewReservationRequest { name, token, ..RenewReservationRequest::default() };
                let answer = client.renew_reservation(request).await?;
                (answer.reservation, answer.log_time_ms)
            }
            _ => return Err(ended(&reservation)),
        };
        let granted = granted.unwrap_or(reservation);
        let left_ms = granted.lease_deadline_ms.saturating_sub(log_time_ms);
        Lease::keep(client, granted, sent + millis(left_ms))
    }

    fn keep(client: &Client, reservation: Reservation, deadline: Instant) -> Result<Lease, Error> {
        if !is_granted(reservation.state()) {
            return Err(ended(&reservation));
        }
        let (id, token) = (reservation.id.clone(), reservation.token);
        let (sender, state) = watch::channel(LeaseState { reservation, deadline, lost: None });
        let stop = CancellationToken::new();
        let renewer = Renewer { client: client.clone(), state: sender };
        tokio::spawn(stop.clone().run_until_cancelled_owned(renewer.run()));
        Ok(Lease { client: client.clone(), id, token, state, renewer: Some(stop.drop_guard()), held: true })
    }

    /// Id of the reservation.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Fencing token: hand it to whatever the workload writes to.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// The reservation as the latest renewal showed it.
    pub fn reservation(&self) -> Reservation {
        self.state.borrow().reservation.clone()
    }

    /// Until then the grant holds, whatever happens.
    pub fn deadline(&self) -> Instant {
        self.state.borrow().deadline
    }

    /// Environment for a workload under this lease.
    pub fn env(&self) -> BTreeMap<String, String> {
        workload_env(&self.state.borrow().reservation, &self.client.address())
    }

    /// Resolves when the lease is lost: whatever runs under it must stop. Cancel-safe.
    pub async fn lost(&self) -> Error {
        let mut state = self.state.clone();
        let message = match state.wait_for(|state| state.lost.is_some()).await {
            Ok(state) => state.lost.clone().unwrap_or_default(),
            Err(_) => "it is no longer renewed".to_owned(),
        };
        Error::LeaseLost { reservation: self.id.clone(), message }
    }

    /// Resolves once the grant is being taken back: whatever runs under it has until [`Lease::deadline`] to stop.
    /// A renewal brings the news, so that it may come a third of the lease late. Cancel-safe; never resolves where that does not happen.
    pub async fn preempted(&self) -> Reservation {
        let mut state = self.state.clone();
        let preempting = |state: &LeaseState| state.reservation.state() == ReservationState::Preempting;
        match state.wait_for(preempting).await {
            Ok(state) => state.reservation.clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Asks the coordinators how it stands.
    pub async fn standing(&self) -> Standing {
        if self.state.borrow().lost.is_some() {
            return Standing::Gone;
        }
        let request = GetReservationRequest { name: self.id.clone(), ..GetReservationRequest::default() };
        let Ok(answer) = self.client.get_reservation(request).await else { return Standing::Granted };
        let found = answer.reservation.unwrap_or_default();
        match found.state() {
            _ if found.token != self.token => Standing::Gone,
            ReservationState::Preempting => Standing::Leaving,
            state if is_granted(state) => Standing::Granted,
            _ => Standing::Gone,
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// As for every call. Where it fails the lease ends by itself at [`Lease::deadline`].
    pub async fn release(self) -> Result<Reservation, Error> {
        self.give_up(false).await
    }

    /// Gives it back before its grace is over, to wait again where it would: what ran under it has stopped. The reservation as it is then:
    /// pending, or ended where it does not wait.
    ///
    /// # Errors
    /// As for every call; `WRONG_STATE` where it was given no notice.
    pub async fn requeue(self) -> Result<Reservation, Error> {
        self.give_up(true).await
    }

    async fn give_up(mut self, requeue: bool) -> Result<Reservation, Error> {
        self.renewer = None;
        self.held = false;
        let request = ReleaseReservationRequest { requeue, ..self.release_request() };
        let answer = self.client.release_reservation(request).await?;
        Ok(answer.reservation.unwrap_or_default())
    }

    fn release_request(&self) -> ReleaseReservationRequest {
        let (name, token) = (self.id.clone(), self.token);
        ReleaseReservationRequest { name, token, ..ReleaseReservationRequest::default() }
    }

    /// Stops renewing without giving back: the reservation as it is, to be taken over elsewhere before its deadline.
    pub fn detach(mut self) -> Reservation {
        self.renewer = None;
        self.held = false;
        self.reservation()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewer = None;
        // Outside a runtime nothing can be sent any more; then the lease ends by its length.
        let (true, Ok(runtime)) = (self.held, tokio::runtime::Handle::try_current()) else { return };
        let client = self.client.clone();
        let request = self.release_request();
        runtime.spawn(async move {
            if let Err(error) = client.release_reservation(request).await {
                tracing::debug!(%error, "a dropped lease was not released; it ends by its length");
            }
        });
    }
}

/// A place in the queue, or a grant nobody has taken yet; given back when dropped.
struct Place {
    client: Client,
    /// `None`: there is nothing to give back.
    request: Option<CreateReservationRequest>,
    id: Option<String>,
}

impl Place {
    /// The lease, or `None` where `give_up` was first: then the place has been given back, as far as a coordinator could be reached.
    async fn take_unless(
        mut self,
        seen: impl FnMut(&Reservation, Option<&WaitReservationResponse>),
        give_up: impl Future<Output = ()>,
    ) -> Result<Option<Lease>, Error> {
        let outcome = tokio::select! {
            biased;
            () = give_up => None,
            outcome = self.take(seen) => Some(outcome),
        };
        match outcome {
            Some(Ok(lease)) => {
                self.request = None;
                Ok(Some(lease))
            }
            Some(Err(error)) => {
                // What certainly was not created need not be given back; all else is, by drop.
                if self.id.is_none() && error.is_definite() {
                    self.request = None;
                }
                Err(error)
            }
            None => {
                self.give_back().await?;
                Ok(None)
            }
        }
    }

    async fn take(
        &mut self,
        mut seen: impl FnMut(&Reservation, Option<&WaitReservationResponse>),
    ) -> Result<Lease, Error> {
        let client = self.client.clone();
        let id = match self.id.clone() {
            Some(id) => id,
            None => {
                let sent = Instant::now();
                let created = client.create_reservation(self.request.clone().unwrap_or_default()).await?;
                let reservation = created.reservation.unwrap_or_default();
                self.id = Some(reservation.id.clone());
                seen(&reservation, None);
                if !is_waiting(reservation.state()) {
                    let left_ms = reservation.lease_deadline_ms.saturating_sub(created.log_time_ms);
                    return Lease::keep(&client, reservation, sent + millis(left_ms));
                }
                reservation.id
            }
        };
        let step = |step: &WaitReservationResponse| {
            if let Some(reservation) = &step.reservation {
                seen(reservation, Some(step));
            }
        };
        let reservation = client.wait_reservation(&id, None, step).await?;
        // How long ago it was granted is not known here, so another lease length is bought before anything starts.
        Lease::take_over(&client, reservation).await
    }

    async fn give_back(&mut self) -> Result<(), Error> {
        match self.request.take() {
            Some(request) => give_back(&self.client, request, self.id.take()).await,
            None => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (client, id) = (self.client.clone(), self.id.take());
        runtime.spawn(async move {
            if let Err(error) = give_back(&client, request, id).await {
                tracing::debug!(%error, "a place was not given back");
            }
        });
    }
}

async fn give_back(
    client: &Client,
    request: CreateReservationRequest,
    id: Option<String>,
) -> Result<(), Error> {
    let name = match id {
        Some(id) => id,
        // Nobody knows whether it was created: the same request id tells, and never creates a second one.
        None => match client.create_reservation(request).await {
            Ok(created) => created.reservation.unwrap_or_default().id,
            Err(error) if error.is_definite() => return Ok(()),
            Err(error) => return Err(error),
        },
    };
    let cancel = CancelReservationRequest { name, ..CancelReservationRequest::default() };
    match client.cancel_reservation(cancel).await {
        // It ended by itself meanwhile.
        Err(error) if error.reason() == Some(ErrorReason::WrongState) => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Buys further lease lengths.
struct Renewer {
    client: Client,
    state: watch::Sender<LeaseState>,
}

impl Renewer {
    async fn run(self) {
        let mut next = Instant::now() + self.third();
        loop {
            let deadline = self.state.borrow().deadline;
            sleep_until(next.min(deadline)).await;
            let sent = Instant::now();
            if sent >= deadline {
                return self.lose("it could not be renewed in time");
            }
            match self.renew(deadline - sent).await {
                Ok((reservation, left_ms)) => {
                    self.state.send_modify(|state| {
                        state.reservation = reservation;
                        state.deadline = sent + millis(left_ms);
                    });
                    next = sent + self.third();
                }
                Err(error) if is_over(&error) => return self.lose(&error.to_string()),
                Err(error) => {
                    tracing::warn!(%error, "lease was not renewed; trying again");
                    next = Instant::now() + millis(RETRY_MS + self.client.ids().jitter(RETRY_MS));
                }
            }
        }
    }

    async fn renew(&self, longest: Duration) -> Result<(Reservation, u64), Error> {
        let (name, token) = {
            let state = self.state.borrow();
            (state.reservation.id.clone(), state.reservation.token)
        };
        let request = RenewReservationRequest { name, token, ..RenewReservationRequest::default() };
        let answer = self.client.with_timeout(longest).renew_reservation(request).await?;
        let reservation = answer.reservation.unwrap_or_default();
        let left_ms = reservation.lease_deadline_ms.saturating_sub(answer.log_time_ms);
        Ok((reservation, left_ms))
    }

    fn third(&self) -> Duration {
        millis((self.state.borrow().reservation.ttl_ms / 3).max(100))
    }

    fn lose(&self, message: &str) {
        self.state.send_modify(|state| state.lost = Some(message.to_owned()));
    }
}

/// True where no further try can help.
fn is_over(error: &Error) -> bool {
    let over = matches!(
        error.reason(),
        Some(ErrorReason::Fenced | ErrorReason::Expired | ErrorReason::NotFound | ErrorReason::WrongState)
    );
    over && error.is_definite()
}

fn is_granted(state: ReservationState) -> bool {
    matches!(
        state,
        ReservationState::Active
            | ReservationState::Partial
            | ReservationState::Unknown
            | ReservationState::Preempting
    )
}

fn ended(reservation: &Reservation) -> Error {
    let state = reservation.state().as_str_name().trim_start_matches("RESERVATION_STATE_").to_lowercase();
    Error::LeaseLost { reservation: reservation.id.clone(), message: format!("it is {state}") }
}
