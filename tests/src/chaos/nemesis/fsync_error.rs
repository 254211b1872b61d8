//! A sync of one member fails: it must end with the documented code rather than try again, and come back when it is started again (D2).

use std::time::{Duration, Instant};

use super::{Failed, Nemesis, Strike, Struck, Who, strace};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;

/// Exit code of a storage that failed for good (`docs/exit-codes.md`).
const STORAGE_FAILED: i32 = 74;
/// A busy member syncs many times a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct FsyncError;

impl Nemesis for FsyncError {
    fn name(&self) -> &'static str {
        "fsync-error"
    }

    fn forbidden(&self, _setup: &Setup) -> Option<String> {
        strace::forbidden()
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let id = Who::Anyone.pick(stage).await?;
            let pid = stage.cluster.member(id).pid();
            let tracer = strace::Tracer::attach(pid, "fdatasync,fsync", "error=EIO")?;
            let until = Instant::now() + PATIENCE;
            let exit = loop {
                if let Some(exit) = stage.cluster.member_mut(id).wait_exit(Duration::ZERO) {
                    break exit;
                }
                if Instant::now() >= until {
                    drop(tracer);
                    return Err(Failed::Product(format!("c{id} goes on although its syncs fail")));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            drop(tracer);
            if exit.code() != Some(STORAGE_FAILED) {
                let words = stage.last_words(id);
                // It is mended in any case, so that the run can go on.
                stage.restart(id).await?;
                return Err(Failed::Product(format!("c{id} ended with {exit} after a failed sync: {words}")));
            }
            stage.restart(id).await?;
            Ok(Struck { target: format!("c{id}") })
        })
    }
}
