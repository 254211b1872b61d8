//! Forks of this replica's ledger, and what is tried on them. The ledger's lock is held for some thousand reservations at a time; what changed
//! meanwhile is read again from the records of those commands, and everything else happens without it.

use std::time::Duration;

use plimsoll_ledger::{EventObject, Fork, ForkedRows, Ledger};
use plimsoll_scheduler::forecast::{Change, Plan, Question, plan};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::SubmitError;
use super::start::Inner;

/// Reservations copied under one lock: a fraction of a millisecond.
const STEP: usize = 4_096;
/// How often records are waited for that are a moment behind the ledger.
const MOST_TRIES: u32 = 200;
/// Records read at a time.
const RECORDS: usize = 4_096;

impl Inner {
    /// See [`super::Core::plan`].
    pub(super) async fn plan(
        &self,
        requester: String,
        change: Change,
        horizon_ms: u64,
        hint: Option<(u64, String)>,
    ) -> Result<Plan, SubmitError> {
        let _turn = self.scratch.acquire().await.map_err(|_| SubmitError::Stopped)?;
        if !*self.serving.borrow() {
            return Err(SubmitError::NotLeader { leader: hint });
        }
        let forked = self.fork().await;
        let (now, seed) = (LedgerTime(self.clock.now_ms()), self.config.seed);
        let tried = tokio::task::spawn_blocking(move || {
            let question = Question { change, requester: &requester, now, horizon_ms, seed };
            forked.into_ledger().and_then(|fork| plan(fork, &question))
        });
        match tried.await {
            Ok(Ok(plan)) => Ok(plan),
            Ok(Err(error)) => {
                tracing::error!(%error, "the state could not be copied");
                Err(SubmitError::Stopped)
            }
            Err(_) => Err(SubmitError::Stopped),
        }
    }

    /// See [`super::Core::copy`].
    pub(super) async fn copy(&self) -> Option<Ledger> {
        let _turn = self.scratch.try_acquire().ok()?;
        let forked = self.fork().await;
        let made = plimsoll_consensus::at_length(|| forked.into_ledger());
        made.inspect_err(|error| tracing::error!(%error, "the state could not be copied")).ok()
    }

    /// A copy of the ledger at one revision.
    async fn fork(&self) -> ForkedRows {
        let mut fork = Fork::begin(&self.ledger.read());
        while fork.step(&self.ledger.read(), STEP) {
            tokio::task::yield_now().await;
        }
        for _ in 0..MOST_TRIES {
            {
                let ledger = self.ledger.read();
                if let Some(changed) = self.changed(fork.began(), ledger.revision()) {
                    return fork.finish(&ledger, changed);
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // History is shorter than a copy takes: at once, then, whoever has to wait for it.
        let ledger = self.ledger.read();
        Fork::begin(&ledger).finish(&ledger, [])
    }

    /// Reservations of the events after `began`, up to `until`; `None` where not all of those are recorded here.
    fn changed(&self, began: Revision, until: Revision) -> Option<Vec<ReservationId>> {
        let mut changed = Vec::new();
        let mut next = Revision(began.0 + 1);
        while next <= until {
            let records = self.history.read(next, RECORDS).ok()?;
            next = Revision(records.last()?.revision.0 + 1);
            for event in records.iter().flat_map(|record| &record.events) {
                match &event.object {
                    EventObject::Reservation(reservation, _) => changed.push(reservation.id),
                    EventObject::ReservationForgotten(id) => changed.push(*id),
                    _ => {}
                }
            }
        }
        Some(changed)
    }
}
