//! What runs beside a member: its status for watchers, snapshots that were put off, and a bound on the bytes of its log.

use std::sync::Weak;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftMetrics;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Inner, RaftHandle};
use crate::log_store::LogStore;
use crate::status::{self, GroupStatus};
use crate::types::{LogId, TypeConfig};

/// Indexes move with every entry: watchers hear of that no more often than this.
const INDEX_PAUSE: Duration = Duration::from_millis(10);
/// How often the size of the log is looked at.
const SIZE_PAUSE: Duration = Duration::from_secs(1);

/// What watchers hear of at once: state, term, leader, whether it takes proposals, members.
type Urgent = (ServerState, u64, Option<u64>, bool, Option<LogId>);

fn urgent(metrics: &RaftMetrics<TypeConfig>) -> Urgent {
    let members = *metrics.membership_config.log_id();
    (metrics.state, metrics.current_term, metrics.current_leader, status::leads(metrics), members)
}

/// Turns raft's metrics into ours.
pub(super) async fn status(raft: RaftHandle, status: watch::Sender<GroupStatus>) {
    let mut metrics = raft.metrics();
    drop(raft);
    let mut told = None;
    let mut due = Instant::now();
    let mut moved = true;
    loop {
        let now = urgent(&metrics.borrow_watched());
        if told != Some(now) || (moved && Instant::now() >= due) {
            (told, moved, due) = (Some(now), false, Instant::now() + INDEX_PAUSE);
            let now = GroupStatus::of(&metrics.borrow_watched());
            status.send_if_modified(|old| {
                let changed = *old != now;
                *old = now;
                changed
            });
        }
        tokio::select! {
            biased;
            changed = metrics.changed() => {
                if changed.is_err() {
                    return;
                }
                moved = true;
            }
            () = tokio::time::sleep_until(due), if moved => {}
        }
    }
}

/// Tries a snapshot again that was put off for lack of room.
pub(super) async fn deferred_snapshots(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(SIZE_PAUSE).await;
        let Some(inner) = group.upgrade() else { return };
        if inner.room.is_due() && inner.raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Shortens the log where it grows large between two snapshots by count: by another snapshot, or, where the latest one
/// is fresh, by letting go of what was kept behind it for followers that lag. They get the snapshot then.
pub(super) async fn bound_log(group: Weak<Inner>) {
    loop {
        tokio::time::sleep(SIZE_PAUSE).await;
        let Some(inner) = group.upgrade() else { return };
        let Some(bytes) = inner.log.lock().as_ref().map(LogStore::bytes) else { return };
        if bytes <= inner.config.max_log_bytes {
            continue;
        }
        let now = GroupStatus::of(&inner.raft.metrics().borrow_watched());
        let fresh = now.applied.saturating_sub(now.snapshot) < now.last_log.saturating_sub(now.purged) / 4;
        let trigger = inner.raft.trigger();
        let triggered = if fresh { trigger.purge_log(now.snapshot).await } else { trigger.snapshot().await };
        if triggered.is_err() {
            return;
        }
    }
}
