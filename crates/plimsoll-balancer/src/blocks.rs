//! Blocks of prompts that an endpoint keeps, and which endpoints keep a given beginning of a prompt.
//!
//! A server of a language model keeps the attention state of the prompts that it has read, in blocks of so many tokens; the id of a block stands for
//! its tokens and all before them. A request that begins alike needs only the rest to be read. A picker cannot see these caches: it remembers
//! what it sent where, as other routers do that are not told (SGLang's router, the prefix scorer of llm-d).

use std::collections::{BTreeMap, HashMap};

use crate::mix::Mixed;

/// Blocks in one cache; the longest unused go first.
#[derive(Clone, Debug)]
pub struct BlockCache {
    capacity: usize,
    uses: u64,
    used_at: HashMap<u64, u64, Mixed>,
    by_use: BTreeMap<u64, u64>,
}

impl BlockCache {
    /// A cache with room for so many blocks.
    #[must_use]
    pub fn new(capacity: u32) -> BlockCache {
        BlockCache {
            capacity: capacity as usize,
            uses: 0,
            used_at: HashMap::with_hasher(Mixed),
            by_use: BTreeMap::new(),
        }
    }

    /// How many of the first blocks are there without a gap.
    #[must_use]
    pub fn found(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.used_at.contains_key(block)).count()
    }

    /// Puts blocks in, or marks them as used now, and calls `dropped` for each that had to make room. Logarithmic a block.
    pub fn insert(&mut self, blocks: &[u64], mut dropped: impl FnMut(u64)) {
        // The first block is used last: a beginning is kept longer than what follows it, as no end is of use without it.
        for block in blocks.iter().take(self.capacity).rev() {
            self.uses += 1;
            if let Some(before) = self.used_at.insert(*block, self.uses) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.uses, *block);
        }
        while self.used_at.len() > self.capacity {
            let Some((_, block)) = self.by_use.pop_first() else { return };
            self.used_at.remove(&block);
            dropped(block);
        }
    }

    /// All blocks, the longest unused first.
    fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_use.values().copied()
    }
}

/// What every endpoint keeps, as far as the picker knows.
#[derive(Clone, Debug)]
pub(crate) struct Prefixes {
    capacity: u32,
    caches: BTreeMap<u32, BlockCache>,
    holders: HashMap<u64, Vec<u32>, Mixed>,
}

impl Prefixes {
    /// Every endpoint has room for so many blocks.
    pub(crate) fn new(capacity: u32) -> Prefixes {
        Prefixes { capacity, caches: BTreeMap::new(), holders: HashMap::with_hasher(Mixed) }
    }

    /// Blocks were sent to an endpoint.
    pub(crate) fn insert(&mut self, slot: u32, blocks: &[u64]) {
        if self.capacity == 0 || blocks.is_empty() {
            return;
        }
        let cache = self.caches.entry(slot).or_insert_with(|| BlockCache::new(self.capacity));
        for block in blocks.iter().take(self.capacity as usize) {
            let holders = self.holders.entry(*block).or_default();
            if let Err(index) = holders.binary_search(&slot) {
                holders.insert(index, slot);
            }
        }
        cache.insert(blocks, |block| forget(&mut self.holders, block, slot));
    }

    /// An endpoint is gone, and all that it kept.
    pub(crate) fn remove(&mut self, slot: u32) {
        for block in self.caches.remove(&slot).iter().flat_map(BlockCache::blocks) {
            forget(&mut self.holders, block, slot);
        }
    }

    /// Who keeps how many of the first blocks without a gap, in `found`; only those that keep any, the longest last. The cost is that of the blocks
    /// that are found anywhere, times who keeps them.
    pub(crate) fn find(&self, blocks: &[u64], found: &mut Vec<(u32, usize)>) {
        found.clear();
        let mut alive: Vec<u32> =
            blocks.first().and_then(|block| self.holders.get(block)).cloned().unwrap_or_default();
        for (count, block) in (1..).zip(blocks.iter().skip(1)) {
            if alive.is_empty() {
                return;
            }
            let holders = self.holders.get(block).map_or(&[][..], Vec::as_slice);
            alive.retain(|slot| {
                let stays = holders.binary_search(slot).is_ok();
                if !stays {
                    found.push((*slot, count));
                }
                stays
            });
        }
        found.extend(alive.into_iter().map(|slot| (slot, blocks.len())));
    }
}

fn forget(holders: &mut HashMap<u64, Vec<u32>, Mixed>, block: u64, slot: u32) {
    if let Some(slots) = holders.get_mut(&block) {
        if let Ok(index) = slots.binary_search(&slot) {
            slots.remove(index);
        }
        if slots.is_empty() {
            holders.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_unused_make_room_and_ends_go_before_beginnings() {
        let mut cache = BlockCache::new(4);
        let mut dropped = Vec::new();
        cache.insert(&[1, 2, 3], |block| dropped.push(block));
        cache.insert(&[1, 9], |block| dropped.push(block));
        cache.insert(&[7, 8], |block| dropped.push(block));
        assert_eq!(dropped, [3, 2]);
        assert_eq!((cache.found(&[1, 9, 2]), cache.found(&[2, 1]), cache.found(&[7, 8])), (2, 0, 2));
        // A prompt longer than the cache leaves its beginning.
        cache.insert(&[11, 12, 13, 14, 15], |_| {});
        assert_eq!(cache.found(&[11, 12, 13, 14, 15]), 4);
        let mut none = BlockCache::new(0);
        none.insert(&[1], |_| {});
        assert_eq!(none.found(&[1]), 0);
    }

    proptest! {
        /// The index by block says what the caches one by one say.
        #[test]
        fn who_keeps_a_beginning_is_what_each_cache_says(
            steps in prop::collection::vec((0_u32..4, prop::collection::vec(0_u64..12, 0..6), prop::bool::weighted(0.1)), 1..60),
            asked in prop::collection::vec(0_u64..12, 0..6),
        ) {
            let mut prefixes = Prefixes::new(7);
            let mut model: BTreeMap<u32, BlockCache> = BTreeMap::new();
            for (slot, blocks, is_gone) in steps {
                if is_gone {
                    prefixes.remove(slot);
                    model.remove(&slot);
                } else {
                    prefixes.insert(slot, &blocks);
                    model.entry(slot).or_insert_with(|| BlockCache::new(7)).insert(&blocks, |_| {});
                }
            }
            let mut found = vec![(9, 9)];
            prefixes.find(&asked, &mut found);
            prop_assert!(found.is_sorted_by_key(|(_, count)| *count));
            found.sort_unstable();
            let of_model: Vec<(u32, usize)> =
                model.iter().map(|(slot, cache)| (*slot, cache.found(&asked))).filter(|(_, count)| *count > 0).collect();
            prop_assert_eq!(found, of_model);
            for slot in model.keys() {
                prefixes.remove(*slot);
            }
            prop_assert!(prefixes.holders.is_empty());
        }
    }
}
