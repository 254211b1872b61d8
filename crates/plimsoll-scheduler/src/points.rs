//! Points of those who wait in a queue that goes by points: what they are of, and the order that they make (`docs/semantics.md` 5.27).
//!
//! `points = age x waited / max age + size x smallness + fair_share x factor + qos x service + sum of resources x asked / what the pool has - nice`
//! in integers, each factor at most the whole: Slurm's multifactor. Advance reservations go before all of it, then the class, then the points, then age.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_ledger::{
    Account, Ledger, Pool, PriorityWeights, Qos, Request, Reservation, fair_tree_order, least,
};
use plimsoll_mutants::mutant;
use plimsoll_types::quantity::format_duration_ms;
use plimsoll_types::{LedgerTime, ReservationId, Resources};

use crate::over_time::{PAST_MILLI, WHOLE, add};
use crate::queueing::Ask;

/// Smallness is none from this many doublings of a thousandth of a device or core on.
const DOUBLINGS: u64 = 20;
/// A factor of fair share is in millionths.
const FACTOR: u64 = 1_000_000;

/// Points for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointTerm {
    /// `age`, `size`, `fair_share`, `qos`, `nice`, or a resource.
    pub name: String,
    /// How many; less than 0 where they are given up.
    pub points: i64,
    /// Most that there are.
    pub most: u32,
    /// How they come about, for people.
    pub told: String,
}

/// Counts points of one pool, as of one moment.
pub(crate) struct Points {
    weights: PriorityWeights,
    now_ms: u64,
    /// What the pool has.
    total: BTreeMap<String, u128>,
    /// Per queue, where little use counts.
    fair: BTreeMap<String, u32>,
}

impl Points {
    /// `None` where the pool does not go by points. O(nodes), and O(queues log queues) where little use counts.
    pub(crate) fn new(ledger: &Ledger, pool: &Pool, now: LedgerTime) -> Option<Points> {
        let weights = pool.points()?;
        let total = if weights.resources.is_empty() && weights.fair_share == 0 {
            BTreeMap::new()
        } else {
            total_of(ledger, pool)
        };
        let fair = if weights.fair_share == 0 { BTreeMap::new() } else { fair_factors(ledger, pool, &total) };
        Some(Points { weights, now_ms: now.0, total, fair })
    }

    /// All together. O(resources).
    pub(crate) fn of(&self, waiting: &Reservation) -> i64 {
        if mutant!("forget-the-points") {
            return 0;
        }
        let request = &waiting.request;
        let asked = least(request);
        let resources = self.weights.resources.keys().map(|name| self.resource(name, &asked));
        let gained = [self.age(waiting), self.size(request), self.fair_share(request), self.qos(request)];
        let gained: u64 = gained.into_iter().chain(resources).sum();
        i64::try_from(gained).unwrap_or(i64::MAX) - i64::from(request.nice)
    }

    /// What they are of: everything that has a weight, and what the request gives up.
    pub(crate) fn terms(&self, waiting: &Reservation) -> Vec<PointTerm> {
        let (request, weights) = (&waiting.request, &self.weights);
        let waited = format_duration_ms(self.waited_ms(waiting) / 1_000 * 1_000);
        let age = format!("waited {waited} of {}", format_duration_ms(weights.max_age_ms));
        let units = Ask::of(request).total();
        let size = format!("asks for {units} thousandths");
        let fair = match self.fair.get(&request.queue) {
            Some(factor) => format!("{}.{} % of the whole, by rank", factor / 10_000, factor / 1_000 % 10),
            None => "it is in no queue".to_owned(),
        };
        let qos = request.qos.unwrap_or(Qos::Guaranteed);
        let qos = Qos::NAMED.iter().find(|(_, named)| *named == qos).map_or("", |(name, _)| name).to_owned();
        let points = |name: &str, points: u64, most: u32, told: String| PointTerm {
            name: name.to_owned(),
            points: i64::try_from(points).unwrap_or(i64::MAX),
            most,
            told,
        };
        let mut terms = vec![
            points("age", self.age(waiting), weights.age, age),
            points("size", self.size(request), weights.size, size),
            points("fair_share", self.fair_share(request), weights.fair_share, fair),
            points("qos", self.qos(request), weights.qos, qos),
        ];
        let asked = least(request);
        for (name, most) in &weights.resources {
            let (wanted, total) = (asked.get(name).0, self.total.get(name).copied().unwrap_or_default());
            let told = format!("asks for {wanted} of {total}");
            terms.push(points(name, self.resource(name, &asked), *most, told));
        }
        terms.retain(|term| term.most > 0);
        if request.nice > 0 {
            let given_up = -i64::from(request.nice);
            let told = "given up".to_owned();
            terms.push(PointTerm { name: "nice".to_owned(), points: given_up, most: 0, told });
        }
        terms
    }

    fn waited_ms(&self, waiting: &Reservation) -> u64 {
        self.now_ms.saturating_sub(waiting.submitted_at.0)
    }

    fn age(&self, waiting: &Reservation) -> u64 {
        let most_ms = self.weights.max_age_ms.max(1);
        let waited_ms = self.waited_ms(waiting).min(most_ms);
        (u128::from(self.weights.age) * u128::from(waited_ms) / u128::from(most_ms)) as u64
    }

    fn size(&self, request: &Request) -> u64 {
        let doublings = u64::from(Ask::of(request).total().ilog2()).min(DOUBLINGS);
        u64::from(self.weights.size) * (DOUBLINGS - doublings) / DOUBLINGS
    }

    fn fair_share(&self, request: &Request) -> u64 {
        let factor = self.fair.get(&request.queue).copied().unwrap_or_default();
        u64::from(self.weights.fair_share) * u64::from(factor) / FACTOR
    }

    fn qos(&self, request: &Request) -> u64 {
        let halves = match request.qos {
            None | Some(Qos::Guaranteed) => 2,
            Some(Qos::Burstable) => 1,
            Some(Qos::BestEffort) => 0,
        };
        u64::from(self.weights.qos) * halves / 2
    }

    fn resource(&self, name: &str, asked: &Resources) -> u64 {
        let most = self.weights.resources.get(name).copied().unwrap_or_default();
        let total = self.total.get(name).copied().unwrap_or_default();
        let asked = u128::from(asked.get(name).0).min(total);
        (u128::from(most) * asked).checked_div(total).unwrap_or_default() as u64
    }
}

/// Those who wait for a pool that goes by points, the first `most` by class and age put in the order of their points; those behind them follow. `None` for other
/// pools. O(n log n).
pub(crate) fn by_points(
    ledger: &Ledger,
    pool: &Pool,
    now: LedgerTime,
    most: usize,
) -> Option<Vec<ReservationId>> {
    let points = Points::new(ledger, pool, now)?;
    let waiting = ledger.pending(&pool.name).take(most).filter_map(|id| ledger.reservation(id));
    let mut ranked: Vec<_> =
        waiting.map(|one| (Reverse(one.priority), Reverse(points.of(one)), one.id)).collect();
    ranked.sort_unstable();
    Some(ranked.into_iter().map(|(_, _, id)| id).collect())
}

/// The points of one that waits, and what they are of; `None` where its pool does not go by points. O(nodes).
pub fn points_of(ledger: &Ledger, waiting: &Reservation) -> Option<(i64, Vec<PointTerm>)> {
    let pool = ledger.pool(&waiting.request.pool)?;
    let points = Points::new(ledger, pool, ledger.clock())?;
    Some((points.of(waiting), points.terms(waiting)))
}

/// Place among those who wait for a pool, from 1, by class and then points or age; 0 where it does not wait. O(n) in those that wait.
pub fn rank_of(ledger: &Ledger, reservation: &Reservation) -> u64 {
    if !reservation.is_waiting() {
        return 0;
    }
    let name = &reservation.request.pool;
    let points = ledger.pool(name).and_then(|pool| Points::new(ledger, pool, ledger.clock()));
    let Some(points) = points else {
        let before = ledger.pending(name).position(|id| id == reservation.id);
        return before.map_or(0, |before| before as u64 + 1);
    };
    let key = |one: &Reservation| (Reverse(one.priority), Reverse(points.of(one)), one.id);
    let own = key(reservation);
    let others = ledger.pending(name).filter_map(|id| ledger.reservation(id));
    1 + others.filter(|other| key(other) < own).count() as u64
}

fn total_of(ledger: &Ledger, pool: &Pool) -> BTreeMap<String, u128> {
    let mut total = BTreeMap::new();
    for node in ledger.nodes().filter(|node| node.pool == pool.name) {
        add(&mut total, &node.registration.capacity);
        *total.entry("gpu".to_owned()).or_default() += node.registration.devices.len() as u128 * 1_000;
    }
    for (name, amount) in &pool.countables {
        *total.entry(name.clone()).or_default() += u128::from(amount.0);
    }
    total
}

/// Rank over number, by Slurm's Fair Tree over what queues used of the pool over time and hold now. A queue that has others below it stands beside these with
/// its own use.
fn fair_factors(ledger: &Ledger, pool: &Pool, total: &BTreeMap<String, u128>) -> BTreeMap<String, u32> {
    let mut accounts = BTreeMap::new();
    let inner: Vec<&str> = ledger.queues().map(|queue| queue.parent.as_str()).collect();
    for queue in ledger.queues() {
        let average = ledger.average_use(&queue.name, &pool.name);
        let none = Resources::default();
        let held = ledger.quota().own_use(&queue.name, &pool.name).unwrap_or(&none);
        let part = |(name, whole): (&String, &u128)| {
            let (past, now) = (u128::from(average.get(name).0), u128::from(held.get(name).0));
            let used = past * PAST_MILLI + now * (1_000 - PAST_MILLI);
            used.saturating_mul(WHOLE / 1_000).checked_div(*whole).unwrap_or_default()
        };
        let used = total.iter().map(part).max().unwrap_or_default();
        let weight = u64::from(queue.weight_milli);
        let mut account = Account { parent: queue.parent.clone(), weight, used };
        if inner.contains(&queue.name.as_str()) {
            let own = Account { parent: queue.name.clone(), weight: 1_000, used };
            accounts.insert(own_of(&queue.name), own);
            account.used = 0;
        }
        accounts.insert(queue.name.clone(), account);
    }
    let factors = fair_tree_order(&accounts).into_iter();
    // No name has a slash.
    factors.map(|(name, factor)| (name.trim_end_matches('/').to_owned(), factor)).collect()
}

fn own_of(queue: &str) -> String {
    format!("{queue}/")
}
