//! `plimsoll coordinator`: one coordinator as a process.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use plimsoll_coordinator::config::{CoordinatorConfig, TlsFiles};
use plimsoll_coordinator::{Addresses, Coordinator as Serving, ServeError};
use serde_json::json;

use super::agent::chain;
use super::process::Signals;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Out;

/// Runs a coordinator. SIGTERM hands leadership on, answers what is open and ends with 0; a storage fault ends with 74.
#[derive(Args, Debug)]
pub(crate) struct Coordinator {
    /// Configuration file (TOML); flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Id of this coordinator: unique in the cluster, for ever
    #[arg(long, value_name = "ID")]
    node_id: Option<u64>,
    /// Name of the cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where clients and agents connect
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where other coordinators connect [default: as --listen]
    #[arg(long, value_name = "ADDR")]
    peer_listen: Option<SocketAddr>,
    /// Where metrics and health are served by HTTP [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    http_listen: Option<SocketAddr>,
    /// Address by which other coordinators reach this one, HOST:PORT [default: as bound]
    #[arg(long, value_name = "ADDR")]
    advertise: Option<String>,
    /// Where data is kept
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    data_dir: Option<PathBuf>,
    /// Keep data in memory: it is gone with the process
    #[arg(long)]
    ephemeral: bool,
    /// Begin a new cluster with this coordinator as its only voter, unless its data holds one already
    #[arg(long)]
    bootstrap: bool,
}

impl Coordinator {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let mut signals = Signals::listen()?;
        let config = self.into_config(globals)?;
        stop_on_panic();
        let serving = Serving::serve(config.clone()).await.map_err(not_started)?;
        announce(&out, &config, serving.addresses())?;
        tokio::select! {
            number = signals.next_end() => {
                tracing::info!(signal = %number, "stopping");
                serving.shutdown().await;
                Ok(Exit::Done)
            }
            () = serving.core().ended() => {
                let error = CliError::new(Exit::Storage, "STORAGE", "the coordinator's storage failed, so it stopped");
                Err(error.help("look at the log and the disk before it is started again"))
            }
        }
    }

    fn into_config(self, globals: &Globals) -> Result<CoordinatorConfig, CliError> {
        let mut config = match &self.config {
            Some(path) => {
                CoordinatorConfig::from_file(path).map_err(|error| CliError::usage(error.to_string()))?
            }
            None => CoordinatorConfig::default(),
        };
        config.node_id = self.node_id.unwrap_or(config.node_id);
        config.cluster = self.cluster.unwrap_or(config.cluster);
        config.listen = self.listen.unwrap_or(config.listen);
        config.peer_listen = self.peer_listen.or(config.peer_listen);
        config.http_listen = self.http_listen.or(config.http_listen);
        config.advertise = self.advertise.or(config.advertise);
        config.data_dir = if self.ephemeral { None } else { self.data_dir.or(config.data_dir) };
        config.bootstrap |= self.bootstrap;
        if config.data_dir.is_none() && !self.ephemeral {
            return Err(CliError::usage("where shall data be kept?")
                .help("--data-dir DIR, or --ephemeral for memory alone"));
        }
        config.tls = match (&globals.ca, &globals.cert, &globals.key) {
            (None, None, None) => config.tls,
            (Some(ca), Some(cert), Some(key)) => {
                Some(TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            _ => return Err(CliError::usage("--ca, --cert and --key belong together")),
        };
        Ok(config)
    }
}

/// Says where a coordinator listens: a document on stdout with `-o json`, a line on stderr otherwise.
fn announce(out: &Out, config: &CoordinatorConfig, addresses: Addresses) -> Result<(), CliError> {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    if out.is_human() {
        let http = addresses.http.map(|http| format!(", http://{http}/")).unwrap_or_default();
        out.say(&format!(
            "coordinator {} of cluster {} listens on {} (others: {}){http}",
            config.node_id,
            config.cluster,
            text(addresses.client),
            text(addresses.peer),
        ));
        return Ok(());
    }
    out.document(&json!({
        "nodeId": config.node_id.to_string(),
        "cluster": config.cluster,
        "address": text(addresses.client),
        "peerAddress": text(addresses.peer),
        "httpAddress": text(addresses.http),
    }))
}

/// Why a coordinator did not start, with the way out.
pub(crate) fn not_started(error: ServeError) -> CliError {
    match &error {
        ServeError::Config(config) => CliError::usage(config.to_string()),
        ServeError::Bind { .. } => CliError::local("the coordinator did not start", chain(&error))
            .help("is another one running? port 0 takes a free one"),
        ServeError::Start(_) => {
            CliError::local("the coordinator did not start", chain(&error)).with_exit(Exit::Storage)
        }
    }
}

/// A replica whose state machine panicked must not go on answering.
pub(crate) fn stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::exit(Exit::Fault.code().into());
    }));
}
