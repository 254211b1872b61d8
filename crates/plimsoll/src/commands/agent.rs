//! `plimsoll agent`: the agent of this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use plimsoll_agent::clock::BootClock;
use plimsoll_agent::dial::LinkError;
use plimsoll_agent::gpu::FakeGpus;
use plimsoll_agent::interruption::{LOOK_EVERY, NoticeSource};
use plimsoll_agent::inventory::Inventory;
use plimsoll_agent::{AgentConfig, GrpcDial, fresh_incarnation};
use plimsoll_client::Client;
use plimsoll_client::v1::InterruptNodeRequest;
use plimsoll_ledger::{CAPACITY_TYPE, PRICE_PERMILLE, SPOT_POOL};
use plimsoll_types::quantity::{self, display_bytes, format_cpu_millis};
use plimsoll_types::{Amount, Labels, ResourceName, Resources};
use tokio_util::sync::CancellationToken;

use super::process::Signals;
use crate::args::{Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;
use crate::host::{agent_socket, host_name};

/// Runs the agent of this machine.
#[derive(Args, Debug)]
pub(crate) struct Agent {
    /// Unique name of the node [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Pool that the node is for; without it the pools' selectors decide
    #[arg(long, value_name = "POOL", default_value = "")]
    pool: String,
    /// Label of the node: zone=a (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Another resource that it offers, or another amount than it has: license/foo=4, cpu=8 (repeatable)
    #[arg(long = "res", value_name = "NAME=AMOUNT")]
    resources: Vec<String>,
    /// Pretend to have these GPUs: a100:2,h100-mig:1 (-mig: cut into MIG slices)
    #[arg(long, value_name = "GPUS")]
    fake_gpu: Option<String>,
    /// Between signs of life
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    heartbeat: Duration,
    /// Folder on the file system whose room is offered
    #[arg(long, value_name = "DIR", default_value = "/")]
    storage: PathBuf,
    /// How the machine is paid for
    #[arg(long, value_name = "TYPE", value_parser = ["on_demand", "reserved", "spot"])]
    capacity_type: Option<String>,
    /// What it costs beside its pool's prices: 0.35
    #[arg(long, value_name = "FACTOR")]
    price: Option<String>,
    /// Market that a spot machine is bought in; what is in one may go at once
    #[arg(long, value_name = "NAME")]
    spot_pool: Option<String>,
    /// Where notices are looked for that the provider takes the machine back: aws, gcp, file:PATH
    #[arg(long, value_name = "SOURCE")]
    interruption_notice: Option<NoticeSource>,
    /// Unix socket of the local API
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Loopback address of the local API
    #[arg(long, value_name = "ADDR")]
    local_listen: Option<SocketAddr>,
}

impl Agent {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let client = globals.client()?;
        let mut signals = Signals::listen()?;
        let mut config = AgentConfig::new(&self.name.clone().unwrap_or_else(host_name));
        config.pool = self.pool.clone();
        config.incarnation = fresh_incarnation();
        for label in &self.labels {
            let (key, value) = pair("--label", label)?;
            config.labels.insert(key.to_owned(), value.to_owned());
        }
        config.labels.extend(self.capacity_labels()?);
        config.extra = extra_resources(&self.resources)?;
        config.fake_gpus = self.fake_gpu.as_deref().map(read_fake_gpus).transpose()?;
        config.heartbeat_interval_ms = u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX);
        config.storage = self.storage;
        config.local_listen = self.local_listen;
        let socket = self.socket.unwrap_or_else(agent_socket);
        if let Some(folder) = socket.parent() {
            let failed = |error| CliError::local(&format!("cannot make {}", folder.display()), error);
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        config.socket = Some(socket);
        let name = config.name.clone();
        let agent =
            plimsoll_agent::Agent::prepare(config, Arc::new(dial(&client)), BootClock::shared()).await;
        let agent = agent.map_err(|error| CliError::usage(chain(&error)))?;
        out.say(&format!("agent {name}: {}", inventory_line(agent.inventory())));
        let stop = CancellationToken::new();
        if let Some(source) = self.interruption_notice {
            tokio::spawn(pass_notices(source, client, name, stop.clone()));
        }
        let running = tokio::spawn(agent.run(stop.clone()));
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            _ = signals.next_end() => {
                out.say("stopping; leases stay and end by their length");
                stop.cancel();
                running.await
            }
        };
        match ended {
            Ok(Ok(())) => Ok(Exit::Done),
            Ok(Err(error)) => Err(CliError::local("the agent stopped", chain(&error))),
            Err(error) => Err(CliError::local("the agent stopped", error)),
        }
    }
}

impl Agent {
    /// What it says of how the machine is paid for, as labels.
    fn capacity_labels(&self) -> Result<Labels, CliError> {
        let mut labels = Labels::new();
        let price = self.price.as_deref().map(quantity::parse_cpu_millis).transpose();
        let price = price.map_err(|_| CliError::usage("--price is a factor, as in 0.35"))?;
        let said = [
            (CAPACITY_TYPE, self.capacity_type.clone()),
            (PRICE_PERMILLE, price.map(|permille| permille.to_string())),
            (SPOT_POOL, self.spot_pool.clone()),
        ];
        for (key, value) in said {
            labels.extend(value.map(|value| (key.to_owned(), value)));
        }
        Ok(labels)
    }
}

/// Looks for notices of the provider and passes the first one on, until that has been heard.
async fn pass_notices(source: NoticeSource, client: Client, name: String, stop: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match source.look(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).await {
            Ok(None) => {}
            Ok(Some(in_ms)) => {
                let request =
                    InterruptNodeRequest { name: name.clone(), in_ms, ..InterruptNodeRequest::default() };
                match client.interrupt_node(request).await {
                    Ok(_) => {
                        tracing::warn!(node = %name, in_ms, "the provider takes this machine back");
                        return;
                    }
                    Err(error) => tracing::warn!(node = %name, %error, "the provider's notice was not heard"),
                }
            }
            Err(error) => tracing::debug!(%error, "no word of notices"),
        }
    }
}

/// Reaches the coordinators that a client knows, each in turn.
pub(crate) fn dial(client: &Client) -> GrpcDial {
    let client = client.clone();
    GrpcDial::new(move |attempt| {
        if attempt > 0 {
            client.leave(&client.address(), None);
        }
        client.channel().map(|(_, channel)| channel).map_err(|error| LinkError::new(error.to_string()))
    })
}

/// Reads `a100:2,h100:1`.
pub(crate) fn read_fake_gpus(text: &str) -> Result<FakeGpus, CliError> {
    text.parse::<FakeGpus>().map_err(|error| CliError::usage(error.to_string()))
}

/// What a machine offers, in one line.
pub(crate) fn inventory_line(inventory: &Inventory) -> String {
    let mut parts = vec![
        format!("{} cpu", format_cpu_millis(inventory.cpu_millis)),
        display_bytes(inventory.memory_bytes),
    ];
    let mut models: Vec<(String, usize)> = Vec::new();
    for gpu in &inventory.gpus {
        let memory = gpu.memory_bytes.map(|bytes| format!(" {}", display_bytes(bytes))).unwrap_or_default();
        let kind = format!("{}{memory}", gpu.model);
        match models.iter_mut().find(|(model, _)| *model == kind) {
            Some((_, count)) => *count += 1,
            None => models.push((kind, 1)),
        }
    }
    parts.extend(models.iter().map(|(model, count)| format!("{count} x {model}")));
    parts.join(", ")
}

fn extra_resources(pairs: &[String]) -> Result<Resources, CliError> {
    let mut resources = Resources::default();
    for text in pairs {
        let (name, amount) = pair("--res", text)?;
        let units = quantity::parse_resource(name, amount)?;
        let parsed = name
            .parse::<ResourceName>()
            .map_err(|error| CliError::usage(format!("--res {text}: {error}")))?;
        resources.set(&parsed, Amount(units));
    }
    Ok(resources)
}

fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), CliError> {
    text.split_once('=').ok_or_else(|| CliError::usage(format!("{flag} {text:?} is not NAME=VALUE")))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
