//! Validators at the edge: what breaks a rule of the cluster is refused before it is proposed, every rule at once.
//!
//! The rules are those of the state that this coordinator has applied. They are read anew when the policy changed, and evaluated here and not in
//! `apply`: replicas must agree, and an expression may mean something else to another build. A request that was answered already gets its
//! answer again, whatever the rules have become.

use std::sync::Arc;

use parking_lot::Mutex;
use plimsoll_ledger::{Command, Entry, Ledger, PolicyName, PolicyObject, Validator};
use plimsoll_mutants::mutant;
use plimsoll_proto::convert::Violation;
use plimsoll_types::Revision;
use plimsoll_validators::{Broken, Compiled, Validators};

use super::problem::Problem;
use crate::core::Core;

/// The rules of the latest policy that was looked at.
#[derive(Debug, Default)]
pub(super) struct RuleCache(Mutex<(Revision, Arc<Validators>)>);

impl RuleCache {
    /// Refuses an entry that breaks a rule. Requests are held against the rules after the ledger was let go of.
    pub(super) fn check(&self, core: &Core, entry: &Entry) -> Result<(), Problem> {
        match &entry.command {
            _ if mutant!("no-rules") => Ok(()),
            Command::Submit { request, .. } => {
                let rules = {
                    let ledger = core.local();
                    let rules = self.rules(&ledger);
                    if rules.is_empty() || ledger.remembered(&entry.actor, &entry.request_id).is_some() {
                        return Ok(());
                    }
                    rules
                };
                refuse(violations("", rules.of_request(request)))
            }
            Command::ApplyPolicy { put, delete, .. } => {
                let ledger = core.local();
                if ledger.remembered(&entry.actor, &entry.request_id).is_some() {
                    return Ok(());
                }
                check_policy(&ledger, put, delete, &self.rules(&ledger))
            }
            _ => Ok(()),
        }
    }

    /// Every rule that a request breaks.
    pub(super) fn broken_by(&self, core: &Core, request: &plimsoll_ledger::Request) -> Vec<Violation> {
        let rules = self.rules(&core.local());
        violations("", rules.of_request(request))
    }

    /// The rules in force, read once for each change of the policy.
    fn rules(&self, ledger: &Ledger) -> Arc<Validators> {
        let changed = ledger.meta().policy_changed;
        let mut known = self.0.lock();
        if known.0 != changed {
            *known = (changed, Arc::new(Validators::new(ledger.validators().map(AsRef::as_ref))));
        }
        Arc::clone(&known.1)
    }
}

/// New rules must be readable, and hold for what comes with them.
fn check_policy(
    ledger: &Ledger,
    put: &[PolicyObject],
    delete: &[PolicyName],
    present: &Validators,
) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let mut new: Vec<&Validator> = Vec::new();
    for (index, object) in put.iter().enumerate() {
        let PolicyObject::Validator(validator) = object else { continue };
        new.push(validator);
        for found in Compiled::new(validator).err().into_iter().flatten() {
            let field = format!("objects[{index}].validator.{}", found.field());
            wrong.push(Violation { field, description: found.sentence() });
        }
    }
    if !wrong.is_empty() {
        return Err(Problem::policy(wrong));
    }
    let touched = !new.is_empty() || delete.iter().any(|name| matches!(name, PolicyName::Validator(_)));
    let after = touched.then(|| {
        let stays = |validator: &&Arc<Validator>| {
            let name = PolicyName::Validator(validator.name.clone());
            !delete.contains(&name) && new.iter().all(|other| other.name != validator.name)
        };
        Validators::new(ledger.validators().filter(stays).map(AsRef::as_ref).chain(new.iter().copied()))
    });
    let rules = after.as_ref().unwrap_or(present);
    let mut broken = Vec::new();
    for (index, object) in put.iter().enumerate() {
        broken.extend(violations(&format!("objects[{index}]"), rules.of_object(object)));
    }
    refuse(broken)
}

fn refuse(broken: Vec<Violation>) -> Result<(), Problem> {
    if broken.is_empty() { Ok(()) } else { Err(Problem::refused_by_validators(broken)) }
}

fn violations(prefix: &str, broken: Vec<Broken>) -> Vec<Violation> {
    let violation = |broken: Broken| Violation {
        field: match (prefix, broken.path.as_str()) {
            ("", "") => "spec".to_owned(),
            ("", path) => path.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, path) => format!("{prefix}.{path}"),
        },
        description: format!("{} (validator {})", broken.message, broken.validator),
    };
    broken.into_iter().map(violation).collect()
}
