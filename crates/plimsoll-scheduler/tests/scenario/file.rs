//! Scenario files: policy objects and requests as `plimsoll apply` reads them, and one document of kind Scenario.

use std::collections::BTreeMap;

use plimsoll_ledger::{Device, EvictWhen, PolicyObject, Registration, Request};
use plimsoll_policy::{Source, parse_all};
use plimsoll_proto::convert::request_from_v1;
use plimsoll_types::Resources;
use plimsoll_types::quantity::{parse_bytes, parse_cpu_millis, parse_duration_ms, parse_resource};
use serde::Deserialize;

use super::{boards, clock};

/// A file, read.
pub(crate) struct File {
    pub(crate) title: String,
    pub(crate) about: String,
    pub(crate) nodes: Vec<Registration>,
    pub(crate) policy: Vec<PolicyObject>,
    /// What is asked, by name.
    pub(crate) requests: BTreeMap<String, Request>,
    pub(crate) steps: Vec<Step>,
    pub(crate) until_ms: u64,
}

/// Something that happens.
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    pub(crate) action: Action,
}

/// What happens.
pub(crate) enum Action {
    Note(String),
    Submit {
        request: String,
        name: String,
        by: String,
        runs_ms: Option<u64>,
        saves_ms: Option<u64>,
    },
    Release(String),
    Cancel(String),
    Cordon(String),
    Uncordon(String),
    Fail(String),
    Return(String),
    /// The provider says that it takes the node back in so many milliseconds.
    Interrupt(String, u64),
    /// The node measures more than this, and has for so long; nothing to speak of where it says nothing.
    Measure(String, Option<EvictWhen>),
    Look,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "kind")]
    _kind: String,
    title: String,
    about: String,
    nodes: Vec<Machine>,
    steps: Vec<Line>,
    until: String,
}

/// A node, or several that are alike.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    names: Vec<String>,
    cpu: String,
    memory: String,
    /// Devices by the name of their board, such as `a100` or `a100-mig`.
    #[serde(default)]
    gpus: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    resources: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: String,
    note: Option<String>,
    submit: Option<String>,
    #[serde(rename = "as")]
    name: Option<String>,
    by: Option<String>,
    runs: Option<String>,
    saves: Option<String>,
    release: Option<String>,
    cancel: Option<String>,
    cordon: Option<String>,
    uncordon: Option<String>,
    fails: Option<String>,
    returns: Option<String>,
    interrupted: Option<String>,
    #[serde(rename = "in")]
    within: Option<String>,
    measured: Option<String>,
    above: Option<String>,
    look: Option<bool>,
}

/// Reads a file.
///
/// # Errors
/// What is wrong with it, each on a line.
pub(crate) fn read(name: &str, text: &str) -> Result<File, String> {
    let is_scenario = |part: &&str| part.lines().any(|line| line.trim_end() == "kind: Scenario");
    let (scenarios, others): (Vec<&str>, Vec<&str>) = text.split("\n---\n").partition(is_scenario);
    let [scenario] = scenarios[..] else {
        return Err(format!(
            "{name}: one document of kind Scenario is expected, {} are there",
            scenarios.len()
        ));
    };
    let document: Document = serde_saphyr::from_str(scenario).map_err(|error| format!("{name}: {error}"))?;
    let source = Source { name: name.to_owned(), text: others.join("\n---\n") };
    let contents = parse_all(&[source], &|_| None)
        .map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())?;
    let mut requests = BTreeMap::new();
    for asked in &contents.requests {
        let request = request_from_v1(&asked.spec).map_err(|wrong| format!("{}: {wrong:?}", asked.place))?;
        // Nobody is there to confirm: what is granted is taken.
        requests.insert(asked.spec.name.clone(), Request { auto_confirm: true, ..request });
    }
    let mut nodes = Vec::new();
    for machine in &document.nodes {
        nodes.extend(registrations(machine).map_err(|error| format!("{name}: nodes: {error}"))?);
    }
    let steps: Result<Vec<Step>, String> = document.steps.into_iter().map(step).collect();
    Ok(File {
        title: document.title,
        about: document.about,
        nodes,
        policy: contents.objects.into_iter().map(|parsed| parsed.object).collect(),
        requests,
        steps: steps.map_err(|error| format!("{name}: steps: {error}"))?,
        until_ms: clock::parse(&document.until).map_err(|error| format!("{name}: until: {error}"))?,
    })
}

fn registrations(machine: &Machine) -> Result<Vec<Registration>, String> {
    let wrong = |error: plimsoll_types::quantity::QuantityError| error.to_string();
    let cpu = parse_cpu_millis(&machine.cpu).map_err(wrong)?;
    let mut capacity = Resources::new(cpu, parse_bytes(&machine.memory).map_err(wrong)?);
    for (name, text) in &machine.resources {
        capacity = capacity.with(name, parse_resource(name, text).map_err(wrong)?);
    }
    let device = |node: &str, index: usize, board: &str| -> Result<Device, String> {
        let made = boards::device(board).ok_or_else(|| format!("there is no board {board:?}"))?;
        Ok(Device { uuid: format!("GPU-{node}-{index}"), ..made })
    };
    let registration = |name: &String| {
        let devices = machine.gpus.iter().enumerate().map(|(index, board)| device(name, index, board));
        Ok(Registration {
            name: name.clone(),
            incarnation: 1,
            labels: machine.labels.clone(),
            capacity: capacity.clone(),
            devices: devices.collect::<Result<_, String>>()?,
            ..Registration::default()
        })
    };
    machine.names.iter().map(registration).collect()
}

fn step(line: Line) -> Result<Step, String> {
    let at_ms = clock::parse(&line.at)?;
    let duration = |text: Option<String>| {
        text.map(|text| parse_duration_ms(&text).map_err(|error| error.to_string())).transpose()
    };
    let (runs_ms, saves_ms, in_ms) = (duration(line.runs)?, duration(line.saves)?, duration(line.within)?);
    let above = line.above.map(|text| text.parse::<EvictWhen>().map_err(|error| error.to_string()));
    let above = above.transpose()?;
    let submit = line.submit.map(|request| Action::Submit {
        name: line.name.clone().unwrap_or_else(|| request.clone()),
        by: line.by.clone().unwrap_or_else(|| "ada".to_owned()),
        request,
        runs_ms,
        saves_ms,
    });
    let actions = [
        line.note.map(Action::Note),
        submit,
        line.release.map(Action::Release),
        line.cancel.map(Action::Cancel),
        line.cordon.map(Action::Cordon),
        line.uncordon.map(Action::Uncordon),
        line.fails.map(Action::Fail),
        line.returns.map(Action::Return),
        line.interrupted.map(|node| Action::Interrupt(node, in_ms.unwrap_or(0))),
        line.measured.map(|node| Action::Measure(node, above)),
        line.look.filter(|look| *look).map(|_| Action::Look),
    ];
    let mut actions: Vec<Action> = actions.into_iter().flatten().collect();
    match (actions.pop(), actions.is_empty()) {
        (Some(action), true) => Ok(Step { at_ms, action }),
        _ => Err(format!(
            "at {}: one of note, submit, release, cancel, cordon, uncordon, fails, returns, interrupted, measured and look",
            line.at
        )),
    }
}
