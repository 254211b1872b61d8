//! What the clients ask for.

use plimsoll_client::v1;
use rand::Rng;
use rand::rngs::SmallRng;

/// Lease of most reservations, in milliseconds.
const TTL_MS: u64 = 60_000;
/// Lease of those that are left to expire, in milliseconds.
const SHORT_TTL_MS: u64 = 2_000;

/// One request, and whether its holder means to forget it.
pub(super) struct Ask {
    pub(super) spec: v1::ReservationSpec,
    pub(super) is_abandoned: bool,
}

/// Draws a request: cores, shares of a GPU, whole GPUs, gangs; some wait in the queue, some are left to expire, some must be confirmed.
pub(super) fn draw(random: &mut SmallRng, name: String) -> Ask {
    let kind = random.random_range(0..100);
    let gpu = match kind {
        0..50 => None,
        50..75 => Some(v1::GpuAsk {
            count: 1,
            milli: [250, 400, 500][random.random_range(0..3)],
            ..Default::default()
        }),
        75..92 => Some(v1::GpuAsk { count: random.random_range(1..=2), ..Default::default() }),
        _ => Some(v1::GpuAsk { count: 1, memory_bytes: 20 << 30, ..Default::default() }),
    };
    let gang = (random.random_range(0..100) < 8).then(|| v1::Gang {
        min_members: 2,
        max_members: random.random_range(2..=3),
        spread: random.random_bool(0.5),
    });
    let amounts = v1::Quantities { cpu_millis: 100, memory_bytes: 1 << 20, ..Default::default() };
    let is_abandoned = random.random_range(0..100) < 4;
    let waits = random.random_range(0..100) < 5;
    let spec = v1::ReservationSpec {
        name,
        requirements: Some(v1::Requirements { amounts: Some(amounts), gpu, ..Default::default() }),
        gang,
        ttl_ms: if is_abandoned { SHORT_TTL_MS } else { TTL_MS },
        auto_confirm: true,
        wait: waits.then_some(v1::WaitPolicy { queue: true, deadline_ms: 1_500 }),
        ..Default::default()
    };
    Ask { spec, is_abandoned }
}
