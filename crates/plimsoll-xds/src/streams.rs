//! Who is connected: open streams, counted by source address, and what each stands at.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Request;

use crate::limits::{Bound, Limits};

/// Where a stream comes from, as an extension of its request. A server whose connections are not plain TCP ones sets it; otherwise the address is taken from
/// the connection. Streams of unknown origin count only towards the bound on all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    pub(crate) fn of<T>(request: &Request<T>) -> Option<IpAddr> {
        let set = request.extensions().get::<Peer>().map(|peer| peer.0);
        set.or_else(|| request.remote_addr().map(|address| address.ip()))
    }
}

/// Open streams and what is known of each. Clones share them.
pub(crate) struct Streams<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    opened: u64,
    refused: u64,
    open: BTreeMap<u64, T>,
    by_source: BTreeMap<IpAddr, usize>,
}

impl<T> Clone for Streams<T> {
    fn clone(&self) -> Streams<T> {
        Streams { inner: Arc::clone(&self.inner) }
    }
}

impl<T: Default> Streams<T> {
    pub(crate) fn new() -> Streams<T> {
        let inner = Inner { opened: 0, refused: 0, open: BTreeMap::new(), by_source: BTreeMap::new() };
        Streams { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Counts a stream in until the answer is dropped.
    pub(crate) fn open(&self, peer: Option<IpAddr>, limits: &Limits) -> Result<Open<T>, Bound> {
        let source = peer.map(source);
        let mut inner = self.inner.lock();
        let streams = inner.open.len();
        let of_source = source.and_then(|source| inner.by_source.get(&source).copied()).unwrap_or_default();
        let bound = if streams >= limits.streams {
            Bound::Streams { streams, bound: limits.streams }
        } else if of_source >= limits.streams_per_peer {
            Bound::PeerStreams { streams: of_source, bound: limits.streams_per_peer }
        } else {
            inner.opened += 1;
            let id = inner.opened;
            inner.open.insert(id, T::default());
            if let Some(source) = source {
                inner.by_source.insert(source, of_source + 1);
            }
            return Ok(Open { streams: self.clone(), id, source });
        };
        inner.refused += 1;
        Err(bound)
    }

    /// Streams opened so far, those refused, and what the open ones stand at.
    pub(crate) fn look<R>(&self, mut of: impl FnMut(&T) -> R) -> (u64, u64, Vec<R>) {
        let inner = self.inner.lock();
        (inner.opened, inner.refused, inner.open.values().map(&mut of).collect())
    }
}

/// One open stream.
pub(crate) struct Open<T: Default> {
    streams: Streams<T>,
    id: u64,
    source: Option<IpAddr>,
}

impl<T: Default> Open<T> {
    /// Changes what is known of it.
    pub(crate) fn note(&self, change: impl FnOnce(&mut T)) {
        if let Some(known) = self.streams.inner.lock().open.get_mut(&self.id) {
            change(known);
        }
    }
}

impl<T: Default> Drop for Open<T> {
    fn drop(&mut self) {
        let mut inner = self.streams.inner.lock();
        inner.open.remove(&self.id);
        if let Some(source) = self.source
            && let Some(count) = inner.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                inner.by_source.remove(&source);
            }
        }
    }
}

/// One who has an IPv6 address has all of its /64.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from(u128::from(six) >> 64 << 64)),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_source_are_counted_together_and_released() {
        let streams: Streams<()> = Streams::new();
        let limits = Limits { streams: 3, streams_per_peer: 2, ..Limits::default() };
        let open = |peer: &str| streams.open(Some(peer.parse().expect("an address")), &limits);
        let first = open("2001:db8::1").expect("room");
        let _second = open("2001:db8::2").expect("room");
        assert_eq!(open("2001:db8::3").err(), Some(Bound::PeerStreams { streams: 2, bound: 2 }));
        let _other = open("::ffff:192.0.2.1").expect("another source");
        assert_eq!(open("192.0.2.7").err(), Some(Bound::Streams { streams: 3, bound: 3 }));
        drop(first);
        let _again = open("2001:db8::3").expect("room again");
        let (opened, refused, open) = streams.look(|()| ());
        assert_eq!((opened, refused, open.len()), (4, 2, 3));
    }
}
