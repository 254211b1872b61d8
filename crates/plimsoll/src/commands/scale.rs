//! `plimsoll scale`: how many a pool or service has, by hand, for a time.

use std::time::Duration;

use clap::Args;
use plimsoll_client::v1::{ScaleTargetRequest, ScalingStatus};

use crate::args::{Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;

/// Says by hand how many a scaled pool or service has. The word ends; then the policy decides again.
#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// What is scaled: pool/NAME, service/NAME, or the name of a pool
    #[arg(value_name = "TARGET")]
    target: String,
    /// So many, within the policy's min and max
    #[arg(long, value_name = "N", required_unless_present = "auto", conflicts_with = "auto")]
    to: Option<u64>,
    /// For so long
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "1h")]
    span: Duration,
    /// Let the policy decide again
    #[arg(long)]
    auto: bool,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Scale {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let target = if self.target.contains('/') { self.target } else { format!("pool/{}", self.target) };
        let request = ScaleTargetRequest {
            target: target.clone(),
            to: self.to,
            for_ms: u64::try_from(self.span.as_millis()).unwrap_or(u64::MAX),
            validate_only: self.dry_run,
            ..ScaleTargetRequest::default()
        };
        let client = globals.client()?;
        let answer = client
            .scale_target(request)
            .await
            .map_err(|error| CliError::from(error).asked(format!("cannot scale {target}")))?;
        let out = globals.out();
        if !out.is_human() {
            let status = serde_json::to_value(answer.status.unwrap_or_default());
            out.document(&status.map_err(|error| CliError::local("cannot write it", error))?)?;
            return Ok(Exit::Done);
        }
        let now = if self.dry_run { "would have" } else { "has" };
        out.done(&match self.to {
            Some(to) => {
                format!("{target} {now} {to} for {}{}", span(self.span), there(answer.status.as_ref()))
            }
            None => format!("{target} {now} what its policy says{}", there(answer.status.as_ref())),
        });
        Ok(Exit::Done)
    }
}

fn span(span: Duration) -> String {
    plimsoll_types::quantity::format_duration_ms(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn there(status: Option<&ScalingStatus>) -> String {
    status.map_or_else(String::new, |status| format!("; {} are there", status.present))
}
