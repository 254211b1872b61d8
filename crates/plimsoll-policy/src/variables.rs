//! `${NAME}` and `${NAME:-default}` in values: filled in where the file is read, never on a server.
//!
//! Only values are filled in, after the syntax was read: what a variable holds can change no structure and move no place.

use serde_json::Value as Json;

use crate::node::{Node, Value};
use crate::problem::{Problem, Source};

/// Where the value of a variable comes from; `None` where it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Fills in every value below `node`. What is not set and has no default goes to `problems`.
pub(crate) fn fill_in(node: &mut Node, lookup: Lookup<'_>, source: &Source, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(text) if text.contains('$') => match expand(text, lookup) {
            Ok(filled) => *text = filled,
            Err(what) => problems.push(Problem::new(source, node.mark, what)),
        },
        Value::Scalar(_) => {}
        Value::List(items) => items.iter_mut().for_each(|item| fill_in(item, lookup, source, problems)),
        Value::Map(pairs) => {
            pairs.iter_mut().for_each(|(_, value)| fill_in(value, lookup, source, problems));
        }
    }
}

/// A document in which no value is taken for a variable when it is read again.
pub(crate) fn escaped(value: Json) -> Json {
    match value {
        Json::String(text) if text.contains("${") => Json::String(text.replace("${", "$${")),
        Json::Array(items) => items.into_iter().map(escaped).collect(),
        Json::Object(fields) => fields.into_iter().map(|(key, field)| (key, escaped(field))).collect(),
        other => other,
    }
}

/// `$${` is a plain `${`. A variable that is empty counts as not set, as in `${NAME:-default}` of shells.
fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at - 1]);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or_else(|| "the } of a variable is missing".to_owned())?;
        let (name, default) = match inner[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inner[..end], None),
        };
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!("{name:?} is no name of a variable: write ${{NAME}} or ${{NAME:-default}}"));
        }
        let value = lookup(name).filter(|value| !value.is_empty()).or_else(|| default.map(str::to_owned));
        filled.push_str(&value.ok_or_else(|| {
            format!("the variable {name} is not set: set it, or write ${{{name}:-default}}")
        })?);
        rest = &inner[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        expand(text, &|name| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn variables_and_defaults_are_filled_in() {
        for (text, expected) in [
            ("${A}", "one"),
            ("x-${A}-${B:-two}.${EMPTY:-three}", "x-one-two.three"),
            ("${B:-}", ""),
            ("$${A} costs $5", "${A} costs $5"),
            ("$A $ {A}", "$A $ {A}"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_filled_in_to_itself() {
        for text in ["${A}", "$${A}", "x${", "$$${B:-c}$${", "$", "plain"] {
            let Json::String(written) = escaped(Json::String(text.to_owned())) else { panic!("{text}") };
            assert_eq!(filled(&written).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_set_or_no_variable_is_told() {
        for (text, says) in [
            ("${B}", "B is not set"),
            ("${EMPTY}", "not set"),
            ("${A", "} of a variable"),
            ("${a b}", "no name"),
            ("${}", "no name"),
        ] {
            assert!(filled(text).is_err_and(|error| error.contains(says)), "{text}");
        }
    }
}
