//! The command line: one grammar for all commands.

mod as_of;
mod globals;
mod places;
mod resources;
mod roles;

use clap::{Parser, Subcommand};

pub(crate) use as_of::AsOf;
pub(crate) use globals::{Globals, duration};
pub(crate) use resources::{ResourceArgs, read_amount, read_selector};

use crate::commands;

/// What `plimsoll` alone says.
const ABOUT: &str = "Plimsoll grants CPU, memory and GPUs from a replicated ledger: no reservation is lost, none is given twice.";

macro_rules! first_steps {
    () => {
        "\
Try:
  plimsoll dev                                   a whole cluster in this process; leave it running
  plimsoll run --cpu 2 --mem 1Gi -- echo hello   reserve, run, give back
  plimsoll get nodes                             who has what
  plimsoll explain RESERVATION                   why it waits, and what would help
  plimsoll help [COMMAND]                        all commands, or all there is to know about one
Exit codes, quantities and environment: plimsoll man, or docs/"
    };
}

const FIRST_STEPS: &str = first_steps!();

/// What `plimsoll` without a command says: eight lines, not the list of all commands.
pub(crate) const FIRST_WORDS: &str = concat!(
    "Plimsoll grants CPU, memory and GPUs from a replicated ledger: no reservation is lost.\n",
    first_steps!()
);

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, about = ABOUT, after_help = FIRST_STEPS, arg_required_else_help = true)]
#[command(propagate_version = false, disable_help_subcommand = false, max_term_width = 110)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole cluster in one process: coordinator, agent and HTTP listener
    Dev(commands::dev::Dev),
    /// Reserve, run a command under the reservation, give it back
    Run(commands::run::Run),
    /// Reserve resources
    Reserve(commands::reserve::Reserve),
    /// Take up a held reservation
    Confirm(commands::lifecycle::Confirm),
    /// Say that the holder is alive: the lease runs a full length again
    Renew(commands::lifecycle::Renew),
    /// Change the amounts of a reservation in place
    Resize(commands::lifecycle::Resize),
    /// Give a reservation back
    Release(commands::lifecycle::Release),
    /// End reservations in any state
    Cancel(commands::lifecycle::Cancel),
    /// Wait until a reservation is granted
    Wait(commands::wait::Wait),
    /// Show what was used and what it cost, as far as quotas count it
    Report(commands::report::Report),
    /// Say where a replica of a service listens
    Announce(commands::announce::Announce),
    /// Pick the endpoint of a service for a request
    Pick(commands::pick::Pick),
    /// Say by hand how many a scaled pool or service has, for a time
    Scale(commands::scale::Scale),
    /// Take tokens of a rate, all or none
    Take(commands::take::Take),
    /// Show things: nodes, devices, pools, reservations, classes, limits, members
    Get(commands::get::Get),
    /// Show one thing with all that is known about it, events last
    Describe(commands::describe::Describe),
    /// Say why a reservation is where it is, or what would stand in the way of a request
    #[command(visible_alias = "why")]
    Explain(commands::explain::Explain),
    /// Say what a request or policy files would come to, and who would be delayed or have to leave
    Plan(commands::plan::Plan),
    /// Say how fragmented the GPUs of a pool are and what could be done about it, or do it
    Defragment(commands::defragment::Defragment),
    /// Show what happened, or what happens
    #[command(visible_alias = "event", alias = "ev")]
    Events(commands::events::Events),
    /// Create or change pools, classes and node limits as files say, all or nothing
    Apply(commands::apply::Apply),
    /// Show what applying files would change
    Diff(commands::diff::Diff),
    /// Delete pools, classes and node limits, all or nothing
    Delete(commands::delete::Delete),
    /// Check policy files without a cluster
    Validate(commands::validate::Validate),
    /// Turn free-form resource blocks into documents
    Convert(commands::convert::Convert),
    /// Keep new work off a node
    Cordon(commands::node_admin::Cordon),
    /// Let new work on a node again
    Uncordon(commands::node_admin::Uncordon),
    /// Keep new work off a node and have it emptied
    Drain(commands::node_admin::Drain),
    /// Say that the provider of a node takes it back: what is there is given notice until then
    Interrupt(commands::node_admin::Interrupt),
    /// The operator's further words on nodes
    Node(commands::node_admin::Node),
    /// The coordinators: status and membership
    Cluster(commands::cluster::Cluster),
    /// Look at the data folder of a stopped coordinator: is it sound, and what would a start do?
    Doctor(commands::doctor::Doctor),
    /// The log, its hashes and the whole state, for auditors
    Audit(commands::audit::Audit),
    /// Run a recorded workload on the real ledger and planner, in this process
    Simulate(commands::simulate::Simulate),
    /// Run a recorded workload on a running cluster, through its public API
    Replay(commands::replay::Replay),
    /// Measure a cluster through its public API
    Bench(commands::bench::Bench),
    /// Step into a cgroup and become a command: what `run` starts
    #[command(hide = true)]
    EnterCgroup(commands::enter_cgroup::EnterCgroup),
    /// Run a coordinator
    #[command(visible_alias = "server")]
    Coordinator(commands::coordinator::Coordinator),
    /// Run the agent of this machine
    Agent(commands::agent::Agent),
    /// Named clusters: list, use, add, remove
    Context(commands::context::Context),
    /// The configuration in force
    Config(commands::config::Config),
    /// Write a completion script for a shell
    Completion(commands::completion::Completion),
    /// Write manual pages
    Man(commands::man::Man),
    /// Show the version
    Version(commands::version::Version),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, globals: &Globals) -> Result<crate::exit::Exit, crate::error::CliError> {
        // Each is boxed: the futures of all commands together would fill the stack.
        match self {
            Command::Dev(command) => Box::pin(command.run(globals)).await,
            Command::Run(command) => Box::pin(command.run(globals)).await,
            Command::Reserve(command) => Box::pin(command.run(globals)).await,
            Command::Confirm(command) => Box::pin(command.run(globals)).await,
            Command::Renew(command) => Box::pin(command.run(globals)).await,
            Command::Resize(command) => Box::pin(command.run(globals)).await,
            Command::Release(command) => Box::pin(command.run(globals)).await,
            Command::Cancel(command) => Box::pin(command.run(globals)).await,
            Command::Wait(command) => Box::pin(command.run(globals)).await,
            Command::Report(command) => Box::pin(command.run(globals)).await,
            Command::Announce(command) => Box::pin(command.run(globals)).await,
            Command::Pick(command) => Box::pin(command.run(globals)).await,
            Command::Scale(command) => Box::pin(command.run(globals)).await,
            Command::Take(command) => Box::pin(command.run(globals)).await,
            Command::Get(command) => Box::pin(command.run(globals)).await,
            Command::Describe(command) => Box::pin(command.run(globals)).await,
            Command::Explain(command) => Box::pin(command.run(globals)).await,
            Command::Plan(command) => Box::pin(command.run(globals)).await,
            Command::Defragment(command) => Box::pin(command.run(globals)).await,
            Command::Events(command) => Box::pin(command.run(globals)).await,
            Command::Apply(command) => Box::pin(command.run(globals)).await,
            Command::Diff(command) => Box::pin(command.run(globals)).await,
            Command::Delete(command) => Box::pin(command.run(globals)).await,
            Command::Validate(command) => Box::pin(command.run(globals)).await,
            Command::Convert(command) => Box::pin(command.run(globals)).await,
            Command::Cordon(command) => Box::pin(command.run(globals)).await,
            Command::Uncordon(command) => Box::pin(command.run(globals)).await,
            Command::Drain(command) => Box::pin(command.run(globals)).await,
            Command::Interrupt(command) => Box::pin(command.run(globals)).await,
            Command::Node(command) => Box::pin(command.run(globals)).await,
            Command::Cluster(command) => Box::pin(command.run(globals)).await,
            Command::Doctor(command) => Box::pin(command.run(globals)).await,
            Command::Audit(command) => Box::pin(command.run(globals)).await,
            Command::Simulate(command) => Box::pin(command.run(globals)).await,
            Command::Replay(command) => Box::pin(command.run(globals)).await,
            Command::Bench(command) => Box::pin(command.run(globals)).await,
            Command::EnterCgroup(command) => command.run(),
            Command::Coordinator(command) => Box::pin(command.run(globals)).await,
            Command::Agent(command) => Box::pin(command.run(globals)).await,
            Command::Context(command) => Box::pin(command.run(globals)).await,
            Command::Config(command) => Box::pin(command.run(globals)).await,
            Command::Completion(command) => Box::pin(command.run(globals)).await,
            Command::Man(command) => Box::pin(command.run(globals)).await,
            Command::Version(command) => Box::pin(command.run(globals)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
