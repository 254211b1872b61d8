//! Events of the ledger as watchers see them.

use plimsoll_ledger::{Event, EventObject, IntentAction, Ledger, State};
use plimsoll_types::ReservationId;

use super::{
    class_to_v1, node_limits_to_v1, node_state, node_to_v1, pool_to_v1, queue_to_v1, quota_to_v1,
    reservation_name, reservation_to_v1, schedule_to_v1, service_to_v1, state_to_v1,
};
use crate::v1;
use crate::v1::event::Object;

/// Kind of the thing that an event is about.
pub fn object_kind(from: &EventObject) -> v1::ObjectKind {
    match from {
        EventObject::Reservation(..) | EventObject::ReservationForgotten(_) => v1::ObjectKind::Reservation,
        EventObject::Node(_) | EventObject::NodeRemoved(..) => v1::ObjectKind::Node,
        EventObject::Pool(_) | EventObject::PoolDeleted(_) => v1::ObjectKind::Pool,
        EventObject::Class(_) | EventObject::ClassDeleted(_) => v1::ObjectKind::Class,
        EventObject::NodeLimits(_) | EventObject::NodeLimitsDeleted(_) => v1::ObjectKind::NodeLimits,
        EventObject::Queue(_) | EventObject::QueueDeleted(_) => v1::ObjectKind::Queue,
        EventObject::Quota(_) | EventObject::QuotaDeleted(_) => v1::ObjectKind::Quota,
        EventObject::Validator(_) | EventObject::ValidatorDeleted(_) => v1::ObjectKind::Validator,
        EventObject::Schedule(_) | EventObject::ScheduleDeleted(_) => v1::ObjectKind::Schedule,
        EventObject::Service(_) | EventObject::ServiceDeleted(_) => v1::ObjectKind::Service,
        EventObject::ScalingPolicy(_)
        | EventObject::ScalingPolicyDeleted(_)
        | EventObject::Scaling(_)
        | EventObject::Intent(_) => v1::ObjectKind::Scaling,
        EventObject::Contention(_) => v1::ObjectKind::Contention,
        EventObject::Leader(_) | EventObject::Version(_) => v1::ObjectKind::Cluster,
    }
}

/// An event as a message. `ledger` may be of a later revision: it gives the names of nodes and devices, and what is used
/// of a node. `request_id` is that of the command, empty for none.
pub fn event_to_v1(from: &Event, request_id: &str, ledger: &Ledger) -> v1::Event {
    let mut event = v1::Event {
        revision: from.revision.0,
        log_time_ms: from.log_time.0,
        kind: v1::EventKind::Updated.into(),
        object_kind: object_kind(&from.object).into(),
        actor: from.actor.clone(),
        rule: from.rule.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    match &from.object {
        EventObject::Reservation(reservation, before) => {
            event.name = reservation_name(&reservation.request.pool, reservation.id);
            if before.is_none() {
                event.kind = v1::EventKind::Created.into();
            }
            event.transition = Some(v1::StateChange {
                from: before.map_or(v1::ReservationState::Unspecified, state_to_v1).into(),
                to: state_to_v1(reservation.state).into(),
            });
            event.message = transition(reservation.id, *before, reservation.state, from.rule);
            let noticed = reservation.preempted().filter(|preempted| preempted.revision == from.revision);
            if let Some(evicted) = noticed.and_then(|preempted| preempted.evicted) {
                let node = ledger.node(evicted.overload.node).map_or("its node", |node| node.name());
                event.message.push_str(&format!(": {node} measured {evicted}"));
            }
            event.object = Some(Object::Reservation(reservation_to_v1(reservation, ledger)));
        }
        EventObject::ReservationForgotten(id) => gone(&mut event, reservation_name("-", *id), "forgotten"),
        EventObject::Node(node) => {
            event.name = format!("nodes/{}", node.name());
            let state = node_state(node).as_str_name().trim_start_matches("NODE_STATE_").to_lowercase();
            event.message = format!("node {} is {state} ({})", node.name(), from.rule);
            event.object = Some(Object::Node(node_to_v1(node, ledger)));
        }
        EventObject::NodeRemoved(_, name) => gone(&mut event, format!("nodes/{name}"), "removed"),
        EventObject::Pool(pool) => {
            put(&mut event, format!("pools/{}", pool.name), Object::Pool(pool_to_v1(pool)));
        }
        EventObject::PoolDeleted(name) => gone(&mut event, format!("pools/{name}"), "deleted"),
        EventObject::Class(class) => {
            put(&mut event, format!("classes/{}", class.name), Object::Class(class_to_v1(class)));
        }
        EventObject::ClassDeleted(name) => gone(&mut event, format!("classes/{name}"), "deleted"),
        EventObject::NodeLimits(limits) => {
            put(
                &mut event,
                format!("nodeLimits/{}", limits.name),
                Object::NodeLimits(node_limits_to_v1(limits)),
            );
        }
        EventObject::NodeLimitsDeleted(name) => gone(&mut event, format!("nodeLimits/{name}"), "deleted"),
        EventObject::Queue(queue) => {
            put(&mut event, format!("queues/{}", queue.name), Object::Queue(queue_to_v1(queue)));
        }
        EventObject::Validator(object) => {
            put(
                &mut event,
                format!("validators/{}", object.name),
                Object::Validator(super::validator_to_v1(object)),
            );
        }
        EventObject::ValidatorDeleted(name) => gone(&mut event, format!("validators/{name}"), "deleted"),
        EventObject::QueueDeleted(name) => gone(&mut event, format!("queues/{name}"), "deleted"),
        EventObject::Quota(quota) => {
            put(&mut event, format!("quotas/{}", quota.name), Object::Quota(quota_to_v1(quota)));
        }
        EventObject::QuotaDeleted(name) => gone(&mut event, format!("quotas/{name}"), "deleted"),
        EventObject::Schedule(schedule) => {
            let name = format!("schedules/{}", schedule.name);
            put(&mut event, name, Object::Schedule(schedule_to_v1(schedule)));
            if from.rule != "policy/put" {
                event.message = format!("{} changed ({})", event.name, from.rule);
            }
        }
        EventObject::ScheduleDeleted(name) => gone(&mut event, format!("schedules/{name}"), "deleted"),
        EventObject::Service(service) => {
            let name = format!("services/{}", service.name);
            put(&mut event, name, Object::Service(service_to_v1(service)));
        }
        EventObject::ServiceDeleted(name) => gone(&mut event, format!("services/{name}"), "deleted"),
        EventObject::ScalingPolicy(policy) => {
            let name = format!("scalingPolicies/{}", policy.name);
            put(&mut event, name, Object::ScalingPolicy(super::scaling_policy_to_v1(policy)));
        }
        EventObject::ScalingPolicyDeleted(name) => {
            gone(&mut event, format!("scalingPolicies/{name}"), "deleted");
        }
        EventObject::Scaling(state) => {
            event.name = format!("scalingPolicies/{}", state.policy);
            let shown = super::scaling_decision_to_v1(state, ledger);
            event.message =
                format!("{} wants {} ({}, {})", shown.target, state.desired, from.rule, state.rule);
            event.object = Some(Object::Scaling(shown));
        }
        EventObject::Intent(intent) => {
            event.name = format!("scalingPolicies/{}", intent.policy);
            let what = if intent.starts() { "start" } else { "removal" };
            let (state, detail) = (intent.state.name(), &intent.detail);
            event.message = match intent.action {
                IntentAction::Start { leaving: Some(by) } => {
                    format!("{} leaves by intent {by} ({})", intent.node, from.rule)
                }
                _ => format!("{what} of {} (intent {}) is {state} ({})", intent.node, intent.id, from.rule),
            };
            if !detail.is_empty() {
                event.message.push_str(": ");
                event.message.push_str(detail);
            }
            event.object = Some(Object::Intent(super::intent_to_v1(intent)));
        }
        EventObject::Contention(one) => {
            event.name = super::contention_name(one);
            if one.id == from.revision {
                event.kind = v1::EventKind::Created.into();
            }
            let (severity, waiting) = (one.severity.name(), one.waiting);
            event.message = match one.is_open() {
                true => format!("{} is {severity}, {waiting} wait ({})", event.name, from.rule),
                false => format!("{} is over ({})", event.name, from.rule),
            };
            event.object = Some(Object::Contention(super::contention_to_v1(one)));
        }
        EventObject::Leader(leader) => {
            event.name = "cluster".to_owned();
            event.message = format!("coordinator {leader} leads");
            event.object = Some(Object::Leader(v1::LeaderChange { leader: *leader }));
        }
        EventObject::Version(version) => {
            event.name = "cluster".to_owned();
            event.message = format!("ledger version {version} is in force");
            event.object = Some(Object::Version(v1::VersionChange { version: *version }));
        }
    }
    event
}

fn put(event: &mut v1::Event, name: String, object: Object) {
    event.message = format!("{name} was put");
    event.name = name;
    event.object = Some(object);
}

fn gone(event: &mut v1::Event, name: String, how: &str) {
    event.message = format!("{name} was {how}");
    event.name = name;
    event.kind = v1::EventKind::Deleted.into();
}

fn transition(id: ReservationId, before: Option<State>, after: State, rule: &str) -> String {
    let after = after.name();
    match before.map(State::name) {
        None => format!("{id} is {after} ({rule})"),
        Some(before) if before == after => format!("{id} stays {after} ({rule})"),
        Some(before) => format!("{id} went from {before} to {after} ({rule})"),
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Class, Command, Entry, EvictWhen, Gauge, LATEST_VERSION, MemberPlacement, Overload, Placement,
        PolicyObject, Qos, Registration, Request, Requirements, Stamp, Verdict,
    };
    use plimsoll_types::{LedgerTime, NodeId, Resources, Revision};

    use super::*;

    fn shown(object: EventObject) -> v1::Event {
        let event = Event {
            revision: Revision(7),
            log_time: LedgerTime(9),
            actor: "ada".into(),
            rule: "apply",
            object,
        };
        event_to_v1(&event, "key", &Ledger::new())
    }

    #[test]
    fn what_is_gone_keeps_its_name_only() {
        let event = shown(EventObject::PoolDeleted("gpu".into()));
        assert_eq!((event.kind(), event.object_kind()), (v1::EventKind::Deleted, v1::ObjectKind::Pool));
        assert_eq!((event.name.as_str(), event.object), ("pools/gpu", None));
        let event = shown(EventObject::ReservationForgotten(ReservationId(1)));
        assert_eq!(event.name, "pools/-/reservations/r-0001");
    }

    #[test]
    fn an_eviction_says_what_was_measured_and_what_follows_does_not_say_it_again() {
        let mut ledger = Ledger::new();
        let mut messages = Vec::new();
        let when = EvictWhen { gauge: Gauge::Memory, above_permille: 900, for_ms: 30_000 };
        let class = Class { name: "batch".into(), evict_when: Some(when), ..Class::default() };
        let node = Registration {
            name: "n1".into(),
            capacity: Resources::new(1_000, 0),
            incarnation: 1,
            ..Registration::default()
        };
        let request = Request {
            pool: "default".into(),
            class: "batch".into(),
            qos: Some(Qos::BestEffort),
            auto_confirm: true,
            requirements: Requirements { amounts: Resources::new(500, 0), ..Requirements::default() },
            ..Request::default()
        };
        let member = MemberPlacement { node: NodeId(0), devices: Vec::new(), role: 0 };
        let verdict = Verdict::Place(Placement { members: vec![member] });
        let mut apply = |ledger: &mut Ledger, command| {
            let revision = Revision(ledger.revision().0 + 1);
            let stamp = Stamp { revision, proposed_at: LedgerTime(1_000 + revision.0) };
            let events = ledger.apply(stamp, &Entry::system(command)).events;
            messages.extend(events.iter().map(|event| event_to_v1(event, "", ledger).message));
        };
        apply(&mut ledger, Command::Upgrade { to: LATEST_VERSION });
        let put = vec![PolicyObject::Class(class)];
        apply(&mut ledger, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) });
        apply(&mut ledger, Command::RegisterNode(node));
        apply(&mut ledger, Command::Submit { request, verdict });
        let holder = ledger.reservations().next().expect("granted").id;
        let (node, epoch) = (NodeId(0), ledger.node(NodeId(0)).expect("registered").epoch);
        let (measured_permille, over_ms) = (955, 31_000);
        let overload = Overload { node, epoch, gauge: Gauge::Memory, measured_permille, over_ms };
        apply(&mut ledger, Command::Evict { reservation: holder, overload });
        apply(&mut ledger, Command::Cancel { reservation: holder });
        let said = format!(
            "{holder} went from active to preempting (evict/threshold): n1 measured memory at 95.5%, above 90% for 31s"
        );
        let told = messages.iter().position(|message| *message == said);
        let after = told.unwrap_or_else(|| panic!("{messages:#?}")) + 1;
        assert!(messages.len() > after && messages[after..].iter().all(|message| !message.contains("95.5%")));
    }

    #[test]
    fn events_say_who_and_by_which_rule() {
        let event = shown(EventObject::Leader(3));
        assert_eq!(
            (event.actor.as_str(), event.rule.as_str(), event.request_id.as_str()),
            ("ada", "apply", "key")
        );
        assert_eq!(event.object, Some(Object::Leader(v1::LeaderChange { leader: 3 })));
    }
}
