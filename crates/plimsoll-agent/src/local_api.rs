//! What the agent tells workloads on its own machine: is this token good, until when, and for which devices.
//!
//! HTTP with JSON, on a Unix socket or a loopback port. `GET /v1/check?token=N[&device=UUID]` answers 200 for a lease
//! that is alive, 409 for a token that is too old or a lease that is over, and 404 for one that this node never saw.
//! `GET /v1/leases` lists. `POST /v1/attach {"token":N,"pid":P}` ties a process to a lease, so that it dies with it, and so does
//! the cgroup that was made for it, with all that is in it; only the Unix socket takes it, since only there the kernel says who is asking.
//! `POST /v1/load {"token":N,"load":{"in_flight":3,...}}` says how loaded an endpoint is ([`WorkloadLoad`]); 200 where it counts.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::cgroup::{self, WorkloadCgroup};
use crate::clock::{BootTime, SharedClock};
use crate::fence::{Processes, may_attach};
use crate::lease::{Lease, LiveLease, SharedLeases, TokenRefused};
use crate::load::WorkloadLoad;

/// The leases of a node, as its local API shows them.
#[derive(Clone)]
pub struct LocalApi {
    /// Name of the node.
    pub node: String,
    /// Its leases.
    pub leases: SharedLeases,
    /// The clock that their deadlines are on.
    pub clock: SharedClock,
    /// Where attached processes go.
    pub processes: Processes,
}

/// Answer to a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckAnswer {
    /// True where the token may be obeyed now.
    pub valid: bool,
    /// The token asked about.
    pub token: u64,
    /// What the lease grants here, where it is alive.
    pub lease: Option<Lease>,
    /// Milliseconds until the lease is over, where it has an end.
    pub remaining_ms: Option<u64>,
    /// Deadline on the boot clock of this machine, in milliseconds, where it has one.
    pub deadline_boot_ms: Option<u64>,
    /// Why the token is refused.
    pub reason: Option<String>,
}

#[derive(Deserialize)]
struct CheckQuery {
    token: u64,
    device: Option<String>,
}

#[derive(Serialize)]
struct LeaseList {
    node: String,
    leases: Vec<CheckAnswer>,
}

#[derive(Deserialize)]
struct AttachBody {
    token: u64,
    pid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    token: u64,
    load: WorkloadLoad,
}

/// Who is at the other end of a connection, where the kernel says so.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Peer {
        Peer { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, TcpListener>) -> Peer {
        Peer { uid: None }
    }
}

impl LocalApi {
    /// Serves on a Unix socket until `shutdown`. A socket file that a dead agent left behind is replaced; that of a
    /// living one is an error.
    pub async fn serve_unix(self, path: PathBuf, shutdown: CancellationToken) -> io::Result<()> {
        let listener = bind_unix(&path).await?;
        let service = self.router().into_make_service_with_connect_info::<Peer>();
        let served = axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        // Gone already is what we want.
        drop(std::fs::remove_file(&path));
        served
    }

    /// Serves on a port until `shutdown`. Only loopback: nothing here is authenticated.
    pub async fn serve_tcp(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let address: SocketAddr = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let message = format!("the local API listens on loopback only, not on {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let service = self.router().into_make_service_with_connect_info::<Peer>();
        axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }

    /// Checks a token, and that its lease has `device` where one is named.
    pub fn check(&self, token: u64, device: Option<&str>) -> (StatusCode, CheckAnswer) {
        let now = self.clock.now();
        let leases = self.leases.lock();
        let checked = match device {
            Some(device) => leases.check_device(device, token, now),
            None => leases.check(token, now),
        };
        match checked {
            Ok(live) => (StatusCode::OK, answer(live, now)),
            Err(refused) => {
                let status = status_of(&refused);
                let reason = Some(refused.to_string());
                let (lease, remaining_ms, deadline_boot_ms) = (None, None, None);
                (status, CheckAnswer { valid: false, token, lease, remaining_ms, deadline_boot_ms, reason })
            }
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/v1/check", get(check))
            .route("/v1/leases", get(list))
            .route("/v1/attach", post(attach))
            .route("/v1/load", post(load))
            .with_state(self)
    }
}

async fn check(
    State(api): State<LocalApi>,
    Query(query): Query<CheckQuery>,
) -> (StatusCode, Json<CheckAnswer>) {
    let (status, answer) = api.check(query.token, query.device.as_deref());
    (status, Json(answer))
}

async fn list(State(api): State<LocalApi>) -> Json<LeaseList> {
    let now = api.clock.now();
    let leases =
        api.leases.lock().iter().filter(|live| !live.is_over(now)).map(|live| answer(live, now)).collect();
    Json(LeaseList { node: api.node, leases })
}

async fn attach(
    State(api): State<LocalApi>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(body): Json<AttachBody>,
) -> (StatusCode, String) {
    let Some(uid) = peer.uid else {
        return (StatusCode::FORBIDDEN, "processes are attached over the Unix socket only".to_owned());
    };
    if !may_attach(Path::new("/proc"), uid, body.pid) {
        return (StatusCode::FORBIDDEN, format!("process {} belongs to another user", body.pid));
    }
    let (status, checked) = api.check(body.token, None);
    if !checked.valid {
        return (status, checked.reason.unwrap_or_default());
    }
    match api.processes.attach(body.token, body.pid) {
        Ok(()) => {
            let reservation = checked.lease.map(|lease| lease.reservation).unwrap_or_default();
            let (processes, cgroups) = (Path::new("/proc"), Path::new(cgroup::ROOT));
            if let Some(group) = WorkloadCgroup::of_process(processes, cgroups, body.pid, &reservation) {
                api.processes.attach_cgroup(body.token, group);
            }
            (StatusCode::OK, String::new())
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()),
    }
}

async fn load(State(api): State<LocalApi>, Json(body): Json<LoadBody>) -> (StatusCode, String) {
    match api.leases.lock().set_load(body.token, body.load, api.clock.now()) {
        Ok(()) => (StatusCode::OK, String::new()),
        Err(refused) => (status_of(&refused), refused.to_string()),
    }
}

fn status_of(refused: &TokenRefused) -> StatusCode {
    match refused {
        TokenRefused::Unknown { .. } => StatusCode::NOT_FOUND,
        TokenRefused::Stale(_) | TokenRefused::Expired { .. } => StatusCode::CONFLICT,
    }
}

fn answer(live: &LiveLease, now: BootTime) -> CheckAnswer {
    CheckAnswer {
        valid: true,
        token: live.lease.token,
        lease: Some(live.lease.clone()),
        remaining_ms: live.deadline.map(|deadline| deadline.ms_since(now)),
        deadline_boot_ms: live.deadline.map(|deadline| deadline.0),
        reason: None,
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            let message = format!("another agent is listening on {}", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Workloads of any user may ask; what changes something looks at who is asking.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::lease::{GrantedDevice, LeaseTable};
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

    fn api(clock: &ManualClock) -> LocalApi {
        let device = GrantedDevice {
            uuid: "GPU-1".into(),
            index: 0,
            milli: 1000,
            memory_bytes: 1,
            model: "t4".into(),
            mig: None,
        };
        let lease = Lease {
            reservation: "r-7k2m".into(),
            token: 7,
            cpu_millis: 1,
            memory_bytes: 1,
            devices: vec![device],
        };
        let mut table = LeaseTable::default();
        table.grant(lease, 7, Some(BootTime(1000))).unwrap();
        LocalApi {
            node: "n".into(),
            leases: Arc::new(Mutex::new(table)),
            clock: Arc::new(clock.clone()),
            processes: Processes::default(),
        }
    }

    async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str, body: &str) -> String {
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn workloads_check_tokens_and_attach_processes_over_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        std::fs::write(&path, "left behind").unwrap();
        let clock = ManualClock::at_ms(400);
        let api = api(&clock);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(api.clone().serve_unix(path.clone(), shutdown.clone()));
        let connect = async || loop {
            match tokio::net::UnixStream::connect(&path).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            }
        };
        let good = ask(connect().await, "GET /v1/check?token=7", "").await;
        assert!(good.starts_with("HTTP/1.1 200"), "{good}");
        assert!(good.contains("r-7k2m") && good.contains("\"remaining_ms\":600"), "{good}");
        let stale = ask(connect().await, "GET /v1/check?token=6&device=GPU-1", "").await;
        assert!(stale.starts_with("HTTP/1.1 409") && stale.contains("stale"), "{stale}");
        let unknown = ask(connect().await, "GET /v1/check?token=9", "").await;
        assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
        let malformed = ask(connect().await, "GET /v1/check?token=x", "").await;
        assert!(malformed.starts_with("HTTP/1.1 400"), "{malformed}");

        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let body = format!("{{\"token\":7,\"pid\":{}}}", child.id());
        let attached = ask(connect().await, "POST /v1/attach", &body).await;
        assert!(attached.starts_with("HTTP/1.1 200"), "{attached}");
        assert_eq!(api.processes.of(7), [child.id()]);

        clock.advance_ms(600);
        let over = ask(connect().await, "GET /v1/check?token=7", "").await;
        assert!(over.starts_with("HTTP/1.1 409") && over.contains("without renewal"), "{over}");
        let late = ask(connect().await, "POST /v1/attach", &body).await;
        assert!(late.starts_with("HTTP/1.1 409"), "{late}");
        let list = ask(connect().await, "GET /v1/leases", "").await;
        assert!(list.contains("\"leases\":[]"), "{list}");

        let second = bind_unix(&path).await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        child.kill().unwrap();
        child.wait().unwrap();
        shutdown.cancel();
        serving.await.unwrap().unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_port_answers_checks_and_attaches_nothing() {
        let api = api(&ManualClock::at_ms(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(api.clone().serve_tcp(listener, shutdown.clone()));
        let connect = async || tokio::net::TcpStream::connect(address).await.unwrap();
        let good = ask(connect().await, "GET /v1/check?token=7&device=GPU-1", "").await;
        assert!(good.starts_with("HTTP/1.1 200"), "{good}");
        let taken = ask(connect().await, "POST /v1/load", "{\"token\":7,\"load\":{\"in_flight\":3}}").await;
        assert!(taken.starts_with("HTTP/1.1 200"), "{taken}");
        let unknown = ask(connect().await, "POST /v1/load", "{\"token\":8,\"load\":{\"in_flight\":4}}").await;
        assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
        let misspelt = ask(connect().await, "POST /v1/load", "{\"token\":7,\"load\":{\"inflight\":5}}").await;
        assert!(misspelt.starts_with("HTTP/1.1 422") && misspelt.contains("inflight"), "{misspelt}");
        let said = api.leases.lock().take_loads();
        assert_eq!(said.iter().map(|said| (said.token, said.load.in_flight)).collect::<Vec<_>>(), [(7, 3)]);
        let refused = ask(connect().await, "POST /v1/attach", "{\"token\":7,\"pid\":2}").await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();

        let open = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let error = api.serve_tcp(open, CancellationToken::new()).await.unwrap_err();
        assert!(error.to_string().contains("loopback only"), "{error}");
    }
}
