//! `plimsoll validate`: checks policy files without a cluster.

use std::collections::BTreeSet;

use clap::Args;

use super::apply_files::{FileArgs, Row, show};
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Checks policy files: syntax, kinds, fields, quantities, duplicates.
#[derive(Args, Debug)]
pub(crate) struct Validate {
    #[command(flatten)]
    files: FileArgs,
}

impl Validate {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let parsed = self.files.load("not valid")?;
        let files: BTreeSet<&str> = parsed.iter().map(|parsed| parsed.place.file.as_str()).collect();
        let rows: Vec<Row> =
            parsed.iter().map(|parsed| Row::plain(parsed.object.name(), "valid", false)).collect();
        let out = globals.out();
        show(&out, &rows)?;
        out.done(&format!("Valid: objects {}, files {}", rows.len(), files.len()));
        Ok(Exit::Done)
    }
}
