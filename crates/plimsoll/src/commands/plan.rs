//! `plimsoll plan`: what a request or policy files would come to, and whom that would cost or help. Nothing is changed.

use std::time::Duration;

use clap::Args;
use plimsoll_client::reason;
use plimsoll_client::v1::{Failure, PlanRequest, PlanResponse, PlanVerdict, WaitPolicy};
use plimsoll_policy::Contents;
use plimsoll_proto::convert::policy_object_to_v1;
use serde_json::json;

use super::apply_files::{FileArgs, Row, live};
use super::plan_text;
use crate::args::{Globals, ResourceArgs, duration};
use crate::error::CliError;
use crate::exit::Exit;

/// Says what would happen.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    resources: ResourceArgs,
    /// Take the grant up at once, with no confirm step
    #[arg(long)]
    confirm: bool,
    /// Wait in the queue for at most so long
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "now")]
    wait: Option<Duration>,
    /// Be refused where nothing fits now
    #[arg(long)]
    now: bool,
    /// How far to look ahead, at most 31 days
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    horizon: Duration,
    /// Most effects to show, at most 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    effects: u32,
    /// Refuse the policy (exit 6) where any policy object changed after this revision
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    if_revision: u64,
    /// End with 10 where policy files would change anything
    #[arg(long, visible_alias = "detailed-exitcode")]
    exit_code: bool,
}

impl Plan {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let contents = self.contents()?;
        let client = globals.client()?;
        let objects: Vec<_> = contents.objects.iter().map(|parsed| &parsed.object).collect();
        let names: Vec<_> = objects.iter().map(|object| object.name()).collect();
        let live = live(&client, globals.consistency(), &names).await?;
        let rows: Vec<Row> =
            objects.iter().map(|object| Row::of_change(live.get(&object.name()), object, true)).collect();
        let request = PlanRequest {
            objects: objects.iter().map(|object| policy_object_to_v1(object)).collect(),
            delete: Vec::new(),
            if_revision: self.if_revision,
            specs: contents.requests.iter().map(|requested| requested.spec.clone()).collect(),
            horizon_ms: as_ms(self.horizon),
            max_effects: self.effects,
        };
        let specs = request.specs.clone();
        let answer =
            client.plan(request).await.map_err(|error| CliError::from(error).asked("cannot plan"))?;
        let out = globals.out();
        if out.is_human() {
            out.emit(&plan_text::text(&rows, &specs, &answer, &out))?;
        } else {
            let plan = serde_json::to_value(&answer)
                .map_err(|error| CliError::local("the plan cannot be written", error))?;
            let changes: Vec<_> = rows.iter().map(crate::output::Shown::json).collect();
            out.document(&json!({ "changes": changes, "plan": plan }))?;
        }
        let changes = rows.iter().any(Row::is_change);
        Ok(match exit(&answer) {
            Exit::Done if changes && self.exit_code => Exit::Changes,
            exit => exit,
        })
    }

    /// What the files hold, or the one request of the options.
    fn contents(&self) -> Result<Contents, CliError> {
        if !self.files.is_empty() {
            if !self.resources.is_empty() {
                return Err(CliError::usage("files and RESOURCES at once")
                    .help("put the request into a file, as kind: Reservation"));
            }
            return self.files.load_all("cannot plan");
        }
        if self.resources.is_empty() {
            return Err(CliError::usage("plan what?")
                .help("name files: -f FILE, or say what you would ask for: --gpu 2 --for 4h"));
        }
        let mut spec = self.resources.spec()?;
        spec.auto_confirm = self.confirm;
        if spec.ttl_ms == 0 {
            spec.ttl_ms = spec.max_duration_ms;
        }
        spec.wait = (!self.now).then(|| WaitPolicy { queue: true, deadline_ms: self.wait.map_or(0, as_ms) });
        let place = plimsoll_policy::Place { file: "options".to_owned(), line: 1, column: 1 };
        Ok(Contents { objects: Vec::new(), requests: vec![plimsoll_policy::Requested { spec, place }] })
    }
}

/// The worst of all: refused before never, never before waiting.
fn exit(answer: &PlanResponse) -> Exit {
    let of_failure = |failure: &Failure| Exit::of_code(reason::exit_code(failure.reason()));
    if let Some(failure) = &answer.policy_failure {
        return of_failure(failure);
    }
    let refused = answer.requests.iter().filter(|planned| planned.verdict() == PlanVerdict::Refused);
    if let Some(failure) = refused.filter_map(|planned| planned.failure.as_ref()).next() {
        return of_failure(failure);
    }
    let any = |verdict| answer.requests.iter().any(|planned| planned.verdict() == verdict);
    if any(PlanVerdict::Never) {
        return Exit::Infeasible;
    }
    if any(PlanVerdict::Waits) || any(PlanVerdict::StartsAfterNotice) {
        return Exit::Pending;
    }
    Exit::Done
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
