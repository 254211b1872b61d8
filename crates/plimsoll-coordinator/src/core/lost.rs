//! A replica whose data are an old copy has forgotten what it acknowledged. Others find that out, and it stops.

use std::sync::Weak;

use plimsoll_consensus::Group;
use tokio::sync::watch;

use super::start::Inner;

/// Stops a replica that has lost what it had acknowledged.
pub(super) async fn halt(group: Group, inner: Weak<Inner>, mut stopped: watch::Receiver<bool>) {
    let lost = tokio::select! {
        biased;
        // An error means that the core is gone.
        _ = stopped.wait_for(|stop| *stop) => return,
        lost = group.lost() => lost,
    };
    drop(group);
    let Some(inner) = inner.upgrade() else { return };
    let advice =
        "start it with an empty data directory and a new node id, and run `plimsoll cluster replace`";
    inner.halt(format!("{lost}; {advice}")).await;
}
