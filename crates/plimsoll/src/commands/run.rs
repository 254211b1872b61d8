//! `plimsoll run`: reserve, start a command under the reservation, give it back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use plimsoll_agent::usage::{ProcessUsage, UsageMeter};
use plimsoll_client::v1::{
    Blocker, CancelReservationRequest, ErrorReason, GetNodeRequest, NodeSelectorTerm, PreemptionRule,
    Quantities, Reservation, ReservationSpec, ReservationState, SelectorOperator, WaitPolicy,
};
use plimsoll_client::{Client, Lease};
use plimsoll_types::quantity::{display_bytes, format_bytes, format_cpu_millis};

use super::process::{Running, Signals, exit_of};
use crate::args::{Globals, ResourceArgs, duration};
use crate::blockers::summary;
use crate::error::CliError;
use crate::exit::Exit;
use crate::host::{attach_to_agent, host_name};
use crate::output::{Out, StatusLine, asked, granted, places, short_duration};

/// Time between TERM and KILL for a command whose lease is lost.
const GRACE: Duration = Duration::from_secs(5);
/// Longest wait for the release at the end; the lease ends by itself where it fails.
const RELEASE_WAIT: Duration = Duration::from_secs(5);
/// Memory advice is never below this.
const LEAST_ADVICE_BYTES: u64 = 64 << 20;

/// Runs a command under a reservation. Without RESOURCES one core is asked for.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Wait in the queue for at most so long; without it as long as it takes
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "now")]
    wait: Option<Duration>,
    /// Be refused where nothing fits now
    #[arg(long)]
    now: bool,
    /// Take a grant on any node, although the command runs on this machine
    #[arg(long)]
    anywhere: bool,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

impl Run {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let client = globals.client()?;
        let mut signals = Signals::listen()?;
        let spec = self.spec(&client).await?;
        // The condition that the node is this one is ours: it is no news that other nodes do not meet it.
        let is_only_here = self.resources.require.is_empty()
            && spec.requirements.as_ref().is_some_and(|requirements| !requirements.required.is_empty());
        let started = Instant::now();
        let lease = match acquire(&client, spec, is_only_here, &out, &mut signals).await? {
            Ok(lease) => lease,
            Err(number) => {
                out.say("gave the place back");
                return Ok(Exit::Command(128 + u8::try_from(number as i32).unwrap_or(0)));
            }
        };
        let reservation = lease.reservation();
        out.done(&format!("{} granted in {}: {}", lease.id(), took(started.elapsed()), what(&reservation)));
        warn_of_another_machine(&reservation, &out);
        let mut env = lease.env();
        env.extend(connection(globals)?);

        let mut meter = UsageMeter::start();
        let outcome = self.under_lease(&lease, &env, &mut signals, &mut meter, &out).await;
        let usage = meter.finish();
        let id = lease.id().to_owned();
        let held = started.elapsed();
        match tokio::time::timeout(RELEASE_WAIT, lease.release()).await {
            Ok(Ok(released)) => {
                if released.preempted.is_some() {
                    out.say(&format!("{} {}", out.paint.strong("note:"), notice_of(&released)));
                }
                out.done(&format!(
                    "{id} released after {} {}",
                    took(held),
                    used_line(&usage, &reservation, &out)
                ));
            }
            Ok(Err(error)) if error.reason() == Some(ErrorReason::Fenced) => {
                // It was taken back, and waits for another grant that nobody here would use.
                let request =
                    CancelReservationRequest { name: id.clone(), ..CancelReservationRequest::default() };
                let cancelled = client.cancel_reservation(request).await;
                let what =
                    if cancelled.is_ok() { "taken back, and out of the queue now" } else { "taken back" };
                out.say(&format!("{id} was {what}"));
            }
            Ok(Err(error)) => out.say(&format!("{id} was not released: {error}; it ends by itself")),
            Err(_) => out.say(&format!("{id} was not released in time; it ends by itself")),
        }
        outcome
    }

    async fn spec(&self, client: &Client) -> Result<ReservationSpec, CliError> {
        let mut spec = self.resources.spec()?;
        let requirements = spec.requirements.get_or_insert_default();
        if self.resources.is_empty() {
            requirements.amounts = Some(Quantities { cpu_millis: 1_000, ..Quantities::default() });
        }
        if spec.gang.is_none() && !self.anywhere {
            let here = host_name();
            let request = GetNodeRequest { name: here.clone(), ..GetNodeRequest::default() };
            // The command runs on this machine: where the cluster knows it, the grant must be here too.
            if client.get_node(request).await.is_ok() {
                let operator = SelectorOperator::In.into();
                requirements.required.push(NodeSelectorTerm {
                    key: "node".to_owned(),
                    operator,
                    values: vec![here],
                });
            }
        }
        let deadline_ms = self.wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        spec.wait = (!self.now).then_some(WaitPolicy { queue: true, deadline_ms });
        Ok(spec)
    }

    /// Runs the command until it ends, or until its lease is lost.
    async fn under_lease(
        &self,
        lease: &Lease,
        env: &BTreeMap<String, String>,
        signals: &mut Signals,
        meter: &mut UsageMeter,
        out: &Out,
    ) -> Result<Exit, CliError> {
        let mut running = Running::start(&self.command, env)?;
        if let Some(pid) = running.pid() {
            attach_to_agent(lease.token(), pid).await;
        }
        let mut sample = tokio::time::interval(Duration::from_millis(500));
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut kill_at: Option<tokio::time::Instant> = None;
        let (mut lost, mut leaving) = (false, false);
        loop {
            tokio::select! {
                status = running.wait() => {
                    let status = status?;
                    // The agent of this machine may have ended it for a lease that this side still believed in.
                    let killed = status.code().is_none() && !lost && !lease.is_alive().await;
                    if killed {
                        out.say(&format!("{} the lease of {} ended, so the command was stopped", out.paint.bad("error:"), lease.id()));
                    }
                    return Ok(if lost || killed { Exit::RunFailed } else { exit_of(status) });
                }
                number = signals.next() => running.forward(number),
                notice = lease.preempted(), if !leaving => {
                    leaving = true;
                    let left = lease.deadline().saturating_duration_since(tokio::time::Instant::now());
                    out.say(&format!("{} {}; the command has {} to stop", out.paint.bad("notice:"), notice_of(&notice), took(left)));
                    running.send(Signal::SIGTERM);
                    kill_at = Some(lease.deadline());
                }
                error = lease.lost(), if !lost => {
                    lost = true;
                    out.say(&format!("{} {error}; stopping the command", out.paint.bad("error:")));
                    running.send(Signal::SIGTERM);
                    kill_at = Some(tokio::time::Instant::now() + GRACE);
                }
                () = sleep_until(kill_at) => {
                    running.send(Signal::SIGKILL);
                    kill_at = None;
                }
                _ = sample.tick() => if let Some(pid) = running.pid() { meter.sample(pid) },
            }
        }
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What is known of the wait, for the line on the terminal.
#[derive(Default)]
struct Waiting {
    id: String,
    rank: u64,
    queue_length: u64,
    blockers: Vec<Blocker>,
}

/// Asks and waits; a signal gives the place back, and comes back instead of a lease.
async fn acquire(
    client: &Client,
    spec: ReservationSpec,
    is_only_here: bool,
    out: &Out,
    signals: &mut Signals,
) -> Result<Result<Lease, Signal>, CliError> {
    let what = asked(&spec);
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
    let acquired = Lease::acquire_until(
        client,
        spec,
        |reservation, step| {
            if matches!(reservation.state(), ReservationState::Pending | ReservationState::Planned) {
                let (rank, queue_length) = step.map_or((0, 0), |step| (step.rank, step.queue_length));
                let mut blockers = on_this_machine(&reservation.blockers, is_only_here);
                let mut waiting = lock();
                if let (true, Some(before)) = (blockers.is_empty(), waiting.take()) {
                    // Once it has left the queue, what it waited for is what it was told last.
                    blockers = before.blockers;
                }
                *waiting = Some(Waiting { id: reservation.id.clone(), rank, queue_length, blockers });
            }
        },
        give_up,
    )
    .await;
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
    parts.extend(Some(waiting.short()).filter(|short| !short.is_empty()));
    parts.push("Ctrl-C gives up".to_owned());
    parts.join(&dot)
}

/// Why the grant is taken back.
fn notice_of(reservation: &Reservation) -> String {
    let preempted = reservation.preempted.clone().unwrap_or_default();
    let why = match preempted.rule() {
        PreemptionRule::Reclaim => "whose queue takes back what it had lent",
        _ => "of a higher class",
    };
    format!("{} is taken back for {}, {why}", reservation.id, preempted.by)
}

/// What was granted, and where.
fn what(reservation: &Reservation) -> String {
    let here = host_name();
    let all_here = reservation.allocations.iter().all(|allocation| allocation.node == here);
    let place = if all_here { "this machine".to_owned() } else { places(&reservation.allocations) };
    let devices: Vec<&str> = reservation
        .allocations
        .iter()
        .flat_map(|allocation| &allocation.devices)
        .map(|device| device.uuid.as_str())
        .collect();
    let devices = if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
    format!("{}{devices} on {place}", granted(reservation))
}

fn warn_of_another_machine(reservation: &Reservation, out: &Out) {
    let here = host_name();
    if !reservation.allocations.iter().any(|allocation| allocation.node == here) {
        out.say(&format!(
            "{} the command runs on this machine, which is not the one granted",
            out.paint.strong("note:")
        ));
    }
}

/// Variables with which `plimsoll` in the command reaches the same cluster.
fn connection(globals: &Globals) -> Result<BTreeMap<String, String>, CliError> {
    let settings = crate::settings::Settings::resolve(globals)?;
    let mut env = BTreeMap::from([("PLIMSOLL_ADDR".to_owned(), settings.addresses.0.join(","))]);
    for (name, path) in
        [("PLIMSOLL_CA", settings.ca.0), ("PLIMSOLL_CERT", settings.cert.0), ("PLIMSOLL_KEY", settings.key.0)]
    {
        env.extend(path.map(|path| (name.to_owned(), path.display().to_string())));
    }
    Ok(env)
}

/// The used-versus-granted line.
fn used_line(usage: &ProcessUsage, reservation: &Reservation, out: &Out) -> String {
    let amounts = reservation.amounts.clone().unwrap_or_default();
    let dot = out.paint.dot();
    let tenths = usage.mean_cpu_millis().div_ceil(100);
    let cores = format!("{}.{}", tenths / 10, tenths % 10);
    let peak = display_bytes(usage.peak_rss_bytes.div_ceil(1 << 20) << 20);
    let mut parts = Vec::new();
    match amounts.memory_bytes {
        0 => parts.push(format!("peak {peak}")),
        granted => parts.push(format!("peak {peak} of {}", display_bytes(granted))),
    }
    match amounts.cpu_millis {
        0 => parts.push(format!("{cores} cpu")),
        granted => parts.push(format!("{cores} of {} cpu", format_cpu_millis(granted))),
    }
    let text = format!("{dot} {}", parts.join(", "));
    match advice(usage, &amounts) {
        Some(advice) => format!("{text} {dot} next time {advice} would do"),
        None => text,
    }
}

/// What would have been enough, where it is clearly less than what was granted.
fn advice(usage: &ProcessUsage, granted: &Quantities) -> Option<String> {
    // A quarter above the mean, in whole cores; twice the peak, in powers of two.
    let cores = (usage.mean_cpu_millis() + usage.mean_cpu_millis() / 4).div_ceil(1_000).max(1);
    let memory =
        (usage.peak_rss_bytes.saturating_mul(2)).max(LEAST_ADVICE_BYTES).checked_next_power_of_two()?;
    let mut parts = Vec::new();
    if granted.cpu_millis > cores * 1_000 {
        parts.push(format!("--cpu {cores}"));
    }
    if granted.memory_bytes > memory {
        parts.push(format!("--mem {}", format_bytes(memory)));
    }
    Some(parts.join(" ")).filter(|text| !text.is_empty())
}

fn took(elapsed: Duration) -> String {
    short_duration(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_where_much_less_would_do() {
        let usage =
            ProcessUsage { peak_rss_bytes: 14 << 20, cpu_user_ms: 20, cpu_system_ms: 0, elapsed_ms: 200 };
        let granted = Quantities { cpu_millis: 2_000, memory_bytes: 1 << 30, ..Quantities::default() };
        assert_eq!(advice(&usage, &granted).as_deref(), Some("--cpu 1 --mem 64Mi"));
        let right = Quantities { cpu_millis: 1_000, memory_bytes: 64 << 20, ..Quantities::default() };
        assert_eq!(advice(&usage, &right), None);
    }
}
