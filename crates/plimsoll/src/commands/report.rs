//! `plimsoll report`: who has used how much in the present periods, from the rows that quotas are counted in.

use clap::{Args, ValueEnum};
use plimsoll_client::v1::ListQuotasRequest;
use plimsoll_ledger::{Measure, Scope};
use plimsoll_proto::convert::meter_from_v1;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Footer, UsageRow};

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything that quotas count
    Usage,
    /// Money alone
    Cost,
}

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// Each user
    User,
    /// Each run or pipeline
    Run,
    /// All of a quota together
    Quota,
}

/// Shows what was spent and is committed, in the present day, month or at all. Only what a quota counts is known.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// Everything, or money alone
    #[arg(value_enum, value_name = "WHAT", default_value = "usage")]
    what: What,
    /// For each of these; all without
    #[arg(long, value_enum, value_name = "WHOM", value_delimiter = ',')]
    by: Vec<By>,
}

impl Report {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let request =
            ListQuotasRequest { consistency: globals.consistency(), ..ListQuotasRequest::default() };
        let all = globals.client()?.all_quotas(request).await?;
        let mut rows = Vec::new();
        for (quota, status) in all.items {
            for usage in status.usage {
                let Some(meter) = usage.meter.as_ref().and_then(meter_from_v1) else { continue };
                let by = match meter.scope {
                    Scope::User => By::User,
                    Scope::Run => By::Run,
                    Scope::Together => By::Quota,
                };
                let asked = self.what == What::Usage || meter.measure == Measure::Cost;
                if asked && (self.by.is_empty() || self.by.contains(&by)) {
                    rows.push(UsageRow {
                        quota: quota.name.clone(),
                        currency: quota.currency.clone(),
                        meter,
                        usage,
                    });
                }
            }
        }
        let footer = Footer {
            noun: "meters".to_owned(),
            filter: String::new(),
            revision: all.revision,
            age_ms: all.age_ms,
            hint: String::new(),
        };
        globals.out().list(&rows, Some(&footer))?;
        Ok(Exit::Done)
    }
}
