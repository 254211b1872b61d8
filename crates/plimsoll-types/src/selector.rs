//! Label selectors: which nodes a request or a policy means.

use std::collections::BTreeMap;

/// Labels of a node or request, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// How a term compares a label with its values. Names and meaning are those of Kubernetes node affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// The label is one of the values.
    In,
    /// The label is absent or none of the values.
    NotIn,
    /// The label is there, whatever its value.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer above the one value.
    Gt,
    /// The label is an integer below the one value.
    Lt,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// Label key, such as `zone`.
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// Values to compare with; empty for `Exists` and `DoesNotExist`, one integer for `Gt` and `Lt`.
    pub values: Vec<String>,
}

/// Conditions that must all hold. The empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// The conditions.
    pub terms: Vec<Term>,
}

impl Selector {
    /// True where every term holds for `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.terms.iter().all(|term| term.matches(labels))
    }
}

impl Term {
    /// True where the term holds for `labels`. `Gt` and `Lt` on a label that is no integer do not hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        let label = labels.get(&self.key);
        match self.operator {
            Operator::In => label.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => label.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::Gt => self.compare(label, |a, b| a > b),
            Operator::Lt => self.compare(label, |a, b| a < b),
        }
    }

    fn compare(&self, label: Option<&String>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let number = |text: &String| text.parse::<i64>().ok();
        match (label.and_then(number), self.values.first().and_then(number)) {
            (Some(label), Some(value)) => holds(label, value),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(key: &str, operator: Operator, values: &[&str]) -> Term {
        Term { key: key.into(), operator, values: values.iter().map(|v| (*v).to_owned()).collect() }
    }

    #[test]
    fn operators_follow_kubernetes_node_affinity() {
        let labels = Labels::from([("zone".into(), "a".into()), ("rank".into(), "7".into())]);
        for (term, expected) in [
            (term("zone", Operator::In, &["a", "b"]), true),
            (term("zone", Operator::In, &["b"]), false),
            (term("none", Operator::NotIn, &["b"]), true),
            (term("zone", Operator::NotIn, &["a"]), false),
            (term("zone", Operator::Exists, &[]), true),
            (term("none", Operator::DoesNotExist, &[]), true),
            (term("rank", Operator::Gt, &["6"]), true),
            (term("rank", Operator::Lt, &["7"]), false),
            (term("zone", Operator::Gt, &["6"]), false),
        ] {
            assert_eq!(term.matches(&labels), expected, "{term:?}");
        }
    }
}
