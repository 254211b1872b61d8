//! Priority levels: how requests spill over to the next level when a level loses endpoints, and when health is no longer believed.
//!
//! Envoy's rules: a level counts as wholly healthy while `healthy / all × overprovisioning` is 1 or more; what one level does not take falls
//! to the next. A level with fewer healthy endpoints than the panic threshold, while all levels together are not wholly healthy, is used as if
//! all its endpoints were healthy: too few left would be run over one after the other.

/// When requests spill over, and when a level panics. The defaults are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelSettings {
    /// How many times a level can carry what its healthy share is, in thousandths: with 1400, 72 % of the endpoints carry all.
    pub overprovisioning_permille: u32,
    /// Below this healthy share a level panics; 0 for never.
    pub panic_below_permille: u32,
}

impl Default for LevelSettings {
    fn default() -> LevelSettings {
        LevelSettings { overprovisioning_permille: 1_400, panic_below_permille: 500 }
    }
}

const WHOLE_PERMILLE: u64 = 1_000;

/// How many endpoints of a level may be given requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// All but those that drain or whose lease is over.
    pub(crate) members: u32,
    /// Of those, the healthy ones that are not ejected.
    pub(crate) healthy: u32,
}

/// What a level is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Of all requests.
    pub(crate) permille: u32,
    /// All members are used, healthy or not.
    pub(crate) is_panic: bool,
}

/// The shares of the levels, in their order. They add up to 1000 where any level has a member, and only levels with endpoints to give requests
/// to have one.
pub(crate) fn shares(levels: &[Census], settings: &LevelSettings) -> Vec<Share> {
    let healthy =
        |level: &Census| u64::from(level.healthy) * WHOLE_PERMILLE / u64::from(level.members.max(1));
    let carried = |level: &Census| {
        let carried = healthy(level) * u64::from(settings.overprovisioning_permille) / WHOLE_PERMILLE;
        // One healthy endpoint of many thousands carries something, not nothing.
        carried.clamp(u64::from(level.healthy > 0), WHOLE_PERMILLE)
    };
    let all = levels.iter().map(carried).sum::<u64>().min(WHOLE_PERMILLE);
    let is_panic =
        |level: &Census| all < WHOLE_PERMILLE && healthy(level) < u64::from(settings.panic_below_permille);
    let mut left = WHOLE_PERMILLE;
    let mut shares: Vec<Share> = levels
        .iter()
        .map(|level| {
            let permille = (carried(level) * WHOLE_PERMILLE / all.max(1)).min(left);
            left -= permille;
            Share { permille: permille as u32, is_panic: is_panic(level) }
        })
        .collect();
    // What rounding left goes to the first that has a share; where nobody is healthy, to the first with members that may panic.
    let first = shares.iter().position(|share| share.permille > 0);
    let first = first.or_else(|| {
        levels.iter().zip(&shares).position(|(level, share)| level.members > 0 && share.is_panic)
    });
    if let Some(share) = first.and_then(|index| shares.get_mut(index)) {
        share.permille += left as u32;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permilles(levels: &[(u32, u32)]) -> Vec<u32> {
        of(levels).iter().map(|share| share.permille).collect()
    }

    fn of(levels: &[(u32, u32)]) -> Vec<Share> {
        let levels: Vec<Census> =
            levels.iter().map(|(healthy, members)| Census { members: *members, healthy: *healthy }).collect();
        shares(&levels, &LevelSettings::default())
    }

    /// The table in Envoy's documentation of priority levels, two levels: healthy endpoints of P0 in percent, shares of P0 and P1.
    #[test]
    fn shares_are_those_of_envoy_s_table() {
        for (healthy, first) in [(100, 1_000), (72, 1_000), (71, 994), (50, 700), (25, 350), (0, 0)] {
            assert_eq!(permilles(&[(healthy, 100), (100, 100)]), [first, 1_000 - first]);
        }
        // Both levels are partly healthy: 25 % and 25 % carry 350 each of 700.
        assert_eq!(permilles(&[(25, 100), (25, 100)]), [500, 500]);
        assert_eq!(permilles(&[(60, 100)]), [1_000]);
        assert_eq!(permilles(&[]), [0; 0]);
    }

    #[test]
    fn a_level_panics_below_half_while_the_others_do_not_carry_all() {
        let panics =
            |levels: &[(u32, u32)]| of(levels).iter().map(|share| share.is_panic).collect::<Vec<_>>();
        assert_eq!(panics(&[(49, 100)]), [true]);
        assert_eq!(panics(&[(50, 100)]), [false]);
        // Envoy's table of two levels in panic: 20 % and 20 % do not carry all; 72 % beside 5 % does.
        assert_eq!(panics(&[(20, 100), (20, 100)]), [true, true]);
        assert_eq!(panics(&[(5, 100), (72, 100)]), [false, false]);
        assert_eq!(of(&[(0, 4), (0, 4)])[0], Share { permille: 1_000, is_panic: true });
        assert_eq!(of(&[(0, 0), (0, 4)])[1], Share { permille: 1_000, is_panic: true });
    }

    proptest! {
        #[test]
        fn shares_add_up_and_go_where_somebody_is(levels in prop::collection::vec((0_u32..50, 0_u32..50), 0..5), overprovisioning_permille: u32) {
            let levels: Vec<Census> = levels.iter().map(|(a, b)| Census { members: *a.max(b), healthy: *a.min(b) }).collect();
            let settings = LevelSettings { overprovisioning_permille, ..LevelSettings::default() };
            let shares = shares(&levels, &settings);
            let sum: u32 = shares.iter().map(|share| share.permille).sum();
            prop_assert_eq!(sum, if levels.iter().any(|level| level.members > 0) { 1_000 } else { 0 });
            for (level, share) in levels.iter().zip(shares) {
                let usable = if share.is_panic { level.members } else { level.healthy };
                prop_assert!(share.permille == 0 || usable > 0);
            }
        }
    }
}
