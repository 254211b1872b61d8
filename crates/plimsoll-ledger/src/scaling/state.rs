//! What a target wants, since when and why: the row that goes with each scaling policy.

use plimsoll_types::{LedgerTime, Revision};

use super::Resting;
use crate::limits::{MAX_SCALE_CHANGES, SCALE_BACKOFF_MS};

/// What a policy's target wants now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    /// Name of the policy.
    pub policy: String,
    /// How many machines or replicas are wanted.
    pub desired: u64,
    /// Revision that the latest decision was computed from.
    pub computed_from: Revision,
    /// Which rule moved it last.
    pub rule: String,
    /// What that decision was computed from, and all that shaped it, as people read it.
    pub inputs: Vec<String>,
    /// When it last changed; 0 for never.
    pub changed_at: LedgerTime,
    /// When it last changed its direction; 0 for never.
    pub reversed_at: LedgerTime,
    /// Latest changes, oldest first; bounded. What rate policies look back at, whoever leads.
    pub changes: Vec<ScaleChange>,
    /// A person's word, which ends.
    pub pin: Option<Pin>,
    /// Intents that failed one after another.
    pub failures: u32,
    /// No new intent before this, after one that failed.
    pub retry_at: LedgerTime,
    /// Templates whose machines failed lately, by name. From ledger version 12 on.
    pub resting: Vec<Resting>,
    /// Revision of the latest change of this row.
    pub changed: Revision,
}

/// A change of what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleChange {
    /// When.
    pub at: LedgerTime,
    /// How much was added (positive) or taken away (negative).
    pub by: i64,
}

/// A person's word on how many there are to be, until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// So many.
    pub to: u64,
    /// First moment at which it is over.
    pub until: LedgerTime,
    /// Who said it.
    pub by: String,
}

impl Scaling {
    /// The person's word that is in force.
    pub fn pinned(&self, now: LedgerTime) -> Option<&Pin> {
        self.pin.as_ref().filter(|pin| now < pin.until)
    }

    /// True where a change to `desired` would go the other way than the latest one.
    pub fn reverses(&self, desired: u64) -> bool {
        self.changes.last().is_some_and(|last| (last.by > 0) != (desired > self.desired))
    }

    /// Moves to another number and notes the change.
    pub(crate) fn move_to(&mut self, now: LedgerTime, desired: u64) {
        if desired == self.desired {
            return;
        }
        if self.reverses(desired) {
            self.reversed_at = now;
        }
        let (added, taken) = (desired.saturating_sub(self.desired), self.desired.saturating_sub(desired));
        let narrow = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.changes.push(ScaleChange { at: now, by: narrow(added) - narrow(taken) });
        if self.changes.len() > MAX_SCALE_CHANGES {
            self.changes.remove(0);
        }
        self.changed_at = now;
        self.desired = desired;
    }

    /// Notes an intent that failed: the next one waits, longer each time.
    pub(crate) fn note_failure(&mut self, now: LedgerTime) {
        (self.failures, self.retry_at) = after_failure(self.failures, now);
    }

    /// The template's back-off, where it is not over.
    pub fn rest_of(&self, template: &str, now: LedgerTime) -> Option<&Resting> {
        self.resting.iter().find(|one| one.template == template && now < one.retry_at)
    }

    /// Notes a machine of a template that failed: the next one of it waits, longer each time.
    pub(crate) fn note_failure_of(&mut self, template: &str, now: LedgerTime) {
        let place = self.resting.partition_point(|one| one.template.as_str() < template);
        match self.resting.get_mut(place).filter(|one| one.template == template) {
            Some(known) => (known.failures, known.retry_at) = after_failure(known.failures, now),
            None => {
                let (failures, retry_at) = after_failure(0, now);
                self.resting.insert(place, Resting { template: template.to_owned(), failures, retry_at });
            }
        }
    }
}

/// One failure more, and when the next try may be.
fn after_failure(failures: u32, now: LedgerTime) -> (u32, LedgerTime) {
    let failures = failures.saturating_add(1);
    let (first, most) = SCALE_BACKOFF_MS;
    let doubled = first.saturating_mul(1 << (failures - 1).min(20));
    (failures, now.plus_ms(doubled.min(most)))
}
