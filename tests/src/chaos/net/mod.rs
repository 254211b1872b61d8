//! A network between members that can be broken: a policy for each ordered pair, and something that carries bytes by it. That is one TCP
//! proxy in front of each member, or a switch for IP packets between network namespaces ([`tun`]).
//!
//! With proxies, members dial the advertised address of a peer, which is a proxy. The proxy asks the kernel whose connection it is, so that it knows the
//! pair; clients and agents that come this way are let through. Bytes of a cut link are kept and not lost, as TCP would send them again.

mod owner;
mod pump;
pub mod tun;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::setup::Carrier;
use crate::{Layout, ports};
pub use tun::Packets;

/// What happens to bytes on the way from one member to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Nothing arrives; new connections hang.
    pub cut: bool,
    /// Least time under way, in milliseconds.
    pub delay_ms: u64,
    /// Up to so much more, in milliseconds.
    pub jitter_ms: u64,
    /// Most bytes per second; 0 for no bound.
    pub bytes_per_s: u64,
    /// So many of a thousand packets are lost. This and what follows: by the switch alone.
    pub lose_permille: u32,
    /// So many of a thousand packets arrive twice.
    pub double_permille: u32,
    /// So many of a thousand packets are held until others have overtaken them.
    pub overtake_permille: u32,
}

impl Policy {
    /// Nothing passes.
    pub const CUT: Policy = Policy {
        cut: true,
        delay_ms: 0,
        jitter_ms: 0,
        bytes_per_s: 0,
        lose_permille: 0,
        double_permille: 0,
        overtake_permille: 0,
    };
}

/// The network. Cheap to clone. It carries bytes until the last clone is dropped, on a thread of its own: tests block theirs.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
    /// Between namespaces; `None` with proxies.
    switch: Option<Arc<tun::Switch>>,
    runtime: tokio::runtime::Handle,
    _alive: mpsc::Sender<()>,
}

#[derive(Default)]
pub(crate) struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<(u64, u64), Policy>,
    /// Connections of a pair (lower id first) made before its number was raised are closed.
    resets: BTreeMap<(u64, u64), u64>,
}

/// One connection: who made it, to whom, and the number of resets that its pair had had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) from: Option<u64>,
    pub(crate) to: u64,
    pub(crate) resets: u64,
}

impl Network {
    /// A network without members.
    ///
    /// # Errors
    /// Where its thread or the switch cannot be made.
    pub fn new(carrier: Carrier) -> Result<Network, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        let (alive, mut dropped) = mpsc::channel(1);
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
            runtime.block_on(dropped.recv());
        });
        thread.map_err(|error| error.to_string())?;
        let inner = Arc::default();
        let switch = match carrier {
            Carrier::Proxies => None,
            Carrier::Tun => Some(Arc::new(tun::Switch::new(Arc::clone(&inner), handle.clone())?)),
        };
        Ok(Network { inner, switch, runtime: handle, _alive: alive })
    }

    /// Makes a place for a member that is yet to be started, and writes into the layout where it listens and how it is reached.
    ///
    /// # Errors
    /// Where there is none.
    pub fn attach(&self, member: u64, layout: &mut Layout) -> Result<(), String> {
        if let Some(switch) = &self.switch {
            let (address, enter) = switch.attach(member)?;
            layout.listen.insert(member, address);
            layout.prefix.insert(member, enter);
        } else {
            let port = ports::free();
            layout.listen.insert(member, format!("127.0.0.1:{port}"));
            let proxy = self.proxy(member, port).map_err(|error| error.to_string())?;
            layout.advertised.insert(member, proxy);
        }
        Ok(())
    }

    /// What a switch did to packets so far; nothing with proxies.
    pub fn packets(&self) -> Packets {
        self.switch.as_ref().map(|switch| switch.packets()).unwrap_or_default()
    }

    /// Puts a proxy in front of a member that listens on `port`; its address. It serves as long as the network.
    fn proxy(&self, member: u64, port: u16) -> io::Result<String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let inner = Arc::clone(&self.inner);
        let _entered = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        self.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(Arc::clone(&inner), member, port, stream));
            }
        });
        Ok(address)
    }

    /// Sets what happens from one member to another, in this direction only.
    pub fn set(&self, from: u64, to: u64, policy: Policy) {
        self.inner.lock().links.insert((from, to), policy);
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// Sets both directions between a member and each of others.
    pub fn set_around(&self, member: u64, others: &[u64], policy: Policy) {
        for other in others.iter().filter(|other| **other != member) {
            self.set(member, *other, policy);
            self.set(*other, member, policy);
        }
    }

    /// Closes every connection between two members.
    pub fn reset(&self, one: u64, other: u64) {
        *self.inner.lock().resets.entry(ordered(one, other)).or_default() += 1;
        self.inner.changed.send_modify(|count| *count += 1);
    }

    /// All links are as new. What was kept arrives.
    pub fn heal(&self) {
        self.inner.lock().links.clear();
        self.inner.changed.send_modify(|count| *count += 1);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// What happens to bytes from `from` to `to` now.
    pub(crate) fn policy(&self, from: Option<u64>, to: Option<u64>) -> Policy {
        let (Some(from), Some(to)) = (from, to) else { return Policy::default() };
        self.lock().links.get(&(from, to)).copied().unwrap_or_default()
    }

    /// True where a connection was reset.
    pub(crate) fn is_reset(&self, pair: Pair) -> bool {
        self.resets(pair.from, pair.to) != pair.resets
    }

    fn resets(&self, from: Option<u64>, to: u64) -> u64 {
        from.and_then(|from| self.lock().resets.get(&ordered(from, to)).copied()).unwrap_or(0)
    }

    /// Tells of each change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn ordered(one: u64, other: u64) -> (u64, u64) {
    (one.min(other), one.max(other))
}

async fn connection(inner: Arc<Inner>, to: u64, port: u16, stream: TcpStream) {
    let ends = stream.peer_addr().and_then(|peer| Ok((peer.port(), stream.local_addr()?.port())));
    let Ok((theirs, ours)) = ends else { return };
    let asked = tokio::task::spawn_blocking(move || owner::of(theirs, ours)).await;
    let from = asked.unwrap_or_default();
    let pair = Pair { from, to, resets: inner.resets(from, to) };
    // A connection needs both directions before it is made.
    let mut changes = inner.changes();
    while inner.policy(from, Some(to)).cut || inner.policy(Some(to), from).cut {
        if inner.is_reset(pair) || changes.changed().await.is_err() {
            return;
        }
    }
    let dial = tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(("127.0.0.1", port))).await;
    let Ok(Ok(upstream)) = dial else { return };
    pump::both(inner, pair, stream, upstream).await;
}
