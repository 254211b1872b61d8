//! What a coordinator process is told: defaults, then a TOML file, then flags. Every problem is one clear error that
//! names the place, and nothing is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use plimsoll_provider::ProviderSettings;
use serde::Deserialize;

use crate::core::{CallLimits, CoreConfig, Data, IntakeLimits, Timings};
use crate::services::ListenerLimits;

/// Port of the client API where none is given.
pub const DEFAULT_PORT: u16 = 7420;

/// All that a coordinator process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// Id of this coordinator: unique in the cluster, for ever; not 0.
    pub node_id: u64,
    /// Name of the cluster; coordinators of another one are refused.
    pub cluster: String,
    /// Where clients and agents connect.
    pub listen: SocketAddr,
    /// Where other coordinators connect; the client API is served there too. `None`: at `listen`.
    pub peer_listen: Option<SocketAddr>,
    /// Where metrics and health are served by HTTP; `None`: nowhere.
    pub http_listen: Option<SocketAddr>,
    /// Where HAProxy's agent checks are answered, on loopback alone: they have no TLS. `None`: nowhere.
    pub agent_check_listen: Option<SocketAddr>,
    /// Address by which other coordinators reach this one (`host:port`). `None`: as bound.
    pub advertise: Option<String>,
    /// Where data is kept; `None`: in memory, gone with the process.
    pub data_dir: Option<PathBuf>,
    /// Begin a new cluster with this coordinator as its only voter, unless its data holds one already.
    pub bootstrap: bool,
    /// Client or peer addresses of the other coordinators (`host:port`). With `bootstrap`, all of them are asked first
    /// whether there is a cluster already.
    pub peers: Vec<String>,
    /// Listeners that other machines can reach tell callers what the API is, too; loopback ones always do.
    pub reflection: bool,
    /// Certificates; `None`: no TLS, which only loopback listeners may do.
    pub tls: Option<TlsFiles>,
    /// Answers carry a fixed `date` header, so that a simulation is reproducible.
    pub simulation: bool,
    /// Durations.
    pub timings: Timings,
    /// Bounds of the intake.
    pub intake: IntakeLimits,
    /// How many calls one caller may make.
    pub calls: CallLimits,
    /// Limits of the gRPC listeners.
    pub listeners: ListenerLimits,
    /// Memory that this process may use, in bytes: near to it new requests are turned away. `None`: what the machine or
    /// the control group has; 0: no bound.
    pub memory_bytes: Option<u64>,
    /// Most revisions kept in history.
    pub history_revisions: u64,
    /// Raft entries between snapshots.
    pub snapshot_every: u64,
    /// How often all data on the disk are read again, in milliseconds; 0 for never.
    pub scrub_every_ms: u64,
    /// Raft entries kept after a snapshot.
    pub keep_logs: u64,
    /// By what this coordinator starts and stops machines where it leads.
    pub scaling: ScalingSettings,
    /// Seed of all that is random; `None`: taken from the node id and the clock at start.
    pub seed: Option<u64>,
}

/// By what a coordinator starts and stops machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalingSettings {
    /// What it may do. By default nothing: a policy alone starts no program.
    pub providers: ProviderSettings,
    /// Names the cluster among those that use the same providers. `None`: the cluster's name.
    pub scope: Option<String>,
}

/// PEM files for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Authorities that both sides trust.
    pub ca: PathBuf,
    /// This coordinator's certificate chain.
    pub cert: PathBuf,
    /// Its private key; readable by its owner only.
    pub key: PathBuf,
}

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    /// File and line, or the name of the setting.
    pub place: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl ConfigError {
    /// A problem at a place.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> ConfigError {
        ConfigError { place: place.into(), message: message.into() }
    }
}

/// A TOML file: every key is optional, unknown keys are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    node_id: Option<u64>,
    cluster: Option<String>,
    listen: Option<SocketAddr>,
    peer_listen: Option<SocketAddr>,
    http_listen: Option<SocketAddr>,
    agent_check_listen: Option<SocketAddr>,
    advertise: Option<String>,
    data_dir: Option<PathBuf>,
    bootstrap: Option<bool>,
    peers: Option<Vec<String>>,
    reflection: Option<bool>,
    tls: Option<TlsFiles>,
    #[serde(default)]
    timings: FileTimings,
    #[serde(default)]
    limits: FileLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTimings {
    heartbeat_ms: Option<u64>,
    election_min_ms: Option<u64>,
    election_max_ms: Option<u64>,
    suspect_after_ms: Option<u64>,
    node_check_ms: Option<u64>,
    read_timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    waiting_commands: Option<usize>,
    waiting_bytes: Option<usize>,
    entry_commands: Option<usize>,
    entries_in_flight: Option<usize>,
    calls_per_second: Option<u64>,
    calls_burst: Option<u64>,
    connections: Option<usize>,
    connections_per_source: Option<usize>,
    connection_idle_ms: Option<u64>,
    connection_age_ms: Option<u64>,
    memory_bytes: Option<u64>,
    history_revisions: Option<u64>,
    snapshot_every: Option<u64>,
    scrub_every_ms: Option<u64>,
    keep_logs: Option<u64>,
}

impl Default for CoordinatorConfig {
    fn default() -> CoordinatorConfig {
        let core = CoreConfig::new(1, "", "", Data::Memory);
        CoordinatorConfig {
            node_id: 1,
            cluster: "plimsoll".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)),
            peer_listen: None,
            http_listen: None,
            agent_check_listen: None,
            advertise: None,
            data_dir: None,
            bootstrap: false,
            peers: Vec::new(),
            reflection: false,
            tls: None,
            simulation: false,
            timings: core.timings,
            intake: core.intake,
            calls: core.calls,
            listeners: ListenerLimits::default(),
            memory_bytes: None,
            history_revisions: core.history_revisions,
            snapshot_every: core.snapshot_every,
            scrub_every_ms: core.scrub_every_ms,
            keep_logs: core.keep_logs,
            scaling: ScalingSettings::default(),
            seed: None,
        }
    }
}

impl CoordinatorConfig {
    /// The defaults with a TOML file over them.
    ///
    /// # Errors
    /// Where the file cannot be read, is not TOML, has an unknown key or a value of another type.
    pub fn from_file(path: &Path) -> Result<CoordinatorConfig, ConfigError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::new(&place, format!("cannot read it: {error}")))?;
        CoordinatorConfig::from_toml(&place, &text)
    }

    /// The defaults with TOML text over them; `place` names the text in errors.
    ///
    /// # Errors
    /// As for [`CoordinatorConfig::from_file`].
    pub fn from_toml(place: &str, text: &str) -> Result<CoordinatorConfig, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let place = before.map_or_else(
                || place.to_owned(),
                |before| {
                    let line = 1 + before.matches('\n').count();
                    let column = 1 + before.chars().rev().take_while(|c| *c != '\n').count();
                    format!("{place}:{line}:{column}")
                },
            );
            ConfigError::new(place, error.message().trim().replace('\n', " "))
        })?;
        let mut config = CoordinatorConfig::default();
        file.over(&mut config);
        Ok(config)
    }

    /// Checks what no single value shows.
    ///
    /// # Errors
    /// The first problem, with the setting that it is about.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |place: &str, message: String| Err(ConfigError::new(place, message));
        if self.node_id == 0 {
            return wrong("node_id", "must not be 0".to_owned());
        }
        if let Err(error) = plimsoll_types::check_name(&self.cluster) {
            return wrong("cluster", error.to_string());
        }
        let listeners = [
            ("listen", Some(self.listen)),
            ("peer_listen", self.peer_listen),
            ("http_listen", self.http_listen),
        ];
        for (name, address) in listeners {
            if let Some(address) = address.filter(|address| self.tls.is_none() && !address.ip().is_loopback())
            {
                let message = format!(
                    "{address} is reachable from other machines, so TLS is needed: set tls.ca, tls.cert and tls.key"
                );
                return wrong(name, message);
            }
        }
        if let Some(address) = self.agent_check_listen.filter(|address| !address.ip().is_loopback()) {
            let message = format!(
                "{address} is reachable from other machines, and agent checks have no TLS: take an address of loopback, where HAProxy or a tunnel runs"
            );
            return wrong("agent_check_listen", message);
        }
        if self.advertise.as_deref().is_some_and(|address| !is_host_and_port(address)) {
            return wrong("advertise", "must be HOST:PORT".to_owned());
        }
        if let Some(peer) = self.peers.iter().find(|peer| !is_host_and_port(peer)) {
            return wrong("peers", format!("{peer:?} must be HOST:PORT"));
        }
        let timings = &self.timings;
        let (shortest, longest) = timings.election_ms;
        if timings.heartbeat_ms == 0 || shortest < timings.heartbeat_ms.saturating_mul(3) {
            let message = format!(
                "must be at least three times timings.heartbeat_ms ({} ms), is {shortest} ms",
                timings.heartbeat_ms
            );
            return wrong("timings.election_min_ms", message);
        }
        if longest <= shortest {
            return wrong("timings.election_max_ms", format!("must be above {shortest} ms, is {longest} ms"));
        }
        for (name, value) in [
            ("timings.suspect_after_ms", timings.suspect_after_ms),
            ("timings.node_check_ms", timings.node_check_ms),
            ("timings.read_timeout_ms", timings.read_timeout_ms),
            ("limits.waiting_commands", self.intake.max_waiting as u64),
            ("limits.waiting_bytes", self.intake.max_waiting_bytes as u64),
            ("limits.entry_commands", self.intake.max_entry_commands as u64),
            ("limits.entries_in_flight", self.intake.max_in_flight as u64),
            ("limits.connections", self.listeners.connections as u64),
            ("limits.history_revisions", self.history_revisions),
            ("limits.snapshot_every", self.snapshot_every),
        ] {
            if value == 0 {
                return wrong(name, "must not be 0".to_owned());
            }
        }
        Ok(())
    }

    /// What the core needs of it; `peer_address` is where other coordinators reach this one.
    pub fn core(&self, peer_address: impl Into<String>, seed: u64) -> CoreConfig {
        let data = self.data_dir.clone().map_or(Data::Memory, Data::Directory);
        CoreConfig {
            bootstrap: self.bootstrap,
            timings: self.timings.clone(),
            intake: self.intake.clone(),
            calls: self.calls,
            history_revisions: self.history_revisions,
            snapshot_every: self.snapshot_every,
            scrub_every_ms: self.scrub_every_ms,
            keep_logs: self.keep_logs,
            seed: self.seed.unwrap_or(seed),
            ..CoreConfig::new(self.node_id, self.cluster.as_str(), peer_address, data)
        }
    }
}

impl File {
    fn over(self, config: &mut CoordinatorConfig) {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        set(&mut config.node_id, self.node_id);
        set(&mut config.cluster, self.cluster);
        set(&mut config.listen, self.listen);
        set(&mut config.bootstrap, self.bootstrap);
        set(&mut config.peers, self.peers);
        set(&mut config.reflection, self.reflection);
        config.peer_listen = self.peer_listen.or(config.peer_listen);
        config.http_listen = self.http_listen.or(config.http_listen);
        config.agent_check_listen = self.agent_check_listen.or(config.agent_check_listen);
        config.advertise = self.advertise.or_else(|| config.advertise.take());
        config.data_dir = self.data_dir.or_else(|| config.data_dir.take());
        config.tls = self.tls.or_else(|| config.tls.take());
        set(&mut config.timings.heartbeat_ms, self.timings.heartbeat_ms);
        set(&mut config.timings.election_ms.0, self.timings.election_min_ms);
        set(&mut config.timings.election_ms.1, self.timings.election_max_ms);
        set(&mut config.timings.suspect_after_ms, self.timings.suspect_after_ms);
        set(&mut config.timings.node_check_ms, self.timings.node_check_ms);
        set(&mut config.timings.read_timeout_ms, self.timings.read_timeout_ms);
        set(&mut config.intake.max_waiting, self.limits.waiting_commands);
        set(&mut config.intake.max_waiting_bytes, self.limits.waiting_bytes);
        set(&mut config.intake.max_entry_commands, self.limits.entry_commands);
        set(&mut config.intake.max_in_flight, self.limits.entries_in_flight);
        set(&mut config.calls.per_second, self.limits.calls_per_second);
        set(&mut config.calls.burst, self.limits.calls_burst);
        let listeners = &mut config.listeners;
        set(&mut listeners.connections, self.limits.connections);
        set(&mut listeners.connections_per_source, self.limits.connections_per_source);
        set(&mut listeners.connection_idle_ms, self.limits.connection_idle_ms);
        set(&mut listeners.connection_age_ms, self.limits.connection_age_ms);
        config.memory_bytes = self.limits.memory_bytes.or(config.memory_bytes);
        set(&mut config.history_revisions, self.limits.history_revisions);
        set(&mut config.snapshot_every, self.limits.snapshot_every);
        set(&mut config.scrub_every_ms, self.limits.scrub_every_ms);
        set(&mut config.keep_logs, self.limits.keep_logs);
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !host.contains(['/', ' '])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_over_the_defaults() {
        let text = r#"
            node_id = 3
            cluster = "lab"
            listen = "127.0.0.1:9000"
            data_dir = "/var/lib/plimsoll"
            [timings]
            suspect_after_ms = 5000
            [limits]
            entry_commands = 64
            calls_per_second = 5
            connections_per_source = 7
            memory_bytes = 1073741824
        "#;
        let config = CoordinatorConfig::from_toml("a.toml", text).expect("good");
        assert_eq!((config.node_id, config.cluster.as_str()), (3, "lab"));
        assert_eq!(config.timings.suspect_after_ms, 5_000);
        assert_eq!(config.timings.heartbeat_ms, Timings::default().heartbeat_ms);
        assert_eq!(config.intake.max_entry_commands, 64);
        assert_eq!(config.calls, CallLimits { per_second: 5, ..CallLimits::default() });
        assert_eq!((config.listeners.connections_per_source, config.memory_bytes), (7, Some(1 << 30)));
        assert_eq!(config.listeners.connections, ListenerLimits::default().connections);
        config.validate().expect("valid");
        let core = config.core("127.0.0.1:9000", 7);
        assert_eq!((core.node_id, core.seed), (3, 7));
    }

    #[test]
    fn unknown_keys_and_wrong_types_name_file_line_and_column() {
        let error =
            CoordinatorConfig::from_toml("a.toml", "node_id = 1\nnoed_id = 2\n").expect_err("unknown key");
        assert_eq!(error.place, "a.toml:2:1");
        assert!(error.message.contains("noed_id"), "{error}");
        let error =
            CoordinatorConfig::from_toml("a.toml", "\n\nnode_id = \"one\"\n").expect_err("not a number");
        assert_eq!(error.place, "a.toml:3:11");
        let error = CoordinatorConfig::from_toml("a.toml", "[timings]\nheartbeat = 1\n")
            .expect_err("unknown inner key");
        assert!(error.message.contains("heartbeat"), "{error}");
    }

    #[test]
    fn open_listeners_need_tls() {
        let listen = "0.0.0.0:7420".parse().expect("an address");
        let open = CoordinatorConfig { listen, ..CoordinatorConfig::default() };
        let error = open.validate().expect_err("no TLS");
        assert_eq!(error.place, "listen");
        assert!(error.message.contains("TLS"), "{error}");
        let tls = TlsFiles { ca: "ca".into(), cert: "cert".into(), key: "key".into() };
        CoordinatorConfig { tls: Some(tls), ..open }.validate().expect("with TLS");
        let http = CoordinatorConfig { http_listen: Some(listen), ..CoordinatorConfig::default() };
        assert_eq!(http.validate().expect_err("no TLS").place, "http_listen");
        let checks = CoordinatorConfig { agent_check_listen: Some(listen), ..CoordinatorConfig::default() };
        assert_eq!(checks.validate().expect_err("never has TLS").place, "agent_check_listen");
    }

    #[test]
    fn timings_that_cannot_work_are_refused() {
        let with = |change: fn(&mut CoordinatorConfig)| {
            let mut config = CoordinatorConfig::default();
            change(&mut config);
            config.validate().expect_err("refused").place
        };
        assert_eq!(with(|c| c.timings.election_ms = (200, 400)), "timings.election_min_ms");
        assert_eq!(with(|c| c.timings.election_ms = (600, 600)), "timings.election_max_ms");
        assert_eq!(with(|c| c.timings.suspect_after_ms = 0), "timings.suspect_after_ms");
        assert_eq!(with(|c| c.node_id = 0), "node_id");
        assert_eq!(with(|c| c.cluster = "No Name".to_owned()), "cluster");
        assert_eq!(with(|c| c.advertise = Some("host".to_owned())), "advertise");
        assert_eq!(with(|c| c.peers = vec!["c2".to_owned()]), "peers");
        assert_eq!(with(|c| c.listeners.connections = 0), "limits.connections");
        assert_eq!(with(|c| c.intake.max_in_flight = 0), "limits.entries_in_flight");
    }
}
