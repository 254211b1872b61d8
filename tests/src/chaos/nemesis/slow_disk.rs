//! The disk of one member takes a tenth of a second for each sync (D9).

use super::{Nemesis, Strike, Struck, Who, strace};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;

/// How long, in milliseconds.
const LENGTH_MS: (u64, u64) = (3_000, 5_000);
/// Each sync takes so much longer, in microseconds.
const DELAY_US: u64 = 100_000;

/// See the module.
pub(super) struct SlowDisk;

impl Nemesis for SlowDisk {
    fn name(&self) -> &'static str {
        "slow-disk"
    }

    fn forbidden(&self, _setup: &Setup) -> Option<String> {
        strace::forbidden()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let id = Who::Anyone.pick(stage).await?;
            let what = format!("delay_exit={DELAY_US}");
            let tracer = strace::Tracer::attach(stage.cluster.member(id).pid(), "fdatasync,fsync", &what)?;
            let length = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            tokio::time::sleep(length).await;
            drop(tracer);
            Ok(Struck { target: format!("c{id} for {} ms", length.as_millis()) })
        })
    }
}
