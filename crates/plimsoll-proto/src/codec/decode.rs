//! Stored forms into ledger types. Refuses what is missing, unknown, out of range or out of order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use plimsoll_ledger::{
    AdminChange, Answer, Blocker, Class, Command, Device, DeviceGrant, Entry, FencePending, Gang, GpuAsk,
    GpuShare, MemberPlacement, Meta, Node, NodeAdmin, NodeLimits, Outcome, Placement, PolicyName,
    PolicyObject, Pool, Preempted, Preferred, Queue as PolicyQueue, Quota, Refusal, Registration, Remembered,
    RemovedDevice, RemovedNode, Request, Requirements, Reservation, Row, Rule, Validator, Verdict, Wait,
};
use plimsoll_types::{
    Amount, DeviceIndex, Labels, LedgerTime, NodeEpoch, NodeId, ReservationId, Resources, Revision, Selector,
    Term,
};

use super::{CodecError, mig, names, scale, service, topology, usage};
use crate::log;

pub(super) type Result<T> = std::result::Result<T, CodecError>;

pub(super) fn entry(from: log::LogCommand) -> Result<Entry> {
    Ok(Entry {
        actor: from.actor,
        request_id: from.request_id,
        request_hash: hash(&from.request_hash)?,
        command: command(from.command.ok_or(CodecError::UnknownKind { what: "command" })?)?,
    })
}

fn command(from: log::log_command::Command) -> Result<Command> {
    use log::log_command::Command as From;
    Ok(match from {
        From::Submit(from) => Command::Submit {
            request: request(need(from.request, "submit.request")?)?,
            verdict: verdict(from.verdict.ok_or(CodecError::UnknownKind { what: "verdict" })?)?,
        },
        From::Place(from) => Command::Place {
            reservation: ReservationId(from.reservation),
            placement: placement(need(from.placement, "place.placement")?)?,
        },
        From::Preempt(from) => Command::Preempt {
            reservation: ReservationId(from.reservation),
            placement: placement(need(from.placement, "preempt.placement")?)?,
            victims: from.victims.into_iter().map(ReservationId).collect(),
        },
        From::Confirm(from) => {
            Command::Confirm { reservation: ReservationId(from.reservation), token: Revision(from.token) }
        }
        From::Renew(from) => Command::Renew {
            reservation: ReservationId(from.reservation),
            token: Revision(from.token),
            ttl_ms: from.ttl_ms,
        },
        From::Resize(from) => Command::Resize {
            reservation: ReservationId(from.reservation),
            token: Revision(from.token),
            amounts: resources(from.amounts)?,
        },
        From::Release(from) => {
            Command::Release { reservation: ReservationId(from.reservation), token: Revision(from.token) }
        }
        From::Requeue(from) => {
            Command::Requeue { reservation: ReservationId(from.reservation), token: Revision(from.token) }
        }
        From::Cancel(from) => Command::Cancel { reservation: ReservationId(from.reservation) },
        From::Expire(from) => Command::Expire { limit: from.limit },
        From::RegisterNode(from) => Command::RegisterNode(registration(from)?),
        From::SetNodeHealth(from) => Command::SetNodeHealth {
            node: NodeId(from.node),
            epoch: NodeEpoch(from.epoch),
            health: names::decode_health(from.health)?,
        },
        From::SetNodeAdmin(from) => Command::SetNodeAdmin {
            node: NodeId(from.node),
            admin: admin_change(from.admin.ok_or(CodecError::UnknownKind { what: "node admin" })?),
        },
        From::SetDeviceHealth(from) => Command::SetDeviceHealth {
            node: NodeId(from.node),
            device: DeviceIndex(small(from.device, "device")?),
            failed: from.failed,
        },
        From::RemoveNode(from) => Command::RemoveNode { node: NodeId(from.node) },
        From::ApplyPolicy(from) => Command::ApplyPolicy {
            put: all(from.put, policy_object)?,
            delete: all(from.delete, policy_name)?,
            if_revision: Revision(from.if_revision),
        },
        From::BecomeLeader(from) => Command::BecomeLeader { leader: from.leader },
        From::Upgrade(from) => Command::Upgrade { to: from.to },
        From::TakeTokens(from) => {
            Command::TakeTokens { quota: from.quota, rate: from.rate, scope: from.scope, tokens: from.tokens }
        }
        From::OpenWindows(from) => super::schedule::decode_open(from),
        From::SetEndpoint(from) => Command::SetEndpoint {
            reservation: ReservationId(from.reservation),
            token: Revision(from.token),
            announced: from.announced.map(service::decode_announcement),
        },
        From::ReportLoad(from) => Command::ReportLoad { reports: service::decode_reports(from.reports)? },
        From::SetDesired(from) => scale::decode_desired(from),
        From::PinScale(from) => scale::decode_pin(from)?,
        From::OpenIntent(from) => scale::decode_open(from),
        From::StepIntent(from) => scale::decode_step(from)?,
    })
}

fn verdict(from: log::submit::Verdict) -> Result<Verdict> {
    use log::submit::Verdict as From;
    Ok(match from {
        From::Place(from) => Verdict::Place(placement(from)?),
        From::Blocked(from) => Verdict::Blocked(all(from.blockers, blocker)?),
        From::Infeasible(from) => Verdict::Infeasible(all(from.blockers, blocker)?),
    })
}

fn admin_change(from: log::set_node_admin::Admin) -> AdminChange {
    use log::set_node_admin::Admin as From;
    match from {
        From::Uncordon(_) => AdminChange::Uncordon,
        From::Cordon(from) => AdminChange::Cordon { reason: from.reason },
        From::Drain(from) => AdminChange::Drain { reason: from.reason, deadline_ms: from.deadline_ms },
    }
}

pub(super) fn answer(from: log::LogAnswer) -> Result<Answer> {
    Ok(Answer {
        revision: Revision(from.revision),
        log_time: LedgerTime(from.log_time_ms),
        outcome: outcome(need(from.outcome, "answer.outcome")?)?,
    })
}

pub(super) fn outcome(from: log::LogOutcome) -> Result<Outcome> {
    use log::log_outcome::Outcome as From;
    Ok(match from.outcome.ok_or(CodecError::UnknownKind { what: "outcome" })? {
        From::Done(_) => Outcome::Done,
        From::Reservation(from) => Outcome::Reservation(Arc::new(reservation(from)?)),
        From::Node(from) => Outcome::Node(Arc::new(node(from)?)),
        From::Expired(from) => Outcome::Expired { ended: from.ended, more: from.more },
        From::Tokens(from) => Outcome::Tokens(usage::decode_tokens(from)),
        From::Refused(from) => Outcome::Refused(Refusal {
            reason: names::decode_reason(from.reason)?,
            blockers: all(from.blockers, blocker)?,
        }),
    })
}

fn blocker(from: log::Blocker) -> Result<Blocker> {
    Ok(Blocker {
        reason: names::decode_reason(from.reason)?,
        subject: from.subject,
        asked: from.asked,
        available: from.available,
        limit: from.limit,
        nodes: from.nodes,
    })
}

pub(super) fn row(from: log::Row) -> Result<Row> {
    use log::row::Row as From;
    Ok(match from.row.ok_or(CodecError::UnknownKind { what: "row" })? {
        From::Meta(from) => Row::Meta(Meta {
            version: from.version,
            revision: Revision(from.revision),
            clock: LedgerTime(from.clock_ms),
            rearmed_at: LedgerTime(from.rearmed_at_ms),
            leader: from.leader,
            next_node: from.next_node,
            policy_changed: Revision(from.policy_changed),
        }),
        From::Pool(from) => Row::Pool(Arc::new(pool(from)?)),
        From::Class(from) => Row::Class(Arc::new(class(from))),
        From::NodeLimits(from) => Row::NodeLimits(Arc::new(node_limits(from)?)),
        From::Node(from) => Row::Node(Arc::new(node(from)?)),
        From::Reservation(from) => Row::Reservation(Arc::new(reservation(from)?)),
        From::Remembered(from) => Row::Idempotency(Arc::new(Remembered {
            actor: from.actor,
            request_id: from.request_id,
            request_hash: hash(&from.request_hash)?,
            answer: answer(need(from.answer, "remembered.answer")?)?,
            keep_until: LedgerTime(from.keep_until_ms),
        })),
        From::RemovedNode(from) => Row::RemovedNode(Arc::new(removed_node(from))),
        From::Queue(from) => Row::Queue(Arc::new(queue(from)?)),
        From::Quota(from) => Row::Quota(Arc::new(usage::decode_quota(from)?)),
        From::Usage(from) => Row::Usage(Arc::new(usage::decode_usage(from)?)),
        From::Validator(from) => Row::Validator(Arc::new(validator(from)?)),
        From::Schedule(from) => Row::Schedule(Arc::new(super::schedule::decode(from)?)),
        From::Service(from) => Row::Service(Arc::new(service::decode(from)?)),
        From::Load(from) => Row::Load(service::decode_load(from)?),
        From::ScalingPolicy(from) => scale::decode_policy_row(from)?,
        From::Scaling(from) => Row::Scaling(Arc::new(scale::decode_state(from))),
        From::Intent(from) => scale::decode_intent_row(from)?,
    })
}

fn removed_node(from: log::RemovedNode) -> RemovedNode {
    let device = |device: log::RemovedDevice| RemovedDevice { uuid: device.uuid, model: device.model };
    RemovedNode {
        id: NodeId(from.id),
        name: from.name,
        devices: from.devices.into_iter().map(device).collect(),
        removed_at: LedgerTime(from.removed_at_ms),
    }
}

fn reservation(from: log::Reservation) -> Result<Reservation> {
    Ok(Reservation {
        id: ReservationId(from.id),
        request: Arc::new(request(need(from.request, "reservation.request")?)?),
        requester: from.requester,
        priority: from.priority,
        state: names::decode_state(from.state)?,
        resume_state: names::decode_state(from.resume_state)?,
        amounts: resources(from.amounts)?,
        members: all(from.members, member)?,
        token: Revision(from.token),
        ttl_ms: from.ttl_ms,
        submitted_at: LedgerTime(from.submitted_at_ms),
        granted_at: LedgerTime(from.granted_at_ms),
        deadline: LedgerTime(from.deadline_ms),
        hard_end: LedgerTime(from.hard_end_ms),
        ended_at: LedgerTime(from.ended_at_ms),
        end_reason: names::decode_end(from.end_reason)?,
        changed: Revision(from.changed),
        blockers: all(from.blockers, blocker)?,
        preempted: from.preempted.map(preempted).transpose()?,
        tab: from.tab.map(usage::decode_tab).transpose()?.map(Arc::new),
        cost_micros: from.cost_micros,
        endpoint: from.endpoint.map(service::decode_endpoint).transpose()?.map(Arc::new),
    })
}

fn preempted(from: log::Preempted) -> Result<Preempted> {
    Ok(Preempted {
        by: ReservationId(from.by),
        rule: names::decode_preemption_rule(from.rule)?,
        at: LedgerTime(from.at_ms),
        revision: Revision(from.revision),
        grace_ms: from.grace_ms,
    })
}

fn request(from: log::Request) -> Result<Request> {
    let gang = need(from.gang, "request.gang")?;
    Ok(Request {
        name: from.name,
        pool: from.pool,
        class: from.class,
        tenant: from.tenant,
        queue: from.queue_name,
        service: from.service,
        labels: labels(from.labels)?,
        requirements: requirements(need(from.requirements, "request.requirements")?)?,
        gang: Gang { min_members: gang.min_members, max_members: gang.max_members, spread: gang.spread },
        ttl_ms: from.ttl_ms,
        hold_ms: from.hold_ms,
        max_duration_ms: from.max_duration_ms,
        auto_confirm: from.auto_confirm,
        wait: from.queue.map_or(Wait::Refuse, |queue| Wait::Queue { deadline_ms: queue.deadline_ms }),
        on_preempt: names::decode_on_preempt(from.on_preempt)?,
        max_cost_micros: from.max_cost_micros,
        start_at_ms: from.start_at_ms,
        topology: topology::decode(from.topology),
        affinity: from.affinity.into_iter().map(topology::decode_rule).collect(),
    })
}

fn requirements(from: log::Requirements) -> Result<Requirements> {
    let wish = |from: log::Preferred| {
        Ok(Preferred { weight: from.weight, term: term(need(from.term, "preferred.term")?)? })
    };
    Ok(Requirements {
        amounts: resources(from.amounts)?,
        gpu: from.gpu.map(gpu_ask).transpose()?,
        required: selector(from.required)?,
        preferred: all(from.preferred, wish)?,
    })
}

fn gpu_ask(from: log::GpuAsk) -> Result<GpuAsk> {
    use log::gpu_ask::Share as From;
    Ok(GpuAsk {
        count: from.count,
        share: match (from.share, from.mig_profile.as_str()) {
            (None, "") => return Err(CodecError::UnknownKind { what: "gpu share" }),
            (None, profile) => GpuShare::Mig(mig::decode_profile(profile)?),
            (Some(From::Whole(_)), "") => GpuShare::Whole,
            (Some(From::Milli(milli)), "") => GpuShare::Milli(small(milli, "gpu.milli")?),
            (Some(From::MemoryBytes(bytes)), "") => GpuShare::Memory(bytes),
            (Some(_), _) => return Err(CodecError::NotCanonical { what: "gpu share" }),
        },
        min_device_memory_bytes: from.min_device_memory_bytes,
        models: from.models,
    })
}

fn placement(from: log::Placement) -> Result<Placement> {
    Ok(Placement { members: all(from.members, member)? })
}

fn member(from: log::MemberPlacement) -> Result<MemberPlacement> {
    Ok(MemberPlacement { node: NodeId(from.node), devices: all(from.devices, device_grant)? })
}

fn device_grant(from: log::DeviceGrant) -> Result<DeviceGrant> {
    Ok(DeviceGrant {
        device: DeviceIndex(small(from.device, "grant.device")?),
        milli: small(from.milli, "grant.milli")?,
        memory_bytes: from.memory_bytes,
        slices: from.slices.map(mig::decode_slices).transpose()?,
    })
}

fn node(from: log::Node) -> Result<Node> {
    use log::node::Admin as From;
    let pending = |from: log::FencePending| {
        Ok(FencePending {
            reservation: ReservationId(from.reservation),
            token: Revision(from.token),
            amounts: resources(from.amounts)?,
            devices: all(from.devices, device_grant)?,
        })
    };
    Ok(Node {
        id: NodeId(from.id),
        registration: registration(need(from.registration, "node.registration")?)?,
        epoch: NodeEpoch(from.epoch),
        pool: from.pool,
        allocatable: resources(from.allocatable)?,
        admin: match from.admin.ok_or(CodecError::UnknownKind { what: "node admin" })? {
            From::Schedulable(_) => NodeAdmin::Schedulable,
            From::Cordoned(from) => NodeAdmin::Cordoned { reason: from.reason },
            From::Draining(from) => {
                NodeAdmin::Draining { reason: from.reason, deadline: LedgerTime(from.deadline_ms) }
            }
        },
        health: names::decode_health(from.health)?,
        health_since: LedgerTime(from.health_since_ms),
        fence_pending: all(from.fence_pending, pending)?,
        changed: Revision(from.changed),
    })
}

fn registration(from: log::Registration) -> Result<Registration> {
    let device = |from: log::Device| {
        Ok(Device {
            uuid: from.uuid,
            model: from.model,
            memory_bytes: from.memory_bytes,
            failed: from.failed,
            mig: from.mig.map(mig::decode_layout).transpose()?,
        })
    };
    Ok(Registration {
        name: from.name,
        incarnation: from.incarnation,
        pool: from.pool,
        labels: labels(from.labels)?,
        capacity: resources(from.capacity)?,
        devices: all(from.devices, device)?,
        self_fencing: from.self_fencing,
        running: from.running.into_iter().map(ReservationId).collect(),
    })
}

fn policy_object(from: log::PolicyObject) -> Result<PolicyObject> {
    use log::policy_object::Object as From;
    Ok(match from.object.ok_or(CodecError::UnknownKind { what: "policy object" })? {
        From::Pool(from) => PolicyObject::Pool(pool(from)?),
        From::Class(from) => PolicyObject::Class(class(from)),
        From::NodeLimits(from) => PolicyObject::NodeLimits(node_limits(from)?),
        From::Queue(from) => PolicyObject::Queue(queue(from)?),
        From::Quota(from) => PolicyObject::Quota(usage::decode_quota(from)?),
        From::Validator(from) => PolicyObject::Validator(validator(from)?),
        From::Schedule(from) => PolicyObject::Schedule(super::schedule::decode(from)?),
        From::Service(from) => PolicyObject::Service(service::decode(from)?),
        From::ScalingPolicy(from) => PolicyObject::ScalingPolicy(scale::decode(from)?),
    })
}

fn policy_name(from: log::PolicyName) -> Result<PolicyName> {
    use log::policy_name::Name as From;
    Ok(match from.name.ok_or(CodecError::UnknownKind { what: "policy name" })? {
        From::Pool(name) => PolicyName::Pool(name),
        From::Class(name) => PolicyName::Class(name),
        From::NodeLimits(name) => PolicyName::NodeLimits(name),
        From::Queue(name) => PolicyName::Queue(name),
        From::Quota(name) => PolicyName::Quota(name),
        From::Validator(name) => PolicyName::Validator(name),
        From::Schedule(name) => PolicyName::Schedule(name),
        From::Service(name) => PolicyName::Service(name),
        From::ScalingPolicy(name) => PolicyName::ScalingPolicy(name),
    })
}

fn pool(from: log::Pool) -> Result<Pool> {
    Ok(Pool {
        name: from.name,
        labels: labels(from.labels)?,
        select: selector(from.select)?,
        strategy: names::decode_strategy(from.strategy)?,
        countables: amounts(from.countables)?,
        queue_order: names::decode_order(from.queue_order)?,
        max_pending: from.max_pending,
        changed: Revision(from.changed),
        fairness: names::decode_fairness(from.fairness)?,
        price_milli: from.price_milli,
        preemption: names::decode_preemption(from.preemption)?,
        max_preemptions_per_hour: from.max_preemptions_per_hour,
        prices: amounts(from.prices)?.into_iter().map(|(name, amount)| (name, amount.0)).collect(),
        currency: from.currency,
        topology: from.topology,
        queueing: from.queueing.parse().map_err(|()| CodecError::UnknownKind { what: "queue discipline" })?,
        starvation_bound_ms: from.starvation_bound_ms,
    })
}

fn class(from: log::Class) -> Class {
    Class {
        name: from.name,
        priority: from.priority,
        preemptible: from.preemptible,
        default_ttl_ms: from.default_ttl_ms,
        grace_ms: from.grace_ms,
        min_run_ms: from.min_run_ms,
        default_duration_ms: from.default_duration_ms,
        changed: Revision(from.changed),
    }
}

fn validator(from: log::Validator) -> Result<Validator> {
    let is_set = |names: &[String]| names.is_sorted_by(|a, b| a < b);
    if !is_set(&from.pools) || !is_set(&from.queues) {
        return Err(CodecError::NotCanonical { what: "set of names" });
    }
    let rule = |rule: log::ValidatorRule| Rule {
        expression: rule.expression,
        message: rule.message,
        path: rule.path,
    };
    Ok(Validator {
        name: from.name,
        subject: from.subject,
        pools: from.pools.into_iter().collect(),
        queues: from.queues.into_iter().collect(),
        rules: from.rules.into_iter().map(rule).collect(),
        changed: Revision(from.changed),
    })
}

fn queue(from: log::QuotaQueue) -> Result<PolicyQueue> {
    let quota = |from: log::ResourceQuota| {
        let quota = Quota {
            guaranteed: Amount(from.guaranteed),
            nominal: Amount(from.nominal),
            limit: from.limit.map(|limit| Amount(limit.amount)),
        };
        (from.resource, quota)
    };
    let in_order = from.quotas.is_sorted_by(|a, b| a.pool < b.pool)
        && from.quotas.iter().all(|pool| pool.quotas.is_sorted_by(|a, b| a.resource < b.resource));
    if !in_order {
        return Err(CodecError::NotCanonical { what: "map of quotas" });
    }
    let pools = from.quotas.into_iter().map(|from| (from.pool, from.quotas.into_iter().map(quota).collect()));
    Ok(PolicyQueue {
        name: from.name,
        labels: labels(from.labels)?,
        parent: from.parent,
        weight_milli: from.weight_milli,
        quotas: pools.collect(),
        max_pending: from.max_pending,
        changed: Revision(from.changed),
    })
}

fn node_limits(from: log::NodeLimits) -> Result<NodeLimits> {
    Ok(NodeLimits {
        name: from.name,
        select: selector(from.select)?,
        max: resources(from.max)?,
        changed: Revision(from.changed),
    })
}

pub(super) fn resources(from: Option<log::Resources>) -> Result<Resources> {
    let from = need(from, "resources")?;
    let other = amounts(from.other)?;
    if other.values().any(|amount| amount.is_zero()) {
        return Err(CodecError::NotCanonical { what: "resources" });
    }
    Ok(Resources { cpu_millis: Amount(from.cpu_millis), memory_bytes: Amount(from.memory_bytes), other })
}

fn amounts(from: Vec<log::NamedAmount>) -> Result<BTreeMap<String, Amount>> {
    if !from.is_sorted_by(|a, b| a.name < b.name) {
        return Err(CodecError::NotCanonical { what: "map of amounts" });
    }
    Ok(from.into_iter().map(|entry| (entry.name, Amount(entry.amount))).collect())
}

pub(super) fn labels(from: Vec<log::Label>) -> Result<Labels> {
    if !from.is_sorted_by(|a, b| a.key < b.key) {
        return Err(CodecError::NotCanonical { what: "map of labels" });
    }
    Ok(from.into_iter().map(|entry| (entry.key, entry.value)).collect())
}

fn selector(from: Vec<log::Term>) -> Result<Selector> {
    Ok(Selector { terms: all(from, term)? })
}

fn term(from: log::Term) -> Result<Term> {
    Ok(Term { key: from.key, operator: names::decode_operator(from.operator)?, values: from.values })
}

fn hash(from: &Bytes) -> Result<[u8; 32]> {
    if from.is_empty() {
        return Ok([0; 32]);
    }
    from.as_ref()
        .try_into()
        .map_err(|_| CodecError::OutOfRange { field: "length of request_hash", value: from.len() as u64 })
}

pub(super) fn need<T>(from: Option<T>, field: &'static str) -> Result<T> {
    from.ok_or(CodecError::Missing { field })
}

fn small(from: u32, field: &'static str) -> Result<u16> {
    u16::try_from(from).map_err(|_| CodecError::OutOfRange { field, value: from.into() })
}

pub(super) fn all<A, B>(from: Vec<A>, one: impl Fn(A) -> Result<B>) -> Result<Vec<B>> {
    from.into_iter().map(one).collect()
}
