//! Which fencing tokens a device still obeys.
//!
//! A paused holder may wake up after its lease has ended and another has the device. Its token is older than one that
//! the gate has seen since, so it is refused, without asking anybody.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_mutants::mutant;

/// One whole device, in thousandths.
const WHOLE_DEVICE_MILLI: u32 = 1000;

/// A token that a device does not obey any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "token {token} is stale on {device}: token {newest} was seen there, and no live lease has the older one"
)]
pub struct StaleToken {
    /// UUID of the device.
    pub device: String,
    /// The token that was refused.
    pub token: u64,
    /// The newest token seen on the device, or the registration that the node itself started from.
    pub newest: u64,
}

/// Newest and live tokens per device. Memory is bounded by the devices of the node and the leases alive on them.
#[derive(Clone, Debug, Default)]
pub struct TokenGate {
    devices: BTreeMap<String, Seen>,
    floor: u64,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Newest token seen.
    newest: u64,
    /// Grants with an older token are refused: of the newest grant of the whole device, or one more once it has ended.
    grants_from: u64,
    /// Tokens of the leases on it now.
    live: BTreeSet<u64>,
}

impl TokenGate {
    /// Refuses a token older than the newest seen on the device, unless its lease is one of those that share the
    /// device now.
    pub fn check(&self, device: &str, token: u64) -> Result<(), StaleToken> {
        let seen = self.devices.get(device);
        if seen.is_some_and(|seen| seen.live.contains(&token)) {
            return Ok(());
        }
        let newest = seen.map_or(0, |seen| seen.newest).max(self.floor);
        if token > newest { Ok(()) } else { Err(StaleToken { device: device.to_owned(), token, newest }) }
    }

    /// Refuses a grant that comes too late: a later grant has had the whole device. Shares of a device may arrive in
    /// any order.
    pub fn check_grant(&self, device: &str, token: u64) -> Result<(), StaleToken> {
        let Some(seen) = self.devices.get(device) else { return Ok(()) };
        if token >= seen.grants_from || seen.live.contains(&token) || mutant!("gate-takes-old-tokens") {
            return Ok(());
        }
        Err(StaleToken { device: device.to_owned(), token, newest: seen.newest })
    }

    /// Takes note of a grant. A grant of the whole device ends what came before it there; a share does not.
    pub fn admit(&mut self, device: &str, token: u64, milli: u32) -> Result<(), StaleToken> {
        self.check_grant(device, token)?;
        self.seed(device, token, milli);
        Ok(())
    }

    /// Takes note of a lease that the ledger says is alive, however old its token: for the list that follows a
    /// registration.
    pub fn seed(&mut self, device: &str, token: u64, milli: u32) {
        let seen = self.devices.entry(device.to_owned()).or_default();
        if milli >= WHOLE_DEVICE_MILLI {
            seen.live.retain(|live| *live >= token);
            seen.grants_from = seen.grants_from.max(token);
        }
        seen.live.insert(token);
        seen.newest = seen.newest.max(token);
    }

    /// Takes note that a lease on the device has ended: its token is refused from now on.
    pub fn end(&mut self, device: &str, token: u64) {
        let seen = self.devices.entry(device.to_owned()).or_default();
        seen.live.remove(&token);
        seen.newest = seen.newest.max(token);
        if seen.grants_from == token {
            seen.grants_from = token.saturating_add(1);
        }
    }

    /// Refuses every token up to `revision` that no live lease has: the node registered at that revision and was told
    /// which leases were alive then.
    pub fn raise_floor(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_older_than_the_newest_is_refused() {
        let mut gate = TokenGate::default();
        assert_eq!(gate.check("gpu", 5), Ok(()), "nothing seen yet");
        gate.admit("gpu", 10, 1000).unwrap();
        assert_eq!(gate.check("gpu", 10), Ok(()));
        assert_eq!(gate.check("gpu", 11), Ok(()), "newer than this node knows: not stale");
        let stale = gate.admit("gpu", 9, 1000).unwrap_err();
        assert_eq!(stale, StaleToken { device: "gpu".into(), token: 9, newest: 10 });
        assert_eq!(gate.check("other", 9), Ok(()), "each device has its own order");
    }

    #[test]
    fn the_token_of_an_ended_lease_is_refused_though_it_is_the_newest() {
        let mut gate = TokenGate::default();
        gate.admit("gpu", 10, 1000).unwrap();
        gate.end("gpu", 10);
        assert!(gate.check("gpu", 10).is_err());
        assert_eq!(gate.check("gpu", 11), Ok(()));
    }

    #[test]
    fn sharers_of_a_device_do_not_fence_each_other_but_a_whole_grant_fences_all() {
        let mut gate = TokenGate::default();
        gate.admit("gpu", 12, 500).unwrap();
        gate.admit("gpu", 10, 500).unwrap();
        assert_eq!(gate.check("gpu", 10), Ok(()), "shares may be told in any order");
        gate.end("gpu", 12);
        assert_eq!(gate.check("gpu", 10), Ok(()), "the other share ended, this one did not");
        gate.admit("gpu", 20, 1000).unwrap();
        assert!(gate.check("gpu", 10).is_err());
    }

    #[test]
    fn a_restarted_node_refuses_what_was_not_alive_when_it_registered() {
        let mut gate = TokenGate::default();
        gate.raise_floor(100);
        gate.admit("gpu", 40, 1000).unwrap();
        assert_eq!(gate.check("gpu", 40), Ok(()), "listed as alive");
        assert!(gate.check("gpu", 99).is_err(), "granted before and not listed");
        assert_eq!(gate.check("gpu", 101), Ok(()));
    }
}
