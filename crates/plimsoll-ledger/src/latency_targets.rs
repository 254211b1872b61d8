//! How long requests of a class should wait at the most: told, counted, and an input of contention. Nothing is promised by it.

use std::sync::Arc;

use plimsoll_types::Revision;

use crate::ledger::Context;
use crate::{Class, EventObject, Ledger};

/// From this ledger version on the first classes have targets.
pub(crate) const SINCE_VERSION: u32 = 16;

/// Targets of classes that nobody has changed by then, in milliseconds.
pub const LATENCY_TARGETS: [(&str, u64); 4] = [("critical", 0), ("high", 100), (MEDIUM, 500), ("low", 5_000)];

/// The class that comes with the targets, where there is none of that name: as `standard`, and not preemptible.
const MEDIUM: &str = "medium";
const MEDIUM_PRIORITY: i32 = 50;

impl Class {
    /// Whether a grant after such a wait missed the class's target; `None` where it has none.
    pub fn misses(&self, wait_ms: u64) -> Option<bool> {
        self.latency_target_ms.map(|target_ms| wait_ms > target_ms)
    }
}

impl Ledger {
    /// Gives the first classes their targets. One that was put or deleted before is left as it is.
    pub(crate) fn fill_latency_targets(&mut self, context: &mut Context<'_>) {
        for (name, target_ms) in LATENCY_TARGETS {
            let new = match self.class(name) {
                Some(class) if class.changed == Revision(0) => Class::clone(class),
                None if name == MEDIUM => {
                    Class { name: name.to_owned(), priority: MEDIUM_PRIORITY, ..Class::default() }
                }
                _ => continue,
            };
            let changed = context.revision;
            let class = Arc::new(Class { latency_target_ms: Some(target_ms), changed, ..new });
            self.put_class(Arc::clone(&class));
            context.event("upgrade", EventObject::Class(class));
        }
    }
}
