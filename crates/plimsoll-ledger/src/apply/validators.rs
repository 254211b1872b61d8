//! Bounds of validators: how many there are, and how large they may be.

use std::collections::BTreeSet;

use crate::limits::{MAX_EXPRESSION_BYTES, MAX_ITEMS, MAX_RULES, MAX_VALIDATORS};
use crate::{Blocker, Ledger, PolicyName, PolicyObject, Reason, Validator};

/// First ledger version that knows validators.
pub(crate) const SINCE_VERSION: u32 = 4;

impl Ledger {
    /// Everything that keeps validators from being stored, once all is put and deleted.
    pub(crate) fn check_validators(
        &self,
        put: &[PolicyObject],
        delete: &[PolicyName],
        blockers: &mut Vec<Blocker>,
    ) {
        let mut names: BTreeSet<&str> = put
            .iter()
            .filter_map(|object| match object {
                PolicyObject::Validator(validator) => Some(validator.name.as_str()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            return;
        }
        if !self.knows(SINCE_VERSION, "validators", blockers) {
            return;
        }
        names.extend(self.validators.keys().map(String::as_str));
        for name in delete {
            if let PolicyName::Validator(name) = name {
                names.remove(name.as_str());
            }
        }
        if names.len() > MAX_VALIDATORS {
            let (count, most) = (names.len() as u64, MAX_VALIDATORS as u64);
            blockers
                .push(Blocker { limit: most, ..Blocker::new(Reason::TableFull, "validators", count, most) });
        }
    }
}

/// Every bound that a validator breaks: field, value given, least and most.
pub(crate) fn bounds(validator: &Validator) -> Vec<(String, u64, u64, u64)> {
    let items = MAX_ITEMS as u64;
    let mut found = vec![
        ("validator.subject".to_owned(), validator.subject.len() as u64, 1, 63),
        ("validator.pools".to_owned(), validator.pools.len() as u64, 0, items),
        ("validator.queues".to_owned(), validator.queues.len() as u64, 0, items),
        ("validator.rules".to_owned(), validator.rules.len() as u64, 1, MAX_RULES as u64),
    ];
    let most = MAX_EXPRESSION_BYTES as u64;
    for (index, rule) in validator.rules.iter().enumerate() {
        let field = |name: &str| format!("validator.rules[{index}].{name}");
        found.push((field("expression"), rule.expression.len() as u64, 1, most));
        found.push((field("message"), rule.message.len() as u64, 0, most));
        found.push((field("path"), rule.path.len() as u64, 0, most));
    }
    found.retain(|(_, value, least, most)| value < least || value > most);
    found
}
