//! Shadows of the stores, and what the log says.

use std::path::Path;

use plimsoll_consensus::ExaminedLog;
use plimsoll_store::Error;
use plimsoll_store::rocks::{RocksWal, RocksWalOptions, Shadow};

use super::{DoctorError, Health, Sheet, chain};

/// The three stores of a directory, held and copied.
pub(super) struct Shadows {
    pub(super) log: Shadow,
    pub(super) state: Shadow,
    pub(super) history: Shadow,
}

impl Shadows {
    pub(super) fn take(directory: &Path, beside: &Path) -> Result<Shadows, DoctorError> {
        let take = |name: &str| {
            Shadow::take(&directory.join(name), &beside.join(name)).map_err(|error| match error {
                Error::Locked { .. } => DoctorError::InUse(directory.display().to_string()),
                error => DoctorError::Failed {
                    place: directory.join(name).display().to_string(),
                    source: Box::new(error),
                },
            })
        };
        Ok(Shadows { log: take("log")?, state: take("state")?, history: take("history")? })
    }
}

/// Says where a shadow lies as where its original does.
pub(super) fn said(error: &dyn std::error::Error, shadow: &Shadow, name: &str) -> String {
    chain(error).replace(&shadow.dir().display().to_string(), name)
}

/// The log: floor, checksums, hash chain, order, vote. `None` where it cannot be used.
pub(super) fn log(shadows: &Shadows, sheet: &mut Sheet) -> Option<ExaminedLog> {
    const FLOOR: &str = "log floor";
    const LOG: &str = "log";
    const VOTE: &str = "vote";
    let shadow = &shadows.log;
    let refuse = |sheet: &mut Sheet, name, error: &dyn std::error::Error| {
        sheet.refused = true;
        let fix = super::replace(sheet.facts.node_id);
        sheet.add(name, Health::Bad, said(error, shadow, "log"), fix);
    };
    let skip_rest = |sheet: &mut Sheet, names: &[&'static str]| {
        names.iter().for_each(|name| sheet.skip(name, "the log cannot be opened"));
    };
    match shadow.floor() {
        Ok(floor) => sheet.facts.floor = floor,
        Err(error) => {
            refuse(sheet, FLOOR, &error);
            skip_rest(sheet, &[LOG, VOTE]);
            return None;
        }
    }
    let options = RocksWalOptions { fatal: std::sync::Arc::new(|_| {}), ..RocksWalOptions::default() };
    let wal = match RocksWal::open_with(shadow.dir(), options) {
        Ok(wal) => wal,
        Err(error) => {
            let is_floor = matches!(error, Error::LostWrites { .. }) || sheet.facts.floor.is_none();
            let (name, rest) = if is_floor { (FLOOR, LOG) } else { (LOG, FLOOR) };
            refuse(sheet, name, &error);
            skip_rest(sheet, &[rest, VOTE]);
            return None;
        }
    };
    let floor = sheet.facts.floor.unwrap_or(0);
    sheet.good(FLOOR, format!("sequence {floor}, and the log reaches it"));
    let log = match ExaminedLog::read(&wal) {
        Ok(log) => log,
        Err(error) => {
            refuse(sheet, LOG, &error);
            skip_rest(sheet, &[VOTE]);
            return None;
        }
    };
    let facts = &mut sheet.facts;
    (facts.vote, facts.first, facts.last) = (log.vote, log.first, log.last);
    (facts.purged, facts.committed) = (log.purged, log.committed);
    let index = |at: Option<plimsoll_consensus::LogPosition>| {
        at.map_or_else(|| "none".to_owned(), |at| at.index.to_string())
    };
    let detail = format!(
        "{} entries, {} to {}, checksums and hash chain hold; up to {} let go of",
        log.entries,
        index(log.first),
        index(log.last),
        index(log.purged),
    );
    match shadow.torn_tail() {
        None => sheet.good(LOG, detail),
        Some(_) => {
            let torn =
                format!("{detail}; behind them a torn write, never acknowledged, which a start cuts off");
            sheet.add(LOG, Health::Odd, torn, "");
        }
    }
    match log.vote {
        Some((term, node, granted)) => {
            let word = if granted { ", which won" } else { "" };
            sheet.good(VOTE, format!("term {term} for node {node}{word}"));
        }
        None => sheet.good(VOTE, "it has never voted"),
    }
    Some(log)
}
