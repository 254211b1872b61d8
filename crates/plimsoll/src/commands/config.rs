//! `plimsoll config`: what is in force, and where it comes from.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Column, Shown};
use crate::paths;
use crate::settings::Settings;

/// The configuration in force.
#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show all settings
    View {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Show the path of the file
    Path,
}

struct Row {
    name: &'static str,
    value: String,
    origin: String,
}

impl Shown for Row {
    const COLUMNS: &'static [Column<Row>] = &[
        Column::new("SETTING", |r, _| r.name.to_owned()),
        Column::new("VALUE", |r, _| r.value.clone()),
        Column::wide("ORIGIN", |r, _| r.origin.clone()),
    ];

    fn id(&self) -> String {
        self.name.to_owned()
    }

    fn json(&self) -> Value {
        json!({ "name": self.name, "value": self.value, "origin": self.origin })
    }
}

impl Config {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let file = paths::context_file()?.display().to_string();
        let Verb::View { origin } = self.verb else {
            globals.out().emit(&format!("{file}\n"))?;
            return Ok(Exit::Done);
        };
        let settings = Settings::resolve(globals)?;
        let path = |(path, origin): &(Option<std::path::PathBuf>, crate::settings::Origin)| {
            (path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(), origin.to_string())
        };
        let text = |(text, origin): &(Option<String>, crate::settings::Origin)| {
            (text.clone().unwrap_or_default(), origin.to_string())
        };
        let rows: Vec<Row> = [
            ("file", (file, "default".to_owned())),
            ("context", text(&settings.context)),
            ("addresses", (settings.addresses.0.join(","), settings.addresses.1.to_string())),
            ("ca", path(&settings.ca)),
            ("cert", path(&settings.cert)),
            ("key", path(&settings.key)),
            ("server-name", text(&settings.server_name)),
        ]
        .into_iter()
        .map(|(name, (value, origin))| Row { name, value, origin })
        .collect();
        let mut globals = globals.clone();
        if origin && globals.columns.is_empty() {
            globals.columns = ["setting", "value", "origin"].map(str::to_owned).to_vec();
        }
        globals.out().list(&rows, None)?;
        Ok(Exit::Done)
    }
}
