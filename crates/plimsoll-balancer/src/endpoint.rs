//! What is known of an endpoint: facts of the ledger, and how a picker names it.

/// Identity of an endpoint: of the lease that it is. The same for every client, and never another endpoint's later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub u64);

/// An endpoint as one [`Picker`](crate::Picker) names it: a dense number, and how often that number was given out before, so that
/// what comes back late for an endpoint that left does not count for the one that took its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointIndex {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl EndpointIndex {
    /// A dense number from 0: below the largest number of endpoints that the picker had at once.
    #[must_use]
    pub const fn number(self) -> usize {
        self.slot as usize
    }
}

/// Whether an endpoint may be given requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// It may.
    #[default]
    Healthy,
    /// Its checks fail: only in panic.
    Unhealthy,
    /// It finishes what it has, and is given nothing more, not even in panic.
    Draining,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who it is.
    pub id: EndpointId,
    /// Its share against the others', in any unit; at most [`Endpoint::MAX_WEIGHT`] counts. With 0 it is never picked.
    pub weight: u32,
    /// Its priority level: 0 is used first.
    pub priority: u32,
    /// Whether it may be given requests.
    pub health: Health,
    /// Since when it is ready, on the caller's clock: slow start counts from here.
    pub ready_since_us: u64,
    /// When its lease ends at the latest, on the caller's clock: from then on it is never picked. `None` where the caller takes it out
    /// itself.
    pub lease_end_us: Option<u64>,
    /// Requests that it serves at once; more wait there. 0 where nobody knows. Read by [`Policy::Predictive`](crate::Policy) alone.
    pub concurrency: u32,
    /// Models that are loaded there. Read by [`Policy::Predictive`](crate::Policy) alone.
    pub warm_models: Vec<u64>,
}

impl Endpoint {
    /// Larger weights count as this.
    pub const MAX_WEIGHT: u32 = 1_000_000;

    /// A healthy endpoint of weight 1 on the first level, ready long ago.
    #[must_use]
    pub const fn new(id: EndpointId) -> Endpoint {
        Endpoint {
            id,
            weight: 1,
            priority: 0,
            health: Health::Healthy,
            ready_since_us: 0,
            lease_end_us: None,
            concurrency: 0,
            warm_models: Vec::new(),
        }
    }

    /// Whether it may be picked at all, be it in panic: not one that drains or whose lease is over.
    pub(crate) fn is_member(&self, now_us: u64) -> bool {
        self.weight > 0 && self.health != Health::Draining && self.lease_end_us.is_none_or(|end| now_us < end)
    }
}
