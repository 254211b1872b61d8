//! What is different between two objects, field by field.

use plimsoll_ledger::PolicyObject;
use serde_json::Value;

use crate::write::to_document;

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path of the field in the file: `spec.countables.license/foo`, `spec.select[0].values`.
    pub field: String,
    /// Its value before, in one line; `None` where it was absent.
    pub from: Option<String>,
    /// Its value after, in one line; `None` where it is absent.
    pub to: Option<String>,
}

/// The fields in which `new` differs from `old`; all of its fields where there was none. Revisions do not count.
pub fn changes(old: Option<&PolicyObject>, new: &PolicyObject) -> Vec<Change> {
    let (old, new) = (old.map(to_document), to_document(new));
    let mut changes = Vec::new();
    for part in ["metadata", "spec"] {
        compare(&mut changes, part, old.as_ref().and_then(|old| old.get(part)), new.get(part));
    }
    changes
}

fn compare(changes: &mut Vec<Change>, path: &str, old: Option<&Value>, new: Option<&Value>) {
    if old == new {
        return;
    }
    let map = |value: Option<&Value>| value.is_none_or(Value::is_object);
    if map(old) && map(new) {
        for key in keys(old, new) {
            let of = |value: Option<&'_ Value>| value.and_then(|value| value.get(&key)).cloned();
            compare(changes, &format!("{path}.{key}"), of(old).as_ref(), of(new).as_ref());
        }
        return;
    }
    match (old.and_then(Value::as_array), new.and_then(Value::as_array)) {
        // Conditions are compared one by one; lists of words as a whole.
        (Some(before), Some(after)) if before.iter().chain(after).all(Value::is_object) => {
            for position in 0..before.len().max(after.len()) {
                let path = format!("{path}[{position}]");
                match (before.get(position), after.get(position)) {
                    (Some(old), Some(new)) => compare(changes, &path, Some(old), Some(new)),
                    (old, new) => leaf(changes, &path, old, new),
                }
            }
        }
        _ => leaf(changes, path, old, new),
    }
}

fn leaf(changes: &mut Vec<Change>, path: &str, old: Option<&Value>, new: Option<&Value>) {
    changes.push(Change { field: path.to_owned(), from: old.map(text), to: new.map(text) });
}

fn keys(old: Option<&Value>, new: Option<&Value>) -> Vec<String> {
    let of = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (old, new) = (of(old), of(new));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    new.keys().chain(gone).cloned().collect()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Pool, Strategy};
    use plimsoll_types::{Amount, Operator, Selector, Term};

    use super::*;

    #[test]
    fn each_field_that_differs_is_named_with_both_values() {
        let term = |values: &[&str]| Term {
            key: "zone".into(),
            operator: Operator::In,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let old = Pool {
            name: "gpu".into(),
            select: Selector { terms: vec![term(&["a"])] },
            countables: [("license/x".to_owned(), Amount(3))].into(),
            ..Pool::default()
        };
        let mut new = Pool {
            strategy: Strategy::WorstFit,
            select: Selector { terms: vec![term(&["a", "b"]), term(&["c"])] },
            changed: plimsoll_types::Revision(7),
            ..old.clone()
        };
        new.countables.clear();
        let lines = |old: Option<&Pool>, new: &Pool| {
            let (old, new) = (old.cloned().map(PolicyObject::Pool), PolicyObject::Pool(new.clone()));
            let show = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let all = changes(old.as_ref(), &new).into_iter();
            all.map(|change| format!("{} {} {}", change.field, show(change.from), show(change.to)))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines(Some(&old), &new),
            [
                r#"spec.select[0].values ["a"] ["a","b"]"#,
                r#"spec.select[1] - {"key":"zone","operator":"In","values":["c"]}"#,
                "spec.strategy best_fit worst_fit",
                "spec.countables.license/x 3 -",
            ]
        );
        let same = Pool { changed: plimsoll_types::Revision(9), ..old.clone() };
        assert!(lines(Some(&old), &same).is_empty(), "revisions are no difference");
        assert_eq!(lines(None, &old).len(), 5, "{:?}", lines(None, &old));
    }
}
