//! `plimsoll enter-cgroup`: the first steps of what `plimsoll run` starts. It moves itself into the command's cgroup and becomes the command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use plimsoll_agent::cgroup::WorkloadCgroup;

use super::process::not_started;
use crate::error::CliError;
use crate::exit::Exit;

/// Steps into a cgroup and becomes a command.
#[derive(Args, Debug)]
pub(crate) struct EnterCgroup {
    /// The cgroup
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

impl EnterCgroup {
    pub(crate) fn run(self) -> Result<Exit, CliError> {
        let cannot = |error| {
            CliError::local("cannot step into the cgroup of the command", error).with_exit(Exit::RunFailed)
        };
        WorkloadCgroup::at(self.folder).add(std::process::id()).map_err(cannot)?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(CliError::usage("no command is given"));
        };
        let error = Command::new(program).args(arguments).exec();
        Err(not_started(program, error))
    }
}
