//! Versions of the ledger: clusters that begin on an older build and get a newer one member by member, an operator who wants
//! the ledger version raised all the while, and a command that no build here knows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_client::{Client, v1};
use plimsoll_consensus::{Group, Payload};
use plimsoll_ledger::LATEST_VERSION;

use crate::board::{Board, Phase};
use crate::history::Answer;
use crate::request::Request;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::workload::send;

/// The scenario in which members are of an older build at first, whatever the seed.
pub const ROLLING: &str = "rolling-upgrade";
/// What an older build knows.
const OLDER_VERSION: u32 = 1;
/// So many of a hundred seeds begin on an older build.
const OLDER_PERCENT: u64 = 34;
/// Pause between tries to have the version raised at last.
const PAUSE: Duration = Duration::from_millis(100);

/// Newest ledger version that the coordinators of a seed know at its beginning.
pub fn first_version(seed: u64, scenario: Option<&Scenario>) -> u32 {
    let older = match scenario {
        Some(scenario) => scenario.name == ROLLING,
        None => Rng::of(seed, "rolling").percent(OLDER_PERCENT),
    };
    if older { OLDER_VERSION } else { LATEST_VERSION }
}

/// When each of so many coordinators gets the newer build, in milliseconds after the chaos began: in its first half, one
/// after the other, and not so fast that faults have no chance in between.
pub fn installs(seed: u64, coordinators: usize, chaos_ms: u64) -> Vec<u64> {
    let mut rng = Rng::of(seed, "installs");
    let slot_ms = chaos_ms / 2 / u64::try_from(coordinators.max(1)).unwrap_or(1);
    let mut begins_ms = 0;
    let one = |_| {
        let at_ms = begins_ms + rng.between(slot_ms / 4, slot_ms.max(4) - 1);
        begins_ms += slot_ms;
        at_ms
    };
    (0..coordinators).map(one).collect()
}

/// Wants the ledger version raised until the chaos is over: to the newest that the leader knows, to the newest there is, to
/// one that nobody knows, and to the first, which is none or a step back.
pub async fn insist(client: Client, board: Arc<Board>, worker: usize) {
    let mut rng = Rng::of(board.seed, "upgrader");
    let mut next_id = 0;
    while board.phase() <= Phase::Chaos {
        tokio::time::sleep(Duration::from_millis(rng.between(1_000, 4_000))).await;
        if board.phase() != Phase::Chaos {
            return;
        }
        let choices = [(4, 0), (3, LATEST_VERSION), (1, LATEST_VERSION + 1), (1, OLDER_VERSION)];
        let to = rng.weighted(&choices).unwrap_or(0);
        next_id += 1;
        let client = client.with_timeout(Duration::from_millis(rng.between(500, 5_000)));
        let answer = send(&board, &client, worker, request(&board, next_id, to, rng.percent(20))).await;
        if to > LATEST_VERSION && answer.done().is_some() {
            board.found(format!("M6: the ledger was raised to version {to}, which nobody knows"));
        }
    }
}

/// The faults being over and all members of the newest build: the version is raised, whatever was refused before.
///
/// # Errors
/// Where it is not, in time.
pub async fn raise_at_last(
    client: &Client,
    board: &Board,
    worker: usize,
    until_ms: u64,
) -> Result<(), String> {
    for try_number in 0.. {
        let request = request(board, 100_000 + try_number, LATEST_VERSION, false);
        let answer = send(board, client, worker, request).await;
        if matches!(answer, Answer::Done(_)) {
            break;
        }
        if Board::now_ms() > until_ms {
            return Err(format!("I22: the ledger version is not raised after the faults: {}", answer.word()));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn request(board: &Board, number: u64, to: u32, validate_only: bool) -> Request {
    let request_id = format!("sim-{}-upgrade-{number:06}", board.seed);
    Request::Upgrade(v1::UpgradeRequest { request_id, validate_only, to })
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

    #[test]
    fn some_seeds_begin_on_an_older_build_and_all_members_get_the_newer_one_in_the_first_half() {
        let older = (0..100).filter(|seed| first_version(*seed, None) == OLDER_VERSION).count();
        assert!((15..60).contains(&older), "{older}");
        for seed in 0..50 {
            let at_ms = installs(seed, 5, 40_000);
            assert!(
                at_ms.len() == 5 && at_ms.is_sorted() && at_ms.iter().all(|at_ms| *at_ms <= 20_000),
                "{at_ms:?}"
            );
        }
    }
}
