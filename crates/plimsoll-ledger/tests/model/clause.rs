//! Clauses of the law of preemption, which the model can be made to forget: a history that tells the forgetful model from the ledger proves
//! that the clause is looked at.

/// One clause of `docs/semantics.md` 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    /// The victim's class is lower.
    LowerClass,
    /// The victim's class is preemptible.
    Preemptible,
    /// What a queue has lent it may have back.
    Reclaim,
    /// Only what is borrowed is given back.
    Borrowed,
    /// Every queue on the victim's way up borrows, not the lowest only.
    EveryQueueBorrows,
    /// A queue keeps what is guaranteed to it.
    GuaranteedKept,
    /// Where the claimant would borrow, the victim's queue keeps its quota.
    NominalKeptFromBorrowers,
    /// A reclaim takes no queue below its own quota.
    NominalKeptByReclaim,
    /// Who reclaims stays within its own quota.
    ReclaimWithinNominal,
    /// A grant runs for a while before it may be taken.
    MinRun,
    /// So many in an hour.
    BudgetPerHour,
    /// Claimant and victim have queues of one tree.
    SameTree,
    /// They are in one pool.
    SamePool,
    /// The pool says what may be taken back.
    PoolAllows,
    /// Nobody leaves for a place that is free.
    Contested,
    /// Those who leave make room enough.
    EnoughLeave,
    /// Best effort leaves for whoever is backed.
    BestEffortLeaves,
    /// Best effort takes from nobody who is backed.
    BestEffortTakesNothing,
}

impl Clause {
    pub(crate) const ALL: [Clause; 18] = [
        Clause::LowerClass,
        Clause::Preemptible,
        Clause::Reclaim,
        Clause::Borrowed,
        Clause::EveryQueueBorrows,
        Clause::GuaranteedKept,
        Clause::NominalKeptFromBorrowers,
        Clause::NominalKeptByReclaim,
        Clause::ReclaimWithinNominal,
        Clause::MinRun,
        Clause::BudgetPerHour,
        Clause::SameTree,
        Clause::SamePool,
        Clause::PoolAllows,
        Clause::Contested,
        Clause::EnoughLeave,
        Clause::BestEffortLeaves,
        Clause::BestEffortTakesNothing,
    ];
}
