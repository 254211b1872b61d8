//! A process stops for a while and goes on as if nothing had been: a coordinator for longer than an election and a leader's lease, an agent
//! for longer than it takes to be suspected (P3).

use std::time::Duration;

use nix::sys::signal::Signal;
use rand::Rng;

use super::{Nemesis, Strike, Struck, Who};
use crate::chaos::stage::Stage;

/// Length for coordinators, in milliseconds: up to some five elections.
const LENGTH_MS: (u64, u64) = (1_200, 3_000);
/// Length for agents: `timings.suspect_after_ms` and a little.
const AGENT_LENGTH: Duration = Duration::from_millis(11_500);

struct Pause(Who, &'static str);
struct PauseAgent;

/// Leader, follower, agent.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(Pause(Who::Leader, "pause-leader")),
        Box::new(Pause(Who::Follower, "pause-follower")),
        Box::new(PauseAgent),
    ]
}

impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        self.1
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let id = self.0.pick(stage).await?;
            stage.cluster.member(id).signal(Signal::SIGSTOP);
            let length = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            tokio::time::sleep(length).await;
            stage.cluster.member(id).signal(Signal::SIGCONT);
            Ok(Struck { target: format!("c{id} for {} ms", length.as_millis()) })
        })
    }
}

impl Nemesis for PauseAgent {
    fn name(&self) -> &'static str {
        "pause-agent"
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let index = stage.random.random_range(0..stage.agents.all.len());
            stage.agents.all[index].signal(Signal::SIGSTOP);
            tokio::time::sleep(AGENT_LENGTH).await;
            stage.agents.all[index].signal(Signal::SIGCONT);
            Ok(Struck { target: stage.agents.all[index].name.clone() })
        })
    }
}
