//! Affinity: consistent hashing on a ring with virtual nodes, and the bound on load that keeps popular keys from piling up.
//!
//! The ring is the crate `hashring`; it answers whose a key is. Its own way to ask for the ones that follow copies the whole ring, so
//! each point here knows its place, and the points lie beside it by their places: the walk to the next endpoint costs one read.
//!
//! A change keeps the points of those that stay in their order, so the sorts have one long run to merge with: it costs the length of the
//! ring, not its sort.

use std::hash::{BuildHasher as _, Hash, Hasher};

use hashring::HashRing;

use crate::endpoint::EndpointId;
use crate::mix::{Mixed, mix_pair};

/// How affinity works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinitySettings {
    /// Points on the ring of the endpoint with the least weight; others have more in proportion, up to 16 times as many. More
    /// points spread keys more evenly and cost memory (40 bytes each).
    pub virtual_nodes: u32,
    /// No endpoint is given more than so many thousandths of the mean of outstanding requests, rounded up (at least 1000). `None`: no
    /// bound, every key stays where it belongs whatever waits there.
    pub load_bound_permille: Option<u32>,
}

impl Default for AffinitySettings {
    /// 160 points, as many as ketama has; a bound of 1.25 (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads",
    /// SODA 2018, and the value with which Vimeo and HAProxy made it known).
    fn default() -> AffinitySettings {
        AffinitySettings { virtual_nodes: 160, load_bound_permille: Some(1_250) }
    }
}

/// Largest number of points of an endpoint over those of the lightest.
const MAX_WEIGHT_RATIO: u64 = 16;

/// One virtual node. Its hash is its place on the ring; the rest only travels along.
#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u64,
    slot: u32,
    /// Rank on the ring, from 0.
    place: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A member: its number, who it is, and how many points it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    slot: u32,
    id: EndpointId,
    points: u32,
}

/// The ring of one priority level.
pub(crate) struct Ring {
    ring: HashRing<Point, Mixed>,
    /// The same points by their places.
    points: Vec<Point>,
    /// In order.
    members: Vec<Member>,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring { ring: HashRing::with_hasher(Mixed), points: Vec::new(), members: Vec::new() }
    }
}

impl Ring {
    /// Takes up other members: number, identity and weight, in the order of their numbers. Nothing is done where they are the same.
    pub(crate) fn rebuild(&mut self, members: &[(u32, EndpointId, u32)], settings: &AffinitySettings) {
        let lightest = u64::from(members.iter().map(|(.., weight)| *weight).min().unwrap_or(1).max(1));
        let member = |(slot, id, weight): &(u32, EndpointId, u32)| {
            let least = u64::from(settings.virtual_nodes.clamp(1, 1 << 16));
            let points = (least * u64::from(*weight) / lightest).clamp(least, least * MAX_WEIGHT_RATIO);
            Member { slot: *slot, id: *id, points: points as u32 }
        };
        let members: Vec<Member> = members.iter().map(member).collect();
        if members == self.members {
            return;
        }
        let stays = |slot: u32| {
            let find = |list: &[Member]| list.binary_search_by_key(&slot, |member| member.slot).ok();
            let old = find(&self.members).map(|index| self.members[index]);
            let new = find(&members).map(|index| members[index]);
            old.is_some() && old == new
        };
        let mut points = std::mem::take(&mut self.points);
        points.retain(|point| stays(point.slot));
        for member in members.iter().filter(|member| self.members.binary_search(member).is_err()) {
            let point = |index| Point { hash: mix_pair(member.id.0, index), slot: member.slot, place: 0 };
            points.extend((0..u64::from(member.points)).map(point));
        }
        // In the order of the ring: it hashes what it is given once more.
        points.sort_by_key(|point| (Mixed.hash_one(point), point.slot));
        for (place, point) in (0..).zip(&mut points) {
            point.place = place;
        }
        self.ring = HashRing::with_hasher(Mixed);
        self.ring.batch_add(points.clone());
        self.points = points;
        self.members = members;
    }

    /// Numbers of the endpoints from the one that a key belongs to, once around; each comes as often as it has points.
    pub(crate) fn walk(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let home = self.ring.get(&key).map_or(0, |point| point.place as usize);
        let (before, from) = self.points.split_at(home);
        from.iter().chain(before).map(|point| point.slot)
    }
}

/// The bound of one level at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// In thousandths, 1000 or more.
    pub(crate) permille: u32,
    /// Requests outstanding on all that are available.
    pub(crate) outstanding: u64,
    /// Weight of all that are available.
    pub(crate) weight: u64,
}

impl Bound {
    /// Whether an endpoint may be given one more: `outstanding + 1 <= ceil(c × (total + 1) × weight / weights)`. While `c` is 1 or more
    /// there is always one that may: the bounds add up to more than the requests.
    pub(crate) fn admits(&self, outstanding: u32, weight: u32) -> bool {
        // n <= ceil(x / y) holds where (n - 1) × y < x: no division.
        let bound =
            u128::from(self.permille.max(1_000)) * (u128::from(self.outstanding) + 1) * u128::from(weight);
        u128::from(outstanding) * 1_000 * u128::from(self.weight) < bound
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(members: &[(u32, EndpointId, u32)]) -> Ring {
        let mut ring = Ring::default();
        ring.rebuild(members, &AffinitySettings::default());
        ring
    }

    fn equal(slots: impl IntoIterator<Item = u32>) -> Vec<(u32, EndpointId, u32)> {
        slots.into_iter().map(|slot| (slot, EndpointId(u64::from(slot) + 1_000), 1)).collect()
    }

    fn homes(ring: &Ring, keys: u64) -> Vec<u32> {
        (0..keys).map(|key| ring.walk(key).next().unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What consistent hashing is for: only the keys of the one that left move, and it had about its share.
        #[test]
        fn only_the_keys_of_one_that_leaves_move(count in 2_u32..40, gone in 0_u32..40) {
            let gone = gone % count;
            let mut changed = ring(&equal(0..count));
            let before = homes(&changed, 2_000);
            changed.rebuild(&equal((0..count).filter(|slot| *slot != gone)), &AffinitySettings::default());
            let after = homes(&changed, 2_000);
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || *before == gone);
            }
            let moved = before.iter().filter(|slot| **slot == gone).count() as f64;
            let share = 2_000.0 / f64::from(count);
            prop_assert!(moved < 1.6 * share + 30.0, "{moved} of {share}");
            // It comes back: the ring is a function of its members, not of its past.
            changed.rebuild(&equal(0..count), &AffinitySettings::default());
            prop_assert_eq!(homes(&changed, 2_000), before);
        }

        /// Against a plain model: all points sorted, the first at or above the hash of the key.
        #[test]
        fn homes_are_those_of_a_sorted_list(ids in prop::collection::btree_set(any::<u64>(), 1..8), keys in prop::collection::vec(any::<u64>(), 50)) {
            let members: Vec<_> = (0..).zip(ids).map(|(slot, id)| (slot, EndpointId(id), 1)).collect();
            let ring = ring(&members);
            let mut points: Vec<(u64, u32)> = members
                .iter()
                .flat_map(|(slot, id, _)| (0..160).map(|index| (crate::mix::mix(mix_pair(id.0, index)), *slot)))
                .collect();
            points.sort_unstable();
            for key in keys {
                let hash = crate::mix::mix(key);
                let model = points.iter().find(|(point, _)| *point >= hash).unwrap_or(&points[0]);
                prop_assert_eq!(ring.walk(key).next(), Some(model.1));
                prop_assert_eq!(ring.walk(key).count(), points.len());
            }
        }

        /// Any arrivals and departures: nobody is ever given more than the bound, and there is always room.
        #[test]
        fn nobody_is_given_more_than_the_bound(permille in 1_000_u32..2_000, weights in prop::collection::vec(1_u32..5, 1..10), keys in prop::collection::vec(0_u64..5, 1..300)) {
            let members: Vec<_> = (0..).zip(&weights).map(|(slot, weight)| (slot, EndpointId(u64::from(slot)), *weight)).collect();
            let ring = ring(&members);
            let mut loads = vec![0_u32; weights.len()];
            let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for key in keys {
                if key == 4 {
                    // One ends where most are.
                    let most = (0..loads.len()).max_by_key(|slot| loads[*slot]).unwrap();
                    loads[most] = loads[most].saturating_sub(1);
                    continue;
                }
                let outstanding = loads.iter().map(|load| u64::from(*load)).sum();
                let bound = Bound { permille, outstanding, weight: sum };
                let chosen = ring.walk(key).find(|slot| bound.admits(loads[*slot as usize], weights[*slot as usize])).unwrap() as usize;
                loads[chosen] += 1;
                let exact = f64::from(permille) / 1_000.0 * (outstanding as f64 + 1.0) * f64::from(weights[chosen]) / sum as f64;
                prop_assert!(f64::from(loads[chosen]) <= exact.ceil());
            }
        }
    }

    #[test]
    fn keys_spread_by_weight() {
        let ring = ring(&[(0, EndpointId(7), 1), (1, EndpointId(8), 3)]);
        let heavy = homes(&ring, 10_000).iter().filter(|slot| **slot == 1).count();
        assert!((7_100..7_900).contains(&heavy), "{heavy}");
        assert_eq!(Ring::default().walk(1).next(), None);
    }
}
