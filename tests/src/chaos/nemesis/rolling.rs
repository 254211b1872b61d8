//! Members are asked to stop and started again, one after another, as an upgrade does (P8, M6).

use std::time::Duration;

use super::{Failed, Nemesis, Strike, Struck};
use crate::chaos::stage::Stage;
use crate::plimsoll;

/// Longest orderly end. Open streams must not hold a member: past this it is a finding.
const QUICK: Duration = Duration::from_secs(4);
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
                let took = stage.stop(id).await?;
                // An earlier build stops as it stopped then.
                if stage.cluster.member(id).program() == plimsoll() {
                    slowest = slowest.max(took);
                }
                stage.restart(id).await?;
                tokio::time::sleep(CALM).await;
            }
            if slowest > QUICK {
                return Err(Failed::Product(format!("SIGTERM took {} ms", slowest.as_millis())));
            }
            Ok(Struck { target: format!("all; the slowest took {} ms to stop", slowest.as_millis()) })
        })
    }
}
