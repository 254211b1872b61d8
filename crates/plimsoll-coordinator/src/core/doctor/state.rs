//! Rows, history, and the log's tail over the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use plimsoll_consensus::{ExaminedLog, ExaminedState};
use plimsoll_ledger::{Body, LATEST_VERSION, Ledger, Row, Stamp, StoredRow};
use plimsoll_proto::digest::{self, StateHasher};
use plimsoll_store::Engine;
use plimsoll_store::rocks::RocksEngine;
use plimsoll_types::Revision;

use super::logs::{Shadows, said};
use super::{Health, Sheet, replace};
use crate::core::bodies;
use crate::core::stored::StoredRows;
use crate::core::{History, encoding, stored};

/// Key of the row with the chain hash, as the machine writes it.
const CHAIN_ROW: &[u8] = b"c";
/// Records read at once.
const PAGE: usize = 1_024;

/// The ledger that the rows make.
pub(super) struct Rows {
    ledger: Ledger,
    chain: [u8; 32],
    applied: u64,
}

/// Chain hashes of the records of history from some revision on.
#[derive(Default)]
pub(super) struct Kept {
    chains: BTreeMap<u64, [u8; 32]>,
}

/// Digest of a whole ledger.
fn digest_of(ledger: &Ledger) -> String {
    let mut hasher = StateHasher::new();
    for (key, row) in ledger.rows() {
        hasher.add(&key, &row);
    }
    digest::hex(&hasher.finish())
}

/// The rows on disk: each decodes, they make a ledger, and the log goes on where they end.
pub(super) fn rows(shadows: &Shadows, log: Option<&ExaminedLog>, sheet: &mut Sheet) -> Option<Rows> {
    const NAME: &str = "rows";
    let read = read_rows(shadows);
    let (state, rows) = match read {
        Ok(read) => read,
        Err(Unread::Newer(version)) => {
            let detail =
                format!("they are of ledger version {version}, and this build knows up to {LATEST_VERSION}");
            let fix = format!(
                "nothing is wrong with them: start, and examine, with a build that knows version {version}"
            );
            sheet.refused = true;
            sheet.add(NAME, Health::Bad, detail, fix);
            return None;
        }
        Err(Unread::Bad(detail)) => {
            sheet.refused = true;
            sheet.add(NAME, Health::Bad, detail, replace(sheet.facts.node_id));
            return None;
        }
    };
    let facts = &mut sheet.facts;
    facts.applied = state.applied;
    facts.members =
        state.members.iter().map(|(id, info, voter)| (*id, info.address.clone(), *voter)).collect();
    facts.rows_revision = rows.ledger.revision();
    facts.rows_digest = digest_of(&rows.ledger);
    let detail = format!(
        "{} rows of ledger version {} and revision {}, at log index {}; their digest is {}",
        rows.ledger.rows().count(),
        rows.ledger.meta().version,
        facts.rows_revision.0,
        rows.applied,
        facts.rows_digest,
    );
    if !state.cluster_id.is_empty() && !facts.cluster.is_empty() && state.cluster_id != facts.cluster {
        let detail = format!("they are of cluster {:?}, not {:?}", state.cluster_id, facts.cluster);
        sheet.refused = true;
        sheet.add(NAME, Health::Bad, detail, replace(sheet.facts.node_id));
        return None;
    }
    let purged = log.and_then(|log| log.purged).map_or(0, |at| at.index);
    if purged > rows.applied {
        let detail = format!(
            "{detail}; but the log has let go of everything up to index {purged}: what is between is missing"
        );
        sheet.refused = true;
        sheet.add(NAME, Health::Bad, detail, replace(sheet.facts.node_id));
        return None;
    }
    let last = log.and_then(|log| log.last).map_or(0, |at| at.index);
    if log.is_some() && last < rows.applied {
        let detail = format!("{detail}; the log ends before, at index {last}");
        sheet.add(
            NAME,
            Health::Odd,
            detail,
            "as after a snapshot that came from the leader: a start puts it right",
        );
    } else {
        sheet.good(NAME, detail);
    }
    Some(rows)
}

/// Why rows are not read.
enum Unread {
    /// They are damaged, and how.
    Bad(String),
    /// They need the rules of this ledger version, which this build does not have.
    Newer(u32),
}

fn read_rows(shadows: &Shadows) -> Result<(ExaminedState, Rows), Unread> {
    let shadow = &shadows.state;
    let bad = |error: &dyn std::error::Error| Unread::Bad(said(error, shadow, "state"));
    let engine = RocksEngine::open_repeatable(shadow.dir()).map_err(|error| bad(&error))?;
    let state = ExaminedState::read(&engine).map_err(|error| bad(&error))?.unwrap_or_default();
    let mut chain = [0; 32];
    let (mut all, mut reader) = (Vec::new(), StoredRows::default());
    let mut wrong = None;
    ExaminedState::rows(&engine, |key, value| {
        let read = row(&key, &value, &mut chain, &mut reader);
        match read {
            // It comes first, before any row that only newer builds know.
            Ok(Some(StoredRow::Whole(Row::Meta(meta)))) if meta.version > LATEST_VERSION => {
                wrong.get_or_insert(Unread::Newer(meta.version));
            }
            Ok(row) => all.extend(row),
            Err(error) => {
                wrong.get_or_insert(Unread::Bad(error));
            }
        }
    })
    .map_err(|error| bad(&error))?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let ledger = match all.is_empty() {
        true => Ledger::new(),
        false => {
            let of_row = |row: &StoredRow| match row {
                StoredRow::Whole(row) => bodies::body_of(row).cloned(),
                _ => None,
            };
            let bodies: Vec<Arc<Body>> = all.iter().filter_map(of_row).collect();
            let ledger = Ledger::from_stored(all).map_err(|error| Unread::Bad(error.to_string()))?;
            let damaged = bodies::damaged(&ledger, bodies.iter());
            if let Some(error) = damaged.first() {
                return Err(Unread::Bad(format!("{error}; {} such in all", damaged.len())));
            }
            ledger
        }
    };
    let applied = state.applied.map_or(0, |at| at.index);
    Ok((state, Rows { ledger, chain, applied }))
}

fn row(
    key: &Bytes,
    value: &Bytes,
    chain: &mut [u8; 32],
    reader: &mut StoredRows,
) -> Result<Option<plimsoll_ledger::StoredRow>, String> {
    if key == CHAIN_ROW {
        *chain = value.as_ref().try_into().map_err(|_| "the chain hash is not 32 bytes".to_owned())?;
        return Ok(None);
    }
    if key.first() != Some(&stored::LEDGER_ROWS) {
        return Err(format!("a row with an unknown key {key:?}"));
    }
    reader.read(key, value).map(Some)
}

/// History: every block decodes, no record is missing, and each links to the one before it.
pub(super) fn history(shadows: &Shadows, rows: Option<&Rows>, sheet: &mut Sheet) -> Kept {
    const NAME: &str = "history";
    let engine = match RocksEngine::open(shadows.history.dir()) {
        Ok(engine) => Arc::new(engine) as Arc<dyn Engine>,
        Err(error) => {
            sheet.refused = true;
            let fix = "it is this member's own and no part of the state: with the member stopped, move the folder `history` \
                       away, and it starts with none";
            sheet.add(NAME, Health::Bad, said(&error, &shadows.history, "history"), fix);
            return Kept::default();
        }
    };
    let from = rows.map_or(Revision(0), |rows| rows.ledger.revision());
    match read_history(engine, from) {
        Ok((first, last, kept)) => {
            sheet.facts.history = (last >= first).then_some((first, last));
            let at_rows = kept.chains.get(&from.0);
            if let (Some(rows), Some(chain)) = (rows, at_rows)
                && rows.chain != *chain
            {
                let detail = format!("its chain hash of revision {} is not that of the rows", from.0);
                sheet.add(NAME, Health::Bad, detail, replace(sheet.facts.node_id));
                return kept;
            }
            let detail = match last >= first {
                true => format!("revisions {} to {}, every chain hash holds", first.0, last.0),
                false => "there is none".to_owned(),
            };
            sheet.good(NAME, detail);
            kept
        }
        Err(detail) => {
            let fix =
                "audits and watches from there on fail here, grants do not; replace the member when it suits";
            sheet.add(NAME, Health::Bad, detail, fix);
            Kept::default()
        }
    }
}

/// First and last revision, and the chain hashes from `from` on.
fn read_history(engine: Arc<dyn Engine>, from: Revision) -> Result<(Revision, Revision, Kept), String> {
    let history = History::open(engine, u64::MAX).map_err(|error| error.to_string())?;
    let first = history.first_revision();
    let mut next = first;
    let mut before = (first.0 == 1).then_some([0; 32]);
    let mut kept = Kept::default();
    loop {
        let records = history.read(next, PAGE).map_err(|error| error.to_string())?;
        let Some(end) = records.last().map(|record| record.revision) else { break };
        for record in &records {
            let links = before.is_none_or(|before| {
                encoding::chain(&before, &record.entry, &record.outcome) == record.chain
            });
            if !links {
                return Err(format!("the chain hash of revision {} does not follow", record.revision.0));
            }
            before = Some(record.chain);
            if record.revision >= from {
                kept.chains.insert(record.revision.0, record.chain);
            }
        }
        next = Revision(end.0 + 1);
    }
    Ok((first, Revision(next.0 - 1), kept))
}

/// Applies the log's tail to the rows, as a start does.
pub(super) fn replay(
    log: Option<ExaminedLog>,
    rows: Option<Rows>,
    history: &Kept,
    sheet: &mut Sheet,
) -> Option<Ledger> {
    const NAME: &str = "replay";
    let (Some(log), Some(mut rows)) = (log, rows) else {
        sheet.skip(NAME, "log or rows cannot be used");
        return None;
    };
    let (mut entries, applied) = (0, rows.applied);
    for (index, payload) in log.payloads.iter().filter(|(index, _)| *index > applied) {
        if let Err(detail) = apply(&mut rows, payload, history) {
            sheet.refused = true;
            let detail = format!("log index {index}: {detail}");
            let fix = format!(
                "if an older program was started here, start the newer one again; otherwise {}",
                replace(sheet.facts.node_id)
            );
            sheet.add(NAME, Health::Bad, detail, fix);
            return None;
        }
        entries += 1;
    }
    let ledger = rows.ledger;
    let facts = &mut sheet.facts;
    facts.revision = ledger.revision();
    facts.digest = digest_of(&ledger);
    facts.chain = digest::hex(&rows.chain);
    facts.reservations = ledger.reservations().count() as u64;
    facts.nodes = ledger.nodes().count() as u64;
    // What is applied is committed, also where the log's record of it is older.
    let committed = log.committed.map_or(0, |at| at.index).max(applied);
    let open = if log.last.is_some_and(|last| last.index > committed) {
        "; the last ones may not be committed"
    } else {
        ""
    };
    let detail = format!(
        "{entries} entries of the log over the rows lead to revision {}, digest {}{open}",
        facts.revision.0, facts.digest
    );
    sheet.good(NAME, detail);
    Some(ledger)
}

fn apply(rows: &mut Rows, payload: &Bytes, history: &Kept) -> Result<(), String> {
    let batch = encoding::decode_batch(payload)
        .map_err(|error| format!("this program does not know a command in it: {error}"))?;
    for (entry, bytes) in batch.entries.iter().zip(&batch.encoded) {
        let revision = Revision(rows.ledger.revision().0 + 1);
        let applied = rows.ledger.apply(Stamp { revision, proposed_at: batch.proposed_at }, entry);
        let outcome = encoding::encode_outcome(&applied.answer.outcome);
        rows.chain = encoding::chain(&rows.chain, bytes, &outcome);
        if history.chains.get(&revision.0).is_some_and(|chain| *chain != rows.chain) {
            return Err(format!("revision {} comes to something else than history says it did", revision.0));
        }
    }
    // Only the final state is wanted here.
    drop(rows.ledger.take_rows());
    Ok(())
}

/// The ledger after all of that, against its invariants.
pub(super) fn invariants(ledger: Option<&Ledger>, sheet: &mut Sheet) {
    const NAME: &str = "invariants";
    let Some(ledger) = ledger else {
        sheet.skip(NAME, "there is no ledger to look at");
        return;
    };
    let violations = ledger.check_invariants();
    if violations.is_empty() {
        let detail =
            format!("{} reservations and {} nodes, all hold", sheet.facts.reservations, sheet.facts.nodes);
        sheet.good(NAME, detail);
        return;
    }
    let one =
        |violation: &plimsoll_ledger::Violation| format!("{}: {}", violation.invariant, violation.detail);
    let shown: Vec<String> = violations.iter().take(5).map(one).collect();
    let more = violations.len().saturating_sub(shown.len());
    let detail = format!(
        "{}{}",
        shown.join("; "),
        if more > 0 { format!("; and {more} more") } else { String::new() }
    );
    let fix = "compare `plimsoll audit digest` of the others: if theirs differ, replace this member; if not, all are wrong \
               alike, so keep a copy and report it";
    sheet.add(NAME, Health::Bad, detail, fix);
}
