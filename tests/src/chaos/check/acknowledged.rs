//! An acknowledged grant is there until an entry of the log ends it (I9).

use std::collections::BTreeMap;

use plimsoll_proto::log::State;

use super::{Evidence, Findings, Judge, Replay};
use crate::chaos::history::Call;

/// See the module.
pub(super) struct Acknowledged;

impl Judge for Acknowledged {
    fn name(&self) -> &'static str {
        "no lost grant (I9)"
    }

    fn judge(&self, evidence: &Evidence, replay: &Replay, findings: &mut Findings) {
        let live: BTreeMap<u64, (i32, u64)> =
            evidence.live.iter().map(|(id, state, token)| (*id, (*state, *token))).collect();
        for operation in evidence.history.iter().filter(|one| matches!(one.call, Call::Create { .. })) {
            let Some((revision, seen)) = operation.outcome.done() else { continue };
            if revision > evidence.live_at || !occupies(seen.state) {
                continue;
            }
            let Some(version) = replay.at(seen.id, evidence.live_at) else {
                findings.add(format!(
                    "{} was granted to client {}, and the log lacks it",
                    seen.id, operation.client
                ));
                continue;
            };
            match live.get(&seen.id) {
                None if occupies(version.state) => {
                    findings.add(format!("{} was granted, no entry ended it, and it is gone", seen.id));
                }
                Some((_, token)) if *token != seen.token => {
                    findings
                        .add(format!("{} was granted with token {}, and has {token}", seen.id, seen.token));
                }
                _ => {}
            }
        }
        for (id, (state, token)) in live {
            let version = replay.at(id, evidence.live_at);
            if version.is_none_or(|version| version.state != state || version.token != token) {
                findings.add(format!(
                    "{id} is listed in state {state} with token {token}; the log makes it {version:?}"
                ));
            }
        }
    }
}

fn occupies(state: i32) -> bool {
    [State::Held, State::Active, State::Partial, State::Unknown].iter().any(|one| i32::from(*one) == state)
}
