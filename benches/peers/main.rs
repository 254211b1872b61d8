//! Plimsoll beside etcd, in one run on one machine, with one loader: grants, failover, restart.
//!
//! `cargo run --release -p plimsoll-benches --bin peers -- grants|failover|restart [--plimsoll PATH]`
//!
//! etcd's side is what `performance.md` B1 calls "reserve": one transaction that compares a node key's revision, puts the
//! node key and puts a 160-byte reservation key under a lease. Each client has a node key of its own: no contention, its
//! best case. Three members with their defaults, every write synced. Needs Debian's etcd-server.

mod etcd;
mod failover;
mod grants;
mod restart;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::Value;

/// What went wrong, in words.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut plimsoll = beside_this();
    if let Some(at) = arguments.iter().position(|argument| argument == "--plimsoll")
        && at + 1 < arguments.len()
    {
        plimsoll = PathBuf::from(arguments.remove(at + 1));
        arguments.remove(at);
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let outcome = match arguments.first().map(String::as_str) {
        Some("grants") => runtime.block_on(grants::run(&plimsoll)),
        Some("failover") => runtime.block_on(failover::run(&plimsoll, number(&arguments, 20))),
        Some("restart") => runtime.block_on(restart::run(&plimsoll, number(&arguments, 1_000_000))),
        _ => {
            Err("usage: peers grants | failover [KILLS] | restart [RESERVATIONS]   [--plimsoll PATH]".into())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The binary built together with this one.
fn beside_this() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    this.with_file_name("plimsoll")
}

fn number(arguments: &[String], default: usize) -> usize {
    arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `plimsoll bench ... -o json` and reads its document.
async fn plimsoll_bench(plimsoll: &std::path::Path, arguments: &[&str]) -> Result<Value, Error> {
    let mut command = tokio::process::Command::new(plimsoll);
    command.arg("bench").args(arguments).args(["-o", "json"]).stderr(std::process::Stdio::inherit());
    let out = command.output().await.map_err(|error| format!("{}: {error}", plimsoll.display()))?;
    if !out.status.success() {
        return Err(format!("plimsoll bench ended with {}", out.status).into());
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}
