//! Contentions, what pools do about them, and the command that measures.

use plimsoll_ledger::{Command, Contention, ContentionPolicy, Resolution, Resolve, Severity};
use plimsoll_types::{LedgerTime, Revision};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use super::{name, number};

fn severity() -> impl Strategy<Value = Severity> {
    select(Severity::NAMED.map(|(_, severity)| severity).to_vec())
}

fn kind() -> impl Strategy<Value = Resolve> {
    select(Resolve::NAMED.map(|(_, kind)| kind).to_vec())
}

/// One that a ledger accepts.
pub(super) fn contention_policy() -> impl Strategy<Value = ContentionPolicy> {
    (btree_set(kind(), 1..4), 0..1_000_000u64, severity())
        .prop_map(|(resolve, after_ms, from)| ContentionPolicy { resolve, after_ms, from })
}

pub(super) fn contention() -> impl Strategy<Value = Contention> {
    let resolution = (number(), kind(), name(), number()).prop_map(|(at, kind, subject, revision)| {
        Resolution { at: LedgerTime(at), kind, subject, revision: Revision(revision) }
    });
    let words = (name(), name(), btree_set(name(), 0..3));
    let levels = (severity(), severity());
    let done = (btree_set(kind(), 0..4), vec(resolution, 0..3));
    let times = [(); 6].map(|()| number());
    let numbers = [(); 7].map(|()| number());
    (words, levels, done, times, numbers).prop_map(
        |((pool, resource, classes), (severity, peak), (resolving, resolutions), times, numbers)| {
            let [id, opened, since, ended, observed, changed] = times;
            let [demand, capacity, open, waiting, longest_wait_ms, wait_permille, elsewhere] = numbers;
            Contention {
                id: Revision(id),
                pool,
                resource,
                severity,
                peak,
                opened_at: LedgerTime(opened),
                since: LedgerTime(since),
                ended_at: LedgerTime(ended),
                observed_at: LedgerTime(observed),
                demand,
                capacity,
                open,
                waiting,
                longest_wait_ms,
                wait_permille,
                elsewhere,
                classes: classes.into_iter().collect(),
                resolving,
                resolutions,
                changed: Revision(changed),
            }
        },
    )
}

pub(super) fn observe_contention() -> impl Strategy<Value = Command> {
    (name(), name()).prop_map(|(pool, resource)| Command::ObserveContention { pool, resource })
}
