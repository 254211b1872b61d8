//! I11, its part on preemption: a grant is taken back only with notice and after its grace, for a higher class or for what a queue has lent; its
//! owner keeps its place in the queue; what is kept for whom others leave is given to nobody else.

use std::collections::BTreeMap;

use plimsoll_ledger::{Command, Overload, Preemption, PreemptionRule, Reservation, State};
use plimsoll_types::{NodeId, ReservationId};

use super::{Findings, Invariant, amounts_of};
use crate::oracle::{Picture, Step};

/// See the module.
pub(super) struct Preempted;

impl Invariant for Preempted {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let mut add = |detail: String| findings.add("I11", step.revision, detail);
        for (before, after) in step.moved() {
            let Some(before) = before else { continue };
            if before.preempted != after.preempted
                && let Some(wrong) = notice(step, before, after)
            {
                add(format!("{}: {wrong}", after.id));
            }
            let taken_back = before.state.is_occupying() && after.is_waiting();
            if taken_back && let Some(wrong) = requeued(step, before, after) {
                add(format!("{}: {wrong}", after.id));
            }
            let granted = after.state.is_occupying() && !before.state.is_occupying();
            if granted && before.state != State::Planned {
                for (node, cpu) in overbooked(&step.after) {
                    add(format!(
                        "{} took of node {} what is kept: {cpu} millicores too many",
                        after.id, node.0
                    ));
                }
            }
        }
    }
}

/// What is wrong with a notice.
fn notice(step: &Step, before: &Reservation, after: &Reservation) -> Option<String> {
    if let Command::Relocate { reservation, .. } = &step.entry.command {
        let preempted = after.preempted()?;
        let may = matches!(before.state, State::Active | State::Partial)
            && step.before.classes.get(&before.request.class).is_some_and(|class| {
                (class.preemptible || before.is_best_effort())
                    && step.after.log_time.0 >= before.granted_at.0 + class.min_run_ms
            });
        let own = after.id == *reservation && preempted.by == *reservation && preempted.to.is_some();
        return (!may || !own).then(|| format!("relocated while {}", before.state.name()));
    }
    let (reservation, victims) = match &step.entry.command {
        Command::Preempt { reservation, victims, .. } => (reservation, victims),
        Command::Evict { reservation, overload } => return evicted(step, before, *reservation, overload),
        Command::InterruptNode { node, .. } => return interrupted(before, after, *node),
        _ if step.takes_back_node_of(before) => return None,
        other => return Some(format!("notice by {other:?}")),
    };
    let preempted = after.preempted()?;
    let by = step.before.reservations.get(reservation)?;
    if !victims.contains(&after.id) || preempted.by != *reservation {
        return Some("notice to one who was not asked".to_owned());
    }
    if !matches!(before.state, State::Held | State::Active | State::Partial) {
        return Some(format!("notice while {}", before.state.name()));
    }
    let lent = !by.request.queue.is_empty()
        && !before.request.queue.is_empty()
        && by.request.queue != before.request.queue;
    let idle = before.is_best_effort() && !by.is_best_effort();
    if before.priority >= by.priority && !lent && !idle {
        return Some(format!("of priority {} leaves for {}", before.priority, by.priority));
    }
    (before.request.pool != by.request.pool).then(|| "leaves for another pool".to_owned())
}

/// What is wrong with a notice for what a node measured: only best effort of a class that says so leaves, and for numbers as these.
fn evicted(step: &Step, before: &Reservation, asked: ReservationId, seen: &Overload) -> Option<String> {
    if before.id != asked || !matches!(before.state, State::Held | State::Active | State::Partial) {
        return Some(format!("notice while {}, and {asked} was asked", before.state.name()));
    }
    if !before.is_best_effort() {
        return Some("is backed, and leaves for what a node measures".to_owned());
    }
    if !before.members.iter().any(|member| member.node == seen.node) {
        return Some(format!("leaves for node {}, and is not there", seen.node.0));
    }
    let class = step.before.classes.get(&before.request.class);
    if step.after.log_time.0 < before.granted_at.0 + class.map_or(0, |class| class.min_run_ms) {
        return Some(format!("ran since {} only", before.granted_at));
    }
    let when = class.and_then(|class| class.evict_when);
    let crossed = when.is_some_and(|when| {
        seen.gauge == when.gauge
            && seen.measured_permille > when.above_permille
            && seen.over_ms >= when.for_ms
    });
    if !crossed {
        return Some(format!("leaves for {seen:?}, and its class stays for {when:?}"));
    }
    let allowed = step.before.pools.get(&before.request.pool).map(|pool| pool.preemption);
    (allowed == Some(Preemption::Never)).then(|| "leaves in a pool that takes nothing back".to_owned())
}

/// What is wrong with a notice for a node that goes: whoever is there is told, and nobody else.
fn interrupted(before: &Reservation, after: &Reservation, node: NodeId) -> Option<String> {
    let told = after.preempted()?;
    let is_there = before.members.iter().any(|member| member.node == node);
    let wrong = !is_there || told.rule != PreemptionRule::Interruption || told.by != ReservationId(0);
    wrong.then(|| format!("told by {:?} that node {} goes", told.rule, node.0))
}

/// What is wrong with how it waits again.
fn requeued(step: &Step, before: &Reservation, after: &Reservation) -> Option<String> {
    let same = (before.id, before.priority, before.submitted_at, &before.request)
        == (after.id, after.priority, after.submitted_at, &after.request);
    if !same {
        return Some("did not keep its place in the queue".to_owned());
    }
    if after.token.0 > 0 || !after.members.is_empty() || after.tab.is_some() {
        return Some(format!("waits with token {} and what it had", after.token));
    }
    let by_notice = matches!(
        step.entry.command,
        Command::Preempt { .. } | Command::Evict { .. } | Command::InterruptNode { .. }
    );
    let at_once = by_notice && before.state == State::Held;
    let due = before.resume_state == State::Preempting && step.after.log_time >= before.deadline;
    (!at_once && !due && !step.interrupts(before))
        .then(|| format!("was taken back at {} while {}", step.after.log_time, before.state.name()))
}

/// Nodes on which those who stay and those for whom a place is kept, all of them backed, take more cpu than there is, and how much more; cut nodes aside.
fn overbooked(picture: &Picture) -> Vec<(NodeId, u64)> {
    let mut later: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut kept: BTreeMap<NodeId, bool> = BTreeMap::new();
    for one in picture.reservations.values() {
        let stays = one.state.is_occupying() && one.resume_state != State::Preempting;
        // What best effort has may be more than is promised by now.
        if !stays && one.state != State::Planned || one.is_best_effort() {
            continue;
        }
        for member in &one.members {
            *later.entry(member.node).or_default() += amounts_of(one, member).cpu_millis.0;
            *kept.entry(member.node).or_default() |= one.state == State::Planned;
        }
    }
    let over = |(node, cpu): (&NodeId, &u64)| {
        let place = picture.nodes.get(node)?;
        let whole = place.registration.capacity.cpu_millis == place.allocatable.cpu_millis;
        let too_many = cpu.saturating_sub(place.allocatable.cpu_millis.0);
        (kept[node] && whole && too_many > 0).then_some((*node, too_many))
    };
    later.iter().filter_map(over).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plimsoll_ledger::{
        Class, EvictWhen, Evicted, Gauge, Placement, Pool, Preempted as How, PreemptionRule, Qos, Request,
    };
    use plimsoll_types::{LedgerTime, ReservationId, Revision};

    use super::*;
    use crate::invariants::fixture::{found, node, reservation, step};

    /// Reservation 1 was active and is given notice for reservation 2, which waited with this priority.
    fn noticed(priority: i32, change: impl FnOnce(&mut Reservation)) -> Step {
        let mut waiting = reservation(2);
        (waiting.state, waiting.resume_state, waiting.priority) = (State::Pending, State::Pending, priority);
        waiting.members.clear();
        let before = step(&[node(0)], &[reservation(1), waiting.clone()]).after;
        let mut victim = reservation(1);
        (victim.state, victim.resume_state) = (State::Preempting, State::Preempting);
        victim.preempted = Some(Box::new(How {
            by: ReservationId(2),
            rule: PreemptionRule::LowerClass,
            to: None,
            at: LedgerTime(1_000),
            revision: Revision(10),
            grace_ms: 5_000,
            evicted: None,
        }));
        change(&mut victim);
        let mut given = step(&[node(0)], &[victim, waiting]);
        given.before = before;
        given.entry.command = Command::Preempt {
            reservation: ReservationId(2),
            placement: Placement { members: Vec::new() },
            victims: vec![ReservationId(1)],
        };
        given
    }

    #[test]
    fn a_notice_for_a_higher_class_is_right_and_for_an_equal_one_is_found() {
        assert_eq!(found(&mut Preempted, &noticed(75, |_| {})), Vec::<&str>::new());
        assert_eq!(found(&mut Preempted, &noticed(50, |_| {})), ["I11"]);
    }

    /// Reservation 1, of a class that stays for so much, leaves node 0, which measures 95 % of its memory for 9 s.
    fn evicted_at(above_permille: u32, change: impl Fn(&mut Reservation), preemption: Preemption) -> Step {
        let mut holder = reservation(1);
        let request = Request {
            pool: "default".to_owned(),
            class: "low".to_owned(),
            qos: Some(Qos::BestEffort),
            ..Request::default()
        };
        holder.request = Arc::new(request);
        change(&mut holder);
        let evict_when = Some(EvictWhen { gauge: Gauge::Memory, above_permille, for_ms: 9_000 });
        let prepare = |picture: &Picture| {
            let mut picture = picture.clone();
            let class = Class { name: "low".to_owned(), evict_when, ..Class::default() };
            picture.classes.insert("low".to_owned(), Arc::new(class));
            let pool = Pool { name: "default".to_owned(), preemption, ..Pool::default() };
            picture.pools.insert("default".to_owned(), Arc::new(pool));
            Arc::new(picture)
        };
        let before = step(&[node(0)], &[holder.clone()]).after;
        let (measured_permille, over_ms) = (950, 9_000);
        let (node_id, epoch) = (NodeId(0), node(0).epoch);
        let overload = Overload { node: node_id, epoch, gauge: Gauge::Memory, measured_permille, over_ms };
        (holder.state, holder.resume_state) = (State::Preempting, State::Preempting);
        holder.preempted = Some(Box::new(How {
            by: ReservationId(0),
            rule: PreemptionRule::Threshold,
            at: LedgerTime(1_000),
            revision: Revision(10),
            grace_ms: 5_000,
            to: None,
            evicted: Some(Evicted { overload, above_permille }),
        }));
        let mut given = step(&[node(0)], &[holder]);
        given.before = prepare(&before);
        given.after = prepare(&given.after);
        given.entry.command = Command::Evict { reservation: ReservationId(1), overload };
        given
    }

    #[test]
    fn best_effort_may_leave_a_node_that_is_too_full_and_nobody_else() {
        let sound = Vec::<&str>::new();
        assert_eq!(found(&mut Preempted, &evicted_at(900, |_| {}, Preemption::Any)), sound);
        assert_eq!(found(&mut Preempted, &evicted_at(950, |_| {}, Preemption::Any)), ["I11"], "not above it");
        assert_eq!(found(&mut Preempted, &evicted_at(900, |_| {}, Preemption::Never)), ["I11"]);
        let backed = |holder: &mut Reservation| Arc::make_mut(&mut holder.request).qos = None;
        assert_eq!(found(&mut Preempted, &evicted_at(900, backed, Preemption::Any)), ["I11"]);
    }

    #[test]
    fn a_grant_taken_back_before_its_grace_is_over_is_found() {
        let early = |deadline: u64| {
            let mut was = noticed(75, |victim| victim.deadline = LedgerTime(deadline));
            was.before = was.after.clone();
            let mut again = reservation(1);
            again.preempted = was.after.reservations[&ReservationId(1)].preempted.clone();
            (again.state, again.resume_state, again.token) = (State::Pending, State::Pending, Revision(0));
            again.members.clear();
            let mut after = Picture::clone(&was.after);
            after.log_time = LedgerTime(9_000);
            after.reservations.insert(again.id, Arc::new(again));
            was.after = Arc::new(after);
            was.entry.command = Command::Expire { limit: 1 };
            was
        };
        assert_eq!(found(&mut Preempted, &early(9_000)), Vec::<&str>::new());
        assert_eq!(found(&mut Preempted, &early(9_001)), ["I11"]);
    }
}
