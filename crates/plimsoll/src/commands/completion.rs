//! `plimsoll completion SHELL`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::{Cli, Globals};
use crate::error::CliError;
use crate::exit::Exit;

/// Writes a completion script.
#[derive(Args, Debug)]
pub(crate) struct Completion {
    /// Shell to write it for
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "plimsoll", &mut script);
        globals.out().emit(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}
