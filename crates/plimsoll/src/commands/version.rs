//! `plimsoll version`.

use clap::Args;
use serde_json::json;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Shows the version.
#[derive(Args, Debug)]
pub(crate) struct Version {}

impl Version {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let version = env!("CARGO_PKG_VERSION");
        if out.is_human() {
            out.emit(&format!("plimsoll {version}\n"))?;
        } else {
            out.document(&json!({ "version": version }))?;
        }
        Ok(Exit::Done)
    }
}
