//! A member is replaced by a new one, while it is there or after it died (M1).

use std::time::{Duration, Instant};

use rand::Rng;

use super::{Failed, Nemesis, Strike, Struck, Who};
use crate::chaos::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Replace;

impl Nemesis for Replace {
    fn name(&self) -> &'static str {
        "replace-member"
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let old = Who::Anyone.pick(stage).await?;
            let is_dead = stage.random.random_bool(0.5);
            if is_dead {
                stage.cluster.member_mut(old).kill();
            }
            let new = stage.spawn().await?;
            let address = stage.cluster.member(new).reachable().to_owned();
            let until = Instant::now() + PATIENCE;
            loop {
                let mut command = stage.cluster.command(&["cluster", "replace", &old.to_string(), &address]);
                let asked = tokio::task::spawn_blocking(move || command.output()).await;
                let output = asked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                if output.status.success() {
                    break;
                }
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                // An answer that was lost: the change was made by an earlier try.
                if said.contains("no member") || said.contains("NOT_FOUND") {
                    break;
                }
                if Instant::now() >= until {
                    return Err(Failed::Product(format!("c{old} is not replaced by c{new}: {said}")));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            if !is_dead {
                stage.cluster.member_mut(old).kill();
            }
            stage.cluster.members.retain(|member| member.id != old);
            Ok(Struck { target: format!("c{old} by c{new}, {}", if is_dead { "dead" } else { "alive" }) })
        })
    }
}
