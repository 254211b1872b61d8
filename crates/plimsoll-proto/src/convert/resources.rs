//! Amounts, selectors, GPU asks.

use std::collections::BTreeMap;

use plimsoll_ledger::limits::MAX_ITEMS;
use plimsoll_ledger::{GpuAsk, GpuShare, Preferred, Requirements, WHOLE_DEVICE_MILLI};
use plimsoll_types::{Amount, Operator, Resources, Selector, Term};

use super::check::Check;
use super::{Violation, mig};
use crate::limits::{
    MAX_AMOUNT, MAX_DEVICE_TEXT_BYTES, MAX_DEVICES, MAX_LABEL_BYTES, MAX_MODELS, MAX_RESOURCE_NAME_BYTES,
    MAX_RESOURCES, MAX_TERM_VALUE_BYTES, MAX_TERM_VALUES, MAX_TERMS,
};
use crate::v1;

/// Amounts of a message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn resources_from_v1(from: &v1::Quantities) -> Result<Resources, Vec<Violation>> {
    let mut check = Check::new();
    let resources = resources(&mut check, from);
    check.finish(resources)
}

/// Amounts as a message.
pub fn resources_to_v1(from: &Resources) -> v1::Quantities {
    v1::Quantities {
        cpu_millis: from.cpu_millis.0,
        memory_bytes: from.memory_bytes.0,
        other: from.other.iter().map(|(name, amount)| (name.clone(), amount.0)).collect(),
    }
}

/// A selector of a message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn selector_from_v1(from: &[v1::NodeSelectorTerm]) -> Result<Selector, Vec<Violation>> {
    let mut check = Check::new();
    let selector = selector(&mut check, "select", from);
    check.finish(selector)
}

/// A selector as a message.
pub fn selector_to_v1(from: &Selector) -> Vec<v1::NodeSelectorTerm> {
    from.terms.iter().map(term_to_v1).collect()
}

/// What one member needs, from a message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn requirements_from_v1(from: &v1::Requirements) -> Result<Requirements, Vec<Violation>> {
    let mut check = Check::new();
    let requirements = requirements(&mut check, from);
    check.finish(requirements)
}

/// What one member needs, as a message.
pub fn requirements_to_v1(from: &Requirements) -> v1::Requirements {
    let wish =
        |wish: &Preferred| v1::PreferredTerm { weight: wish.weight, term: Some(term_to_v1(&wish.term)) };
    v1::Requirements {
        amounts: Some(resources_to_v1(&from.amounts)),
        gpu: from.gpu.as_ref().map(gpu_to_v1),
        required: selector_to_v1(&from.required),
        preferred: from.preferred.iter().map(wish).collect(),
    }
}

pub(super) fn resources(check: &mut Check, from: &v1::Quantities) -> Resources {
    check.range("cpu_millis", from.cpu_millis, 0, MAX_AMOUNT);
    check.range("memory_bytes", from.memory_bytes, 0, MAX_AMOUNT);
    let mut resources = Resources::new(from.cpu_millis, from.memory_bytes);
    resources.other = amounts(check, "other", &from.other);
    resources.other.retain(|_, amount| !amount.is_zero());
    resources
}

/// What is kept of a pool, by name of the resource: the field `resources`.
pub(super) fn kept(check: &mut Check, from: &BTreeMap<String, u64>) -> Resources {
    if from.is_empty() || from.len() > MAX_ITEMS {
        check.fail("resources", format!("1 to {MAX_ITEMS} are taken, {} are given", from.len()));
    }
    let mut resources = Resources::default();
    for (name, &amount) in from {
        if amount == 0 || amount > MAX_AMOUNT {
            check.fail(&format!("resources[{name:?}]"), format!("{amount} is not from 1 to 2^63 - 1"));
        }
        resources.set(name, Amount(amount));
    }
    resources
}

/// Named amounts, zeros included.
pub(super) fn amounts(
    check: &mut Check,
    field: &str,
    from: &BTreeMap<String, u64>,
) -> BTreeMap<String, Amount> {
    check.count(field, from.len(), MAX_RESOURCES);
    for (name, amount) in from.iter().take(MAX_RESOURCES) {
        let path = format!("{field}[{name:?}]");
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._/".contains(&byte);
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        let bytes = name.as_bytes();
        let good = edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| inner(*byte));
        if matches!(name.as_str(), "cpu" | "memory" | "gpu") {
            check.fail(&path, format!("{name} has a field of its own"));
        } else if !good || bytes.len() > MAX_RESOURCE_NAME_BYTES {
            check.fail(&path, "is not a resource name: use lower-case letters, digits, '-', '.', '_' and '/', as in license/foo");
        }
        check.range(&path, *amount, 0, MAX_AMOUNT);
    }
    from.iter().map(|(name, amount)| (name.clone(), Amount(*amount))).collect()
}

pub(super) fn requirements(check: &mut Check, from: &v1::Requirements) -> Requirements {
    let amounts =
        from.amounts.as_ref().map(|amounts| check.within("amounts", |check| resources(check, amounts)));
    let gpu = from.gpu.as_ref().map(|gpu| check.within("gpu", |check| gpu_ask(check, gpu)));
    let required = selector(check, "required", &from.required);
    let preferred = check.each("preferred", &from.preferred, MAX_TERMS, |check, wish| {
        check.range("weight", wish.weight.into(), 1, 100);
        let term = match &wish.term {
            Some(from) => check.within("term", |check| term(check, from)),
            None => {
                check.fail("term", "is missing");
                Term { key: String::new(), operator: Operator::Exists, values: Vec::new() }
            }
        };
        Preferred { weight: wish.weight, term }
    });
    Requirements { amounts: amounts.unwrap_or_default(), gpu, required, preferred }
}

fn gpu_ask(check: &mut Check, from: &v1::GpuAsk) -> GpuAsk {
    let whole = u32::from(WHOLE_DEVICE_MILLI);
    check.range("memory_bytes", from.memory_bytes, 0, MAX_AMOUNT);
    check.range("min_device_memory_bytes", from.min_device_memory_bytes, 0, MAX_AMOUNT);
    check.range("milli", from.milli.into(), 0, whole.into());
    if from.memory_bytes > 0 && from.milli > 0 {
        check.fail("memory_bytes", format!("excludes milli, which is {}: give one of them", from.milli));
    }
    let by_amount = match (u16::try_from(from.milli), from.memory_bytes) {
        (_, bytes) if bytes > 0 => GpuShare::Memory(bytes),
        (Ok(milli), _) if milli > 0 && milli < WHOLE_DEVICE_MILLI => GpuShare::Milli(milli),
        _ => GpuShare::Whole,
    };
    let share = mig::share(check, from).unwrap_or(by_amount);
    let count = from.count.max(1);
    match share {
        GpuShare::Whole => check.range("count", count.into(), 1, MAX_DEVICES as u64),
        GpuShare::Milli(_) | GpuShare::Memory(_) | GpuShare::Mig(_) if count > 1 => {
            check.fail(
                "count",
                format!("is {count}, but a share is of one device: ask for more members instead"),
            );
        }
        GpuShare::Milli(_) | GpuShare::Memory(_) | GpuShare::Mig(_) => {}
    }
    let models = check.each("models", &from.models, MAX_MODELS, |check, model| {
        if model.trim().is_empty() {
            check.fail("", "is empty");
        }
        check.text("", model, MAX_DEVICE_TEXT_BYTES);
        model.trim().to_lowercase()
    });
    GpuAsk { count, share, min_device_memory_bytes: from.min_device_memory_bytes, models }
}

/// Devices that are asked for, as a message.
pub fn gpu_to_v1(from: &GpuAsk) -> v1::GpuAsk {
    let (milli, memory_bytes) = match from.share {
        GpuShare::Whole => (WHOLE_DEVICE_MILLI, 0),
        GpuShare::Milli(milli) => (milli, 0),
        GpuShare::Memory(bytes) => (0, bytes),
        GpuShare::Mig(_) => (0, 0),
    };
    let mig_profile = match from.share {
        GpuShare::Mig(profile) => profile.to_string(),
        GpuShare::Whole | GpuShare::Milli(_) | GpuShare::Memory(_) => String::new(),
    };
    v1::GpuAsk {
        mig_profile,
        count: from.count,
        milli: milli.into(),
        memory_bytes,
        models: from.models.clone(),
        min_device_memory_bytes: from.min_device_memory_bytes,
    }
}

pub(super) fn selector(check: &mut Check, field: &str, from: &[v1::NodeSelectorTerm]) -> Selector {
    Selector { terms: check.each(field, from, MAX_TERMS, term) }
}

fn term(check: &mut Check, from: &v1::NodeSelectorTerm) -> Term {
    if from.key.is_empty() {
        check.fail("key", "is missing");
    }
    check.text("key", &from.key, MAX_LABEL_BYTES);
    check.count("values", from.values.len(), MAX_TERM_VALUES);
    for (position, value) in from.values.iter().take(MAX_TERM_VALUES).enumerate() {
        check.text(&format!("values[{position}]"), value, MAX_TERM_VALUE_BYTES);
    }
    let operator = match v1::SelectorOperator::try_from(from.operator) {
        Ok(v1::SelectorOperator::In) => Operator::In,
        Ok(v1::SelectorOperator::NotIn) => Operator::NotIn,
        Ok(v1::SelectorOperator::Exists) => Operator::Exists,
        Ok(v1::SelectorOperator::DoesNotExist) => Operator::DoesNotExist,
        Ok(v1::SelectorOperator::Gt) => Operator::Gt,
        Ok(v1::SelectorOperator::Lt) => Operator::Lt,
        Ok(v1::SelectorOperator::Unspecified) => {
            check.fail("operator", "is missing");
            Operator::Exists
        }
        Err(_) => {
            check.fail("operator", format!("{} is not an operator", from.operator));
            Operator::Exists
        }
    };
    let count = from.values.len();
    match operator {
        Operator::In | Operator::NotIn if count == 0 => {
            check.fail("values", "is empty, at least one is expected")
        }
        Operator::Exists | Operator::DoesNotExist if count > 0 => {
            check.fail("values", format!("has {count} entries, none is expected"));
        }
        Operator::Gt | Operator::Lt if !matches!(&from.values[..], [one] if one.parse::<i64>().is_ok()) => {
            check.fail("values", format!("is {:?}, one integer is expected", from.values));
        }
        _ => {}
    }
    Term { key: from.key.clone(), operator, values: from.values.clone() }
}

fn term_to_v1(from: &Term) -> v1::NodeSelectorTerm {
    let operator = match from.operator {
        Operator::In => v1::SelectorOperator::In,
        Operator::NotIn => v1::SelectorOperator::NotIn,
        Operator::Exists => v1::SelectorOperator::Exists,
        Operator::DoesNotExist => v1::SelectorOperator::DoesNotExist,
        Operator::Gt => v1::SelectorOperator::Gt,
        Operator::Lt => v1::SelectorOperator::Lt,
    };
    v1::NodeSelectorTerm { key: from.key.clone(), operator: operator.into(), values: from.values.clone() }
}
