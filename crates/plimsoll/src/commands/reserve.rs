//! `plimsoll reserve`.

use std::time::{Duration, Instant};

use clap::Args;
use plimsoll_client::v1::{CreateReservationRequest, Reservation, ReservationState, WaitPolicy};

use crate::args::{Globals, ResourceArgs, duration};
use crate::blockers::{by_weight, sentence};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Out, absolute, asked, granted, places, short_duration};

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
    /// Later: 22:00 (this machine's clock), '22:00 Europe/Berlin', 2026-12-24T22:00Z; needs --for
    #[arg(long, value_name = "TIME", requires = "duration", conflicts_with_all = ["wait", "now"])]
    at: Option<String>,
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
        // Nobody sits there to confirm what starts at night.
        spec.auto_confirm = self.confirm || self.at.is_some();
        spec.start_at_ms = self.at.as_deref().map(start_ms).transpose()?.unwrap_or(0);
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
            ReservationState::Planned if is_advance(&reservation) => Exit::Done,
            ReservationState::Pending | ReservationState::Planned => Exit::Pending,
            ReservationState::Expired | ReservationState::Rejected => Exit::Refused,
            _ => Exit::Done,
        })
    }
}

/// True where it waits for its start, and not for others to leave the place that is kept for it.
fn is_advance(reservation: &Reservation) -> bool {
    reservation.allocations.is_empty() && reservation.spec.as_ref().is_some_and(|spec| spec.start_at_ms > 0)
}

/// The moment that `--at` names.
fn start_ms(text: &str) -> Result<u64, CliError> {
    if let Ok(moment_ms) = plimsoll_calendar::parse_moment_ms(text) {
        return Ok(moment_ms);
    }
    let here = || jiff::tz::TimeZone::system().iana_name().unwrap_or("UTC").to_owned();
    let (time, zone) = match text.split_once(' ') {
        Some((time, zone)) => (time, zone.trim().to_owned()),
        None => (text, here()),
    };
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    plimsoll_calendar::next_time_of_day(time, &zone, now_ms).map_err(|error| {
        CliError::usage(format!("--at {text:?}: {error}"))
            .help("write 22:00, '22:00 Europe/Berlin' or 2026-12-24T22:00:00Z")
    })
}

fn report(out: &Out, reservation: &Reservation, elapsed: Duration, dry_run: bool, wait: Option<Duration>) {
    let id = &reservation.id;
    let took = short_duration(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
    let what = granted(reservation);
    let place = places(&reservation.allocations);
    match reservation.state() {
        _ if dry_run => out.say(&format!("would reserve {what} on {place}; nothing was changed")),
        ReservationState::Planned if is_advance(reservation) => {
            let spec = reservation.spec.clone().unwrap_or_default();
            let start = absolute(spec.start_at_ms, false);
            out.done(&format!(
                "Planned {id} ({what}) from {start} for {}",
                short_duration(spec.max_duration_ms)
            ));
        }
        ReservationState::Pending | ReservationState::Planned => {
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
