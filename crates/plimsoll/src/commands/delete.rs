//! `plimsoll delete`: takes policy objects out, by the files that made them or by name, all of them or none.

use clap::Args;
use plimsoll_client::v1::{Consistency, DeletePolicyRequest};
use plimsoll_ledger::PolicyName;
use plimsoll_policy::label;

use super::apply_files::{DryRun, FileArgs, Row, live, names_to_v1, show, tally};
use super::noun::Noun;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Deletes pools, classes and node limits.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Kind of object: pool, class, limits
    #[arg(value_name = "NOUN", requires = "names", conflicts_with = "files")]
    noun: Option<Noun>,
    /// Names
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// What is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
    /// Change nothing: client compares only, server has the cluster decide
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "server")]
    dry_run: Option<DryRun>,
    /// Refuse (exit 6) where any policy object changed after this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
}

impl Delete {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut names = self.asked()?;
        let client = globals.client()?;
        let is_dry = self.dry_run.is_some();
        let mut rows: Vec<Row> = Vec::new();
        if self.ignore_not_found || self.dry_run == Some(DryRun::Client) {
            let live = live(&client, Consistency::Linearizable.into(), &names).await?;
            let (there, missing): (Vec<_>, Vec<_>) =
                names.into_iter().partition(|name| live.contains_key(name));
            if !missing.is_empty() && !self.ignore_not_found {
                let labels: Vec<String> = missing.iter().map(label).collect();
                return Err(CliError::new(Exit::NotFound, "NOT_FOUND", labels.join(", "))
                    .asked("cannot delete what is not there")
                    .help("add --ignore-not-found where that is all right"));
            }
            rows.extend(missing.into_iter().map(|name| Row::plain(name, "absent", is_dry)));
            names = there;
        }
        rows.extend(names.iter().cloned().map(|name| Row::plain(name, "deleted", is_dry)));
        let mut revision = None;
        if !names.is_empty() && self.dry_run != Some(DryRun::Client) {
            let labels: Vec<String> = names.iter().map(label).collect();
            let request = DeletePolicyRequest {
                names: names_to_v1(&names),
                validate_only: is_dry,
                if_revision: self.if_revision,
                ..DeletePolicyRequest::default()
            };
            let asked = format!("cannot delete {}", labels.join(", "));
            let answer =
                client.delete_policy(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            revision = Some(answer.revision).filter(|_| !is_dry);
        }
        let out = globals.out();
        show(&out, &rows)?;
        match revision {
            Some(revision) => out.done(&format!("{} at revision {revision}", tally(&rows))),
            None => out.done(&format!("Nothing was changed: {}", tally(&rows))),
        }
        Ok(Exit::Done)
    }

    /// What is to be deleted.
    fn asked(&self) -> Result<Vec<PolicyName>, CliError> {
        let Some(noun) = self.noun else {
            if self.files.is_empty() {
                return Err(CliError::usage("delete what?")
                    .help("plimsoll delete pool NAME, or plimsoll delete -f FILE"));
            }
            let parsed = self.files.load("cannot delete")?;
            return Ok(parsed.into_iter().map(|parsed| parsed.object.name()).collect());
        };
        let of: fn(String) -> PolicyName = match noun {
            Noun::Pool => PolicyName::Pool,
            Noun::Class => PolicyName::Class,
            Noun::Limits => PolicyName::NodeLimits,
            Noun::Queue => PolicyName::Queue,
            Noun::Quota => PolicyName::Quota,
            Noun::Validator => PolicyName::Validator,
            Noun::Schedule => PolicyName::Schedule,
            Noun::Service => PolicyName::Service,
            Noun::Scaling => PolicyName::ScalingPolicy,
            Noun::Reservation => {
                return Err(CliError::usage("reservations are not deleted")
                    .help("plimsoll release gives one back, plimsoll cancel ends it in any state"));
            }
            Noun::Node => {
                return Err(CliError::usage("nodes are not deleted here").help("plimsoll node remove NAME"));
            }
            Noun::Device | Noun::Contention | Noun::Endpoint | Noun::Member | Noun::Event => {
                return Err(CliError::usage(format!("{} cannot be deleted", noun.plural()))
                    .help("pools, classes, limits, queues, quotas, schedules, services, scaling policies and validators can"));
            }
        };
        let mut names: Vec<PolicyName> = Vec::new();
        for name in self.names.iter().cloned().map(of) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(names)
    }
}
