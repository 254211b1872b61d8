//! What waits: in groups of requests that are alike, so that a walk looks at the first of each group and not at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use plimsoll_types::ReservationId;

use super::entry::Entry;
use super::history::SequenceKey;

/// What requests of a group have in common: nothing but their age tells them apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    priority: Reverse<i32>,
    shape: u64,
    sequence: SequenceKey,
    block: u64,
    attained_ms: u64,
}

/// Requests that wait, by group and by age. All changes are O(log n).
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    entries: BTreeMap<ReservationId, Entry>,
    groups: BTreeMap<GroupKey, BTreeSet<(u64, ReservationId)>>,
    in_order: BTreeSet<(Reverse<i32>, u64, ReservationId)>,
}

impl Pending {
    pub(crate) fn insert(&mut self, entry: Entry) {
        let (since_ms, id) = entry.arrival();
        self.groups.entry(GroupKey::of(&entry)).or_default().insert((since_ms, id));
        self.in_order.insert((Reverse(entry.priority), since_ms, id));
        self.entries.insert(id, entry);
    }

    pub(crate) fn remove(&mut self, id: ReservationId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let key = GroupKey::of(&entry);
        if let Some(group) = self.groups.get_mut(&key) {
            group.remove(&entry.arrival());
            if group.is_empty() {
                self.groups.remove(&key);
            }
        }
        self.in_order.remove(&(Reverse(entry.priority), entry.since_ms, id));
        Some(entry)
    }

    pub(crate) fn get(&self, id: ReservationId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// By class, highest first, then by age.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Entry> {
        self.in_order.iter().filter_map(|(_, _, id)| self.entries.get(id))
    }

    /// Each group, oldest first.
    pub(crate) fn groups(&self) -> impl Iterator<Item = impl Iterator<Item = &Entry>> {
        self.groups.values().map(|group| group.iter().filter_map(|(_, id)| self.entries.get(id)))
    }
}

impl GroupKey {
    fn of(entry: &Entry) -> GroupKey {
        GroupKey {
            priority: Reverse(entry.priority),
            shape: entry.shape,
            sequence: entry.sequence.clone(),
            block: entry.block,
            attained_ms: entry.attained_ms,
        }
    }
}
