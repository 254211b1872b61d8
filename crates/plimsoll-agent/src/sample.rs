//! A sample: what a node measures at one moment, in integers, as heartbeats carry it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::{BootTime, SharedClock};
use crate::gpu::{GpuDevice, GpuProbe, GpuReading};
use crate::host::{HostProbe, HostReading};

/// Readings of one node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, in milliseconds of the agent's boot clock.
    pub taken_at_ms: u64,
    /// How old it is, in milliseconds, when it is handed out.
    pub age_ms: u64,
    /// The machine.
    pub host: HostReading,
    /// Its GPUs.
    pub gpus: Vec<GpuReading>,
}

impl Sample {
    /// Takes a sample now.
    pub fn take(now: BootTime, host: &mut dyn HostProbe, gpus: &mut dyn GpuProbe) -> Sample {
        Sample { taken_at_ms: now.0, age_ms: 0, host: host.read(), gpus: gpus.readings() }
    }
}

/// The latest sample and device list, refreshed by a thread of its own.
///
/// A sensor may hang (a GPU that fell off its bus does); a heartbeat must not. So a heartbeat takes the newest finished
/// sample, and says how old it is.
#[derive(Clone)]
pub struct Sampler {
    latest: Arc<Mutex<Latest>>,
    clock: SharedClock,
}

#[derive(Default)]
struct Latest {
    sample: Option<Sample>,
    gpus: Option<Vec<GpuDevice>>,
}

/// What a simulated node measures, by its name and the time of its clock.
pub type Played = fn(&str, BootTime) -> Sample;

/// Where the samples of a link's nodes come from.
#[derive(Clone)]
pub enum Readings {
    /// Nobody measures.
    None,
    /// The machine that all its nodes are.
    Machine(Sampler),
    /// They are played.
    Played(Played),
}

/// How many samples pass between two looks at the list of devices.
const SAMPLES_PER_DEVICE_LIST: u32 = 15;

impl Sampler {
    /// Starts the thread. It ends by itself once every handle is dropped.
    pub fn start(
        mut host: Box<dyn HostProbe>,
        mut gpus: Box<dyn GpuProbe>,
        clock: SharedClock,
        interval: Duration,
    ) -> std::io::Result<Sampler> {
        let latest = Arc::new(Mutex::new(Latest::default()));
        let weak = Arc::downgrade(&latest);
        let own_clock = clock.clone();
        std::thread::Builder::new().name("plimsoll-sensors".to_owned()).spawn(move || {
            let mut round = 0u32;
            loop {
                let sample = Sample::take(clock.now(), host.as_mut(), gpus.as_mut());
                let devices = round.is_multiple_of(SAMPLES_PER_DEVICE_LIST).then(|| gpus.devices());
                let Some(latest) = weak.upgrade() else { return };
                let mut latest = latest.lock();
                latest.sample = Some(sample);
                if devices.is_some() {
                    latest.gpus = devices;
                }
                drop(latest);
                round = round.wrapping_add(1);
                std::thread::sleep(interval);
            }
        })?;
        Ok(Sampler { latest, clock: own_clock })
    }

    /// The newest finished sample; `None` before the first.
    pub fn latest(&self) -> Option<Sample> {
        let mut sample = self.latest.lock().sample.clone()?;
        sample.age_ms = self.clock.now().ms_since(BootTime(sample.taken_at_ms));
        Some(sample)
    }

    /// The newest list of GPUs; `None` before the first.
    pub fn gpus(&self) -> Option<Vec<GpuDevice>> {
        self.latest.lock().gpus.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::gpu::FakeGpuProbe;
    use crate::host::HostFacts;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Recorded(Arc<AtomicBool>);

    impl HostProbe for Recorded {
        fn facts(&mut self) -> HostFacts {
            HostFacts::default()
        }

        fn read(&mut self) -> HostReading {
            HostReading { cpu_permille: Some(250), ..HostReading::default() }
        }
    }

    impl Drop for Recorded {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("{what} did not happen within 5 s");
    }

    #[test]
    fn the_sampler_gives_the_newest_sample_and_stops_with_its_last_handle() {
        let stopped = Arc::new(AtomicBool::new(false));
        let gpus = Box::new(FakeGpuProbe::new(&"t4:1".parse().unwrap(), "n"));
        let host = Box::new(Recorded(stopped.clone()));
        let clock = Arc::new(ManualClock::at_ms(77));
        let sampler = Sampler::start(host, gpus, clock, Duration::from_millis(1)).unwrap();
        wait_for("a first sample", || sampler.latest().is_some());
        let sample = sampler.latest().unwrap();
        assert_eq!((sample.taken_at_ms, sample.host.cpu_permille), (77, Some(250)));
        assert_eq!(sample.host.memory_used_bytes, None, "what was not read is absent");
        assert_eq!(sampler.gpus().map(|gpus| gpus.len()), Some(1));
        drop(sampler);
        wait_for("the end of the thread", || stopped.load(Ordering::SeqCst));
    }
}
