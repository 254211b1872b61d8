//! The network is there, and bad: late, slow, or with connections that break again and again (N4, N6).

use std::time::Duration;

use rand::Rng;

use super::{Nemesis, Strike, Struck};
use crate::chaos::net::Policy;
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;

/// How long, in milliseconds.
const LENGTH_MS: (u64, u64) = (3_000, 6_000);

#[derive(Clone, Copy)]
enum Kind {
    Delay,
    Slow,
    Reset,
    Flap,
}

struct SlowNetwork(Kind, &'static str);

/// All kinds.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(SlowNetwork(Kind::Delay, "delay")),
        Box::new(SlowNetwork(Kind::Slow, "slow-link")),
        Box::new(SlowNetwork(Kind::Reset, "reset")),
        Box::new(SlowNetwork(Kind::Flap, "flap")),
    ]
}

impl Nemesis for SlowNetwork {
    fn name(&self) -> &'static str {
        self.1
    }

    fn forbidden(&self, setup: &Setup) -> Option<String> {
        matches!(self.0, Kind::Reset).then(|| setup.without_proxies()).flatten()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let ids = stage.ids();
            let length = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            let until = tokio::time::Instant::now() + length;
            match self.0 {
                Kind::Delay => {
                    let delay_ms = stage.random.random_range(5..60);
                    let late = Policy { delay_ms, jitter_ms: delay_ms, ..Policy::default() };
                    ids.iter().for_each(|id| stage.network.set_around(*id, &ids, late));
                    tokio::time::sleep_until(until).await;
                }
                Kind::Slow => {
                    let slow = Policy {
                        bytes_per_s: stage.random.random_range(30_000..200_000),
                        ..Policy::default()
                    };
                    ids.iter().for_each(|id| stage.network.set_around(*id, &ids, slow));
                    tokio::time::sleep_until(until).await;
                }
                Kind::Reset => {
                    while tokio::time::Instant::now() < until {
                        let (one, other) = pair(stage, &ids);
                        stage.network.reset(one, other);
                        tokio::time::sleep(Duration::from_millis(150)).await;
                    }
                }
                Kind::Flap => {
                    let (one, other) = pair(stage, &ids);
                    while tokio::time::Instant::now() < until {
                        stage.network.set_around(one, &[other], Policy::CUT);
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        stage.network.heal();
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
            stage.network.heal();
            Ok(Struck { target: format!("all links for {} ms", length.as_millis()) })
        })
    }
}

/// Two different members.
fn pair(stage: &mut Stage, ids: &[u64]) -> (u64, u64) {
    let one = stage.random.random_range(0..ids.len());
    let other = (one + stage.random.random_range(1..ids.len())) % ids.len();
    (ids[one], ids[other])
}
