//! Whether the replicas agree, while they run: each asks the others what they have, and stops where a majority has
//! something else.
//!
//! Two things are compared: the chain hash at one revision, which covers every command and what it came to, and, for small
//! ledgers that rest, the digest of the whole state. Any replica may be the wrong one, the leader too, so only a majority
//! of the voters is believed. A replica that differs stops at once and marks its data, so that nobody starts it again
//! before somebody has looked.

mod peers;
mod votes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_consensus::Dialer;
use plimsoll_types::Revision;

use crate::core::Core;
use peers::Peer;
use votes::{Hash, Verdict};

/// Pause between comparisons of chain hashes.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The state is compared with every so many chain hashes.
const STATE_EVERY: u64 = 6;
/// Most reservations and nodes of a state that is compared: its digest reads all of them.
const MOST_DIGESTED: u64 = 5_000;

/// What the comparisons came to. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agreement {
    found: Arc<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// Latest revision at which at least one other replica had the same.
    agreed: AtomicU64,
    /// Members that had another chain hash when they were last asked.
    other_chain: AtomicU64,
    /// Members that had another state when they were last asked.
    other_state: AtomicU64,
}

/// What is compared.
#[derive(Clone, Copy, Debug)]
enum What {
    Chain,
    State,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Chain => "chain hash",
            What::State => "digest of the state",
        }
    }
}

impl Agreement {
    /// Latest revision at which another replica was found to have the same; 0 for none.
    pub(crate) fn agreed(&self) -> u64 {
        self.found.agreed.load(Ordering::Relaxed)
    }

    /// Members that had something else when they were last asked.
    pub(crate) fn differing(&self) -> u64 {
        let found = &self.found;
        found.other_chain.load(Ordering::Relaxed).max(found.other_state.load(Ordering::Relaxed))
    }

    /// Compares again and again, for as long as the core runs; stops the core where it is the one that is wrong.
    pub(crate) async fn follow(&self, core: &Core, dialer: &Arc<dyn Dialer>) {
        // The revision of the round before: by now the others have it too.
        let mut settled = Revision(0);
        for round in 1.. {
            tokio::select! {
                biased;
                () = core.ended() => return,
                () = tokio::time::sleep(COMPARE_EVERY) => {}
            }
            let peers = peers::others(core, dialer);
            if !peers.is_empty() {
                self.compare_chains(core, &peers, settled).await;
                if round % STATE_EVERY == 0 {
                    self.compare_states(core, &peers).await;
                }
            }
            settled = core.local().revision();
        }
    }

    async fn compare_chains(&self, core: &Core, peers: &[Peer], revision: Revision) {
        let Some(own) = peers::own_chain(core, revision) else { return };
        let mut said = BTreeMap::from([(core.node_id(), own)]);
        for peer in peers {
            said.extend(peer.chain(revision).await.map(|hash| (peer.id, hash)));
        }
        self.judge(core, peers, What::Chain, revision, &said).await;
    }

    /// The others answer for one revision only, so that a busy cluster is not compared: its chain hashes are.
    async fn compare_states(&self, core: &Core, peers: &[Peer]) {
        let objects = {
            let view = core.local();
            view.counts().values().sum::<u64>() + view.nodes().count() as u64
        };
        if objects > MOST_DIGESTED {
            return;
        }
        let Ok(own) = core.state_digest(Revision(0)).await else { return };
        let mut said = BTreeMap::from([(core.node_id(), own.digest)]);
        for peer in peers {
            said.extend(peer.digest(own.revision).await.map(|hash| (peer.id, hash)));
        }
        self.judge(core, peers, What::State, own.revision, &said).await;
    }

    async fn judge(
        &self,
        core: &Core,
        peers: &[Peer],
        what: What,
        revision: Revision,
        said: &BTreeMap<u64, Hash>,
    ) {
        let verdict = votes::judge(core.node_id(), &core.group().metrics().voters, said);
        let differing = match what {
            What::Chain => &self.found.other_chain,
            What::State => &self.found.other_state,
        };
        match &verdict {
            Verdict::Alone => {}
            Verdict::Same => {
                self.found.agreed.fetch_max(revision.0, Ordering::Relaxed);
                differing.store(0, Ordering::Relaxed);
            }
            Verdict::Differs { members } => {
                differing.store(members.len() as u64, Ordering::Relaxed);
                tracing::error!(?members, %revision, "coordinators have another {} than this one", what.name());
            }
            Verdict::Wrong { majority } => {
                differing.store(majority.len() as u64, Ordering::Relaxed);
                let first = match (what, peers.iter().find(|peer| majority.contains(&peer.id))) {
                    (What::Chain, Some(peer)) => peer.first_difference(core, revision).await,
                    _ => None,
                };
                let since =
                    first.map_or(String::new(), |first| format!(" (the first difference is at {first})"));
                core.halt(format!(
                    "at revision {revision} coordinator {} has another {} than coordinators {}, a majority{since}: its state \
                     cannot be trusted, so it stopped. Keep its log and its data directory for whoever looks into it, start a \
                     new coordinator with an empty directory and a new id, and run `plimsoll cluster replace {} ADDRESS`",
                    core.node_id(),
                    what.name(),
                    majority.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
                    core.node_id(),
                ))
                .await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
