//! Why a request is not placed: what an empty fleet could not hold either, and what stands in the way now.
//!
//! What was found is remembered per shape of request, since many that wait ask for the same; what is remembered says nothing of quotas, limits and the
//! calendar, which change with every grant.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use plimsoll_ledger::{Blocker, Ledger, Request, Verdict};

use crate::ahead::fits_when_empty;
use crate::{Planner, blockers};

/// Shapes of which it is remembered at a time what stands in their way.
const MOST_SHAPES: usize = 4_096;

/// What is known of shapes of requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    /// What stands in the way even of an empty fleet; `None` where nothing does.
    infeasible: BTreeMap<u64, Option<Vec<Blocker>>>,
    /// What stood in the way lately, and after how many changes of nodes that was.
    blocked: BTreeMap<u64, (u64, Vec<Blocker>)>,
    /// Of gangs of several roles: whether an empty fleet has a place for all of them together.
    fits_together: BTreeMap<u64, bool>,
}

impl Refusals {
    /// Nodes or policy are other than before.
    pub(crate) fn clear(&mut self) {
        *self = Refusals::default();
    }
}

impl Planner {
    /// What stands in the way even of an empty fleet where nobody has taken any quota; nothing where it may start one day. O(nodes of the pool) for a new shape.
    pub(crate) fn never_starts(&mut self, ledger: &Ledger, request: &Request) -> Vec<Blocker> {
        let by_nodes = self.never_fits(ledger, request).unwrap_or_default();
        [self.headroom.infeasible(request), by_nodes].concat()
    }

    /// What of that is about nodes; `None` where nothing is.
    pub(crate) fn never_fits(&mut self, ledger: &Ledger, request: &Request) -> Option<Vec<Blocker>> {
        let shape = self.shape(ledger, request);
        if let Some(known) = self.refusals.infeasible.get(&shape) {
            return known.clone();
        }
        let found = blockers::infeasible(ledger, &self.fleet, request);
        remember(&mut self.refusals.infeasible, shape, found.clone());
        found
    }

    /// `spent`: what limits and budgets stand in the way already.
    pub(crate) fn refuse(&mut self, ledger: &Ledger, request: &Request, spent: Vec<Blocker>) -> Verdict {
        let never = self.never_starts(ledger, request);
        if !never.is_empty() {
            return Verdict::Infeasible(never);
        }
        let of_share: Vec<Blocker> = self.share_blocker(ledger, request).into_iter().collect();
        // What is open on spot nodes is not open to it then.
        let elsewhere = (!of_share.is_empty()).then(|| request.off_spot());
        let request = elsewhere.as_ref().unwrap_or(request);
        let shape = self.shape(ledger, request);
        // Quotas change with every grant, so that what is remembered of a shape says nothing of them.
        let short =
            [spent, self.headroom.blockers(request), self.agenda.blockers(request), of_share].concat();
        let recent = self.refusals.blocked.get(&shape).filter(|(changes, _)| self.fleet.is_recent(*changes));
        if let Some((_, blockers)) = recent {
            return Verdict::Blocked([short, blockers.clone()].concat());
        }
        let blockers = blockers::now(ledger, &self.fleet, request);
        remember(&mut self.refusals.blocked, shape, (self.fleet.changes(), blockers.clone()));
        Verdict::Blocked([short, blockers].concat())
    }

    /// False for a gang of several roles that an empty fleet has no place for as a whole: as far as the search goes, which is greedy. O(nodes of the pool x
    /// members) for a new shape.
    pub(crate) fn fits_together(&mut self, ledger: &Ledger, request: &Request) -> bool {
        if request.roles.is_empty() {
            return true;
        }
        let shape = self.shape(ledger, request);
        if let Some(known) = self.refusals.fits_together.get(&shape) {
            return *known;
        }
        let fits = fits_when_empty(ledger, &self.fleet, request);
        remember(&mut self.refusals.fits_together, shape, fits);
        fits
    }

    /// Requests of equal shape find a place or fail alike. The labels count where somebody may keep away from them.
    pub(crate) fn shape(&self, ledger: &Ledger, request: &Request) -> u64 {
        let mut hasher = DefaultHasher::new();
        (wants(request), self.agenda.kind_of(request)).hash(&mut hasher);
        if self.heeds_work || ledger.work().has_rules() || !request.affinity.is_empty() {
            request.labels.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Equal for requests that ask for the same, whatever they are called and whoever asks.
pub(crate) fn wants(request: &Request) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&request.pool, &request.queue, &request.requirements, request.gang, &request.roles).hash(&mut hasher);
    (&request.topology, &request.affinity, request.is_best_effort()).hash(&mut hasher);
    hasher.finish()
}

fn remember<T>(known: &mut BTreeMap<u64, T>, shape: u64, found: T) {
    if known.len() >= MOST_SHAPES {
        known.clear();
    }
    known.insert(shape, found);
}
