//! `plimsoll coordinator`: one coordinator as a process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use plimsoll_coordinator::config::{CoordinatorConfig, TlsFiles};
use plimsoll_coordinator::core::StartError;
use plimsoll_coordinator::{Addresses, Coordinator as Serving, ServeError};
use plimsoll_provider::ProviderSettings;
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
    /// Where HAProxy's agent checks are answered, on loopback alone [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    agent_check_listen: Option<SocketAddr>,
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
    /// The other coordinators: with --bootstrap, all are asked first whether there is a cluster already
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    peers: Vec<String>,
    /// By what it starts and stops machines where a scaling policy says so: process, exec=DIR, webhook, externalgrpc (repeatable) [default: nothing]
    #[arg(long = "scaling-provider", value_name = "KIND")]
    scaling_providers: Vec<String>,
    /// Names the cluster among those that use the same providers [default: its name]
    #[arg(long, value_name = "NAME")]
    scaling_scope: Option<String>,
    /// Tell callers from other machines, too, what the API is (gRPC reflection)
    #[arg(long)]
    reflection: bool,
}

impl Coordinator {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        let mut signals = Signals::listen()?;
        let config = self.into_config(globals)?;
        stop_on_panic();
        small_pages();
        let serving = Serving::serve(config.clone()).await.map_err(not_started)?;
        announce(&out, &config, serving.addresses())?;
        tokio::select! {
            number = signals.next_end() => {
                tracing::info!(signal = %number, "stopping");
                serving.shutdown().await;
                Ok(Exit::Done)
            }
            () = serving.core().ended() => {
                if let Some(why) = serving.core().fault() {
                    return Err(CliError::new(Exit::Fault, "DIVERGED", why));
                }
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
        config.agent_check_listen = self.agent_check_listen.or(config.agent_check_listen);
        config.advertise = self.advertise.or(config.advertise);
        config.data_dir = if self.ephemeral { None } else { self.data_dir.or(config.data_dir) };
        config.bootstrap |= self.bootstrap;
        config.reflection |= self.reflection;
        if !self.peers.is_empty() {
            config.peers = self.peers;
        }
        for kind in &self.scaling_providers {
            allow(&mut config.scaling.providers, kind)?;
        }
        config.scaling.scope = self.scaling_scope.or(config.scaling.scope);
        if config.data_dir.is_none() && !self.ephemeral {
            return Err(CliError::usage("where shall data be kept?")
                .help("--data-dir DIR, or --ephemeral for memory alone"));
        }
        config.tls = tls_files(globals, &|name| std::env::var_os(name), config.tls.take())?;
        Ok(config)
    }
}

/// Lets a coordinator start and stop machines by a kind of provider.
pub(crate) fn allow(settings: &mut ProviderSettings, kind: &str) -> Result<(), CliError> {
    match kind.split_once('=') {
        Some(("exec", folder)) if !folder.is_empty() => settings.exec_dir = Some(PathBuf::from(folder)),
        None if kind == "process" => {
            let program = std::env::current_exe();
            settings.process =
                Some(program.map_err(|error| CliError::local("this program cannot be found", error))?);
        }
        None if kind == "webhook" => settings.webhook = true,
        None if kind == "externalgrpc" => settings.external_grpc = true,
        _ => {
            return Err(CliError::usage(format!("--scaling-provider {kind:?} is not known"))
                .help("there are: process, exec=DIR, webhook, externalgrpc"));
        }
    }
    Ok(())
}

/// Each file from its flag, its variable, or the configuration file, in this order. A context has certificates of a user,
/// which are none of a coordinator's.
fn tls_files(
    globals: &Globals,
    variable: &dyn Fn(&str) -> Option<OsString>,
    configured: Option<TlsFiles>,
) -> Result<Option<TlsFiles>, CliError> {
    let given = |flag: &Option<PathBuf>, name: &str| {
        let from_variable = || variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        flag.clone().or_else(from_variable)
    };
    let ca = given(&globals.ca, "PLIMSOLL_CA");
    let cert = given(&globals.cert, "PLIMSOLL_CERT");
    let key = given(&globals.key, "PLIMSOLL_KEY");
    if cert.is_some() != key.is_some() {
        return Err(CliError::usage("--cert and --key belong together")
            .help("PLIMSOLL_CERT and PLIMSOLL_KEY are their variables"));
    }
    let (ca_configured, pair_configured) =
        configured.map_or((None, None), |files| (Some(files.ca), Some((files.cert, files.key))));
    match (ca.or(ca_configured), cert.zip(key).or(pair_configured)) {
        (None, None) => Ok(None),
        (Some(ca), Some((cert, key))) => Ok(Some(TlsFiles { ca, cert, key })),
        (None, Some(_)) => Err(CliError::usage("--cert and --key need --ca, the cluster's authority")
            .help("or PLIMSOLL_CA, or tls.ca in the file of --config")),
        (Some(_), None) => Err(CliError::usage("--ca needs --cert and --key, a coordinator's certificate")
            .help("or PLIMSOLL_CERT and PLIMSOLL_KEY, or tls.cert and tls.key in the file of --config")),
    }
}

/// Without transparent huge pages: the ledger grows by small pieces all over the heap, and zeroing two megabytes for each cost
/// a tenth of the time of a grant. A restart in a virtual machine whose free memory went back to its host pays for them most:
/// 2.5 s of the kernel's time for a gigabyte, against 0.6 s in small pages. Children inherit it.
fn small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay as the system has them");
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
        "agentCheckAddress": text(addresses.agent_check),
    }))
}

/// Why a coordinator did not start, with the way out.
pub(crate) fn not_started(error: ServeError) -> CliError {
    match &error {
        ServeError::Config(config) => CliError::usage(config.to_string()),
        ServeError::Bind { .. } => CliError::local("the coordinator did not start", chain(&error))
            .help("is another one running? port 0 takes a free one"),
        ServeError::Bootstrap(_) => {
            CliError::new(Exit::Conflict, "ALREADY_EXISTS", "the coordinator did not start")
                .help(chain(&error))
        }
        // Nothing is wrong with the data: another program must read them.
        ServeError::Start(StartError::TooOld { .. }) => {
            CliError::local("the coordinator did not start", chain(&error)).with_exit(Exit::Fault)
        }
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        globals: Globals,
    }

    fn files(
        flags: &[&str],
        variables: &[(&str, &str)],
        file: Option<TlsFiles>,
    ) -> Result<Vec<PathBuf>, String> {
        let globals = Flags::parse_from([&["plimsoll"], flags].concat()).globals;
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let files = tls_files(&globals, &variable, file).map_err(|error| error.status().to_string())?;
        Ok(files.map_or(Vec::new(), |files| vec![files.ca, files.cert, files.key]))
    }

    fn paths(names: [&str; 3]) -> Vec<PathBuf> {
        names.map(PathBuf::from).to_vec()
    }

    #[test]
    fn each_certificate_comes_from_its_flag_its_variable_or_the_file() {
        let flags = ["--cert", "f.crt", "--key", "f.key"];
        let file = TlsFiles { ca: "c.pem".into(), cert: "c.crt".into(), key: "c.key".into() };
        let ca = [("PLIMSOLL_CA", "v.pem")];
        assert_eq!(files(&flags, &ca, None), Ok(paths(["v.pem", "f.crt", "f.key"])));
        assert_eq!(files(&flags, &[], Some(file.clone())), Ok(paths(["c.pem", "f.crt", "f.key"])));
        assert_eq!(files(&[], &ca, Some(file)), Ok(paths(["v.pem", "c.crt", "c.key"])));
        assert_eq!(files(&[], &[], None), Ok(Vec::new()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let pair = [("PLIMSOLL_CERT", "v.crt"), ("PLIMSOLL_KEY", "v.key")];
        let said = files(&[], &pair, None).expect_err("no authority");
        assert!(said.contains("--ca"), "{said}");
        let said = files(&[], &[("PLIMSOLL_CA", "v.pem")], None).expect_err("no certificate");
        assert!(said.contains("--cert"), "{said}");
        let said = files(&[], &pair[..1], None).expect_err("no key");
        assert!(said.contains("belong together"), "{said}");
    }
}
