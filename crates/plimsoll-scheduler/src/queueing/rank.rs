//! Who goes first: a rank for each that waits. The lower goes first; of equal ranks the older does.

use std::collections::BTreeMap;

use super::discipline::{Discipline, Settings};
use super::entry::Entry;
use super::history::History;

/// Tier and place in it.
pub(crate) type Rank = (u64, u64);

/// Tier of those whose patience is over.
const DUE: u64 = 0;
/// After so many times its patience, nobody starts before a request any more: it then starts once what runs at that moment
/// has ended, at the latest.
pub const FORBEARANCE: u64 = 4;
/// Parts of the multifactor: a request gains the whole of one by waiting [`FULL_AGE_MS`], or by asking for nothing.
const AGE_WEIGHT: u64 = 1_000_000;
const SIZE_WEIGHT: u64 = 500_000;
const FULL_AGE_MS: u64 = 7 * 24 * 3_600_000;
/// Service at which the second level begins; each further one at twice that of the one before.
const FIRST_LEVEL_MS: u64 = 60_000;

/// What tenants hold now, in units.
pub(crate) type Shares = BTreeMap<String, u64>;

/// Ranks entries at one moment.
pub(crate) struct Ranking<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) now_ms: u64,
    pub(crate) history: &'a mut History,
    pub(crate) shares: &'a Shares,
    /// Units of the fleet; at least one.
    pub(crate) fleet_units: u64,
}

impl Ranking<'_> {
    /// The rank of an entry. O(log n), and now and then an outlook anew.
    pub(crate) fn of(&mut self, entry: &Entry) -> Rank {
        if is_due(self.settings, entry, self.now_ms) {
            return (DUE, 0);
        }
        let tier = 1 + i32::MAX.abs_diff(entry.priority) as u64;
        let place = match self.settings.discipline {
            Discipline::Fcfs | Discipline::Skip | Discipline::Backfill { .. } => 0,
            Discipline::Fair => self.shares.get(&entry.sequence.0).copied().unwrap_or(0),
            Discipline::Priority => self.multifactor(entry),
            Discipline::Learned => self.cost(entry),
            Discipline::Las => level(entry.attained_ms),
        };
        (tier, place)
    }

    /// Age and size in explicit integers, as Slurm's multifactor has them; what is left to the most, so that less is first.
    fn multifactor(&self, entry: &Entry) -> u64 {
        let age = entry.waited_ms(self.now_ms).min(FULL_AGE_MS);
        let size = entry.ask.total().min(self.fleet_units);
        let gained = AGE_WEIGHT * age / FULL_AGE_MS;
        let small = SIZE_WEIGHT
            - (u128::from(SIZE_WEIGHT) * u128::from(size) / u128::from(self.fleet_units.max(1))) as u64;
        AGE_WEIGHT + SIZE_WEIGHT - gained - small
    }

    /// Work for each unit of slowdown that starting it saves: expected length x units / expected urgency. The least first is
    /// Smith's rule (Smith 1956) for the sum of slowdowns, with expectations in place of what nobody knows. Waiting makes
    /// cheaper: by 1 + (wait / ageing)².
    fn cost(&mut self, entry: &Entry) -> u64 {
        let outlook = self.history.outlook(&entry.sequence, entry.block, self.now_ms);
        let work = u128::from(outlook.mean_ms) * u128::from(entry.ask.total());
        let cost = (work << 20) / u128::from(outlook.urgency.max(1));
        let ageing = u128::from(self.settings.ageing_ms / 1_000).max(1);
        let wait = u128::from(entry.waited_ms(self.now_ms) / 1_000).min(ageing << 20);
        let aged = cost.min(1 << 64) * (ageing * ageing) / (ageing * ageing + wait * wait);
        u64::try_from(aged).unwrap_or(u64::MAX)
    }
}

/// True where its patience is over, for the disciplines that would let it wait for ever.
pub(crate) fn is_due(settings: &Settings, entry: &Entry, now_ms: u64) -> bool {
    patience_ms(settings, entry).is_some_and(|patience| entry.waited_ms(now_ms) > patience)
}

/// True where it has waited so much past its patience that nobody starts before it any more.
pub(crate) fn is_overdue(settings: &Settings, entry: &Entry, now_ms: u64) -> bool {
    let most = patience_ms(settings, entry).map(|patience| patience.saturating_mul(FORBEARANCE));
    most.is_some_and(|most| entry.waited_ms(now_ms) > most)
}

fn patience_ms(settings: &Settings, entry: &Entry) -> Option<u64> {
    match settings.discipline {
        Discipline::Learned if is_wide(entry) => {
            Some(settings.patience_ms / 100 * settings.wide_patience_percent.min(100))
        }
        Discipline::Learned | Discipline::Las => Some(settings.patience_ms),
        _ => None,
    }
}

/// True where a single free device is not enough: such a place does not come about by itself.
pub(crate) fn is_wide(entry: &Entry) -> bool {
    entry.ask.total() > 1_000
}

/// Level of attained service: 0 below a minute, then one more for each doubling, so that those of about equal service do
/// not take turns.
pub(crate) fn level(attained_ms: u64) -> u64 {
    let minutes = attained_ms / FIRST_LEVEL_MS;
    minutes.checked_ilog2().map_or(0, |doublings| u64::from(doublings) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_doubling() {
        let minute = FIRST_LEVEL_MS;
        let levels = [0, minute - 1, minute, 2 * minute - 1, 2 * minute, 4 * minute].map(level);
        assert_eq!(levels, [0, 0, 1, 1, 2, 3]);
        assert_eq!(level(u64::MAX), u64::from((u64::MAX / minute).ilog2()) + 1);
    }
}
