//! Versions of the ledger: upgrades that are proposed in the middle of everything, and a command that no build here knows.

use std::time::Duration;

use bytes::Bytes;
use plimsoll_consensus::{Group, Payload};
use plimsoll_coordinator::core::Core;
use plimsoll_ledger::{Command, Entry, LATEST_VERSION};

use crate::board::{Board, Phase};
use crate::rng::Rng;

/// Who proposes upgrades.
pub const ACTOR: &str = "upgrader";

/// Proposes upgrades where this coordinator leads, until the chaos is over: to the version that is, which is no upgrade, to
/// the newest that this build has, and to one that it has not. Refusals are in the log like everything else.
pub async fn propose(core: Core, board: &Board, id: u64, start: u64) {
    let mut rng = Rng::of(board.seed, &format!("upgrade-{id}-{start}"));
    while board.phase() <= Phase::Chaos {
        tokio::time::sleep(Duration::from_millis(rng.between(2_000, 6_000))).await;
        if board.phase() != Phase::Chaos || !core.is_leader() {
            continue;
        }
        let to = match rng.between(0, 2) {
            0 => core.status().ledger_version,
            1 => LATEST_VERSION,
            _ => LATEST_VERSION + 1,
        };
        let command = Command::Upgrade { to };
        let entry =
            Entry { request_id: String::new(), request_hash: [0; 32], actor: ACTOR.to_owned(), command };
        let came_to = core.submit(entry).await.map(|answer| answer.revision.0);
        board.trace.add(Board::now_ms(), format_args!("c{id} upgrade to {to}: {came_to:?}"));
    }
}

/// A batch with one command of a kind that this build does not know, as a later one would propose it.
pub fn unknown_command() -> Bytes {
    // Field 2 of the batch, three bytes: field 200 of the command, the number 1.
    Bytes::from_static(&[0x12, 0x03, 0xc0, 0x0c, 0x01])
}

/// Puts that batch into the log of the group. Nobody waits for an answer: there will be none.
pub fn propose_unknown(group: &Group) {
    drop(group.propose_pipelined(Payload { bytes: unknown_command(), decoded: None }));
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::codec;

    use super::*;

    #[test]
    fn the_unknown_command_is_read_by_nobody_here() {
        assert!(codec::decode_batch(&unknown_command()).is_err());
    }
}
