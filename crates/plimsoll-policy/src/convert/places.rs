//! Where work goes: `affinity`, as a request says it.

use serde_json::{Map, Value, json};

use super::tree::At;

/// The level that is inside of all others.
const HOST: &str = "kubernetes.io/hostname";
/// The label by which pipelines are told apart.
const PIPELINE: &str = "pipeline";

/// Adds what `affinity` says to the request of a pipeline. True where that has to carry the label `pipeline`.
pub(super) fn read(at: &At<'_, '_>, pipeline: &str, request: &mut Map<String, Value>) -> bool {
    let terms = |way: [&str; 2]| at.at(&way).map(|at| at.items()).unwrap_or_default();
    let required: Vec<Value> = terms(["node_affinity", "required"]).iter().filter_map(condition).collect();
    let preferred = terms(["node_affinity", "preferred"]);
    let preferred: Vec<Value> = preferred.iter().filter_map(wish).collect();
    let mut own = false;
    let mut others = |block: &str| {
        let mut rules = Vec::new();
        for (how, weight) in [("required", false), ("preferred", true)] {
            for term in terms([block, how]) {
                rules.extend(rule(&term, weight, pipeline, &mut own));
            }
        }
        rules
    };
    let (with, apart) = (others("pod_affinity"), others("anti_affinity"));
    for (key, list) in
        [("require", required), ("prefer", preferred), ("affinity", with), ("antiAffinity", apart)]
    {
        if !list.is_empty() {
            request.insert(key.to_owned(), list.into());
        }
    }
    own
}

/// A condition on node labels.
fn condition(at: &At<'_, '_>) -> Option<Value> {
    let (key, operator) = (at.get("key")?.text()?, at.get("operator")?.text()?);
    let mut term = json!({ "key": key, "operator": operator });
    if let Some(values) = at.get("values") {
        let values: Vec<String> = values.items().iter().filter_map(At::text).collect();
        term["values"] = json!(values);
    }
    Some(term)
}

fn wish(at: &At<'_, '_>) -> Option<Value> {
    let weight = at.get("weight").and_then(|at| at.whole()).unwrap_or(1);
    let mut term = json!({ "weight": weight });
    for (key, value) in condition(at)?.as_object()? {
        term[key] = value.clone();
    }
    Some(term)
}

/// Other work that it is with, or apart from. A label alone is its value of the pipeline itself, or a mark.
fn rule(at: &At<'_, '_>, weighs: bool, pipeline: &str, own: &mut bool) -> Option<Value> {
    let key = at.get("label")?.text()?;
    let value = match at.get("value").and_then(|at| at.text()) {
        Some(value) => value,
        None if key == PIPELINE => {
            *own = true;
            at.note(format!("of which pipeline is not said: of its own, so that requests with the label pipeline={pipeline} are meant"));
            pipeline.to_owned()
        }
        None => {
            at.note(format!("with which value is not said: work is meant that says --label {key}=true"));
            "true".to_owned()
        }
    };
    let mut rule = json!({ "key": key, "value": value });
    if let Some(topology) = at.get("topology").and_then(|at| at.text()).filter(|level| level != HOST) {
        at.note(format!("the pool has to name {topology} among its levels: topology of kind: Pool"));
        rule["level"] = topology.into();
    }
    if weighs {
        rule["weight"] = at.get("weight").and_then(|at| at.whole()).unwrap_or(100).into();
    }
    Some(rule)
}
