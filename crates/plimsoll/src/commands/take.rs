//! `plimsoll take`: tokens of a rate, for scripts that must not ask somebody else too often.

use clap::Args;
use plimsoll_client::v1::{TakeTokensRequest, TokenTake};
use plimsoll_client::{Error, Refused};
use serde_json::json;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Takes tokens of a rate, all or none. Where there are too few it ends with 1 and says when there are enough.
#[derive(Args, Debug)]
pub(crate) struct Take {
    /// The rate: QUOTA/RATE
    #[arg(value_name = "QUOTA/RATE")]
    rate: String,
    /// How many tokens
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    tokens: u64,
    /// For whom or what: takers that name another do not share
    #[arg(long, value_name = "SCOPE", default_value = "")]
    scope: String,
}

impl Take {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        // Names of quotas have no slash; those of rates may.
        let Some((quota, rate)) = self.rate.split_once('/') else {
            return Err(CliError::usage(format!("{:?} is not QUOTA/RATE", self.rate))
                .help("plimsoll describe quota NAME shows its rates"));
        };
        let take = TokenTake {
            quota: quota.to_owned(),
            rate: rate.to_owned(),
            scope: self.scope.clone(),
            tokens: self.tokens,
        };
        let request = TakeTokensRequest { takes: vec![take], ..TakeTokensRequest::default() };
        let answer = globals.client()?.take_tokens(request).await?;
        let result = answer.results.into_iter().next().unwrap_or_default();
        if let Some(failure) = result.failure {
            return Err(CliError::from(Error::Refused(Box::new(Refused::from_failure(failure)))));
        }
        let out = globals.out();
        if out.is_human() {
            out.done(&format!("{} taken, {} left", result.taken, result.left));
        } else {
            out.document(&json!({ "taken": result.taken, "left": result.left }))?;
        }
        Ok(Exit::Done)
    }
}
