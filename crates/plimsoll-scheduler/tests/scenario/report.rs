//! The report of a scenario: one line for each thing that happens, and at the end who has what, who waits, and why.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{
    Blocker, DeviceGrant, EndReason, Event, EventObject, Ledger, MemberPlacement, NodeAdmin, NodeHealth,
    Reason, Reservation, State,
};
use plimsoll_proto::convert::{blocker_to_v1, reason_to_v1};
use plimsoll_proto::reason;
use plimsoll_scheduler::{PlannedStart, explain};
use plimsoll_types::quantity::format_duration_ms;
use plimsoll_types::{LedgerTime, ReservationId};

use super::clock;
use super::leader::Leader;

/// Columns of a note.
const WIDTH: usize = 120;

#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<String>,
    pub(crate) names: BTreeMap<ReservationId, String>,
    /// Those whose renewal was refused: their leases end.
    pub(crate) unrenewed: BTreeSet<ReservationId>,
    promised: BTreeMap<ReservationId, LedgerTime>,
    /// When those who wait began to, the latest time.
    waiting_since: BTreeMap<ReservationId, LedgerTime>,
}

impl Report {
    pub(crate) fn new(title: &str, about: &str) -> Report {
        let mut report = Report::default();
        report.lines.push(title.to_owned());
        report.lines.push("=".repeat(title.chars().count()));
        report.lines.push(String::new());
        report.lines.extend(wrapped(about, WIDTH));
        report.lines.push(String::new());
        report
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// Words of the file.
    pub(crate) fn note(&mut self, text: &str) {
        self.lines.push(String::new());
        self.lines.extend(wrapped(text, WIDTH));
    }

    pub(crate) fn refused(&mut self, at: LedgerTime, name: &str, reason: Reason, blockers: &[Blocker]) {
        self.say(at, &format!("{name} is refused: {}", name_of(reason)));
        self.blockers(blockers);
    }

    pub(crate) fn unrenewed(
        &mut self,
        at: LedgerTime,
        id: ReservationId,
        reason: Reason,
        blockers: &[Blocker],
    ) {
        self.unrenewed.insert(id);
        let name = self.name(id);
        self.say(at, &format!("{name} is not renewed: {}", name_of(reason)));
        self.blockers(blockers);
    }

    /// Starts that are kept free, where they are news.
    pub(crate) fn promises(&mut self, at: LedgerTime, planned: &[PlannedStart]) {
        for start in planned {
            if self.promised.insert(start.reservation, start.start_at) != Some(start.start_at) {
                let name = self.name(start.reservation);
                self.say(at, &format!("{name} is promised a start at {}", clock::show(start.start_at.0)));
            }
        }
    }

    pub(crate) fn event(&mut self, event: &Event, ledger: &Ledger) {
        let at = event.log_time;
        match &event.object {
            EventObject::Reservation(after, before) => self.change(at, event.rule, after, *before, ledger),
            EventObject::Node(node) => {
                if let Some(moved) = node.moved.as_ref().filter(|_| event.rule == "pool/move") {
                    let home = if moved.home == node.pool { ", home" } else { "" };
                    let text =
                        format!("{} goes from pool {} to {}{home}", node.name(), moved.from, node.pool);
                    return self.say(at, &text);
                }
                let what = match &node.admin {
                    _ if event.rule == "node/fence-pending" => return,
                    _ if event.rule == "node/interrupted" => {
                        let goes = node.interruption.map_or(0, |interruption| interruption.deadline.0);
                        let text = format!("{} is taken back at {}", node.name(), clock::show(goes));
                        return self.say(at, &text);
                    }
                    _ if node.health == NodeHealth::Failed => "has failed",
                    _ if event.rule == "node/register" => "is back",
                    NodeAdmin::Schedulable => "takes new work",
                    NodeAdmin::Cordoned { .. } => "takes no new work",
                    NodeAdmin::Draining { .. } => "drains",
                };
                self.say(at, &format!("{} {what}", node.name()));
            }
            EventObject::Contention(one) if event.rule != "contention/observed" => {
                let (what, severity) = (event.rule.trim_start_matches("contention/"), one.severity.name());
                let state = match one.is_open() {
                    true => format!(
                        "{severity}, {} of {} missing",
                        one.demand.saturating_sub(one.open),
                        one.capacity
                    ),
                    false => format!("it was {} at most", one.peak.name()),
                };
                let done = one.resolutions.iter().filter(|done| done.revision == event.revision);
                let subject = |subject: &str| match subject.parse::<ReservationId>() {
                    Ok(id) => self.name(id),
                    Err(_) => subject.to_owned(),
                };
                let done: Vec<String> =
                    done.map(|done| format!("; {} {}", done.kind.name(), subject(&done.subject))).collect();
                self.say(
                    at,
                    &format!(
                        "contention of {} in {} {what}: {state}{}",
                        one.resource,
                        one.pool,
                        done.concat()
                    ),
                );
            }
            _ => {}
        }
    }

    fn change(
        &mut self,
        at: LedgerTime,
        rule: &str,
        after: &Reservation,
        before: Option<State>,
        ledger: &Ledger,
    ) {
        let name = self.name(after.id);
        let held = before.is_some_and(State::is_occupying);
        let text = match after.state {
            _ if rule == "overflow/aside" => format!("{name} is set aside"),
            _ if rule == "overflow/return" => format!("{name} is back in the queue"),
            State::Pending | State::Planned if !held => match after.state {
                State::Planned if after.is_advance() => {
                    let request = &after.request;
                    let end = request.start_at_ms + request.max_duration_ms;
                    let (from, to) = (clock::show(request.start_at_ms), clock::show(end));
                    format!("{name} is planned for {from} to {to}")
                }
                State::Planned => {
                    format!("{name} gets {} once others have left", places(&after.members, ledger))
                }
                _ if before.is_none() => format!("{name} waits"),
                _ => format!("{name} waits on"),
            },
            State::Pending => format!("{name} is out, and waits again"),
            State::Active | State::Partial if !held => {
                let waited =
                    self.waiting_since.remove(&after.id).map(|since| at.ms_since(since)).filter(|ms| *ms > 0);
                let waited =
                    waited.map(|ms| format!(", after {}", format_duration_ms(ms))).unwrap_or_default();
                let part = if after.state == State::Partial {
                    format!(" with {} of {} members", after.members.len(), after.request.gang.max_members)
                } else {
                    String::new()
                };
                let until = if after.hard_end.0 > 0 {
                    format!(", until {} at the latest", clock::show(after.hard_end.0))
                } else {
                    String::new()
                };
                format!("{name} starts on {}{part}{waited}{until}", places(&after.members, ledger))
            }
            State::Preempting if before != Some(State::Preempting) => {
                let Some(notice) = after.preempted() else { return };
                let why = match (notice.by.0, notice.evicted) {
                    (_, Some(evicted)) => format!(": {evicted}"),
                    (0, None) => format!(" ({})", notice.rule.name()),
                    _ => format!(" for {} ({})", self.name(notice.by), notice.rule.name()),
                };
                format!("{name} has to leave{why}, within {}", format_duration_ms(notice.grace_ms))
            }
            State::Released | State::Expired | State::Preempted | State::Failed | State::Rejected => {
                format!("{name} ends: {}", end_of(after))
            }
            State::Partial if rule == "node/failed" => {
                let (left, until) = (after.members.len(), after.repair().map_or(0, |repair| repair.until.0));
                let had = left as u32 + after.missing_members();
                let until = clock::show(until);
                format!("{name} goes on with {left} of {had} members, to be repaired by {until}")
            }
            _ if rule == "repair" => {
                let new = after.members.iter().zip(after.member_tokens());
                let new = new.filter(|(_, token)| **token == after.changed).map(|(member, _)| member.clone());
                let new: Vec<MemberPlacement> = new.collect();
                format!("{name} is repaired, with {}", places(&new, ledger))
            }
            _ if rule == "calendar/cut" => {
                format!("{name} is cut: it ends at {} at the latest", clock::show(after.hard_end.0))
            }
            // Renewals are no news.
            _ => return,
        };
        self.say(at, &text);
        if after.is_waiting() {
            self.waiting_since.entry(after.id).or_insert(at);
            self.promised.remove(&after.id);
            if before.is_none() {
                self.blockers(&after.blockers);
            }
        }
    }

    /// What is where, and what waits.
    pub(crate) fn look(&mut self, leader: &Leader) {
        let ledger = &leader.ledger;
        self.lines.push(String::new());
        self.say(leader.now, "as it is:");
        for node in ledger.nodes() {
            let here = |one: &&Reservation| one.members.iter().any(|member| member.node == node.id);
            let held: Vec<String> = ledger
                .reservations()
                .map(AsRef::as_ref)
                .filter(|one| one.state.is_occupying())
                .filter(here)
                .map(|one| self.holding(one, node.id))
                .collect();
            let held = if held.is_empty() { "nobody".to_owned() } else { held.join(", ") };
            self.lines.push(format!("          {}: {held}", node.name()));
        }
        let waiting: Vec<_> = ledger.pools().flat_map(|pool| ledger.pending(&pool.name)).collect();
        for id in waiting {
            let Some(told) = explain(ledger, id) else { continue };
            let rank = format!("{} of {}", told.rank, told.queue_length);
            self.lines.push(format!("          {} waits, {rank} in its pool", self.name(id)));
            self.blockers(&told.blockers);
        }
        self.aside(ledger);
    }

    /// Who is set aside, in order.
    fn aside(&mut self, ledger: &Ledger) {
        for queue in ledger.queues() {
            let names: Vec<String> = ledger.aside_in(&queue.name).map(|id| self.name(id)).collect();
            if !names.is_empty() {
                self.lines.push(format!("          aside of {}: {}", queue.name, names.join(", ")));
            }
        }
    }

    /// The last look.
    pub(crate) fn end(&mut self, leader: &Leader) {
        self.look(leader);
        assert_eq!(leader.ledger.check_invariants(), vec![]);
    }

    fn holding(&self, one: &Reservation, node: plimsoll_types::NodeId) -> String {
        let members: Vec<&MemberPlacement> =
            one.members.iter().filter(|member| member.node == node).collect();
        let grants: Vec<DeviceGrant> = members.iter().flat_map(|member| member.devices.clone()).collect();
        let count = if members.len() > 1 { format!(" x{}", members.len()) } else { String::new() };
        format!("{}{count}{}", self.name(one.id), devices(&grants))
    }

    fn blockers(&mut self, blockers: &[Blocker]) {
        for blocker in blockers {
            let line = format!("{}: {}", name_of(blocker.reason), blocker_to_v1(blocker).message);
            self.lines.push(format!("            {line}"));
        }
    }

    fn say(&mut self, at: LedgerTime, text: &str) {
        self.lines.push(format!("{}  {text}", clock::show(at.0)));
    }

    fn name(&self, id: ReservationId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("{id:?}"))
    }
}

fn name_of(reason: Reason) -> String {
    reason::name(reason_to_v1(reason)).to_owned()
}

/// Why something ended.
fn end_of(after: &Reservation) -> &'static str {
    match after.end_reason {
        Some(EndReason::Released) if after.hard_end.0 > 0 && after.ended_at >= after.hard_end => {
            "its time is over"
        }
        Some(EndReason::Released) => "it is done",
        Some(EndReason::Cancelled) => "it is cancelled",
        Some(EndReason::NotConfirmed) => "it was not confirmed",
        Some(EndReason::NotRenewed) => "its lease was not renewed",
        Some(EndReason::MaxDuration) => "its time is over",
        Some(EndReason::WaitedTooLong) => "it waited too long",
        Some(EndReason::NodeLost | EndReason::NodeFenced | EndReason::NodeFailed) => "its node is gone",
        Some(EndReason::Drained) => "its node is drained",
        Some(EndReason::Preempted) => "its place was taken back",
        Some(EndReason::WindowOpened) => "a window opened",
        Some(EndReason::NeverStarted) => "it never started",
        Some(EndReason::NotRepaired) => "it was not repaired in time",
        None => "nobody knows why",
    }
}

/// `n1 (gpu 0), n2 x3`.
fn places(members: &[MemberPlacement], ledger: &Ledger) -> String {
    let mut on: Vec<(String, u32, Vec<DeviceGrant>)> = Vec::new();
    for member in members {
        let name = ledger.node(member.node).map_or_else(String::new, |node| node.name().to_owned());
        match on.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, count, grants)) => {
                *count += 1;
                grants.extend(&member.devices);
            }
            None => on.push((name, 1, member.devices.clone())),
        }
    }
    let place = |(name, count, grants): &(String, u32, Vec<DeviceGrant>)| {
        let count = if *count > 1 { format!(" x{count}") } else { String::new() };
        format!("{name}{count}{}", devices(grants))
    };
    on.iter().map(place).collect::<Vec<_>>().join(", ")
}

/// ` (gpu 0, 250/1000 of gpu 1)`; nothing without devices.
fn devices(grants: &[DeviceGrant]) -> String {
    let one = |grant: &DeviceGrant| match (grant.slices, grant.milli) {
        (Some(slices), _) => {
            let end = slices.start + slices.memory - 1;
            let slice = if slices.memory == 1 {
                format!("slice {end}")
            } else {
                format!("slices {} to {end}", slices.start)
            };
            format!("{slice} of gpu {}", grant.device.0)
        }
        (None, 1_000) => format!("gpu {}", grant.device.0),
        (None, milli) => format!("{milli}/1000 of gpu {}", grant.device.0),
    };
    if grants.is_empty() {
        String::new()
    } else {
        format!(" ({})", grants.iter().map(one).collect::<Vec<_>>().join(", "))
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
