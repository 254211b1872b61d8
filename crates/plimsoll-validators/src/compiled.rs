//! A validator whose rules can be evaluated.

use std::collections::BTreeSet;

use plimsoll_expr::{Expression, Problem};
use plimsoll_ledger::Validator;

use crate::subject::Subject;

/// A validator, its rules read.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub(crate) name: String,
    pub(crate) subject: Subject,
    pub(crate) pools: BTreeSet<String>,
    pub(crate) queues: BTreeSet<String>,
    pub(crate) rules: Vec<CompiledRule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub(crate) expression: Expression,
    pub(crate) message: String,
    pub(crate) path: String,
}

/// What keeps a validator from being evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No kind of that name; what there is.
    Subject(String),
    /// Things of its kind belong to no pool or queue, and it names some.
    Places(Subject),
    /// The expression of the rule with this index.
    Rule(usize, Problem),
}

impl Compiled {
    /// Reads every rule of a validator.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(validator: &Validator) -> Result<Compiled, Vec<Wrong>> {
        let Some(subject) = Subject::of_word(&validator.subject) else {
            let known: Vec<&str> = Subject::WORDS.iter().map(|(word, _)| *word).collect();
            let what = format!(
                "{:?} is not looked at by validators; there are: {}",
                validator.subject,
                known.join(", ")
            );
            return Err(vec![Wrong::Subject(what)]);
        };
        let mut wrong = Vec::new();
        let names_places = !validator.pools.is_empty() || !validator.queues.is_empty();
        if names_places && !subject.has_places() {
            wrong.push(Wrong::Places(subject));
        }
        let names = subject.names();
        let mut rules = Vec::with_capacity(validator.rules.len());
        for (index, rule) in validator.rules.iter().enumerate() {
            match Expression::parse(&rule.expression, &names) {
                Ok(expression) => {
                    let message = if rule.message.is_empty() {
                        format!("{} must hold", rule.expression.trim())
                    } else {
                        rule.message.clone()
                    };
                    rules.push(CompiledRule { expression, message, path: rule.path.clone() });
                }
                Err(problem) => wrong.push(Wrong::Rule(index, problem)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Compiled {
            name: validator.name.clone(),
            subject,
            pools: validator.pools.clone(),
            queues: validator.queues.clone(),
            rules,
        })
    }

    /// True where it looks at something in these pools and queues.
    pub(crate) fn looks_at(&self, pools: &[&str], queues: &[&str]) -> bool {
        let among = |named: &BTreeSet<String>, of: &[&str]| {
            named.is_empty() || of.iter().any(|name| named.contains(*name))
        };
        among(&self.pools, pools) && among(&self.queues, queues)
    }
}

impl Wrong {
    /// Field of the validator that it is about, as the API's message has it.
    pub fn field(&self) -> String {
        match self {
            Wrong::Subject(_) => "subject".to_owned(),
            Wrong::Places(_) => "pools".to_owned(),
            Wrong::Rule(index, _) => format!("rules[{index}].expression"),
        }
    }

    /// One sentence.
    pub fn sentence(&self) -> String {
        match self {
            Wrong::Subject(what) => what.clone(),
            Wrong::Places(subject) => {
                let word =
                    Subject::WORDS.iter().find(|(_, known)| known == subject).map_or("", |(word, _)| *word);
                format!("{word} objects belong to no pool or queue, so none can be named")
            }
            Wrong::Rule(_, problem) => problem.to_string(),
        }
    }
}
