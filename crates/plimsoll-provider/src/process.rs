//! Processes on this machine: `plimsoll agent` for a node, `plimsoll run` for a replica. They outlive the coordinator that started them, and
//! the next leader finds them by the label in their arguments: nothing is kept in a file that could be wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plimsoll_ledger::ScalingTarget;
use plimsoll_types::quantity::format_resource;
use tokio::process::Command;

use crate::{Ask, Machines, ProviderError, Started};

/// Label that marks a process, and the node or reservation that it makes.
const LABEL: &str = "plimsoll-machine";
/// How long a process has to end after TERM, before KILL.
const GRACE: Duration = Duration::from_secs(8);
/// Between two looks whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Processes of one program.
pub(crate) struct Process {
    program: PathBuf,
}

impl Process {
    pub(crate) fn new(program: PathBuf) -> Process {
        Process { program }
    }

    async fn launch(&self, ask: &Ask) -> Result<Started, ProviderError> {
        let mark = mark(ask);
        if let Some(pid) = find(&mark).first() {
            return Ok(Started { handle: pid.to_string(), node: String::new() });
        }
        let mut command = Command::new(&self.program);
        command.args(arguments(ask, &mark)?);
        if let Some(port) = port_of(ask)? {
            command.env("PORT", port.to_string());
        }
        // A group of its own: what ends the coordinator's group leaves it alone.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|error| {
            ProviderError::again(format!("{} does not start: {error}", self.program.display()))
        })?;
        let pid = child.id().map(|pid| pid.to_string()).unwrap_or_default();
        // Somebody has to wait for it, for as long as this coordinator runs: else its number stays taken.
        tokio::spawn(async move { child.wait().await });
        Ok(Started { handle: pid, node: String::new() })
    }
}

/// TERM for all such, and KILL for those that are still there after the grace; how many there were.
async fn end_where(is_marked: impl Fn(&[u8]) -> bool) -> Result<usize, ProviderError> {
    let deadline = tokio::time::Instant::now() + GRACE;
    let mut signal = Signal::SIGTERM;
    let mut told = Vec::new();
    let mut many = 0;
    loop {
        let found = find_where(&is_marked);
        if found.is_empty() {
            return Ok(many);
        }
        if tokio::time::Instant::now() > deadline && signal == Signal::SIGTERM {
            signal = Signal::SIGKILL;
            told.clear();
        }
        for pid in found {
            if told.contains(&pid) {
                continue;
            }
            told.push(pid);
            many = many.max(told.len());
            match kill(Pid::from_raw(pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => {
                    return Err(ProviderError::again(format!("process {pid} takes no signal: {error}")));
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Machines for Process {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        self.launch(ask).boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move {
            let mark = mark(ask);
            end_where(|word| word == mark.as_bytes()).await.map(drop)
        }
        .boxed()
    }
}

/// Ends every process of a scope on this machine, and says how many there were.
///
/// # Errors
/// Where one takes no signal.
pub async fn end_all(scope: &str) -> Result<usize, ProviderError> {
    let prefix = format!("{LABEL}={scope}.");
    end_where(|word| word.starts_with(prefix.as_bytes())).await
}

/// The argument that no other process has.
fn mark(ask: &Ask) -> String {
    format!("{LABEL}={}.{}", ask.scope, ask.machine)
}

/// Arguments of the agent, or of the replica's run.
fn arguments(ask: &Ask, mark: &str) -> Result<Vec<String>, ProviderError> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let template = &ask.template;
    let addresses = ask.addresses.join(",");
    match &ask.target {
        ScalingTarget::Pool(pool) => {
            add(&["agent", "--addr", &addresses, "--name", &ask.node, "--pool", pool, "--label", mark]);
            for (key, value) in &template.labels {
                add(&["--label", &format!("{key}={value}")]);
            }
            for (name, amount) in template.resources.iter() {
                add(&["--res", &format!("{name}={}", format_resource(name, amount.0))]);
            }
            let gpus: Vec<String> =
                template.devices.iter().map(|device| format!("{}:{}", device.model, device.count)).collect();
            if !gpus.is_empty() {
                add(&["--fake-gpu", &gpus.join(",")]);
            }
            let socket = std::env::temp_dir().join(format!("plimsoll-{}-{}.sock", ask.scope, ask.node));
            add(&["--socket", &socket.to_string_lossy()]);
        }
        ScalingTarget::Service(service) => {
            add(&["run", "--addr", &addresses, "--service", service, "--name", &ask.node, "--label", mark]);
            for (name, amount) in template.resources.iter() {
                let amount = format_resource(name, amount.0);
                match name {
                    "cpu" => add(&["--cpu", &amount]),
                    "memory" => add(&["--mem", &amount]),
                    other => add(&["--res", &format!("{other}={amount}")]),
                }
            }
            let port = port_of(ask)?.unwrap_or_default().to_string();
            add(&["--anywhere", "--listen", &format!("127.0.0.1:{port}"), "--"]);
            for word in &template.command {
                add(&[&word.replace("{port}", &port).replace("{name}", &ask.node)]);
            }
        }
    }
    Ok(arguments)
}

/// The port of a replica, from the dynamic range, by its number: the same for each call. `None` for nodes.
fn port_of(ask: &Ask) -> Result<Option<u16>, ProviderError> {
    if matches!(ask.target, ScalingTarget::Pool(_)) {
        return Ok(None);
    }
    // RFC 6335: 49152 to 65535 are nobody's.
    const FIRST: u64 = 49_152;
    const MANY: u64 = 16_384;
    let seed =
        ask.scope.bytes().fold(ask.machine, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    for step in 0..64 {
        let port = FIRST + (seed + step) % MANY;
        let port = u16::try_from(port).map_err(|error| ProviderError::never(error.to_string()))?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(Some(port));
        }
    }
    Err(ProviderError::again("none of 64 ports is free on this machine"))
}

/// Processes of this machine with the mark among their arguments, those that have ended and were not waited for excepted.
fn find(mark: &str) -> Vec<i32> {
    find_where(|word| word == mark.as_bytes())
}

fn find_where(is_marked: impl Fn(&[u8]) -> bool) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(&is_marked))
    };
    let mut found: Vec<i32> = numbers.filter(marked).collect();
    found.sort_unstable();
    found
}
