//! Members are asked to stop and started again, one after another, as an upgrade does (P8, M6).

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Failed, Nemesis, Strike, Struck};
use crate::chaos::stage::Stage;

/// Longest orderly end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between members: the one that came back catches up.
const CALM: Duration = Duration::from_millis(700);

/// See the module.
pub(super) struct Rolling;

impl Nemesis for Rolling {
    fn name(&self) -> &'static str {
        "rolling-restart"
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let mut slowest = Duration::ZERO;
            for id in stage.ids() {
                let asked = tokio::time::Instant::now();
                stage.cluster.member(id).signal(Signal::SIGTERM);
                let until = tokio::time::Instant::now() + PATIENCE;
                let exit = loop {
                    match stage.cluster.member_mut(id).wait_exit(Duration::ZERO) {
                        Some(exit) => break Some(exit),
                        None if tokio::time::Instant::now() >= until => break None,
                        None => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
                let Some(exit) = exit else {
                    stage.cluster.member_mut(id).kill();
                    stage.restart(id).await?;
                    return Err(Failed::Product(format!(
                        "c{id} does not stop within {PATIENCE:?} of SIGTERM"
                    )));
                };
                slowest = slowest.max(asked.elapsed());
                stage.restart(id).await?;
                if exit.code() != Some(0) {
                    return Err(Failed::Product(format!("c{id} ended with {exit} on SIGTERM")));
                }
                tokio::time::sleep(CALM).await;
            }
            Ok(Struck { target: format!("all; the slowest took {} ms to stop", slowest.as_millis()) })
        })
    }
}
