//! `plimsoll`: the one binary. It reads the command line, does it, and ends with a documented exit code.

mod args;
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
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Globals};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Format;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(&cli.globals);
    let globals = cli.globals;
    let outcome = runtime().and_then(|runtime| {
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

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
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

fn start_logging(globals: &Globals) {
    let level = match globals.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
