//! What runs beside a member: its status for watchers, snapshots that were put off, and a bound on the bytes of its log.

use std::sync::Weak;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::watch;

use super::{Inner, RaftHandle};
use crate::log_store::LogStore;
use crate::status::{self, GroupStatus};

/// Indexes move with every entry: watchers hear of that no sooner than this after the last time.
const INDEX_PAUSE: Duration = Duration::from_millis(10);
/// How often the size of the log is looked at.
const SIZE_PAUSE: Duration = Duration::from_secs(1);

/// Turns raft's metrics into ours. All of them are told anew for each step of each entry, which would wake this a dozen times
/// an entry: it listens for what changes seldom, and looks at the rest after a pause.
pub(super) async fn status(raft: RaftHandle, status: watch::Sender<GroupStatus>) {
    let (mut metrics, mut seldom) = (raft.metrics(), raft.server_metrics());
    drop(raft);
    loop {
        let pause = {
            let metrics = metrics.borrow_and_update();
            let now = GroupStatus::of(&metrics);
            status.send_if_modified(|old| {
                let changed = *old != now;
                *old = now;
                changed
            });
            // The answer of a quorum is what makes it take proposals, and shows among the rest.
            let elected = metrics.state == ServerState::Leader && !status::leads(&metrics);
            if elected { Duration::ZERO } else { INDEX_PAUSE }
        };
        let paced = async {
            tokio::time::sleep(pause).await;
            metrics.changed().await
        };
        let told = tokio::select! {
            biased;
            changed = seldom.changed() => match changed {
                // In each step raft tells all of them last: once they changed, what changed is among them.
                Ok(()) => metrics.changed().await,
                closed => closed,
            },
            changed = paced => changed,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Asks the others at once whether they would vote for a member that has just started: after an outage of all, whoever makes
/// the quorum complete need not wait for a timeout. Where one leads, or a quorum knows more, the question changes nothing.
pub(super) async fn stand_at_start(raft: RaftHandle) {
    if let Err(error) = raft.trigger().elect(true).await {
        tracing::debug!(%error, "raft stopped as it began");
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
