//! A log that an earlier build wrote replays to the same outcomes, hashes and state: nothing of an earlier version changed.

use std::path::Path;

use bytes::Bytes;
use plimsoll_ledger::{Command, Entry, LATEST_VERSION, Ledger, Outcome, Row, Stamp};
use plimsoll_proto::{codec, digest};
use plimsoll_types::{LedgerTime, NodeId, Revision};
use serde_json::Value;

fn recorded(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/version-1").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{field}: {record}"))
}

fn bytes(record: &Value, field: &str) -> Bytes {
    let text = record[field].as_str().unwrap_or_else(|| panic!("{field}: {record}"));
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect::<Vec<u8>>().into()
}

/// The recorded log applied to a new ledger, every outcome and hash compared; the chain hash at its end.
fn replay() -> (Ledger, digest::Hash) {
    let mut ledger = Ledger::new();
    let mut chain = digest::GENESIS;
    for line in recorded("log.jsonl").lines() {
        let record: Value = serde_json::from_str(line).expect("one document a line");
        let revision = Revision(number(&record, "revision"));
        let (entry, outcome) = (bytes(&record, "entry"), bytes(&record, "outcome"));
        let stamp = Stamp { revision, proposed_at: LedgerTime(number(&record, "logTimeMs")) };
        let decoded = codec::decode_entry(&entry).expect("its commands are known");
        assert_eq!(codec::encode_entry(&decoded), entry, "revision {revision}");
        let applied = ledger.apply(stamp, &decoded);
        assert_eq!(codec::encode_outcome(&applied.answer.outcome), outcome, "revision {revision}");
        chain = digest::chain(&chain, &entry, &outcome);
        assert_eq!(chain.as_slice(), bytes(&record, "chainHash"), "revision {revision}");
    }
    (ledger, chain)
}

fn state(ledger: &Ledger) -> digest::Hash {
    let rows: Vec<_> = ledger.rows().collect();
    digest::state(rows.iter().map(|(key, row)| (key, row)))
}

#[test]
fn a_log_of_version_1_replays_to_the_same_state() {
    let said: Value = serde_json::from_str(&recorded("digest.json")).expect("a document");
    let (ledger, chain) = replay();
    assert_eq!(ledger.revision().0, number(&said, "revision"));
    assert_eq!(chain.as_slice(), bytes(&said, "chainHash"));
    assert_eq!(state(&ledger).as_slice(), bytes(&said, "digest"));
    assert_eq!(ledger.meta().version, 1);
}

#[test]
fn it_goes_on_under_the_newest_rules_after_an_upgrade_and_not_before() {
    let (mut ledger, _) = replay();
    let mut apply = |command: Command| {
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: ledger.clock() };
        ledger.apply(stamp, &Entry::system(command)).answer.outcome
    };
    let cancel = |id| Command::Cancel { reservation: plimsoll_types::ReservationId(id) };
    for id in [5, 9, 31] {
        let ended = apply(cancel(id));
        assert!(!matches!(ended, Outcome::Refused(_)), "{ended:?}");
    }
    assert_eq!(apply(Command::Upgrade { to: LATEST_VERSION }), Outcome::Done);
    let node = NodeId(2);
    assert_eq!(apply(Command::RemoveNode { node }), Outcome::Done);
    // Those that were removed under version 1 left nothing.
    let removed = |(_, row): (_, Row)| match row {
        Row::RemovedNode(removed) => Some((removed.id, removed.name.clone())),
        _ => None,
    };
    assert_eq!(ledger.rows().filter_map(removed).collect::<Vec<_>>(), [(node, "n1".to_owned())]);
}
