//! The doctor: what a stopped coordinator's data directory holds, whether it is sound, and what a start would do with it.
//!
//! Nothing of the directory is changed. The stores are looked at through shadows ([`plimsoll_store::rocks::Shadow`]), so that
//! the code of a start itself says what it would find.

mod logs;
mod state;

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll_consensus::{ExaminedSnapshot, LogPosition};
use plimsoll_types::Revision;

use super::identity::Identity;

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// Not as usual, but a start copes with it and nothing that was acknowledged is gone.
    Odd,
    /// Damaged.
    Bad,
    /// Not looked at, because an earlier check failed.
    Skipped,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found, in words.
    pub detail: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

/// What a start on the directory would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Begin with nothing: there are no data.
    Empty,
    /// Start as always.
    Normal,
    /// Start, though something that is not needed for it is damaged.
    Impaired,
    /// Refuse, or stop at once.
    Refuse,
}

/// What the directory holds, as far as it can be read.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Name of the cluster.
    pub cluster: String,
    /// Id of the member; 0 where unknown.
    pub node_id: u64,
    /// Which life of the member this directory is.
    pub incarnation: String,
    /// Term, candidate and whether it was granted by a quorum.
    pub vote: Option<(u64, u64, bool)>,
    /// First entry of the log that is there.
    pub first: Option<LogPosition>,
    /// Last entry of the log.
    pub last: Option<LogPosition>,
    /// Entries up to this one were let go of.
    pub purged: Option<LogPosition>,
    /// The log's own record of what is committed.
    pub committed: Option<LogPosition>,
    /// The entry that the rows on disk show.
    pub applied: Option<LogPosition>,
    /// Sequence number of the log's database that is remembered as durable.
    pub floor: Option<u64>,
    /// Revision of the rows on disk.
    pub rows_revision: Revision,
    /// Digest of the rows on disk, in hexadecimal.
    pub rows_digest: String,
    /// Revision after the log's tail was applied to the rows.
    pub revision: Revision,
    /// Digest after that, in hexadecimal.
    pub digest: String,
    /// Chain hash after that, in hexadecimal.
    pub chain: String,
    /// Reservations that the ledger has then.
    pub reservations: u64,
    /// Nodes that it has then.
    pub nodes: u64,
    /// Ids and addresses of the members as the rows know them, and whether they vote.
    pub members: Vec<(u64, String, bool)>,
    /// Oldest and latest record of history.
    pub history: Option<(Revision, Revision)>,
    /// Snapshots that are whole, oldest first.
    pub snapshots: Vec<ExaminedSnapshot>,
}

/// What the doctor says.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The directory.
    pub directory: PathBuf,
    /// What it holds.
    pub facts: Facts,
    /// What was looked at, in order.
    pub checks: Vec<Check>,
    /// What a start would do.
    pub start: Start,
}

impl Diagnosis {
    /// Nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.health, Health::Good | Health::Odd))
    }
}

/// Why the doctor could not look.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// There is no such directory.
    #[error("there is no directory {0}")]
    Absent(String),
    /// A coordinator runs on it.
    #[error(
        "a coordinator has {0} open: stop it first, or ask it (`plimsoll cluster status`, `plimsoll audit digest`)"
    )]
    InUse(String),
    /// The file system failed.
    #[error("cannot look at {place}")]
    Failed {
        /// What was being looked at.
        place: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What to do with a member that cannot be started on its data.
fn replace(node_id: u64) -> String {
    format!(
        "do not start it on this folder, and keep the folder for a look; empty it, start the member as a node with a new id, \
         and run `plimsoll cluster replace {node_id} ADDRESS`"
    )
}

/// Looks at the directory of a stopped coordinator; `say` is told what is being looked at. Needs room in the system's
/// temporary directory for a copy of the stores' unsorted part: some 100 MiB at most.
///
/// # Errors
/// Where it could not look. Damage is no error but a check that is [`Health::Bad`].
pub fn examine(directory: &Path, mut say: impl FnMut(&str)) -> Result<Diagnosis, DoctorError> {
    if !directory.is_dir() {
        return Err(DoctorError::Absent(directory.display().to_string()));
    }
    let mut sheet = Sheet { checks: Vec::new(), refused: false, facts: Facts::default() };
    say("identity");
    let is_new = identity(directory, &mut sheet);
    let beside = tempfile::Builder::new().prefix("plimsoll-doctor-").tempdir();
    let beside = beside.map_err(|source| DoctorError::Failed {
        place: "the temporary directory".to_owned(),
        source: source.into(),
    })?;
    let shadows = logs::Shadows::take(directory, beside.path())?;
    if !is_new || directory.join("log").exists() {
        say("log");
        let log = logs::log(&shadows, &mut sheet);
        say("rows");
        let rows = state::rows(&shadows, log.as_ref(), &mut sheet);
        say("history");
        let history = state::history(&shadows, rows.as_ref(), &mut sheet);
        say("log's tail over the rows");
        let ledger = state::replay(log, rows, &history, &mut sheet);
        say("invariants");
        state::invariants(ledger.as_ref(), &mut sheet);
    }
    say("snapshots");
    snapshots(&directory.join("snapshots"), &mut sheet);
    let is_empty = is_new && sheet.facts.last.is_none() && sheet.facts.applied.is_none();
    let Sheet { checks, refused, facts } = sheet;
    let damaged = checks.iter().any(|check| check.health == Health::Bad);
    let start = match (refused, is_empty, damaged) {
        (true, ..) => Start::Refuse,
        (false, true, _) => Start::Empty,
        (false, false, true) => Start::Impaired,
        (false, false, false) => Start::Normal,
    };
    Ok(Diagnosis { directory: directory.to_owned(), facts, checks, start })
}

/// What is filled in on the way.
struct Sheet {
    checks: Vec<Check>,
    /// A start would refuse, or stop at once.
    refused: bool,
    facts: Facts,
}

impl Sheet {
    fn add(&mut self, name: &'static str, health: Health, detail: impl Into<String>, fix: impl Into<String>) {
        self.checks.push(Check { name, health, detail: detail.into(), fix: fix.into() });
    }

    fn good(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, Health::Good, detail, "");
    }

    fn skip(&mut self, name: &'static str, why: &str) {
        self.add(name, Health::Skipped, why, "");
    }

    /// Damage that a start refuses.
    fn refuse(&mut self, name: &'static str, error: &dyn std::error::Error) {
        self.refused = true;
        self.add(name, Health::Bad, chain(error), replace(self.facts.node_id));
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Whose data it is; true where nobody's yet.
fn identity(directory: &Path, sheet: &mut Sheet) -> bool {
    const NAME: &str = "identity";
    // Whose it is, is not known: what the file says is compared with itself, and everything else is checked.
    let told = fs::read(directory.join("identity.json")).ok();
    let told =
        told.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()).unwrap_or_default();
    let cluster = told["cluster"].as_str().unwrap_or_default();
    let node_id = told["node_id"].as_u64().unwrap_or_default();
    sheet.facts.cluster = cluster.to_owned();
    sheet.facts.node_id = node_id;
    match Identity::check(directory, &directory.join("log"), cluster, node_id) {
        Ok(Some(identity)) => {
            let detail =
                format!("node {node_id} of cluster {cluster:?}, incarnation {}", identity.incarnation);
            sheet.facts.incarnation = identity.incarnation;
            sheet.good(NAME, detail);
            false
        }
        Ok(None) if directory.join("log").exists() => {
            let detail = "there is none, though there is a log";
            let fix = "a start gives it a new incarnation, which peers that know this member refuse: replace it then";
            sheet.add(NAME, Health::Odd, detail, fix);
            true
        }
        Ok(None) => {
            sheet.good(NAME, "there is none: no coordinator has used this directory");
            true
        }
        Err(error) => {
            sheet.refuse(NAME, &error);
            false
        }
    }
}

fn snapshots(directory: &Path, sheet: &mut Sheet) {
    const NAME: &str = "snapshots";
    let mut damaged = Vec::new();
    for path in ExaminedSnapshot::files(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match ExaminedSnapshot::read(&path) {
            Ok(found) if !sheet.facts.cluster.is_empty() && found.cluster_id != sheet.facts.cluster => {
                damaged.push(format!("{name} is of cluster {:?}", found.cluster_id));
            }
            Ok(found) => sheet.facts.snapshots.push(found),
            Err(error) => damaged.push(format!("{name}: {error}")),
        }
    }
    if !damaged.is_empty() {
        let fix = "a start passes it over and the member makes another when it is needed; look at the disk";
        sheet.add(NAME, Health::Bad, damaged.join("; "), fix);
        return;
    }
    let detail = match &sheet.facts.snapshots[..] {
        [] => "there is none yet".to_owned(),
        all => {
            let one = |found: &ExaminedSnapshot| {
                format!("to index {} ({} rows)", found.position.map_or(0, |at| at.index), found.rows)
            };
            all.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    };
    sheet.good(NAME, detail);
}
