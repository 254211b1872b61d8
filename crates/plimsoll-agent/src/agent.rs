//! The agent of one machine: probes, local API, and the link to a coordinator.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_types::{Labels, Resources, check_name};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::dial::Dial;
use crate::fence::{Fence, NoProcesses, Processes};
use crate::gpu::{FakeGpuProbe, FakeGpus, GpuProbe, NvmlProbe};
use crate::host::{HostProbe, SysinfoProbe};
use crate::inventory::Inventory;
use crate::lease::SharedLeases;
use crate::link::{Link, LinkStatus, LinkTiming};
use crate::local_api::LocalApi;
use crate::sample::{Readings, Sampler};
use crate::session::{NodeIdentity, NodeSession};

/// Heartbeat interval where none is configured, in milliseconds.
pub const DEFAULT_HEARTBEAT_INTERVAL_MS: u64 = 2_000;

/// Limits of the API on labels.
const MAX_LABELS: usize = 64;
const MAX_LABEL_BYTES: usize = 128;

/// What an agent needs to know.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Unique name of the node, normally the host name.
    pub name: String,
    /// Pool that the node is for; empty lets the pools' selectors decide.
    pub pool: String,
    /// Another value at each start of the agent; see [`fresh_incarnation`].
    pub incarnation: u64,
    /// Labels beside those that the probes find, which they override.
    pub labels: Labels,
    /// Custom countables such as `license/foo`, and amounts to offer instead of what the probes find.
    pub extra: Resources,
    /// Simulated GPUs instead of the machine's.
    pub fake_gpus: Option<FakeGpus>,
    /// Between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Folder on the file system whose room is offered and measured.
    pub storage: PathBuf,
    /// Unix socket of the local API; none where absent.
    pub socket: Option<PathBuf>,
    /// Loopback address of the local API; none where absent.
    pub local_listen: Option<SocketAddr>,
    /// A node that is only played: no probe, no thread, no process.
    pub simulated: Option<Inventory>,
}

impl AgentConfig {
    /// The defaults for a node of this name.
    pub fn new(name: &str) -> AgentConfig {
        AgentConfig {
            name: name.to_owned(),
            pool: String::new(),
            incarnation: 0,
            labels: Labels::new(),
            extra: Resources::default(),
            fake_gpus: None,
            heartbeat_interval_ms: DEFAULT_HEARTBEAT_INTERVAL_MS,
            storage: PathBuf::from("/"),
            socket: None,
            local_listen: None,
            simulated: None,
        }
    }

    /// Everything that is wrong with it, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(check_name(&self.name).err().map(|error| format!("name: {error}")));
        if !self.pool.is_empty() {
            problems.extend(check_name(&self.pool).err().map(|error| format!("pool: {error}")));
        }
        if !(10..=60_000).contains(&self.heartbeat_interval_ms) {
            problems
                .push(format!("heartbeat interval: {} ms is not in 10 to 60000", self.heartbeat_interval_ms));
        }
        if self.labels.len() > MAX_LABELS {
            problems.push(format!("labels: {} are more than the {MAX_LABELS} allowed", self.labels.len()));
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
                problems
                    .push(format!("label {key:?}: key and value must have at most {MAX_LABEL_BYTES} bytes"));
            }
        }
        if let Some(address) = self.local_listen.filter(|address| !address.ip().is_loopback()) {
            problems.push(format!("local API: {address} is not a loopback address"));
        }
        problems
    }
}

/// An incarnation that no earlier start of this agent has had: the wall clock in microseconds. It is only compared for
/// equality, so a clock that was set back does no harm.
pub fn fresh_incarnation() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// What it was told makes no sense.
    #[error("bad agent configuration: {}", .0.join("; "))]
    Config(Vec<String>),
    /// Its sensor thread cannot be started.
    #[error("cannot start the sensor thread")]
    Sensors(#[source] io::Error),
    /// Its local API cannot listen.
    #[error("cannot serve the local API on {place}")]
    LocalApi {
        /// Socket or address.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An agent that is ready to run.
pub struct Agent {
    link: Link,
    api: LocalApi,
    socket: Option<PathBuf>,
    listener: Option<TcpListener>,
    inventory: Inventory,
}

impl Agent {
    /// Reads the machine and gets ready; nothing is said to a coordinator yet.
    pub async fn prepare(
        config: AgentConfig,
        dial: Arc<dyn Dial>,
        clock: SharedClock,
    ) -> Result<Agent, AgentError> {
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(AgentError::Config(problems));
        }
        let processes = Processes::default();
        let (inventory, readings, fence): (_, _, Arc<dyn Fence>) = match &config.simulated {
            Some(simulated) => {
                let mut inventory = simulated.clone();
                inventory.labels.extend(config.labels.clone());
                (inventory, Readings::None, Arc::new(NoProcesses))
            }
            None => {
                let mut host: Box<dyn HostProbe> = Box::new(SysinfoProbe::new(&config.storage));
                let mut gpus: Box<dyn GpuProbe> = match &config.fake_gpus {
                    Some(fake) => Box::new(FakeGpuProbe::new(fake, &config.name)),
                    None => Box::new(NvmlProbe::new(clock.clone())),
                };
                let inventory = Inventory::gather(host.as_mut(), gpus.as_mut(), &config.labels);
                let period = Duration::from_millis(config.heartbeat_interval_ms);
                let sampler =
                    Sampler::start(host, gpus, clock.clone(), period).map_err(AgentError::Sensors)?;
                (inventory, Readings::Machine(sampler), Arc::new(processes.clone()))
            }
        };
        let leases = SharedLeases::default();
        let identity = NodeIdentity {
            name: config.name.clone(),
            pool: config.pool.clone(),
            incarnation: config.incarnation,
            self_fencing: true,
        };
        let node = NodeSession::new(identity, &inventory, &config.extra, leases.clone(), fence);
        let timing = LinkTiming::for_interval(config.heartbeat_interval_ms);
        let link = Link::new(vec![node], dial, clock.clone(), timing, readings);
        let listener = match config.local_listen {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| AgentError::LocalApi { place: address.to_string(), source })?,
            ),
            None => None,
        };
        let api = LocalApi { node: config.name, leases, clock, processes };
        Ok(Agent { link, api, socket: config.socket, listener, inventory })
    }

    /// How the link to the coordinator is doing, from now on.
    pub fn status(&self) -> watch::Receiver<LinkStatus> {
        self.link.status()
    }

    /// What the machine offers.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The leases, the clock of their deadlines, and where to attach processes: for workloads started in this process.
    pub fn local(&self) -> LocalApi {
        self.api.clone()
    }

    /// The loopback address that the local API got, where it has one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Runs until `shutdown`. A coordinator that cannot be reached is no error; a local API that cannot be served is.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let serve_socket = async {
            let Some(path) = self.socket else { return Ok(()) };
            let place = path.display().to_string();
            let served = self.api.clone().serve_unix(path, shutdown.clone()).await;
            served.map_err(|source| AgentError::LocalApi { place, source })
        };
        let serve_port = async {
            let Some(listener) = self.listener else { return Ok(()) };
            let place = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
            let served = self.api.clone().serve_tcp(listener, shutdown.clone()).await;
            served.map_err(|source| AgentError::LocalApi { place, source })
        };
        let link = async {
            self.link.run(shutdown.clone()).await;
            Ok(())
        };
        tokio::try_join!(link, serve_socket, serve_port).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_a_configuration_is_named() {
        let mut config = AgentConfig::new("Bad Name");
        config.pool = "-".into();
        config.heartbeat_interval_ms = 0;
        config.labels.insert("k".into(), "v".repeat(200));
        config.local_listen = Some("0.0.0.0:1".parse().unwrap());
        let problems = config.problems();
        assert_eq!(problems.len(), 5, "{problems:#?}");
        assert_eq!(AgentConfig::new("node-1").problems(), Vec::<String>::new());
    }

    #[test]
    fn two_starts_are_two_incarnations() {
        let first = fresh_incarnation();
        std::thread::sleep(Duration::from_millis(2));
        assert_ne!(first, fresh_incarnation());
    }
}
