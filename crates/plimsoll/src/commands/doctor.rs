//! `plimsoll doctor`: the data folder of a stopped coordinator.

use std::path::PathBuf;

use clap::Args;
use plimsoll_consensus::LogPosition;
use plimsoll_coordinator::core::doctor::{Check, Diagnosis, DoctorError, Facts, Health, Start, examine};
use serde_json::{Value, json};

use super::agent::chain;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Column, Shown};

/// Looks at the data folder of a stopped coordinator and changes nothing in it. Ends with 0 where all of it is sound, with 74
/// where something is damaged, with 6 where a coordinator has it open.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The data folder
    #[arg(value_name = "DATA_DIR")]
    directory: PathBuf,
}

impl Doctor {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let Doctor { directory } = self;
        let teller = out.clone();
        let looked = tokio::task::spawn_blocking(move || {
            examine(&directory, |what| teller.say(&teller.paint.faint(&format!("looking at {what}"))))
        });
        let looked = looked.await.map_err(|error| CliError::local("cannot look", error))?;
        let diagnosis = looked.map_err(|error| match &error {
            DoctorError::Absent(_) => CliError::new(Exit::NotFound, "NOT_FOUND", error.to_string()),
            DoctorError::InUse(_) => CliError::new(Exit::Conflict, "IN_USE", error.to_string()),
            DoctorError::Failed { .. } => CliError::local("cannot look", chain(&error)),
        })?;
        if out.is_human() {
            out.emit(&told(&diagnosis.facts))?;
            let rows: Vec<Row> = (1..)
                .zip(&diagnosis.checks)
                .map(|(number, check)| Row { number, check: check.clone() })
                .collect();
            out.list(&rows, None)?;
            let (verdict, ways) = verdict(&diagnosis);
            out.emit(&format!("\n{verdict}\n"))?;
            for (number, fix) in ways {
                out.emit(&format!("  {number}. {fix}\n"))?;
            }
        } else {
            out.document(&document(&diagnosis))?;
        }
        Ok(if diagnosis.is_sound() { Exit::Done } else { Exit::Storage })
    }
}

/// One check as a row.
struct Row {
    number: usize,
    check: Check,
}

impl Shown for Row {
    const COLUMNS: &'static [Column<Row>] = &[
        Column::new("#", |row, _| row.number.to_string()),
        Column::new("CHECK", |row, _| row.check.name.to_owned()),
        Column::new("RESULT", |row, _| word(row.check.health).to_owned()),
        Column::new("DETAIL", |row, _| row.check.detail.clone()),
    ];

    fn id(&self) -> String {
        self.check.name.to_owned()
    }

    fn json(&self) -> Value {
        let Check { name, health, detail, fix } = &self.check;
        json!({ "name": name, "result": word(*health), "detail": detail, "fix": fix })
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Good => "ok",
        Health::Odd => "odd",
        Health::Bad => "damaged",
        Health::Skipped => "skipped",
    }
}

fn start_word(start: Start) -> &'static str {
    match start {
        Start::Empty => "empty",
        Start::Normal => "normal",
        Start::Impaired => "impaired",
        Start::Refuse => "refuse",
    }
}

/// What a start would do, in a sentence, and what to do about each check that needs it, by its number.
fn verdict(diagnosis: &Diagnosis) -> (&'static str, Vec<(usize, &str)>) {
    let sentence = match diagnosis.start {
        Start::Empty => "A start would begin with nothing: there are no data.",
        Start::Normal => "A start would go on where this member stopped.",
        Start::Impaired => {
            "A start would go on where this member stopped, though something here is damaged. What to do:"
        }
        Start::Refuse => "A start would refuse this folder. What to do:",
    };
    let ways = (1..).zip(&diagnosis.checks).filter(|(_, check)| !check.fix.is_empty());
    (sentence, ways.map(|(number, check)| (number, check.fix.as_str())).collect())
}

fn at(position: Option<LogPosition>) -> String {
    position.map_or_else(|| "-".to_owned(), |at| format!("{} (term {})", at.index, at.term))
}

/// The facts, for people.
fn told(facts: &Facts) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let members: Vec<String> = facts
        .members
        .iter()
        .map(|(id, address, voter)| format!("{id} at {address}{}", if *voter { "" } else { " (learner)" }))
        .collect();
    let history =
        facts.history.map_or_else(|| "-".to_owned(), |(first, last)| format!("{} to {}", first.0, last.0));
    let snapshots: Vec<String> = facts.snapshots.iter().map(|found| at(found.position)).collect();
    let lines = [
        ("cluster", or_dash(&facts.cluster)),
        ("node", facts.node_id.to_string()),
        ("incarnation", or_dash(&facts.incarnation)),
        ("members", or_dash(&members.join(", "))),
        ("log", format!("{} to {}, let go of to {}", at(facts.first), at(facts.last), at(facts.purged))),
        ("committed", at(facts.committed)),
        ("applied", at(facts.applied)),
        ("log floor", facts.floor.map_or_else(|| "-".to_owned(), |floor| floor.to_string())),
        ("revision", format!("{} (rows {})", facts.revision.0, facts.rows_revision.0)),
        ("digest", or_dash(&facts.digest)),
        ("chain hash", or_dash(&facts.chain)),
        ("history", history),
        ("snapshots", or_dash(&snapshots.join(", "))),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect();
    text.push('\n');
    text
}

fn document(diagnosis: &Diagnosis) -> Value {
    let facts = &diagnosis.facts;
    let place = |position: Option<LogPosition>| {
        position.map(|at| {
            json!({ "index": at.index.to_string(), "term": at.term.to_string(), "leader": at.node_id.to_string() })
        })
    };
    let member = |(id, address, voter): &(u64, String, bool)| json!({ "id": id.to_string(), "address": address, "voter": voter });
    let vote = facts.vote.map(|(term, node, granted)| {
        json!({ "term": term.to_string(), "nodeId": node.to_string(), "granted": granted })
    });
    let snapshots: Vec<Value> = facts
        .snapshots
        .iter()
        .map(|found| {
            json!({ "path": found.path.display().to_string(), "position": place(found.position), "rows": found.rows.to_string() })
        })
        .collect();
    let checks: Vec<Value> = (1..)
        .zip(&diagnosis.checks)
        .map(|(number, check)| Row { number, check: check.clone() }.json())
        .collect();
    json!({
        "directory": diagnosis.directory.display().to_string(),
        "sound": diagnosis.is_sound(),
        "start": start_word(diagnosis.start),
        "verdict": verdict(diagnosis).0,
        "cluster": facts.cluster,
        "nodeId": facts.node_id.to_string(),
        "incarnation": facts.incarnation,
        "members": facts.members.iter().map(member).collect::<Vec<_>>(),
        "vote": vote,
        "log": {
            "first": place(facts.first),
            "last": place(facts.last),
            "purged": place(facts.purged),
            "committed": place(facts.committed),
            "floorSequence": facts.floor.map(|floor| floor.to_string()),
        },
        "applied": place(facts.applied),
        "rows": { "revision": facts.rows_revision.0.to_string(), "digest": facts.rows_digest },
        "revision": facts.revision.0.to_string(),
        "digest": facts.digest,
        "chainHash": facts.chain,
        "reservations": facts.reservations.to_string(),
        "nodes": facts.nodes.to_string(),
        "history": facts.history.map(|(first, last)| json!({ "first": first.0.to_string(), "last": last.0.to_string() })),
        "snapshots": snapshots,
        "checks": checks,
    })
}
