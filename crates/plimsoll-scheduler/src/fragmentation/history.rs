//! What a pool was asked for: an integer histogram over shapes, bounded, in which the past fades.

use std::collections::BTreeMap;

use plimsoll_ledger::{GpuShare, ProfileName, Request};

/// Weight at which everything is halved: the last arrivals count as much as all before them.
const MOST_WEIGHT: u64 = 32_768;
/// Shapes kept.
const MOST_SHAPES: usize = 1_024;
/// Members of one gang that count.
const MOST_MEMBERS: u32 = 64;
/// Significant bits of cpu and memory: shapes that differ by less are one.
const SIGNIFICANT_BITS: u32 = 4;

/// What one member asks of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) cpu_millis: u64,
    pub(super) memory_mib: u64,
    /// Whole devices, or 1 for a share.
    pub(super) devices: u32,
    pub(super) share: Share,
    pub(super) min_device_memory_bytes: u64,
    /// Sorted; empty for any.
    pub(super) models: Vec<String>,
}

/// [`GpuShare`] with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share {
    Whole,
    Milli(u16),
    Bytes(u64),
    Mig(ProfileName),
}

/// How often each shape was asked for, lately.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    counts: BTreeMap<Shape, u64>,
    total: u64,
}

impl Shape {
    /// The shape of a request's member, rounded; `None` where it asks for no GPU: such a one cannot be kept from GPUs.
    pub(super) fn of(request: &Request) -> Option<Shape> {
        let gpu = request.requirements.gpu.as_ref()?;
        let amounts = &request.requirements.amounts;
        let mut models = gpu.models.clone();
        models.sort();
        models.dedup();
        Some(Shape {
            cpu_millis: rounded_up(amounts.cpu_millis.0),
            memory_mib: rounded_up(amounts.memory_bytes.0.div_ceil(1 << 20)),
            devices: gpu.count.max(1),
            share: match gpu.share {
                GpuShare::Whole => Share::Whole,
                GpuShare::Milli(milli) => Share::Milli(milli),
                GpuShare::Memory(bytes) => Share::Bytes(bytes),
                GpuShare::Mig(profile) => Share::Mig(profile),
            },
            min_device_memory_bytes: gpu.min_device_memory_bytes,
            models,
        })
    }
}

impl History {
    /// Counts a request; false where it is of no interest. Amortised O(log shapes).
    pub(super) fn learn(&mut self, request: &Request) -> bool {
        let Some(shape) = Shape::of(request) else { return false };
        let members = u64::from(request.gang.min_members.clamp(1, MOST_MEMBERS));
        *self.counts.entry(shape).or_default() += members;
        self.total += members;
        while self.total > MOST_WEIGHT || self.counts.len() > MOST_SHAPES {
            self.fade();
        }
        true
    }

    /// Weight of all shapes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Shapes with their weights, the heaviest first, at most `most`.
    pub(super) fn heaviest(&self, most: usize) -> Vec<(&Shape, u64)> {
        let mut all: Vec<(&Shape, u64)> = self.counts.iter().map(|(shape, count)| (shape, *count)).collect();
        // Stable: equal weights stay in the order of shapes.
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.truncate(most);
        all
    }

    fn fade(&mut self) {
        for count in self.counts.values_mut() {
            *count /= 2;
        }
        self.counts.retain(|_, count| *count > 0);
        self.total = self.counts.values().sum();
    }
}

/// The next number with few significant bits; at most an eighth larger.
fn rounded_up(amount: u64) -> u64 {
    let low = (u64::BITS - amount.leading_zeros()).saturating_sub(SIGNIFICANT_BITS);
    let step = 1_u64 << low;
    amount.div_ceil(step).saturating_mul(step)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{GpuAsk, Requirements};
    use plimsoll_types::Resources;

    use super::*;

    fn request(cpu_millis: u64, gpu: Option<GpuAsk>) -> Request {
        let requirements =
            Requirements { amounts: Resources::new(cpu_millis, 1 << 30), gpu, ..Requirements::default() };
        Request { requirements, ..Request::default() }
    }

    #[test]
    fn alike_requests_are_one_shape_and_those_without_gpus_none() {
        let mut history = History::default();
        assert!(!history.learn(&request(1_000, None)));
        assert!(history.learn(&request(11_300, Some(GpuAsk::whole(1)))));
        assert!(history.learn(&request(11_400, Some(GpuAsk::whole(1)))));
        assert!(history.learn(&request(11_400, Some(GpuAsk::milli(500)))));
        let counts: Vec<u64> = history.heaviest(9).iter().map(|(_, count)| *count).collect();
        assert_eq!((counts, history.total()), (vec![2, 1], 3));
    }

    #[test]
    fn rounding_goes_up_by_at_most_an_eighth() {
        for amount in (0..5_000).chain([u64::MAX, u64::MAX / 3, 1 << 40]) {
            let rounded = rounded_up(amount);
            assert!(rounded >= amount && rounded - amount <= amount / 8, "{amount} became {rounded}");
        }
        assert_eq!(rounded_up(11_300), 12_288);
    }

    #[test]
    fn the_past_fades_and_the_size_is_bounded() {
        let mut history = History::default();
        for _ in 0..3 * MOST_WEIGHT {
            history.learn(&request(1_000, Some(GpuAsk::whole(1))));
        }
        for _ in 0..2 * MOST_WEIGHT {
            history.learn(&request(4_000, Some(GpuAsk::whole(2))));
        }
        let heaviest = history.heaviest(2);
        assert_eq!(heaviest[0].0.devices, 2);
        assert!(heaviest[0].1 > 2 * heaviest.get(1).map_or(0, |(_, count)| *count));
        for index in 0..10_000 {
            history
                .learn(&request(1_000, Some(GpuAsk { min_device_memory_bytes: index, ..GpuAsk::whole(1) })));
            assert!(history.counts.len() <= MOST_SHAPES && history.total() <= MOST_WEIGHT);
            assert_eq!(history.total(), history.counts.values().sum::<u64>());
        }
    }
}
