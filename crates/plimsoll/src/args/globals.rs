//! Options of every command.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use plimsoll_client::Client;
use plimsoll_client::v1::Consistency;
use plimsoll_coordinator::telemetry::LogFormat;
use plimsoll_types::quantity;

use crate::error::CliError;
use crate::output::{ColorChoice, Format, Out};
use crate::settings::Settings;

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Globals {
    /// Context (named cluster) to use [env: PLIMSOLL_CONTEXT]
    #[arg(long, short = 'c', global = true, value_name = "NAME", help_heading = "Connection")]
    pub(crate) context: Option<String>,
    /// Coordinators to talk to, HOST:PORT [env: PLIMSOLL_ADDR] [default: the context's, or 127.0.0.1:7420]
    #[arg(long, global = true, value_name = "ADDR", value_delimiter = ',', help_heading = "Connection")]
    pub(crate) addr: Vec<String>,
    /// Authorities of the cluster's certificates, PEM [env: PLIMSOLL_CA]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca: Option<PathBuf>,
    /// Own certificate, PEM [env: PLIMSOLL_CERT]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) cert: Option<PathBuf>,
    /// Own private key, PEM [env: PLIMSOLL_KEY]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) key: Option<PathBuf>,
    /// Name that the coordinators' certificates must carry [env: PLIMSOLL_SERVER_NAME] [default: coordinator.plimsoll]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Connection")]
    pub(crate) server_name: Option<String>,
    /// Longest time for a call with all its retries
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, help_heading = "Connection")]
    pub(crate) timeout: Option<Duration>,
    /// How fresh reads must be
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        help_heading = "Connection"
    )]
    pub(crate) consistency: Freshness,
    /// Form of the output
    #[arg(long, short = 'o', global = true, value_enum, default_value_t, hide_default_value = true)]
    #[arg(help_heading = "Output")]
    pub(crate) output: Format,
    /// Columns of tables and CSV, by name
    #[arg(long, global = true, value_name = "A,B,C", value_delimiter = ',', help_heading = "Output")]
    pub(crate) columns: Vec<String>,
    /// Leave out the header of tables and CSV
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) no_headers: bool,
    /// When to use colour; NO_COLOR and CLICOLOR_FORCE are respected
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub(crate) color: ColorChoice,
    /// Times in UTC instead of local time
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) utc: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short = 'q', global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Say what is done on the way (-vv: everything) [env: RUST_LOG]
    #[arg(long, short = 'v', global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
    /// Form of the log on stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub(crate) log_format: LogForm,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl From<LogForm> for LogFormat {
    fn from(form: LogForm) -> LogFormat {
        match form {
            LogForm::Text => LogFormat::Text,
            LogForm::Json => LogFormat::Json,
        }
    }
}

/// How fresh reads must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Freshness {
    /// Everything acknowledged before the read began
    #[default]
    Linearizable,
    /// Whatever the coordinator that is asked has applied
    Stale,
}

impl Globals {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        self.client_with(Duration::from_secs(30))
    }

    /// A client whose calls end after `timeout`, unless --timeout says otherwise.
    pub(crate) fn client_with(&self, timeout: Duration) -> Result<Client, CliError> {
        Settings::resolve(self)?.client(self.timeout.unwrap_or(timeout))
    }

    /// Where and how results are written.
    pub(crate) fn out(&self) -> Out {
        Out::new(self)
    }

    /// How fresh reads must be, as the API has it.
    pub(crate) fn consistency(&self) -> i32 {
        match self.consistency {
            Freshness::Linearizable => Consistency::Linearizable.into(),
            Freshness::Stale => Consistency::Stale.into(),
        }
    }
}

/// Reads a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, quantity::QuantityError> {
    quantity::parse_duration_ms(text).map(Duration::from_millis)
}
