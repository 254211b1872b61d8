//! One round of the leader's task: what goes into the next raft entry, and in which order.
//!
//! Short work first (renewals, releases, confirms, policy), then the sweep and changes of node health, then places for
//! those who already wait, then new requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use plimsoll_consensus::Payload;
use plimsoll_ledger::{
    Answer, Blocker, Command, Entry, Ledger, Outcome, Reason, Refusal, Request, Verdict, Wait,
};
use plimsoll_scheduler::{Eviction, Ticket};
use plimsoll_types::LedgerTime;

use super::{Counters, Lead, LeaderLoop, Origin, Settled};
use crate::core::encoding;
use crate::core::intake::Item;

/// Pool and queue, empty for none: requests of one line are served in order.
pub(super) type Line = (String, String);

/// Most reservations that one sweep ends.
const EXPIRE_LIMIT: u32 = 1_000;

/// Commands of the next entry, with where each came from.
#[derive(Default)]
pub(super) struct Draft {
    entries: Vec<Entry>,
    origins: Vec<Origin>,
    /// See [`Settled::queueing`].
    queueing: Vec<Line>,
}

impl Draft {
    pub(super) fn push(&mut self, entry: Entry, origin: Origin) {
        self.entries.push(entry);
        self.origins.push(origin);
    }

    /// Adds a caller's command, with the verdict on it where it is a request that was planned.
    fn push_item(&mut self, mut item: Item, planned: Option<(Verdict, Option<Ticket>)>) {
        let Some(mut entry) = item.take_entry() else { return };
        let (verdict, ticket) = planned.map_or((None, None), |(verdict, ticket)| (Some(verdict), ticket));
        if let (Command::Submit { verdict, .. }, Some(found)) = (&mut entry.command, verdict) {
            *verdict = found;
        }
        self.push(entry, Origin::Caller(Box::new(item), ticket));
    }
}

impl LeaderLoop {
    /// Puts together the next entry and proposes it. False where there is nothing to propose.
    pub(super) fn propose_round(&self, lead: &mut Lead) -> bool {
        let most = self.config.intake.max_entry_commands.max(1);
        let now = LedgerTime(self.clock.now_ms());
        let mut draft = Draft::default();
        {
            let urgent = self.intake.take_urgent(most);
            let ledger = self.ledger.read();
            for item in urgent.into_iter().filter_map(|item| known_to_all(&ledger, item)) {
                draft.push_item(item, None);
            }
            let begun = tokio::time::Instant::now();
            self.draft_expiry(lead, &ledger, now, &mut draft);
            self.draft_health(lead, &ledger, now, most, &mut draft);
            draft_windows(lead, &ledger, now, &mut draft);
            for (entry, origin) in super::contention::due(lead, &ledger, now) {
                draft.push(entry, origin);
            }
            let reports = self.loads.due(&ledger, now);
            if !reports.is_empty() {
                draft.push(Entry::system(Command::ReportLoad { reports }), Origin::Loads);
            }
            for entry in self.overflow(lead, &ledger) {
                draft.push(entry, Origin::Overflow);
            }
            lead.planner.tick(&ledger, now);
            self.draft_queue(lead, &ledger, most, &mut draft);
            self.draft_evictions(lead, &ledger, most, &mut draft);
            super::contention::draft_relocations(lead, &ledger, most, &mut draft);
            self.draft_requests(lead, &ledger, most, &mut draft);
            let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Counters::add(&self.counters.planning_ns, spent);
        }
        if draft.entries.is_empty() {
            return false;
        }
        Counters::add(&self.counters.entries_proposed, 1);
        Counters::add(&self.counters.commands_proposed, draft.entries.len() as u64);
        let Draft { entries, origins, queueing } = draft;
        let (batch, bytes) = encoding::encode_entries(now, entries);
        let batch = Arc::new(batch);
        let payload = Payload { bytes, decoded: Some(Arc::clone(&batch) as _) };
        let proposed = self.group.propose_pipelined(payload);
        let passes = lead.passes;
        let (begun, counters) = (tokio::time::Instant::now(), Arc::clone(&self.counters));
        let settled = proposed.map(move |result| {
            counters.commits.seconds.observe(begun.elapsed().as_secs_f64());
            Settled { batch, origins, passes, queueing, result }
        });
        lead.in_flight.push(settled.boxed());
        true
    }

    fn draft_expiry(&self, lead: &mut Lead, ledger: &Ledger, now: LedgerTime, draft: &mut Draft) {
        // A budget that has faded enough, or a batch that begins, lets somebody start: ledger time has to come there for that, and a walk over the queue after it.
        let dues = [ledger.next_due(), lead.planner.next_walk_at()];
        let is_due = dues.into_iter().flatten().any(|due| now.max(ledger.clock()) >= due);
        if is_due && !lead.expiring {
            lead.expiring = true;
            draft.push(Entry::system(Command::Expire { limit: EXPIRE_LIMIT }), Origin::Expiry);
        }
    }

    fn draft_health(
        &self,
        lead: &mut Lead,
        ledger: &Ledger,
        now: LedgerTime,
        most: usize,
        draft: &mut Draft,
    ) {
        let present = tokio::time::Instant::now();
        if present < lead.check_nodes_at {
            return;
        }
        lead.check_nodes_at = present + Duration::from_millis(self.config.timings.node_check_ms.max(1));
        for (node, entry) in self.agents.due(ledger, now.0, most) {
            draft.push(entry, Origin::Health(node));
        }
        let changed = lead.overloads.look(ledger, |node| self.agents.latest(node));
        let closed = lead.overloads.closed();
        if changed {
            lead.planner.close(closed.clone());
        }
        self.agents.close_to(closed);
        for (node, entry) in lead.overloads.due(ledger, most) {
            draft.push(entry, Origin::Overload(node));
        }
    }

    fn draft_queue(&self, lead: &mut Lead, ledger: &Ledger, most: usize, draft: &mut Draft) {
        if !lead.planner.wants_queue_pass() && !lead.pass_owed {
            return;
        }
        lead.passes += 1;
        lead.pass_owed = false;
        for (reservation, placement, ticket) in lead.planner.plan_queue(ledger, most) {
            // It is to be set aside: others of its queue that are aside already go before it.
            if ledger.reservation(reservation).is_some_and(|waits| ledger.is_behind_overflow(waits)) {
                lead.planner.settle(ledger, ticket);
                continue;
            }
            let command = Command::Place { reservation, placement };
            draft.push(Entry::system(command), Origin::Queue(ticket));
        }
        self.estimates.promise(lead.planner.planned_starts().collect());
    }

    /// Notice to those who have to leave for somebody who waits, once a walk over the queue has found no place for him.
    fn draft_evictions(&self, lead: &mut Lead, ledger: &Ledger, most: usize, draft: &mut Draft) {
        if !lead.is_served() || !lead.planner.wants_evictions(ledger) {
            return;
        }
        for eviction in lead.planner.plan_evictions(ledger, most) {
            let Eviction { reservation, placement, victims } = eviction;
            let command = Command::Preempt { reservation, placement, victims };
            draft.push(Entry::system(command), Origin::Eviction(reservation));
        }
    }

    fn draft_requests(&self, lead: &mut Lead, ledger: &Ledger, most: usize, draft: &mut Draft) {
        let items = self.intake.take_requests(most.saturating_sub(draft.entries.len()));
        if items.is_empty() {
            return;
        }
        // A repeat of a request is answered by the ledger from memory: nothing to plan.
        let is_new = |item: &Item| {
            item.entry().is_none_or(|entry| ledger.remembered(&entry.actor, &entry.request_id).is_none())
        };
        let items = items.into_iter().filter_map(|item| known_to_all(ledger, item));
        let (items, repeats): (Vec<Item>, Vec<Item>) = items.partition(is_new);
        for item in repeats {
            draft.push_item(item, None);
        }
        // The planner sees the queue as applied; what is on its way there goes first too.
        let is_behind = |request: &Request| {
            lead.queueing.contains_key(&line_of(request)) || order_blocker(ledger, request).is_some()
        };
        let (held, items): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| request_of(item).is_some_and(is_behind));
        let requests: Vec<&Request> = items.iter().filter_map(request_of).collect();
        let requesters: Vec<&str> =
            items.iter().filter(|item| request_of(item).is_some()).map(requester_of).collect();
        let mut planned = lead.planner.plan_batch_for(ledger, &requests, &requesters);
        // What nothing now there can ever hold waits where machines can come that do.
        for ((verdict, _), request) in planned.iter_mut().zip(&requests) {
            if let Verdict::Infeasible(blockers) = verdict
                && crate::scaling::may_come(ledger, request)
            {
                *verdict = Verdict::Blocked(std::mem::take(blockers));
            }
        }
        for (item, (verdict, ticket)) in items.into_iter().zip(planned) {
            lead.note_queueing(ledger, &item, &verdict, draft);
            draft.push_item(item, Some((verdict, ticket)));
        }
        for item in held {
            let blocker = request_of(&item).and_then(|request| order_blocker(ledger, request));
            let blocker = blocker.unwrap_or_else(|| {
                let (pool, queue) = request_of(&item).map(line_of).unwrap_or_default();
                let name = if queue.is_empty() { pool.clone() } else { queue.clone() };
                let ahead = lead.queueing.get(&(pool, queue)).copied().unwrap_or_default();
                Blocker::new(Reason::BehindInQueue, name, 1, ahead)
            });
            let verdict = Verdict::Blocked(vec![blocker]);
            lead.note_queueing(ledger, &item, &verdict, draft);
            draft.push_item(item, Some((verdict, None)));
        }
    }
}

/// Windows of schedules that are worked out too little ahead; one such step at a time.
fn draft_windows(lead: &mut Lead, ledger: &Ledger, now: LedgerTime, draft: &mut Draft) {
    if lead.opening {
        return;
    }
    for command in super::windows::due(ledger, now.max(ledger.clock())) {
        lead.opening = true;
        draft.push(Entry::system(command), Origin::Windows);
    }
}

/// A raft entry with these commands.
pub(super) fn payload(proposed_at: LedgerTime, entries: Vec<Entry>) -> Payload {
    let (batch, bytes) = encoding::encode_entries(proposed_at, entries);
    Payload { bytes, decoded: Some(Arc::new(batch)) }
}

impl Lead {
    /// A walk over the queue has seen all that waits as it is now.
    pub(super) fn is_served(&self) -> bool {
        !self.planner.wants_queue_pass() && !self.pass_owed
    }

    /// Notes a request that goes to the queue of a strict pool.
    fn note_queueing(&mut self, ledger: &Ledger, item: &Item, verdict: &Verdict, draft: &mut Draft) {
        let (Verdict::Blocked(_), Some(request)) = (verdict, request_of(item)) else { return };
        let is_strict = ledger.pool(&request.pool).is_some_and(|pool| pool.is_strict());
        if is_strict && matches!(request.wait, Wait::Queue { .. }) {
            *self.queueing.entry(line_of(request)).or_default() += 1;
            draft.queueing.push(line_of(request));
        }
    }
}

/// The command, where the version in force has what it says; else its caller is told. An entry that says more would stop members whose
/// build knows no more than that version.
fn known_to_all(ledger: &Ledger, item: Item) -> Option<Item> {
    let needed = item.entry().map_or(0, |entry| entry.command.since_version());
    let in_force = ledger.meta().version;
    if needed <= in_force {
        return Some(item);
    }
    let what = if needed >= 4 { "what is asked" } else { "queues" };
    let refusal = Refusal::one(Reason::UnsupportedVersion, what, needed.into(), in_force.into());
    let outcome = Outcome::Refused(refusal);
    item.answer(Ok(Answer { revision: ledger.revision(), log_time: ledger.clock(), outcome }));
    None
}

/// Others of its queue that go before a request that comes now and are set aside.
fn order_blocker(ledger: &Ledger, request: &Request) -> Option<Blocker> {
    let priority = ledger.class(&request.class).map_or(0, |class| class.priority);
    ledger.order_blocker(&request.queue, priority)
}

/// Where a request queues: its pool and queue.
fn line_of(request: &Request) -> Line {
    (request.pool.clone(), request.queue.clone())
}

fn requester_of(item: &Item) -> &str {
    item.entry().map_or("", |entry| entry.actor.as_str())
}

fn request_of(item: &Item) -> Option<&Request> {
    match &item.entry()?.command {
        Command::Submit { request, .. } => Some(request),
        _ => None,
    }
}
