//! Which coordinator is asked: the leader where it is known, otherwise each in turn.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tonic::transport::Channel;

use crate::Error;
use crate::dial::Dialer;

/// Channels by address, and whose turn it is.
pub(crate) struct Routes {
    endpoints: Vec<String>,
    state: Mutex<State>,
}

struct State {
    current: String,
    /// Position in `endpoints` that is tried after `current` fails.
    next: usize,
    channels: BTreeMap<String, Channel>,
}

impl Routes {
    /// Routes over these addresses, of which there is at least one, beginning at `first`.
    pub(crate) fn new(endpoints: Vec<String>, first: usize) -> Routes {
        let current = endpoints[first % endpoints.len()].clone();
        let state = State { current, next: first + 1, channels: BTreeMap::new() };
        Routes { endpoints, state: Mutex::new(state) }
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The address in use.
    pub(crate) fn current(&self) -> String {
        self.lock().current.clone()
    }

    /// The address in use with its channel.
    pub(crate) fn pick(&self, dialer: &dyn Dialer) -> Result<(String, Channel), Error> {
        let address = self.current();
        let channel = self.channel(&address, dialer)?;
        Ok((address, channel))
    }

    /// A channel to an address, one for each.
    pub(crate) fn channel(&self, address: &str, dialer: &dyn Dialer) -> Result<Channel, Error> {
        let mut state = self.lock();
        if let Some(channel) = state.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = dialer.channel(address)?;
        state.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// `failed` did not do it: use the leader that it named, or the next in turn. Of many calls that fail at once only
    /// the first moves on.
    pub(crate) fn leave(&self, failed: &str, leader: Option<&str>) {
        let mut state = self.lock();
        if state.current != failed {
            return;
        }
        state.current = match leader.filter(|leader| *leader != failed) {
            Some(leader) => leader.to_owned(),
            None => {
                let endpoint = self.endpoints[state.next % self.endpoints.len()].clone();
                state.next = (state.next + 1) % self.endpoints.len();
                endpoint
            }
        };
    }

    /// Use this address from now on.
    pub(crate) fn prefer(&self, address: &str) {
        self.lock().current = address.to_owned();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held, so the lock is never poisoned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_address_is_left_once_for_the_leader_or_the_next() {
        let routes = Routes::new(vec!["a:1".into(), "b:1".into(), "c:1".into()], 0);
        assert_eq!(routes.current(), "a:1");
        routes.leave("a:1", None);
        routes.leave("a:1", None);
        assert_eq!(routes.current(), "b:1");
        routes.leave("b:1", Some("d:1"));
        assert_eq!(routes.current(), "d:1");
        routes.leave("d:1", Some("d:1"));
        assert_eq!(routes.current(), "c:1");
    }
}
