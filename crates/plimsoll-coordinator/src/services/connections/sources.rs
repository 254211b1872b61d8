//! How many connections each source address has that have not shown yet who they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts connections by source.
#[derive(Debug)]
pub(crate) struct Sources {
    most: usize,
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One connection that is counted, until this is dropped.
#[derive(Debug)]
pub(crate) struct SourcePlace {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// At most so many for one source; 0 for no limit.
    pub(crate) fn new(most: usize) -> Arc<Sources> {
        Arc::new(Sources { most, open: Mutex::default() })
    }

    /// Counts one more connection of a source; `None` where it has too many. The inner `None`: nobody counts.
    pub(crate) fn take(self: &Arc<Self>, from: Option<IpAddr>) -> Option<Option<SourcePlace>> {
        let Some(from) = from.filter(|_| self.most > 0) else { return Some(None) };
        let source = network(from);
        let mut open = self.open.lock();
        let count = open.entry(source).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Some(SourcePlace { sources: Arc::clone(self), source }))
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        let mut open = self.sources.open.lock();
        if let Some(count) = open.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// Who holds one IPv6 address holds its 2^64 neighbours too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_places_and_gives_them_back() {
        let sources = Sources::new(2);
        let at = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let one = sources.take(at("192.0.2.1")).expect("the first");
        let _two = sources.take(at("::ffff:192.0.2.1")).expect("the second");
        assert!(sources.take(at("192.0.2.1")).is_none(), "two are open");
        assert!(sources.take(at("192.0.2.2")).is_some(), "another one");
        drop(one);
        assert!(sources.take(at("192.0.2.1")).is_some());
        let _six = sources.take(at("2001:db8::1")).expect("the first");
        let _seven = sources.take(at("2001:db8::2")).expect("the second");
        assert!(sources.take(at("2001:db8::3")).is_none(), "neighbours are one source");
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let sources = Sources::new(1);
        drop(sources.take("192.0.2.1".parse().ok()));
        assert!(sources.open.lock().is_empty());
    }
}
