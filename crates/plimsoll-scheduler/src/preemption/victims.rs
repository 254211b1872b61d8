//! Candidates in the order in which they are asked to leave (`docs/semantics.md` 5.2): best effort first; opted-out last; queues that borrow before others; the
//! largest share first; the lowest class; the least work lost; the most recently started; the smallest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{DeviceGrant, GPU, Ledger, QuotaTree, Reservation, Share};
use plimsoll_types::{LedgerTime, NodeId, Resources};

/// What is compared between candidates, in this order: the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference {
    /// Best effort goes first.
    backed: bool,
    opted_out: bool,
    keeps_to_its_own: bool,
    share: Reverse<Share>,
    priority: i32,
    lost: u128,
    started: Reverse<LedgerTime>,
    size: u128,
}

/// A reservation that might have to leave.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) preference: Preference,
    pub(crate) reservation: Arc<Reservation>,
    /// What it counts against quotas.
    pub(crate) taken: Resources,
}

/// What a set of victims costs: compared between places, the smallest is best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// Somebody is not best effort.
    is_backed: bool,
    opted_out: u32,
    highest_priority: Option<i32>,
    backed: u32,
    lost: u128,
    victims: u32,
}

impl Candidate {
    pub(crate) fn new(
        ledger: &Ledger,
        prices_milli: &BTreeMap<String, u32>,
        reservation: &Arc<Reservation>,
    ) -> Candidate {
        let taken = reservation.charge().unwrap_or_default();
        let request = &reservation.request;
        let quota: &QuotaTree = ledger.quota();
        let share = quota.share(&request.queue, prices_milli, true);
        let size = weight_of(&taken);
        let backed = !reservation.is_best_effort();
        let preference = Preference {
            backed,
            opted_out: backed && !ledger.class(&request.class).is_some_and(|class| class.preemptible),
            keeps_to_its_own: share == Share::default(),
            share: Reverse(share),
            priority: reservation.priority,
            lost: work_lost(ledger, reservation, &taken),
            started: Reverse(reservation.granted_at),
            size,
        };
        Candidate { preference, reservation: Arc::clone(reservation), taken }
    }

    /// What it has on one node: amounts that count there, and devices, per member.
    pub(crate) fn on_node(&self, ledger: &Ledger, node: NodeId) -> Vec<(Resources, Vec<DeviceGrant>)> {
        let shares = ledger.shares(&self.reservation);
        let here = self.reservation.members.iter().filter(|member| member.node == node);
        here.map(|member| (shares.on_node(member).clone(), member.devices.clone())).collect()
    }
}

/// Thousandths of a device weigh as so many thousandths of a hundred cores: what a machine's price is made of.
fn weight_of(taken: &Resources) -> u128 {
    u128::from(taken.get(GPU).0) * 100 + u128::from(taken.cpu_millis.0)
}

/// What of a grant's work is lost where it has to leave and keeps no checkpoints: what it takes, times how long it has run.
pub(crate) fn work_lost(ledger: &Ledger, reservation: &Reservation, taken: &Resources) -> u128 {
    weight_of(taken).saturating_mul(ledger.clock().ms_since(reservation.granted_at).into())
}

impl Cost {
    pub(crate) fn of<'a>(victims: impl Iterator<Item = &'a Candidate>) -> Cost {
        victims.fold(Cost::default(), |cost, victim| Cost {
            is_backed: cost.is_backed || victim.preference.backed,
            backed: cost.backed + u32::from(victim.preference.backed),
            opted_out: cost.opted_out + u32::from(victim.preference.opted_out),
            highest_priority: cost.highest_priority.max(Some(victim.preference.priority)),
            lost: cost.lost.saturating_add(victim.preference.lost),
            victims: cost.victims + 1,
        })
    }
}
