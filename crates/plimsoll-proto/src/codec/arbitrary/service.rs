//! Services, endpoints and loads.

use plimsoll_ledger::{Announcement, Balancing, Endpoint, LoadReport, Service};
use plimsoll_types::{LedgerTime, ReservationId, Revision};
use proptest::prelude::*;
use proptest::sample::select;

use super::{labels, name, number};

pub(super) fn service() -> impl Strategy<Value = Service> {
    let balancing = select(Balancing::NAMED.map(|(_, balancing)| balancing).to_vec());
    let bound = prop_oneof![Just(0), 1_000..=100_000u32];
    (name(), labels(), name(), name(), balancing, (bound, 0..=100_000u32, 0..1_000_000u64)).prop_map(
        |(name, labels, pool, class, balancing, numbers)| {
            let (load_bound_permille, subset_size, slow_start_ms) = numbers;
            let changed = Revision(0);
            Service {
                name,
                labels,
                pool,
                class,
                balancing,
                load_bound_permille,
                subset_size,
                slow_start_ms,
                changed,
            }
        },
    )
}

pub(super) fn announcement() -> impl Strategy<Value = Announcement> {
    let numbers = (0..=1_000_000u32, 0..=127u32, any::<u32>());
    ("[a-z]{1,8}:[1-9][0-9]{0,3}", "[a-z]{0,4}", numbers, any::<bool>()).prop_map(
        |(address, zone, (weight_milli, priority, concurrency), draining)| Announcement {
            address,
            zone,
            weight_milli,
            priority,
            concurrency,
            draining,
        },
    )
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
    (announcement(), number()).prop_map(|(announced, since)| Endpoint { announced, since: LedgerTime(since) })
}

pub(super) fn load_report() -> impl Strategy<Value = LoadReport> {
    let counts = [(); 3].map(|()| any::<u32>());
    let metrics = prop::collection::btree_map(name(), number(), 0..4);
    ([(); 4].map(|()| number()), counts, metrics).prop_map(|(numbers, counts, metrics)| {
        let [reservation, rate_milli, errors_milli, latency_us] = numbers;
        let [used, in_flight, queue_depth] = counts;
        LoadReport {
            reservation: ReservationId(reservation),
            utilization_permille: used,
            rate_milli,
            errors_milli,
            in_flight,
            queue_depth,
            latency_us,
            metrics,
            measured_only: queue_depth % 3 == 0,
        }
    })
}
