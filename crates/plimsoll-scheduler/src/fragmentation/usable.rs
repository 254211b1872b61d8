//! How much of a node's free GPU the expected requests could use: what is left to lose by placing something there.

use plimsoll_ledger::WHOLE_DEVICE_MILLI;

use super::mix::{Mix, Typical};
use crate::fleet::Slot;
use crate::order::splitmix64;

/// What is free of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub(super) cpu_millis: u64,
    pub(super) memory_mib: u64,
    /// Kind of each device and its free thousandths.
    pub(super) devices: Vec<(u16, u32)>,
}

impl Free {
    pub(super) fn of(slot: &Slot) -> Free {
        let view = &slot.view;
        let device = |(index, kind): (usize, &u16)| (*kind, view.device_free_milli(index));
        Free {
            cpu_millis: view.free.cpu_millis.0,
            memory_mib: view.free.memory_bytes.0 >> 20,
            devices: slot.kinds.iter().enumerate().map(device).collect(),
        }
    }

    /// Equal for equal nodes, whatever the order of their devices.
    pub(super) fn fingerprint(&self) -> u64 {
        let device = |(kind, milli): &(u16, u32)| splitmix64(u64::from(*kind) << 32 | u64::from(*milli));
        let devices = self.devices.iter().map(device).fold(0, u64::wrapping_add);
        splitmix64(splitmix64(self.cpu_millis) ^ self.memory_mib.rotate_left(32) ^ devices)
    }

    /// GPU thousandths that the mix could use, times two times its weights.
    ///
    /// Per shape it is the sum of two measures of Weng et al.'s kind. The first is theirs: where one more of the shape fits,
    /// all devices with room for it count, else none. The second asks for as many as fit: as the devices can be cut, or
    /// as cpu and memory last, in parts of a request so that it falls evenly. O(shapes x runs of equal devices).
    pub(super) fn usable(&self, mix: &Mix) -> i64 {
        let mut devices = self.devices.clone();
        devices.sort_unstable();
        let mut runs: Vec<(u16, u32, u32)> = Vec::with_capacity(devices.len());
        for (kind, milli) in devices.into_iter().filter(|(_, milli)| *milli > 0) {
            match runs.last_mut() {
                Some(run) if (run.0, run.1) == (kind, milli) => run.2 += 1,
                _ => runs.push((kind, milli, 1)),
            }
        }
        mix.typical.iter().map(|typical| typical.weight.saturating_mul(self.usable_by(typical, &runs))).sum()
    }

    fn usable_by(&self, typical: &Typical, runs: &[(u16, u32, u32)]) -> i64 {
        if self.cpu_millis < typical.cpu_millis || self.memory_mib < typical.memory_mib {
            return 0;
        }
        // Devices with room, and how they can be cut, in thousandths; members that would be served.
        let (mut open, mut cut, mut members) = (0_u32, 0_u32, 0_u32);
        for (kind, milli, count) in runs {
            let part = typical.milli.get(usize::from(*kind)).copied().map_or(0, u32::from);
            if part == 0 || *milli < part {
                continue;
            }
            let of_each = *milli / part;
            open += milli * count;
            cut += of_each * part * count;
            members += of_each * count;
        }
        if let Some(of_whole) = members.checked_div(typical.whole) {
            members = of_whole;
            cut = members * typical.whole * u32::from(WHOLE_DEVICE_MILLI);
        }
        if members == 0 {
            return 0;
        }
        let lasting = |free: u64, each: u64| {
            let all = each.saturating_mul(u64::from(members));
            if all <= free { u64::from(cut) } else { u64::from(cut).saturating_mul(free) / all }
        };
        let packed =
            lasting(self.cpu_millis, typical.cpu_millis).min(lasting(self.memory_mib, typical.memory_mib));
        i64::from(open).saturating_add(i64::try_from(packed).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by counting: one more after the other, each on the device that the last part is left over of.
    fn naive(free: &Free, typical: &Typical) -> i64 {
        let part = |kind: u16| u32::from(typical.milli[usize::from(kind)]);
        let fitting = free.devices.iter().filter(|(kind, milli)| part(*kind) > 0 && *milli >= part(*kind));
        let open: i64 = fitting.clone().map(|(_, milli)| i64::from(*milli)).sum();
        let mut parts: Vec<u32> = Vec::new();
        for (kind, milli) in fitting {
            for _ in 0..milli / part(*kind) {
                parts.push(part(*kind));
            }
        }
        let groups: Vec<u32> = match typical.whole {
            0 => parts,
            whole => vec![whole * 1_000; parts.len() / whole as usize],
        };
        if groups.is_empty() || free.cpu_millis < typical.cpu_millis || free.memory_mib < typical.memory_mib {
            return 0;
        }
        let all = f64::from(groups.iter().sum::<u32>());
        let share = |free: u64, each: u64| match each {
            0 => 1.0,
            each => (free as f64 / (each as f64 * groups.len() as f64)).min(1.0),
        };
        let packed =
            all * share(free.cpu_millis, typical.cpu_millis).min(share(free.memory_mib, typical.memory_mib));
        open + packed as i64
    }

    fn typical() -> impl Strategy<Value = Typical> {
        let milli = prop_oneof![Just(0_u16), Just(200), Just(470), Just(810)];
        (0_u32..3, milli, prop::bool::ANY, 0_u64..9_000, 0_u64..9_000).prop_map(
            |(whole, milli, any, cpu_millis, memory_mib)| {
                let milli = if whole > 0 { 1_000 } else { milli };
                let milli = vec![milli, if any { milli } else { 0 }];
                Typical { weight: 1, cpu_millis, memory_mib, whole, milli }
            },
        )
    }

    fn free() -> impl Strategy<Value = Free> {
        let milli = prop_oneof![Just(0_u32), Just(190), Just(530), Just(1_000), 1_u32..1_000];
        (0_u64..40_000, 0_u64..40_000, prop::collection::vec((0_u16..2, milli), 0..9))
            .prop_map(|(cpu_millis, memory_mib, devices)| Free { cpu_millis, memory_mib, devices })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_counting_gives(free in free(), typical in typical()) {
            let mix = Mix { typical: vec![typical.clone()] };
            let known = naive(&free, &typical);
            prop_assert!((free.usable(&mix) - known).abs() <= 1, "{} is not {known}", free.usable(&mix));
        }

        #[test]
        fn less_free_is_never_more_usable(free in free(), typical in typical(), cpu in 0_u64..9_000, milli in 1_u32..400) {
            let mix = Mix { typical: vec![typical] };
            let mut less = free.clone();
            less.cpu_millis = less.cpu_millis.saturating_sub(cpu);
            if let Some(device) = less.devices.first_mut() {
                device.1 = device.1.saturating_sub(milli);
            }
            prop_assert!(less.usable(&mix) <= free.usable(&mix));
        }

        #[test]
        fn the_order_of_devices_does_not_count(free in free()) {
            let mut turned = free.clone();
            turned.devices.reverse();
            prop_assert_eq!(turned.fingerprint(), free.fingerprint());
        }
    }
}
