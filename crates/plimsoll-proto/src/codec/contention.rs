//! Contentions, what pools do about them and the command that measures, into their stored forms and back.

use std::collections::BTreeSet;

use plimsoll_ledger::{Command, Contention, ContentionPolicy, Resolution, Resolve, Severity};
use plimsoll_types::{LedgerTime, Revision};

use super::CodecError;
use super::decode::{Result, all};
use crate::log;

pub(super) fn encode(from: &Contention) -> log::Contention {
    log::Contention {
        id: from.id.0,
        pool: from.pool.clone(),
        resource: from.resource.clone(),
        severity: encode_severity(from.severity),
        peak: encode_severity(from.peak),
        opened_at_ms: from.opened_at.0,
        since_ms: from.since.0,
        ended_at_ms: from.ended_at.0,
        observed_at_ms: from.observed_at.0,
        demand: from.demand,
        capacity: from.capacity,
        open: from.open,
        waiting: from.waiting,
        longest_wait_ms: from.longest_wait_ms,
        wait_permille: from.wait_permille,
        elsewhere: from.elsewhere,
        classes: from.classes.clone(),
        resolving: from.resolving.iter().map(|kind| encode_resolve(*kind)).collect(),
        resolutions: from.resolutions.iter().map(encode_resolution).collect(),
        changed: from.changed.0,
    }
}

pub(super) fn decode(from: log::Contention) -> Result<Contention> {
    if !from.classes.is_sorted_by(|one, next| one < next) {
        return Err(CodecError::NotCanonical { what: "classes of a contention" });
    }
    Ok(Contention {
        id: Revision(from.id),
        pool: from.pool,
        resource: from.resource,
        severity: decode_severity(from.severity)?,
        peak: decode_severity(from.peak)?,
        opened_at: LedgerTime(from.opened_at_ms),
        since: LedgerTime(from.since_ms),
        ended_at: LedgerTime(from.ended_at_ms),
        observed_at: LedgerTime(from.observed_at_ms),
        demand: from.demand,
        capacity: from.capacity,
        open: from.open,
        waiting: from.waiting,
        longest_wait_ms: from.longest_wait_ms,
        wait_permille: from.wait_permille,
        elsewhere: from.elsewhere,
        classes: from.classes,
        resolving: decode_kinds(&from.resolving)?,
        resolutions: all(from.resolutions, decode_resolution)?,
        changed: Revision(from.changed),
    })
}

pub(super) fn encode_policy(from: &ContentionPolicy) -> log::ContentionPolicy {
    log::ContentionPolicy {
        resolve: from.resolve.iter().map(|kind| encode_resolve(*kind)).collect(),
        after_ms: from.after_ms,
        from: encode_severity(from.from),
    }
}

pub(super) fn decode_policy(from: log::ContentionPolicy) -> Result<ContentionPolicy> {
    let (resolve, after_ms) = (decode_kinds(&from.resolve)?, from.after_ms);
    Ok(ContentionPolicy { resolve, after_ms, from: decode_severity(from.from)? })
}

pub(super) fn encode_observe(pool: &str, resource: &str) -> log::ObserveContention {
    log::ObserveContention { pool: pool.to_owned(), resource: resource.to_owned() }
}

pub(super) fn decode_observe(from: log::ObserveContention) -> Command {
    Command::ObserveContention { pool: from.pool, resource: from.resource }
}

fn encode_resolution(from: &Resolution) -> log::ContentionResolution {
    log::ContentionResolution {
        at_ms: from.at.0,
        kind: encode_resolve(from.kind),
        subject: from.subject.clone(),
        revision: from.revision.0,
    }
}

fn decode_resolution(from: log::ContentionResolution) -> Result<Resolution> {
    let (at, revision) = (LedgerTime(from.at_ms), Revision(from.revision));
    Ok(Resolution { at, kind: decode_resolve(from.kind)?, subject: from.subject, revision })
}

/// Each once, ascending.
fn decode_kinds(from: &[i32]) -> Result<BTreeSet<Resolve>> {
    if !from.is_sorted_by(|one, next| one < next) {
        return Err(CodecError::NotCanonical { what: "resolutions of contention" });
    }
    from.iter().map(|kind| decode_resolve(*kind)).collect()
}

fn encode_severity(severity: Severity) -> i32 {
    match severity {
        Severity::Low => 1,
        Severity::Medium => 2,
        Severity::High => 3,
        Severity::Critical => 4,
    }
}

fn decode_severity(number: i32) -> Result<Severity> {
    let mut all = Severity::NAMED.into_iter().map(|(_, severity)| severity);
    all.find(|one| encode_severity(*one) == number).ok_or(CodecError::UnknownKind { what: "severity" })
}

fn encode_resolve(kind: Resolve) -> i32 {
    match kind {
        Resolve::Wait => 1,
        Resolve::Priority => 2,
        Resolve::Preempt => 3,
        Resolve::Scale => 4,
        Resolve::Redistribute => 5,
    }
}

fn decode_resolve(number: i32) -> Result<Resolve> {
    let mut all = Resolve::NAMED.into_iter().map(|(_, kind)| kind);
    all.find(|one| encode_resolve(*one) == number).ok_or(CodecError::UnknownKind { what: "resolution" })
}
