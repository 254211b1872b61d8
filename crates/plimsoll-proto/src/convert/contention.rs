//! Contentions, and what pools do about them.

use std::collections::BTreeSet;

use plimsoll_ledger::limits::MAX_TTL_MS;
use plimsoll_ledger::{Contention, ContentionPolicy, Resolution, Resolve, Severity};

use super::check::Check;
use crate::v1;

/// A contention as a message.
pub fn contention_to_v1(from: &Contention) -> v1::Contention {
    v1::Contention {
        id: from.id.0,
        name: contention_name(from),
        pool: from.pool.clone(),
        resource: from.resource.clone(),
        severity: severity_to_v1(from.severity).into(),
        peak: severity_to_v1(from.peak).into(),
        open_time_ms: from.opened_at.0,
        since_time_ms: from.since.0,
        end_time_ms: from.ended_at.0,
        observe_time_ms: from.observed_at.0,
        demand: from.demand,
        capacity: from.capacity,
        open: from.open,
        pressure_permille: from.pressure_permille(),
        waiting: from.waiting,
        longest_wait_ms: from.longest_wait_ms,
        wait_permille: from.wait_permille,
        elsewhere: from.elsewhere,
        classes: from.classes.clone(),
        resolving: from.resolving.iter().map(|kind| resolve_to_v1(*kind).into()).collect(),
        resolutions: from.resolutions.iter().map(resolution_to_v1).collect(),
        revision: from.changed.0,
    }
}

/// Resource name of a contention.
pub fn contention_name(from: &Contention) -> String {
    format!("contentions/{}/{}", from.pool, from.resource)
}

pub(super) fn contention_policy_to_v1(from: &ContentionPolicy) -> v1::ContentionPolicy {
    v1::ContentionPolicy {
        resolve: from.resolve.iter().map(|kind| resolve_to_v1(*kind).into()).collect(),
        after_ms: from.after_ms,
        from: severity_to_v1(from.from).into(),
    }
}

pub(super) fn contention_policy(check: &mut Check, from: &v1::ContentionPolicy) -> ContentionPolicy {
    let mut resolve = BTreeSet::new();
    for number in &from.resolve {
        match resolve_from_v1(*number) {
            Some(kind) if resolve.insert(kind) => {}
            Some(kind) => check.fail("resolve", format!("says {} twice", kind.name())),
            None => check.fail("resolve", format!("{number} is not a way to resolve contention")),
        }
    }
    if from.resolve.is_empty() {
        check.fail("resolve", "is missing: give wait, priority, preempt or scale");
    }
    check.range("after_ms", from.after_ms, 0, MAX_TTL_MS);
    let severity = severity_from_v1(from.from).unwrap_or_else(|| {
        check.fail("from", format!("{} is not a severity", from.from));
        Severity::default()
    });
    ContentionPolicy { resolve, after_ms: from.after_ms, from: severity }
}

fn resolution_to_v1(from: &Resolution) -> v1::ContentionResolution {
    v1::ContentionResolution {
        time_ms: from.at.0,
        kind: resolve_to_v1(from.kind).into(),
        subject: from.subject.clone(),
        revision: from.revision.0,
    }
}

/// A severity as a message says it.
pub fn severity_to_v1(from: Severity) -> v1::ContentionSeverity {
    match from {
        Severity::Low => v1::ContentionSeverity::Low,
        Severity::Medium => v1::ContentionSeverity::Medium,
        Severity::High => v1::ContentionSeverity::High,
        Severity::Critical => v1::ContentionSeverity::Critical,
    }
}

/// The severity that a message says; low where it says none, `None` where it is no severity.
pub fn severity_from_v1(from: i32) -> Option<Severity> {
    match v1::ContentionSeverity::try_from(from).ok()? {
        v1::ContentionSeverity::Unspecified | v1::ContentionSeverity::Low => Some(Severity::Low),
        v1::ContentionSeverity::Medium => Some(Severity::Medium),
        v1::ContentionSeverity::High => Some(Severity::High),
        v1::ContentionSeverity::Critical => Some(Severity::Critical),
    }
}

/// A way to resolve contention as a message says it.
pub fn resolve_to_v1(from: Resolve) -> v1::ContentionResolve {
    match from {
        Resolve::Wait => v1::ContentionResolve::Wait,
        Resolve::Priority => v1::ContentionResolve::Priority,
        Resolve::Preempt => v1::ContentionResolve::Preempt,
        Resolve::Scale => v1::ContentionResolve::Scale,
        Resolve::Redistribute => v1::ContentionResolve::Redistribute,
    }
}

/// The way to resolve contention that a message says; `None` where it is none.
pub fn resolve_from_v1(from: i32) -> Option<Resolve> {
    match v1::ContentionResolve::try_from(from).ok()? {
        v1::ContentionResolve::Unspecified => None,
        v1::ContentionResolve::Wait => Some(Resolve::Wait),
        v1::ContentionResolve::Priority => Some(Resolve::Priority),
        v1::ContentionResolve::Preempt => Some(Resolve::Preempt),
        v1::ContentionResolve::Scale => Some(Resolve::Scale),
        v1::ContentionResolve::Redistribute => Some(Resolve::Redistribute),
    }
}
