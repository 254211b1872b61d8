//! The life of a reservation: confirm, renew, resize, release, cancel.

use std::time::Duration;

use clap::Args;
use plimsoll_client::v1::{
    CancelReservationRequest, ConfirmReservationRequest, GetReservationRequest, Quantities,
    ReleaseReservationRequest, RenewReservationRequest, Reservation, ResizeReservationRequest,
};
use plimsoll_client::{Client, Error};
use plimsoll_types::quantity;

use crate::args::{Globals, duration, read_amount};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{granted, left, now_ms, places};

/// A reservation and its token.
#[derive(Args, Clone, Debug)]
struct Holder {
    /// Reservation: id, unique prefix of an id, or resource name
    #[arg(value_name = "RESERVATION")]
    name: String,
    /// Its fencing token; without it the present one is used
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
    /// Idempotency key, 16 to 64 characters
    #[arg(long, value_name = "KEY")]
    request_id: Option<String>,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Takes up a held reservation.
#[derive(Args, Debug)]
pub(crate) struct Confirm {
    #[command(flatten)]
    holder: Holder,
}

/// Renews a lease.
#[derive(Args, Debug)]
pub(crate) struct Renew {
    #[command(flatten)]
    holder: Holder,
    /// New length of the lease
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
}

/// Changes amounts in place.
#[derive(Args, Debug)]
pub(crate) struct Resize {
    #[command(flatten)]
    holder: Holder,
    /// New compute per member
    #[arg(long, value_name = "CORES")]
    cpu: Option<String>,
    /// New memory per member
    #[arg(long, alias = "memory", value_name = "SIZE")]
    mem: Option<String>,
    /// New amount of another resource (repeatable)
    #[arg(long = "res", value_name = "NAME=AMOUNT")]
    other: Vec<String>,
}

/// Gives a reservation back.
#[derive(Args, Debug)]
pub(crate) struct Release {
    #[command(flatten)]
    holder: Holder,
    /// It was given notice and has stopped: it waits again in its old place, where it would wait
    #[arg(long)]
    requeue: bool,
}

/// Ends reservations in any state.
#[derive(Args, Debug)]
pub(crate) struct Cancel {
    /// Reservations: ids, unique prefixes of ids, or resource names
    #[arg(value_name = "RESERVATION", required = true)]
    names: Vec<String>,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Confirm {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let (client, present) = self.holder.look_up(globals).await?;
        let request = ConfirmReservationRequest {
            name: present.id.clone(),
            token: self.holder.token.unwrap_or(present.token),
            request_id: self.holder.request_id.clone().unwrap_or_default(),
            validate_only: self.holder.dry_run,
        };
        let answer = client.confirm_reservation(request).await.map(|answer| answer.reservation);
        self.holder.report(globals, "confirm", "Confirmed", answer)
    }
}

impl Renew {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let (client, present) = self.holder.look_up(globals).await?;
        let request = RenewReservationRequest {
            name: present.id.clone(),
            token: self.holder.token.unwrap_or(present.token),
            ttl_ms: self.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
            request_id: self.holder.request_id.clone().unwrap_or_default(),
            validate_only: self.holder.dry_run,
        };
        let answer = client.renew_reservation(request).await.map(|answer| answer.reservation);
        self.holder.report(globals, "renew", "Renewed", answer)
    }
}

impl Resize {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let (client, present) = self.holder.look_up(globals).await?;
        let mut amounts: Quantities = present.amounts.clone().unwrap_or_default();
        if let Some(cpu) = &self.cpu {
            amounts.cpu_millis = quantity::parse_cpu_millis(cpu)?;
        }
        if let Some(memory) = &self.mem {
            amounts.memory_bytes = quantity::parse_bytes(memory)?;
        }
        for pair in &self.other {
            let (name, amount) = read_amount("--res", pair)?;
            amounts.other.insert(name.to_owned(), amount);
        }
        let request = ResizeReservationRequest {
            name: present.id.clone(),
            token: self.holder.token.unwrap_or(present.token),
            amounts: Some(amounts),
            request_id: self.holder.request_id.clone().unwrap_or_default(),
            validate_only: self.holder.dry_run,
        };
        let answer = client.resize_reservation(request).await.map(|answer| answer.reservation);
        self.holder.report(globals, "resize", "Resized", answer)
    }
}

impl Release {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let (client, present) = self.holder.look_up(globals).await?;
        let request = ReleaseReservationRequest {
            name: present.id.clone(),
            token: self.holder.token.unwrap_or(present.token),
            request_id: self.holder.request_id.clone().unwrap_or_default(),
            validate_only: self.holder.dry_run,
            requeue: self.requeue,
        };
        let answer = client.release_reservation(request).await.map(|answer| answer.reservation);
        self.holder.report(globals, "release", "Released", answer)
    }
}

impl Cancel {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let out = globals.out();
        let mut ended = Vec::new();
        let mut failed: Option<CliError> = None;
        for name in &self.names {
            let outcome = match look_up(&client, name, globals).await {
                Ok(present) => {
                    let request = CancelReservationRequest {
                        name: present.id,
                        validate_only: self.dry_run,
                        ..CancelReservationRequest::default()
                    };
                    client.cancel_reservation(request).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => ended.push(answer.reservation.unwrap_or_default()),
                Err(error) => {
                    let error = CliError::from(error).asked(format!("cannot cancel {name}"));
                    // All are tried; the last problem is the one that the process ends with, the others are told.
                    if let Some(earlier) = failed.replace(error) {
                        out.say(earlier.text(out.paint).trim_end());
                    }
                }
            }
        }
        out.list(&ended, None)?;
        if !ended.is_empty() {
            let verb = if self.dry_run { "Would cancel" } else { "Cancelled" };
            let ids: Vec<&str> = ended.iter().map(|reservation| reservation.id.as_str()).collect();
            out.done(&format!("{verb} {}", ids.join(", ")));
        }
        failed.map_or(Ok(Exit::Done), Err)
    }
}

impl Holder {
    async fn look_up(&self, globals: &Globals) -> Result<(Client, Reservation), CliError> {
        let client = globals.client()?;
        // With the full id and the token everything is known: one round trip less, and none that could be refused.
        if let (Some(token), true) = (self.token, self.name.parse::<plimsoll_types::ReservationId>().is_ok())
        {
            let reservation = Reservation { id: self.name.clone(), token, ..Reservation::default() };
            return Ok((client, reservation));
        }
        let present = look_up(&client, &self.name, globals).await?;
        Ok((client, present))
    }

    fn report(
        &self,
        globals: &Globals,
        verb: &str,
        done: &str,
        answer: Result<Option<Reservation>, Error>,
    ) -> Result<Exit, CliError> {
        let answer =
            answer.map_err(|error| CliError::from(error).asked(format!("cannot {verb} {}", self.name)))?;
        let reservation = answer.unwrap_or_default();
        let out = globals.out();
        out.one(&reservation)?;
        let mut line = match self.dry_run {
            true => format!("would {verb} {}; nothing was changed", reservation.id),
            false => format!("{done} {} ({})", reservation.id, granted(&reservation)),
        };
        if !reservation.allocations.is_empty() {
            line.push_str(&format!(" on {}", places(&reservation.allocations)));
        }
        if reservation.lease_deadline_ms > 0 {
            line.push_str(&format!(", {} left", left(reservation.lease_deadline_ms, now_ms())));
        }
        out.done(&line);
        Ok(Exit::Done)
    }
}

/// The reservation of an id, a unique prefix of one, or a resource name.
pub(crate) async fn look_up(client: &Client, name: &str, globals: &Globals) -> Result<Reservation, Error> {
    look_up_at(client, name, globals, (0, 0)).await
}

/// The same as it was: `as_of` is a revision or a time, 0 for what is not given.
pub(crate) async fn look_up_at(
    client: &Client,
    name: &str,
    globals: &Globals,
    as_of: (u64, u64),
) -> Result<Reservation, Error> {
    let request = GetReservationRequest {
        name: name.to_owned(),
        consistency: globals.consistency(),
        as_of_revision: as_of.0,
        as_of_ms: as_of.1,
        ..GetReservationRequest::default()
    };
    Ok(client.get_reservation(request).await?.reservation.unwrap_or_default())
}
