//! `plimsoll describe`: one thing with all that is known about it, events last.

use clap::Args;
use plimsoll_client::Client;
use plimsoll_client::v1::{
    Event, GetClassRequest, GetContentionRequest, GetNodeLimitsRequest, GetNodeRequest, GetPoolRequest,
    GetQueueRequest, GetQuotaRequest, GetScalingPolicyRequest, GetScheduleRequest, GetServiceRequest,
    GetValidatorRequest, ListEventsRequest,
};
use serde_json::{Value, json};

use super::get::node_rows;
use super::lifecycle::look_up_at;
use super::noun::Noun;
use crate::args::{AsOf, Globals};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{
    Out, PoolRow, QueueRow, QuotaRow, ScalingRow, ScheduleRow, ServiceRow, Shown, absolute, enum_word,
};

/// Events shown below a thing.
const EVENTS: u32 = 20;
/// Fields whose keys are data.
const DATA_MAPS: [&str; 3] = ["labels", "other", "countables"];

/// Describes one thing.
#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// Kind of thing, or the id of a reservation (r-7k2m)
    #[arg(value_name = "NOUN")]
    noun: String,
    /// Its name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// As it was at a revision (1042), so long ago (10m) or at a time (2026-11-21T22:00:00Z)
    #[arg(long, value_name = "REVISION|TIME")]
    as_of: Option<AsOf>,
}

impl Describe {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let (noun, name) = match self.name {
            Some(name) => (self.noun.parse::<Noun>().map_err(CliError::usage)?, name),
            None if self.noun.starts_with("contention/") => {
                (Noun::Contention, self.noun.replacen("contention/", "", 1))
            }
            None if self.noun.starts_with("r-") => (Noun::Reservation, self.noun),
            None => return Err(CliError::usage("describe which one?").help("plimsoll describe NOUN NAME")),
        };
        let client = globals.client()?;
        let asked = |error| CliError::from(error).asked(format!("cannot describe {name}"));
        let consistency = globals.consistency();
        let (as_of_revision, as_of_ms) = AsOf::fields(self.as_of);
        let (object, full_name) = match noun {
            Noun::Reservation => {
                let reservation =
                    look_up_at(&client, &name, globals, (as_of_revision, as_of_ms)).await.map_err(asked)?;
                (reservation.json(), reservation.name)
            }
            Noun::Node => {
                let request = GetNodeRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let node = client.get_node(request).await.map_err(asked)?.node.unwrap_or_default();
                let full_name = node.name.clone();
                let mut rows = node_rows(&client, vec![node], (as_of_revision, as_of_ms) == (0, 0)).await;
                (rows.pop().unwrap_or_default().json(), full_name)
            }
            Noun::Pool => {
                let request = GetPoolRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_pool(request).await.map_err(asked)?;
                let row = PoolRow {
                    pool: answer.pool.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                };
                (row.json(), format!("pools/{name}"))
            }
            Noun::Class => {
                let request = GetClassRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_class(request).await.map_err(asked)?;
                let mut object = answer.class.unwrap_or_default().json();
                let status = answer.status.unwrap_or_default();
                object["status"] = json!({
                    "grants": status.grants,
                    "latencyTargetMissed": status.latency_target_missed,
                    "longestWaitMs": status.longest_wait_ms,
                });
                (object, format!("classes/{name}"))
            }
            Noun::Limits => {
                let request = GetNodeLimitsRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let limits =
                    client.get_node_limits(request).await.map_err(asked)?.node_limits.unwrap_or_default();
                (limits.json(), format!("nodeLimits/{name}"))
            }
            Noun::Queue => {
                let request = GetQueueRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_queue(request).await.map_err(asked)?;
                let row = QueueRow {
                    queue: answer.queue.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                };
                (row.json(), format!("queues/{name}"))
            }
            Noun::Quota => {
                let request = GetQuotaRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_quota(request).await.map_err(asked)?;
                let row = QuotaRow {
                    quota: answer.quota.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                };
                let object = if globals.out().is_human() { row.told(globals.utc) } else { row.json() };
                (object, format!("quotas/{name}"))
            }
            Noun::Validator => {
                let request = GetValidatorRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let object =
                    client.get_validator(request).await.map_err(asked)?.validator.unwrap_or_default();
                (object.json(), format!("validators/{name}"))
            }
            Noun::Schedule => {
                let request = GetScheduleRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_schedule(request).await.map_err(asked)?;
                let row = ScheduleRow {
                    schedule: answer.schedule.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                };
                (row.json(), format!("schedules/{name}"))
            }
            Noun::Scaling => {
                let request = GetScalingPolicyRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_scaling_policy(request).await.map_err(asked)?;
                let row = ScalingRow {
                    scaling_policy: answer.scaling_policy.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                };
                let full_name = format!("scalingPolicies/{}", row.scaling_policy.name);
                (row.json(), full_name)
            }
            Noun::Service => {
                let request = GetServiceRequest {
                    name: name.clone(),
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_service(request).await.map_err(asked)?;
                let row = ServiceRow {
                    service: answer.service.unwrap_or_default(),
                    status: answer.status.unwrap_or_default(),
                    rightsizing: answer.rightsizing,
                };
                (row.json(), format!("services/{name}"))
            }
            Noun::Contention => {
                let (pool, resource) = pool_and_resource(&name)?;
                let request = GetContentionRequest {
                    pool,
                    resource,
                    consistency,
                    min_revision: 0,
                    as_of_revision,
                    as_of_ms,
                };
                let answer = client.get_contention(request).await.map_err(asked)?;
                let one = answer.contention.unwrap_or_default();
                let mut object = one.json();
                let earlier: Vec<Value> = answer.earlier.iter().map(Shown::json).collect();
                if !earlier.is_empty() {
                    object["earlier"] = Value::Array(earlier);
                }
                (object, one.name)
            }
            Noun::Device | Noun::Endpoint | Noun::Member | Noun::Event => {
                let error = CliError::usage(format!("{} cannot be described one by one", noun.plural()));
                return Err(error.help(format!("plimsoll get {} -o wide", noun.plural())));
            }
        };
        let events = latest_events(&client, noun, full_name, (as_of_revision, as_of_ms)).await?;
        let out = globals.out();
        if out.is_human() {
            out.emit(&page(&object, &events, &out)?)?;
        } else {
            let documents: Vec<Value> = events.iter().map(Shown::json).collect();
            out.document(&json!({ "object": object, "events": documents }))?;
        }
        Ok(Exit::Done)
    }
}

/// Pool and resource of `POOL/RESOURCE`.
pub(super) fn pool_and_resource(name: &str) -> Result<(String, String), CliError> {
    let name = name.strip_prefix("contentions/").unwrap_or(name);
    let Some((pool, resource)) = name.split_once('/') else {
        let error = CliError::usage(format!("{name:?} is no contention: they are named POOL/RESOURCE"));
        return Err(error.help("plimsoll describe contention default/gpu"));
    };
    Ok((pool.to_owned(), resource.to_owned()))
}

async fn latest_events(
    client: &Client,
    noun: Noun,
    name: String,
    (to_revision, as_of_ms): (u64, u64),
) -> Result<Vec<Event>, CliError> {
    let request = ListEventsRequest {
        kinds: noun.kind().map(i32::from).into_iter().collect(),
        name,
        newest_first: true,
        page_size: EVENTS,
        to_revision,
        as_of_ms,
        ..ListEventsRequest::default()
    };
    let mut events = client.list_events(request).await?.events;
    events.reverse();
    Ok(events)
}

/// The page: the document in words, then events.
fn page(object: &Value, events: &[Event], out: &Out) -> Result<String, CliError> {
    let mut text = String::new();
    section(object, 0, false, out, &mut text);
    text.push_str("Events:\n");
    if events.is_empty() {
        text.push_str("  none are kept\n");
    }
    let view = out.view();
    let columns: Vec<_> =
        Event::COLUMNS.iter().filter(|column| !column.wide && column.name != "OBJECT").collect();
    for event in events {
        let cells: Vec<String> = columns.iter().map(|column| (column.cell)(event, &view)).collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    Ok(text)
}

/// Fields of a document, indented, with times and amounts as people read them.
/// With `is_data` the keys are names of labels or resources and stay as they are.
fn section(value: &Value, depth: usize, is_data: bool, out: &Out, text: &mut String) {
    let indent = "  ".repeat(depth);
    let Some(fields) = value.as_object() else { return };
    let title = |key: &str| if is_data { key.to_owned() } else { title(key) };
    let width = fields.keys().map(|key| title(key).len()).max().unwrap_or(0) + 1;
    for (key, field) in fields {
        match field {
            Value::Object(inner) if inner.is_empty() => {}
            Value::Array(items) if items.is_empty() => {}
            Value::Object(_) => {
                text.push_str(&format!("{indent}{}:\n", title(key)));
                section(field, depth + 1, DATA_MAPS.contains(&key.as_str()), out, text);
            }
            Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
                let words: Vec<String> = items.iter().map(|item| scalar("", item, out)).collect();
                text.push_str(&format!(
                    "{indent}{:<width$} {}\n",
                    format!("{}:", title(key)),
                    words.join(", ")
                ));
            }
            Value::Array(items) => {
                text.push_str(&format!("{indent}{}:\n", title(key)));
                for (position, item) in items.iter().enumerate() {
                    text.push_str(&format!("{indent}  [{position}]\n"));
                    section(item, depth + 2, false, out, text);
                }
            }
            _ => {
                let shown = scalar(key, field, out);
                text.push_str(&format!("{indent}{:<width$} {shown}\n", format!("{}:", title(key))));
            }
        }
    }
}

/// `leaseDeadlineMs` as `Lease deadline`.
fn title(key: &str) -> String {
    let bare = ["TimeMs", "Ms", "Bytes", "Millis", "Permille"]
        .iter()
        .find_map(|unit| key.strip_suffix(unit))
        .unwrap_or(key);
    let mut title = String::new();
    for (position, c) in bare.chars().enumerate() {
        match c {
            c if position == 0 => title.extend(c.to_uppercase()),
            c if c.is_uppercase() => {
                title.push(' ');
                title.extend(c.to_lowercase());
            }
            c => title.push(c),
        }
    }
    title
}

fn scalar(key: &str, value: &Value, out: &Out) -> String {
    use plimsoll_types::quantity::{display_bytes, format_cpu_millis, format_duration_ms, format_resource};
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Ok(number) = text.parse::<u64>() else {
        return enum_word(&text).unwrap_or(text);
    };
    match key {
        key if key.ends_with("TimeMs")
            || key.ends_with("DeadlineMs")
            || key.ends_with("SinceMs")
            || key == "safeEndMs" =>
        {
            absolute(number, out.view().utc)
        }
        key if key.ends_with("Ms") => format_duration_ms(number),
        key if key.ends_with("Bytes") => display_bytes(number),
        key if key.ends_with("Permille") => format!("{}.{}%", number / 10, number % 10),
        key if key.ends_with("Millis") => format_cpu_millis(number),
        key if key.contains('/') => format_resource(key, number),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_titles() {
        assert_eq!(title("leaseDeadlineMs"), "Lease deadline");
        assert_eq!(title("createTimeMs"), "Create");
        assert_eq!(title("memoryBytes"), "Memory");
    }
}
