//! One node as its agent keeps it: identity, devices, leases, and the news it owes the coordinator.
//!
//! Pure bookkeeping: no network and no timer. It outlives every connection.

use std::sync::Arc;

use plimsoll_types::{Labels, Resources};

use crate::clock::BootTime;
use crate::fence::Fence;
use crate::gpu::GpuDevice;
use crate::inventory::Inventory;
use crate::lease::{Lease, SharedLeases};
use crate::message::{LeaseNews, NodeHeartbeat, RegisteredDevice, Registration, Report};
use crate::meter::Meter;
use crate::sample::Sample;

/// What a node calls itself and offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Unique name.
    pub name: String,
    /// Pool, or empty.
    pub pool: String,
    /// Another value at each start.
    pub incarnation: u64,
    /// The agent ends workloads by itself when their lease runs out.
    pub self_fencing: bool,
}

/// One node of an agent.
pub struct NodeSession {
    identity: NodeIdentity,
    labels: Labels,
    capacity: Resources,
    devices: Vec<RegisteredDevice>,
    leases: SharedLeases,
    fence: Arc<dyn Fence>,
    meter: Meter,
    epoch: Option<u64>,
    owed: Vec<Lease>,
}

/// When a message arrived, and a moment that it was certainly sent after.
///
/// The second is when the newest message was sent that the coordinator had answered before. Between the two the message
/// was on its way, and its "time left" was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When it arrived.
    pub at: BootTime,
    /// It was sent later than this.
    pub sent_after: BootTime,
    /// The coordinator's clock, where this conversation has read it.
    pub ledger: Option<LedgerReading>,
}

/// A reading of the coordinator's clock: at the moment `at` it showed `clock_ms` or less, since the question left then.
///
/// It says when a ledger time comes at the earliest, whatever came in between: so a renewal counts as soon as the
/// coordinator tells of it, and not with the next heartbeat only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerReading {
    /// Before the question was sent.
    pub at: BootTime,
    /// Ledger time in the answer, in milliseconds.
    pub clock_ms: u64,
}

/// How much of the way of a message may count for the holder, in milliseconds. Half of the grace that the ledger gives
/// after each deadline: so the ledger still ends a lease later than the node does, however long the message was under
/// way, and a short lease is not ended early because the last heartbeat is a while ago.
const WAY_ALLOWANCE_MS: u64 = 500;

impl Heard {
    /// The moment at which something is over that had `remaining_ms` left when the message was sent, and ends at
    /// ledger time `end_ms` (0: not told). Both ways of counting are early at worst, so the later one is right.
    pub fn deadline(self, remaining_ms: u64, end_ms: u64) -> BootTime {
        let by_way = self.sent_after.plus_ms(remaining_ms);
        let by_clock = self
            .ledger
            .filter(|_| end_ms > 0)
            .map(|reading| reading.at.plus_ms(end_ms.saturating_sub(reading.clock_ms)));
        let earliest = by_clock.map_or(by_way, |by_clock| by_clock.max(by_way));
        self.at.plus_ms(remaining_ms).min(earliest.plus_ms(WAY_ALLOWANCE_MS))
    }
}

/// Most reports of ended leases kept while no coordinator can be reached. A registration says the same by leaving them
/// out of its list, so dropping the oldest loses nothing.
const MAX_OWED: usize = 1024;

impl NodeSession {
    /// A node with what it offers; `extra` adds countables and overrides amounts.
    pub fn new(
        identity: NodeIdentity,
        inventory: &Inventory,
        extra: &Resources,
        leases: SharedLeases,
        fence: Arc<dyn Fence>,
    ) -> NodeSession {
        NodeSession {
            identity,
            labels: inventory.labels.clone(),
            capacity: inventory.capacity(extra),
            devices: inventory.gpus.iter().map(registered).collect(),
            leases,
            fence,
            meter: Meter::default(),
            epoch: None,
            owed: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The epoch that it is registered under; `None` while it is not.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// How it presents itself now.
    pub fn registration(&self) -> Registration {
        let mut running: Vec<String> =
            self.leases.lock().iter().map(|live| live.lease.reservation.clone()).collect();
        // Ids grow with their numbers: shorter ones are smaller.
        running.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        running.dedup();
        Registration {
            name: self.identity.name.clone(),
            incarnation: self.identity.incarnation,
            pool: self.identity.pool.clone(),
            labels: self.labels.clone(),
            capacity: self.capacity.clone(),
            devices: self.devices.clone(),
            self_fencing: self.identity.self_fencing,
            running,
        }
    }

    /// Its part of a heartbeat; `None` while it is not registered.
    pub fn heartbeat(&mut self, sample: Option<Sample>, now: BootTime) -> Option<NodeHeartbeat> {
        let epoch = self.epoch?;
        // Reading takes a moment, in which nobody waits for the leases.
        let counted = self.meter.is_due(now).then(|| self.fence.counted());
        let mut leases = self.leases.lock();
        let gpus = sample.as_ref().map_or(&[][..], |sample| &sample.gpus);
        let uses = counted.map(|counted| self.meter.measure(&counted, leases.iter(), gpus, now));
        let uses = uses.unwrap_or_default();
        let loads = leases.take_loads();
        Some(NodeHeartbeat { node: self.identity.name.clone(), epoch, sample, loads, uses })
    }

    /// It is in the ledger.
    pub fn registered(&mut self, epoch: u64) {
        self.epoch = Some(epoch);
        self.leases.lock().raise_floor(epoch);
    }

    /// The connection is gone, or the ledger wants another registration. Leases live on until their deadlines.
    pub fn unregistered(&mut self) {
        self.epoch = None;
    }

    /// Takes news of a lease.
    pub fn lease(&mut self, revision: u64, news: LeaseNews, heard: Heard) {
        let LeaseNews { lease, remaining_ms, end_ms, stopping } = news;
        if stopping {
            self.fence.ask_to_stop(&lease);
        }
        let deadline = remaining_ms.map(|remaining_ms| heard.deadline(remaining_ms, end_ms));
        let granted = self.leases.lock().grant(lease, revision, deadline);
        match granted {
            Ok(displaced) => self.ended_here(displaced),
            Err(stale) => {
                tracing::warn!(node = %self.identity.name, %stale, "refused a lease that comes too late")
            }
        }
    }

    /// Takes the list of all leases. True where something ran that is not on it: the ledger may still count it as
    /// running, and a new registration says otherwise.
    pub fn all_leases(&mut self, revision: u64, list: Vec<LeaseNews>, heard: Heard) -> bool {
        let deadline = |news: &LeaseNews| {
            news.remaining_ms.map(|remaining_ms| heard.deadline(remaining_ms, news.end_ms))
        };
        let alive = list.into_iter().map(|news| (deadline(&news), news.lease)).map(|(at, lease)| (lease, at));
        let ended = self.leases.lock().replace(revision, alive.collect());
        for lease in &ended {
            self.fence.kill(lease);
        }
        !ended.is_empty()
    }

    /// The ledger says that a lease is over. Without a token, the reservation names it.
    pub fn lease_ended(&mut self, reservation: &str, token: u64) {
        let named = |lease: &Lease| lease.token == token || (token == 0 && lease.reservation == reservation);
        let tokens = self.leases.lock().tokens(named);
        for token in tokens {
            self.end(token);
        }
    }

    /// Kills the processes of what is past its deadline. The ledger is not told: it ends such leases itself, or gives them
    /// another length where nobody could renew.
    pub fn expire(&mut self, now: BootTime) {
        let over = self.leases.lock().expire(now);
        for lease in &over {
            tracing::warn!(
                node = %self.identity.name,
                reservation = %lease.reservation,
                token = lease.token,
                "a lease was not renewed in time"
            );
            self.fence.kill(lease);
        }
    }

    /// The next moment at which [`NodeSession::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.leases.lock().next_deadline()
    }

    /// Takes the list of GPUs that are there now, and says whether a new registration has to tell of it. A GPU that is
    /// gone keeps its place in the list and counts as failed, since grants name devices by their place.
    pub fn update_gpus(&mut self, now: &[GpuDevice]) -> bool {
        let before = self.devices.clone();
        for device in &mut self.devices {
            match now.iter().find(|gpu| gpu.uuid == device.uuid) {
                Some(gpu) => *device = registered(gpu),
                None => device.failed = true,
            }
        }
        let known: Vec<String> = self.devices.iter().map(|device| device.uuid.clone()).collect();
        self.devices.extend(now.iter().filter(|gpu| !known.contains(&gpu.uuid)).map(registered));
        self.devices != before
    }

    /// Reports of leases that this node ended by itself. None while it is not registered.
    pub fn take_owed(&mut self) -> Vec<Report> {
        let Some(epoch) = self.epoch else { return Vec::new() };
        let report = |lease: Lease| Report::WorkloadEnded {
            node: self.identity.name.clone(),
            epoch,
            reservation: lease.reservation,
            token: lease.token,
        };
        std::mem::take(&mut self.owed).into_iter().map(report).collect()
    }

    fn end(&mut self, token: u64) {
        let ended = self.leases.lock().end(token);
        if let Some(lease) = ended {
            self.fence.kill(&lease);
        }
    }

    fn ended_here(&mut self, leases: Vec<Lease>) {
        for lease in leases {
            // First the processes, then the word: the ledger may grant the device again as soon as it hears.
            self.fence.kill(&lease);
            self.owed.push(lease);
        }
        let excess = self.owed.len().saturating_sub(MAX_OWED);
        self.owed.drain(..excess);
    }
}

fn registered(gpu: &GpuDevice) -> RegisteredDevice {
    RegisteredDevice {
        uuid: gpu.uuid.clone(),
        model: gpu.model.clone(),
        memory_bytes: gpu.memory_bytes.unwrap_or(0),
        // A GPU in MIG mode computes nothing as a whole: without profiles there is nothing to grant of it.
        failed: gpu.mig && gpu.mig_board.is_none(),
        mig: gpu.mig_board.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::GrantedDevice;
    use parking_lot::Mutex;

    /// Remembers what was asked of it.
    #[derive(Default)]
    struct Witness(Mutex<Vec<(&'static str, u64)>>);

    impl Fence for Witness {
        fn ask_to_stop(&self, lease: &Lease) {
            self.0.lock().push(("stop", lease.token));
        }

        fn kill(&self, lease: &Lease) {
            self.0.lock().push(("kill", lease.token));
        }
    }

    fn session() -> (NodeSession, Arc<Witness>) {
        let witness = Arc::new(Witness::default());
        let gpus = "a100:2".parse().unwrap();
        let inventory = Inventory::simulated("n1", 8000, 1 << 34, &gpus);
        let identity =
            NodeIdentity { name: "n1".into(), pool: String::new(), incarnation: 9, self_fencing: true };
        let extra = Resources::default();
        (NodeSession::new(identity, &inventory, &extra, Arc::default(), witness.clone()), witness)
    }

    fn news(token: u64, remaining_ms: u64) -> LeaseNews {
        let lease = Lease {
            reservation: format!("r-{token:04}"),
            token,
            cpu_millis: 1,
            memory_bytes: 1,
            devices: Vec::new(),
        };
        LeaseNews { lease, remaining_ms: Some(remaining_ms), end_ms: 0, stopping: false }
    }

    const NOW: Heard = Heard { at: BootTime(0), sent_after: BootTime(0), ledger: None };

    #[test]
    fn time_on_the_way_counts_against_the_holder() {
        let quick = Heard { at: BootTime(1_000), sent_after: BootTime(900), ledger: None };
        assert_eq!(quick.deadline(100, 0), BootTime(1_100));
        let paused = Heard { at: BootTime(60_000), sent_after: BootTime(900), ledger: None };
        assert_eq!(
            paused.deadline(100, 0),
            BootTime(1_500),
            "it may have been sent just after the answer before"
        );
    }

    #[test]
    fn a_reading_of_the_ledgers_clock_bounds_a_deadline_however_old_it_is() {
        let ledger = Some(LedgerReading { at: BootTime(900), clock_ms: 5_000 });
        let renewed = Heard { at: BootTime(2_800), sent_after: BootTime(900), ledger };
        // Ends 2,900 ms after a moment that was 900 at the earliest: at 3,800 here, and no allowance beyond what is told.
        assert_eq!(renewed.deadline(1_000, 7_900), BootTime(3_800));
        let held_up = Heard { at: BootTime(60_000), ..renewed };
        assert_eq!(
            held_up.deadline(1_000, 7_900),
            BootTime(3_800 + WAY_ALLOWANCE_MS),
            "its way counts for nobody"
        );
        assert_eq!(renewed.deadline(1_000, 0), BootTime(2_400), "without an end, as before");
    }

    #[test]
    fn a_silent_coordinator_does_not_keep_a_lease_alive() {
        let (mut session, witness) = session();
        session.registered(5);
        session.lease(10, news(10, 100), NOW);
        session.lease(11, news(11, 200), NOW);
        assert_eq!(session.registration().running, ["r-0010", "r-0011"]);
        session.unregistered();
        session.expire(BootTime(150));
        assert_eq!(*witness.0.lock(), [("kill", 10)]);
        assert_eq!(session.registration().running, ["r-0011"]);
        assert_eq!(session.next_deadline(), Some(BootTime(200)));
        session.registered(5);
        assert_eq!(session.take_owed(), [], "whether it has ended is for the ledger to say");
        session.lease(12, news(10, 300), NOW);
        assert_eq!(session.registration().running, ["r-0010", "r-0011"], "it gave it another length");
    }

    #[test]
    fn what_a_later_grant_displaced_is_reported_once_there_is_somebody_to_tell() {
        let (mut session, witness) = session();
        session.registered(5);
        let whole = |token| {
            let device = GrantedDevice {
                uuid: "GPU-n1-0".into(),
                index: 0,
                milli: 1_000,
                memory_bytes: 1,
                model: "a100".into(),
                mig: None,
            };
            let mut news = news(token, 100);
            news.lease.devices.push(device);
            news
        };
        session.lease(10, whole(10), NOW);
        session.unregistered();
        session.lease(11, whole(11), NOW);
        assert_eq!(*witness.0.lock(), [("kill", 10)]);
        assert_eq!(session.take_owed(), [], "nobody to tell");
        session.registered(5);
        let expected =
            Report::WorkloadEnded { node: "n1".into(), epoch: 5, reservation: "r-0010".into(), token: 10 };
        assert_eq!(session.take_owed(), [expected]);
        assert_eq!(session.take_owed(), []);
    }

    #[test]
    fn the_ledgers_word_ends_leases_and_is_not_reported_back() {
        let (mut session, witness) = session();
        session.registered(5);
        session.lease(10, news(10, 100), NOW);
        session.lease(11, LeaseNews { stopping: true, ..news(11, 100) }, NOW);
        session.lease_ended("r-0010", 0);
        session.lease_ended("r-0011", 11);
        session.lease_ended("r-0012", 12);
        assert_eq!(*witness.0.lock(), [("stop", 11), ("kill", 10), ("kill", 11)]);
        assert_eq!(session.take_owed(), []);
    }

    #[test]
    fn the_list_of_all_leases_kills_what_is_not_on_it() {
        let (mut session, witness) = session();
        session.lease(10, news(10, 100), NOW);
        session.lease(11, news(11, 100), NOW);
        assert!(session.all_leases(20, vec![news(11, 300), news(12, 300)], NOW));
        assert_eq!(*witness.0.lock(), [("kill", 10)]);
        assert_eq!(session.registration().running, ["r-0011", "r-0012"]);
        assert!(!session.all_leases(21, vec![news(11, 300), news(12, 300)], NOW));
    }

    #[test]
    fn a_gpu_that_is_gone_keeps_its_place_as_failed() {
        let (mut session, _) = session();
        let mut gpus = "a100:2".parse::<crate::gpu::FakeGpus>().unwrap().devices("n1");
        assert!(!session.update_gpus(&gpus));
        let gone = gpus.remove(0);
        assert!(session.update_gpus(&gpus));
        let failed: Vec<bool> = session.registration().devices.iter().map(|device| device.failed).collect();
        assert_eq!(failed, [true, false]);
        gpus.insert(0, gone);
        gpus.extend("t4:1".parse::<crate::gpu::FakeGpus>().unwrap().devices("late"));
        assert!(session.update_gpus(&gpus));
        let models: Vec<_> =
            session.registration().devices.iter().map(|d| (d.model.clone(), d.failed)).collect();
        assert_eq!(
            models,
            [("a100".to_owned(), false), ("a100".to_owned(), false), ("t4".to_owned(), false)]
        );
    }
}
