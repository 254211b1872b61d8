//! Connections of a listener: how many there are, who is at the other end, and when each ends.
//!
//! Every connection is served by a server of its own, so that each can be asked to end by itself: after a rest, or at its
//! age. To be asked to end means that no further calls are taken on it (GOAWAY); those that are open go on, and the client
//! makes another connection for the next. What is not played by the rules, or not read, is cut off.

mod frames;
mod grpc;
mod guarded;
mod manners;
mod pages;
mod sources;
mod unread;

use std::any::Any;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::limits::{FIRST_BYTES, ListenerLimits};
use crate::telemetry::{Connections, Refused};
use crate::tls::{self, HANDSHAKE_TIMEOUT};
pub(super) use grpc::Grpc;
pub(crate) use guarded::Guarded;
pub(crate) use manners::Language;
pub(super) use pages::Pages;
use sources::Sources;
use unread::Unread;

/// After the listener stopped, for a connection without calls to end.
const GOODBYE: Duration = Duration::from_millis(300);
/// Pause after a failed accept, such as one without file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// Parts of the longest rest after which a connection is looked at again.
const LOOKS: u32 = 4;

/// Who is at the other end of a connection with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// As the ledger calls them.
    pub(super) actor: Arc<str>,
    /// The certificate is a coordinator's.
    pub(super) is_coordinator: bool,
}

/// One connection, as its calls and its end share it.
#[derive(Debug)]
pub(crate) struct Connection {
    holder: Option<Holder>,
    /// Part of a call passed since this was last asked.
    was_used: AtomicBool,
    /// A coordinator is at the other end: its connection is left alone.
    of_coordinator: AtomicBool,
    /// Calls that have no answer yet.
    calls: AtomicUsize,
    /// Answers that are on their way.
    unread: Unread,
}

/// A call that has no answer yet.
struct OpenCall(Arc<Connection>);

/// In the extensions of every request: its connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo(Arc<Connection>);

impl Connection {
    fn new(holder: Option<Holder>) -> Connection {
        let of_coordinator = holder.as_ref().is_some_and(|holder| holder.is_coordinator);
        Connection {
            holder,
            was_used: AtomicBool::new(false),
            of_coordinator: AtomicBool::new(of_coordinator),
            calls: AtomicUsize::new(0),
            unread: Unread::default(),
        }
    }

    /// A call has come. It has no answer until this is dropped.
    fn called(self: &Arc<Connection>) -> OpenCall {
        self.calls.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(self))
    }

    fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Relaxed) == 0 && self.unread.is_empty()
    }

    fn used(&self) {
        self.was_used.store(true, Ordering::Relaxed);
    }

    fn is_coordinators(&self) -> bool {
        self.of_coordinator.load(Ordering::Relaxed)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionInfo {
    /// Who showed a certificate on it.
    pub(super) fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_ref()
    }

    /// A coordinator called on it.
    pub(super) fn note_coordinator(&self) {
        if !self.0.is_coordinators() {
            self.0.of_coordinator.store(true, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn of(holder: Holder) -> ConnectionInfo {
        ConnectionInfo(Arc::new(Connection::new(Some(holder))))
    }
}

/// What is spoken on the connections of a listener.
pub(crate) trait Talk: Clone + Send + 'static {
    /// The rules that are kept there.
    const LANGUAGE: Language;

    /// Serves one connection to its end; once `end` is done it takes no new calls.
    fn talk<IO>(
        self,
        io: Guarded<IO>,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// All that the connections of one listener share.
#[derive(Clone)]
pub(crate) struct Listener<T> {
    /// Serves each.
    pub(crate) talk: T,
    /// Callers must show certificates; `None` on loopback listeners only.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Their limits.
    pub(crate) limits: Arc<ListenerLimits>,
    /// Counts them, where somebody wants to know.
    pub(crate) counts: Option<Connections>,
    /// Makes the ages of connections differ.
    pub(crate) seed: u64,
}

impl<T: Talk> Listener<T> {
    /// Serves connections until `shutdown` is done or there are no more, then lets open calls end.
    pub(crate) async fn serve<I, IO, IE>(self, incoming: I, shutdown: impl Future<Output = ()>)
    where
        I: Stream<Item = Result<IO, IE>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        IE: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let sources = Sources::new(self.limits.connections_per_source);
        let (stop, stopping) = watch::channel(false);
        let mut open = JoinSet::new();
        {
            let mut incoming = pin!(incoming);
            let mut shutdown = pin!(shutdown);
            let mut number = 0u64;
            let mut place = None;
            loop {
                if place.is_none() {
                    // Past the bound, new connections wait in the system's queue.
                    place = tokio::select! {
                        biased;
                        () = &mut shutdown => break,
                        place = Arc::clone(&places).acquire_owned() => place.ok(),
                    };
                }
                let next = tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    _ = open.join_next(), if !open.is_empty() => continue,
                    next = incoming.next() => next,
                };
                let io = match next {
                    None => break,
                    Some(Ok(io)) => io,
                    Some(Err(error)) => {
                        tracing::debug!(error = %error.into(), "a connection could not be accepted");
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                // Without TLS nobody ever shows who they are, and only this machine can call: all of it is one source.
                let source = if self.tls.is_some() { source_of(&io) } else { None };
                let Some(counted) = sources.take(source) else {
                    self.refused(Refused::Source);
                    tracing::debug!(
                        ?source,
                        "too many connections of one source before they showed who they are"
                    );
                    continue;
                };
                let place = place.take().expect("it was waited for above");
                number += 1;
                open.spawn(self.clone().one(io, number, place, counted, stopping.clone()));
            }
            // The listening socket is closed here, before open calls are waited for.
        }
        stop.send_replace(true);
        while open.join_next().await.is_some() {}
    }

    fn refused(&self, why: Refused) {
        if let Some(counts) = &self.counts {
            counts.refused(why);
        }
    }

    async fn one<IO>(
        self,
        io: IO,
        number: u64,
        place: OwnedSemaphorePermit,
        counted: Option<sources::SourcePlace>,
        stopping: watch::Receiver<bool>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = self.counts.as_ref().map(Connections::open);
        let age = age_of(self.limits.connection_age_ms, self.seed, number);
        let Some(tls) = self.tls.clone() else {
            self.talk(io, None, age, stopping).await;
            return;
        };
        let mut stopped = stopping.clone();
        let shaken = tokio::select! {
            biased;
            shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls).accept(io)) => shaken,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match shaken {
            Ok(Ok(io)) => {
                // From here on it is known who this is.
                drop(counted);
                let holder = io.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|shown| Holder {
                    actor: tls::actor(shown).into(),
                    is_coordinator: tls::is_coordinator(shown),
                });
                self.talk(io, holder, age, stopping).await;
            }
            Ok(Err(error)) => {
                self.refused(Refused::Handshake);
                tracing::debug!(%error, "a TLS handshake failed");
            }
            Err(_) => {
                self.refused(Refused::Handshake);
                tracing::debug!("a TLS handshake took too long");
            }
        }
        drop(place);
    }

    /// Serves one connection to its end.
    async fn talk<IO>(
        self,
        io: IO,
        holder: Option<Holder>,
        age: Option<Duration>,
        mut stopping: watch::Receiver<bool>,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(Connection::new(holder));
        let (open, closed) = oneshot::channel();
        let io = Guarded::new(io, Arc::clone(&connection), T::LANGUAGE, &self.limits, open);
        let rest = Duration::from_millis(self.limits.connection_idle_ms);
        let asked = Arc::clone(&connection);
        let stopped = stopping.clone();
        let end = async move {
            tokio::select! {
                biased;
                // An error means that the sender is gone: then it is over, too.
                _ = closed => {}
                _ = stopping.wait_for(|stop| *stop) => {}
                () = unused(&asked, rest) => {}
                () = old(&asked, age) => {}
            }
        };
        let talk = self.talk.talk(io, end);
        tokio::select! {
            () = talk => {}
            () = connection.unread.cut_off_when_overdue() => {}
            () = cut_off_when_stopped(&connection, stopped) => {}
        }
    }
}

/// Never done: once the listener stops, who is at the other end has a moment to say goodbye. To be asked to end is to be asked for
/// an answer, and one that is frozen, or that never spoke HTTP/2, gives none: it must not hold up the stop.
async fn cut_off_when_stopped(connection: &Connection, mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
    loop {
        sleep(GOODBYE).await;
        if connection.is_idle() {
            connection.unread.cut_off();
        }
    }
}

/// Done when no part of a call has passed for `rest`, or none at the beginning for as long as is waited for the first bytes.
async fn unused(connection: &Connection, rest: Duration) {
    if rest.is_zero() {
        std::future::pending::<()>().await;
    }
    let mut quiet = LOOKS;
    sleep(FIRST_BYTES.min(rest)).await;
    loop {
        if connection.was_used.swap(false, Ordering::Relaxed) {
            quiet = 0;
        } else if quiet >= LOOKS && !connection.is_coordinators() {
            return;
        }
        sleep(rest / LOOKS).await;
        quiet = quiet.saturating_add(1);
    }
}

/// Done when a client's connection has its age. Coordinators keep theirs: the messages of the group would only be held up.
async fn old(connection: &Connection, age: Option<Duration>) {
    let Some(age) = age else { return std::future::pending().await };
    sleep(age).await;
    if connection.is_coordinators() {
        std::future::pending::<()>().await;
    }
}

/// Within a tenth of the limit, another for each connection, so that clients that came together do not leave together.
fn age_of(age_ms: u64, seed: u64, number: u64) -> Option<Duration> {
    if age_ms == 0 {
        return None;
    }
    let mut mixed = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let permille = 900 + (mixed ^ (mixed >> 31)) % 201;
    Some(Duration::from_millis(age_ms.saturating_mul(permille) / 1_000))
}

/// Where a connection comes from, where it is one by TCP.
fn source_of<IO: Connected>(io: &IO) -> Option<IpAddr> {
    let info = io.connect_info();
    let tcp = (&info as &dyn Any).downcast_ref::<TcpConnectInfo>()?;
    tcp.remote_addr().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let ages: Vec<_> = (0..1_000).filter_map(|number| age_of(1_800_000, 7, number)).collect();
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert!(ages.iter().all(|age| (minutes(27)..=minutes(33)).contains(age)));
        let spread = ages.iter().max().zip(ages.iter().min()).map(|(most, least)| *most - *least);
        assert!(spread > Some(minutes(5)), "{spread:?}");
        assert_eq!(age_of(0, 7, 1), None, "no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_after_a_rest_unless_a_coordinator_has_it() {
        let rest = Duration::from_secs(300);
        let connection = Connection::new(None);
        let began = tokio::time::Instant::now();
        unused(&connection, rest).await;
        assert_eq!(began.elapsed(), FIRST_BYTES, "no call was ever made");

        let began = tokio::time::Instant::now();
        let calls = async {
            for _ in 0..10 {
                connection.used();
                sleep(Duration::from_secs(60)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = calls => unreachable!("it never ends"),
            () = unused(&connection, rest) => {}
        }
        let rested = began.elapsed() - Duration::from_secs(540);
        assert!(rested >= rest && rested < rest * 3 / 2, "{rested:?}");

        connection.of_coordinator.store(true, Ordering::Relaxed);
        let hours = Duration::from_secs(36_000);
        assert!(tokio::time::timeout(hours, unused(&connection, rest)).await.is_err());
        assert!(tokio::time::timeout(hours, old(&connection, Some(rest))).await.is_err());
    }
}
