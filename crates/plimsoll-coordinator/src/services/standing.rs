//! Whether this coordinator still hears what the cluster decides. One that was taken out of it, or is cut off from its leader,
//! hears nothing and knows nothing of that: whoever watches there would wait for ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::problem::Problem;
use crate::core::{Core, ReadError};

/// Pause between questions to the leader, while somebody watches here.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// An election, a restart of the leader and a slow disk are over before this; then its watchers should look elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of this coordinator's standing. Clones are the same.
#[derive(Clone)]
pub(super) struct Standing {
    /// Why it is lost; `None` while it is good, or nobody wants to know.
    lost: Arc<watch::Sender<Option<Problem>>>,
}

impl Standing {
    pub(super) fn new() -> Standing {
        Standing { lost: Arc::new(watch::Sender::new(None)) }
    }

    /// Asks the leader as long as the core runs and somebody watches.
    pub(super) async fn follow(&self, core: &Core) {
        let mut good = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = core.ended() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            let asked = Instant::now();
            // Not the core's own count of watches: the coordinator itself has one for its metrics.
            let answer =
                if self.lost.receiver_count() == 0 { Ok(()) } else { core.linearize().await.map(drop) };
            if answer.is_ok() {
                good = asked;
            }
            let lost = answer.err().filter(|error| is_final(error) || good.elapsed() >= PATIENCE);
            let lost = lost.map(|error| Problem::from(error).because("watch another coordinator"));
            self.lost.send_if_modified(|now| {
                let changed = *now != lost;
                *now = lost;
                changed
            });
        }
    }

    /// Waits until this coordinator has lost its standing, and says how.
    pub(super) async fn lost(&self) -> Problem {
        let mut lost = self.lost.subscribe();
        let problem = match lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            Err(_) => None,
        };
        match problem {
            Some(problem) => problem,
            // The services are gone, and the watch with them.
            None => std::future::pending().await,
        }
    }
}

/// True where waiting does not help.
fn is_final(error: &ReadError) -> bool {
    matches!(error, ReadError::NoMember { .. })
}
