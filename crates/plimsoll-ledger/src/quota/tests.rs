//! The tree against a naive reading of the formulae, and what must hold after any admitted history.

use std::collections::BTreeMap;

use plimsoll_types::{Amount, Resources};
use proptest::prelude::*;

use super::*;
use crate::Queue;

const POOL: &str = "gpus";

fn quota(guaranteed: u64, nominal: u64, limit: Option<u64>) -> Quota {
    Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit: limit.map(Amount) }
}

fn queue(name: &str, parent: &str, cpu: Option<Quota>) -> Queue {
    let quotas = cpu.map(|quota| (POOL.to_owned(), BTreeMap::from([("cpu".to_owned(), quota)])));
    let quotas = quotas.into_iter().collect();
    Queue { name: name.to_owned(), parent: parent.to_owned(), quotas, ..Queue::default() }
}

fn cpu(amount: u64) -> Resources {
    Resources::new(amount, 0)
}

fn available(tree: &QuotaTree, queue: &str) -> u64 {
    tree.available(queue, POOL, "cpu").expect("managed").0
}

/// org: 20 of its own; vision: 40, of which 10 are never lent, at most 70; speech: 40.
fn org() -> QuotaTree {
    QuotaTree::new(&[
        queue("org", "", Some(quota(0, 20, None))),
        queue("vision", "org", Some(quota(10, 40, Some(70)))),
        queue("speech", "org", Some(quota(0, 40, None))),
    ])
}

#[test]
fn idle_quota_is_lent_up_to_limits_and_guarantees() {
    let mut tree = org();
    assert_eq!(available(&tree, "vision"), 70, "its limit");
    assert_eq!(available(&tree, "speech"), 90, "all but what vision never lends");
    tree.take("speech", POOL, &cpu(50));
    assert_eq!(available(&tree, "vision"), 50, "10 of its own and 40 of what is shared");
    tree.take("vision", POOL, &cpu(45));
    assert_eq!((available(&tree, "vision"), available(&tree, "speech")), (5, 5));
    tree.give_back("speech", POOL, &cpu(50));
    assert_eq!((available(&tree, "vision"), available(&tree, "speech")), (25, 55));
    tree.give_back("vision", POOL, &cpu(45));
    assert_eq!(tree, org(), "nothing is left behind");
}

#[test]
fn a_shortage_names_the_queue_that_binds() {
    let mut tree = org();
    tree.take("vision", POOL, &cpu(65));
    let short = tree.shortages("vision", POOL, &cpu(6));
    assert_eq!(short.len(), 1);
    assert_eq!((short[0].queue.as_str(), short[0].free, short[0].limit), ("vision", Amount(5), Amount(70)));
    tree.take("speech", POOL, &cpu(35));
    let short = tree.shortages("speech", POOL, &cpu(1));
    assert_eq!((short[0].queue.as_str(), short[0].free, short[0].limit), ("org", Amount(0), Amount(90)));
    assert!(tree.shortages("speech", POOL, &Resources::new(0, 1 << 40)).is_empty(), "nobody is given memory");
    assert!(tree.shortages("speech", "other", &cpu(1 << 40)).is_empty(), "nor anything of this pool");
}

#[test]
fn a_cut_below_use_takes_nothing_away_and_gives_nothing_more() {
    let mut tree = org();
    tree.take("vision", POOL, &cpu(70));
    let tree = tree.with_policy(&[queue("org", "", None), queue("vision", "org", Some(quota(0, 30, None)))]);
    assert_eq!(tree.cell("vision", POOL, "cpu").expect("managed").usage, Amount(70));
    assert_eq!(available(&tree, "vision"), 0);
    assert!(tree.would_borrow("vision", POOL, &cpu(1)));
}

#[test]
fn the_share_counts_what_is_borrowed_by_weight_and_price() {
    let mut specs = vec![queue("org", "", Some(quota(0, 60, None)))];
    for (name, weight_milli) in [("a", 1_000), ("b", 2_000), ("none", 0)] {
        specs.push(Queue { weight_milli, ..queue(name, "org", Some(quota(0, 20, None))) });
    }
    let mut tree = QuotaTree::new(&specs);
    let flat = BTreeMap::new();
    let share = |tree: &QuotaTree, queue: &str| tree.share(queue, &flat, true).0;
    tree.take("a", POOL, &cpu(20));
    assert_eq!(share(&tree, "a"), 0, "its own");
    tree.take("a", POOL, &cpu(12));
    tree.take("b", POOL, &cpu(32));
    assert_eq!(share(&tree, "a"), 100_000_000, "12 of the 120 that org could lend");
    assert_eq!(share(&tree, "b"), 50_000_000, "twice the weight, half the share");
    assert_eq!(share(&tree, "none"), 0);
    tree.take("none", POOL, &cpu(21));
    assert_eq!(share(&tree, "none"), u128::MAX);
    assert_eq!(tree.share("b", &flat, false).0, 100_000_000, "as if weights were equal");
    let dear = BTreeMap::from([(POOL.to_owned(), 4_000)]);
    assert_eq!(tree.share("a", &dear, true).0, 100_000_000, "alone, a price is no difference");
}

#[test]
fn a_dear_pool_weighs_more_than_a_cheap_one() {
    let both = |nominal: u64| {
        let quota = quota(0, nominal, None);
        let gpus = BTreeMap::from([(GPU.to_owned(), quota)]);
        BTreeMap::from([("cheap".to_owned(), gpus.clone()), ("dear".to_owned(), gpus)])
    };
    let root =
        Queue { name: "org".to_owned(), weight_milli: 1_000, quotas: both(10_000), ..Queue::default() };
    let leaf = |name: &str| Queue {
        name: name.to_owned(),
        parent: "org".to_owned(),
        weight_milli: 1_000,
        ..Queue::default()
    };
    let mut tree = QuotaTree::new(&[root, leaf("a"), leaf("b")]);
    tree.take("a", "cheap", &Resources::default().with("gpu", 4_000));
    tree.take("b", "dear", &Resources::default().with("gpu", 4_000));
    let prices = BTreeMap::from([("dear".to_owned(), 3_000)]);
    let share = |queue: &str| tree.share(queue, &prices, true).0;
    assert_eq!((share("a"), share("b")), (100_000_000, 300_000_000), "of 40 thousand in prices");
}

/// The formulae read off the page, worked out anew each time from the leaves' use.
struct Naive<'a> {
    specs: &'a [Queue],
    used: &'a BTreeMap<String, u64>,
}

impl Naive<'_> {
    fn find(&self, name: &str) -> Option<&Queue> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    fn quota(&self, name: &str) -> Quota {
        self.find(name)
            .and_then(|spec| spec.quotas.values().next()?.values().next())
            .copied()
            .unwrap_or_default()
    }

    fn children(&self, name: &str) -> impl Iterator<Item = &Queue> {
        self.specs.iter().filter(move |spec| spec.parent == name)
    }

    fn subtree(&self, name: &str) -> u64 {
        self.quota(name).nominal.0
            + self.children(name).map(|c| self.subtree(&c.name) - self.local(&c.name)).sum::<u64>()
    }

    fn local(&self, name: &str) -> u64 {
        let quota = self.quota(name);
        let lending_limit = (quota.guaranteed.0 > 0).then(|| quota.nominal.0 - quota.guaranteed.0);
        lending_limit.map_or(0, |limit| self.subtree(name).saturating_sub(limit))
    }

    fn usage(&self, name: &str) -> u64 {
        let below =
            self.children(name).map(|c| self.usage(&c.name).saturating_sub(self.local(&c.name))).sum::<u64>();
        self.used.get(name).copied().unwrap_or_default() + below
    }

    fn available(&self, name: &str) -> i128 {
        let (subtree, usage) = (i128::from(self.subtree(name)), i128::from(self.usage(name)));
        let spec = self.find(name).expect("there");
        if spec.parent.is_empty() {
            return subtree - usage;
        }
        let local = i128::from(self.local(name));
        let mut above = self.available(&spec.parent);
        let quota = self.quota(name);
        if let Some(limit) = quota.limit {
            let borrow = i128::from(limit.0) - i128::from(quota.nominal.0);
            above = above.min((subtree - local) - (usage - local).max(0) + borrow);
        }
        (local - usage).max(0) + above
    }
}

fn quotas() -> impl Strategy<Value = Option<Quota>> {
    prop::option::weighted(0.8, (0u64..30, 0u64..30, prop::option::of(0u64..40))).prop_map(|drawn| {
        drawn.map(|(guaranteed, more, borrow)| {
            let nominal = guaranteed + more;
            quota(guaranteed, nominal, borrow.map(|borrow| nominal + borrow))
        })
    })
}

/// Up to nine queues; the parent of each is one before it, or none for the first.
fn trees() -> impl Strategy<Value = Vec<Queue>> {
    prop::collection::vec((quotas(), any::<prop::sample::Index>()), 1..9).prop_map(|drawn| {
        let parent = |i: usize, index: &prop::sample::Index| {
            if i == 0 { String::new() } else { format!("q{}", index.index(i)) }
        };
        let make = |(i, (quota, index)): (usize, &(Option<Quota>, prop::sample::Index))| {
            let quota = quota.or((i == 0).then(Quota::default));
            queue(&format!("q{i}"), &parent(i, index), quota)
        };
        drawn.iter().enumerate().map(make).collect()
    })
}

proptest! {
    #[test]
    fn the_tree_agrees_with_the_formulae_after_any_admitted_history(
        specs in trees(),
        later in trees(),
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0u64..40, any::<bool>()), 0..60),
    ) {
        let mut tree = QuotaTree::new(&specs);
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        for (index, amount, give) in steps {
            let queue = &specs[index.index(specs.len())].name;
            if give {
                let held = used.entry(queue.clone()).or_default();
                let back = amount.min(*held);
                *held -= back;
                tree.give_back(queue, POOL, &cpu(back));
            } else {
                let naive = Naive { specs: &specs, used: &used };
                let free = naive.available(queue).max(0);
                let short = tree.shortages(queue, POOL, &cpu(amount));
                prop_assert_eq!(short.is_empty(), i128::from(amount) <= free);
                if short.is_empty() {
                    tree.take(queue, POOL, &cpu(amount));
                    *used.entry(queue.clone()).or_default() += amount;
                }
            }
            let naive = Naive { specs: &specs, used: &used };
            for spec in &specs {
                let cell = tree.cell(&spec.name, POOL, "cpu").expect("managed");
                prop_assert_eq!(cell.usage.0, naive.usage(&spec.name));
                prop_assert_eq!(cell.subtree.0, naive.subtree(&spec.name));
                prop_assert_eq!(i128::from(available(&tree, &spec.name)), naive.available(&spec.name).max(0));
                // I4: no root above its quota, nobody above its limit; what is guaranteed can be had.
                prop_assert!(!spec.parent.is_empty() || cell.usage <= cell.subtree);
                if let Some(limit) = cell.quota.limit {
                    let beyond_nominal = cell.subtree.0 - cell.quota.nominal.0;
                    prop_assert!(cell.usage.0 <= limit.0 + beyond_nominal);
                }
                prop_assert!(available(&tree, &spec.name) >= cell.local().saturating_sub(cell.usage).0);
            }
        }
        // Another policy over the same use is as if it had been there from the start.
        let moved = tree.with_policy(&later);
        used.retain(|name, _| later.iter().any(|spec| spec.name == *name));
        let mut fresh = QuotaTree::new(&later);
        for (queue, amount) in used.iter().filter(|(_, amount)| **amount > 0) {
            fresh.take(queue, POOL, &cpu(*amount));
        }
        prop_assert_eq!(moved, fresh);
    }
}
