//! Which domain a gang goes to, and how its members are shared out inside.

use plimsoll_ledger::{Pool, Request};

use crate::topology::tree::{ROOT, SpotId, Tree};

/// The depths of what a request asks: 0 is the pool as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depths {
    /// All members in one domain of this depth.
    pub(crate) required: usize,
    /// Rather of this one.
    preferred: usize,
    /// Groups of so many in domains of this depth.
    pub(crate) group: Option<(u32, usize)>,
}

impl Depths {
    /// `None` where the pool has no such level.
    pub(crate) fn of(request: &Request, pool: &Pool) -> Option<Depths> {
        let asked = &request.topology;
        let depth = |level: &str| if level.is_empty() { Some(0) } else { Some(pool.depth_of(level)? + 1) };
        let required = depth(&asked.required)?;
        let group = match asked.slice_size {
            0 => None,
            size => Some((size, depth(&asked.slice_level)?)),
        };
        Some(Depths { required, preferred: depth(&asked.preferred)?.max(required), group })
    }
}

impl Tree {
    /// Domains and how many members go to each: `most` in the tightest domain of the preferred depth, or of the next outer one that takes
    /// them all; at the required depth as many as the roomiest takes, where that is `least` or more. O(levels x log domains + domains used).
    pub(crate) fn split(&self, depths: Depths, least: u32, most: u32) -> Option<Vec<(SpotId, u32)>> {
        let whole = (depths.required..=depths.preferred).rev().find_map(|depth| self.tightest(depth, most));
        let (chosen, members) = match whole {
            Some(chosen) => (chosen, most),
            None => {
                let (chosen, takes) = self.roomiest(depths.required)?;
                (chosen, takes.min(most))
            }
        };
        let members = members - members % depths.group.map_or(1, |(size, _)| size.max(1));
        if members < least.max(1) {
            return None;
        }
        let floor = depths.preferred.max(depths.group.map_or(0, |(_, depth)| depth));
        let mut parts = Vec::new();
        self.share_out(chosen, members, floor, &mut parts);
        Some(parts)
    }

    /// As few domains as can be: the roomiest ones whole, and for the rest the tightest that takes it.
    fn share_out(&self, id: SpotId, members: u32, floor: usize, parts: &mut Vec<(SpotId, u32)>) {
        let spot = self.spot(id);
        if spot.depth >= floor {
            parts.push((id, members));
            return;
        }
        let mut left = members;
        let mut open = spot.inside.iter().rev().peekable();
        while left > 0
            && let Some((takes, inner)) = open.next()
        {
            if *takes < left || open.peek().is_none_or(|(next, _)| *next < left) {
                let part = left.min(*takes);
                self.share_out(*inner, part, floor, parts);
                left -= part;
            }
        }
    }

    /// Most members that one domain of the required depth takes, whole groups only, with that domain.
    pub(crate) fn best(&self, depths: Depths) -> (Option<SpotId>, u32) {
        self.roomiest(depths.required)
            .map_or((None, 0), |(id, members)| (Some(id).filter(|id| *id != ROOT), members))
    }
}
