//! `plimsoll apply`: makes the cluster's policy objects what files say, all of them or none.

use std::time::Instant;

use clap::Args;
use plimsoll_client::Client;
use plimsoll_client::v1::{ApplyPolicyRequest, Consistency, CreateReservationRequest, ReservationState};
use plimsoll_ledger::{PolicyName, PolicyObject};
use plimsoll_policy::Requested;
use plimsoll_proto::convert::{policy_object_to_v1, selector_from_v1};
use plimsoll_proto::limits::REQUEST_ID_LENGTH;
use plimsoll_types::Selector;

use super::apply_files::{DryRun, FileArgs, Row, live, names_to_v1, show, tally};
use crate::args::{Globals, read_selector};
use crate::error::CliError;
use crate::exit::Exit;

/// Creates or changes pools, classes and node limits.
#[derive(Args, Debug)]
pub(crate) struct Apply {
    #[command(flatten)]
    files: FileArgs,
    /// Change nothing: client compares only, server has the cluster decide
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "server")]
    dry_run: Option<DryRun>,
    /// Refuse (exit 6) where any policy object changed after this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
    /// Delete the pools that -l selects and that are in no file, in the same step
    #[arg(long, requires = "selector")]
    prune: bool,
    /// Which pools --prune may delete, by their labels: owner=research, 'owner in (a,b)' (repeatable: all must hold)
    #[arg(long = "selector", short = 'l', value_name = "SELECTOR", requires = "prune")]
    selector: Vec<String>,
}

impl Apply {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let begun = Instant::now();
        let contents = self.files.load_all("cannot apply")?;
        let requests = contents.requests;
        let objects: Vec<PolicyObject> = contents.objects.into_iter().map(|parsed| parsed.object).collect();
        let client = globals.client()?;
        let selector = self.selector()?;
        let mut names: Vec<_> = objects.iter().map(PolicyObject::name).collect();
        if self.prune {
            // What may go is looked for among all pools, whatever the files hold.
            names.push(PolicyName::Pool(String::new()));
        }
        // Never from a stale replica: what is "unchanged" is not sent.
        let live = live(&client, Consistency::Linearizable.into(), &names).await?;
        let is_dry = self.dry_run.is_some();
        let mut rows: Vec<Row> =
            objects.iter().map(|object| Row::of_change(live.get(&object.name()), object, is_dry)).collect();
        let pruned: Vec<PolicyName> = live
            .iter()
            .filter(|(name, object)| self.prune && !names.contains(name) && is_selected(object, &selector))
            .map(|(name, _)| name.clone())
            .collect();
        rows.extend(pruned.iter().cloned().map(|name| Row::plain(name, "pruned", is_dry)));
        // A server that is asked to decide is asked about everything; otherwise only what differs is written.
        let sent: Vec<_> = objects
            .iter()
            .zip(&rows)
            .filter(|(_, row)| row.is_change() || self.dry_run == Some(DryRun::Server))
            .map(|(object, _)| policy_object_to_v1(object))
            .collect();
        let mut revision = None;
        if (!sent.is_empty() || !pruned.is_empty()) && self.dry_run != Some(DryRun::Client) {
            let count = sent.len() + pruned.len();
            let request = ApplyPolicyRequest {
                objects: sent,
                delete: names_to_v1(&pruned),
                validate_only: is_dry,
                if_revision: self.if_revision,
                ..ApplyPolicyRequest::default()
            };
            let asked = format!("cannot apply {count} {}", if count == 1 { "object" } else { "objects" });
            let answer =
                client.apply_policy(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            revision = Some(answer.revision).filter(|_| !is_dry);
        }
        // The policy first: a request may name what it creates.
        let submitted = submit(&client, &requests, self.dry_run, &mut rows).await;
        let out = globals.out();
        show(&out, &rows)?;
        let waiting = submitted?;
        let took_ms = begun.elapsed().as_millis();
        match revision {
            Some(revision) => {
                out.done(&format!("Applied {} at revision {revision} in {took_ms}ms", tally(&rows)));
            }
            None => out.done(&format!("Nothing was changed: {}", tally(&rows))),
        }
        Ok(if waiting { Exit::Pending } else { Exit::Done })
    }

    fn selector(&self) -> Result<Selector, CliError> {
        let mut terms = Vec::new();
        for text in &self.selector {
            terms.extend(read_selector(text)?);
        }
        selector_from_v1(&terms).map_err(|violations| {
            let text: Vec<String> = violations.iter().map(ToString::to_string).collect();
            CliError::usage(text.join("; ")).asked("--selector makes no sense")
        })
    }
}

/// Submits requests under keys made of their names, so that applying the same file again asks for nothing anew. True where one waits.
async fn submit(
    client: &Client,
    requests: &[Requested],
    dry_run: Option<DryRun>,
    rows: &mut Vec<Row>,
) -> Result<bool, CliError> {
    let mut waiting = false;
    for requested in requests {
        let name = requested.spec.name.clone();
        if dry_run == Some(DryRun::Client) {
            rows.push(Row::of_request(name, "created", true));
            continue;
        }
        let request = CreateReservationRequest {
            request_id: key_of(&name)?,
            validate_only: dry_run.is_some(),
            spec: Some(requested.spec.clone()),
        };
        let answer = client.create_reservation(request).await.map_err(|error| {
            CliError::from(error).asked(format!("cannot apply reservation {name:?} ({})", requested.place))
        })?;
        let made = answer.reservation.unwrap_or_default();
        // What was there is answered as it was when it was made.
        waiting |= matches!(made.state(), ReservationState::Pending | ReservationState::Planned);
        rows.push(Row::of_request(name, "submitted", dry_run.is_some()));
    }
    Ok(waiting)
}

/// The idempotency key of a request in a file.
fn key_of(name: &str) -> Result<String, CliError> {
    let key = format!("apply-reservation-{name}");
    let most = *REQUEST_ID_LENGTH.end();
    if key.len() > most {
        let most = most - (key.len() - name.len());
        return Err(CliError::usage(format!("the name {name:?} is longer than {most} bytes"))
            .help("its name makes the key under which a request is applied once"));
    }
    Ok(key)
}

/// Labels are what pools alone have.
fn is_selected(object: &PolicyObject, selector: &Selector) -> bool {
    matches!(object, PolicyObject::Pool(pool) if selector.matches(&pool.labels))
}
