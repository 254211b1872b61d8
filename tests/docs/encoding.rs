//! The worked example of `docs/encoding.md` is recomputed with the real ledger and the real encoding.

use std::collections::BTreeMap;

use plimsoll_ledger::{Command, Entry, Ledger, RowKey, Stamp};
use plimsoll_proto::{codec, digest};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use crate::page;

const PATH: &str = "docs/encoding.md";
/// Hexadecimal digits in a line.
const WIDTH: usize = 64;

/// Every value of the example, by the name that its block carries: `hex NAME`.
fn example() -> BTreeMap<String, String> {
    let first = Entry {
        actor: "system".to_owned(),
        request_id: String::new(),
        request_hash: [0; 32],
        command: Command::BecomeLeader { leader: 1 },
    };
    let renew = Command::Renew { reservation: ReservationId(7), token: Revision(7), ttl_ms: 10_000 };
    let second = Entry {
        actor: "alice".to_owned(),
        request_id: "k1".to_owned(),
        request_hash: [0x11; 32],
        command: renew,
    };
    let mut values = BTreeMap::new();
    let mut put = |name: &str, bytes: &[u8]| {
        values.insert(name.to_owned(), bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    };
    let mut ledger = Ledger::new();
    let mut link = digest::GENESIS;
    let proposed_at = LedgerTime(1_000_000);
    let mut encoded = Vec::new();
    for (revision, entry) in (1..).zip([first, second]) {
        let bytes = codec::encode_entry(&entry);
        let applied = ledger.apply(Stamp { revision: Revision(revision), proposed_at }, &entry);
        let outcome = codec::encode_outcome(&applied.answer.outcome);
        link = digest::chain(&link, &bytes, &outcome);
        put(&format!("entry({revision})"), &bytes);
        put(&format!("outcome({revision})"), &outcome);
        put(&format!("H({revision})"), &link);
        encoded.push(bytes);
    }
    put("batch", &codec::encode_batch(proposed_at, &encoded));
    let rows: Vec<_> = ledger.rows().collect();
    for (key, row) in &rows {
        let name = match key {
            RowKey::Meta => "counters",
            RowKey::Class(name) if name == "low" => "class low",
            RowKey::Idempotency(..) => "answer",
            _ => continue,
        };
        put(&format!("{name} key"), &codec::encode_key(key));
        put(&format!("{name} row"), &codec::encode_row(row));
    }
    put("digest", &digest::state(rows.iter().map(|(key, row)| (key, row))));
    values
}

#[test]
fn the_worked_example_is_what_the_encoding_gives() {
    let mut values = example();
    let mut wanted = String::new();
    let mut skipping = false;
    for line in page::read(PATH).lines() {
        if skipping && line != "```" {
            continue;
        }
        skipping = false;
        wanted.push_str(line);
        wanted.push('\n');
        if let Some(name) = line.strip_prefix("```hex ") {
            let value = values.remove(name).unwrap_or_else(|| panic!("{PATH}: {name} is not in the example"));
            for start in (0..value.len()).step_by(WIDTH) {
                wanted.push_str(&value[start..value.len().min(start + WIDTH)]);
                wanted.push('\n');
            }
            skipping = true;
        }
    }
    assert!(values.is_empty(), "{PATH} does not show {:?}", values.keys());
    page::expect(PATH, &wanted);
}
