//! Limits and budgets of the model: `docs/semantics.md` 5.3, summed anew each time from what each grant was charged.

use plimsoll_ledger::{Measure, Meter, PolicyObject, QuotaPolicy, Reset, Scope, matches_pattern};

use super::*;

const DAY_MS: u64 = 24 * HOUR_MS;

/// A meter of a quota, whose, and in which period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(super) quota: String,
    meter: Meter,
    who: String,
    period: u64,
}

/// Quota, what it is of, and whose.
pub(crate) type Row = (String, Of, String);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    Meter(Meter),
    Rate(String),
}

/// What a grant is charged on one line: stretches of time at a price per hour, and what does not depend on time.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    line: Line,
    flat: u64,
    stretches: Vec<(u64, u64, u64)>,
}

/// What a command met, where that is a rule of this file or of rates.
pub(super) fn met(came: &Came) -> Option<&'static str> {
    match came {
        Came::Tokens { taken: 0, retry_after_ms: u64::MAX, .. } => Some("more tokens than a burst"),
        Came::Tokens { taken: 0, .. } => Some("tokens denied"),
        Came::Tokens { .. } => Some("tokens taken"),
        Came::Refused(Reason::RateExceeded) => Some("request denied"),
        Came::Refused(Reason::LimitExceeded) => Some("limit exceeded"),
        Came::Refused(Reason::BudgetExhausted) => Some("budget exhausted"),
        Came::To(_) | Came::Expired(..) | Came::Refused(_) => None,
    }
}

impl Bill {
    /// Taken up to a moment.
    fn up_to(&self, now: u64) -> u64 {
        let taken = |(from, until, per_hour): &(u64, u64, u64)| {
            let product = u128::from(*per_hour) * u128::from(now.min(*until).saturating_sub(*from));
            u64::try_from(product.div_ceil(HOUR_MS.into())).unwrap_or(u64::MAX)
        };
        self.stretches.iter().map(taken).fold(self.flat, u64::saturating_add)
    }

    fn all(&self) -> u64 {
        self.up_to(u64::MAX)
    }
}

/// The model knows what the generator makes: live counts, starts, core-hours, money; by day or never.
fn period(reset: Reset, now: u64) -> u64 {
    if reset == Reset::Day { now / DAY_MS } else { 0 }
}

/// The meter of what a grant itself costs: of no quota.
const OWN: Meter = Meter { scope: Scope::Together, measure: Measure::Cost, reset: Reset::Never };

fn is_timed(measure: Measure) -> bool {
    matches!(measure, Measure::CpuHours | Measure::Cost)
}

/// Product of an amount and a factor, over what makes a whole; rounded up, and at the top where it does not fit.
fn part(amount: u128, factor: u64, whole: u64) -> u64 {
    let product = amount.saturating_mul(factor.into());
    u64::try_from(product.div_ceil(whole.into())).unwrap_or(u64::MAX)
}

impl Model {
    pub(super) fn quotas_about(&self, request: &Request, user: &str) -> impl Iterator<Item = &QuotaPolicy> {
        let mut path = vec![request.queue.clone()];
        while let Some(queue) = self.queues.get(path.last().expect("begins with one")) {
            path.push(queue.parent.clone());
        }
        let (user, same) = (user.to_owned(), user.to_owned());
        let about = self.quotas.values().filter(move |quota| self.is_in_tier(quota, &same));
        about.filter(move |quota| {
            (quota.queue.is_empty() || path.contains(&quota.queue))
                && (quota.tenant.is_empty() || matches_pattern(&quota.tenant, &user))
        })
    }

    /// Nobody of its group that names the user goes before it.
    fn is_in_tier(&self, quota: &QuotaPolicy, user: &str) -> bool {
        let Some(tier) = &quota.tier else { return true };
        let names = |users: &[String]| users.iter().any(|pattern| matches_pattern(pattern, user));
        let rival = |other: &QuotaPolicy| {
            let Some(of) = &other.tier else { return false };
            let is_higher = of.rank > tier.rank || (of.rank == tier.rank && other.name < quota.name);
            of.group == tier.group && is_higher && names(&of.users)
        };
        names(&tier.users) && !self.quotas.values().any(rival)
    }

    fn counts_usage(&self) -> bool {
        self.version >= 4
            && (!self.quotas.is_empty() || self.pools.values().any(|pool| !pool.prices.is_empty()))
    }

    /// What an hour takes of a measure.
    fn per_hour(
        &self,
        measure: Measure,
        request: &Request,
        amounts: &Resources,
        (members, permille): (u64, u64),
    ) -> u64 {
        let of = |name: &str| u128::from(amounts.get(name).0) * u128::from(members);
        let hour = match measure {
            Measure::CpuHours => part(of("cpu"), 1_000_000, 1_000),
            Measure::Cost => {
                let prices = self.pools.get(&request.pool).map(|pool| &pool.prices);
                let whole = |name: &str| match name {
                    "cpu" => 1_000,
                    "memory" => 1 << 30,
                    _ => 1,
                };
                let prices = prices.into_iter().flatten();
                let sum = prices
                    .map(|(name, price)| part(of(name), *price, whole(name)))
                    .fold(0, u64::saturating_add);
                part(sum.into(), permille, 1_000)
            }
            _ => 0,
        };
        self.multiplied(request, hour)
    }

    /// What a node costs, in thousandths.
    fn price_of(&self, node: u32) -> u64 {
        let said = self.nodes.get(&node).and_then(|node| node.reg.labels.get("price_permille"));
        said.filter(|_| self.version >= 11).map_or(1_000, |said| said.parse().expect("it was checked"))
    }

    /// Number of members, and what their nodes cost in the mean.
    pub(super) fn priced(&self, members: &[(u32, Vec<DeviceGrant>)]) -> (u64, u64) {
        let count = members.len() as u64;
        let sum: u64 = members.iter().map(|(node, _)| self.price_of(*node)).sum();
        (count, if count == 0 { 1_000 } else { sum.div_ceil(count) })
    }

    /// The fewest members that are of use, where they cost least.
    pub(super) fn cheapest(&self, request: &Request) -> (u64, u64) {
        let nodes = self.nodes.iter().filter(|(_, node)| node.pool == request.pool);
        let least = nodes.map(|(id, _)| self.price_of(*id)).min();
        (request.gang.min_members.max(1).into(), least.unwrap_or(1_000).min(1_000))
    }

    /// What a grant made now would be charged, up to `until`.
    fn bill(
        &self,
        request: &Request,
        requester: &str,
        amounts: &Resources,
        members: (u64, u64),
        until: u64,
    ) -> Vec<Bill> {
        if self.version < 4 {
            return Vec::new();
        }
        let stretches = |measure: Measure| match self.per_hour(measure, request, amounts, members) {
            0 => Vec::new(),
            per_hour => vec![(self.clock, until, per_hour)],
        };
        let user = if request.tenant.is_empty() { requester } else { &request.tenant };
        let mut bills = Vec::new();
        if self.pools.get(&request.pool).is_some_and(|pool| !pool.prices.is_empty()) {
            let line = Line { quota: String::new(), meter: OWN, who: String::new(), period: 0 };
            bills.push(Bill { line, flat: 0, stretches: stretches(Measure::Cost) });
        }
        for quota in self.quotas_about(request, user) {
            for meter in quota.limits.keys() {
                let who = match meter.scope {
                    Scope::Together => "",
                    Scope::User => user,
                    Scope::Run => unreachable!("the generator makes none"),
                };
                let period = period(meter.reset, self.clock);
                let line = Line { quota: quota.name.clone(), meter: *meter, who: who.into(), period };
                let flat = u64::from(matches!(meter.measure, Measure::Concurrent | Measure::Starts));
                bills.push(Bill { line, flat, stretches: stretches(meter.measure) });
            }
        }
        bills
    }

    /// Everything charged on a line, by grants that live or have ended.
    fn taken(&self, line: &Line) -> u64 {
        let live = self.reservations.values().flat_map(|r| &r.bill).filter(|bill| bill.line == *line);
        let spent = self.spent.iter().filter(|(of, _)| of == line).map(|(_, amount)| amount);
        live.map(Bill::all).sum::<u64>() + spent.sum::<u64>()
    }

    /// Reason, and whether it is refused at once, of each line that has too little left for what is asked. A request's own cost is asked in whole.
    fn short<'a>(
        &self,
        request: &Request,
        asked: impl Iterator<Item = (&'a Line, u64)>,
    ) -> Vec<(Reason, bool)> {
        let mut short = Vec::new();
        for (line, asked) in asked {
            if line.quota.is_empty() && request.max_cost_micros > 0 && asked > request.max_cost_micros {
                short.push((Reason::LimitExceeded, true));
            }
            let Some(quota) = self.quotas.get(&line.quota) else { continue };
            let Some(limit) = quota.limits.get(&line.meter) else { continue };
            if asked > limit.saturating_sub(self.taken(line)) {
                let timed = is_timed(line.meter.measure);
                let reason = if timed { Reason::BudgetExhausted } else { Reason::LimitExceeded };
                short.push((reason, asked > *limit || (timed && !quota.queue_when_exhausted)));
            }
        }
        short
    }

    fn until(&self, request: &Request) -> u64 {
        let hold_ms = if request.auto_confirm { 0 } else { request.hold_ms };
        self.clock
            + if request.max_duration_ms > 0 { request.max_duration_ms } else { hold_ms + request.ttl_ms }
    }

    pub(super) fn submit_usage(&self, request: &Request) -> Result<(), Reason> {
        let (amounts, members) = (&request.requirements.amounts, self.cheapest(request));
        let bills = self.bill(request, &self.actor, amounts, members, self.until(request));
        let short = self.short(request, bills.iter().map(|bill| (&bill.line, bill.all())));
        if request.wait == Wait::Refuse || short.iter().any(|(_, at_once)| *at_once) {
            least(short.into_iter().map(|(reason, _)| reason).collect())?;
        }
        Ok(())
    }

    pub(super) fn grant_reasons(
        &self,
        request: &Request,
        requester: &str,
        members: (u64, u64),
    ) -> Vec<Reason> {
        let bills =
            self.bill(request, requester, &request.requirements.amounts, members, self.until(request));
        let short = self.short(request, bills.iter().map(|bill| (&bill.line, bill.all())));
        short.into_iter().map(|(reason, _)| reason).collect()
    }

    pub(super) fn charge_grant(&mut self, r: &mut Res) {
        let until = self.until(&r.request);
        r.bill = self.bill(&r.request, &r.requester, &r.amounts, self.priced(&r.members), until);
        r.paid_until = if r.bill.is_empty() { 0 } else { until };
    }

    /// After a change of a reservation: its lines have rows now, or none where nothing is taken.
    pub(super) fn note_rows(&mut self, lines: Vec<Line>) {
        for line in lines.into_iter().filter(|line| !line.quota.is_empty()) {
            if line.period != period(line.meter.reset, self.clock) {
                continue;
            }
            let key = (line.quota.clone(), line.meter, line.who.clone());
            if self.taken(&line) > 0 {
                self.rows.insert(key, line.period);
            } else {
                self.rows.remove(&key);
            }
        }
    }

    pub(super) fn lines_of(r: &Res) -> Vec<Line> {
        r.bill.iter().map(|bill| bill.line.clone()).collect()
    }

    /// The lease goes on to its deadline: the next stretch of each line that grows, and of lines that came since.
    pub(super) fn renew_usage(&self, r: &mut Res) -> Result<(), Reason> {
        let has_tab = r.paid_until > 0;
        let from = if has_tab { r.paid_until } else { self.clock };
        if r.deadline <= from || (!has_tab && (!self.counts_usage() || r.hard_end > 0)) {
            return Ok(());
        }
        let members = self.priced(&r.members);
        let (mut next, mut asked) = (Vec::new(), Vec::new());
        for bill in &r.bill {
            let mut bill = bill.clone();
            let present = period(bill.line.meter.reset, self.clock);
            if let Some(&(_, until, per_hour)) = bill.stretches.last() {
                let before = if present == bill.line.period { bill.all() } else { 0 };
                if present != bill.line.period {
                    bill.line.period = present;
                    bill.flat = 0;
                    bill.stretches = vec![(until, r.deadline, per_hour)];
                } else if let Some(last) = bill.stretches.last_mut() {
                    last.1 = r.deadline;
                }
                let before = if bill.line.quota.is_empty() { 0 } else { before };
                asked.push((bill.line.clone(), bill.all() - before));
            }
            next.push(bill);
        }
        for mut new in self.bill(&r.request, &r.requester, &r.amounts, members, r.deadline) {
            let known =
                |bill: &Bill| (&bill.line.quota, bill.line.meter) == (&new.line.quota, new.line.meter);
            if !new.stretches.is_empty() && !r.bill.iter().any(known) {
                new.stretches[0].0 = from;
                asked.push((new.line.clone(), new.all()));
                next.push(new);
            }
        }
        let short = self.short(&r.request, asked.iter().map(|(line, asked)| (line, *asked)));
        least(short.into_iter().map(|(reason, _)| reason).collect())?;
        (r.bill, r.paid_until) = (next, r.deadline);
        Ok(())
    }

    /// Other amounts from now on.
    pub(super) fn resize_usage(&self, r: &mut Res) -> Result<(), Reason> {
        let members = self.priced(&r.members);
        let (mut next, mut asked) = (Vec::new(), Vec::new());
        for bill in &r.bill {
            let mut bill = bill.clone();
            if is_timed(bill.line.meter.measure) {
                let present = period(bill.line.meter.reset, self.clock);
                let before = if present == bill.line.period { bill.all() } else { 0 };
                let cut = self.clock.min(r.paid_until).max(bill.stretches.last().map_or(0, |last| last.0));
                if present != bill.line.period {
                    bill.line.period = present;
                    bill.flat = 0;
                    bill.stretches.clear();
                } else if let Some(last) = bill.stretches.last_mut() {
                    last.1 = cut;
                }
                let per_hour = self.per_hour(bill.line.meter.measure, &r.request, &r.amounts, members);
                bill.stretches.push((cut, r.paid_until, per_hour));
                let before = if bill.line.quota.is_empty() { 0 } else { before };
                asked.push((bill.line.clone(), bill.all().saturating_sub(before)));
            }
            next.push(bill);
        }
        let short = self.short(&r.request, asked.iter().map(|(line, asked)| (line, *asked)));
        least(short.into_iter().map(|(reason, _)| reason).collect())?;
        r.bill = next;
        Ok(())
    }

    /// What a grant that ends has used stays charged, and what it cost is written down.
    pub(super) fn settle(&mut self, id: u64, bills: Vec<Bill>) {
        let now = self.clock;
        let r = self.reservations.get_mut(&id).expect("looked up by the caller");
        if std::mem::take(&mut r.paid_until) > 0 {
            r.cost = bills.iter().find(|bill| bill.line.quota.is_empty()).map_or(0, |own| own.up_to(now));
            if r.cost > 0 {
                *self.met.entry("grant that cost").or_default() += 1;
            }
        }
        let lines: Vec<Line> = bills.iter().map(|bill| bill.line.clone()).collect();
        for bill in bills {
            if bill.line.meter.reset != Reset::Live && !bill.line.quota.is_empty() {
                let used = bill.up_to(self.clock);
                self.spent.push((bill.line, used));
            }
        }
        self.note_rows(lines);
    }

    pub(super) fn is_committed(&self, quota: &str) -> bool {
        let present =
            |line: &Line| line.quota == quota && line.period == period(line.meter.reset, self.clock);
        self.reservations.values().flat_map(|r| &r.bill).any(|bill| present(&bill.line) && bill.all() > 0)
    }

    /// Quotas about queues that will not be there.
    pub(super) fn usage_reasons(&self, put: &[PolicyObject], delete: &[PolicyName]) -> Vec<Reason> {
        let new = put.iter().any(|object| matches!(object, PolicyObject::Quota(_)));
        if self.version < 4 {
            return if new { vec![Reason::UnsupportedVersion] } else { Vec::new() };
        }
        let tiered =
            |object: &PolicyObject| matches!(object, PolicyObject::Quota(quota) if quota.tier.is_some());
        if self.version < 14 && put.iter().any(tiered) {
            return vec![Reason::UnsupportedVersion];
        }
        let mut quotas = self.quotas.clone();
        for object in put {
            if let PolicyObject::Quota(quota) = object {
                quotas.insert(quota.name.clone(), quota.clone());
            }
        }
        quotas.retain(|name, _| !delete.contains(&PolicyName::Quota(name.clone())));
        let put_too =
            |queue: &str| put.iter().any(|object| object.name() == PolicyName::Queue(queue.to_owned()));
        let mut reasons = Vec::new();
        for quota in quotas.values().filter(|quota| !quota.queue.is_empty()) {
            if delete.contains(&PolicyName::Queue(quota.queue.clone())) {
                reasons.push(Reason::InUse);
            } else if !put_too(&quota.queue) && !self.queues.contains_key(&quota.queue) {
                reasons.push(Reason::QueueNotFound);
            }
        }
        reasons
    }

    /// Rows of days that are over, and of buckets that are full, the first due first.
    pub(super) fn rows_due(&self) -> Vec<Row> {
        let over = self.rows.iter().filter(|((_, meter, _), period)| {
            meter.reset == Reset::Day && (**period + 1) * DAY_MS <= self.clock
        });
        let over = over.map(|((quota, meter, who), period)| {
            ((period + 1) * DAY_MS, (quota.clone(), Of::Meter(*meter), who.clone()))
        });
        let full = self.rates_due().into_iter();
        let full = full.map(|(at, (quota, rate, who))| (at, (quota, Of::Rate(rate), who)));
        let mut due: Vec<_> = over.chain(full).collect();
        due.sort();
        due.into_iter().map(|(_, row)| row).collect()
    }

    pub(super) fn forget_row(&mut self, (quota, of, who): &Row) {
        match of {
            Of::Meter(meter) => drop(self.rows.remove(&(quota.clone(), *meter, who.clone()))),
            Of::Rate(rate) => {
                *self.met.entry("bucket forgotten").or_default() += 1;
                self.arrivals.remove(&(quota.clone(), rate.clone(), who.clone()));
            }
        }
    }
}
