//! State to rows and back. `Ledger::from_rows(ledger.rows()) == ledger`, indexes included.

use std::sync::Arc;

use crate::loading::Loading;
use crate::{Ledger, Row, RowKey, StoredRow};

/// Rows that do not make a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no meta row, or it is not the first.
    #[error("rows do not begin with a meta row")]
    NoMeta,
    /// The rows need rules that this build does not have.
    #[error("rows are of ledger version {found}, this build knows up to {latest}")]
    Version {
        /// Version of the rows.
        found: u32,
        /// Newest version of this build.
        latest: u32,
    },
    /// A reservation names a node or device that is not there, or an answer a reservation that is not.
    #[error("reservation {0} has no row, or is placed on a node or device that has none")]
    Dangling(plimsoll_types::ReservationId),
    /// What one that is set aside asked is not there, or is there for nobody.
    #[error("what {0} asked, which is set aside, has no row, or nobody needs it")]
    NoBody(plimsoll_types::ReservationId),
}

impl Ledger {
    /// Rebuilds a ledger and all its indexes from rows in canonical order; bodies of those that are set aside may be among them. O(n log n) in rows.
    ///
    /// # Errors
    /// Rows that do not belong together, or that a newer build wrote.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Ledger, RowError> {
        let mut loading = Loading::default();
        for row in rows {
            loading.take(StoredRow::Whole(row))?;
        }
        loading.finish_without_bodies()
    }

    /// Like [`Ledger::from_rows`], from what a store made of [`Ledger::take_rows`], in order of places.
    ///
    /// # Errors
    /// As for [`Ledger::from_rows`].
    pub fn from_stored(rows: impl IntoIterator<Item = StoredRow>) -> Result<Ledger, RowError> {
        let mut loading = Loading::default();
        for row in rows {
            loading.take(row)?;
        }
        loading.finish()
    }

    /// Every row, in canonical order, but for bodies of those that are set aside: the rows of those say all but the bytes.
    pub fn rows(&self) -> impl Iterator<Item = (RowKey, Row)> {
        let meta = std::iter::once((RowKey::Meta, Row::Meta(self.meta)));
        let pools =
            self.pools.iter().map(|(name, pool)| (RowKey::Pool(name.clone()), Row::Pool(Arc::clone(pool))));
        let classes = self
            .classes
            .iter()
            .map(|(name, class)| (RowKey::Class(name.clone()), Row::Class(Arc::clone(class))));
        let limits = self
            .node_limits
            .iter()
            .map(|(name, limits)| (RowKey::NodeLimits(name.clone()), Row::NodeLimits(Arc::clone(limits))));
        let nodes = self.nodes().map(|node| (RowKey::Node(node.id), Row::Node(Arc::clone(node))));
        let reservations = self
            .reservations
            .iter()
            .map(|(id, r)| (RowKey::Reservation(*id), Row::Reservation(Arc::clone(r))));
        let remembered = self.answers.sorted().into_iter().map(|row| {
            (
                RowKey::Idempotency(row.actor.clone(), row.request_id.clone()),
                Row::Idempotency(Arc::clone(row)),
            )
        });
        let removed = self
            .removed_nodes()
            .map(|node| (RowKey::RemovedNode(node.id), Row::RemovedNode(Arc::clone(node))));
        let objects = meta.chain(pools).chain(classes).chain(limits).chain(nodes).chain(reservations);
        let queues = self
            .queues
            .iter()
            .map(|(name, queue)| (RowKey::Queue(name.clone()), Row::Queue(Arc::clone(queue))));
        let quotas = self
            .quota_policies
            .iter()
            .map(|(name, quota)| (RowKey::Quota(name.clone()), Row::Quota(Arc::clone(quota))));
        let usage =
            self.book.rows().map(|usage| (RowKey::Usage(usage.key.clone()), Row::Usage(Arc::clone(usage))));
        let validators = self
            .validators
            .iter()
            .map(|(name, object)| (RowKey::Validator(name.clone()), Row::Validator(Arc::clone(object))));
        let schedules = self
            .schedules
            .iter()
            .map(|(name, schedule)| (RowKey::Schedule(name.clone()), Row::Schedule(Arc::clone(schedule))));
        let services = self
            .services
            .iter()
            .map(|(name, service)| (RowKey::Service(name.clone()), Row::Service(Arc::clone(service))));
        let loads = self.loads.iter().map(|(id, load)| (RowKey::Load(*id), Row::Load(load.clone())));
        let named = queues.chain(schedules).chain(quotas).chain(validators).chain(usage);
        let scaling_policies = self.scaling_policies.iter().map(|(name, policy)| {
            (RowKey::ScalingPolicy(name.clone()), Row::ScalingPolicy(Arc::clone(policy)))
        });
        let scalings = self
            .scalings
            .iter()
            .map(|(name, scaling)| (RowKey::Scaling(name.clone()), Row::Scaling(Arc::clone(scaling))));
        let intents =
            self.intents.iter().map(|(id, intent)| (RowKey::Intent(*id), Row::Intent(Arc::clone(intent))));
        let scaling = scaling_policies.chain(scalings).chain(intents);
        let contentions =
            self.contentions.rows().map(|one| (RowKey::Contention(one.id), Row::Contention(Arc::clone(one))));
        let uses = self.queue_uses.iter().map(|((queue, pool), row)| {
            (RowKey::QueueUse(queue.clone(), pool.clone()), Row::QueueUse(Arc::clone(row)))
        });
        let late = scaling.chain(contentions).chain(uses);
        objects.chain(remembered).chain(removed).chain(named).chain(services).chain(loads).chain(late)
    }
}
