//! `plimsoll convert`: free-form resource blocks to documents.

use clap::Args;
use plimsoll_policy::convert;

use super::apply_files::FileArgs;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Prints free-form resource blocks as documents that apply takes; what has no counterpart is listed on stderr, by path.
#[derive(Args, Debug)]
pub(crate) struct Convert {
    #[command(flatten)]
    files: FileArgs,
}

impl Convert {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let sources = self.files.sources()?;
        let converted = convert(&sources).map_err(|problems| {
            CliError::new(Exit::Usage, "INVALID_ARGUMENT", "not YAML")
                .asked("not converted")
                .at_places(&problems)
        })?;
        let out = globals.out();
        out.emit(&converted.to_yaml())?;
        for remark in &converted.remarks {
            out.remark(&format!("not converted: {remark}"));
        }
        out.done(&format!(
            "Converted: documents {}, remarks {}",
            converted.documents.len(),
            converted.remarks.len()
        ));
        Ok(Exit::Done)
    }
}
