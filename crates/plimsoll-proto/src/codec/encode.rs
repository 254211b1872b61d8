//! Ledger types into their stored forms.

use std::collections::BTreeMap;

use bytes::Bytes;
use plimsoll_ledger::{
    AdminChange, Answer, Blocker, Class, Command, Device, DeviceGrant, Entry, FencePending, GpuAsk, GpuShare,
    MemberPlacement, Node, NodeAdmin, NodeLimits, Outcome, Placement, PolicyName, PolicyObject, Pool,
    Preempted, Queue as PolicyQueue, Quota, Refusal, Registration, RemovedDevice, RemovedNode, Request,
    Requirements, Reservation, Row, Rule, Validator, Verdict, Wait,
};
use plimsoll_types::{Amount, Labels, Resources, Selector, Term};

use super::{mig, names, scale, service, topology, usage};
use crate::log;

pub(super) fn entry(entry: &Entry) -> log::LogCommand {
    log::LogCommand {
        actor: entry.actor.clone(),
        request_id: entry.request_id.clone(),
        request_hash: hash(&entry.request_hash),
        command: Some(command(&entry.command)),
    }
}

fn command(command: &Command) -> log::log_command::Command {
    use log::log_command::Command as To;
    match command {
        Command::Submit { request: asked, verdict: found } => {
            To::Submit(log::Submit { request: Some(request(asked)), verdict: Some(verdict(found)) })
        }
        Command::Place { reservation, placement: place } => {
            To::Place(log::Place { reservation: reservation.0, placement: Some(placement(place)) })
        }
        Command::Preempt { reservation, placement: place, victims } => To::Preempt(log::Preempt {
            reservation: reservation.0,
            placement: Some(placement(place)),
            victims: victims.iter().map(|id| id.0).collect(),
        }),
        Command::Confirm { reservation, token } => {
            To::Confirm(log::Confirm { reservation: reservation.0, token: token.0 })
        }
        Command::Renew { reservation, token, ttl_ms } => {
            To::Renew(log::Renew { reservation: reservation.0, token: token.0, ttl_ms: *ttl_ms })
        }
        Command::Resize { reservation, token, amounts } => To::Resize(log::Resize {
            reservation: reservation.0,
            token: token.0,
            amounts: Some(resources(amounts)),
        }),
        Command::Release { reservation, token } => {
            To::Release(log::Release { reservation: reservation.0, token: token.0 })
        }
        Command::Requeue { reservation, token } => {
            To::Requeue(log::Requeue { reservation: reservation.0, token: token.0 })
        }
        Command::Cancel { reservation } => To::Cancel(log::Cancel { reservation: reservation.0 }),
        Command::Expire { limit } => To::Expire(log::Expire { limit: *limit }),
        Command::RegisterNode(node) => To::RegisterNode(registration(node)),
        Command::SetNodeHealth { node, epoch, health } => To::SetNodeHealth(log::SetNodeHealth {
            node: node.0,
            epoch: epoch.0,
            health: names::encode_health(*health),
        }),
        Command::SetNodeAdmin { node, admin } => {
            To::SetNodeAdmin(log::SetNodeAdmin { node: node.0, admin: Some(admin_change(admin)) })
        }
        Command::SetDeviceHealth { node, device, failed } => To::SetDeviceHealth(log::SetDeviceHealth {
            node: node.0,
            device: device.0.into(),
            failed: *failed,
        }),
        Command::RemoveNode { node } => To::RemoveNode(log::RemoveNode { node: node.0 }),
        Command::ApplyPolicy { put, delete, if_revision } => To::ApplyPolicy(log::ApplyPolicy {
            put: put.iter().map(policy_object).collect(),
            delete: delete.iter().map(policy_name).collect(),
            if_revision: if_revision.0,
        }),
        Command::BecomeLeader { leader } => To::BecomeLeader(log::BecomeLeader { leader: *leader }),
        Command::OpenWindows { schedule, changed, windows, until } => {
            To::OpenWindows(super::schedule::encode_open(schedule, *changed, windows, *until))
        }
        Command::SetEndpoint { reservation, token, announced } => To::SetEndpoint(log::SetEndpoint {
            reservation: reservation.0,
            token: token.0,
            announced: announced.as_ref().map(service::encode_announcement),
        }),
        Command::ReportLoad { reports } => {
            To::ReportLoad(log::ReportLoad { reports: reports.iter().map(service::encode_report).collect() })
        }
        Command::SetDesired(decided) => To::SetDesired(scale::encode_desired(decided)),
        Command::PinScale { target, to, for_ms } => To::PinScale(scale::encode_pin(target, *to, *for_ms)),
        Command::OpenIntent { policy, machine } => To::OpenIntent(scale::encode_open(policy, *machine)),
        Command::StepIntent { intent, attempts, step } => {
            To::StepIntent(scale::encode_step(*intent, *attempts, step))
        }
        Command::Upgrade { to } => To::Upgrade(log::Upgrade { to: *to }),
        Command::TakeTokens { quota, rate, scope, tokens } => To::TakeTokens(log::TakeTokens {
            quota: quota.clone(),
            rate: rate.clone(),
            scope: scope.clone(),
            tokens: *tokens,
        }),
    }
}

fn verdict(verdict: &Verdict) -> log::submit::Verdict {
    match verdict {
        Verdict::Place(place) => log::submit::Verdict::Place(placement(place)),
        Verdict::Blocked(list) => log::submit::Verdict::Blocked(log::Blockers { blockers: blockers(list) }),
        Verdict::Infeasible(list) => {
            log::submit::Verdict::Infeasible(log::Blockers { blockers: blockers(list) })
        }
    }
}

fn admin_change(change: &AdminChange) -> log::set_node_admin::Admin {
    use log::set_node_admin::Admin;
    match change {
        AdminChange::Uncordon => Admin::Uncordon(log::Uncordon {}),
        AdminChange::Cordon { reason } => Admin::Cordon(log::Cordon { reason: reason.clone() }),
        AdminChange::Drain { reason, deadline_ms } => {
            Admin::Drain(log::Drain { reason: reason.clone(), deadline_ms: *deadline_ms })
        }
    }
}

pub(super) fn answer(answer: &Answer) -> log::LogAnswer {
    log::LogAnswer {
        revision: answer.revision.0,
        log_time_ms: answer.log_time.0,
        outcome: Some(outcome(&answer.outcome)),
    }
}

pub(super) fn outcome(outcome: &Outcome) -> log::LogOutcome {
    use log::log_outcome::Outcome as To;
    let to = match outcome {
        Outcome::Done => To::Done(log::Done {}),
        Outcome::Reservation(after) => To::Reservation(reservation(after)),
        Outcome::Node(after) => To::Node(node(after)),
        Outcome::Expired { ended, more } => To::Expired(log::Expired { ended: *ended, more: *more }),
        Outcome::Tokens(told) => To::Tokens(usage::encode_tokens(told)),
        Outcome::Refused(why) => To::Refused(refusal(why)),
    };
    log::LogOutcome { outcome: Some(to) }
}

fn refusal(refusal: &Refusal) -> log::Refusal {
    log::Refusal { reason: names::encode_reason(refusal.reason), blockers: blockers(&refusal.blockers) }
}

fn blockers(blockers: &[Blocker]) -> Vec<log::Blocker> {
    let one = |blocker: &Blocker| log::Blocker {
        reason: names::encode_reason(blocker.reason),
        subject: blocker.subject.clone(),
        asked: blocker.asked,
        available: blocker.available,
        limit: blocker.limit,
        nodes: blocker.nodes,
    };
    blockers.iter().map(one).collect()
}

pub(super) fn row(row: &Row) -> log::Row {
    use log::row::Row as To;
    let to = match row {
        Row::Meta(meta) => To::Meta(log::Meta {
            version: meta.version,
            revision: meta.revision.0,
            clock_ms: meta.clock.0,
            rearmed_at_ms: meta.rearmed_at.0,
            leader: meta.leader,
            next_node: meta.next_node,
            policy_changed: meta.policy_changed.0,
        }),
        Row::Pool(object) => To::Pool(pool(object)),
        Row::Class(object) => To::Class(class(object)),
        Row::NodeLimits(object) => To::NodeLimits(node_limits(object)),
        Row::Node(object) => To::Node(node(object)),
        Row::Reservation(object) => To::Reservation(reservation(object)),
        Row::Idempotency(kept) => To::Remembered(log::Remembered {
            actor: kept.actor.clone(),
            request_id: kept.request_id.clone(),
            request_hash: hash(&kept.request_hash),
            answer: Some(answer(&kept.answer)),
            keep_until_ms: kept.keep_until.0,
        }),
        Row::RemovedNode(object) => To::RemovedNode(removed_node(object)),
        Row::Queue(object) => To::Queue(queue(object)),
        Row::Quota(object) => To::Quota(usage::encode_quota(object)),
        Row::Usage(object) => To::Usage(usage::encode_usage(object)),
        Row::Validator(object) => To::Validator(validator(object)),
        Row::Schedule(object) => To::Schedule(super::schedule::encode(object)),
        Row::Service(object) => To::Service(service::encode(object)),
        Row::Load(load) => To::Load(service::encode_load(load)),
        Row::ScalingPolicy(policy) => To::ScalingPolicy(scale::encode(policy)),
        Row::Scaling(state) => To::Scaling(scale::encode_state(state)),
        Row::Intent(intent) => To::Intent(scale::encode_intent(intent)),
    };
    log::Row { row: Some(to) }
}

fn reservation(reservation: &Reservation) -> log::Reservation {
    log::Reservation {
        id: reservation.id.0,
        request: Some(request(&reservation.request)),
        requester: reservation.requester.clone(),
        priority: reservation.priority,
        state: names::encode_state(reservation.state),
        resume_state: names::encode_state(reservation.resume_state),
        amounts: Some(resources(&reservation.amounts)),
        members: members(&reservation.members),
        token: reservation.token.0,
        ttl_ms: reservation.ttl_ms,
        submitted_at_ms: reservation.submitted_at.0,
        granted_at_ms: reservation.granted_at.0,
        deadline_ms: reservation.deadline.0,
        hard_end_ms: reservation.hard_end.0,
        ended_at_ms: reservation.ended_at.0,
        end_reason: names::encode_end(reservation.end_reason),
        changed: reservation.changed.0,
        blockers: blockers(&reservation.blockers),
        preempted: reservation.preempted.as_ref().map(preempted),
        tab: reservation.tab.as_deref().map(usage::encode_tab),
        cost_micros: reservation.cost_micros,
        endpoint: reservation.endpoint.as_deref().map(service::encode_endpoint),
    }
}

fn preempted(preempted: &Preempted) -> log::Preempted {
    log::Preempted {
        by: preempted.by.0,
        rule: names::encode_preemption_rule(preempted.rule),
        at_ms: preempted.at.0,
        revision: preempted.revision.0,
        grace_ms: preempted.grace_ms,
    }
}

fn request(request: &Request) -> log::Request {
    log::Request {
        name: request.name.clone(),
        pool: request.pool.clone(),
        class: request.class.clone(),
        tenant: request.tenant.clone(),
        queue_name: request.queue.clone(),
        service: request.service.clone(),
        labels: labels(&request.labels),
        requirements: Some(requirements(&request.requirements)),
        gang: Some(log::Gang {
            min_members: request.gang.min_members,
            max_members: request.gang.max_members,
            spread: request.gang.spread,
        }),
        ttl_ms: request.ttl_ms,
        hold_ms: request.hold_ms,
        max_duration_ms: request.max_duration_ms,
        auto_confirm: request.auto_confirm,
        queue: match request.wait {
            Wait::Refuse => None,
            Wait::Queue { deadline_ms } => Some(log::Queue { deadline_ms }),
        },
        on_preempt: names::encode_on_preempt(request.on_preempt),
        max_cost_micros: request.max_cost_micros,
        start_at_ms: request.start_at_ms,
        topology: topology::encode(&request.topology),
        affinity: request.affinity.iter().map(topology::encode_rule).collect(),
    }
}

fn requirements(requirements: &Requirements) -> log::Requirements {
    let wish = |wish: &plimsoll_ledger::Preferred| log::Preferred {
        weight: wish.weight,
        term: Some(term(&wish.term)),
    };
    log::Requirements {
        amounts: Some(resources(&requirements.amounts)),
        gpu: requirements.gpu.as_ref().map(gpu_ask),
        required: selector(&requirements.required),
        preferred: requirements.preferred.iter().map(wish).collect(),
    }
}

fn gpu_ask(ask: &GpuAsk) -> log::GpuAsk {
    use log::gpu_ask::Share;
    log::GpuAsk {
        count: ask.count,
        share: match ask.share {
            GpuShare::Whole => Some(Share::Whole(log::WholeDevice {})),
            GpuShare::Milli(milli) => Some(Share::Milli(milli.into())),
            GpuShare::Memory(bytes) => Some(Share::MemoryBytes(bytes)),
            GpuShare::Mig(_) => None,
        },
        min_device_memory_bytes: ask.min_device_memory_bytes,
        models: ask.models.clone(),
        mig_profile: match ask.share {
            GpuShare::Mig(profile) => profile.to_string(),
            GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Memory(_) => String::new(),
        },
    }
}

fn placement(placement: &Placement) -> log::Placement {
    log::Placement { members: members(&placement.members) }
}

fn members(members: &[MemberPlacement]) -> Vec<log::MemberPlacement> {
    let one = |member: &MemberPlacement| log::MemberPlacement {
        node: member.node.0,
        devices: device_grants(&member.devices),
    };
    members.iter().map(one).collect()
}

fn device_grants(grants: &[DeviceGrant]) -> Vec<log::DeviceGrant> {
    let one = |grant: &DeviceGrant| log::DeviceGrant {
        device: grant.device.0.into(),
        milli: grant.milli.into(),
        memory_bytes: grant.memory_bytes,
        slices: grant.slices.as_ref().map(mig::encode_slices),
    };
    grants.iter().map(one).collect()
}

fn node(node: &Node) -> log::Node {
    use log::node::Admin;
    let pending = |pending: &FencePending| log::FencePending {
        reservation: pending.reservation.0,
        token: pending.token.0,
        amounts: Some(resources(&pending.amounts)),
        devices: device_grants(&pending.devices),
    };
    log::Node {
        id: node.id.0,
        registration: Some(registration(&node.registration)),
        epoch: node.epoch.0,
        pool: node.pool.clone(),
        allocatable: Some(resources(&node.allocatable)),
        admin: Some(match &node.admin {
            NodeAdmin::Schedulable => Admin::Schedulable(log::Schedulable {}),
            NodeAdmin::Cordoned { reason } => Admin::Cordoned(log::Cordon { reason: reason.clone() }),
            NodeAdmin::Draining { reason, deadline } => {
                Admin::Draining(log::Drain { reason: reason.clone(), deadline_ms: deadline.0 })
            }
        }),
        health: names::encode_health(node.health),
        health_since_ms: node.health_since.0,
        fence_pending: node.fence_pending.iter().map(pending).collect(),
        changed: node.changed.0,
    }
}

fn removed_node(removed: &RemovedNode) -> log::RemovedNode {
    let device = |device: &RemovedDevice| log::RemovedDevice {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
    };
    log::RemovedNode {
        id: removed.id.0,
        name: removed.name.clone(),
        devices: removed.devices.iter().map(device).collect(),
        removed_at_ms: removed.removed_at.0,
    }
}

fn registration(registration: &Registration) -> log::Registration {
    let device = |device: &Device| log::Device {
        uuid: device.uuid.clone(),
        model: device.model.clone(),
        memory_bytes: device.memory_bytes,
        failed: device.failed,
        mig: device.mig.as_ref().map(mig::encode_layout),
    };
    log::Registration {
        name: registration.name.clone(),
        incarnation: registration.incarnation,
        pool: registration.pool.clone(),
        labels: labels(&registration.labels),
        capacity: Some(resources(&registration.capacity)),
        devices: registration.devices.iter().map(device).collect(),
        self_fencing: registration.self_fencing,
        running: registration.running.iter().map(|id| id.0).collect(),
    }
}

fn policy_object(object: &PolicyObject) -> log::PolicyObject {
    use log::policy_object::Object;
    let object = match object {
        PolicyObject::Pool(object) => Object::Pool(pool(object)),
        PolicyObject::Class(object) => Object::Class(class(object)),
        PolicyObject::NodeLimits(object) => Object::NodeLimits(node_limits(object)),
        PolicyObject::Queue(object) => Object::Queue(queue(object)),
        PolicyObject::Quota(object) => Object::Quota(usage::encode_quota(object)),
        PolicyObject::Validator(object) => Object::Validator(validator(object)),
        PolicyObject::Schedule(object) => Object::Schedule(super::schedule::encode(object)),
        PolicyObject::Service(object) => Object::Service(service::encode(object)),
        PolicyObject::ScalingPolicy(object) => Object::ScalingPolicy(scale::encode(object)),
    };
    log::PolicyObject { object: Some(object) }
}

fn policy_name(name: &PolicyName) -> log::PolicyName {
    use log::policy_name::Name;
    let name = match name {
        PolicyName::Pool(name) => Name::Pool(name.clone()),
        PolicyName::Class(name) => Name::Class(name.clone()),
        PolicyName::NodeLimits(name) => Name::NodeLimits(name.clone()),
        PolicyName::Queue(name) => Name::Queue(name.clone()),
        PolicyName::Quota(name) => Name::Quota(name.clone()),
        PolicyName::Validator(name) => Name::Validator(name.clone()),
        PolicyName::Schedule(name) => Name::Schedule(name.clone()),
        PolicyName::Service(name) => Name::Service(name.clone()),
        PolicyName::ScalingPolicy(name) => Name::ScalingPolicy(name.clone()),
    };
    log::PolicyName { name: Some(name) }
}

fn pool(pool: &Pool) -> log::Pool {
    log::Pool {
        name: pool.name.clone(),
        labels: labels(&pool.labels),
        select: selector(&pool.select),
        strategy: names::encode_strategy(pool.strategy),
        countables: amounts(&pool.countables),
        queue_order: names::encode_order(pool.queue_order),
        max_pending: pool.max_pending,
        changed: pool.changed.0,
        fairness: names::encode_fairness(pool.fairness),
        price_milli: pool.price_milli,
        preemption: names::encode_preemption(pool.preemption),
        max_preemptions_per_hour: pool.max_preemptions_per_hour,
        prices: named(&pool.prices),
        currency: pool.currency.clone(),
        topology: pool.topology.clone(),
        queueing: pool.queueing.to_string(),
        starvation_bound_ms: pool.starvation_bound_ms,
    }
}

fn class(class: &Class) -> log::Class {
    log::Class {
        name: class.name.clone(),
        priority: class.priority,
        preemptible: class.preemptible,
        default_ttl_ms: class.default_ttl_ms,
        grace_ms: class.grace_ms,
        min_run_ms: class.min_run_ms,
        default_duration_ms: class.default_duration_ms,
        changed: class.changed.0,
    }
}

fn validator(object: &Validator) -> log::Validator {
    let rule = |rule: &Rule| log::ValidatorRule {
        expression: rule.expression.clone(),
        message: rule.message.clone(),
        path: rule.path.clone(),
    };
    log::Validator {
        name: object.name.clone(),
        subject: object.subject.clone(),
        pools: object.pools.iter().cloned().collect(),
        queues: object.queues.iter().cloned().collect(),
        rules: object.rules.iter().map(rule).collect(),
        changed: object.changed.0,
    }
}

fn queue(queue: &PolicyQueue) -> log::QuotaQueue {
    let quota = |(resource, quota): (&String, &Quota)| log::ResourceQuota {
        resource: resource.clone(),
        guaranteed: quota.guaranteed.0,
        nominal: quota.nominal.0,
        limit: quota.limit.map(|limit| log::QuotaLimit { amount: limit.0 }),
    };
    let quotas = queue.quotas.iter().map(|(pool, quotas)| log::PoolQuotas {
        pool: pool.clone(),
        quotas: quotas.iter().map(quota).collect(),
    });
    log::QuotaQueue {
        name: queue.name.clone(),
        labels: labels(&queue.labels),
        parent: queue.parent.clone(),
        weight_milli: queue.weight_milli,
        quotas: quotas.collect(),
        max_pending: queue.max_pending,
        changed: queue.changed.0,
    }
}

fn node_limits(limits: &NodeLimits) -> log::NodeLimits {
    log::NodeLimits {
        name: limits.name.clone(),
        select: selector(&limits.select),
        max: Some(resources(&limits.max)),
        changed: limits.changed.0,
    }
}

pub(super) fn resources(resources: &Resources) -> log::Resources {
    log::Resources {
        cpu_millis: resources.cpu_millis.0,
        memory_bytes: resources.memory_bytes.0,
        other: amounts(&resources.other),
    }
}

fn amounts(amounts: &BTreeMap<String, Amount>) -> Vec<log::NamedAmount> {
    amounts.iter().map(|(name, amount)| log::NamedAmount { name: name.clone(), amount: amount.0 }).collect()
}

fn named(amounts: &BTreeMap<String, u64>) -> Vec<log::NamedAmount> {
    amounts.iter().map(|(name, amount)| log::NamedAmount { name: name.clone(), amount: *amount }).collect()
}

pub(super) fn labels(labels: &Labels) -> Vec<log::Label> {
    labels.iter().map(|(key, value)| log::Label { key: key.clone(), value: value.clone() }).collect()
}

fn selector(selector: &Selector) -> Vec<log::Term> {
    selector.terms.iter().map(term).collect()
}

fn term(term: &Term) -> log::Term {
    log::Term {
        key: term.key.clone(),
        operator: names::encode_operator(term.operator),
        values: term.values.clone(),
    }
}

fn hash(hash: &[u8; 32]) -> Bytes {
    if *hash == [0; 32] { Bytes::new() } else { Bytes::copy_from_slice(hash) }
}
