//! Pools, classes, limits and coordinators as rows.

use plimsoll_client::v1::{
    Class, CoordinatorStatus, DeviceFragmentation, Member, MemberRole, MemberVersion, NodeLimits,
    NodeSelectorTerm, Pool, PoolStatus, Qos,
};
use plimsoll_types::quantity::{display_bytes, format_cpu_millis, format_duration_ms};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, quantities, share, short_duration};

/// A pool with what it looks like now.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolRow {
    /// The pool.
    pub(crate) pool: Pool,
    /// What it looks like.
    pub(crate) status: PoolStatus,
}

/// `12% of 3.5 free stranded`: what is free of devices and of no use to what is expected.
pub(crate) fn stranded(one: &DeviceFragmentation) -> String {
    let percent = (one.stranded_milli * 100).checked_div(one.free_milli).unwrap_or(0);
    let over = if one.over_threshold { " (over its threshold)" } else { "" };
    format!("{percent}% of {} free stranded{over}", devices(one.free_milli))
}

/// Thousandths of devices as devices: 2, 0.5, 1.25.
pub(crate) fn devices(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Shown for PoolRow {
    const COLUMNS: &'static [Column<PoolRow>] = &[
        Column::new("POOL", |p, _| p.pool.name.clone()),
        Column::new("STRATEGY", |p, _| word(p.pool.strategy().as_str_name(), "STRATEGY_")),
        Column::new("QUEUE", |p, _| match p.pool.queueing.as_str() {
            "" => word(p.pool.queue_order().as_str_name(), "QUEUE_ORDER_"),
            named => named.to_owned(),
        }),
        Column::new("NODES", |p, _| format!("{}/{}", p.status.nodes_available, p.status.nodes)),
        Column::new("CPU", |p, _| {
            let (used, all) = pair(&p.status);
            share(used.cpu_millis, all.cpu_millis, format_cpu_millis)
        }),
        Column::new("MEM", |p, _| {
            let (used, all) = pair(&p.status);
            share(used.memory_bytes, all.memory_bytes, display_bytes)
        }),
        Column::new("GPU", |p, _| {
            let milli = p.status.used_device_milli;
            let part = if milli % 1000 == 0 { String::new() } else { format!(".{}", milli % 1000 / 100) };
            format!("{}{part}/{}", milli / 1000, p.status.devices)
        }),
        Column::new("PENDING", |p, _| p.status.pending.to_string()),
        Column::wide("ELASTICITY", |p, _| {
            let bounds = match (p.pool.min_nodes, p.pool.max_nodes) {
                (0, 0) => String::new(),
                (min, 0) => format!(" {min}.."),
                (min, max) => format!(" {min}..{max}"),
            };
            format!("{}{bounds}", word(p.pool.elasticity().as_str_name(), "ELASTICITY_"))
        }),
        Column::wide("STRANDED", |p, _| {
            let classes = p.status.fragmentation.iter();
            classes.map(|one| format!("{} {}", one.model, stranded(one))).collect::<Vec<_>>().join(", ")
        }),
        Column::wide("SELECT", |p, _| selector(&p.pool.select)),
        Column::wide("COUNTABLES", |p, _| {
            p.pool
                .countables
                .iter()
                .map(|(name, total)| format!("{name}={total}"))
                .collect::<Vec<_>>()
                .join(",")
        }),
        Column::wide("REVISION", |p, _| p.pool.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.pool.name.clone()
    }

    fn json(&self) -> Value {
        let mut pool = document(&self.pool);
        pool["status"] = document(&self.status);
        pool
    }
}

impl Shown for Class {
    const COLUMNS: &'static [Column<Class>] = &[
        Column::new("CLASS", |c, _| c.name.clone()),
        Column::new("PRIORITY", |c, _| c.priority.to_string()),
        Column::new("PREEMPTIBLE", |c, _| if c.preemptible { "yes" } else { "no" }.to_owned()),
        Column::new("TTL", |c, _| match c.default_ttl_ms {
            0 => String::new(),
            ms => format_duration_ms(ms),
        }),
        Column::wide("QOS", |c, _| match c.qos() {
            Qos::Unspecified => String::new(),
            qos => word(qos.as_str_name(), "QOS_"),
        }),
        Column::wide("LATENCY TARGET", |c, _| match c.latency_target_ms {
            None => String::new(),
            Some(0) => "now".to_owned(),
            Some(ms) => format_duration_ms(ms),
        }),
        Column::wide("MULTIPLIER", |c, _| {
            c.multiplier_milli.map_or_else(String::new, |milli| format_cpu_millis(milli.into()))
        }),
        Column::wide("EVICT WHEN", |c, _| c.evict_when.clone()),
        Column::wide("REVISION", |c, _| c.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        document(self)
    }
}

impl Shown for NodeLimits {
    const COLUMNS: &'static [Column<NodeLimits>] = &[
        Column::new("LIMITS", |l, _| l.name.clone()),
        Column::new("NODES", |l, _| match selector(&l.select) {
            text if text.is_empty() => "all".to_owned(),
            text => text,
        }),
        Column::new("MAX", |l, _| quantities(&l.max.clone().unwrap_or_default()).join(", ")),
        Column::wide("REVISION", |l, _| l.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        document(self)
    }
}

/// A coordinator as the membership names it, with its own word where it answers.
#[derive(Clone, Debug)]
pub(crate) struct MemberRow {
    /// The member.
    pub(crate) member: Member,
    /// It was asked for its own word.
    pub(crate) asked: bool,
    /// Its own word.
    pub(crate) status: Option<CoordinatorStatus>,
    /// Latest revision that any coordinator has applied.
    pub(crate) newest_revision: u64,
}

impl Shown for MemberRow {
    const COLUMNS: &'static [Column<MemberRow>] = &[
        Column::new("MEMBER", |m, _| m.member.id.to_string()),
        Column::new("ROLE", role),
        Column::new("TERM", |m, _| m.status.as_ref().map(|s| s.term.to_string()).unwrap_or_default()),
        Column::new("APPLIED", |m, _| m.status.as_ref().map(|s| s.revision.to_string()).unwrap_or_default()),
        Column::new("LAG", |m, _| {
            m.status
                .as_ref()
                .map(|s| m.newest_revision.saturating_sub(s.revision).to_string())
                .unwrap_or_default()
        }),
        Column::new("ADDRESS", |m, _| m.member.address.clone()),
        Column::new("UP", |m, _| m.status.as_ref().map(|s| short_duration(s.uptime_ms)).unwrap_or_default()),
        Column::new("VERSION", |m, _| m.status.as_ref().map(|s| s.version.clone()).unwrap_or_default()),
        Column::new("LEDGER", |m, _| {
            m.status.as_ref().map(|s| s.ledger_version.to_string()).unwrap_or_default()
        }),
        Column::new("KNOWS", |m, _| {
            m.status.as_ref().map(|s| s.supported_version.to_string()).unwrap_or_default()
        }),
        Column::new("NOTE", note),
        Column::wide("VOTER", |m, _| m.member.voter.to_string()),
        Column::wide("COMMITTED", |m, _| {
            m.status.as_ref().map(|s| s.committed_index.to_string()).unwrap_or_default()
        }),
        Column::wide("LOG FLOOR", |m, _| {
            m.status.as_ref().map(|s| s.log_floor_index.to_string()).unwrap_or_default()
        }),
        Column::wide("SNAPSHOT", |m, _| {
            m.status.as_ref().map(|s| s.snapshot_index.to_string()).unwrap_or_default()
        }),
        Column::wide("AGENTS", |m, _| m.status.as_ref().map(|s| s.agents.to_string()).unwrap_or_default()),
        Column::wide("INCARNATION", |m, _| m.member.incarnation.clone()),
    ];

    fn id(&self) -> String {
        self.member.id.to_string()
    }

    fn json(&self) -> Value {
        let mut member = document(&self.member);
        if let Some(status) = &self.status {
            member["status"] = document(status);
        }
        member
    }
}

impl Shown for MemberVersion {
    const COLUMNS: &'static [Column<MemberVersion>] = &[
        Column::new("MEMBER", |m, _| m.id.to_string()),
        Column::new("ADDRESS", |m, _| m.address.clone()),
        Column::new("VERSION", |m, _| m.version.clone()),
        Column::new("KNOWS", |m, _| if m.answered { m.supported_version.to_string() } else { String::new() }),
        Column::new("NOTE", |m, _| m.problem.clone()),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn json(&self) -> Value {
        document(self)
    }
}

/// A selector as it is written: `zone in (a,b),gpu!=t4`.
pub(crate) fn selector(terms: &[NodeSelectorTerm]) -> String {
    use plimsoll_client::v1::SelectorOperator as Op;
    let one = |term: &NodeSelectorTerm| {
        let (key, values) = (&term.key, term.values.join(","));
        match term.operator() {
            Op::In if term.values.len() == 1 => format!("{key}={values}"),
            Op::NotIn if term.values.len() == 1 => format!("{key}!={values}"),
            Op::In | Op::Unspecified => format!("{key} in ({values})"),
            Op::NotIn => format!("{key} notin ({values})"),
            Op::Exists => key.clone(),
            Op::DoesNotExist => format!("!{key}"),
            Op::Gt => format!("{key}>{values}"),
            Op::Lt => format!("{key}<{values}"),
        }
    };
    terms.iter().map(one).collect::<Vec<_>>().join(",")
}

fn pair(status: &PoolStatus) -> (plimsoll_client::v1::Quantities, plimsoll_client::v1::Quantities) {
    (status.used.clone().unwrap_or_default(), status.allocatable.clone().unwrap_or_default())
}

fn role(row: &MemberRow, _: &crate::output::View) -> String {
    let role = row.status.as_ref().map_or_else(|| row.member.role(), |status| status.role());
    match role {
        MemberRole::Unspecified if row.member.voter => "voter".to_owned(),
        MemberRole::Unspecified => "learner".to_owned(),
        role => word(role.as_str_name(), "MEMBER_ROLE_"),
    }
}

fn note(row: &MemberRow, _: &crate::output::View) -> String {
    let Some(status) = &row.status else {
        return if row.asked { "does not answer".to_owned() } else { String::new() };
    };
    let mut notes = Vec::new();
    if status.suspect {
        notes.push("suspect".to_owned());
    }
    if status.joint {
        notes.push("membership is changing".to_owned());
    }
    if status.waiting > 0 {
        notes.push(format!("{} waiting", status.waiting));
    }
    notes.extend(Some(status.last_fault.clone()).filter(|fault| !fault.is_empty()));
    notes.join(", ")
}
