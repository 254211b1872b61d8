//! What each other member has acknowledged to this one while it led. A member that comes back with less has an old copy of its
//! data: it might vote for somebody who lacks what it has helped to commit. Only others can know that, and tell it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The latest entry that each member has acknowledged, of one term. In another term it may rightly have lost it.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    members: Mutex<BTreeMap<(u64, String), Latest>>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    term: u64,
    index: u64,
}

impl Acknowledged {
    /// A member in one of its lives has acknowledged everything up to here to the leader of a term. Where lives are not told,
    /// nothing is remembered: an empty disk may be another life.
    pub(crate) fn note(&self, node_id: u64, incarnation: &str, term: u64, index: u64) {
        if incarnation.is_empty() {
            return;
        }
        let mut members = self.members.lock();
        // Asked for every answer, and there are few members: the key is made anew only where there is none.
        let found = members.iter_mut().find(|((id, life), _)| *id == node_id && life == incarnation);
        match found {
            Some((_, latest)) if latest.term == term => latest.index = latest.index.max(index),
            Some((_, latest)) => *latest = Latest { term, index },
            None => {
                // Another life of the same member is over.
                members.retain(|(id, _), _| *id != node_id);
                members.insert((node_id, incarnation.to_owned()), Latest { term, index });
            }
        }
    }

    /// The latest entry that it has acknowledged in that term; 0 for none.
    pub(crate) fn latest(&self, node_id: u64, incarnation: &str, term: u64) -> u64 {
        let members = self.members.lock();
        let found = members.iter().find(|((id, life), _)| *id == node_id && life == incarnation);
        found.filter(|(_, latest)| latest.term == term).map_or(0, |(_, latest)| latest.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_of_one_term_and_one_life() {
        let acknowledged = Acknowledged::default();
        acknowledged.note(2, "a", 5, 70);
        acknowledged.note(2, "a", 5, 60);
        acknowledged.note(3, "a", 5, 10);
        assert_eq!(acknowledged.latest(2, "a", 5), 70);
        assert_eq!(acknowledged.latest(2, "a", 6), 0, "a later leader may have cut it off");
        assert_eq!(acknowledged.latest(2, "b", 5), 0, "another disk");
        assert_eq!(acknowledged.latest(3, "a", 5), 10);
        acknowledged.note(2, "a", 7, 40);
        assert_eq!((acknowledged.latest(2, "a", 7), acknowledged.latest(2, "a", 5)), (40, 0));
        acknowledged.note(2, "b", 7, 1);
        assert_eq!(acknowledged.latest(2, "a", 7), 0);
    }
}
