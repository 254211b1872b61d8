//! Values of names, as callers give them.

use std::collections::{BTreeMap, HashMap};

use crate::names::Type;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A number, in the unit of its name.
    Number(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Values by name.
    Object(BTreeMap<String, Value>),
}

impl Value {
    /// A count. Exact up to 2^53.
    pub fn count(number: u64) -> Value {
        Value::Number(number as f64)
    }

    /// Thousandths as what they are parts of.
    pub fn milli(milli: u64) -> Value {
        Value::Number(milli as f64 / 1_000.0)
    }

    /// Text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// Values by name.
    pub fn object<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Object(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// A value of a type, for a dry run.
    pub(crate) fn sample(of: &Type) -> Value {
        match of {
            Type::Bool => Value::Bool(true),
            Type::Number(_) => Value::Number(1.0),
            Type::Text | Type::Any => Value::text("sample"),
            Type::List(item) => Value::List(vec![Value::sample(item)]),
            Type::Map(item) => Value::object([("sample", Value::sample(item))]),
            Type::Object(names) => {
                Value::object(names.iter().map(|(name, kind)| (name, Value::sample(kind))))
            }
        }
    }
}

impl From<&Value> for cel::Value {
    fn from(value: &Value) -> cel::Value {
        match value {
            Value::Bool(value) => cel::Value::Bool(*value),
            Value::Number(number) => cel::Value::Float(*number),
            Value::Text(text) => cel::Value::from(text.as_str()),
            Value::List(items) => cel::Value::from(items.iter().map(cel::Value::from).collect::<Vec<_>>()),
            Value::Object(entries) => {
                let entries = entries.iter().map(|(name, value)| (name.clone(), cel::Value::from(value)));
                cel::Value::from(entries.collect::<HashMap<String, cel::Value>>())
            }
        }
    }
}
