//! Run times learned from each queue's own past, and from nothing else.
//!
//! People submit alike work one after the other: sweeps, retries, nightly jobs. So what ended lately, and near in order of
//! submission, says most about what comes. Requests of one tenant and size form a *sequence*, cut into blocks of
//! [`BLOCK`] in order of submission. The outlook of a block blends, from near to far: runs of that block and of its
//! neighbours, fading with the distance; what still runs there, which is known to last longer than until now; the
//! sequence's past; its tenant's; everybody's. A run is looked at only once it has ended.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_types::ReservationId;

use super::sketch::{ONE, Outlook, Sketch};

/// Requests of a block.
pub(crate) const BLOCK: u64 = 8;
/// Neighbours on either side that count.
const REACH: u64 = 6;
/// Weight of a run by its distance in blocks, in 2^-16: 0.4 for each.
const NEAR: [u64; REACH as usize + 1] = [65_536, 26_214, 10_486, 4_194, 1_678, 671, 268];
/// Weight of the past of sequence, tenant and everybody, all in all, in 2^-16.
const PAST: u64 = ONE * 3 / 10;
/// Parts of it, in eighths: the sequence's, the tenant's, everybody's.
const PARTS: [u64; 3] = [5, 2, 1];
/// Weight of what still runs, against what has ended.
const RUNNING: u64 = ONE / 2;
/// What stays of the past at each further run, in 2^-16: of a sequence and a tenant, and of everybody.
const KEEP: u64 = 64_225;
const KEEP_ALL: u64 = 65_470;
/// An outlook is worked out anew after this time, as what runs goes on.
const FRESH_MS: u64 = 300_000;
/// Blocks of a sequence that are kept behind its oldest open one.
const KEPT_BLOCKS: u64 = 2 * REACH;
/// What is expected where nothing at all is known.
const UNKNOWN: Outlook = Outlook { mean_ms: 3_600_000, urgency: (1 << 40) / 3_600_000 };

/// Requests that are alike: of one tenant, class and size.
pub(crate) type SequenceKey = (String, u64);

/// The past of every queue.
#[derive(Clone, Debug, Default)]
pub struct History {
    sequences: BTreeMap<SequenceKey, Sequence>,
    tenants: BTreeMap<String, Sketch>,
    all: Sketch,
}

#[derive(Clone, Debug, Default)]
struct Sequence {
    submitted: u64,
    blocks: BTreeMap<u64, Block>,
    past: Sketch,
}

#[derive(Clone, Debug, Default)]
struct Block {
    ended: Sketch,
    /// What runs, and since when.
    running: BTreeMap<ReservationId, u64>,
    /// Requests that have not ended.
    open: BTreeSet<ReservationId>,
    outlook: Option<(Outlook, u64)>,
}

impl History {
    /// A request comes: the block that it is in. O(log n).
    pub(crate) fn submitted(&mut self, key: &SequenceKey, id: ReservationId) -> u64 {
        let sequence = self.sequences.entry(key.clone()).or_default();
        let block = sequence.submitted / BLOCK;
        sequence.submitted += 1;
        sequence.blocks.entry(block).or_default().open.insert(id);
        block
    }

    /// It starts.
    pub(crate) fn started(&mut self, key: &SequenceKey, block: u64, id: ReservationId, at_ms: u64) {
        if let Some(block) = self.block_mut(key, block) {
            block.running.insert(id, at_ms);
        }
    }

    /// It ends, or goes without a run of its own (`ran_ms` is `None`). O(sketch).
    pub(crate) fn ended(
        &mut self,
        key: &SequenceKey,
        block_index: u64,
        id: ReservationId,
        ran_ms: Option<u64>,
    ) {
        let Some(sequence) = self.sequences.get_mut(key) else { return };
        if let Some(block) = sequence.blocks.get_mut(&block_index) {
            block.running.remove(&id);
            block.open.remove(&id);
            if let Some(ran_ms) = ran_ms {
                block.ended.add(ran_ms, ONE);
            }
        }
        if let Some(ran_ms) = ran_ms {
            let tenant = self.tenants.entry(key.0.clone()).or_default();
            for (sketch, keep) in [(&mut sequence.past, KEEP), (tenant, KEEP), (&mut self.all, KEEP_ALL)] {
                sketch.fade(keep);
                sketch.add(ran_ms, ONE);
            }
            let near = block_index.saturating_sub(REACH)..=block_index.saturating_add(REACH);
            for (_, block) in sequence.blocks.range_mut(near) {
                block.outlook = None;
            }
        }
        let newest = sequence.submitted / BLOCK;
        let open = sequence.blocks.iter().find(|(_, block)| !block.open.is_empty()).map(|(index, _)| *index);
        let keep_from = open.unwrap_or(newest).min(newest).saturating_sub(KEPT_BLOCKS);
        while sequence.blocks.first_key_value().is_some_and(|(index, _)| *index < keep_from) {
            sequence.blocks.pop_first();
        }
    }

    /// What is expected of the next run of a block. O(1) while fresh, else O(neighbours x sketch).
    pub(crate) fn outlook(&mut self, key: &SequenceKey, block: u64, now_ms: u64) -> Outlook {
        let known = self.sequences.get(key).and_then(|sequence| sequence.blocks.get(&block)?.outlook);
        if let Some((outlook, at_ms)) = known
            && now_ms.saturating_sub(at_ms) <= FRESH_MS
        {
            return outlook;
        }
        let outlook = self.work_out(key, block, now_ms).unwrap_or(UNKNOWN);
        if let Some(block) = self.block_mut(key, block) {
            block.outlook = Some((outlook, now_ms));
        }
        outlook
    }

    fn work_out(&self, key: &SequenceKey, block: u64, now_ms: u64) -> Option<Outlook> {
        let sequence = self.sequences.get(key)?;
        let mut blend = Sketch::default();
        let pasts = [Some(&sequence.past), self.tenants.get(&key.0), Some(&self.all)];
        for (past, part) in pasts.into_iter().zip(PARTS) {
            if let Some(past) = past {
                blend.add_as(past, PAST * part / 8);
            }
        }
        let near = || {
            let range = block.saturating_sub(REACH)..=block.saturating_add(REACH);
            sequence.blocks.range(range).map(|(index, near)| (NEAR[index.abs_diff(block) as usize], near))
        };
        for (weight, near) in near() {
            blend.add_all(&near.ended, weight);
        }
        let base = blend.clone();
        for (weight, near) in near() {
            for started in near.running.values() {
                blend.add_beyond(&base, now_ms.saturating_sub(*started), (weight * RUNNING) >> 16);
            }
        }
        blend.outlook()
    }

    fn block_mut(&mut self, key: &SequenceKey, block: u64) -> Option<&mut Block> {
        self.sequences.get_mut(key)?.blocks.get_mut(&block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn run(history: &mut History, key: &SequenceKey, id: u64, ran_ms: u64) {
        let block = history.submitted(key, ReservationId(id));
        history.started(key, block, ReservationId(id), 0);
        history.ended(key, block, ReservationId(id), Some(ran_ms));
    }

    #[test]
    fn neighbours_say_more_than_the_long_past() {
        let (mut history, key) = (History::default(), ("a".to_owned(), 1_000));
        for id in 0..200 {
            run(&mut history, &key, id, 10 * HOUR_MS);
        }
        for id in 200..216 {
            run(&mut history, &key, id, 60_000);
        }
        let block = history.submitted(&key, ReservationId(999));
        assert!(history.outlook(&key, block, 0).mean_ms < 3 * HOUR_MS);
        let other = history.submitted(&("a".to_owned(), 8_000), ReservationId(1_000));
        let outlook = history.outlook(&("a".to_owned(), 8_000), other, 0);
        assert!(outlook.mean_ms > 5 * HOUR_MS, "another size knows the tenant's past: {outlook:?}");
        assert!(history.sequences[&key].blocks.len() as u64 <= KEPT_BLOCKS + 2);
    }

    #[test]
    fn what_runs_on_is_expected_to_be_long() {
        let (mut history, key) = (History::default(), ("a".to_owned(), 1_000));
        for id in 0..8 {
            run(&mut history, &key, id, 60_000);
        }
        let block = history.submitted(&key, ReservationId(50));
        let before = history.outlook(&key, block, 0);
        history.started(&key, block, ReservationId(50), 0);
        history.submitted(&key, ReservationId(51));
        let after = history.outlook(&key, block, 10 * HOUR_MS);
        assert!(after.mean_ms > 3 * before.mean_ms, "{before:?} {after:?}");
    }

    #[test]
    fn nothing_is_known_before_anything_ended() {
        let (mut history, key) = (History::default(), ("a".to_owned(), 1_000));
        let block = history.submitted(&key, ReservationId(1));
        assert_eq!(history.outlook(&key, block, 0), UNKNOWN);
        history.ended(&key, block, ReservationId(1), None);
        assert_eq!(history.all.outlook(), None, "who was never run says nothing");
    }
}
