//! The walk over a queue: who starts now, and who has to go for it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use plimsoll_ledger::Ledger;
use plimsoll_types::{LedgerTime, NodeId, ReservationId};

use super::backfill::{Scene, counted};
use super::discipline::Discipline;
use super::domains::nodes_of;
use super::drain::{Drained, Rests};
use super::engine::{Decisions, Queueing, may_hold};
use super::entry::Entry;
use super::preempt::victims;
use super::rank::{Rank, Ranking, is_due, is_overdue, is_wide};
use super::sketch::rest_ms;
use crate::Planner;

/// First of a group: its rank, its arrival, and which group.
type Head = (Rank, (u64, ReservationId), usize);

/// While somebody waits, time alone changes whose turn it is: levels of service, patience, what is drained for whom.
const LOOK_AGAIN_MS: u64 = 60_000;

impl Queueing {
    /// Serves the queue: at most `limit` places, booked with the planner. While it decides something, walk again once that
    /// is applied. O(groups log groups), where a group is what waits and is alike, and a search of the fleet for each
    /// start and each shape that found no place.
    pub fn walk(
        &mut self,
        ledger: &Ledger,
        planner: &mut Planner,
        now: LedgerTime,
        limit: usize,
    ) -> Decisions {
        let mut decisions = Decisions::default();
        if self.pending.is_empty() {
            return decisions;
        }
        match self.settings.discipline {
            Discipline::Backfill { depth } => {
                self.backfill(ledger, planner, now, depth, limit, &mut decisions);
            }
            Discipline::Learned if !self.has_overdue(now) => {
                let (drained, rests) = self.drain(ledger, planner, now, limit, &mut decisions);
                planner.set_aside(drained.nodes.keys().copied(), true);
                self.in_order(ledger, planner, now, limit, &mut decisions);
                planner.set_aside(drained.nodes.keys().copied(), false);
                if rests.has_free(&drained) {
                    self.fill(ledger, planner, now, limit, &drained, &mut decisions);
                }
                decisions.look_again_at = Some(now.plus_ms(LOOK_AGAIN_MS));
            }
            discipline => {
                self.in_order(ledger, planner, now, limit, &mut decisions);
                if matches!(discipline, Discipline::Las | Discipline::Learned) {
                    decisions.look_again_at = Some(now.plus_ms(LOOK_AGAIN_MS));
                }
            }
        }
        decisions
    }

    /// True where somebody has waited so long that nobody starts before it.
    fn has_overdue(&self, now: LedgerTime) -> bool {
        self.pending
            .groups()
            .filter_map(|mut group| group.next())
            .any(|first| is_overdue(&self.settings, first, now.0))
    }

    /// By rank: the first of each group, then the one behind it.
    fn in_order(
        &mut self,
        ledger: &Ledger,
        planner: &mut Planner,
        now: LedgerTime,
        limit: usize,
        decisions: &mut Decisions,
    ) {
        let fleet_units = self.fleet_units;
        let Queueing { settings, pending, running, by_node, history, in_flight, preempting, .. } = self;
        // What is proposed counts at once.
        let mut shares = self.shares.clone();
        let mut groups: Vec<_> = pending.groups().map(Iterator::peekable).collect();
        let mut heads: BinaryHeap<Reverse<Head>> = BinaryHeap::new();
        let mut rank = |entry: &Entry, shares: &_| {
            Ranking { settings, now_ms: now.0, history: &mut *history, shares, fleet_units }.of(entry)
        };
        for (index, group) in groups.iter_mut().enumerate() {
            if let Some(entry) = group.peek() {
                heads.push(Reverse((rank(entry, &shares), entry.arrival(), index)));
            }
        }
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        while let Some(Reverse((known, arrival, index))) = heads.pop() {
            let Some(entry) = groups.get_mut(index).and_then(|group| group.peek().copied()) else { continue };
            if failed.contains(&entry.shape) {
                continue;
            }
            if settings.discipline == Discipline::Fair {
                // Others of its tenant may have started since.
                let rank = rank(entry, &shares);
                if rank > known {
                    heads.push(Reverse((rank, arrival, index)));
                    continue;
                }
            }
            if decisions.places.len() >= limit {
                decisions.look_again_at = Some(now);
                return;
            }
            if !in_flight.contains(&entry.id) {
                match planner.plan_one(ledger, entry.id, &entry.request, None) {
                    Some((placement, ticket)) => {
                        if settings.discipline == Discipline::Fair {
                            *shares.entry(entry.sequence.0.clone()).or_default() += entry.ask.total();
                        }
                        in_flight.insert(entry.id);
                        decisions.places.push((entry.id, placement, ticket));
                    }
                    None if settings.discipline == Discipline::Fcfs => break,
                    None => {
                        failed.insert(entry.shape);
                        let stops = is_overdue(settings, entry, now.0);
                        if settings.discipline.preempts() {
                            let may = |node: NodeId| may_hold(ledger, entry, node);
                            let chosen = victims(ledger, running, by_node, settings, entry, now.0, may);
                            if let Some(chosen) = chosen.filter(|chosen| !chosen.is_empty()) {
                                preempting.extend(chosen.iter().copied());
                                decisions.preempt.extend(chosen);
                                break;
                            }
                        }
                        if stops {
                            break;
                        }
                        continue;
                    }
                }
            }
            if let Some(group) = groups.get_mut(index) {
                group.next();
                if let Some(entry) = group.peek() {
                    heads.push(Reverse((rank(entry, &shares), entry.arrival(), index)));
                }
            }
        }
    }

    /// Places what is wide and has waited for long, or drains nodes for it: in order of rank, those whose patience is over
    /// first.
    fn drain(
        &mut self,
        ledger: &Ledger,
        planner: &mut Planner,
        now: LedgerTime,
        limit: usize,
        decisions: &mut Decisions,
    ) -> (Drained, Rests) {
        let (mut drained, mut rests) = (Drained::default(), Rests::default());
        let before = std::mem::take(&mut self.draining);
        let fleet_units = self.fleet_units;
        let Queueing { pool, settings, pending, running, history, shares, in_flight, .. } = self;
        let mut wide: Vec<(Rank, (u64, ReservationId), &Entry)> = Vec::new();
        for entry in
            pending.groups().flatten().filter(|entry| is_wide(entry) && !in_flight.contains(&entry.id))
        {
            let runs = settings.drain_after_runs;
            let mean_ms = history.outlook(&entry.sequence, entry.block, now.0).mean_ms;
            let drain_after_ms = mean_ms.saturating_mul(runs).max(settings.drain_after_ms);
            if is_due(settings, entry, now.0) || entry.waited_ms(now.0) >= drain_after_ms {
                let mut ranking = Ranking { settings, now_ms: now.0, history, shares, fleet_units };
                wide.push((ranking.of(entry), entry.arrival(), entry));
            }
        }
        if wide.is_empty() {
            return (drained, rests);
        }
        wide.sort_unstable_by_key(|(rank, arrival, _)| (*rank, *arrival));
        rests = Rests::of_pool(ledger, pool, before);
        for running in running.values() {
            let entry = &running.entry;
            let mean_ms = history.outlook(&entry.sequence, entry.block, now.0).mean_ms;
            let rest_ms = rest_ms(mean_ms, now.0.saturating_sub(running.started_ms));
            for node in &running.nodes {
                rests.add(*node, entry.ask, rest_ms);
            }
        }
        let most = (rests.len() as u64 * settings.drain_percent.min(100) / 100).max(1) as usize;
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        for (_, _, entry) in wide {
            if decisions.places.len() >= limit {
                break;
            }
            let placed = if failed.contains(&entry.shape) {
                None
            } else {
                planner.plan_one(ledger, entry.id, &entry.request, None)
            };
            if let Some((placement, ticket)) = placed {
                in_flight.insert(entry.id);
                decisions.places.push((entry.id, placement, ticket));
                continue;
            }
            failed.insert(entry.shape);
            let drained_before: BTreeSet<NodeId> = drained.nodes.keys().copied().collect();
            if rests.drain(&mut drained, entry.ask, most, |node| may_hold(ledger, entry, node)) {
                let new = drained.nodes.keys().filter(|node| !drained_before.contains(node));
                planner.set_aside(new.copied(), true);
            }
        }
        planner.set_aside(drained.nodes.keys().copied(), false);
        self.draining = drained.nodes.keys().copied().collect();
        (drained, rests)
    }

    /// Starts short work on nodes that are drained for others, where it is expected to be over long before they are free.
    fn fill(
        &mut self,
        ledger: &Ledger,
        planner: &mut Planner,
        now: LedgerTime,
        limit: usize,
        drained: &Drained,
        decisions: &mut Decisions,
    ) {
        let fleet_units = self.fleet_units;
        let Queueing { settings, pending, history, shares, in_flight, .. } = self;
        let longest_ms = drained.nodes.values().max().copied().unwrap_or(0);
        let mut short: Vec<(Rank, (u64, ReservationId), u64, &Entry)> = Vec::new();
        for group in pending.groups() {
            let mut waiting = group.filter(|entry| !in_flight.contains(&entry.id)).peekable();
            let Some(first) = waiting.peek().copied() else { continue };
            let mean_ms = history.outlook(&first.sequence, first.block, now.0).mean_ms;
            let rest_ms = mean_ms.saturating_mul(settings.drain_fill.max(1));
            if rest_ms > longest_ms {
                continue;
            }
            let mut ranking =
                Ranking { settings, now_ms: now.0, history: &mut *history, shares, fleet_units };
            let rank = ranking.of(first);
            short.extend(waiting.map(|entry| (rank, entry.arrival(), rest_ms, entry)));
        }
        short.sort_unstable_by_key(|(rank, arrival, ..)| (*rank, *arrival));
        let mut failed: BTreeSet<u64> = BTreeSet::new();
        for (_, _, rest_ms, entry) in short {
            if decisions.places.len() >= limit || failed.contains(&entry.shape) {
                continue;
            }
            let nodes = drained.for_at_least(rest_ms);
            match planner.plan_one(ledger, entry.id, &entry.request, Some(&nodes)) {
                Some((placement, ticket)) => {
                    in_flight.insert(entry.id);
                    decisions.places.push((entry.id, placement, ticket));
                }
                None => drop(failed.insert(entry.shape)),
            }
        }
    }

    fn backfill(
        &mut self,
        ledger: &Ledger,
        planner: &mut Planner,
        now: LedgerTime,
        depth: usize,
        limit: usize,
        decisions: &mut Decisions,
    ) {
        let mut backfill = self.backfill.take().unwrap_or_default();
        let proposed = self.in_flight.clone();
        let scene = Scene {
            ledger,
            pool: &self.pool,
            pending: &self.pending,
            in_flight: &proposed,
            depth,
            default_run_ms: self.settings.default_run_ms,
            now_ms: now.0,
            limit,
        };
        let in_flight = &mut self.in_flight;
        let mut start = |entry: &Entry, most: &BTreeMap<NodeId, u64>| {
            let nodes = most.keys().copied().collect();
            // A strategy may put more members on a node than there is room for until they end: then apart from each other.
            for apart in [false, true] {
                let mut request = Arc::clone(&entry.request);
                if apart {
                    Arc::make_mut(&mut request).gang.spread = true;
                }
                let (placement, ticket) = planner.plan_one(ledger, entry.id, &request, Some(&nodes))?;
                let on = nodes_of(&placement.members);
                if counted(&on)
                    .iter()
                    .all(|(node, members)| most.get(node).is_some_and(|most| members <= most))
                {
                    in_flight.insert(entry.id);
                    decisions.places.push((entry.id, placement, ticket));
                    return Some(on);
                }
                planner.settle(ledger, ticket);
            }
            None
        };
        backfill.walk(&scene, &|entry, node| may_hold(ledger, entry, node), &mut start);
        decisions.look_again_at = backfill.next_start_ms(now.0).map(LedgerTime);
        if decisions.places.len() >= limit {
            decisions.look_again_at = Some(now);
        }
        self.backfill = Some(backfill);
    }
}
