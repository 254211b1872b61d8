//! The engine on a simulated disk.

use bytes::Bytes;

use super::disk::{SimDisk, failed};
use crate::Error;
use crate::engine::{Engine, Rows, View, WriteBatch};
use crate::memory::{MapView, Rowset};

/// A handle of a simulated engine. Its syncs take no time; they can fail.
pub struct SimEngine {
    disk: SimDisk,
    generation: u64,
}

impl SimEngine {
    pub(super) fn new(disk: SimDisk, generation: u64) -> Self {
        Self { disk, generation }
    }
}

impl Engine for SimEngine {
    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut disk = self.disk.use_alive(self.generation, "write engine")?;
        disk.engine.write(batch);
        Ok(())
    }

    fn replace_all(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut disk = self.disk.use_alive(self.generation, "write engine")?;
        let chance = disk.faults.fail_sync_permille;
        if disk.engine.failed || disk.rng.permille(chance) {
            disk.engine.failed = true;
            return Err(failed("write engine", "simulated sync failure"));
        }
        let mut replacement = Rowset::default();
        replacement.apply(batch);
        disk.engine.unsynced.clear();
        disk.engine.durable = replacement.clone();
        disk.engine.current = replacement;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.disk.use_alive(self.generation, "read engine")?.engine.current.get(key))
    }

    fn view(&self) -> Box<dyn View> {
        match self.disk.alive(self.generation) {
            Some(disk) => Box::new(MapView::new(&disk.engine.current)),
            None => Box::new(DeadView),
        }
    }

    fn sync(&self) -> Result<(), Error> {
        let mut disk = self.disk.use_alive(self.generation, "sync engine")?;
        let chance = disk.faults.fail_sync_permille;
        if disk.engine.failed || disk.rng.permille(chance) {
            disk.engine.failed = true;
            return Err(failed("sync engine", "simulated sync failure"));
        }
        let all = disk.engine.unsynced.len();
        disk.engine.write_back(all);
        Ok(())
    }

    fn approximate_bytes(&self) -> u64 {
        self.disk.alive(self.generation).map_or(0, |disk| disk.engine.current.byte_size())
    }
}

/// A view taken after the crash that its engine did not survive.
struct DeadView;

impl View for DeadView {
    fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Error> {
        Err(failed("read engine", "the machine crashed"))
    }

    fn scan<'a>(&'a self, _prefix: &[u8], _from: &[u8]) -> Rows<'a> {
        Box::new(std::iter::once(Err(failed("read engine", "the machine crashed"))))
    }
}
