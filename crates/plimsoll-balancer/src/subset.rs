//! Subsetting: a client keeps to a few endpoints of many, so that no client holds connections to all (gRFC A68).
//!
//! Rendezvous hashing: each client orders the endpoints by a hash of both and keeps the first ones. One endpoint that joins or leaves
//! changes at most one member of a client's subset.

use crate::endpoint::EndpointId;
use crate::mix::mix_pair;

/// Which part of the endpoints a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// How many; all where there are fewer. gRFC A68's default is 20.
    pub size: u32,
    /// What tells clients apart: a random number that a client draws once.
    pub client: u64,
}

impl Subset {
    /// Keeps the members of the subset, in no order. Linear.
    pub(crate) fn retain(&self, members: &mut Vec<u32>, id_of: impl Fn(u32) -> EndpointId) {
        let size = self.size.max(1) as usize;
        if members.len() > size {
            let score = |slot: &u32| {
                let id = id_of(*slot);
                (mix_pair(self.client, id.0), id)
            };
            members.select_nth_unstable_by_key(size - 1, score);
            members.truncate(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn subset(client: u64, size: u32, ids: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
        let mut members: Vec<u32> = ids.into_iter().collect();
        Subset { size, client }.retain(&mut members, |slot| EndpointId(u64::from(slot)));
        members.into_iter().collect()
    }

    proptest! {
        #[test]
        fn one_that_leaves_or_joins_changes_one_member_at_most(client: u64, size in 1_u32..30, count in 1_u32..100, gone in 0_u32..100) {
            let before = subset(client, size, 0..count);
            let after = subset(client, size, (0..count).filter(|id| *id != gone));
            prop_assert_eq!(before.len(), size.min(count) as usize);
            prop_assert!(before.difference(&after).count() <= 1);
            prop_assert!(after.difference(&before).count() <= 1);
            prop_assert!(before.contains(&gone) || before == after);
        }
    }

    #[test]
    fn many_clients_spread_over_all() {
        // The first sample of gRFC A68 with more clients: 1,000 clients with 5 of 100 make 50 connections each on the mean.
        let mut connections = [0_u32; 100];
        for client in 0..1_000 {
            for id in subset(client, 5, 0..100) {
                connections[id as usize] += 1;
            }
        }
        assert!(connections.iter().all(|count| (25..=80).contains(count)), "{connections:?}");
    }
}
