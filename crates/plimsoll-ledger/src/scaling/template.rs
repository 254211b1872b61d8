//! Several kinds of machines for one pool: a policy declares them by name, and each intent says which it is for (`docs/semantics.md` 5.9).

use std::borrow::Cow;

use plimsoll_types::{Amount, LedgerTime, Resources};

use super::{Intent, IntentState, ScalingPolicy, ScalingTarget, WorkTemplate};
use crate::capacity::{CAPACITY_TYPE, CapacityType, PRICE_PERMILLE, SPOT_POOL, price_of};
use crate::limits::{MAX_ITEMS, MAX_SCALING_NAME_BYTES, MAX_SCALING_TEXT, MAX_TEMPLATES};
use crate::usage::price_per_hour;
use crate::{GPU, Ledger, PolicyObject, Registration, WHOLE_DEVICE_MILLI};

/// First ledger version that knows several templates.
pub(crate) const SINCE_VERSION: u32 = 12;

/// Resource of a node that says what it draws at most, in watts.
pub const POWER: &str = "power";

/// What stands for the template's name in the name of a node group.
pub const TEMPLATE_IN_GROUP: &str = "{template}";

/// One of several kinds of machines that a policy may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTemplate {
    /// Its name, unique in its policy; empty for the one template of a policy that has no others.
    pub name: String,
    /// What a machine offers.
    pub offers: WorkTemplate,
    /// How it is paid for; `None` where its labels say, or nobody does.
    pub capacity_type: Option<CapacityType>,
    /// What it costs, in thousandths of the pool's prices; 0 where its labels say, or nobody does.
    pub price_permille: u32,
    /// The market that a spot machine is bought in; empty where its labels say, or nobody does.
    pub spot_pool: String,
    /// What a machine draws at most, in watts; 0 where its resources say, or nobody does.
    pub watts: u64,
    /// Of several that would do, the higher the better, where the policy goes by it.
    pub priority: u32,
    /// Most machines of it; 0 for no bound of its own.
    pub max: u64,
}

/// A template whose machines failed: it is passed over for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resting {
    /// Its name.
    pub template: String,
    /// Machines of it that failed one after another.
    pub failures: u32,
    /// No new machine of it before this.
    pub retry_at: LedgerTime,
}

impl NodeTemplate {
    /// What a machine of it is, whole: with the labels that say how it is paid for, and what it draws.
    pub fn machine(&self) -> WorkTemplate {
        let mut machine = self.offers.clone();
        let mut label = |key: &str, value: String| drop(machine.labels.insert(key.to_owned(), value));
        if let Some(kind) = self.capacity_type {
            label(CAPACITY_TYPE, kind.name().to_owned());
        }
        if self.price_permille > 0 {
            label(PRICE_PERMILLE, self.price_permille.to_string());
        }
        if !self.spot_pool.is_empty() {
            label(SPOT_POOL, self.spot_pool.clone());
        }
        if self.watts > 0 {
            machine.resources.set(POWER, Amount(self.watts));
        }
        machine
    }

    /// What a machine of it draws at most, in watts; 0 where nobody says.
    pub fn watts(&self) -> u64 {
        if self.watts > 0 { self.watts } else { self.offers.resources.get(POWER).0 }
    }
}

impl ScalingPolicy {
    /// All templates: the several, or the one, which has no name.
    pub fn offers(&self) -> Cow<'_, [NodeTemplate]> {
        if !self.templates.is_empty() {
            return Cow::Borrowed(&self.templates);
        }
        Cow::Owned(vec![NodeTemplate { offers: self.template.clone(), ..NodeTemplate::default() }])
    }

    /// The template of a name.
    pub fn offer(&self, name: &str) -> Option<Cow<'_, NodeTemplate>> {
        match self.offers() {
            Cow::Borrowed(all) => all.iter().find(|one| one.name == name).map(Cow::Borrowed),
            Cow::Owned(all) => all.into_iter().find(|one| one.name == name).map(Cow::Owned),
        }
    }
}

impl Ledger {
    /// Machines of one of a policy's templates: those that are there, those on their way, and those that leave and are not gone. O(intents).
    pub fn machines_of(&self, policy: &ScalingPolicy, template: &str) -> u64 {
        let counts = |intent: &&std::sync::Arc<Intent>| {
            let lives = intent.state != IntentState::Failed || self.is_present(policy, intent);
            intent.starts() && intent.template == template && lives
        };
        self.intents_of(&policy.name).filter(counts).count() as u64
    }

    /// What a machine costs an hour by its pool's prices: in millionths of the currency, or in thousandths of a machine where the pool has no prices.
    pub fn machine_cost(&self, pool: &str, amounts: &Resources, gpus: u64, price_permille: u32) -> u64 {
        let Some(pool) = self.pool(pool).filter(|pool| !pool.prices.is_empty()) else {
            return price_permille.into();
        };
        let mut all = amounts.clone();
        all.set(GPU, Amount(gpus.saturating_mul(WHOLE_DEVICE_MILLI.into())));
        let cost = u128::from(price_per_hour(&all, &pool.prices)) * u128::from(price_permille) / 1_000;
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// The same of a machine of a template.
    pub fn template_cost(&self, pool: &str, template: &NodeTemplate) -> u64 {
        let machine = template.machine();
        self.machine_cost(pool, &machine.resources, machine.gpus(), price_of(&machine.labels))
    }
}

/// True for policy that ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn is_of_templates(object: &PolicyObject) -> bool {
    match object {
        PolicyObject::ScalingPolicy(policy) => !policy.templates.is_empty() || !policy.expander.is_empty(),
        _ => false,
    }
}

/// Bounds of the templates that a policy breaks.
pub(super) fn template_bounds(found: &mut Vec<(String, u64, u64, u64)>, policy: &ScalingPolicy) {
    let of_pool = matches!(policy.target, ScalingTarget::Pool(_));
    // Several stand instead of the one, and are of nodes.
    let may = of_pool && policy.template == WorkTemplate::default();
    let most = if may { MAX_TEMPLATES } else { 0 };
    found.push(("scaling_policy.templates".to_owned(), policy.templates.len() as u64, 0, most as u64));
    found.push(("scaling_policy.expander".to_owned(), policy.expander.len() as u64, 0, 3));
    for (index, template) in policy.templates.iter().enumerate() {
        let field = |name: &str| format!("scaling_policy.templates[{index}].{name}");
        let same = policy.templates.iter().filter(|other| other.name == template.name).count() as u64;
        found.push((field("name"), template.name.len() as u64, 1, MAX_SCALING_NAME_BYTES as u64));
        found.push((field("name"), same, 1, 1));
        found.push((field("spot_pool"), template.spot_pool.len() as u64, 0, MAX_SCALING_TEXT as u64));
        found.push((field("watts"), template.watts, 0, u64::MAX >> 1));
        found.push((field("command"), template.offers.command.len() as u64, 0, 0));
        let machine = template.machine();
        found.push((field("labels"), machine.labels.len() as u64, 0, MAX_ITEMS as u64));
        let registration = Registration { labels: machine.labels, ..Registration::default() };
        for fault in crate::capacity::label_faults(&registration) {
            found.push((field(&fault.subject), fault.limit.saturating_add(1), 1, fault.limit));
        }
        super::policy::offer_bounds(found, &format!("scaling_policy.templates[{index}]"), &template.offers);
    }
}
