//! The leases that are alive on a node, by fencing token, with deadlines on the boot clock.
//!
//! A lease is alive until its deadline and not a moment longer, whatever the network does: the table never needs an
//! answer from a coordinator to know that a lease is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::BootTime;
use crate::load::{LeaseLoad, WorkloadLoad};
use crate::token_gate::{StaleToken, TokenGate};

/// Loads in one heartbeat: as many as coordinators take.
const MOST_LOADS: usize = 1_000;

/// A device, or part of one, that a lease may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedDevice {
    /// Which device.
    pub uuid: String,
    /// Its position on the node.
    pub index: u32,
    /// Share of its compute, in thousandths; 1000 is the whole device.
    pub milli: u32,
    /// Memory on it, in bytes.
    pub memory_bytes: u64,
    /// Short model name.
    pub model: String,
    /// The instance that it is, on a device that is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<GrantedSlices>,
}

/// An instance on a device that is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedSlices {
    /// Its profile, such as `1g.10gb`.
    pub profile: String,
    /// Its first memory slice.
    pub start: u32,
}

/// The right to use part of this node until a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Id of the reservation (`r-...`).
    pub reservation: String,
    /// Fencing token: revision of the command that granted it.
    pub token: u64,
    /// Compute on this node, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory on this node, in bytes.
    pub memory_bytes: u64,
    /// Devices of this node.
    pub devices: Vec<GrantedDevice>,
}

/// A lease with the moment at which it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveLease {
    /// What may be used.
    pub lease: Lease,
    /// Revision of the news that this is from.
    pub revision: u64,
    /// When it is over. Absent for a lease without an end, which only a word from the ledger ends.
    pub deadline: Option<BootTime>,
}

impl LiveLease {
    /// True from the deadline on.
    pub fn is_over(&self, now: BootTime) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// A later grant has the device, or the lease has ended.
    #[error(transparent)]
    Stale(#[from] StaleToken),
    /// No lease on this node has it.
    #[error("no lease on this node has token {token}")]
    Unknown {
        /// The token asked about.
        token: u64,
    },
    /// Its deadline has passed.
    #[error("the lease of token {token} ended {ago_ms} ms ago without renewal")]
    Expired {
        /// The token asked about.
        token: u64,
        /// Milliseconds since the deadline.
        ago_ms: u64,
    },
}

/// Leases of one node and the gate that knows which tokens are too old.
#[derive(Debug, Default)]
pub struct LeaseTable {
    leases: BTreeMap<u64, LiveLease>,
    /// Past their deadline here, and nothing of them runs any more; whether they have ended is for the ledger to say. After
    /// an outage of all coordinators it gives them another length.
    lapsed: BTreeMap<u64, LiveLease>,
    /// Deadlines with the tokens that they are of, so that a full node looks no longer for one than an empty one.
    deadlines: BTreeSet<(BootTime, u64)>,
    gate: TokenGate,
    /// What workloads said of their load since the last heartbeat, by token.
    loads: BTreeMap<u64, WorkloadLoad>,
}

/// A lease table that the stream, the local API and the expiry loop share.
pub type SharedLeases = Arc<Mutex<LeaseTable>>;

impl LeaseTable {
    /// Takes in a grant, or news about one, of `revision`; older news than what is known changes nothing. Refuses a
    /// token that the gate knows to be too old, such as a message that arrived late. Returns the leases that this one
    /// ends, since it has a whole device that they were on.
    pub fn grant(
        &mut self,
        lease: Lease,
        revision: u64,
        deadline: Option<BootTime>,
    ) -> Result<Vec<Lease>, StaleToken> {
        for device in &lease.devices {
            self.gate.check_grant(&device.uuid, lease.token)?;
        }
        Ok(self.put(lease, revision, deadline))
    }

    /// Ends a lease on the word of the ledger, and returns it where it was alive here.
    pub fn end(&mut self, token: u64) -> Option<Lease> {
        let live = self.leases.remove(&token);
        let known = live.as_ref().cloned().or_else(|| self.lapsed.remove(&token))?;
        if let Some(deadline) = known.deadline {
            self.deadlines.remove(&(deadline, token));
        }
        for device in &known.lease.devices {
            self.gate.end(&device.uuid, token);
        }
        live.map(|live| live.lease)
    }

    /// Takes the list of leases that the ledger says are alive at `revision`, and returns those that were alive here
    /// and are not on it.
    pub fn replace(&mut self, revision: u64, alive: Vec<(Lease, Option<BootTime>)>) -> Vec<Lease> {
        let gone: Vec<u64> = self
            .tokens(|_| true)
            .into_iter()
            // A grant later than the list is not contradicted by it.
            .filter(|token| *token <= revision && alive.iter().all(|(lease, _)| lease.token != *token))
            .collect();
        let mut ended: Vec<Lease> = gone.into_iter().filter_map(|token| self.end(token)).collect();
        for (lease, deadline) in alive {
            ended.extend(self.put(lease, revision, deadline));
        }
        ended
    }

    /// Checks refuse every token up to `revision` that no live lease has: the node registered then.
    pub fn raise_floor(&mut self, revision: u64) {
        self.gate.raise_floor(revision);
    }

    /// Takes out the leases whose deadline has passed, and returns them: their processes must die now.
    pub fn expire(&mut self, now: BootTime) -> Vec<Lease> {
        let mut over = Vec::new();
        while let Some(&(deadline, token)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(live) = self.leases.remove(&token) {
                over.push(live.lease.clone());
                self.lapsed.insert(token, live);
            }
        }
        over
    }

    /// Tokens of the leases that are alive or lapsed here and are such.
    pub fn tokens(&self, is_such: impl Fn(&Lease) -> bool) -> Vec<u64> {
        let known = self.leases.iter().chain(&self.lapsed);
        known.filter(|(_, known)| is_such(&known.lease)).map(|(token, _)| *token).collect()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<BootTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The lease of a token, where it is alive now.
    pub fn check(&self, token: u64, now: BootTime) -> Result<&LiveLease, TokenRefused> {
        let known = self.leases.get(&token).or_else(|| self.lapsed.get(&token));
        let live = known.ok_or(TokenRefused::Unknown { token })?;
        match live.deadline {
            Some(deadline) if deadline <= now => {
                Err(TokenRefused::Expired { token, ago_ms: now.ms_since(deadline) })
            }
            _ => Ok(live),
        }
    }

    /// The lease of a token, where it is alive now and has the device.
    pub fn check_device(&self, device: &str, token: u64, now: BootTime) -> Result<&LiveLease, TokenRefused> {
        self.gate.check(device, token)?;
        let live = self.check(token, now)?;
        let has_device = live.lease.devices.iter().any(|granted| granted.uuid == device);
        if has_device { Ok(live) } else { Err(TokenRefused::Unknown { token }) }
    }

    /// The workload of a live lease says how loaded it is. The latest word counts.
    pub fn set_load(&mut self, token: u64, load: WorkloadLoad, now: BootTime) -> Result<(), TokenRefused> {
        self.check(token, now)?;
        self.loads.insert(token, load);
        Ok(())
    }

    /// What was said since this was asked last, of leases that are still alive. What is too much for one heartbeat waits for the next.
    pub fn take_loads(&mut self) -> Vec<LeaseLoad> {
        let mut alive = Vec::new();
        while alive.len() < MOST_LOADS
            && let Some((token, load)) = self.loads.pop_first()
        {
            let live = self.leases.get(&token).map(|live| live.lease.reservation.clone());
            alive.extend(live.map(|reservation| LeaseLoad { reservation, token, load }));
        }
        alive
    }

    /// Every lease alive, by token.
    pub fn iter(&self) -> impl Iterator<Item = &LiveLease> {
        self.leases.values()
    }

    /// Number of leases alive.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// True where no lease is alive.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn put(&mut self, lease: Lease, revision: u64, deadline: Option<BootTime>) -> Vec<Lease> {
        let token = lease.token;
        let mut ended = Vec::new();
        if let Some(known) = self.leases.get(&token).or_else(|| self.lapsed.get(&token)) {
            if known.revision > revision {
                return ended;
            }
            // A resize may have taken devices away.
            let lost =
                known.lease.devices.iter().filter(|had| lease.devices.iter().all(|has| has.uuid != had.uuid));
            for device in lost {
                self.gate.end(&device.uuid, token);
            }
        }
        for device in &lease.devices {
            self.gate.seed(&device.uuid, token, device.milli);
            for displaced in self.displaced_by(&device.uuid, token) {
                ended.extend(self.end(displaced));
            }
        }
        self.deadlines.extend(deadline.map(|deadline| (deadline, token)));
        self.lapsed.remove(&token);
        let before = self.leases.insert(token, LiveLease { lease, revision, deadline });
        if let Some(old) = before.and_then(|live| live.deadline).filter(|old| Some(*old) != deadline) {
            self.deadlines.remove(&(old, token));
        }
        ended
    }

    /// Older leases that the gate has closed on this device.
    fn displaced_by(&self, device: &str, token: u64) -> Vec<u64> {
        let on_device = |live: &&LiveLease| live.lease.devices.iter().any(|granted| granted.uuid == device);
        let older = self.leases.range(..token).map(|(_, live)| live).filter(on_device);
        older.map(|live| live.lease.token).filter(|older| self.gate.check(device, *older).is_err()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(token: u64, devices: &[(&str, u32)]) -> Lease {
        let devices = devices.iter().map(|(uuid, milli)| GrantedDevice {
            uuid: (*uuid).to_owned(),
            index: 0,
            milli: *milli,
            memory_bytes: 1,
            model: "h100".to_owned(),
            mig: None,
        });
        Lease {
            reservation: format!("r-{token:04}"),
            token,
            cpu_millis: 1000,
            memory_bytes: 1,
            devices: devices.collect(),
        }
    }

    const AT_100: Option<BootTime> = Some(BootTime(100));
    const AT_200: Option<BootTime> = Some(BootTime(200));

    #[test]
    fn a_lease_is_over_at_its_deadline_without_any_message() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[("gpu", 1000)]), 1, AT_100).unwrap();
        assert!(table.check(1, BootTime(99)).is_ok());
        assert_eq!(table.check(1, BootTime(130)), Err(TokenRefused::Expired { token: 1, ago_ms: 30 }));
        assert_eq!(table.expire(BootTime(99)), []);
        assert_eq!(table.expire(BootTime(100)).len(), 1);
        let over = Err(TokenRefused::Expired { token: 1, ago_ms: 0 });
        assert_eq!(table.check_device("gpu", 1, BootTime(100)), over);
        assert_eq!((table.len(), table.next_deadline()), (0, None));
    }

    #[test]
    fn a_lapsed_lease_comes_back_by_newer_news_and_by_nothing_else() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[("gpu", 1000)]), 1, AT_100).unwrap();
        table.grant(lease(1, &[("gpu", 1000)]), 5, AT_100).unwrap();
        table.expire(BootTime(100));
        table.grant(lease(1, &[("gpu", 1000)]), 4, AT_200).unwrap();
        assert_eq!(table.len(), 0, "older news");
        table.grant(lease(1, &[("gpu", 1000)]), 6, AT_200).unwrap();
        assert!(
            table.check_device("gpu", 1, BootTime(150)).is_ok(),
            "the ledger has given it another length"
        );
        table.expire(BootTime(200));
        assert_eq!(table.end(1), None, "nothing of it ran");
        assert!(matches!(table.check_device("gpu", 1, BootTime(250)), Err(TokenRefused::Stale(_))));
        assert!(table.grant(lease(1, &[("gpu", 1000)]), 7, AT_200).is_err(), "the ledger has ended it");
    }

    #[test]
    fn newer_news_moves_a_deadline_and_older_news_does_not() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[]), 1, AT_100).unwrap();
        table.grant(lease(1, &[]), 5, AT_200).unwrap();
        table.grant(lease(1, &[]), 4, AT_100).unwrap();
        assert_eq!(table.next_deadline(), Some(BootTime(200)));
        table.grant(lease(3, &[]), 3, None).unwrap();
        assert_eq!(table.expire(BootTime(u64::MAX)).len(), 1, "a lease without an end stays");
    }

    #[test]
    fn a_whole_device_granted_anew_ends_the_older_lease_on_it() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[("gpu", 500)]), 1, AT_100).unwrap();
        assert_eq!(
            table.grant(lease(2, &[("gpu", 500)]), 2, AT_100).unwrap(),
            [],
            "shares live side by side"
        );
        let ended = table.grant(lease(3, &[("gpu", 1000)]), 3, AT_100).unwrap();
        assert_eq!(ended.iter().map(|lease| lease.token).collect::<Vec<_>>(), [1, 2]);
        assert!(table.grant(lease(1, &[("gpu", 500)]), 4, AT_200).is_err());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_list_after_a_registration_wins_over_memory() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[("a", 1000)]), 1, AT_100).unwrap();
        table.grant(lease(2, &[("b", 1000)]), 2, AT_100).unwrap();
        table.grant(lease(60, &[("d", 1000)]), 60, AT_100).unwrap();
        let ended =
            table.replace(50, vec![(lease(2, &[("b", 1000)]), AT_200), (lease(3, &[("c", 1000)]), AT_200)]);
        assert_eq!(ended.iter().map(|lease| lease.token).collect::<Vec<_>>(), [1]);
        assert_eq!(table.iter().map(|live| live.lease.token).collect::<Vec<_>>(), [2, 3, 60]);
        table.raise_floor(50);
        assert!(matches!(table.check_device("a", 49, BootTime(1)), Err(TokenRefused::Stale(_))));
        assert!(table.check_device("c", 3, BootTime(1)).is_ok(), "older than the floor, and alive");
    }

    #[test]
    fn the_latest_load_of_a_live_lease_is_passed_on_once() {
        let mut table = LeaseTable::default();
        table.grant(lease(1, &[]), 1, AT_100).unwrap();
        table.grant(lease(2, &[]), 2, AT_100).unwrap();
        let load = |in_flight| WorkloadLoad { in_flight, ..WorkloadLoad::default() };
        for (token, in_flight) in [(1, 5), (2, 6), (1, 7)] {
            table.set_load(token, load(in_flight), BootTime(50)).unwrap();
        }
        assert_eq!(
            table.set_load(3, load(1), BootTime(50)),
            Err(TokenRefused::Unknown { token: 3 }),
            "nobody's"
        );
        table.end(2);
        let said = LeaseLoad { reservation: "r-0001".to_owned(), token: 1, load: load(7) };
        assert_eq!(table.take_loads(), [said]);
        assert_eq!(table.take_loads(), []);
        let late = table.set_load(1, load(8), BootTime(100));
        assert_eq!(late, Err(TokenRefused::Expired { token: 1, ago_ms: 0 }));
    }

    #[test]
    fn a_resize_gives_a_device_back() {
        let mut table = LeaseTable::default();
        table.grant(lease(5, &[("a", 1000), ("b", 1000)]), 5, AT_100).unwrap();
        table.grant(lease(5, &[("a", 1000)]), 6, AT_100).unwrap();
        assert!(table.check_device("a", 5, BootTime(1)).is_ok());
        assert!(table.check_device("b", 5, BootTime(1)).is_err());
    }
}
