//! Validators. What their expressions mean is checked where they are evaluated; here they are text of a bounded size.

use std::collections::BTreeSet;

use plimsoll_ledger::limits::{MAX_EXPRESSION_BYTES, MAX_ITEMS, MAX_RULES};
use plimsoll_ledger::{Rule, Validator};
use plimsoll_types::Revision;

use super::Violation;
use super::check::Check;
use crate::v1;

/// A validator from its message.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validator_from_v1(from: &v1::Validator) -> Result<Validator, Vec<Violation>> {
    let mut check = Check::new();
    let object = validator(&mut check, from);
    check.finish(object)
}

/// A validator as a message.
pub fn validator_to_v1(from: &Validator) -> v1::Validator {
    let rule = |rule: &Rule| v1::ValidatorRule {
        expression: rule.expression.clone(),
        message: rule.message.clone(),
        path: rule.path.clone(),
    };
    v1::Validator {
        name: from.name.clone(),
        subject: from.subject.clone(),
        pools: from.pools.iter().cloned().collect(),
        queues: from.queues.iter().cloned().collect(),
        rules: from.rules.iter().map(rule).collect(),
        revision: from.changed.0,
    }
}

pub(super) fn validator(check: &mut Check, from: &v1::Validator) -> Validator {
    check.name("name", &from.name);
    if from.subject.is_empty() {
        check.fail(
            "subject",
            "is missing: give the kind of the objects that it looks at, such as Reservation",
        );
    } else if from.subject.len() > 63 {
        check.fail("subject", format!("has {} bytes, at most 63 are taken", from.subject.len()));
    }
    let pools = names(check, "pools", &from.pools);
    let queues = names(check, "queues", &from.queues);
    if from.rules.is_empty() {
        check.fail("rules", "is empty: give at least one rule");
    }
    Validator {
        name: from.name.clone(),
        subject: from.subject.clone(),
        pools,
        queues,
        rules: check.each("rules", &from.rules, MAX_RULES, rule),
        changed: Revision(0),
    }
}

fn names(check: &mut Check, field: &str, names: &[String]) -> BTreeSet<String> {
    let names = check.each(field, names, MAX_ITEMS, |check, name| {
        check.name("", name);
        name.clone()
    });
    names.into_iter().collect()
}

fn rule(check: &mut Check, from: &v1::ValidatorRule) -> Rule {
    if from.expression.trim().is_empty() {
        check.fail("expression", "is missing");
    }
    for (field, text) in [("expression", &from.expression), ("message", &from.message), ("path", &from.path)]
    {
        if text.len() > MAX_EXPRESSION_BYTES {
            check.fail(field, format!("has {} bytes, at most {MAX_EXPRESSION_BYTES} are taken", text.len()));
        }
    }
    Rule { expression: from.expression.clone(), message: from.message.clone(), path: from.path.clone() }
}
