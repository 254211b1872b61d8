//! `plimsoll reserve`.

use std::time::{Duration, Instant};

use clap::Args;
use plimsoll_client::v1::{CreateReservationRequest, Reservation, ReservationState, WaitPolicy};

use crate::args::{Globals, ResourceArgs, duration};
use crate::blockers::{by_weight, sentence};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Out, asked, granted, places, short_duration};

/// Reserves resources.
#[derive(Args, Debug)]
pub(crate) struct Reserve {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Time to confirm the grant in
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    hold: Option<Duration>,
    /// Take the grant up at once, with no confirm step
    #[arg(long)]
    confirm: bool,
    /// Wait in the queue for at most so long; without it the command returns at once
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "now")]
    wait: Option<Duration>,
    /// Be refused where nothing fits now
    #[arg(long)]
    now: bool,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
    /// Idempotency key, 16 to 64 characters: the same key gets the first answer again
    #[arg(long, value_name = "KEY")]
    request_id: Option<String>,
}

impl Reserve {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut spec = self.resources.spec()?;
        if self.resources.is_empty() {
            return Err(CliError::usage("nothing is asked for").help("say what: --cpu 2 --mem 4Gi --gpu 1"));
        }
        let as_ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        spec.auto_confirm = self.confirm;
        spec.hold_ms = self.hold.map_or(0, as_ms);
        // Nobody renews what a command line reserved: with an end it is kept until then.
        if spec.ttl_ms == 0 {
            spec.ttl_ms = spec.max_duration_ms;
        }
        spec.wait = (!self.now).then(|| WaitPolicy { queue: true, deadline_ms: self.wait.map_or(0, as_ms) });
        let what = format!("cannot reserve {}", asked(&spec));
        let client = globals.client()?;
        let started = Instant::now();
        let request = CreateReservationRequest {
            spec: Some(spec),
            request_id: self.request_id.unwrap_or_default(),
            validate_only: self.dry_run,
        };
        let created =
            client.create_reservation(request).await.map_err(|error| CliError::from(error).asked(what))?;
        let mut reservation = created.reservation.unwrap_or_default();
        if let (ReservationState::Pending, Some(longest), false) =
            (reservation.state(), self.wait, self.dry_run)
        {
            reservation = client.wait_reservation(&reservation.id, Some(longest), |_| {}).await?;
        }
        let out = globals.out();
        out.one(&reservation)?;
        report(&out, &reservation, started.elapsed(), self.dry_run, self.wait);
        Ok(match reservation.state() {
            ReservationState::Pending | ReservationState::Planned => Exit::Pending,
            ReservationState::Expired | ReservationState::Rejected => Exit::Refused,
            _ => Exit::Done,
        })
    }
}

fn report(out: &Out, reservation: &Reservation, elapsed: Duration, dry_run: bool, wait: Option<Duration>) {
    let id = &reservation.id;
    let took = short_duration(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    let what = granted(reservation);
    let place = places(&reservation.allocations);
    match reservation.state() {
        _ if dry_run => out.say(&format!("would reserve {what} on {place}; nothing was changed")),
        ReservationState::Pending => {
            out.say(&format!("{} {id} waits ({what})", out.paint.waiting()));
            for blocker in &by_weight(&reservation.blockers) {
                out.say(&format!("  {} {}", out.paint.bullet(), sentence(blocker)));
            }
            match wait {
                Some(_) => out.say(&format!("  not placed in {took}: it leaves the queue now")),
                None => out.say(&format!("  plimsoll explain {id} says what would help")),
            }
        }
        ReservationState::Held => {
            out.done(&format!(
                "Reserved {id} ({what}) on {place} in {took}; confirm it: plimsoll confirm {id}"
            ));
        }
        ReservationState::Active | ReservationState::Partial => {
            out.done(&format!("Reserved {id} ({what}) on {place} in {took}"));
        }
        state => out.say(&format!("{id} is {}", crate::output::reservation_state(state))),
    }
}
