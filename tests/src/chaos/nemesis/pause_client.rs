//! A client process that holds a lease stops for longer than the lease lasts, and goes on as if nothing had been (P3): its lease is over,
//! somebody else may have what it held, and nothing that it tries with its old token succeeds.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::v1::ReservationState;
use plimsoll_client::{Client, v1};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Failed, Nemesis, Strike, Struck};
use crate::chaos::holder::{ATTEMPT, GRANTED, LOST, OVER, TRIED};
use crate::chaos::setup::{Carrier, Setup};
use crate::chaos::stage::Stage;
use crate::chaos_program;

/// Its lease.
const TTL_MS: u64 = 2_000;
/// Longest wait for the end of the lease: it may be a new leader's, who grants everybody a period.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct PauseClient;

/// The process.
struct Holder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Nemesis for PauseClient {
    fn name(&self) -> &'static str {
        "pause-client"
    }

    fn forbidden(&self, setup: &Setup) -> Option<String> {
        (setup.carrier == Carrier::Tun)
            .then(|| "its process has no certificates: not under --network tun".to_owned())
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let client = stage.client();
            let mut holder = Holder::start(stage)?;
            let granted = holder.line(GRANTED).await?;
            let mut words = granted.split_whitespace();
            let (id, token) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
            let token: u64 = token.parse().map_err(|_| format!("the holder said {granted:?}"))?;
            // Long enough for it to have renewed once: then it is well alive.
            tokio::time::sleep(Duration::from_millis(TTL_MS)).await;
            if state(&client, &id).await? != ReservationState::Active {
                return Err(Failed::Product(format!("{id} ended although its holder renews it")));
            }
            holder.signal(Signal::SIGSTOP)?;
            let paused = Instant::now();
            while state(&client, &id).await? != ReservationState::Expired {
                if paused.elapsed() > PATIENCE {
                    return Err(Failed::Product(format!("{id} is not over although nobody renews it")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let length = paused.elapsed();
            let second = second(&client).await?;
            if second.token <= token {
                return Err(Failed::Product(format!("token {token}, and later {}", second.token)));
            }
            holder.signal(Signal::SIGCONT)?;
            let reasons = holder.attempts(&second.id).await?;
            let kept = client.get_reservation(get(&second.id)).await.map_err(|error| error.to_string())?;
            let kept = kept.reservation.unwrap_or_default();
            if (kept.state(), kept.token) != (ReservationState::Active, second.token) {
                return Err(Failed::Product(format!("another's {} was touched: {kept:?}", second.id)));
            }
            let release =
                v1::ReleaseReservationRequest { name: second.id, token: second.token, ..Default::default() };
            client.release_reservation(release).await.map_err(|error| error.to_string())?;
            let target = format!("for {} ms; then {}", length.as_millis(), reasons.join(", "));
            Ok(Struck { target })
        })
    }
}

impl Holder {
    fn start(stage: &Stage) -> Result<Holder, String> {
        let mut child = Command::new(chaos_program())
            .args(["--hold", &stage.cluster.addresses().join(","), "--hold-ttl-ms", &TTL_MS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the holder does not start: {error}"))?;
        let out = child.stdout.take().ok_or_else(|| "it has a standard output".to_owned())?;
        Ok(Holder { child, lines: BufReader::new(out).lines() })
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| "it has ended".to_owned())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).map_err(|error| error.to_string())
    }

    /// The rest of the next line that begins so.
    async fn line(&mut self, begin: &str) -> Result<String, Failed> {
        loop {
            let line = self.next().await?;
            if let Some(rest) = line.strip_prefix(begin) {
                return Ok(rest.trim().to_owned());
            }
        }
    }

    async fn next(&mut self) -> Result<String, Failed> {
        let line = tokio::time::timeout(ATTEMPT + PATIENCE, self.lines.next_line()).await;
        match line {
            Ok(Ok(Some(line))) => Ok(line),
            other => Err(Failed::Harness(format!("the holder says no more: {other:?}"))),
        }
    }

    /// Lets it use its token on what it had and on another's; the reasons it was given.
    async fn attempts(&mut self, other: &str) -> Result<Vec<String>, Failed> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| "it has a standard input".to_owned())?;
        stdin.write_all(format!("{other}\n").as_bytes()).await.map_err(|error| error.to_string())?;
        let mut reasons = Vec::new();
        let mut is_told = false;
        loop {
            let line = self.next().await?;
            if line == OVER {
                break;
            }
            is_told |= line.starts_with(LOST);
            let Some(tried) = line.strip_prefix(TRIED) else { continue };
            let words: Vec<&str> = tried.split_whitespace().collect();
            match words[..] {
                [what, "refused", reason] => reasons.push(format!("{what} {reason}")),
                // Nobody knows, as with any client; the judges find it in the log where it was done.
                [what, "unknown", _] => reasons.push(format!("{what} unknown")),
                _ => return Err(Failed::Product(format!("with its old token: {tried}"))),
            }
        }
        if !is_told {
            self.line(LOST).await?;
        }
        Ok(reasons)
    }
}

fn get(name: &str) -> v1::GetReservationRequest {
    let consistency = v1::Consistency::Linearizable.into();
    v1::GetReservationRequest { name: name.to_owned(), consistency, ..Default::default() }
}

async fn state(client: &Client, name: &str) -> Result<ReservationState, String> {
    let shown = client.get_reservation(get(name)).await.map_err(|error| error.to_string())?;
    Ok(shown.reservation.unwrap_or_default().state())
}

/// Somebody else's grant, made when the first was over.
async fn second(client: &Client) -> Result<v1::Reservation, String> {
    let amounts = v1::Quantities { cpu_millis: 50, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: "second".to_owned(),
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms: 60_000,
        auto_confirm: true,
        ..Default::default()
    };
    let request = v1::CreateReservationRequest { spec: Some(spec), ..Default::default() };
    let made = client.create_reservation(request).await.map_err(|error| error.to_string())?;
    made.reservation.ok_or_else(|| "no reservation".to_owned())
}
