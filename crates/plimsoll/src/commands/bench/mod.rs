//! `plimsoll bench`: how fast a cluster is, through the public API; with `--local` on coordinators of its own.

mod failover;
mod fleet;
mod grants;
mod local;
mod restart;

use clap::{Args, Subcommand};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Measures a cluster through its public API.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Durable grants a second and their latency: unary, streamed, in batch calls
    Grants(grants::Grants),
    /// Time without writes when the leader is killed
    Failover(failover::Failover),
    /// Memory with many live reservations, and the time to come back when all coordinators are killed
    Restart(restart::Restart),
}

impl Bench {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        match self.what {
            What::Grants(command) => command.run(globals).await,
            What::Failover(command) => command.run(globals).await,
            What::Restart(command) => command.run(globals).await,
        }
    }
}

/// A failed call of the benchmark's own preparation.
fn failed(doing: &str) -> impl Fn(plimsoll_client::Error) -> CliError + '_ {
    move |error| CliError::local(doing, error)
}
