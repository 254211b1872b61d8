//! Quotas of users as rows, and who has taken what of them.

use plimsoll_client::v1::{UsageLimit, UsageMeter, UsageQuota, UsageQuotaStatus, UsageStatus};
use plimsoll_ledger::{Measure, Meter, Reset, Scope};
use plimsoll_proto::convert::{decimal, meter_from_v1};
use plimsoll_types::quantity::{display_bytes, format_duration_ms};
use serde_json::{Value, json};

use super::document;
use crate::output::{Column, Shown, absolute};

/// A quota with what has been taken of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuotaRow {
    /// The quota.
    pub(crate) quota: UsageQuota,
    /// What has been taken.
    pub(crate) status: UsageQuotaStatus,
}

impl Shown for QuotaRow {
    const COLUMNS: &'static [Column<QuotaRow>] = &[
        Column::new("QUOTA", |q, _| q.quota.name.clone()),
        Column::new("ABOUT", |q, _| q.about()),
        Column::new("USED", |q, _| {
            let together = q.status.usage.iter().filter(|usage| usage.who.is_empty());
            together.filter(|usage| usage.limit.is_some()).map(taken).collect::<Vec<_>>().join(", ")
        }),
        Column::new("USERS", |q, _| {
            let mut users: Vec<&str> = q.of_scope(Scope::User).map(|usage| usage.who.as_str()).collect();
            users.sort_unstable();
            users.dedup();
            users.len().to_string()
        }),
        Column::new("RATES", |q, _| q.quota.rates.keys().cloned().collect::<Vec<_>>().join(", ")),
        Column::wide("REVISION", |q, _| q.quota.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.quota.name.clone()
    }

    fn json(&self) -> Value {
        let mut quota = document(&self.quota);
        quota["status"] = document(&self.status);
        quota
    }
}

impl QuotaRow {
    /// What `describe` shows people: limits and use in sentences.
    pub(crate) fn told(&self, utc: bool) -> Value {
        let limits: Vec<String> = self.quota.limits.iter().map(limit).collect();
        let usage: Vec<Value> = self.status.usage.iter().map(|usage| told(usage, utc)).collect();
        let rates: Vec<String> = self
            .quota
            .rates
            .iter()
            .map(|(name, rate)| {
                let period = format_duration_ms(rate.period_ms);
                format!("{name} {} per {period}, {} at once", rate.tokens, rate.burst)
            })
            .collect();
        let exhausted =
            if self.quota.queue_when_exhausted { "requests wait" } else { "requests are refused" };
        json!({
            "name": self.quota.name,
            "about": self.about(),
            "limits": limits,
            "rates": rates,
            "currency": self.quota.currency,
            "whenExhausted": exhausted,
            "taken": usage,
            "revision": self.quota.revision,
        })
    }

    /// Whom it is about.
    fn about(&self) -> String {
        if let Some(tier) = &self.quota.tier {
            let group = if tier.group.is_empty() { String::new() } else { format!(" of {}", tier.group) };
            return format!("tier {}{group}: {}", tier.rank, tier.users.join(", "));
        }
        match (self.quota.queue.as_str(), self.quota.tenant.as_str()) {
            ("", "") => "everyone".to_owned(),
            ("", tenant) => format!("user {tenant}"),
            (queue, "") => format!("queue {queue}"),
            (queue, tenant) => format!("user {tenant} in queue {queue}"),
        }
    }

    fn of_scope(&self, scope: Scope) -> impl Iterator<Item = &UsageStatus> {
        let has =
            move |usage: &&UsageStatus| meter(usage.meter.as_ref()).is_some_and(|meter| meter.scope == scope);
        self.status.usage.iter().filter(has)
    }
}

/// `cost/day 3.2/10`.
fn taken(usage: &UsageStatus) -> String {
    let Some(meter) = meter(usage.meter.as_ref()) else { return String::new() };
    let sum = amount(meter.measure, usage.spent.saturating_add(usage.committed));
    let limit = usage.limit.map_or(String::new(), |limit| format!("/{}", amount(meter.measure, limit)));
    format!("{} {sum}{limit}", word(&meter))
}

/// What one user, run or all together have taken, part by part.
fn told(usage: &UsageStatus, utc: bool) -> Value {
    let Some(meter) = meter(usage.meter.as_ref()) else { return Value::Null };
    let mut told = json!({
        "what": word(&meter),
        "spent": amount(meter.measure, usage.spent),
        "committed": amount(meter.measure, usage.committed),
        "limit": usage.limit.map_or_else(|| "none".to_owned(), |limit| amount(meter.measure, limit)),
    });
    match meter.scope {
        Scope::Together => {}
        Scope::User => told["user"] = json!(usage.who),
        Scope::Run => told["run"] = json!(usage.who),
    }
    if usage.resets_at_ms > 0 {
        told["resets"] = json!(absolute(usage.resets_at_ms, utc));
    }
    told
}

/// `cost/month per user: 100`.
fn limit(limit: &UsageLimit) -> String {
    let Some(meter) = meter(limit.meter.as_ref()) else { return String::new() };
    let scope = match meter.scope {
        Scope::Together => "",
        Scope::User => " per user",
        Scope::Run => " per run",
    };
    format!("{}{scope} {}", word(&meter), amount(meter.measure, limit.limit))
}

fn word(meter: &Meter) -> String {
    let reset = match meter.reset {
        Reset::Live => return meter.measure.name().to_owned(),
        Reset::Day => "day".to_owned(),
        Reset::Month => "month".to_owned(),
        Reset::Never => "total".to_owned(),
        Reset::Rolling(half_life_ms) => format_duration_ms(half_life_ms),
    };
    format!("{}/{reset}", meter.measure.name())
}

fn amount(measure: Measure, amount: u64) -> String {
    match measure {
        Measure::Storage => display_bytes(amount),
        Measure::Concurrent | Measure::Starts => amount.to_string(),
        Measure::CpuHours | Measure::GpuHours | Measure::MemoryHours | Measure::Cost => decimal(amount),
    }
}

fn meter(from: Option<&UsageMeter>) -> Option<Meter> {
    from.and_then(meter_from_v1)
}

/// What one user, run or quota has used of one meter.
#[derive(Clone, Debug)]
pub(crate) struct UsageRow {
    /// The quota that counts it.
    pub(crate) quota: String,
    /// What its money is counted in.
    pub(crate) currency: String,
    /// The meter.
    pub(crate) meter: Meter,
    /// What was used.
    pub(crate) usage: UsageStatus,
}

impl Shown for UsageRow {
    const COLUMNS: &'static [Column<UsageRow>] = &[
        Column::new("QUOTA", |u, _| u.quota.clone()),
        Column::new("WHOM", |u, _| match u.meter.scope {
            Scope::Together => "all".to_owned(),
            Scope::User => format!("user {}", u.usage.who),
            Scope::Run => format!("run {}", u.usage.who),
        }),
        Column::new("WHAT", |u, _| word(&u.meter)),
        Column::new("SPENT", |u, _| u.amount(u.usage.spent)),
        Column::new("COMMITTED", |u, _| u.amount(u.usage.committed)),
        Column::new("LIMIT", |u, _| u.usage.limit.map_or(String::new(), |limit| u.amount(limit))),
        Column::new("RESETS", |u, view| match u.usage.resets_at_ms {
            0 => String::new(),
            at => absolute(at, view.utc),
        }),
    ];

    fn id(&self) -> String {
        self.quota.clone()
    }

    fn json(&self) -> Value {
        let mut usage = document(&self.usage);
        usage["quota"] = json!(self.quota);
        usage
    }
}

impl UsageRow {
    fn amount(&self, micros: u64) -> String {
        let text = amount(self.meter.measure, micros);
        if self.meter.measure == Measure::Cost && !self.currency.is_empty() {
            return format!("{text} {}", self.currency);
        }
        text
    }
}
