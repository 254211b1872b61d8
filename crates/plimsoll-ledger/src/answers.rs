//! Remembered answers: found by actor and request id, forgotten in the order in which they may be.
//!
//! Invariant: all indexes hold the same answers, and no two answers have the same revision. Order of hashing is never seen: whoever lists sorts first.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use plimsoll_types::{LedgerTime, Revision};

use crate::Remembered;

/// All remembered answers. Lookup and change cost O(1) and O(log n); nothing is stored twice but a pointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// With their hashes, so that growing reads no answer.
    by_key: HashTable<(u64, Arc<Remembered>)>,
    by_revision: BTreeMap<Revision, Arc<Remembered>>,
    /// Sorted. Each new end is at or near the back and the first to go at the front, so a list that is searched does what a
    /// tree would in a third of the memory.
    by_end: VecDeque<(LedgerTime, Revision)>,
    /// Keyed anew in each process, so that nobody can choose request ids that collide.
    hasher: DefaultHashBuilder,
}

impl Answers {
    /// All of them at once, of which no two have one key. O(n) where they come in order of their revisions.
    pub(crate) fn of(all: Vec<Arc<Remembered>>) -> Answers {
        let mut answers = Answers { by_key: HashTable::with_capacity(all.len()), ..Answers::default() };
        for remembered in &all {
            let hash = answers.hash(&remembered.actor, &remembered.request_id);
            answers.by_key.insert_unique(hash, (hash, Arc::clone(remembered)), |(hash, _)| *hash);
        }
        let mut by_end: Vec<(LedgerTime, Revision)> =
            all.iter().map(|remembered| end_of(remembered)).collect();
        by_end.sort();
        answers.by_end = by_end.into();
        answers.by_revision =
            all.into_iter().map(|remembered| (remembered.answer.revision, remembered)).collect();
        answers
    }

    /// The answer under a key.
    pub(crate) fn get(&self, actor: &str, request_id: &str) -> Option<&Arc<Remembered>> {
        let found = self.by_key.find(self.hash(actor, request_id), |(_, known)| is(known, actor, request_id));
        found.map(|(_, known)| known)
    }

    /// The answer to the command of a revision.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Arc<Remembered>> {
        self.by_revision.get(&revision)
    }

    /// Puts an answer, in place of the one under its key.
    pub(crate) fn put(&mut self, remembered: Arc<Remembered>) {
        let (actor, request_id) = (remembered.actor.as_str(), remembered.request_id.as_str());
        let hash = self.hash(actor, request_id);
        let old = match self.by_key.entry(hash, |(_, known)| is(known, actor, request_id), |(hash, _)| *hash)
        {
            Entry::Occupied(mut place) => {
                Some(std::mem::replace(&mut place.get_mut().1, Arc::clone(&remembered)))
            }
            Entry::Vacant(place) => {
                place.insert((hash, Arc::clone(&remembered)));
                None
            }
        };
        if let Some(old) = old {
            self.unlink(&old);
        }
        let end = end_of(&remembered);
        // The search would read all over a list that is long, for what is nearly always the last.
        if self.by_end.back().is_none_or(|last| *last < end) {
            self.by_end.push_back(end);
        } else if let Err(place) = self.by_end.binary_search(&end) {
            self.by_end.insert(place, end);
        }
        self.by_revision.insert(remembered.answer.revision, remembered);
    }

    /// Drops the answer under a key.
    pub(crate) fn remove(&mut self, actor: &str, request_id: &str) -> Option<Arc<Remembered>> {
        let hash = self.hash(actor, request_id);
        let found = self.by_key.find_entry(hash, |(_, known)| is(known, actor, request_id)).ok()?;
        let ((_, removed), _) = found.remove();
        self.unlink(&removed);
        Some(removed)
    }

    /// The one that may be forgotten first.
    pub(crate) fn first(&self) -> Option<&Arc<Remembered>> {
        self.by_end.front().and_then(|(_, revision)| self.at(*revision))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_revision.len()
    }

    /// All of them, by actor and request id. O(n log n).
    pub(crate) fn sorted(&self) -> Vec<&Arc<Remembered>> {
        let mut all: Vec<&Arc<Remembered>> = self.by_revision.values().collect();
        all.sort_unstable_by(|a, b| (&a.actor, &a.request_id).cmp(&(&b.actor, &b.request_id)));
        all
    }

    fn unlink(&mut self, old: &Remembered) {
        if let Ok(place) = self.by_end.binary_search(&end_of(old)) {
            self.by_end.remove(place);
        }
        self.by_revision.remove(&old.answer.revision);
    }

    fn hash(&self, actor: &str, request_id: &str) -> u64 {
        self.hasher.hash_one((actor, request_id))
    }
}

impl PartialEq for Answers {
    fn eq(&self, other: &Answers) -> bool {
        self.by_revision == other.by_revision
            && self.by_end == other.by_end
            && self.by_key.len() == other.by_key.len()
    }
}

fn is(known: &Remembered, actor: &str, request_id: &str) -> bool {
    known.actor == actor && known.request_id == request_id
}

fn end_of(remembered: &Remembered) -> (LedgerTime, Revision) {
    (remembered.keep_until, remembered.answer.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Outcome};

    fn remembered(actor: &str, request_id: &str, revision: u64, until: u64) -> Arc<Remembered> {
        let answer = Answer { revision: Revision(revision), log_time: LedgerTime(0), outcome: Outcome::Done };
        Arc::new(Remembered {
            actor: actor.to_owned(),
            request_id: request_id.to_owned(),
            request_hash: [0; 32],
            answer,
            keep_until: LedgerTime(until),
        })
    }

    #[test]
    fn an_answer_is_found_by_its_own_actor_only_and_goes_in_order_of_its_end() {
        let mut answers = Answers::default();
        answers.put(remembered("ada", "x", 1, 50));
        answers.put(remembered("bob", "x", 2, 40));
        assert!(answers.get("ada", "x").is_some_and(|found| found.answer.revision.0 == 1));
        assert!(answers.get("eve", "x").is_none());
        assert_eq!(answers.first().map(|first| first.actor.as_str()), Some("bob"));
        answers.put(remembered("bob", "x", 2, 60));
        assert_eq!((answers.first().map(|first| first.actor.as_str()), answers.len()), (Some("ada"), 2));
        assert!(answers.remove("ada", "x").is_some() && answers.remove("ada", "x").is_none());
        assert_eq!(answers.sorted().len(), 1);
    }

    #[test]
    fn all_at_once_is_as_one_after_another() {
        let all: Vec<Arc<Remembered>> = (1..=500)
            .map(|number: u64| remembered("ada", &number.to_string(), number * 7 % 501, 900 - number / 3))
            .collect();
        let mut one_by_one = Answers::default();
        all.iter().for_each(|remembered| one_by_one.put(Arc::clone(remembered)));
        let mut at_once = Answers::of(all);
        assert_eq!(at_once, one_by_one);
        while let Some(first) = one_by_one.first().cloned() {
            assert_eq!(at_once.first(), Some(&first));
            assert_eq!(at_once.remove("ada", &first.request_id), one_by_one.remove("ada", &first.request_id));
        }
        assert_eq!((at_once.len(), at_once.first()), (0, None));
    }

    #[test]
    fn many_answers_stay_findable_while_the_table_grows() {
        let mut answers = Answers::default();
        for revision in 1..=2_000 {
            answers.put(remembered("ada", &revision.to_string(), revision, revision));
        }
        assert!((1..=2_000).all(|revision: u64| answers.get("ada", &revision.to_string()).is_some()));
    }
}
