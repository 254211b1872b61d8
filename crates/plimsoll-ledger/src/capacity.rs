//! How a node is paid for, and which of such a policy lets a request use (`docs/semantics.md` 5.22).
//!
//! A node says it with labels: `capacity_type`, `price_permille`, `spot_pool`. Where a policy says what its requests may use, a new request gets that as
//! required and preferred labels, once: so searches, refusals and explanations know no more than labels.

use std::borrow::Cow;

use plimsoll_types::{Labels, Operator, Term};

use crate::limits::{MAX_ITEMS, MAX_PRICE_PERMILLE, MAX_TAG_BYTES};
use crate::{Blocker, Ledger, Node, PolicyObject, Preferred, Reason, Registration, Request, Requirements};

/// First ledger version that knows spot capacity.
pub(crate) const SINCE_VERSION: u32 = 11;

/// Label of a node that says how it is paid for; `on_demand` where an agent says nothing.
pub const CAPACITY_TYPE: &str = "capacity_type";
/// Label of a node that says what it costs, in thousandths of its pool's prices; `1000` where an agent says nothing.
pub const PRICE_PERMILLE: &str = "price_permille";
/// Label of a spot node: which market it is bought in, such as `g5.xlarge/eu-west-1a`. What is in one goes at once.
pub const SPOT_POOL: &str = "spot_pool";
/// Label of a request that says what kind of work it is.
const TASK: &str = "task";
/// Weights of the first and second kind of capacity of a policy's order.
const WEIGHTS: [u32; 2] = [100, 50];

/// How a node is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapacityType {
    /// By the hour, for as long as one likes.
    #[default]
    OnDemand,
    /// Long ahead: it costs the same whether it is used or not.
    Reserved,
    /// By what others leave: its provider takes it back after a short notice.
    Spot,
}

impl CapacityType {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, CapacityType); 3] = [
        ("on_demand", CapacityType::OnDemand),
        ("reserved", CapacityType::Reserved),
        ("spot", CapacityType::Spot),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        CapacityType::NAMED.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// What becomes of work whose node is taken back by its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnInterruption {
    /// It is told to save what it has, and waits again in its old place.
    CheckpointAndRetry,
    /// It waits again in its old place.
    Requeue,
    /// It ends.
    Fail,
}

impl OnInterruption {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, OnInterruption); 3] = [
        ("checkpoint_and_retry", OnInterruption::CheckpointAndRetry),
        ("requeue", OnInterruption::Requeue),
        ("fail", OnInterruption::Fail),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        OnInterruption::NAMED.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// How much of the work of a pool or queue goes to spot nodes, which, and what becomes of it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpotPolicy {
    /// Of the members beyond `base`, at most so many thousandths are on spot nodes.
    pub share_permille: u32,
    /// So many members are on other nodes before any is on a spot node.
    pub base: u32,
    /// Where suitable work goes when no spot node has room, best first; empty for reserved, then on demand.
    pub fallback: Vec<CapacityType>,
    /// No node is used that costs more than so many thousandths of the pool's prices: 1,000 or more; 0 for no such ceiling.
    pub max_price_permille: u32,
    /// What may be on spot nodes: names of classes, values of the label `task`, or keys of labels. Empty for all.
    pub suitable_for: Vec<String>,
    /// What becomes of work whose node is taken back, where its request does not say; `None` for what becomes of any preempted one.
    pub on_interruption: Option<OnInterruption>,
    /// Of the members of one service, at most so many thousandths are in one spot pool; 0 for no such bound.
    pub max_in_one_permille: u32,
}

impl SpotPolicy {
    /// True where the request may be on spot nodes.
    fn suits(&self, request: &Request) -> bool {
        let is_of = |tag: &String| {
            request.class == *tag
                || request.labels.contains_key(tag)
                || request.labels.get(TASK).is_some_and(|task| task == tag)
        };
        self.suitable_for.is_empty() || self.suitable_for.iter().any(is_of)
    }

    /// Kinds of capacity that the request may use, best first.
    fn order(&self, request: &Request) -> Vec<CapacityType> {
        let fallback = if self.fallback.is_empty() {
            &[CapacityType::Reserved, CapacityType::OnDemand][..]
        } else {
            self.fallback.as_slice()
        };
        let spot = self.suits(request).then_some(CapacityType::Spot);
        spot.into_iter().chain(fallback.iter().copied()).collect()
    }

    /// Every way in which the policy of `path` makes no sense.
    pub(crate) fn faults(&self, path: &str) -> Vec<Blocker> {
        let mut bad = Vec::new();
        let mut range = |field: &str, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                let blocker = Blocker::new(Reason::InvalidArgument, format!("{path}.{field}"), value, least);
                bad.push(Blocker { limit: most, ..blocker });
            }
        };
        range("share_permille", self.share_permille.into(), 0, 1_000);
        range("max_in_one_permille", self.max_in_one_permille.into(), 0, 1_000);
        if self.max_price_permille > 0 {
            range("max_price_permille", self.max_price_permille.into(), 1_000, MAX_PRICE_PERMILLE.into());
        }
        range("suitable_for", self.suitable_for.len() as u64, 0, MAX_ITEMS as u64);
        for tag in &self.suitable_for {
            range("suitable_for", tag.len() as u64, 1, MAX_TAG_BYTES as u64);
        }
        let mut seen = self.fallback.clone();
        seen.sort_unstable();
        seen.dedup();
        let most = if self.fallback.contains(&CapacityType::Spot) { 0 } else { seen.len() as u64 };
        range("fallback", self.fallback.len() as u64, 0, most);
        bad
    }
}

impl Node {
    /// How it is paid for.
    pub fn capacity_type(&self) -> CapacityType {
        capacity_type_of(&self.registration.labels)
    }

    /// What it costs, in thousandths of its pool's prices.
    pub fn price_permille(&self) -> u32 {
        price_of(&self.registration.labels)
    }

    /// The market of a spot node, empty where it names none; `None` for other nodes.
    pub fn spot_pool(&self) -> Option<&str> {
        let is_spot = self.capacity_type() == CapacityType::Spot;
        is_spot.then(|| self.registration.labels.get(SPOT_POOL).map_or("", String::as_str))
    }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_spot(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::Pool(pool) => pool.spot.is_some(),
        PolicyObject::Queue(queue) => queue.spot.is_some(),
        _ => false,
    }
}

/// True for requests that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_interruption(request: &Request) -> bool {
    request.on_interruption.is_some()
}

fn capacity_type_of(labels: &Labels) -> CapacityType {
    let said = labels.get(CAPACITY_TYPE);
    let known = CapacityType::NAMED.iter().find(|(name, _)| said.is_some_and(|said| said == name));
    known.map_or(CapacityType::OnDemand, |(_, known)| *known)
}

/// What a node with these labels costs, in thousandths of its pool's prices.
pub(crate) fn price_of(labels: &Labels) -> u32 {
    let said = labels.get(PRICE_PERMILLE).and_then(|price| price.parse().ok());
    said.filter(|price| (1..=MAX_PRICE_PERMILLE).contains(price)).unwrap_or(1_000)
}

/// Labels of how a node is paid for that make no sense.
pub(crate) fn label_faults(registration: &Registration) -> Vec<Blocker> {
    let labels = &registration.labels;
    let no = |key: &str, value: &String| {
        Blocker::new(Reason::InvalidArgument, format!("label {key}: {value:?}"), 1, 0)
    };
    let of_type = labels
        .get(CAPACITY_TYPE)
        .filter(|said| CapacityType::NAMED.iter().all(|(name, _)| said != name))
        .map(|said| Blocker { limit: 3, ..no(CAPACITY_TYPE, said) });
    let makes_sense = |said: &str| {
        said.parse::<u32>().is_ok_and(|price| (1..=MAX_PRICE_PERMILLE).contains(&price))
            && !said.starts_with('+')
    };
    let of_price = labels
        .get(PRICE_PERMILLE)
        .filter(|said| !makes_sense(said))
        .map(|said| Blocker { limit: MAX_PRICE_PERMILLE.into(), ..no(PRICE_PERMILLE, said) });
    of_type.into_iter().chain(of_price).collect()
}

/// Says how the node is paid for where its agent does not. True where that was so.
pub(crate) fn fill_labels(labels: &mut Labels) -> bool {
    let before = labels.len();
    for (key, value) in [(CAPACITY_TYPE, CapacityType::OnDemand.name()), (PRICE_PERMILLE, "1000")] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    labels.len() > before
}

impl Requirements {
    /// True where it says something of a label of nodes.
    fn minds(&self, key: &str) -> bool {
        self.required.terms.iter().any(|term| term.key == key)
            || self.preferred.iter().any(|wish| wish.term.key == key)
    }
}

impl Request {
    fn minds(&self, key: &str) -> bool {
        self.requirements.minds(key) || self.roles.iter().any(|role| role.requirements.minds(key))
    }

    /// True where nodes of that kind may be used, as far as the request's own labels say.
    pub fn may_use(&self, kind: CapacityType) -> bool {
        let labels = Labels::from([(CAPACITY_TYPE.to_owned(), kind.name().to_owned())]);
        let terms = self.requirements.required.terms.iter();
        terms.filter(|term| term.key == CAPACITY_TYPE).all(|term| term.matches(&labels))
    }

    /// The request kept off spot nodes.
    pub fn off_spot(&self) -> Request {
        let mut request = self.clone();
        request.requirements.required.terms.push(not_spot());
        request
    }
}

/// The node is no spot node.
pub fn not_spot() -> Term {
    let values = vec![CapacityType::Spot.name().to_owned()];
    Term { key: CAPACITY_TYPE.to_owned(), operator: Operator::NotIn, values }
}

impl Ledger {
    /// The policy about spot nodes for a request: of its queue, or the nearest above it that has one, or of its pool.
    pub fn spot_policy(&self, request: &Request) -> Option<&SpotPolicy> {
        if !self.asks_for_spots() {
            return None;
        }
        let of_queue = self.quota.path(&request.queue).find_map(|name| self.queue(name)?.spot.as_ref());
        of_queue.or_else(|| self.pool(&request.pool)?.spot.as_ref())
    }

    /// A new request with what its class and the policy about spot nodes say where it says nothing: what the ledger keeps, and what a place is looked
    /// for. The same for one that is filled in already.
    pub fn filled<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let mut filled = self.with_qos(request);
        let Some(policy) = self.spot_policy(request) else { return filled };
        if !request.minds(CAPACITY_TYPE) {
            let order = policy.order(request);
            let left_out: Vec<String> = CapacityType::NAMED
                .iter()
                .filter(|(_, kind)| !order.contains(kind))
                .map(|(name, _)| (*name).to_owned())
                .collect();
            let needs = &mut filled.to_mut().requirements;
            let terms = &mut needs.required.terms;
            terms.push(match left_out.is_empty() {
                // It says nothing but that all has been said.
                true => {
                    Term { key: CAPACITY_TYPE.to_owned(), operator: Operator::Exists, values: Vec::new() }
                }
                false => Term { key: CAPACITY_TYPE.to_owned(), operator: Operator::NotIn, values: left_out },
            });
            if order.contains(&CapacityType::Spot) {
                let wishes = order.iter().zip(WEIGHTS).map(|(kind, weight)| Preferred {
                    weight,
                    term: Term {
                        key: CAPACITY_TYPE.to_owned(),
                        operator: Operator::In,
                        values: vec![kind.name().to_owned()],
                    },
                });
                needs.preferred.extend(wishes.take(order.len() - 1));
            }
        }
        if policy.max_price_permille > 0 && !request.minds(PRICE_PERMILLE) {
            let above = u64::from(policy.max_price_permille) + 1;
            filled.to_mut().requirements.required.terms.push(Term {
                key: PRICE_PERMILLE.to_owned(),
                operator: Operator::Lt,
                values: vec![above.to_string()],
            });
        }
        if let Some(what) = policy.on_interruption.filter(|_| request.on_interruption.is_none()) {
            filled.to_mut().on_interruption = Some(what);
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Registration {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Registration { labels, ..Registration::default() }
    }

    #[test]
    fn labels_that_say_no_kind_and_no_price_are_told() {
        assert_eq!(label_faults(&labels(&[])), []);
        assert_eq!(label_faults(&labels(&[(CAPACITY_TYPE, "spot"), (PRICE_PERMILLE, "350")])), []);
        for (key, value) in [
            (CAPACITY_TYPE, "Spot"),
            (CAPACITY_TYPE, ""),
            (PRICE_PERMILLE, "0"),
            (PRICE_PERMILLE, "-3"),
            (PRICE_PERMILLE, "+3"),
            (PRICE_PERMILLE, "0.35"),
            (PRICE_PERMILLE, "99999999999"),
        ] {
            assert_eq!(label_faults(&labels(&[(key, value)])).len(), 1, "{key}={value}");
        }
    }

    #[test]
    fn a_class_a_task_or_a_label_makes_a_request_suitable() {
        let policy = SpotPolicy { suitable_for: vec!["preprocessing".to_owned()], ..SpotPolicy::default() };
        let with = |key: &str, value: &str| Request {
            labels: Labels::from([(key.to_owned(), value.to_owned())]),
            ..Request::default()
        };
        assert!(!policy.suits(&Request::default()));
        assert!(policy.suits(&Request { class: "preprocessing".to_owned(), ..Request::default() }));
        assert!(policy.suits(&with("task", "preprocessing")));
        assert!(policy.suits(&with("preprocessing", "")));
        assert!(!policy.suits(&with("stage", "preprocessing")));
        assert!(SpotPolicy::default().suits(&Request::default()));
    }
}
