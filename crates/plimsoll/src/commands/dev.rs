//! `plimsoll dev`: a whole cluster in one process, ready in a moment and gone without a trace.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use plimsoll_agent::clock::BootClock;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::inventory::Inventory;
use plimsoll_agent::link::LinkStatus;
use plimsoll_agent::{Agent, AgentConfig, FleetConfig, SimulatedFleet, SimulatedNode, fresh_incarnation};
use plimsoll_client::v1::GetStatusRequest;
use plimsoll_client::{Client, ClientOptions};
use plimsoll_coordinator::Coordinator;
use plimsoll_coordinator::config::CoordinatorConfig;
use plimsoll_types::{Labels, Resources};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::agent::{chain, dial, inventory_line, read_fake_gpus};
use super::coordinator::{allow, not_started, stop_on_panic};
use super::process::Signals;
use crate::args::Globals;
use crate::context::{Context, Contexts};
use crate::error::CliError;
use crate::exit::Exit;
use crate::host::{agent_socket, host_name};
use crate::output::Out;

/// Name of the context that is written.
const CONTEXT: &str = "dev";
/// Longest wait for the first leader.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the nodes to be registered.
const NODES_WAIT: Duration = Duration::from_secs(10);

/// Runs a whole cluster in this process.
#[derive(Args, Debug)]
pub(crate) struct Dev {
    /// Nodes: this machine, and simulated ones like it
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// Pretend that each node has these GPUs: a100:2,h100-mig:1 (-mig: cut into MIG slices)
    #[arg(long, value_name = "GPUS")]
    fake_gpu: Option<String>,
    /// A label of the nodes, with a value for each in their order, over again where there are fewer: rack=1,1,2,2 (repeatable)
    #[arg(long = "node-label", value_name = "KEY=VALUE,...")]
    node_labels: Vec<String>,
    /// Port of the API; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 7420)]
    port: u16,
    /// Port of HTTP (metrics, health); 0 takes a free one [default: 7421, or 0 with --port 0]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Keep data in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep data in memory; this is the default
    #[arg(long)]
    ephemeral: bool,
    /// Start and stop agents on this machine where a scaling policy with the provider `process` says so
    #[arg(long)]
    autoscale: bool,
    /// Leave the contexts as they are
    #[arg(long)]
    no_context: bool,
}

/// What runs beside the coordinator.
struct Nodes {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    agent: watch::Receiver<LinkStatus>,
    fleet: Option<plimsoll_agent::FleetStatus>,
    line: String,
}

impl Dev {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let mut signals = Signals::listen()?;
        let fake = self.fake_gpu.as_deref().map(read_fake_gpus).transpose()?;
        stop_on_panic();
        let started = Instant::now();
        let coordinator = Coordinator::serve(self.config()?).await.map_err(not_started)?;
        let addresses = coordinator.addresses();
        let address = addresses.client.map(|address| address.to_string()).unwrap_or_default();
        let options = ClientOptions::default().timeout(LEADER_WAIT);
        let client = Client::new([address.clone()], options)?;
        let begun = self.begin(&client, fake, started).await;
        let (nodes, leader_after) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                coordinator.shutdown().await;
                return Err(error);
            }
        };
        let earlier = if self.no_context { None } else { Some(select_context(&address)?) };
        let http = addresses.http.map(|http| http.to_string()).unwrap_or_default();
        self.announce(&out, &address, &http, leader_after, &nodes)?;

        let ended = tokio::select! {
            _ = signals.next_end() => Ok(Exit::Done),
            () = coordinator.core().ended() => {
                Err(CliError::new(Exit::Storage, "STORAGE", "the coordinator's storage failed, so it stopped"))
            }
        };
        if let Some(earlier) = earlier {
            restore_context(&address, earlier)?;
        }
        nodes.stop.cancel();
        for task in nodes.tasks {
            // A task that failed has said so in the log.
            let _ = task.await;
        }
        coordinator.shutdown().await;
        if self.autoscale {
            leave_nothing(&self.scope()).await;
        }
        ended
    }

    fn config(&self) -> Result<CoordinatorConfig, CliError> {
        let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let http_port = self.http_port.unwrap_or(if self.port == 0 { 0 } else { 7421 });
        let mut config = CoordinatorConfig {
            cluster: "dev".to_owned(),
            listen: local(self.port),
            http_listen: Some(local(http_port)),
            data_dir: self.data.clone(),
            bootstrap: true,
            ..CoordinatorConfig::default()
        };
        if self.autoscale {
            allow(&mut config.scaling.providers, "process")?;
            // Another `dev` of this machine has machines of its own.
            config.scaling.scope = Some(self.scope());
        }
        Ok(config)
    }

    fn scope(&self) -> String {
        format!("dev-{}", std::process::id())
    }

    /// Waits for the leader, then starts the nodes and waits until the ledger has them.
    async fn begin(
        &self,
        client: &Client,
        fake: Option<FakeGpus>,
        started: Instant,
    ) -> Result<(Nodes, Duration), CliError> {
        let deadline = Instant::now() + LEADER_WAIT;
        while !client.get_status(GetStatusRequest {}).await?.status.is_some_and(|status| status.serving) {
            if Instant::now() > deadline {
                return Err(CliError::new(Exit::Unreachable, "UNAVAILABLE", "no leader was elected"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let leader_after = started.elapsed();
        let nodes = self.start_nodes(client, fake).await?;
        let deadline = Instant::now() + NODES_WAIT;
        while !nodes.are_registered() {
            if let Some(problem) = nodes.problem().or_else(|| {
                (Instant::now() > deadline).then(|| "the nodes were not registered in time".to_owned())
            }) {
                nodes.stop.cancel();
                return Err(CliError::new(Exit::Refused, "LOCAL", problem));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok((nodes, leader_after))
    }

    async fn start_nodes(&self, client: &Client, fake: Option<FakeGpus>) -> Result<Nodes, CliError> {
        let mut config = AgentConfig::new(&host_name());
        config.incarnation = fresh_incarnation();
        config.fake_gpus = fake.clone();
        config.labels.extend(self.labels_of(0)?);
        config.socket = free_socket();
        let clock = BootClock::shared();
        let prepared = Agent::prepare(config, Arc::new(dial(client)), clock.clone()).await;
        let agent = prepared.map_err(|error| CliError::local("the agent did not start", chain(&error)))?;
        let stop = CancellationToken::new();
        let status = agent.status();
        let inventory = agent.inventory().clone();
        let fleet = self.fleet(client, &inventory, fake.unwrap_or_default())?;
        let fleet_status = fleet.as_ref().map(SimulatedFleet::status);
        let mut tasks = vec![tokio::spawn(run_agent(agent, stop.clone()))];
        if let Some(fleet) = fleet {
            tasks.push(tokio::spawn(fleet.run(stop.clone())));
        }
        Ok(Nodes { stop, tasks, agent: status, fleet: fleet_status, line: inventory_line(&inventory) })
    }

    /// The simulated nodes, each as large as this machine.
    fn fleet(
        &self,
        client: &Client,
        like: &Inventory,
        gpus: FakeGpus,
    ) -> Result<Option<SimulatedFleet>, CliError> {
        let Some(count) = self.nodes.checked_sub(1).filter(|count| *count > 0) else { return Ok(None) };
        let node = |number: usize| {
            let name = format!("sim-{number:03}");
            let mut inventory = Inventory::simulated(&name, like.cpu_millis, like.memory_bytes, &gpus);
            inventory.labels.extend(self.labels_of(number)?);
            Ok(SimulatedNode { name, pool: String::new(), inventory, extra: Resources::default() })
        };
        let config = FleetConfig { incarnation: fresh_incarnation(), ..FleetConfig::default() };
        let nodes = (1..=count).map(node).collect::<Result<_, CliError>>()?;
        Ok(Some(SimulatedFleet::new(nodes, config, Arc::new(dial(client)), BootClock::shared())))
    }

    /// The labels of a node, from 0 for this machine.
    fn labels_of(&self, number: usize) -> Result<Labels, CliError> {
        let mut labels = Labels::new();
        for text in &self.node_labels {
            let Some((key, values)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(CliError::usage(format!("--node-label {text:?} is not KEY=VALUE,...")));
            };
            let values: Vec<&str> = values.split(',').collect();
            labels.insert(key.to_owned(), values[number % values.len()].to_owned());
        }
        Ok(labels)
    }

    fn announce(
        &self,
        out: &Out,
        address: &str,
        http: &str,
        leader_after: Duration,
        nodes: &Nodes,
    ) -> Result<(), CliError> {
        if !out.is_human() {
            return out.document(&json!({
                "address": address,
                "httpAddress": http,
                "nodes": self.nodes.max(1),
                "context": if self.no_context { None } else { Some(CONTEXT) },
            }));
        }
        let dot = out.paint.dot();
        let data = match &self.data {
            Some(folder) => format!("data in {}", folder.display()),
            None => "data in memory (use --data DIR to keep it)".to_owned(),
        };
        let more = match self.nodes.saturating_sub(1) {
            0 => String::new(),
            1 => format!(" {dot} and a simulated node like it"),
            count => format!(" {dot} and {count} simulated nodes like it"),
        };
        let hint = match (&self.fake_gpu, self.port) {
            (None, 7420) => {
                "\n  plimsoll dev --fake-gpu a100:2      two pretend GPUs, to try GPU policies without one"
            }
            _ => "",
        };
        out.say(&format!(
            "plimsoll {} dev {dot} one process, {data}\n  \
             coordinator  {address:<20} single voter, leader in {}ms\n  \
             agent        this machine         {}{more}\n  \
             http         http://{http}/metrics",
            env!("CARGO_PKG_VERSION"),
            leader_after.as_millis(),
            nodes.line,
        ));
        if !self.no_context {
            out.say(&format!("  context      {CONTEXT:?} written and selected"));
        }
        out.say(&format!(
            "Try in another terminal:\n  plimsoll run --cpu 2 --mem 1Gi -- echo hello{hint}\n\
             Ctrl-C stops everything and leaves nothing behind."
        ));
        Ok(())
    }
}

impl Nodes {
    fn are_registered(&self) -> bool {
        let fleet = self.fleet.as_ref().is_none_or(|fleet| fleet.registered() >= fleet.nodes());
        self.agent.borrow().registered > 0 && fleet
    }

    fn problem(&self) -> Option<String> {
        if self.tasks.iter().any(JoinHandle::is_finished) {
            return Some("the agent stopped; the log says why".to_owned());
        }
        let status = self.agent.borrow();
        status.refused.iter().next().map(|(node, why)| format!("node {node} was refused: {why}"))
    }
}

/// The socket of this machine's agent, unless another agent has it: then there is none here.
fn free_socket() -> Option<PathBuf> {
    let socket = agent_socket();
    let made = socket.parent().is_none_or(|folder| std::fs::create_dir_all(folder).is_ok());
    let taken = std::os::unix::net::UnixStream::connect(&socket).is_ok();
    Some(socket).filter(|_| made && !taken)
}

/// What was started for scaling ends with this: nobody else would end it.
async fn leave_nothing(scope: &str) {
    match plimsoll_provider::end_all(scope).await {
        Ok(0) => {}
        Ok(left) => tracing::info!(left, "ended the machines that scaling had started"),
        Err(error) => tracing::error!(%error, "a machine that scaling had started is left"),
    }
}

async fn run_agent(agent: Agent, stop: CancellationToken) {
    if let Err(error) = agent.run(stop).await {
        tracing::error!(error = %chain(&error), "the agent stopped");
    }
}

/// Writes the context and selects it; what was there before comes back.
fn select_context(address: &str) -> Result<(Option<String>, Option<Context>), CliError> {
    let mut contexts = Contexts::load()?;
    let context = Context { addresses: vec![address.to_owned()], ..Context::default() };
    let earlier = contexts.contexts.insert(CONTEXT.to_owned(), context);
    let current = contexts.current.replace(CONTEXT.to_owned());
    contexts.save()?;
    Ok((current, earlier))
}

/// Puts things back, unless somebody has changed them meanwhile.
fn restore_context(address: &str, earlier: (Option<String>, Option<Context>)) -> Result<(), CliError> {
    let mut contexts = Contexts::load()?;
    let is_ours = contexts.contexts.get(CONTEXT).is_some_and(|context| context.addresses == [address]);
    if !is_ours {
        return Ok(());
    }
    // Another `dev` that was killed may have left its context: it comes back only as a name without a cluster, so it goes.
    contexts.contexts.remove(CONTEXT);
    if contexts.current.as_deref() == Some(CONTEXT) {
        contexts.current = earlier.0.filter(|name| contexts.contexts.contains_key(name));
    }
    contexts.save().map(drop)
}
