//! `plimsoll run`: reserve, start a command under the reservation, give it back.

mod limits;
mod replica;
mod report;
mod waiting;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use plimsoll_agent::usage::UsageMeter;
use plimsoll_client::v1::{
    CancelReservationRequest, ErrorReason, GetNodeRequest, GetReservationRequest, NodeSelectorTerm,
    OnInterruption, OnPreempt, PreemptionRule, Quantities, Reservation, ReservationSpec, ReservationState,
    SelectorOperator, WaitPolicy,
};
use plimsoll_client::{Client, Error, Lease, Standing};

use self::limits::{LimitArgs, Limited};
use self::replica::Replica;
use self::report::{notice_of, took, used_line, warn_of_another_machine, what};
use self::waiting::{Wanted, acquire};
use super::process::{Running, Signals, ends, exit_of};
use crate::args::{Globals, ResourceArgs, duration};
use crate::error::CliError;
use crate::exit::Exit;
use crate::host::{AGENT_SOCKET, agent_socket, attach_to_agent, host_name};
use crate::output::Out;

/// What a command is sent that is to save what it has.
const CHECKPOINT: Signal = Signal::SIGUSR1;
/// Time between TERM and KILL for a command that saved what it has, or half of what is left where that is less.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Time between TERM and KILL for a command whose lease is lost.
const GRACE: Duration = Duration::from_secs(5);
/// Longest wait for the release at the end; the lease ends by itself where it fails.
const RELEASE_WAIT: Duration = Duration::from_secs(5);

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
    /// Start the command again, at most so often, where it ends with another code than 0
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    retries: u32,
    /// With --service: where the command listens. It is announced once it does
    #[arg(long, value_name = "HOST:PORT", requires = "service")]
    listen: Option<String>,
    /// With --listen: what asks the command to stop reaches it so much later, when its clients have heard that it drains. A second signal does at once
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s", requires = "listen")]
    drain_for: Duration,
    #[command(flatten)]
    limits: LimitArgs,
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
        // Before anything is asked for: where limits are required and cannot be had, nothing is.
        let tree = self.limits.tree(&out)?;
        // The condition that the node is this one is ours: it is no news that other nodes do not meet it.
        let is_only_here = self.resources.require.is_empty()
            && spec.requirements.as_ref().is_some_and(|requirements| !requirements.required.is_empty());
        let mut wanted = Wanted::New(Box::new(spec));
        let mut attempts = Attempts { started: 0, retries_left: self.retries };
        loop {
            let started = Instant::now();
            let lease = match acquire(&client, wanted, is_only_here, &out, &mut signals).await? {
                Ok(lease) => lease,
                Err(number) => {
                    out.say("gave the place back");
                    return Ok(Exit::Command(128 + u8::try_from(number as i32).unwrap_or(0)));
                }
            };
            let granted = lease.reservation();
            out.done(&format!("{} granted in {}: {}", lease.id(), took(started.elapsed()), what(&granted)));
            warn_of_another_machine(&granted, &out);
            let mut env = lease.env();
            env.extend(connection(globals)?);
            // There the command says its load, and asks whether its token is still good.
            let socket = Some(agent_socket()).filter(|socket| socket.exists());
            env.extend(socket.map(|socket| (AGENT_SOCKET.to_owned(), socket.to_string_lossy().into_owned())));

            let limited = self.limits.group(tree.as_ref(), &granted, &out)?;
            let replica = self.listen.as_ref().map(|address| Replica::watch(&client, &lease, address, &out));
            let mut meter = UsageMeter::start();
            let mut at_hand =
                AtHand { signals: &mut signals, meter: &mut meter, replica, limited, out: &out };
            let came = self.under_lease(&lease, &mut env, &mut attempts, &mut at_hand).await;
            let AtHand { limited, replica, .. } = at_hand;
            drop(replica);
            let mut usage = meter.finish();
            if let Some(limited) = limited {
                usage = limited.used(usage);
                limited.end().await;
            }
            let used = used_line(&usage, &granted, &out);
            let gone = match came {
                Ok(Came::TakenBack(exit)) => match step_aside(&client, lease, &out).await {
                    Some(waiting) => {
                        out.done(&format!("{} stopped after {} {used}", waiting.id, took(started.elapsed())));
                        wanted = Wanted::Again(Box::new(waiting));
                        continue;
                    }
                    None => return Ok(exit),
                },
                Ok(Came::Ended(exit)) => Ok(exit),
                Err(error) => Err(error),
            };
            give_back(&client, lease, &format!("after {} {used}", took(started.elapsed())), &out).await;
            return gone;
        }
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

    /// Runs the command until it ends, or until its lease is lost; again where it failed and may be tried again.
    async fn under_lease(
        &self,
        lease: &Lease,
        env: &mut BTreeMap<String, String>,
        attempts: &mut Attempts,
        at_hand: &mut AtHand<'_>,
    ) -> Result<Came, CliError> {
        loop {
            attempts.started += 1;
            env.insert("PLIMSOLL_ATTEMPT".to_owned(), attempts.started.to_string());
            match self.once(lease, env, at_hand).await? {
                Stopped::ByItself(Exit::Command(code)) if attempts.retries_left > 0 => {
                    let left = attempts.retries_left;
                    attempts.retries_left -= 1;
                    at_hand.out.say(&format!(
                        "the command ended with {code}; starting it again, {left} of {} retries left",
                        self.retries
                    ));
                }
                Stopped::ByItself(exit) | Stopped::Asked(exit) => return Ok(Came::Ended(exit)),
                Stopped::AtNotice(exit) | Stopped::Lost(exit) if waits_again(&lease.reservation()) => {
                    return Ok(Came::TakenBack(exit));
                }
                Stopped::AtNotice(exit) | Stopped::Lost(exit) => return Ok(Came::Ended(exit)),
            }
        }
    }

    /// Runs the command once.
    async fn once(
        &self,
        lease: &Lease,
        env: &BTreeMap<String, String>,
        at_hand: &mut AtHand<'_>,
    ) -> Result<Stopped, CliError> {
        let AtHand { signals, meter, replica, limited, out } = at_hand;
        let mut running = Running::start(&self.command, env, limited.as_ref().map(Limited::group))?;
        if let Some(pid) = running.pid() {
            attach_to_agent(lease.token(), pid).await;
        }
        let mut sample = tokio::time::interval(Duration::from_millis(500));
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut kill_at: Option<tokio::time::Instant> = None;
        // What it is sent then, and when.
        let mut later: Option<(tokio::time::Instant, Signal)> = None;
        let (mut lost, mut leaving, mut asked) = (false, false, false);
        loop {
            tokio::select! {
                status = running.wait() => {
                    let status = status?;
                    if let Some(limited) = limited {
                        // What it left behind ends with it: the grant goes back.
                        limited.kill();
                        limited.tell_of_oom(out);
                    }
                    // The agent of this machine may have stopped it before this side has heard that the lease ended, or is to end.
                    let standing = if lost || leaving { Standing::Granted } else { lease.standing().await };
                    leaving |= standing == Standing::Leaving;
                    let killed = standing == Standing::Gone && status.code().is_none();
                    if killed {
                        out.say(&format!("{} the lease of {} ended, so the command was stopped", out.paint.bad("error:"), lease.id()));
                    }
                    return Ok(match (lost || killed, exit_of(status)) {
                        (true, _) if asked => Stopped::Asked(Exit::RunFailed),
                        (true, _) => Stopped::Lost(Exit::RunFailed),
                        (false, exit) if asked => Stopped::Asked(exit),
                        (false, exit) if leaving => Stopped::AtNotice(exit),
                        (false, exit) => Stopped::ByItself(exit),
                    });
                }
                number = signals.next() => {
                    let is_first = ends(number) && !asked;
                    asked |= ends(number);
                    match replica {
                        Some(replica) if is_first && replica.drain() && !self.drain_for.is_zero() => {
                            later = Some((tokio::time::Instant::now() + self.drain_for, number));
                        }
                        _ => running.forward(number),
                    }
                }
                notice = lease.preempted(), if !leaving => {
                    leaving = true;
                    let drains = replica.as_ref().is_some_and(Replica::drain);
                    let left = lease.deadline().saturating_duration_since(tokio::time::Instant::now());
                    out.say(&format!("{} {}; the command has {} to stop", out.paint.bad("notice:"), notice_of(&notice), took(left)));
                    kill_at = Some(lease.deadline());
                    if saves_first(&notice) {
                        running.send(CHECKPOINT);
                        later = Some((lease.deadline() - LAST_WORDS.min(left / 2), Signal::SIGTERM));
                    } else if drains {
                        later = Some((tokio::time::Instant::now() + self.drain_for.min(left / 2), Signal::SIGTERM));
                    } else {
                        running.send(Signal::SIGTERM);
                    }
                }
                () = sleep_until(later.map(|(at, _)| at)) => {
                    if let Some((_, number)) = later.take() {
                        running.forward(number);
                    }
                }
                error = lease.lost(), if !lost => {
                    lost = true;
                    out.say(&format!("{} {error}; stopping the command", out.paint.bad("error:")));
                    running.send(Signal::SIGTERM);
                    kill_at = Some(tokio::time::Instant::now() + GRACE);
                }
                () = sleep_until(kill_at) => {
                    running.send(Signal::SIGKILL);
                    if let Some(limited) = limited {
                        limited.kill();
                    }
                    kill_at = None;
                }
                _ = sample.tick() => {
                    if let Some(pid) = running.pid() {
                        meter.sample(pid);
                    }
                    if let Some(limited) = limited {
                        limited.follow(&lease.reservation(), out);
                    }
                }
            }
        }
    }
}

/// What every start of the command is looked after with.
struct AtHand<'a> {
    signals: &'a mut Signals,
    meter: &'a mut UsageMeter,
    replica: Option<Replica>,
    limited: Option<Limited>,
    out: &'a Out,
}

/// Starts of the command so far, and how often it may fail from here on.
struct Attempts {
    started: u32,
    retries_left: u32,
}

/// What came of the time under a lease.
enum Came {
    /// The command has ended.
    Ended(Exit),
    /// It was stopped, and goes on with the next grant where the reservation waits for one.
    TakenBack(Exit),
}

/// Why a command is no longer running.
enum Stopped {
    ByItself(Exit),
    /// By somebody who sent this process a signal.
    Asked(Exit),
    /// Within the grace after the notice.
    AtNotice(Exit),
    /// The lease was gone.
    Lost(Exit),
}

/// True for a reservation that waits again in the queue when its grant is taken back.
fn waits_again(reservation: &Reservation) -> bool {
    let spec = reservation.spec.clone().unwrap_or_default();
    let ends = match (is_interrupted(reservation), spec.on_interruption()) {
        (false, _) | (true, OnInterruption::Unspecified) => spec.on_preempt() == OnPreempt::End,
        (true, what) => what == OnInterruption::Fail,
    };
    !ends && spec.wait.is_some_and(|wait| wait.queue)
}

/// True for a reservation that leaves since the provider takes its node back.
fn is_interrupted(reservation: &Reservation) -> bool {
    reservation.preempted.as_ref().is_some_and(|known| known.rule() == PreemptionRule::Interruption)
}

/// True where the command is to save what it has before it is asked to stop.
fn saves_first(reservation: &Reservation) -> bool {
    let spec = reservation.spec.as_ref();
    is_interrupted(reservation)
        && spec.is_some_and(|spec| spec.on_interruption() == OnInterruption::CheckpointAndRetry)
}

/// Gives up the rest of a grace, or finds out what became of a grant that is gone; the reservation where it waits for another one.
async fn step_aside(client: &Client, lease: Lease, out: &Out) -> Option<Reservation> {
    let id = lease.id().to_owned();
    // The command may have been stopped by the agent of this machine, before any renewal brought the news.
    let was_told = lease.reservation().preempted.is_some();
    let left = match lease.requeue().await {
        Ok(left) => Ok(left),
        Err(Error::Refused(_)) => {
            let request = GetReservationRequest { name: id.clone(), ..GetReservationRequest::default() };
            client.get_reservation(request).await.map(|answer| answer.reservation.unwrap_or_default())
        }
        Err(error) => Err(error),
    };
    match left {
        Ok(left) if matches!(left.state(), ReservationState::Pending | ReservationState::Planned) => {
            if !was_told {
                out.say(&format!("{} {}", out.paint.bad("notice:"), notice_of(&left)));
            }
            Some(left)
        }
        Ok(left) => {
            let how = left.state().as_str_name().trim_start_matches("RESERVATION_STATE_").to_lowercase();
            out.say(&format!("{id} is {how}"));
            None
        }
        Err(error) => {
            out.say(&format!("{id} was not given back: {error}; it ends by itself"));
            None
        }
    }
}

/// Releases a lease; `after` what time, with what was used of it.
async fn give_back(client: &Client, lease: Lease, after: &str, out: &Out) {
    let id = lease.id().to_owned();
    match tokio::time::timeout(RELEASE_WAIT, lease.release()).await {
        Ok(Ok(released)) => {
            if released.preempted.is_some() {
                out.say(&format!("{} {}", out.paint.strong("note:"), notice_of(&released)));
            }
            out.done(&format!("{id} released {after}"));
        }
        Ok(Err(error)) if error.reason() == Some(ErrorReason::Fenced) => {
            // It was taken back, and waits for another grant that nobody here would use.
            let request =
                CancelReservationRequest { name: id.clone(), ..CancelReservationRequest::default() };
            let cancelled = client.cancel_reservation(request).await;
            let what = if cancelled.is_ok() { "taken back, and out of the queue now" } else { "taken back" };
            out.say(&format!("{id} was {what}"));
        }
        Ok(Err(error)) => out.say(&format!("{id} was not released: {error}; it ends by itself")),
        Err(_) => out.say(&format!("{id} was not released in time; it ends by itself")),
    }
}

async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
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
