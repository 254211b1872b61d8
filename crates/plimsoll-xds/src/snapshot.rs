//! The newest catalog as resources, made once for all streams of a flavour, and only where something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prost_types::Any;

use crate::catalog::Catalog;
use crate::resources::{Flavour, Kind, ServiceResources};

/// All resources of one revision for one flavour.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    services: BTreeMap<Arc<str>, Arc<ServiceResources>>,
}

impl Snapshot {
    /// The resource of a kind and name, if there is one, with the name that all share.
    pub(crate) fn find(&self, kind: Kind, name: &str) -> Option<(&Arc<str>, &Arc<Any>)> {
        let (name, resources) = self.services.get_key_value(name)?;
        Some((name, resources.of(kind)?))
    }

    /// All resources of a kind, by name.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Arc<Any>)> {
        self.services.iter().filter_map(move |(name, resources)| Some((name, resources.of(kind)?)))
    }

    /// The resources of `catalog`; those that did not change since `self` are the same.
    fn next(&self, flavour: Flavour, catalog: &Catalog) -> Snapshot {
        let services = catalog.services().iter().map(|(name, service)| {
            let before = self.services.get_key_value(name.as_str());
            let shared = before.map_or_else(|| Arc::from(name.as_str()), |(shared, _)| Arc::clone(shared));
            (shared, ServiceResources::make(flavour, name, service, before.map(|(_, resources)| resources)))
        });
        Snapshot { revision: catalog.revision(), services: services.collect() }
    }
}

/// The newest snapshot of each flavour. The first stream that sees a catalog makes it for the others.
#[derive(Default)]
pub(crate) struct Snapshots {
    newest: [Mutex<Option<Arc<Snapshot>>>; Flavour::ALL.len()],
}

impl Snapshots {
    /// The snapshot of `catalog`, or of a newer one that another stream has seen already.
    pub(crate) fn of(&self, flavour: Flavour, catalog: &Catalog) -> Arc<Snapshot> {
        let mut newest = self.newest[flavour as usize].lock();
        if let Some(newest) = &*newest
            && newest.revision >= catalog.revision()
        {
            return Arc::clone(newest);
        }
        let before = newest.take().unwrap_or_default();
        Arc::clone(newest.insert(Arc::new(before.next(flavour, catalog))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Endpoint, Service};

    fn catalog(revision: u64, services: &[(&str, u16)]) -> Catalog {
        let services = services.iter().map(|(name, port)| {
            let endpoints = vec![Endpoint::serving(([127, 0, 0, 1], *port).into())];
            ((*name).to_owned(), Arc::new(Service { endpoints, ..Service::default() }))
        });
        Catalog::new(revision, services).expect("a catalog")
    }

    #[test]
    fn only_what_changed_is_made_anew() {
        let snapshots = Snapshots::default();
        let before = snapshots.of(Flavour::Grpc, &catalog(1, &[("a", 1), ("b", 2)]));
        let after = snapshots.of(Flavour::Grpc, &catalog(2, &[("a", 1), ("b", 3), ("c", 4)]));
        let same = |name| {
            let find =
                |snapshot: &Snapshot| Arc::clone(snapshot.find(Kind::Endpoints, name).expect("there").1);
            Arc::ptr_eq(&find(&before), &find(&after))
        };
        assert!(same("a") && !same("b"));
        assert_eq!((after.revision, after.all(Kind::Listener).count()), (2, 3));
    }

    #[test]
    fn an_older_catalog_never_replaces_a_newer_one() {
        let snapshots = Snapshots::default();
        let newer = snapshots.of(Flavour::Envoy, &catalog(2, &[("a", 1)]));
        let asked = snapshots.of(Flavour::Envoy, &catalog(1, &[]));
        assert!(Arc::ptr_eq(&newer, &asked));
    }
}
