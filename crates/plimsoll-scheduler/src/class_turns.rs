//! Whose class's turn it is in a pool whose classes share it by their weights.
//!
//! `share(c) = max over resources of [ (held by grants of c + next) / what the pool has ] / weight(c)`
//! The lowest goes first, among equals the higher class. It is weighted max-min fairness on the dominant resource, as between queues
//! (Ghodsi et al., NSDI 2011), with what is held now in place of what is borrowed: a class that always waits comes to weight / sum of the weights that wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use plimsoll_ledger::{ClassOrder, Ledger, Pool, Request, Share, least};
use plimsoll_mutants::mutant;
use plimsoll_types::{ReservationId, Resources};

/// A share is in billionths.
const WHOLE: u128 = 1_000_000_000;

/// What classes hold of one pool, for one walk: with what the walk has given them so far.
#[derive(Clone, Debug)]
pub(crate) struct ClassTurns {
    /// What the nodes of the pool have.
    total: BTreeMap<String, u128>,
    held: BTreeMap<String, BTreeMap<String, u128>>,
    /// In thousandths, with the priority.
    weights: BTreeMap<String, (u32, i32)>,
}

/// Who goes first: the lowest.
pub(crate) type ClassTurn = (Share, Reverse<i32>);

impl ClassTurns {
    /// `None` where the pool goes by priority. O(nodes + classes x resources); `placing` are on their way to their places.
    pub(crate) fn new<'l>(
        ledger: &'l Ledger,
        pool: &Pool,
        placing: impl Iterator<Item = &'l Request>,
    ) -> Option<ClassTurns> {
        if pool.class_order != ClassOrder::Weighted || mutant!("serve-classes-by-priority") {
            return None;
        }
        let mut total = BTreeMap::new();
        for node in ledger.nodes().filter(|node| node.pool == pool.name) {
            add(&mut total, &node.registration.capacity);
            *total.entry("gpu".to_owned()).or_default() += node.registration.devices.len() as u128 * 1_000;
        }
        for (name, amount) in &pool.countables {
            *total.entry(name.clone()).or_default() += u128::from(amount.0);
        }
        let weight = |name: &String| {
            let class = ledger.class(name).map(|class| (class.weight(), class.priority));
            (name.clone(), class.unwrap_or_default())
        };
        let weights = ledger.classes().map(|class| &class.name).map(weight).collect();
        let mut turns = ClassTurns { total, held: BTreeMap::new(), weights };
        for (class, held) in ledger.held_by_class(&pool.name).into_iter().flatten() {
            add(turns.held.entry(class.clone()).or_default(), held);
        }
        for request in placing.filter(|request| request.pool == pool.name) {
            turns.take(request);
        }
        Some(turns)
    }

    /// A request was given a place.
    pub(crate) fn take(&mut self, request: &Request) {
        add(self.held.entry(request.class.clone()).or_default(), &least(request));
    }

    /// Where the class of a request stands with the request granted. O(resources).
    pub(crate) fn turn_with(&self, next: &Request) -> ClassTurn {
        let (weight_milli, priority) = self.weights.get(&next.class).copied().unwrap_or_default();
        let mut held = self.held.get(&next.class).cloned().unwrap_or_default();
        add(&mut held, &least(next));
        let part = |(name, amount): (&String, &u128)| match self.total.get(name).copied().unwrap_or_default()
        {
            0 => 0,
            total => amount.saturating_mul(WHOLE) / total,
        };
        let largest = held.iter().map(part).max().unwrap_or_default();
        let share = match u128::from(weight_milli) {
            0 => Share(u128::MAX),
            weight => Share(largest.saturating_mul(1_000) / weight),
        };
        (share, Reverse(priority))
    }
}

/// Those who wait in one line, by class; inside a class in the order of the queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClassLines {
    lines: BTreeMap<String, VecDeque<ReservationId>>,
}

impl ClassLines {
    /// All of them, in the order of the queue. Where classes go by priority it is one line.
    pub(crate) fn push(&mut self, turns: Option<&ClassTurns>, class: &str, id: ReservationId) {
        let line = if turns.is_some() { class } else { "" };
        self.lines.entry(line.to_owned()).or_default().push_back(id);
    }

    /// The one whose turn it is. O(classes that wait).
    pub(crate) fn first(&self, ledger: &Ledger, turns: Option<&ClassTurns>) -> Option<ReservationId> {
        let heads = self.lines.values().filter_map(|line| line.front().copied());
        match turns {
            None => heads.min(),
            Some(turns) => heads.min_by_key(|id| {
                let request = ledger.reservation(*id).map(|waiting| turns.turn_with(&waiting.request));
                (request.unwrap_or_default(), *id)
            }),
        }
    }

    /// The one whose turn it was has had it.
    pub(crate) fn pop(&mut self, id: ReservationId) {
        self.lines.retain(|_, line| {
            if line.front() == Some(&id) {
                line.pop_front();
            }
            !line.is_empty()
        });
    }
}

fn add(sums: &mut BTreeMap<String, u128>, amounts: &Resources) {
    for (resource, amount) in amounts.iter() {
        *sums.entry(resource.to_owned()).or_default() += u128::from(amount.0);
    }
}
