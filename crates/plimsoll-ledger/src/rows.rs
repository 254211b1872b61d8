//! State to rows and back. `Ledger::from_rows(ledger.rows()) == ledger`, indexes included.

use std::sync::Arc;

use crate::{Ledger, Row, RowKey};

/// Rows that do not make a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// There is no meta row.
    #[error("rows have no meta row")]
    NoMeta,
    /// The rows need rules that this build does not have.
    #[error("rows are of ledger version {found}, this build knows up to {latest}")]
    Version {
        /// Version of the rows.
        found: u32,
        /// Newest version of this build.
        latest: u32,
    },
    /// A reservation names a node or device that is not there.
    #[error("reservation {0} is placed on a node or device that has no row")]
    Dangling(plimsoll_types::ReservationId),
}

impl Ledger {
    /// Rebuilds a ledger and all its indexes. O(n log n) in rows.
    ///
    /// # Errors
    /// Rows that do not belong together, or that a newer build wrote.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Result<Ledger, RowError> {
        let mut ledger = Ledger::default();
        let mut reservations = Vec::new();
        let mut remembered = Vec::new();
        let mut meta = None;
        for row in rows {
            match row {
                Row::Meta(row) => meta = Some(row),
                Row::Pool(pool) => ledger.put_pool(pool),
                Row::Class(class) => ledger.put_class(class),
                Row::NodeLimits(limits) => ledger.put_node_limits(limits),
                Row::Node(node) => ledger.put_node(node),
                Row::Reservation(reservation) => reservations.push(reservation),
                Row::Idempotency(row) => remembered.push(row),
            }
        }
        ledger.meta = meta.ok_or(RowError::NoMeta)?;
        if ledger.meta.version > crate::LATEST_VERSION {
            return Err(RowError::Version { found: ledger.meta.version, latest: crate::LATEST_VERSION });
        }
        for reservation in reservations {
            let placed = |member: &crate::MemberPlacement| {
                ledger.usage(member.node).is_some_and(|usage| {
                    member.devices.iter().all(|grant| usize::from(grant.device.0) < usage.devices.len())
                })
            };
            if !reservation.members.iter().all(placed) {
                return Err(RowError::Dangling(reservation.id));
            }
            ledger.put_reservation(reservation);
        }
        for row in remembered {
            ledger.put_remembered(row);
        }
        ledger.touched.clear();
        Ok(ledger)
    }

    /// Every row, in canonical order.
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
        let remembered = self.remembered.iter().map(|((actor, request_id), row)| {
            (RowKey::Idempotency(actor.clone(), request_id.clone()), Row::Idempotency(Arc::clone(row)))
        });
        meta.chain(pools).chain(classes).chain(limits).chain(nodes).chain(reservations).chain(remembered)
    }

    /// One row; `None` where it was deleted.
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Meta => Some(Row::Meta(self.meta)),
            RowKey::Pool(name) => self.pools.get(name).cloned().map(Row::Pool),
            RowKey::Class(name) => self.classes.get(name).cloned().map(Row::Class),
            RowKey::NodeLimits(name) => self.node_limits.get(name).cloned().map(Row::NodeLimits),
            RowKey::Node(id) => self.node(*id).cloned().map(Row::Node),
            RowKey::Reservation(id) => self.reservations.get(id).cloned().map(Row::Reservation),
            RowKey::Idempotency(actor, request_id) => {
                self.remembered.get(&(actor.clone(), request_id.clone())).cloned().map(Row::Idempotency)
            }
        }
    }
}
