//! Nodes in the order that a strategy likes them, with maxima over every stretch of that order: the first node with room
//! for a need is found in O(log n), and a change of a node costs as much.
//!
//! A treap whose weights come from node ids, so that its shape depends on its contents alone.

use plimsoll_types::NodeId;

/// Absent child.
const NONE: u32 = u32::MAX;

/// Place of a node in the order: by the strategy's measure, two levels, then by id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) first: u64,
    pub(crate) second: u64,
    pub(crate) node: NodeId,
}

/// Room for one member: what a node has, or what a request needs at least. A node with as much of each as the need may
/// still not do (two devices half free are no whole one); a node with less never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    /// The one further resource that the view is for.
    pub(crate) other: u64,
    /// Most free memory of one device that takes shares.
    pub(crate) share_bytes: u64,
    /// Most free compute of one device that takes shares, in thousandths; 1 where an instance of the view's profile fits.
    pub(crate) share_milli: u32,
    /// Devices that are wholly free.
    pub(crate) whole: u32,
}

impl Room {
    fn max(&self, other: &Room) -> Room {
        Room {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            other: self.other.max(other.other),
            share_bytes: self.share_bytes.max(other.share_bytes),
            share_milli: self.share_milli.max(other.share_milli),
            whole: self.whole.max(other.whole),
        }
    }

    fn covers(&self, need: &Room) -> bool {
        self.cpu_millis >= need.cpu_millis
            && self.memory_bytes >= need.memory_bytes
            && self.other >= need.other
            && self.share_bytes >= need.share_bytes
            && self.share_milli >= need.share_milli
            && self.whole >= need.whole
    }
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    room: Room,
    /// Maxima over this entry and all below it.
    most: Room,
    /// This entry and all below it.
    count: u32,
    left: u32,
    right: u32,
}

/// Nodes of a view in order.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    root: u32,
}

impl Order {
    pub(crate) fn new() -> Order {
        Order { entries: Vec::new(), vacant: Vec::new(), root: NONE }
    }

    /// Adds a node. Its key must not be there yet.
    pub(crate) fn insert(&mut self, key: Key, room: Room) {
        let entry = Entry { key, room, most: room, count: 1, left: NONE, right: NONE };
        let new = match self.vacant.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.root = self.insert_below(self.root, new);
    }

    /// Takes a node out; nothing happens where its key is not there.
    pub(crate) fn remove(&mut self, key: Key) {
        self.root = self.remove_below(self.root, key);
    }

    /// Changes a node's place or room.
    pub(crate) fn update(&mut self, old: Key, new: Key, room: Room) {
        if old == new {
            self.set_room(self.root, new, room);
        } else {
            self.remove(old);
            self.insert(new, room);
        }
    }

    /// The first node after `after` (from the start without it) whose room covers the need.
    pub(crate) fn next(&self, after: Option<Key>, need: &Room) -> Option<Key> {
        self.next_below(self.root, after, need)
    }

    /// Nodes in the order.
    pub(crate) fn len(&self) -> usize {
        self.count(self.root)
    }

    /// Nodes up to a key, this one included where it is there. O(log n).
    pub(crate) fn rank(&self, key: Key) -> usize {
        let (mut at, mut below) = (self.root, 0);
        while at != NONE {
            let entry = self.at(at);
            if key < entry.key {
                at = entry.left;
            } else {
                below += self.count(entry.left) + 1;
                at = entry.right;
            }
        }
        below
    }

    /// The key at a rank, from 0. O(log n).
    pub(crate) fn at_rank(&self, rank: usize) -> Option<Key> {
        let (mut at, mut rank) = (self.root, rank);
        while at != NONE {
            let entry = self.at(at);
            let left = self.count(entry.left);
            match rank.cmp(&left) {
                std::cmp::Ordering::Less => at = entry.left,
                std::cmp::Ordering::Equal => return Some(entry.key),
                std::cmp::Ordering::Greater => {
                    rank -= left + 1;
                    at = entry.right;
                }
            }
        }
        None
    }

    /// All nodes in order, with their room.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, Room)> + '_ {
        let mut after = None;
        std::iter::from_fn(move || {
            let key = self.next(after, &Room::default())?;
            after = Some(key);
            Some((key, self.room_of(key)?))
        })
    }

    fn room_of(&self, key: Key) -> Option<Room> {
        let mut at = self.root;
        while at != NONE {
            let entry = self.at(at);
            if entry.key == key {
                return Some(entry.room);
            }
            at = if key < entry.key { entry.left } else { entry.right };
        }
        None
    }

    fn next_below(&self, at: u32, after: Option<Key>, need: &Room) -> Option<Key> {
        if at == NONE || !self.at(at).most.covers(need) {
            return None;
        }
        let entry = self.at(at);
        if after.is_some_and(|after| entry.key <= after) {
            return self.next_below(entry.right, after, need);
        }
        if let Some(found) = self.next_below(entry.left, after, need) {
            return Some(found);
        }
        if entry.room.covers(need) {
            return Some(entry.key);
        }
        self.next_below(entry.right, None, need)
    }

    fn insert_below(&mut self, at: u32, new: u32) -> u32 {
        if at == NONE {
            return new;
        }
        let key = self.at(new).key;
        if self.weight(new) > self.weight(at) {
            let (left, right) = self.split(at, key);
            self.at_mut(new).left = left;
            self.at_mut(new).right = right;
            self.pull(new);
            return new;
        }
        if key < self.at(at).key {
            let left = self.insert_below(self.at(at).left, new);
            self.at_mut(at).left = left;
        } else {
            let right = self.insert_below(self.at(at).right, new);
            self.at_mut(at).right = right;
        }
        self.pull(at);
        at
    }

    fn remove_below(&mut self, at: u32, key: Key) -> u32 {
        if at == NONE {
            return NONE;
        }
        let (here, left, right) = (self.at(at).key, self.at(at).left, self.at(at).right);
        if key == here {
            self.vacant.push(at);
            return self.merge(left, right);
        }
        if key < here {
            let left = self.remove_below(left, key);
            self.at_mut(at).left = left;
        } else {
            let right = self.remove_below(right, key);
            self.at_mut(at).right = right;
        }
        self.pull(at);
        at
    }

    fn set_room(&mut self, at: u32, key: Key, room: Room) {
        if at == NONE {
            return;
        }
        let (here, left, right) = (self.at(at).key, self.at(at).left, self.at(at).right);
        if key == here {
            self.at_mut(at).room = room;
        } else {
            self.set_room(if key < here { left } else { right }, key, room);
        }
        self.pull(at);
    }

    /// Those below `key`, and the others.
    fn split(&mut self, at: u32, key: Key) -> (u32, u32) {
        if at == NONE {
            return (NONE, NONE);
        }
        if self.at(at).key < key {
            let (left, right) = self.split(self.at(at).right, key);
            self.at_mut(at).right = left;
            self.pull(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.at(at).left, key);
            self.at_mut(at).left = right;
            self.pull(at);
            (left, at)
        }
    }

    /// One tree of two, all keys of `left` being below those of `right`.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NONE {
            return right;
        }
        if right == NONE {
            return left;
        }
        if self.weight(left) > self.weight(right) {
            let below = self.merge(self.at(left).right, right);
            self.at_mut(left).right = below;
            self.pull(left);
            left
        } else {
            let below = self.merge(left, self.at(right).left);
            self.at_mut(right).left = below;
            self.pull(right);
            right
        }
    }

    fn pull(&mut self, at: u32) {
        let entry = self.at(at);
        let (mut most, mut count) = (entry.room, 1);
        for child in [entry.left, entry.right] {
            if child != NONE {
                let child = self.at(child);
                most = most.max(&child.most);
                count += child.count;
            }
        }
        let entry = self.at_mut(at);
        (entry.most, entry.count) = (most, count);
    }

    fn count(&self, at: u32) -> usize {
        if at == NONE { 0 } else { self.at(at).count as usize }
    }

    fn at(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    fn at_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    fn weight(&self, index: u32) -> u64 {
        splitmix64(self.at(index).key.node.0.into())
    }
}

/// A bijection on 64 bits that looks random.
pub(crate) fn splitmix64(from: u64) -> u64 {
    let z = from.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_agrees_with_a_sorted_list_through_changes() {
        let mut order = Order::new();
        let mut list: BTreeMap<Key, Room> = BTreeMap::new();
        let mut keys: BTreeMap<u32, Key> = BTreeMap::new();
        let mut random = 1;
        let mut draw = |below: u64| {
            random = splitmix64(random);
            random % below
        };
        for _ in 0..3_000 {
            let node = draw(80) as u32;
            let key = Key { first: draw(5), second: draw(5), node: NodeId(node) };
            let room = Room { cpu_millis: draw(6), whole: draw(4) as u32, ..Room::default() };
            match (keys.get(&node).copied(), draw(3)) {
                (Some(old), 0) => {
                    order.remove(old);
                    list.remove(&old);
                    keys.remove(&node);
                }
                (Some(old), _) => {
                    order.update(old, key, room);
                    list.remove(&old);
                    list.insert(key, room);
                    keys.insert(node, key);
                }
                (None, _) => {
                    order.insert(key, room);
                    list.insert(key, room);
                    keys.insert(node, key);
                }
            }
            let need = Room { cpu_millis: draw(7), whole: draw(5) as u32, ..Room::default() };
            let after = Some(key).filter(|_| draw(2) == 0);
            let known =
                list.iter().find(|(k, room)| after.is_none_or(|after| **k > after) && room.covers(&need));
            assert_eq!(order.next(after, &need), known.map(|(key, _)| *key));
            assert_eq!(order.len(), list.len());
            assert_eq!(order.rank(key), list.range(..=key).count());
            let rank = draw(90) as usize;
            assert_eq!(order.at_rank(rank), list.keys().nth(rank).copied());
        }
        assert!(order.iter().eq(list));
    }
}
