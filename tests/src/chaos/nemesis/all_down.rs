//! All members die at once (P4).

use super::{Nemesis, Strike, Struck};
use crate::chaos::stage::Stage;

/// How long they stay down, in milliseconds.
const DOWN_MS: (u64, u64) = (200, 1_500);

/// See the module.
pub(super) struct AllDown;

impl Nemesis for AllDown {
    fn name(&self) -> &'static str {
        "kill-all"
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            for member in &mut stage.cluster.members {
                member.kill();
            }
            let down = stage.between_ms(DOWN_MS.0, DOWN_MS.1);
            tokio::time::sleep(down).await;
            for member in &mut stage.cluster.members {
                member.restart();
            }
            for id in stage.ids() {
                stage.wait_ready(id).await?;
            }
            Ok(Struck { target: "all".to_owned() })
        })
    }
}
