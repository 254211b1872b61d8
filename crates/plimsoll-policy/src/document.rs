//! Documents of sources to policy objects.

use std::collections::BTreeMap;

use plimsoll_ledger::PolicyObject;
use plimsoll_proto::convert::{policy_object_from_v1, request_from_v1};
use plimsoll_proto::v1;
use plimsoll_proto::v1::policy_object::Object;

use crate::context::Context;
use crate::kinds::{
    class, node_limits, pool, queue, quota, reservation, scaling_policy, schedule, service, validator,
};
use crate::label::kind_word;
use crate::node::{self, Node, Value};
use crate::problem::{Mark, Place, Problem, Source};
use crate::suggest::hint;
use crate::variables::{Lookup, fill_in};

/// What `apiVersion` must be.
pub const API_VERSION: &str = "plimsoll/v1";

const TOP: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
const KINDS: [(&str, Kind); 10] = [
    ("Pool", Kind::Pool),
    ("Class", Kind::Class),
    ("NodeLimits", Kind::NodeLimits),
    ("Queue", Kind::Queue),
    ("Quota", Kind::Quota),
    ("Schedule", Kind::Schedule),
    ("Service", Kind::Service),
    ("ScalingPolicy", Kind::ScalingPolicy),
    ("Validator", Kind::Validator),
    ("Reservation", Kind::Reservation),
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Pool,
    Class,
    NodeLimits,
    Queue,
    Quota,
    Validator,
    Schedule,
    Service,
    ScalingPolicy,
    Reservation,
}

/// What sources hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Policy objects, in their order.
    pub objects: Vec<Parsed>,
    /// Requests (`kind: Reservation`), in their order.
    pub requests: Vec<Requested>,
}

/// A request and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Requested {
    /// What is asked; its name is the document's.
    pub spec: v1::ReservationSpec,
    /// Where it begins.
    pub place: Place,
}

/// One document, read.
enum Found {
    Object(Box<PolicyObject>),
    Request(Box<v1::ReservationSpec>),
}

/// An object and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The object; its revision is 0.
    pub object: PolicyObject,
    /// Where it begins.
    pub place: Place,
}

/// Every object of the sources, in their order. A document may also be a list of objects, as `get -o yaml` writes it.
///
/// # Errors
/// Everything that is wrong, in the order of the sources and lines. An object that is there twice, in the same or in
/// another source, is wrong.
pub fn parse(sources: &[Source]) -> Result<Vec<Parsed>, Vec<Problem>> {
    parse_with(sources, &|_| None)
}

/// The same, with `${NAME}` and `${NAME:-default}` in values filled in.
///
/// # Errors
/// As for [`parse`], and a variable that is not set and has no default.
pub fn parse_with(sources: &[Source], variables: Lookup<'_>) -> Result<Vec<Parsed>, Vec<Problem>> {
    read(sources, variables, false).map(|contents| contents.objects)
}

/// Policy objects and requests.
///
/// # Errors
/// As for [`parse_with`].
pub fn parse_all(sources: &[Source], variables: Lookup<'_>) -> Result<Contents, Vec<Problem>> {
    read(sources, variables, true)
}

fn read(sources: &[Source], variables: Lookup<'_>, with_requests: bool) -> Result<Contents, Vec<Problem>> {
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    let mut seen: BTreeMap<(&'static str, String), Place> = BTreeMap::new();
    for source in sources {
        let mut context = Context::new(source);
        for mut document in node::read(source, &mut context.problems) {
            fill_in(&mut document, variables, source, &mut context.problems);
            let list = match &document.value {
                Value::List(items) => items.as_slice(),
                _ => std::slice::from_ref(&document),
            };
            for node in list {
                let Some((found, name_mark)) = object(&mut context, node) else { continue };
                let (kind, name) = match &found {
                    Found::Object(object) => (kind_word(&object.name()), object.name().name().to_owned()),
                    Found::Request(spec) => ("Reservation", spec.name.clone()),
                };
                let key = (kind, name.clone());
                if let Some(first) = seen.get(&key) {
                    context.fail(name_mark, format!("{kind} {name:?} is there twice, first at {first}"));
                    continue;
                }
                let place = node.mark.place(source);
                seen.insert(key, place.clone());
                match found {
                    Found::Object(object) => contents.objects.push(Parsed { object: *object, place }),
                    Found::Request(spec) if with_requests => {
                        contents.requests.push(Requested { spec: *spec, place })
                    }
                    Found::Request(_) => context
                        .fail(node.mark, "kind Reservation is a request, no policy: plan and apply take it"),
                }
            }
        }
        context.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        problems.append(&mut context.problems);
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

/// One object and the place of its name; `None` where something is wrong with it.
fn object(context: &mut Context<'_>, node: &Node) -> Option<(Found, Mark)> {
    let before = context.problems.len();
    context.begin();
    let top = context.block(node, "", &TOP);
    if !matches!(node.value, Value::Map(_)) {
        return None;
    }
    match top.get("apiVersion").map(|node| (node, context.text(node, "apiVersion"))) {
        None => context.fail(node.mark, format!("apiVersion is missing: write apiVersion: {API_VERSION}")),
        Some((node, Some(text))) if text != API_VERSION => {
            context.fail(node.mark, format!("apiVersion {text:?} is not known: this is {API_VERSION}"));
        }
        Some(_) => {}
    }
    let kind = match top.get("kind") {
        None => {
            context.fail(node.mark, format!("kind is missing{}", hint("", &KINDS.map(|(word, _)| word))));
            None
        }
        Some(node) => context.word(node, "kind", &KINDS),
    }?;
    let absent = Node { mark: node.mark, value: Value::Null };
    let metadata = top.get("metadata").unwrap_or(&absent);
    let spec = top.get("spec").unwrap_or(&absent);
    let (object, name_mark) = match kind {
        Kind::Pool => {
            let metadata = context.block(metadata, "metadata", &pool::METADATA);
            let spec = context.block(spec, "spec", &pool::SPEC);
            (Object::Pool(pool::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Class => {
            let metadata = context.block(metadata, "metadata", &class::METADATA);
            let spec = context.block(spec, "spec", &class::SPEC);
            (Object::Class(class::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::NodeLimits => {
            let metadata = context.block(metadata, "metadata", &node_limits::METADATA);
            let spec = context.block(spec, "spec", &node_limits::SPEC);
            (Object::NodeLimits(node_limits::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Quota => {
            let metadata = context.block(metadata, "metadata", &quota::METADATA);
            let spec = context.block(spec, "spec", &quota::SPEC);
            (Object::Quota(quota::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Validator => {
            let metadata = context.block(metadata, "metadata", &validator::METADATA);
            let spec = context.block(spec, "spec", &validator::SPEC);
            (Object::Validator(validator::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Reservation => {
            let metadata = context.block(metadata, "metadata", &reservation::METADATA);
            let spec = context.block(spec, "spec", &reservation::SPEC);
            let read = reservation::read(context, &metadata, &spec);
            if let Err(violations) = request_from_v1(&read) {
                context.violations(node.mark, violations);
            }
            let fine = context.problems.len() == before;
            return fine.then(|| (Found::Request(Box::new(read)), metadata.mark_of("name")));
        }
        Kind::Queue => {
            let metadata = context.block(metadata, "metadata", &queue::METADATA);
            let spec = context.block(spec, "spec", &queue::SPEC);
            (Object::Queue(queue::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Schedule => {
            let metadata = context.block(metadata, "metadata", &schedule::METADATA);
            let spec = context.block(spec, "spec", &schedule::SPEC);
            (Object::Schedule(schedule::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::Service => {
            let metadata = context.block(metadata, "metadata", &service::METADATA);
            let spec = context.block(spec, "spec", &service::SPEC);
            (Object::Service(service::read(context, &metadata, &spec)), metadata.mark_of("name"))
        }
        Kind::ScalingPolicy => {
            let metadata = context.block(metadata, "metadata", &scaling_policy::METADATA);
            let spec = context.block(spec, "spec", &scaling_policy::SPEC);
            let read = scaling_policy::read(context, &metadata, &spec);
            (Object::ScalingPolicy(read), metadata.mark_of("name"))
        }
    };
    match policy_object_from_v1(&v1::PolicyObject { object: Some(object) }) {
        Ok(object) => {
            (context.problems.len() == before).then(|| (Found::Object(Box::new(object)), name_mark))
        }
        Err(violations) => {
            context.violations(node.mark, violations);
            None
        }
    }
}
