//! All validators of a cluster, and what of them does not hold.

use std::collections::BTreeMap;

use plimsoll_expr::Value;
use plimsoll_ledger::{PolicyObject, Request, ScalingTarget, Validator};

use crate::compiled::Compiled;
use crate::fields;
use crate::subject::Subject;

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The validator's name.
    pub validator: String,
    /// Field that the rule is about, as files write it; empty for the whole object.
    pub path: String,
    /// What the rule says.
    pub message: String,
}

/// Validators, ready to be evaluated.
#[derive(Clone, Debug, Default)]
pub struct Validators {
    compiled: Vec<Compiled>,
    /// Those that this build cannot read: kind and name, and why.
    unread: Vec<(String, String, String)>,
}

impl Validators {
    /// Reads all of them. What cannot be read refuses everything of its kind, and says so: a rule that is not understood may not be passed over.
    pub fn new<'a>(validators: impl IntoIterator<Item = &'a Validator>) -> Validators {
        let mut set = Validators::default();
        for validator in validators {
            match Compiled::new(validator) {
                Ok(compiled) => set.compiled.push(compiled),
                Err(wrong) => {
                    let why: Vec<String> = wrong.iter().map(|wrong| wrong.sentence()).collect();
                    set.unread.push((validator.subject.clone(), validator.name.clone(), why.join("; ")));
                }
            }
        }
        set
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.compiled.is_empty() && self.unread.is_empty()
    }

    /// Every rule that a request breaks.
    pub fn of_request(&self, request: &Request) -> Vec<Broken> {
        let (pools, queues) = ([request.pool.as_str()], [request.queue.as_str()]);
        self.broken(Subject::Reservation, &pools, &queues, || fields::of_request(request))
    }

    /// Every rule that a policy object breaks.
    pub fn of_object(&self, object: &PolicyObject) -> Vec<Broken> {
        let Some(subject) = Subject::of_object(object) else { return Vec::new() };
        let (pools, queues): (Vec<&str>, Vec<&str>) = match object {
            PolicyObject::Pool(pool) => (vec![&pool.name], Vec::new()),
            PolicyObject::Queue(queue) => {
                (queue.quotas.keys().map(String::as_str).collect(), vec![&queue.name])
            }
            PolicyObject::Quota(quota) => (Vec::new(), vec![&quota.queue]),
            PolicyObject::Schedule(schedule) => {
                (vec![&schedule.pool], schedule.users.queues.iter().map(String::as_str).collect())
            }
            PolicyObject::Service(service) => (vec![&service.pool], Vec::new()),
            PolicyObject::ScalingPolicy(policy) => match &policy.target {
                ScalingTarget::Pool(pool) => (vec![pool], Vec::new()),
                ScalingTarget::Service(_) => (Vec::new(), Vec::new()),
            },
            PolicyObject::Class(_) | PolicyObject::NodeLimits(_) | PolicyObject::Validator(_) => {
                (Vec::new(), Vec::new())
            }
        };
        self.broken(subject, &pools, &queues, || fields::of_object(object))
    }

    fn broken(
        &self,
        subject: Subject,
        pools: &[&str],
        queues: &[&str],
        value: impl FnOnce() -> Value,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        let word = Subject::WORDS.iter().find(|(_, known)| *known == subject).map_or("", |(word, _)| *word);
        for (_, name, why) in self.unread.iter().filter(|(of, ..)| of == word) {
            let message = format!("validator {name} cannot be read by this coordinator: {why}");
            broken.push(Broken { validator: name.clone(), path: String::new(), message });
        }
        let looking: Vec<&Compiled> = self
            .compiled
            .iter()
            .filter(|one| one.subject == subject && one.looks_at(pools, queues))
            .collect();
        if looking.is_empty() {
            return broken;
        }
        let values = BTreeMap::from([(subject.variable(), value())]);
        for one in looking {
            for rule in &one.rules {
                let message = match rule.expression.holds(&values) {
                    Ok(true) => continue,
                    Ok(false) => rule.message.clone(),
                    Err(fault) => format!("{} (the rule has no answer: {fault})", rule.message),
                };
                broken.push(Broken { validator: one.name.clone(), path: rule.path.clone(), message });
            }
        }
        broken
    }
}
