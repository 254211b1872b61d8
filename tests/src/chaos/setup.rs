//! What kind of cluster a schedule is for.

use std::path::PathBuf;

use super::net::tun;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Coordinators.
    pub members: u64,
    /// What is between them.
    pub carrier: Carrier,
    /// An earlier build of the product: members then run one or the other.
    pub previous: Option<PathBuf>,
}

/// What carries bytes between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// Loopback, with a TCP proxy in front of each member.
    #[default]
    Proxies,
    /// A network namespace for each member, and a switch in this process that carries IP packets between them.
    Tun,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { members: 3, carrier: Carrier::default(), previous: None }
    }
}

impl Setup {
    /// The nearest that this machine allows: proxies where the switch is not possible.
    #[must_use]
    pub fn possible(mut self) -> Setup {
        if self.carrier == Carrier::Tun && tun::forbidden().is_some() {
            self.carrier = Carrier::Proxies;
        }
        self
    }

    /// Why packets cannot be lost, doubled or overtaken; `None` where they can.
    pub fn without_packets(&self) -> Option<String> {
        match self.carrier {
            Carrier::Tun => tun::forbidden(),
            Carrier::Proxies => Some("only under --network tun, where that is possible".to_owned()),
        }
    }

    /// Why connections cannot be closed from outside; `None` where they can.
    pub fn without_proxies(&self) -> Option<String> {
        (self.carrier != Carrier::Proxies)
            .then(|| "only with proxies: a switch knows no connections".to_owned())
    }
}
