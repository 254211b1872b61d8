//! Which machines are bought where a policy declares several templates: the placement of those who wait is tried on each, and what that comes
//! to is one option of several ([`plimsoll_autoscaler::choose`]). Whom the first choice leaves out is tried on the others, until nobody more
//! would fit.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_autoscaler::{ChosenBy, ScaleOption, choose};
use plimsoll_ledger::{
    IntentAction, Ledger, NodeTemplate, Pool, Power, Request, ScalingPolicy, Verdict, WHOLE_DEVICE_MILLI,
    WorkTemplate,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::LedgerTime;

use super::need::{MOST_MACHINES, of_machines};

/// What is to be bought for those who wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expansion {
    /// Requests that fit on what is on its way and what is bought.
    pub(super) requests: u64,
    /// What is bought, in this order.
    pub(super) steps: Vec<Step>,
    /// Which template for whom and why, and which were passed over, as people read it.
    pub(super) lines: Vec<String>,
}

/// Machines of one template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Its name.
    pub(super) template: String,
    /// So many more.
    pub(super) machines: u64,
    /// No other would do, and this one failed lately: it has to wait.
    pub(super) waits: bool,
}

impl Expansion {
    /// Machines that are bought in all.
    pub(super) fn machines(&self) -> u64 {
        self.steps.iter().map(|step| step.machines).sum()
    }
}

/// What is bought for requests that wait, beside what is on its way. O(templates² x requests x machines).
pub(super) fn expansion(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    pool: &str,
    requests: &[Request],
    now: LedgerTime,
) -> Expansion {
    let mut market = Market::new(ledger, policy, pool, now);
    let mut found = Expansion { lines: market.passed_over(), ..Expansion::default() };
    let Some(object) = ledger.pool(pool).filter(|_| !requests.is_empty()) else { return found };
    let mut base = market.coming();
    found.requests = try_on(ledger, object, requests, &base, None).fits;
    let members: u64 = requests.iter().map(|request| u64::from(request.gang.max_members.max(1))).sum();
    let mut open: Vec<&NodeTemplate> = policy.templates.iter().collect();
    loop {
        let mut options = Vec::new();
        for template in &open {
            let room =
                market.room(template).min(members).min(MOST_MACHINES.saturating_sub(base.len() as u64));
            if room == 0 {
                continue;
            }
            let machine = template.machine();
            let trial = try_on(ledger, object, requests, &base, Some((&machine, room)));
            let fits = trial.fits.saturating_sub(found.requests);
            if fits > 0 {
                options.push(market.option(template, trial.machines, fits, trial.asked));
            }
        }
        let Some(choice) = choose(&options, &policy.expander) else { return found };
        let Some(picked) = options.get(choice.index) else { return found };
        found.lines.push(market.line(picked, &options, choice.by));
        found.requests += picked.fits;
        let step =
            Step { template: picked.template.clone(), machines: picked.machines, waits: picked.resting };
        market.buy(&step.template, step.machines);
        if let Some(template) = open.iter().find(|one| one.name == step.template) {
            let many = usize::try_from(step.machines).unwrap_or(usize::MAX);
            base.extend(std::iter::repeat_n(template.machine(), many));
        }
        open.retain(|one| one.name != step.template);
        found.steps.push(step);
    }
}

/// Templates of the next `missing` machines: first those for whom somebody waits, then, by the same rules, for nobody in particular.
pub(super) fn next(
    ledger: &Ledger,
    policy: &ScalingPolicy,
    pool: &str,
    requests: &[Request],
    missing: u64,
    now: LedgerTime,
) -> Vec<String> {
    let mut market = Market::new(ledger, policy, pool, now);
    let mut next = Vec::new();
    let mut left = missing;
    let mut take = |market: &mut Market<'_>, step: &Step| {
        let machines = step.machines.min(left);
        left -= machines;
        market.buy(&step.template, machines);
        if !step.waits {
            next.extend((0..machines).map(|_| step.template.clone()));
        }
        left
    };
    let mut still = missing;
    for step in expansion(ledger, policy, pool, requests, now).steps {
        still = take(&mut market, &step);
    }
    while still > 0 {
        let with_room = policy.templates.iter().filter(|template| market.room(template) > 0);
        let options: Vec<ScaleOption> = with_room
            .map(|template| market.option(template, market.room(template).min(still), 0, [0; 3]))
            .collect();
        let picked = choose(&options, &policy.expander).and_then(|choice| options.get(choice.index));
        let Some(picked) = picked else { break };
        let step =
            Step { template: picked.template.clone(), machines: picked.machines, waits: picked.resting };
        still = take(&mut market, &step);
    }
    next
}

/// Machines that the power left allows, of the template that draws least; `None` where one says nothing of what it draws.
pub(super) fn machines_powered(policy: &ScalingPolicy, power: Power) -> Option<u64> {
    let watts = policy.offers().iter().map(NodeTemplate::watts).min()?;
    power.left().checked_div(watts)
}

/// What there is to be had.
struct Market<'a> {
    ledger: &'a Ledger,
    policy: &'a ScalingPolicy,
    pool: &'a str,
    now: LedgerTime,
    /// Machines that the policy may have beside those that it has.
    room: u64,
    /// Watts that are left; `None` where the pool has no budget.
    watts: Option<u64>,
    /// Machines of each template that are there, on their way, or bought by now.
    count: BTreeMap<&'a str, u64>,
}

impl<'a> Market<'a> {
    fn new(ledger: &'a Ledger, policy: &'a ScalingPolicy, pool: &'a str, now: LedgerTime) -> Market<'a> {
        let counted = |one: &'a NodeTemplate| (one.name.as_str(), ledger.machines_of(policy, &one.name));
        Market {
            ledger,
            policy,
            pool,
            now,
            room: policy.rules.max.saturating_sub(ledger.fleet(policy).counted()),
            watts: ledger.power(pool).map(|power| power.left()),
            count: policy.templates.iter().map(counted).collect(),
        }
    }

    /// Machines of the template that may be bought yet.
    fn room(&self, template: &NodeTemplate) -> u64 {
        let powered = self.watts.and_then(|left| left.checked_div(template.watts())).unwrap_or(u64::MAX);
        let there = self.count.get(template.name.as_str()).copied().unwrap_or(0);
        let own = if template.max > 0 { template.max.saturating_sub(there) } else { u64::MAX };
        own.min(powered).min(self.room)
    }

    fn buy(&mut self, template: &str, machines: u64) {
        self.room = self.room.saturating_sub(machines);
        if let Some(count) = self.count.get_mut(template) {
            *count += machines;
        }
        let drawn = self.policy.offer(template).map_or(0, |offer| offer.watts()).saturating_mul(machines);
        self.watts = self.watts.map(|left| left.saturating_sub(drawn));
    }

    /// What machines on their way are.
    fn coming(&self) -> Vec<WorkTemplate> {
        let coming = self.ledger.intents_of(&self.policy.name).filter(|intent| {
            let starts = matches!(intent.action, IntentAction::Start { .. }) && intent.is_open();
            starts && !self.ledger.is_present(self.policy, intent)
        });
        let machines = coming.filter_map(|intent| Some(self.policy.offer(&intent.template)?.machine()));
        machines.take(usize::try_from(MOST_MACHINES).unwrap_or(usize::MAX)).collect()
    }

    fn option(&self, template: &NodeTemplate, machines: u64, fits: u64, asked: [u64; 3]) -> ScaleOption {
        let offers = &template.offers;
        let gpus = offers.gpus().saturating_mul(WHOLE_DEVICE_MILLI.into());
        let one = [offers.resources.cpu_millis.0, offers.resources.memory_bytes.0, gpus];
        let cost = self.ledger.template_cost(self.pool, template);
        let state = self.ledger.scaling(&self.policy.name);
        ScaleOption {
            template: template.name.clone(),
            machines,
            fits,
            offered: one.map(|amount| amount.saturating_mul(machines)),
            asked,
            cost: cost.saturating_mul(machines),
            priority: template.priority,
            resting: state.is_some_and(|state| state.rest_of(&template.name, self.now).is_some()),
        }
    }

    /// The templates that cannot be bought now, and why.
    fn passed_over(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let state = self.ledger.scaling(&self.policy.name);
        for template in &self.policy.templates {
            let name = &template.name;
            if let Some(rest) = state.and_then(|state| state.rest_of(name, self.now)) {
                let (failures, until_ms) = (rest.failures, rest.retry_at.0);
                lines.push(format!("template {name} rests until {until_ms} ms: {failures} machines failed"));
            }
            let watts = template.watts();
            if let Some(left) = self.watts.filter(|left| watts > *left) {
                lines.push(format!("template {name} draws {watts} W, {left} W are left"));
            }
            let there = self.count.get(name.as_str()).copied().unwrap_or(0);
            if template.max > 0 && there >= template.max {
                lines.push(format!("template {name} has {there} machines, {} at most", template.max));
            }
        }
        lines
    }

    /// What was picked before what, and why.
    fn line(&self, picked: &ScaleOption, options: &[ScaleOption], by: ChosenBy) -> String {
        let others = options.iter().filter(|option| option.template != picked.template);
        let others: Vec<String> = others.map(|option| self.figures(option)).collect();
        let before =
            if others.is_empty() { String::new() } else { format!(", before {}", others.join(", ")) };
        let waits = if picked.resting { "; it failed lately and has to wait" } else { "" };
        format!("template {}: {by}{before}{waits}", self.figures(picked))
    }

    fn figures(&self, option: &ScaleOption) -> String {
        let ScaleOption { template, machines, fits, .. } = option;
        let unused = plimsoll_ledger::percent(u32::try_from(option.waste_permille()).unwrap_or(1_000));
        let pool = self.ledger.pool(self.pool).filter(|pool| !pool.prices.is_empty());
        let cost = match pool {
            Some(pool) => {
                let (whole, part) = (option.cost / 1_000_000, option.cost % 1_000_000 / 1_000);
                format!("{whole}.{part:03} {} an hour", pool.currency)
            }
            None => format!("price {}.{:03}", option.cost / 1_000, option.cost % 1_000),
        };
        format!("{template} ({machines} machines for {fits} requests, {unused} unused, {cost})")
    }
}

/// What came of trying to place requests.
#[derive(Default)]
struct Trial {
    /// Requests that fit.
    fits: u64,
    /// Of the machines that would be bought, those that are needed.
    machines: u64,
    /// What is asked of these: thousandths of cores, bytes of memory, thousandths of GPUs.
    asked: [u64; 3],
}

/// Tries requests on machines that are there anyway, which are filled first, and on so many more of one kind.
fn try_on(
    ledger: &Ledger,
    pool: &Pool,
    requests: &[Request],
    base: &[WorkTemplate],
    more: Option<(&WorkTemplate, u64)>,
) -> Trial {
    let many = more.map_or(0, |(_, many)| usize::try_from(many).unwrap_or(usize::MAX));
    let bought = more.into_iter().flat_map(|(machine, _)| std::iter::repeat_n(machine, many));
    let (scratch, nodes) = of_machines(ledger, pool, base.iter().chain(bought));
    let own: BTreeSet<_> = nodes.into_iter().skip(base.len()).collect();
    let mut planner = Planner::new(&scratch, 0);
    let asked: Vec<&Request> = requests.iter().collect();
    let mut trial = Trial::default();
    let mut used = BTreeSet::new();
    for (request, (verdict, _)) in requests.iter().zip(planner.plan_batch(&scratch, &asked)) {
        let Verdict::Place(placement) = verdict else { continue };
        trial.fits += 1;
        for member in placement.members.iter().filter(|member| own.contains(&member.node)) {
            used.insert(member.node);
            let amounts = &request.needs(member.role).amounts;
            let gpus: u64 = member.devices.iter().map(|device| u64::from(device.milli)).sum();
            let taken = [amounts.cpu_millis.0, amounts.memory_bytes.0, gpus];
            for (sum, amount) in trial.asked.iter_mut().zip(taken) {
                *sum = sum.saturating_add(amount);
            }
        }
    }
    trial.machines = used.len() as u64;
    trial
}
