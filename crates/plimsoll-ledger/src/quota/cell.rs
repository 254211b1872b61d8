//! One resource of one pool in one queue: what the queue has of it, and what is taken.

use plimsoll_types::Amount;

/// What a queue is given of one resource of one pool. Kueue's fields map onto it: `guaranteed = nominal - lendingLimit`,
/// `limit = nominal + borrowingLimit`; Volcano calls the three guarantee, deserved and capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quota {
    /// Never lent to others, idle or not. At most `nominal`.
    pub guaranteed: Amount,
    /// The queue's own: lent while idle, and given back on demand. At an inner queue it comes on top of what the queues below
    /// bring, for all of them to share.
    pub nominal: Amount,
    /// Own and borrowed together stay at or below this; `None` for all that others lend.
    pub limit: Option<Amount>,
}

impl Quota {
    /// Most that may be borrowed; `None` without bound.
    pub(super) fn borrowing_limit(&self) -> Option<Amount> {
        self.limit.map(|limit| limit.saturating_sub(self.nominal))
    }
}

/// State of one resource of one pool in one queue. A queue that is given nothing of it has the default: nothing of its own,
/// free to borrow all that others lend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What the policy gives.
    pub quota: Quota,
    /// Quota of the queue with what those below it lend.
    pub subtree: Amount,
    /// Taken: at a leaf by its grants, at an inner queue what those below took beyond what they keep to themselves.
    pub usage: Amount,
}

impl Cell {
    /// What the queue keeps to itself: the part of its subtree's quota that is never lent.
    pub fn local(&self) -> Amount {
        let lent_at_most = self.quota.nominal.saturating_sub(self.quota.guaranteed);
        if self.quota.guaranteed.is_zero() { Amount::ZERO } else { self.subtree.saturating_sub(lent_at_most) }
    }

    /// What the queue has for others while it is idle.
    pub fn lendable(&self) -> Amount {
        self.subtree.saturating_sub(self.local())
    }

    /// What the queue takes of its parent.
    pub fn in_parent(&self) -> Amount {
        self.usage.saturating_sub(self.local())
    }

    /// What is taken beyond the quota of the queue and those below it.
    pub fn borrowed(&self) -> Amount {
        self.usage.saturating_sub(self.subtree)
    }

    /// True where the queue has more than its limit lets it have.
    pub(super) fn is_over_limit(&self) -> bool {
        let most = |borrow: Amount| self.lendable().0.saturating_add(borrow.0);
        self.quota.borrowing_limit().is_some_and(|borrow| self.in_parent().0 > most(borrow))
    }

    /// What the queue could still take of a parent that has `parent` left: no more than it lends itself and may borrow.
    pub(super) fn reachable(&self, parent: Amount) -> Amount {
        match self.quota.borrowing_limit() {
            None => parent,
            Some(borrow) => {
                let most = Amount(self.lendable().0.saturating_add(borrow.0));
                parent.min(most.saturating_sub(self.in_parent()))
            }
        }
    }
}
