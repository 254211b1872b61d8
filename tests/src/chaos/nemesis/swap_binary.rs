//! Members are stopped and started again as the other of two builds: one of them, or all in turn, up or down (M6, U1). That is legal for as
//! long as the ledger has the version that both know.

use std::path::PathBuf;
use std::time::Duration;

use plimsoll_client::v1;
use rand::Rng;

use super::{Failed, Nemesis, Strike, Struck, Who};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;
use crate::plimsoll;

/// Between members: the one that came back catches up.
const CALM: Duration = Duration::from_millis(700);

/// See the module.
pub(super) struct SwapBinary;

impl Nemesis for SwapBinary {
    fn name(&self) -> &'static str {
        "swap-binary"
    }

    fn forbidden(&self, setup: &Setup) -> Option<String> {
        match &setup.previous {
            None => Some("only with an earlier build, by --previous".to_owned()),
            Some(previous) if !previous.exists() => Some(format!("there is no {}", previous.display())),
            Some(_) => None,
        }
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let previous =
                stage.setup.previous.clone().ok_or_else(|| "there is no other build".to_owned())?;
            let kind = stage.random.random_range(0..3);
            let (targets, what) = match kind {
                0 => {
                    let id = Who::Anyone.pick(stage).await?;
                    let other = stage.other_build(id).ok_or_else(|| "there is no other build".to_owned())?;
                    (vec![(id, other)], format!("c{id}"))
                }
                1 => (all_to(stage, &plimsoll()), "all, up".to_owned()),
                _ => (all_to(stage, &previous), "all, down".to_owned()),
            };
            let mut moved = 0;
            for (id, build) in targets {
                if stage.cluster.member(id).program() == build {
                    continue;
                }
                stage.stop(id).await?;
                stage.cluster.member_mut(id).set_program(build.clone());
                if let Err(why) = stage.restart(id).await {
                    return Err(Failed::Product(format!("as {}: {why}", build.display())));
                }
                moved += 1;
                tokio::time::sleep(CALM).await;
            }
            let version = version(stage).await;
            let old = stage.cluster.members.iter().filter(|one| one.program() == previous).count();
            let now = format!("{old} of {} run the earlier build", stage.cluster.members.len());
            Ok(Struck { target: format!("{what}: {moved} swapped, {now}, ledger version {version}") })
        })
    }
}

fn all_to(stage: &Stage, build: &std::path::Path) -> Vec<(u64, PathBuf)> {
    stage.ids().into_iter().map(|id| (id, build.to_owned())).collect()
}

/// Version of the ledger, as somebody says; 0 where nobody does.
async fn version(stage: &Stage) -> u32 {
    let status = stage.client().get_status(v1::GetStatusRequest {}).await;
    status.ok().and_then(|answer| answer.status).map_or(0, |status| status.ledger_version)
}
