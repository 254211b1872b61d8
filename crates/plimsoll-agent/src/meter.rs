//! What workloads use of their node now: rates made of what was counted twice.
//!
//! Invariant: nothing is said of what was counted once, or of another workload under the same token.

use std::collections::BTreeMap;

use crate::clock::BootTime;
use crate::fence::Counted;
use crate::gpu::GpuReading;
use crate::lease::{Lease, LiveLease};

/// Between two measurements at least, in milliseconds.
const EVERY_MS: u64 = 5_000;
/// Most leases in one heartbeat.
const MOST_USES: usize = 1_000;
/// Thousandths of a device that is a lease's own.
const WHOLE_MILLI: u32 = 1_000;

/// What the workload of a lease uses. What nobody can tell is absent, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseUse {
    /// Id of the reservation.
    pub reservation: String,
    /// Its fencing token.
    pub token: u64,
    /// Processor time, in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Share of time in which the devices that it has to itself work, their mean, in thousandths.
    pub gpu_permille: Option<u32>,
}

/// Measures the workloads of one node.
#[derive(Debug, Default)]
pub struct Meter {
    measured_at: Option<BootTime>,
    cpu_ms: BTreeMap<u64, u64>,
}

impl Meter {
    /// True unless it was measured a moment ago.
    pub fn is_due(&self, now: BootTime) -> bool {
        self.measured_at.is_none_or(|at| now.ms_since(at) >= EVERY_MS)
    }

    /// What the leases with processes use, by what they were counted for until now.
    pub fn measure<'a>(
        &mut self,
        counted: &BTreeMap<u64, Counted>,
        leases: impl Iterator<Item = &'a LiveLease>,
        gpus: &[GpuReading],
        now: BootTime,
    ) -> Vec<LeaseUse> {
        let since_ms = self.measured_at.map(|at| now.ms_since(at));
        let before = std::mem::take(&mut self.cpu_ms);
        self.measured_at = Some(now);
        self.cpu_ms = counted.iter().filter_map(|(token, counted)| Some((*token, counted.cpu_ms?))).collect();
        let of_lease = |live: &LiveLease| {
            let Lease { reservation, token, .. } = &live.lease;
            let Counted { cpu_ms, memory_bytes } = *counted.get(token)?;
            let more_ms = cpu_ms.zip(before.get(token)).and_then(|(now, before)| now.checked_sub(*before));
            let cpu_millis =
                more_ms.zip(since_ms).map(|(more, since)| more.saturating_mul(1_000) / since.max(1));
            let gpu_permille = device_time(&live.lease, gpus);
            Some(LeaseUse {
                reservation: reservation.clone(),
                token: *token,
                cpu_millis,
                memory_bytes,
                gpu_permille,
            })
        };
        leases.filter_map(of_lease).take(MOST_USES).collect()
    }
}

/// Of the devices that nobody else is on; `None` where there is none, or one does not say.
fn device_time(lease: &Lease, gpus: &[GpuReading]) -> Option<u32> {
    let whole = lease.devices.iter().filter(|device| device.milli >= WHOLE_MILLI && device.mig.is_none());
    let read = whole.map(|device| gpus.iter().find(|gpu| gpu.uuid == device.uuid)?.utilization_permille);
    let all: Option<Vec<u32>> = read.collect();
    let all = all.filter(|all| !all.is_empty())?;
    let sum: u64 = all.iter().map(|permille| u64::from(*permille)).sum();
    u32::try_from(sum / all.len() as u64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::GrantedDevice;

    fn lease(token: u64, devices: Vec<GrantedDevice>) -> LiveLease {
        let lease =
            Lease { reservation: format!("r-{token}"), token, cpu_millis: 1_000, memory_bytes: 0, devices };
        LiveLease { lease, revision: 1, deadline: None }
    }

    fn counted(cpu_ms: u64, memory_bytes: u64) -> Counted {
        Counted { cpu_ms: Some(cpu_ms), memory_bytes: Some(memory_bytes) }
    }

    #[test]
    fn processor_time_is_a_rate_between_two_counts() {
        let leases = [lease(1, Vec::new()), lease(2, Vec::new())];
        let mut meter = Meter::default();
        let mut measure = |at_ms: u64, cpu_ms, memory| {
            assert!(meter.is_due(BootTime(at_ms)));
            let counted = [(1, counted(cpu_ms, memory))].into();
            let uses = meter.measure(&counted, leases.iter(), &[], BootTime(at_ms));
            assert!(!meter.is_due(BootTime(at_ms + EVERY_MS - 1)), "it was a moment ago");
            uses
        };
        let used = |cpu_millis, memory| LeaseUse {
            reservation: "r-1".to_owned(),
            token: 1,
            cpu_millis,
            memory_bytes: Some(memory),
            gpu_permille: None,
        };
        let once = measure(1_000, 10_000, 5);
        assert_eq!(once, [used(None, 5)], "counted once, and nothing runs under the other");
        assert_eq!(measure(11_000, 12_500, 7), [used(Some(250), 7)]);
        assert_eq!(measure(17_000, 100, 7), [used(None, 7)], "it counts from anew: another process");
    }

    #[test]
    fn device_time_is_that_of_devices_of_its_own() {
        let device = |uuid: &str, milli| GrantedDevice {
            uuid: uuid.to_owned(),
            index: 0,
            milli,
            memory_bytes: 0,
            model: String::new(),
            mig: None,
        };
        let reading = |uuid: &str, utilization_permille| GpuReading {
            uuid: uuid.to_owned(),
            utilization_permille,
            ..GpuReading::default()
        };
        let gpus = [reading("a", Some(900)), reading("b", Some(300)), reading("c", None)];
        let of = |devices| device_time(&lease(1, devices).lease, &gpus);
        assert_eq!(of(vec![device("a", 1_000), device("b", 1_000)]), Some(600));
        assert_eq!(of(vec![device("a", 1_000), device("b", 500)]), Some(900), "others are on b");
        assert_eq!(of(vec![device("a", 1_000), device("c", 1_000)]), None, "c does not say");
        assert_eq!(of(Vec::new()), None);
    }
}
