//! Asking for a grant and waiting for it, with a line that says how the wait goes.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::v1::{
    Blocker, ErrorReason, Reservation, ReservationSpec, ReservationState, StartEstimate,
    WaitReservationResponse,
};
use plimsoll_client::{Client, Lease};

use super::report::took;
use crate::blockers::summary;
use crate::commands::process::Signals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Out, StatusLine, asked, expected_start};

/// What is known of the wait, for the line on the terminal.
#[derive(Default)]
struct Waiting {
    id: String,
    rank: u64,
    queue_length: u64,
    blockers: Vec<Blocker>,
    start: Option<StartEstimate>,
}

/// What is waited for.
pub(super) enum Wanted {
    /// A reservation that nobody has asked for yet.
    New(Box<ReservationSpec>),
    /// The next grant of one that was taken back.
    Again(Box<Reservation>),
}

/// Asks and waits; a signal gives the place back, and comes back instead of a lease.
pub(super) async fn acquire(
    client: &Client,
    wanted: Wanted,
    is_only_here: bool,
    out: &Out,
    signals: &mut Signals,
) -> Result<Result<Lease, Signal>, CliError> {
    let what = match &wanted {
        Wanted::New(spec) => asked(spec),
        Wanted::Again(reservation) => asked(&reservation.spec.clone().unwrap_or_default()),
    };
    let waiting: Mutex<Option<Waiting>> = Mutex::new(None);
    let lock = || waiting.lock().expect("nothing panics while it is held, so the lock is never poisoned");
    let mut ended_by = None;
    let started = Instant::now();
    let give_up = async {
        let mut line = StatusLine::new(out);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                number = signals.next_end() => {
                    ended_by = Some(number);
                    break;
                }
                _ = tick.tick() => {
                    // Its first words wait a moment for the place in the queue.
                    let known = |waiting: &&Waiting| waiting.rank > 0 || started.elapsed() > Duration::from_secs(2);
                    let shown = lock().as_ref().filter(known).map(|waiting| (waiting_line(waiting, started.elapsed(), out), waiting.short()));
                    if let Some((text, stable)) = shown {
                        line.show(&text, &stable);
                    }
                }
            }
        }
    };
    let seen = |reservation: &Reservation, step: Option<&WaitReservationResponse>| {
        if matches!(reservation.state(), ReservationState::Pending | ReservationState::Planned) {
            let (rank, queue_length) = step.map_or((0, 0), |step| (step.rank, step.queue_length));
            let mut blockers = on_this_machine(&reservation.blockers, is_only_here);
            let mut waiting = lock();
            if let (true, Some(before)) = (blockers.is_empty(), waiting.take()) {
                // Once it has left the queue, what it waited for is what it was told last.
                blockers = before.blockers;
            }
            let start = reservation.start.clone();
            *waiting = Some(Waiting { id: reservation.id.clone(), rank, queue_length, blockers, start });
        }
    };
    let acquired = match wanted {
        Wanted::New(spec) => Lease::acquire_until(client, *spec, seen, give_up).await,
        Wanted::Again(taken) => Lease::acquire_again(client, &taken.id, seen, give_up).await,
    };
    match acquired {
        Ok(Some(lease)) => Ok(Ok(lease)),
        Ok(None) => Ok(Err(ended_by.unwrap_or(Signal::SIGINT))),
        Err(error) => {
            let waited = lock().take();
            let asked = format!("cannot run with {what}");
            Err(match (error, waited) {
                // Its wait ran out in the queue, or somebody cancelled it there.
                (plimsoll_client::Error::LeaseLost { .. }, Some(waiting)) => {
                    let short = Some(waiting.short()).filter(|short| !short.is_empty());
                    let short = short.map_or_else(String::new, |short| format!(": {short}"));
                    let text =
                        format!("{} left the queue after {}{short}", waiting.id, took(started.elapsed()));
                    CliError::new(Exit::Pending, "EXPIRED", text)
                        .asked(asked)
                        .help("wait longer, ask for less, or leave out --wait to wait as long as it takes")
                }
                (plimsoll_client::Error::Refused(mut refused), _) if is_only_here => {
                    let before = refused.blockers.len();
                    let first = refused.blockers.first().map(|first| first.message.clone());
                    refused.blockers = on_this_machine(&refused.blockers, is_only_here);
                    let is_other_place = refused.blockers.len() < before;
                    if let (Some(first), Some(kept)) = (first, refused.blockers.first())
                        && refused.message.starts_with(&first)
                    {
                        refused.message.clone_from(&kept.message);
                    }
                    let error = CliError::from(plimsoll_client::Error::Refused(refused)).asked(asked);
                    let help = "the command runs on this machine, so no other counts; with --anywhere all do";
                    if is_other_place { error.help(help) } else { error }
                }
                (error, _) => CliError::from(error).asked(asked),
            })
        }
    }
}

/// What stands in the way here: that other nodes are not this machine does not, unless it is all there is.
fn on_this_machine(blockers: &[Blocker], is_only_here: bool) -> Vec<Blocker> {
    let about_here = |blocker: &&Blocker| blocker.reason() != ErrorReason::LabelMismatch;
    let kept: Vec<Blocker> = blockers.iter().filter(about_here).cloned().collect();
    if is_only_here && !kept.is_empty() { kept } else { blockers.to_vec() }
}

impl Waiting {
    fn short(&self) -> String {
        summary(&self.blockers)
    }
}

fn waiting_line(waiting: &Waiting, elapsed: Duration, out: &Out) -> String {
    let dot = format!(" {} ", out.paint.dot());
    let mut parts = vec![format!("{} {} waiting {}", out.paint.waiting(), waiting.id, took(elapsed))];
    if waiting.rank > 0 {
        parts.push(format!("rank {} of {}", waiting.rank, waiting.queue_length.max(waiting.rank)));
    }
    let start = expected_start(waiting.start.as_ref(), &out.view());
    parts.extend(Some(start).filter(|start| !start.is_empty()).map(|start| format!("starts {start}")));
    parts.extend(Some(waiting.short()).filter(|short| !short.is_empty()));
    parts.push("Ctrl-C gives up".to_owned());
    parts.join(&dot)
}
