//! YAML as a tree in which every key and value knows its place.
//!
//! The YAML library reads into types and stops at the first thing that does not fit. Files are therefore read into this
//! tree, which fits everything, and what is wrong with its contents is collected in one pass over it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Error, Location, Spanned};

use crate::problem::{Mark, Problem, Source};

/// Deepest nesting of a file: real objects need six levels.
const MAX_DEPTH: usize = 32;
/// Most values in a file.
const MAX_NODES: usize = 500_000;

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, a number or a word, as it is written.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with their values, in the order of the file.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Value::Null => "nothing".to_owned(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a block of keys".to_owned(),
        }
    }
}

/// The documents of a file, without empty ones; problems of the syntax go to `problems`.
pub(crate) fn read(source: &Source, problems: &mut Vec<Problem>) -> Vec<Node> {
    let first = read_with(source, DuplicateKeyPolicy::Error);
    let again = match first {
        Err(error) if matches!(error.without_snippet(), Error::DuplicateMappingKey { .. }) => {
            problems.push(syntax(source, &error));
            // The file is read on with the first of both, so that its other problems are told with this one.
            read_with(source, DuplicateKeyPolicy::FirstWins)
        }
        first => first,
    };
    match again {
        Ok(documents) => documents.into_iter().map(|raw| node(raw, &source.text)).collect(),
        Err(error) => {
            problems.push(syntax(source, &error));
            Vec::new()
        }
    }
}

fn read_with(source: &Source, duplicate_keys: DuplicateKeyPolicy) -> Result<Vec<Spanned<Raw>>, Error> {
    let budget = serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES };
    let options = serde_saphyr::options! {
        budget: budget,
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(&source.text, options)
}

fn syntax(source: &Source, error: &Error) -> Problem {
    let error = error.without_snippet();
    let mark = mark(error.location().unwrap_or(Location::UNKNOWN), &source.text);
    let message = match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key {key:?} is there twice"),
        _ => {
            // The library ends its messages with the place, which stands in front of ours.
            let text = error.to_string();
            let end = text.find(" at line ").unwrap_or(text.len());
            format!("not YAML: {}", text[..end].lines().next().unwrap_or_default())
        }
    };
    Problem::new(source, mark, message)
}

fn mark(location: Location, text: &str) -> Mark {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let written = slice(location, text).unwrap_or_default();
    let width = written.lines().next().unwrap_or_default().trim_end().chars().count();
    Mark {
        line: number(location.line()).max(1),
        column: number(location.column()).max(1),
        width: number(width as u64).max(1),
    }
}

/// What is written at a place.
fn slice(location: Location, text: &str) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let len = usize::try_from(location.span().byte_len()?).ok()?;
    text.get(start..start.checked_add(len)?)
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let written = || slice(raw.defined, text).map(str::trim).unwrap_or_default().to_owned();
    let mut mark = mark(raw.referenced, text);
    let value = match raw.value {
        Raw::Null => Value::Null,
        // As it is written: 2.50 is not 2.5 to whoever reads the message.
        Raw::Plain => Value::Scalar(written()),
        Raw::Text(value) => Value::Scalar(value),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(pairs) => {
            Value::Map(pairs.into_iter().map(|(key, value)| (node(key, text), node(value, text))).collect())
        }
    };
    if matches!(value, Value::List(_) | Value::Map(_)) {
        mark.width = 1;
    }
    Node { mark, value }
}

/// What the library makes of a value.
#[derive(Clone, Debug)]
enum Raw {
    Null,
    /// A number or boolean; its text is looked up in the source.
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Raw, E> {
        Err(E::custom("binary values have no place in policy files"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<Raw>>()? {
            if matches!(key.value, Raw::List(_) | Raw::Map(_)) {
                return Err(A::Error::custom("keys are words, not lists or blocks"));
            }
            pairs.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str) -> (Vec<Node>, Vec<String>) {
        let source = Source { name: "f".into(), text: text.into() };
        let mut problems = Vec::new();
        let nodes = read(&source, &mut problems);
        (nodes, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn numbers_and_words_stay_as_they_are_written() {
        let (nodes, problems) =
            documents("a: 2.50\nb: no\nc: true\nd: \"5\"\ne: 0x10\nf:\ng: 4Gi # four\n---\n---\n- x\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(nodes.len(), 2, "the empty document is none");
        let Value::Map(pairs) = &nodes[0].value else { panic!("{nodes:?}") };
        let shown: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{} {}", key.value.describe(), value.value.describe()))
            .collect();
        assert_eq!(
            shown,
            [
                "\"a\" \"2.50\"",
                "\"b\" \"no\"",
                "\"c\" \"true\"",
                "\"d\" \"5\"",
                "\"e\" \"0x10\"",
                "\"f\" nothing",
                "\"g\" \"4Gi\""
            ]
        );
        assert_eq!(pairs[6].1.mark, Mark { line: 7, column: 4, width: 3 });
        assert_eq!(pairs[3].0.mark, Mark { line: 4, column: 1, width: 1 });
    }

    #[test]
    fn bad_syntax_is_one_problem_with_its_place() {
        for text in ["a: [1, 2\n", "a: b: c\n", "a:\n\tb: 1\n", "a: *nowhere\n", "{a: 1"] {
            let (nodes, problems) = documents(text);
            assert!(nodes.is_empty() && problems.len() == 1, "{text:?}: {problems:?}");
            assert!(problems[0].starts_with("f:") && problems[0].contains("not YAML"), "{problems:?}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_and_the_rest_is_read() {
        let (nodes, problems) = documents("a: 1\nb: 2\na: 3\n");
        assert_eq!(problems, ["f:3:1: the key \"a\" is there twice\n  3 | a: 3\n    | ^"]);
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn deep_and_bomb_like_files_are_refused() {
        let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(documents(&deep).1.len(), 1);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let of = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{of}"); 10].join(", ")));
        }
        assert_eq!(documents(&bomb).1.len(), 1);
    }
}
