//! Who was taken back asks nobody else to leave before something else has changed (`docs/preemption.md`), read from events alone.

use std::sync::Arc;

use plimsoll_ledger::{Event, EventObject, Reservation};
use plimsoll_types::Revision;

use crate::leader::is_end;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Law {
    /// When something last changed that was not a preemption: a grant that ended by itself, a node, policy.
    changed_at: Revision,
    /// Who asked others to leave though it was taken back itself, and nothing had changed since.
    pub(crate) broken: Vec<Arc<Reservation>>,
    /// How many were asked for somebody.
    pub(crate) evictions: usize,
    /// For how many of them the one who asked had been taken back earlier, with something else since.
    pub(crate) after_a_change: usize,
}

impl Law {
    pub(crate) fn read(&mut self, event: &Event) {
        let is_change = matches!(
            event.object,
            EventObject::Node(_)
                | EventObject::NodeRemoved(..)
                | EventObject::Pool(_)
                | EventObject::Class(_)
                | EventObject::Queue(_)
                | EventObject::Quota(_)
        );
        if is_change || is_end(event) {
            self.changed_at = event.revision;
        }
        let EventObject::Reservation(one, _) = &event.object else { return };
        if event.rule != "preempt/plan" {
            return;
        }
        self.evictions += 1;
        match one.preempted() {
            Some(preempted) if preempted.revision >= self.changed_at => self.broken.push(Arc::clone(one)),
            Some(_) => self.after_a_change += 1,
            None => {}
        }
    }
}
