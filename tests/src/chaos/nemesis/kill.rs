//! A coordinator dies without a word and is started again a little later (P1, P2).

use super::{Nemesis, Strike, Struck, Who};
use crate::chaos::stage::Stage;

/// How long it stays down, in milliseconds.
const DOWN_MS: (u64, u64) = (300, 1_500);

struct Kill(Who, &'static str);

/// Leader, follower, anyone.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![
        Box::new(Kill(Who::Leader, "kill-leader")),
        Box::new(Kill(Who::Follower, "kill-follower")),
        Box::new(Kill(Who::Anyone, "kill-random")),
    ]
}

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        self.1
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let id = self.0.pick(stage).await?;
            stage.strikes();
            stage.cluster.member_mut(id).kill();
            let down = stage.between_ms(DOWN_MS.0, DOWN_MS.1);
            tokio::time::sleep(down).await;
            stage.restart(id).await?;
            Ok(Struck { target: format!("c{id}") })
        })
    }
}
