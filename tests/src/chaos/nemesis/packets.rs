//! Packets between members are lost, arrive twice, or are overtaken by later ones; each ordered pair by a policy of its own (N5, N7).

use rand::Rng;

use super::{Failed, Nemesis, Strike, Struck};
use crate::chaos::net::{Packets, Policy};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;

/// How long, in milliseconds.
const LENGTH_MS: (u64, u64) = (3_000, 6_000);
/// One of so many ordered pairs is left alone.
const SPARED: u32 = 4;

#[derive(Clone, Copy)]
enum Kind {
    Lose,
    Double,
    Overtake,
}

struct BadPackets(Kind, &'static str);

/// All kinds.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(BadPackets(Kind::Lose, "lose-packets")),
        Box::new(BadPackets(Kind::Double, "duplicate-packets")),
        Box::new(BadPackets(Kind::Overtake, "reorder-packets")),
    ]
}

impl Nemesis for BadPackets {
    fn name(&self) -> &'static str {
        self.1
    }

    fn forbidden(&self, setup: &Setup) -> Option<String> {
        setup.without_packets()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let before = stage.network.packets();
            let ids = stage.ids();
            for from in &ids {
                for to in ids.iter().filter(|to| *to != from) {
                    if stage.random.random_range(0..SPARED) > 0 {
                        let policy = self.0.policy(stage);
                        stage.network.set(*from, *to, policy);
                    }
                }
            }
            let length = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            tokio::time::sleep(length).await;
            stage.network.heal();
            let after = stage.network.packets();
            let struck = self.0.count(after) - self.0.count(before);
            if struck == 0 {
                return Err(Failed::Harness(format!("no packet was touched by {}", self.1)));
            }
            let seen = after.seen - before.seen;
            Ok(Struck { target: format!("{struck} of {seen} packets in {} ms", length.as_millis()) })
        })
    }
}

impl Kind {
    fn policy(self, stage: &mut Stage) -> Policy {
        let random = &mut stage.random;
        match self {
            Kind::Lose => Policy { lose_permille: random.random_range(20..200), ..Policy::default() },
            Kind::Double => Policy { double_permille: random.random_range(50..400), ..Policy::default() },
            Kind::Overtake => Policy { overtake_permille: random.random_range(50..400), ..Policy::default() },
        }
    }

    fn count(self, packets: Packets) -> u64 {
        match self {
            Kind::Lose => packets.lost,
            Kind::Double => packets.doubled,
            Kind::Overtake => packets.overtaken,
        }
    }
}
