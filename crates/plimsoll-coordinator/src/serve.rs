//! A coordinator as a process runs it: a core, its services behind listeners, and an orderly end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use plimsoll_consensus::Dialer;
use plimsoll_provider::{Providers, RealProviders};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::{Connected, TcpIncoming};

use crate::bootstrap::{self, BootstrapError};
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, CoordinatorConfig};
use crate::core::{Core, StartError};
use crate::dialer::TcpDialer;
use crate::scaling::Scaler;
use crate::services::{ListenerLimits, Port, Services};
use crate::telemetry::{Telemetry, available_bytes};
use crate::tls::TlsMaterial;

/// Longest wait for open calls to end, once the core has stopped.
const DRAIN: Duration = Duration::from_secs(5);

/// A running coordinator.
pub struct Coordinator {
    core: Core,
    services: Services,
    telemetry: Telemetry,
    limits: ListenerLimits,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    /// What ends with it, and how to call that.
    tasks: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

/// Where a coordinator listens, as bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For clients and agents.
    pub client: Option<SocketAddr>,
    /// For other coordinators.
    pub peer: Option<SocketAddr>,
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// HAProxy's agent checks.
    pub agent_check: Option<SocketAddr>,
}

/// A coordinator that did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A listener could not be bound.
    #[error("cannot listen on {address} ({setting})")]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The core did not start.
    #[error("cannot start the coordinator")]
    Start(#[from] StartError),
    /// No new cluster was begun.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

impl Coordinator {
    /// Checks the configuration, binds the listeners, starts the core and serves.
    ///
    /// # Errors
    /// The first thing that is wrong; nothing runs then.
    pub async fn serve(config: CoordinatorConfig) -> Result<Coordinator, ServeError> {
        config.validate()?;
        let tls = config.tls.as_ref().map(TlsMaterial::load).transpose()?;
        let client = bind("listen", config.listen).await?;
        let peer = bind_if("peer_listen", config.peer_listen).await?;
        let http = bind_if("http_listen", config.http_listen).await?;
        let agent_check = bind_if("agent_check_listen", config.agent_check_listen).await?;
        let bound = address_of("listen", config.listen, peer.as_ref().unwrap_or(&client))?;
        let reachable = config.advertise.clone().unwrap_or_else(|| bound.to_string());
        let dialer: Arc<dyn Dialer> = Arc::new(TcpDialer::new(tls.as_ref().map(TlsMaterial::peer)));
        let clock = Arc::new(SystemClock::new());
        let seed = config.node_id ^ clock.now_ms().rotate_left(17);
        let mut core_config = config.core(reachable.clone(), seed);
        // With others to ask, that is done first.
        core_config.bootstrap &= config.peers.is_empty();
        let core = Core::start(core_config, Arc::clone(&dialer), clock).await?;
        if config.bootstrap && !config.peers.is_empty() {
            // The same list may be given to all of them.
            let is_other = |peer: &&String| **peer != reachable && **peer != bound.to_string();
            let others: Vec<String> = config.peers.iter().filter(is_other).cloned().collect();
            let asked = bootstrap::begin(&core, &dialer, &config.cluster, &others).await;
            if let Err(error) = asked {
                core.shutdown().await;
                return Err(error.into());
            }
        }

        let scope = config.scaling.scope.clone().unwrap_or_else(|| config.cluster.clone());
        let providers = Arc::new(RealProviders::new(config.scaling.providers.clone()));
        let limits = config.listeners.clone();
        let mut coordinator = Coordinator::with_limits(core, dialer, limits, config.simulation);
        coordinator.scale_with(providers, scope);
        let budget = config.memory_bytes.or_else(available_bytes).unwrap_or(0);
        coordinator.telemetry.memory().set_budget(budget);
        let port = |address: SocketAddr, peers| Port {
            tls: tls.as_ref().map(TlsMaterial::server),
            peers,
            reflection: config.reflection || address.ip().is_loopback(),
        };
        let address = address_of("listen", config.listen, &client)?;
        coordinator.addresses.client = Some(address);
        coordinator.listen_at(incoming(client), port(address, peer.is_none()));
        if let Some(peer) = peer {
            let address = address_of("peer_listen", config.listen, &peer)?;
            coordinator.addresses.peer = Some(address);
            coordinator.listen_at(incoming(peer), port(address, true));
        } else {
            coordinator.addresses.peer = coordinator.addresses.client;
        }
        if let Some(http) = http {
            coordinator.addresses.http = Some(address_of("http_listen", config.listen, &http)?);
            coordinator.listen_http(http, tls.as_ref().map(TlsMaterial::http));
        }
        if let Some(listener) = agent_check {
            let address = address_of("agent_check_listen", config.listen, &listener)?;
            coordinator.addresses.agent_check = Some(address);
            coordinator.answer_agent_checks(listener);
        }
        Ok(coordinator)
    }

    /// A coordinator around a started core, without listeners yet: for callers that bring their own network.
    pub fn around(core: Core, dialer: Arc<dyn Dialer>, simulation: bool) -> Coordinator {
        Coordinator::with_limits(core, dialer, ListenerLimits::default(), simulation)
    }

    /// The same with other limits for its listeners.
    pub fn with_limits(
        core: Core,
        dialer: Arc<dyn Dialer>,
        limits: ListenerLimits,
        simulation: bool,
    ) -> Coordinator {
        let telemetry = Telemetry::new(core.clone());
        let services =
            Services::new(core.clone(), Arc::clone(&dialer), telemetry.clone(), limits.clone(), simulation);
        let (stop, _) = watch::channel(false);
        let following = services.clone();
        let follow = tokio::spawn(async move { following.follow().await });
        let (comparing, compared) = (telemetry.agreement().clone(), core.clone());
        let compare = tokio::spawn(async move { comparing.follow(&compared, &dialer).await });
        Coordinator {
            core,
            services,
            telemetry,
            limits,
            addresses: Addresses::default(),
            stop,
            tasks: Mutex::new(vec![("numbers", follow), ("comparison", compare)]),
        }
    }

    /// Has machines started and stopped by these providers, where this coordinator leads. `scope` names the cluster to them.
    pub fn scale_with(&self, providers: Arc<dyn Providers>, scope: impl Into<String>) {
        let scaler = Scaler::new(self.core.clone(), providers, scope);
        let stopped = stopped(self.stop.subscribe());
        self.spawn("scaling", async move {
            tokio::select! {
                () = stopped => {}
                () = scaler.run() => {}
            }
        });
    }

    /// Serves the gRPC API on connections as they come; with `peers` also the calls of other coordinators. Without TLS,
    /// which is for loopback alone, callers can ask what the API is.
    pub fn listen<I, IO>(&self, incoming: I, tls: Option<Arc<rustls::ServerConfig>>, peers: bool)
    where
        I: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let reflection = tls.is_none();
        self.listen_at(incoming, Port { tls, peers, reflection });
    }

    /// Serves the gRPC API on connections as they come.
    pub fn listen_at<I, IO>(&self, incoming: I, port: Port)
    where
        I: Stream<Item = io::Result<IO>> + Send + 'static,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let services = self.services.clone();
        let stopped = stopped(self.stop.subscribe());
        self.spawn("gRPC listener", async move { services.serve(incoming, port, stopped).await });
    }

    /// Serves metrics, health and the status page by HTTP.
    pub fn listen_http(&self, listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>) {
        let (core, telemetry) = (self.core.clone(), self.telemetry.clone());
        let limits = self.limits.clone();
        let stopped = stopped(self.stop.subscribe());
        self.spawn("HTTP listener", async move {
            if let Err(error) = crate::http::serve(listener, tls, &limits, core, telemetry, stopped).await {
                tracing::error!(%error, "the HTTP listener failed");
            }
        });
    }

    /// Answers HAProxy's agent checks.
    pub fn answer_agent_checks(&self, listener: TcpListener) {
        let services = self.services.clone();
        let stopped = stopped(self.stop.subscribe());
        self.spawn("agent checks", async move {
            tokio::select! {
                () = stopped => {}
                () = services.answer_agent_checks(listener) => {}
            }
        });
    }

    /// The core.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Its numbers.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Hands over leadership, stops the core and then the listeners. Open calls get an answer; what takes longer than
    /// a few seconds is cut.
    pub async fn shutdown(&self) {
        self.core.shutdown().await;
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let deadline = tokio::time::Instant::now() + DRAIN;
        for (what, mut task) in tasks {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!(what, "something did not end in time, and is cut");
                task.abort();
            }
        }
    }

    fn spawn(&self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push((what, tokio::spawn(task)));
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the coordinator was dropped, which ends it too.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

async fn bind_if(
    setting: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<TcpListener>, ServeError> {
    match address {
        Some(address) => bind(setting, address).await.map(Some),
        None => Ok(None),
    }
}

async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { setting, address, source })
}

fn address_of(
    setting: &'static str,
    address: SocketAddr,
    listener: &TcpListener,
) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Bind { setting, address, source })
}

#[cfg(test)]
mod tests {
    use plimsoll_proto::v1;
    use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn a_coordinator_serves_until_it_is_shut_down() {
        let config = CoordinatorConfig {
            listen: loopback(),
            peer_listen: Some(loopback()),
            http_listen: Some(loopback()),
            bootstrap: true,
            ..CoordinatorConfig::default()
        };
        let coordinator = Coordinator::serve(config).await.expect("serves");
        let addresses = coordinator.addresses();
        let (client, http) = (addresses.client.expect("bound"), addresses.http.expect("bound"));
        assert_ne!(addresses.client, addresses.peer);
        let mut ready = String::new();
        for _ in 0..500 {
            ready = get(http, "/readyz").await;
            if ready.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        for address in [client, addresses.peer.expect("bound")] {
            let channel = TcpDialer::default().channel(&address.to_string());
            let status = ClusterServiceClient::new(channel).get_status(v1::GetStatusRequest::default()).await;
            assert!(status.is_ok(), "{status:?}");
        }
        coordinator.shutdown().await;
        assert!(tokio::net::TcpStream::connect(http).await.is_err(), "nothing listens any more");
        assert!(tokio::net::TcpStream::connect(client).await.is_err(), "nothing listens any more");
    }

    /// What HAProxy is told.
    async fn check(address: SocketAddr, question: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        stream.write_all(format!("{question}\n").as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer.trim_end().to_owned()
    }

    /// What is answered in the end: checks read what was published, a moment after the entry is acknowledged.
    async fn settled(checks: SocketAddr, asked: &str, wanted: &str) -> String {
        for _ in 0..200 {
            if check(checks, asked).await == wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        check(checks, asked).await
    }

    #[tokio::test]
    async fn haproxy_is_told_what_the_ledger_says_of_an_endpoint() {
        use plimsoll_ledger::{
            Announcement, Command, Entry, Outcome, PolicyObject, Registration, Request, Requirements,
            Service, Verdict,
        };
        let config = CoordinatorConfig {
            listen: loopback(),
            agent_check_listen: Some(loopback()),
            bootstrap: true,
            ..CoordinatorConfig::default()
        };
        let coordinator = Coordinator::serve(config).await.expect("serves");
        let checks = coordinator.addresses().agent_check.expect("bound");
        let core = coordinator.core();
        let done = async |command: Command| {
            for _ in 0..500 {
                match core.submit(Entry::system(command.clone())).await {
                    Ok(answer) => return answer.outcome,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            panic!("nobody leads")
        };
        let named = |name: &str| name.to_owned();
        let web = Service {
            name: named("web"),
            pool: named("default"),
            class: named("standard"),
            ..Service::default()
        };
        let put = vec![PolicyObject::Service(web)];
        let (delete, if_revision) = (Vec::new(), plimsoll_types::Revision(0));
        assert_eq!(done(Command::ApplyPolicy { put, delete, if_revision }).await, Outcome::Done);
        let none = "down #no such endpoint";
        assert_eq!(settled(checks, "web/10.0.0.1:80", none).await, none);
        assert_eq!(check(checks, "nosuch/10.0.0.1:80").await, "down #no such service");
        let capacity = plimsoll_types::Resources::new(1_000, 1 << 30);
        let node = Registration { name: named("n"), incarnation: 1, capacity, ..Registration::default() };
        done(Command::RegisterNode(node)).await;
        let amounts = plimsoll_types::Resources::new(100, 0);
        let request = Request {
            pool: named("default"),
            class: named("standard"),
            service: named("web"),
            requirements: Requirements { amounts, ..Requirements::default() },
            auto_confirm: true,
            ..Request::default()
        };
        let verdict = Verdict::Blocked(Vec::new());
        let Outcome::Reservation(replica) = done(Command::Submit { request, verdict }).await else {
            panic!("it fits")
        };
        let announce = |weight_milli, draining| Command::SetEndpoint {
            reservation: replica.id,
            token: replica.token,
            announced: Some(Announcement {
                address: named("10.0.0.1:80"),
                weight_milli,
                draining,
                ..Announcement::default()
            }),
        };
        for (command, wanted) in [
            (announce(1_000, false), "ready up 100%"),
            (announce(250, false), "ready up 25%"),
            (announce(250, true), "drain up"),
            (Command::Cancel { reservation: replica.id }, "down #no such endpoint"),
        ] {
            // Those who follow endpoints are woken by what is of endpoints, and by nothing else.
            let mut changes = core.endpoint_changes();
            done(Command::Expire { limit: 1 }).await;
            assert!(!changes.has_changed().expect("it goes on"));
            done(command).await;
            tokio::time::timeout(Duration::from_secs(5), changes.changed())
                .await
                .expect("soon")
                .expect("told");
            assert_eq!(settled(checks, "web/10.0.0.1:80", wanted).await, wanted);
        }
        coordinator.shutdown().await;
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_refused_before_anything_runs() {
        let open =
            CoordinatorConfig { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..CoordinatorConfig::default() };
        let error = Coordinator::serve(open).await.err().expect("no TLS");
        assert!(matches!(&error, ServeError::Config(error) if error.place == "listen"), "{error}");
        let taken = TcpListener::bind(loopback()).await.expect("a port");
        let listen = taken.local_addr().expect("bound");
        let error =
            Coordinator::serve(CoordinatorConfig { listen, ..CoordinatorConfig::default() }).await.err();
        assert!(matches!(error, Some(ServeError::Bind { setting: "listen", .. })));
    }
}
