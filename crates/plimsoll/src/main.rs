//! `plimsoll`: the one binary. It reads the command line, does it, and ends with a documented exit code.

mod args;
mod blockers;
mod commands;
mod context;
mod error;
mod exit;
mod host;
mod output;
mod paths;
mod settings;
mod trace;

use std::process::ExitCode;

use clap::Parser as _;
use plimsoll_coordinator::telemetry::init_logging;

use crate::args::{Cli, Command, Globals};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Format;

/// The ledger and its messages are many small allocations: a fifth of a coordinator's time with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if std::env::args_os().len() == 1 {
        eprintln!("{}", args::FIRST_WORDS);
        return Exit::Usage.into();
    }
    let cli = Cli::parse();
    start_logging(&cli);
    let globals = cli.globals;
    let is_daemon = is_daemon(&cli.command);
    let outcome = runtime(is_daemon).and_then(|runtime| {
        let outcome = runtime.block_on(cli.command.run(&globals));
        // What still runs (a watch, a blocked read of stdin) must not keep the process.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        outcome
    });
    let exit = outcome.unwrap_or_else(|error| {
        report(&globals, &error);
        error.exit()
    });
    exit.into()
}

/// A daemon works on half of the cores, `TOKIO_WORKER_THREADS` aside: the writer of the log, RocksDB's own threads, the network and the work that the
/// machine is there for need the others. Measured with three coordinators on two cores: a lone request is answered 8 % sooner by one thread than by two, which
/// would wake each other a dozen times for it; a thousand in flight at once are 6 % fewer a second.
fn runtime(is_daemon: bool) -> Result<tokio::runtime::Runtime, CliError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if is_daemon && std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        builder.worker_threads((cores / 2).max(1));
    }
    let built = builder.enable_all().build();
    built.map_err(|error| CliError::local("cannot start the runtime", error).with_exit(Exit::Refused))
}

fn report(globals: &Globals, error: &CliError) {
    let out = globals.out();
    match out.format {
        Format::Json | Format::Jsonl => eprintln!("{}", error.status()),
        Format::Table | Format::Wide | Format::Yaml | Format::Name | Format::Csv => {
            eprint!("{}", error.text(out.paint))
        }
    }
}

fn is_daemon(command: &Command) -> bool {
    matches!(command, Command::Coordinator(_) | Command::Agent(_))
}

/// Commands say what is wrong; daemons say what happens. Consensus reports each lost peer as an error of its own: the
/// coordinator's own lines say what that means.
fn start_logging(cli: &Cli) {
    let is_daemon = is_daemon(&cli.command);
    let filter = match (cli.globals.verbose, is_daemon) {
        (0, false) => "warn,openraft=off",
        (0, true) => "info,openraft=off",
        (1, false) => "info,openraft=warn",
        (1, true) | (2, _) => "debug,h2=info,hyper=info,tower=info",
        _ => "trace",
    };
    init_logging(cli.globals.log_format.into(), filter);
}
