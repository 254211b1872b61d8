//! The log on a simulated disk.

use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, Job, PATH, SimDisk, failed};
use crate::Error;
use crate::wal::{Done, Loaded, Op, Wal};

/// A handle of a simulated log. `submit` has to be called inside a tokio runtime.
pub struct SimWal {
    disk: SimDisk,
    generation: u64,
}

impl SimWal {
    pub(super) fn new(disk: SimDisk, generation: u64) -> Self {
        Self { disk, generation }
    }
}

impl Wal for SimWal {
    fn submit(&self, ops: Vec<Op>, done: Done) {
        let Some(mut disk) = self.disk.alive(self.generation) else { return };
        disk.wal.pending.push_back(Job { ops, done: Some(done) });
        if disk.wal.syncing {
            return;
        }
        disk.wal.syncing = true;
        drop(disk);
        let task = Syncing { disk: self.disk.clone(), generation: self.generation, armed: true };
        tokio::spawn(sync_until_idle(task));
    }

    fn load(&self) -> Result<Loaded, Error> {
        let disk = self.disk.use_alive(self.generation, "read log")?;
        // Written but not synced is there to be read, as from an operating system's cache.
        let mut state = disk.wal.durable.clone();
        for op in disk.wal.pending.iter().flat_map(|job| &job.ops) {
            state.apply(op);
        }
        state.load(Path::new(PATH))
    }
}

/// Says that a task completes syncs; when the task is dropped with its runtime, the next submit starts another.
struct Syncing {
    disk: SimDisk,
    generation: u64,
    armed: bool,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        if self.armed
            && let Some(mut disk) = self.disk.alive(self.generation)
        {
            disk.wal.syncing = false;
        }
    }
}

/// Completes one sync after another until nothing is pending or the machine has crashed. Each covers what was pending
/// when it began.
async fn sync_until_idle(mut task: Syncing) {
    while let Some((jobs, delay)) = begin_sync(&mut task) {
        tokio::time::sleep(delay).await;
        let Some(outcome) = task.disk.alive(task.generation).map(|mut disk| complete_sync(&mut disk, jobs))
        else {
            return;
        };
        for done in outcome.dones {
            // A callback may crash the machine; those after it were then never heard of.
            if task.disk.alive(task.generation).is_some() {
                done(match outcome.failed {
                    true => Err(std::io::Error::other("simulated sync failure")),
                    false => Ok(()),
                });
            }
        }
    }
}

/// How many jobs the next sync covers and how long it takes; `None` where there is nothing to sync, and the task ends.
fn begin_sync(task: &mut Syncing) -> Option<(usize, Duration)> {
    let mut disk = task.disk.alive(task.generation)?;
    let jobs = disk.wal.pending.iter().filter(|job| job.done.is_some()).count();
    if jobs == 0 {
        disk.wal.syncing = false;
        task.armed = false;
        return None;
    }
    let Disk { rng, faults, .. } = &mut *disk;
    let mut delay_us = rng.between(faults.sync_us_min, faults.sync_us_max);
    if rng.permille(faults.stall_permille) {
        delay_us += faults.stall_us;
    }
    Some((jobs, Duration::from_micros(delay_us)))
}

struct Outcome {
    dones: Vec<Done>,
    failed: bool,
}

/// Completes a sync of the first so many jobs whose callbacks still wait.
fn complete_sync(disk: &mut Disk, jobs: usize) -> Outcome {
    if disk.wal.failed || disk.rng.permille(disk.faults.fail_sync_permille) {
        disk.wal.failed = true;
        tracing::debug!(error = %failed("sync log", "simulated sync failure"), jobs, "sync failed");
        let waiting = disk.wal.pending.iter_mut().filter_map(|job| job.done.take());
        return Outcome { dones: waiting.take(jobs).collect(), failed: true };
    }
    disk.syncs += 1;
    let synced: Vec<Job> = disk.wal.pending.drain(..jobs).collect();
    let mut dones = Vec::with_capacity(jobs);
    for job in synced {
        job.ops.iter().for_each(|op| disk.wal.durable.apply(op));
        dones.extend(job.done);
    }
    Outcome { dones, failed: false }
}
