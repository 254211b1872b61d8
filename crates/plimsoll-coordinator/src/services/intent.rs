//! From a request of the API to an entry of the ledger log: checked as far as a request can be by itself.

use plimsoll_ledger::{Command, Entry, Verdict};
use plimsoll_proto::v1::stream_reservations_request::Request as StreamRequest;
use plimsoll_proto::{convert, limits, v1};
use plimsoll_types::{ReservationId, Revision};
use prost::Message;

use super::edge::Actor;
use super::names;
use super::problem::Problem;

/// What a client wants done.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    /// For the log.
    pub(crate) entry: Entry,
    /// The decision only.
    pub(crate) validate_only: bool,
}

/// Fields that every mutating request has.
struct Envelope {
    actor: Actor,
    request_id: String,
    request_hash: [u8; 32],
    validate_only: bool,
}

/// Takes the envelope's fields off a request and hashes the rest: the method, and the canonical bytes of what is left.
macro_rules! envelope {
    ($actor:expr, $method:literal, $request:expr) => {{
        let request_id = std::mem::take(&mut $request.request_id);
        let validate_only = std::mem::take(&mut $request.validate_only);
        Envelope::new($actor, $method, request_id, validate_only, &$request)
    }};
}

impl Envelope {
    fn new(
        actor: &Actor,
        method: &str,
        request_id: String,
        validate_only: bool,
        rest: &impl Message,
    ) -> Result<Envelope, Problem> {
        let mut request_hash = [0; 32];
        if !request_id.is_empty() {
            if let Some(what) = limits::check_request_id(&request_id) {
                return Err(Problem::invalid("request_id", what));
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update(method.as_bytes()).update(&[0]).update(&rest.encode_to_vec());
            request_hash = *hasher.finalize().as_bytes();
        }
        Ok(Envelope { actor: actor.clone(), request_id, request_hash, validate_only })
    }

    fn with(self, command: Command) -> Intent {
        let Envelope { actor, request_id, request_hash, validate_only } = self;
        Intent {
            entry: Entry { actor: actor.0.to_string(), request_id, request_hash, command },
            validate_only,
        }
    }
}

impl Intent {
    pub(crate) fn create(
        actor: &Actor,
        mut request: v1::CreateReservationRequest,
    ) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "create", request)?;
        let spec = request.spec.ok_or_else(|| Problem::invalid("spec", "is missing"))?;
        let request =
            convert::request_from_v1(&spec).map_err(|violations| Problem::fields("spec", violations))?;
        // The planner's verdict takes the place of this one.
        Ok(envelope.with(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) }))
    }

    pub(crate) fn confirm(
        actor: &Actor,
        mut request: v1::ConfirmReservationRequest,
    ) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "confirm", request)?;
        let (reservation, token) = grant(&request.name, request.token)?;
        Ok(envelope.with(Command::Confirm { reservation, token }))
    }

    pub(crate) fn renew(actor: &Actor, mut request: v1::RenewReservationRequest) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "renew", request)?;
        let (reservation, token) = grant(&request.name, request.token)?;
        Ok(envelope.with(Command::Renew { reservation, token, ttl_ms: request.ttl_ms }))
    }

    pub(crate) fn resize(
        actor: &Actor,
        mut request: v1::ResizeReservationRequest,
    ) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "resize", request)?;
        let (reservation, token) = grant(&request.name, request.token)?;
        let amounts = request.amounts.ok_or_else(|| Problem::invalid("amounts", "is missing"))?;
        let amounts = convert::resources_from_v1(&amounts)
            .map_err(|violations| Problem::fields("amounts", violations))?;
        Ok(envelope.with(Command::Resize { reservation, token, amounts }))
    }

    pub(crate) fn release(
        actor: &Actor,
        mut request: v1::ReleaseReservationRequest,
    ) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "release", request)?;
        let (reservation, token) = grant(&request.name, request.token)?;
        Ok(envelope.with(match request.requeue {
            true => Command::Requeue { reservation, token },
            false => Command::Release { reservation, token },
        }))
    }

    pub(crate) fn cancel(
        actor: &Actor,
        mut request: v1::CancelReservationRequest,
    ) -> Result<Intent, Problem> {
        let envelope = envelope!(actor, "cancel", request)?;
        let reservation = names::reservation(&request.name)?;
        Ok(envelope.with(Command::Cancel { reservation }))
    }

    /// One request of a stream.
    pub(crate) fn of_stream(actor: &Actor, request: StreamRequest) -> Result<Intent, Problem> {
        match request {
            StreamRequest::Create(request) => Intent::create(actor, request),
            StreamRequest::Confirm(request) => Intent::confirm(actor, request),
            StreamRequest::Renew(request) => Intent::renew(actor, request),
            StreamRequest::Resize(request) => Intent::resize(actor, request),
            StreamRequest::Release(request) => Intent::release(actor, request),
            StreamRequest::Cancel(request) => Intent::cancel(actor, request),
        }
    }

    /// A command that another service worked out, under a request's envelope. `rest` is the request without it.
    pub(crate) fn of_command(
        actor: &Actor,
        method: &str,
        request_id: String,
        validate_only: bool,
        rest: &impl Message,
        command: Command,
    ) -> Result<Intent, Problem> {
        Ok(Envelope::new(actor, method, request_id, validate_only, rest)?.with(command))
    }
}

/// A grant: its id and fencing token. Both are checked, so that both are told.
fn grant(name: &str, token: u64) -> Result<(ReservationId, Revision), Problem> {
    let reservation = names::reservation(name)?;
    if token == 0 {
        return Err(Problem::invalid("token", "is missing: give the fencing token of the grant"));
    }
    Ok((reservation, Revision(token)))
}
