//! A program per machine: what is asked comes as JSON on its standard input and in its environment, and it answers with JSON.
//!
//! Exit codes: 0 done; 78 (`EX_CONFIG` of sysexits) it will not do later either; any other, it may.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{Ask, Machines, ProviderError, Started};

/// Exit code of a program that will not do it later either.
const NEVER: i32 = 78;
/// Longest answer that is read, in bytes.
const MOST_ANSWER: usize = 64 << 10;

/// A program of the coordinator's folder.
pub(crate) struct Exec {
    program: PathBuf,
    args: Vec<String>,
}

impl Exec {
    pub(crate) fn new(folder: &Path, command: &str, args: &[String]) -> Result<Exec, ProviderError> {
        // The ledger has checked this; what is run is looked at once more where it is run.
        if !plimsoll_ledger::is_program_name(command) {
            return Err(ProviderError::never(format!("{command:?} is not the plain name of a program")));
        }
        let program = folder.join(command);
        if !program.is_file() {
            return Err(ProviderError::again(format!("there is no program {}", program.display())));
        }
        Ok(Exec { program, args: args.to_vec() })
    }

    async fn run(&self, action: &str, ask: &Ask) -> Result<String, ProviderError> {
        let failed = |what: &str, error: std::io::Error| {
            ProviderError::again(format!("{} {action}: {what}: {error}", self.program.display()))
        };
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .arg(action)
            .env("PLIMSOLL_SCALING_ACTION", action)
            .env("PLIMSOLL_SCALING_KEY", ask.key())
            .env("PLIMSOLL_SCALING_NODE", &ask.node)
            .env("PLIMSOLL_SCALING_HANDLE", &ask.handle)
            .env("PLIMSOLL_SCALING_TARGET", ask.target.path())
            .env("PLIMSOLL_SCALING_TEMPLATE", &ask.template_name)
            .env("PLIMSOLL_ADDR", ask.addresses.join(","))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Dropped at its time limit, it ends.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("it does not start", error))?;
        if let Some(mut input) = child.stdin.take() {
            // One that does not read what it is asked may still know what to do.
            let _ = input.write_all(ask.document(action).to_string().as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(|error| failed("its end is not seen", error))?;
        if output.status.success() {
            if output.stdout.len() > MOST_ANSWER {
                let many = output.stdout.len();
                let why = format!("{action}: it answered {many} bytes, at most {MOST_ANSWER} are read");
                return Err(ProviderError::again(why));
            }
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let said = errors.lines().last().unwrap_or_default();
        let message = format!("{} {action}: {}: {said}", self.program.display(), output.status);
        match output.status.code() {
            Some(NEVER) => Err(ProviderError::never(message)),
            _ => Err(ProviderError::again(message)),
        }
    }
}

impl Machines for Exec {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        async move { Started::read(&self.run("start", ask).await?, ask) }.boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move { self.run("stop", ask).await.map(drop) }.boxed()
    }
}
