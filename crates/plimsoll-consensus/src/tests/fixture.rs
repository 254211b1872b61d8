//! A state machine that piles up payloads, and members on loopback ports.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use plimsoll_store::rocks::{RocksEngine, RocksWal};
use plimsoll_store::{Engine, Wal, WriteBatch};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::{Dialer, Group, GroupConfig, Machine, MachineError, NodeInfo, Payload, Reply, SnapshotDir};

/// Keeps every payload, in order.
#[derive(Default)]
pub(crate) struct Pile {
    pub(crate) items: Mutex<Vec<Bytes>>,
    /// How many of them were handed out as rows.
    taken: Mutex<usize>,
}

impl Machine for Pile {
    fn apply(&self, payload: &Payload) -> Reply {
        self.items.lock().push(payload.bytes.clone());
        Reply::new()
    }

    fn applied(&self, _last_raft_index: u64) {}

    fn take_rows(&self, rows: &mut WriteBatch) {
        let items = self.items.lock();
        let from = std::mem::replace(&mut *self.taken.lock(), items.len());
        for (index, item) in items.iter().enumerate().skip(from) {
            let key = [&[crate::ROW_PREFIX][..], &(index as u64).to_be_bytes()].concat();
            rows.put(key, item.clone());
        }
    }

    fn restore(
        &self,
        rows: &mut dyn Iterator<Item = Result<(Bytes, Bytes), plimsoll_store::Error>>,
    ) -> Result<(), MachineError> {
        let rows: Result<Vec<_>, _> = rows.map(|row| row.map(|(_, value)| value)).collect();
        let items = rows.map_err(|error| MachineError(error.to_string()))?;
        *self.taken.lock() = items.len();
        *self.items.lock() = items;
        Ok(())
    }
}

pub(crate) struct Loopback;

impl Dialer for Loopback {
    fn channel(&self, address: &str) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a loopback address");
        endpoint.connect_timeout(Duration::from_secs(5)).connect_lazy()
    }
}

/// One running member.
pub(crate) struct Member {
    pub(crate) group: Group,
    pub(crate) pile: Arc<Pile>,
    pub(crate) address: SocketAddr,
    life: char,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Member {
    pub(crate) async fn start(
        id: u64,
        dir: &Path,
        address: Option<SocketAddr>,
        snapshot_every: u64,
    ) -> Member {
        Member::start_as("test", 'a', id, dir, address, snapshot_every).await
    }

    /// A member of another cluster, or in another life.
    pub(crate) async fn start_as(
        cluster: &str,
        life: char,
        id: u64,
        dir: &Path,
        address: Option<SocketAddr>,
        snapshot_every: u64,
    ) -> Member {
        let config = GroupConfig {
            node_id: id,
            cluster_id: cluster.into(),
            snapshot_every,
            keep_logs: 10,
            ..GroupConfig::default()
        };
        Member::configured(config, life, dir, address).await
    }

    /// With address, incarnation, timings and seed of its own.
    pub(crate) async fn configured(
        config: GroupConfig,
        life: char,
        dir: &Path,
        address: Option<SocketAddr>,
    ) -> Member {
        let wal = Arc::new(RocksWal::open(dir.join("log")).expect("the log opens"));
        let engine = Arc::new(RocksEngine::open(dir.join("state")).expect("the engine opens"));
        Member::on(config, life, wal, engine, SnapshotDir::Path(dir.join("snapshots")), address).await
    }

    /// On stores of its own.
    pub(crate) async fn on(
        config: GroupConfig,
        life: char,
        wal: Arc<dyn Wal>,
        engine: Arc<dyn Engine>,
        snapshots: SnapshotDir,
        address: Option<SocketAddr>,
    ) -> Member {
        let listener =
            TcpListener::bind(address.unwrap_or_else(|| ([127, 0, 0, 1], 0).into())).await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let id = config.node_id;
        let config = GroupConfig {
            address: address.to_string(),
            incarnation: format!("{id}-{life}"),
            heartbeat_ms: 50,
            election_ms: (300, 600),
            seed: id,
            ..config
        };
        let pile = Arc::new(Pile::default());
        let machine = Arc::clone(&pile) as Arc<dyn Machine>;
        let group = Group::start(config, wal, engine, snapshots, machine, Arc::new(Loopback))
            .await
            .expect("it starts");
        let stop = CancellationToken::new();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serve = tonic::transport::Server::builder()
            .add_service(group.rpc())
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { drop(serve.await) });
        Member { group, pile, address, life, stop, server }
    }

    pub(crate) fn info(&self) -> NodeInfo {
        NodeInfo {
            address: self.address.to_string(),
            incarnation: format!("{}-{}", self.group.node_id(), self.life),
        }
    }

    /// Stops it for good; its directory can be opened again afterwards.
    pub(crate) async fn stop(self) {
        self.group.shutdown().await;
        self.stop.cancel();
        self.server.abort();
        drop(self.server.await);
    }

    pub(crate) async fn propose(&self, item: u64) -> bool {
        let payload = Payload { bytes: Bytes::copy_from_slice(&item.to_be_bytes()), decoded: None };
        self.group.propose(payload).await.inspect_err(|error| println!("proposal {item}: {error:?}")).is_ok()
    }

    pub(crate) fn items(&self) -> Vec<u64> {
        let items = self.pile.items.lock();
        items.iter().map(|item| u64::from_be_bytes(item[..].try_into().expect("eight bytes"))).collect()
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never happened: {what}");
}

/// Three voters.
pub(crate) async fn three(root: &Path, snapshot_every: u64) -> Vec<Member> {
    let mut members = Vec::new();
    for id in 1..=3 {
        members.push(Member::start(id, &root.join(id.to_string()), None, snapshot_every).await);
    }
    members[0].group.initialize().await.expect("a new group");
    until("a leader", || members[0].group.is_leader()).await;
    for member in &members[1..] {
        members[0].group.add_voter(member.group.node_id(), member.info()).await.expect("a new voter");
    }
    members
}
