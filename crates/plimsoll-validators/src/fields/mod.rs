//! What rules see of requests and policy objects: one table per kind, which has each name with its type and where it is read from. What was not asked for
//! is 0, empty or false; what stands for a default is the default.

mod class;
mod pool;
mod queue;
mod quota;
mod request;
mod schedule;
mod service;

use std::collections::BTreeMap;

use plimsoll_expr::{Names, Type, Unit, Value};
use plimsoll_ledger::{PolicyObject, Request};
use plimsoll_types::Resources;

use crate::subject::Subject;

/// A name that rules may use of things of a kind.
struct Field<T> {
    name: &'static str,
    kind: Type,
    read: fn(&T) -> Value,
}

/// The names that rules on a kind may use, with their types.
pub(crate) fn names(subject: Subject) -> Names {
    match subject {
        Subject::Reservation => of_table(request::fields()),
        Subject::Pool => of_table(pool::fields()),
        Subject::Class => of_table(class::fields()),
        Subject::NodeLimits => of_table(class::of_limits()),
        Subject::Queue => of_table(queue::fields()),
        Subject::Quota => of_table(quota::fields()),
        Subject::Schedule => of_table(schedule::fields()),
        Subject::Service => of_table(service::fields()),
        Subject::ScalingPolicy => of_table(service::of_scaling()),
    }
}

/// A request.
pub(crate) fn of_request(request: &Request) -> Value {
    value(request::fields(), request)
}

/// A policy object; nothing for kinds that no rule looks at.
pub(crate) fn of_object(object: &PolicyObject) -> Value {
    match object {
        PolicyObject::Pool(pool) => value(pool::fields(), pool),
        PolicyObject::Class(class) => value(class::fields(), class),
        PolicyObject::NodeLimits(limits) => value(class::of_limits(), limits),
        PolicyObject::Queue(queue) => value(queue::fields(), queue),
        PolicyObject::Quota(quota) => value(quota::fields(), quota),
        PolicyObject::Schedule(schedule) => value(schedule::fields(), schedule),
        PolicyObject::Service(service) => value(service::fields(), service),
        PolicyObject::ScalingPolicy(policy) => value(service::of_scaling(), policy),
        PolicyObject::Validator(_) => Value::Object(BTreeMap::new()),
    }
}

fn of_table<T>(fields: Vec<Field<T>>) -> Names {
    Names::new(fields.into_iter().map(|field| (field.name, field.kind)))
}

fn value<T>(fields: Vec<Field<T>>, of: &T) -> Value {
    Value::object(fields.into_iter().map(|field| (field.name, (field.read)(of))))
}

fn text<T>(name: &'static str, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::Text, read }
}

fn flag<T>(name: &'static str, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::Bool, read }
}

fn number<T>(name: &'static str, unit: Unit, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::Number(unit), read }
}

fn list<T>(name: &'static str, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::List(Box::new(Type::Text)), read }
}

/// Text by any name.
fn words<T>(name: &'static str, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::Map(Box::new(Type::Text)), read }
}

/// Numbers by any name.
fn numbers<T>(name: &'static str, read: fn(&T) -> Value) -> Field<T> {
    Field { name, kind: Type::Map(Box::new(Type::Number(Unit::Plain))), read }
}

/// How many thousandths of a core.
fn cpu(of: &Resources) -> Value {
    Value::milli(amount(of, "cpu"))
}

/// Bytes.
fn memory(of: &Resources) -> Value {
    Value::count(amount(of, "memory"))
}

fn amount(of: &Resources, name: &str) -> u64 {
    of.iter().find(|(known, _)| *known == name).map_or(0, |(_, amount)| amount.0)
}

/// All but cpu and memory.
fn other(of: &Resources) -> Value {
    let other = of.iter().filter(|(name, _)| !matches!(*name, "cpu" | "memory"));
    Value::object(other.map(|(name, amount)| (name.to_owned(), Value::count(amount.0))))
}

fn labels(labels: &BTreeMap<String, String>) -> Value {
    Value::object(labels.iter().map(|(key, value)| (key.clone(), Value::text(value))))
}

fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> Value {
    Value::List(texts.into_iter().map(Value::text).collect())
}

/// The word of a value, as people write it.
fn word<T: PartialEq>(named: &[(&str, T)], value: &T) -> Value {
    Value::text(named.iter().find(|(_, known)| known == value).map_or("", |(name, _)| *name))
}

/// Millionths as what they are parts of. Exact up to 2^53 millionths.
fn micros(micros: u64) -> Value {
    Value::Number(micros as f64 / 1_000_000.0)
}
