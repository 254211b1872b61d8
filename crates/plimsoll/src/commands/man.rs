//! `plimsoll man`: manual pages, one for the whole and one for each command, and one for the exit codes.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};

use crate::args::{Cli, Globals};
use crate::error::CliError;
use crate::exit::Exit;

/// Writes manual pages.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Folder for all pages; otherwise one page goes to stdout
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Command to show the page of, as in `man cluster add`; `exit-codes` for those
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Man {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut root = Cli::command();
        root.build();
        if let Some(dir) = &self.dir {
            std::fs::create_dir_all(dir).map_err(|error| CliError::local("cannot make the folder", error))?;
            let mut count = 1;
            write(&dir.join("plimsoll-exit-codes.7"), exit_codes().as_bytes())?;
            write_all(&root, "plimsoll", dir, &mut count)?;
            globals.out().done(&format!("wrote {count} pages to {}", dir.display()));
            return Ok(Exit::Done);
        }
        if self.command == ["exit-codes"] {
            globals.out().emit(&exit_codes())?;
            return Ok(Exit::Done);
        }
        let mut command = root;
        for name in &self.command {
            let found = command.find_subcommand(name).cloned();
            command = found.ok_or_else(|| CliError::usage(format!("there is no command {name:?}")))?;
        }
        globals.out().emit(&String::from_utf8_lossy(&page(command)?))?;
        Ok(Exit::Done)
    }
}

fn write_all(command: &clap::Command, name: &str, dir: &Path, count: &mut usize) -> Result<(), CliError> {
    write(&dir.join(format!("{name}.1")), &page(command.clone())?)?;
    *count += 1;
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
    {
        write_all(inner, &format!("{name}-{}", inner.get_name()), dir, count)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> Result<Vec<u8>, CliError> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut text)
        .map_err(|error| CliError::local("cannot write the page", error))?;
    Ok(text)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    std::fs::write(path, bytes)
        .map_err(|error| CliError::local(&format!("cannot write {}", path.display()), error))
}

fn exit_codes() -> String {
    let mut text = String::from(
        ".TH plimsoll-exit-codes 7\n.SH NAME\nplimsoll-exit-codes \\- how plimsoll ends\n.SH EXIT CODES\n",
    );
    for (exit, meaning) in Exit::TABLE {
        text.push_str(&format!(".TP\n.B {}\n{meaning}\n", exit.code()));
    }
    text.push_str(
        ".TP\n.B 128+n\nrun: the command died of signal n, otherwise run returns the command's own code; run and replay: stopped by signal n\n",
    );
    text
}
