//! What one client wants of one kind on one stream, what it was sent, and what it said to that. No I/O: requests and snapshots go in, answers come out.
//!
//! - A version is the revision of the catalog in which something changed for this subscription; each answer has a nonce of its own.
//! - A request with an earlier answer's nonce changes nothing: the client will answer the newer one too, with all it wants.
//! - What was rejected (NACK) is not sent again before it changes.
//! - Clusters and listeners are sent whole, so that what is missing is gone. Of endpoints and routes those are sent that changed, in parts where they are many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost_types::Any;

use crate::limits::{Bound, Limits};
use crate::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use crate::resources::Kind;
use crate::snapshot::Snapshot;

/// Asks for all there is, of the kinds that can be asked for so.
const WILDCARD: &str = "*";
/// A client's reason is kept to this many bytes.
const MOST_REASON_BYTES: usize = 1_024;

/// What a request meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The first of its kind on the stream.
    First,
    /// The last answer is in use.
    Ack,
    /// An answer was rejected.
    Nack,
    /// About an answer before the last.
    Stale,
    /// Sent before the client saw the first answer.
    Early,
}

/// Where a subscription stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatus {
    /// Names asked for.
    pub names: usize,
    /// True where all there is was asked for.
    pub wildcard: bool,
    /// Revision of the last answer, 0 before it.
    pub sent_revision: u64,
    /// Revision of the last answer that the client took, 0 before it.
    pub acked_revision: u64,
    /// Answers sent.
    pub answers: u64,
    /// Answers that the client rejected.
    pub nacks: u64,
    /// Why it rejected the last of these.
    pub last_nack: Option<String>,
}

/// See the module.
pub(crate) struct Subscription {
    kind: Kind,
    wildcard: bool,
    names: BTreeSet<String>,
    /// True once names were given: from then on no names means none, and not all.
    named: bool,
    /// An answer is owed, whether or not anything changed.
    owed: bool,
    sent: BTreeMap<Arc<str>, Arc<Any>>,
    /// Of the last answer; empty before it.
    nonce: String,
    status: SubscriptionStatus,
}

/// An answer that can be sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: DiscoveryResponse,
    /// Names of what was sent before and changed, of kinds that are sent whole.
    pub(crate) changed: Vec<Arc<str>>,
}

impl Subscription {
    pub(crate) fn new(kind: Kind) -> Subscription {
        Subscription {
            kind,
            wildcard: false,
            names: BTreeSet::new(),
            named: false,
            owed: false,
            sent: BTreeMap::new(),
            nonce: String::new(),
            status: SubscriptionStatus::default(),
        }
    }

    pub(crate) fn status(&self) -> SubscriptionStatus {
        SubscriptionStatus { names: self.names.len(), wildcard: self.wildcard, ..self.status.clone() }
    }

    /// Takes a request of this kind. `first`: none came before it on this stream.
    pub(crate) fn request(
        &mut self,
        request: DiscoveryRequest,
        first: bool,
        limits: &Limits,
    ) -> Result<Meaning, Bound> {
        limits.names(request.resource_names.len())?;
        // A rejection is worth knowing also where a newer answer is on its way already.
        if let Some(error) = &request.error_detail {
            self.status.nacks += 1;
            self.status.last_nack = Some(shortened(&error.message));
        }
        let of_last = request.response_nonce == self.nonce;
        let stale = !first && !request.response_nonce.is_empty() && !of_last;
        let meaning = if request.error_detail.is_some() {
            Meaning::Nack
        } else if first {
            Meaning::First
        } else if stale {
            Meaning::Stale
        } else if of_last && !self.nonce.is_empty() {
            self.status.acked_revision = self.status.sent_revision;
            Meaning::Ack
        } else {
            Meaning::Early
        };
        if !stale {
            self.want(request.resource_names, first);
        }
        Ok(meaning)
    }

    /// These answers count as not sent: a client that sets something up anew waits for them again.
    pub(crate) fn forget(&mut self, names: &[Arc<str>]) {
        for name in names {
            self.sent.remove(name);
        }
    }

    /// What the client lacks, if anything; more may be left.
    pub(crate) fn answer(
        &mut self,
        snapshot: &Snapshot,
        nonce: impl FnOnce() -> String,
        limits: &Limits,
    ) -> Result<Option<Answer>, Bound> {
        let (resources, changed) = if self.kind.answers_are_whole() {
            let Some(whole) = self.whole(snapshot) else { return Ok(None) };
            limits.answer(self.kind, whole.values().map(|resource| size(resource)).sum())?;
            let differs = |name: &Arc<str>, was: &Arc<Any>| whole.get(name).is_some_and(|is| is != was);
            let changed = self.sent.iter().filter(|(name, was)| differs(name, was));
            let changed = changed.map(|(name, _)| Arc::clone(name)).collect();
            let resources = whole.values().map(|resource| Any::clone(resource)).collect();
            self.sent = whole;
            (resources, changed)
        } else {
            let part = self.part(snapshot, limits.part_bytes);
            if part.is_empty() {
                return Ok(None);
            }
            let resources = part.iter().map(|(_, resource)| Any::clone(resource)).collect();
            self.sent.extend(part);
            (resources, Vec::new())
        };
        self.owed = false;
        self.nonce = nonce();
        self.status.sent_revision = snapshot.revision;
        self.status.answers += 1;
        let response = DiscoveryResponse {
            version_info: snapshot.revision.to_string(),
            resources,
            type_url: self.kind.type_url().to_owned(),
            nonce: self.nonce.clone(),
        };
        Ok(Some(Answer { response, changed }))
    }

    /// Takes the names of a request: always all of them.
    fn want(&mut self, names: Vec<String>, first: bool) {
        let mut names: BTreeSet<String> = names.into_iter().collect();
        let may_be_all = self.kind.answers_are_whole();
        let star = may_be_all && names.remove(WILDCARD);
        self.named |= star || !names.is_empty();
        let wildcard = may_be_all && (star || (names.is_empty() && !self.named));
        let grows = (wildcard && !self.wildcard) || !names.is_subset(&self.names);
        // Of these kinds an answer says also what is not there.
        self.owed |= may_be_all && (first || grows);
        self.wildcard = wildcard;
        self.names = names;
        // What is no longer wanted is sent again when it is wanted again.
        if !wildcard {
            self.sent.retain(|name, _| self.names.contains(&**name));
        }
    }

    /// All that is wanted and there, unless that is what was sent.
    fn whole(&self, snapshot: &Snapshot) -> Option<BTreeMap<Arc<str>, Arc<Any>>> {
        let shared = |(name, resource): (&Arc<str>, &Arc<Any>)| (Arc::clone(name), Arc::clone(resource));
        let whole: BTreeMap<Arc<str>, Arc<Any>> = if self.wildcard {
            snapshot.all(self.kind).map(shared).collect()
        } else {
            self.names.iter().filter_map(|name| snapshot.find(self.kind, name)).map(shared).collect()
        };
        (self.owed || whole != self.sent).then_some(whole)
    }

    /// The first of those that are wanted and differ from what was sent, up to `most_bytes` but one at least.
    fn part(&mut self, snapshot: &Snapshot, most_bytes: usize) -> Vec<(Arc<str>, Arc<Any>)> {
        self.sent.retain(|name, _| snapshot.find(self.kind, name).is_some());
        let mut part = Vec::new();
        let mut bytes = 0;
        for (name, resource) in self.names.iter().filter_map(|name| snapshot.find(self.kind, name)) {
            if self.sent.get(name).is_some_and(|sent| sent == resource) {
                continue;
            }
            bytes += size(resource);
            if bytes > most_bytes && !part.is_empty() {
                break;
            }
            part.push((Arc::clone(name), Arc::clone(resource)));
        }
        part
    }
}

fn size(resource: &Any) -> usize {
    resource.type_url.len() + resource.value.len()
}

fn shortened(reason: &str) -> String {
    let end = reason.floor_char_boundary(MOST_REASON_BYTES.min(reason.len()));
    reason[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Catalog, Endpoint, Service};
    use crate::pb::google::rpc::Status;
    use crate::resources::Flavour;
    use crate::snapshot::Snapshots;

    /// One subscription, and the catalogs that it sees.
    struct Bench {
        subscription: Subscription,
        snapshots: Snapshots,
        limits: Limits,
        asked: bool,
        nonces: u64,
    }

    fn bench(kind: Kind) -> Bench {
        let limits = Limits::default();
        Bench {
            subscription: Subscription::new(kind),
            snapshots: Snapshots::default(),
            limits,
            asked: false,
            nonces: 0,
        }
    }

    fn catalog(revision: u64, services: &[(&str, u16)]) -> Catalog {
        let services = services.iter().map(|(name, port)| {
            let endpoints = vec![Endpoint::serving(([127, 0, 0, 1], *port).into())];
            ((*name).to_owned(), Arc::new(Service { endpoints, ..Service::default() }))
        });
        Catalog::new(revision, services).expect("a catalog")
    }

    impl Bench {
        fn ask(&mut self, names: &[&str], nonce: &str, error: Option<&str>) -> Meaning {
            let request = DiscoveryRequest {
                resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
                response_nonce: nonce.to_owned(),
                error_detail: error.map(|message| Status { code: 3, message: message.to_owned() }),
                ..DiscoveryRequest::default()
            };
            let first = !std::mem::replace(&mut self.asked, true);
            self.subscription.request(request, first, &self.limits).expect("within bounds")
        }

        /// Version, nonce and number of resources of the next answer.
        fn answer(&mut self, catalog: &Catalog) -> Option<(String, String, usize)> {
            let snapshot = self.snapshots.of(Flavour::Grpc, catalog);
            let nonces = &mut self.nonces;
            let nonce = || {
                *nonces += 1;
                format!("n{nonces}")
            };
            let answer = self.subscription.answer(&snapshot, nonce, &self.limits).expect("within bounds")?;
            Some((answer.response.version_info, answer.response.nonce, answer.response.resources.len()))
        }
    }

    fn seen(version: &str, nonce: &str, resources: usize) -> Option<(String, String, usize)> {
        Some((version.to_owned(), nonce.to_owned(), resources))
    }

    #[test]
    fn an_answer_is_sent_once_and_again_when_something_of_it_changes() {
        let mut bench = bench(Kind::Endpoints);
        assert_eq!(bench.ask(&["a"], "", None), Meaning::First);
        assert_eq!(bench.answer(&catalog(5, &[("a", 1), ("b", 1)])), seen("5", "n1", 1));
        assert_eq!(bench.ask(&["a"], "n1", None), Meaning::Ack);
        assert_eq!(bench.answer(&catalog(6, &[("a", 1), ("b", 2)])), None, "b is somebody else's");
        assert_eq!(bench.subscription.status().acked_revision, 5);
        assert_eq!(bench.answer(&catalog(7, &[("a", 2), ("b", 2)])), seen("7", "n2", 1));
        assert_eq!(bench.subscription.status().acked_revision, 5);
    }

    #[test]
    fn what_was_rejected_waits_for_its_next_change() {
        for kind in [Kind::Endpoints, Kind::Cluster] {
            let mut bench = bench(kind);
            bench.ask(&["a"], "", None);
            bench.answer(&catalog(1, &[("a", 1)])).expect("the first");
            assert_eq!(bench.ask(&["a"], "n1", Some("no such thing")), Meaning::Nack);
            assert_eq!(bench.answer(&catalog(1, &[("a", 1)])), None);
            assert_eq!(bench.answer(&catalog(2, &[("a", 1), ("b", 2)])), None);
            let status = bench.subscription.status();
            assert_eq!((status.nacks, status.acked_revision), (1, 0));
            assert_eq!(status.last_nack.as_deref(), Some("no such thing"));
        }
    }

    #[test]
    fn a_request_about_an_earlier_answer_changes_nothing_but_its_rejection_is_counted() {
        let mut bench = bench(Kind::Endpoints);
        bench.ask(&["a"], "", None);
        bench.answer(&catalog(1, &[("a", 1), ("b", 1)])).expect("the first");
        bench.answer(&catalog(2, &[("a", 2), ("b", 1)])).expect("the second");
        assert_eq!(bench.ask(&["a", "b"], "n1", None), Meaning::Stale);
        assert_eq!(bench.answer(&catalog(2, &[("a", 2), ("b", 1)])), None);
        assert_eq!(bench.ask(&["a"], "n1", Some("bad")), Meaning::Nack);
        assert_eq!((bench.subscription.status().nacks, bench.subscription.status().acked_revision), (1, 0));
        assert_eq!(bench.ask(&["a", "b"], "n2", None), Meaning::Ack);
        assert_eq!(bench.answer(&catalog(2, &[("a", 2), ("b", 1)])), seen("2", "n3", 1));
    }

    #[test]
    fn names_given_before_the_first_answer_count() {
        let mut bench = bench(Kind::Endpoints);
        bench.ask(&["a"], "", None);
        bench.answer(&catalog(1, &[("a", 1), ("b", 1)])).expect("the first");
        assert_eq!(bench.ask(&["a", "b"], "", None), Meaning::Early);
        assert_eq!(bench.answer(&catalog(1, &[("a", 1), ("b", 1)])), seen("1", "n2", 1));
    }

    #[test]
    fn no_names_means_all_until_names_were_given() {
        let all = catalog(1, &[("a", 1), ("b", 1)]);
        let mut bench = bench(Kind::Cluster);
        bench.ask(&[], "", None);
        assert_eq!(bench.answer(&all), seen("1", "n1", 2));
        bench.ask(&[], "n1", None);
        assert_eq!(bench.answer(&all), None);
        bench.ask(&["a"], "n1", None);
        assert_eq!(bench.answer(&all), seen("1", "n2", 1));
        bench.ask(&[], "n2", None);
        assert_eq!(bench.answer(&all), None, "nothing is wanted any more");
        bench.ask(&["*", "a"], "n2", None);
        assert_eq!(bench.answer(&all), seen("1", "n3", 2));
        assert!(bench.subscription.status().wildcard);
    }

    #[test]
    fn endpoints_cannot_be_asked_for_without_names() {
        let mut bench = bench(Kind::Endpoints);
        bench.ask(&[], "", None);
        assert_eq!(bench.answer(&catalog(1, &[("a", 1)])), None);
    }

    #[test]
    fn a_service_that_is_gone_is_missing_from_clusters_and_silent_in_endpoints() {
        let before = catalog(1, &[("a", 1), ("b", 1)]);
        let after = catalog(2, &[("b", 1)]);
        let mut clusters = bench(Kind::Cluster);
        clusters.ask(&["a", "b"], "", None);
        assert_eq!(clusters.answer(&before), seen("1", "n1", 2));
        assert_eq!(clusters.answer(&after), seen("2", "n2", 1));
        let mut endpoints = bench(Kind::Endpoints);
        endpoints.ask(&["a", "b"], "", None);
        endpoints.answer(&before).expect("the first");
        assert_eq!(endpoints.answer(&after), None);
        let again = catalog(3, &[("a", 1), ("b", 1)]);
        assert_eq!(endpoints.answer(&again), seen("3", "n2", 1), "what comes back is sent again");
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_where_absence_can_be_said() {
        let mut clusters = bench(Kind::Cluster);
        clusters.ask(&["nobody"], "", None);
        assert_eq!(clusters.answer(&catalog(1, &[])), seen("1", "n1", 0));
        let mut endpoints = bench(Kind::Endpoints);
        endpoints.ask(&["nobody"], "", None);
        assert_eq!(endpoints.answer(&catalog(1, &[])), None);
    }

    #[test]
    fn what_is_wanted_again_is_sent_again() {
        let all = catalog(1, &[("a", 1), ("b", 1)]);
        let mut bench = bench(Kind::Route);
        bench.ask(&["a", "b"], "", None);
        assert_eq!(bench.answer(&all), seen("1", "n1", 2));
        bench.ask(&["a"], "n1", None);
        assert_eq!(bench.answer(&all), None);
        bench.ask(&["a", "b"], "n1", None);
        assert_eq!(bench.answer(&all), seen("1", "n2", 1));
    }

    #[test]
    fn many_endpoints_come_in_parts() {
        let all = catalog(1, &[("a", 1), ("b", 1), ("c", 1)]);
        let mut bench = bench(Kind::Endpoints);
        bench.limits.part_bytes = 1;
        bench.ask(&["a", "b", "c"], "", None);
        for nonce in ["n1", "n2", "n3"] {
            assert_eq!(bench.answer(&all), seen("1", nonce, 1));
        }
        assert_eq!(bench.answer(&all), None);
    }

    #[test]
    fn too_much_is_refused_with_the_number_and_the_bound() {
        let mut bench = bench(Kind::Cluster);
        bench.limits.names = 1;
        let names = vec!["a".to_owned(), "b".to_owned()];
        let request = DiscoveryRequest { resource_names: names, ..DiscoveryRequest::default() };
        let error = bench.subscription.request(request, true, &bench.limits).expect_err("two names");
        assert_eq!(error, Bound::Names { names: 2, bound: 1 });
        bench.ask(&[], "", None);
        bench.limits.answer_bytes = 100;
        let snapshot = bench.snapshots.of(Flavour::Grpc, &catalog(1, &[("a", 1)]));
        let error = bench.subscription.answer(&snapshot, String::new, &bench.limits).expect_err("too large");
        assert!(error.to_string().contains("and 100 is the bound"), "{error}");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(1_000)).len(), 1_024);
        assert_eq!(shortened(&format!("x{}", "é".repeat(1_000))).len(), 1_023);
    }
}
