//! `plan`, `explain`, `--as-of` and `simulate --policy` from the outside, on a real `dev`.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, json, run};
use serde_json::Value;

fn dev(files: &[(&str, &str)]) -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:2"]);
    for (name, text) in files {
        std::fs::write(dev.home.path().join(name), text).unwrap();
    }
    dev
}

fn plan(dev: &Dev, code: i32, arguments: &[&str]) -> Value {
    let arguments = [&["plan", "-o", "json"], arguments].concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &arguments);
    assert_eq!(ended, code, "{arguments:?}: {stderr}{stdout}");
    serde_json::from_str::<Value>(&stdout).unwrap()["plan"].clone()
}

fn reserve(dev: &Dev, code: i32, arguments: &[&str]) -> Value {
    let arguments = [&["-o", "json", "reserve", "--confirm"], arguments].concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &arguments);
    assert_eq!(ended, code, "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_str().unwrap_or("0").parse().unwrap()
}

#[test]
fn a_plan_says_when_a_request_starts_and_whom_it_costs() {
    let dev = dev(&[]);
    let free = plan(&dev, 0, &["--gpu", "2", "--for", "1h"]);
    assert_eq!(free["requests"][0]["verdict"], "PLAN_VERDICT_STARTS");
    assert!(free["effects"].as_array().is_none_or(Vec::is_empty), "{free}");

    let low = reserve(&dev, 0, &["--gpu", "2", "--class", "batch", "--for", "2h"]);
    let later = reserve(&dev, 3, &["--gpu", "2", "--class", "batch", "--for", "1h"]);
    let waits = plan(&dev, 3, &["--gpu", "1", "--class", "batch", "--for", "1h"]);
    assert_eq!(waits["requests"][0]["verdict"], "PLAN_VERDICT_WAITS");
    let start = number(&waits["requests"][0]["expectedStartMs"]) - number(&waits["logTimeMs"]);
    assert!(start > 3 * 3_600_000 - 60_000 && start < 4 * 3_600_000, "behind both: {start}");
    assert!(!waits["requests"][0]["blockers"].as_array().unwrap().is_empty());

    let urgent = plan(&dev, 3, &["--gpu", "2", "--class", "critical", "--for", "4h"]);
    assert_eq!(urgent["requests"][0]["verdict"], "PLAN_VERDICT_STARTS_AFTER_NOTICE");
    let of = |id: &Value| {
        let effects = urgent["effects"].as_array().unwrap();
        effects.iter().find(|effect| effect["reservation"]["id"] == *id).cloned().unwrap_or_default()
    };
    assert_eq!(of(&low["id"])["kind"], "PLAN_EFFECT_KIND_PREEMPTED");
    assert_eq!(of(&low["id"])["by"], "specs[0]");
    assert_eq!(of(&later["id"])["kind"], "PLAN_EFFECT_KIND_DELAYED");
    // Nothing of all that happened.
    let now = json(dev.home.path(), &["get", "reservations", low["id"].as_str().unwrap()]);
    assert_eq!(now[0]["state"], "RESERVATION_STATE_ACTIVE");
    let never = plan(&dev, 7, &["--gpu", "3"]);
    assert_eq!(never["requests"][0]["verdict"], "PLAN_VERDICT_NEVER");
    let (code, text, _) = run(dev.home.path(), &["plan", "--gpu", "2", "--class", "critical", "--for", "4h"]);
    assert_eq!(code, 3);
    assert!(
        text.contains("preempted") && text.contains("delayed") && text.contains("nothing was changed"),
        "{text}"
    );
}

const STRICT: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { queueOrder: strict_fifo }
";

const RELAXED: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { queueOrder: best_effort_fifo }
---
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: nightly }
spec: { gpu: 1, class: low, for: 1h, confirm: true }
";

#[test]
fn a_plan_of_files_says_what_changes_and_who_starts() {
    let dev = dev(&[("strict.yaml", STRICT), ("relaxed.yaml", RELAXED)]);
    let home = dev.home.path();
    assert_eq!(run(home, &["apply", "-f", "strict.yaml"]).0, 0);
    reserve(&dev, 0, &["--gpu", "1", "--for", "2h"]);
    reserve(&dev, 3, &["--gpu", "2", "--for", "1h"]);
    let small = reserve(&dev, 3, &["--gpu", "1", "--for", "1h", "-n", "small"]);
    let answer = plan(&dev, 3, &["-f", "relaxed.yaml"]);
    let effects = answer["effects"].as_array().unwrap();
    let starts = effects.iter().find(|effect| effect["kind"] == "PLAN_EFFECT_KIND_STARTS_NOW").expect("one");
    assert_eq!(starts["reservation"]["id"], small["id"], "{answer}");
    let (_, text, _) = run(home, &["plan", "-f", "relaxed.yaml"]);
    assert!(
        text.contains("~ pool/default") && text.contains("starts now") && text.contains("\"nightly\""),
        "{text}"
    );
    // The same file applied is what was planned; applied again it asks for nothing anew.
    let (code, out, err) = run(home, &["apply", "-f", "relaxed.yaml"]);
    assert_eq!(code, 3, "{err}");
    assert!(out.contains("reservation/nightly submitted"), "{out}");
    assert_eq!(run(home, &["apply", "-f", "relaxed.yaml"]).0, 3);
    let all = json(home, &["get", "reservations", "--named", "nightly"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    let (code, _, err) = run(home, &["validate", "-f", "relaxed.yaml"]);
    assert!(code == 0 || err.contains("Reservation"), "{err}");
}

const VALIDATOR: &str = "
apiVersion: plimsoll/v1
kind: Validator
metadata: { name: small }
spec:
  for: Reservation
  rules:
    - { expression: 'request.gpu <= 1', message: one GPU is enough, path: spec.gpu }
";

#[test]
fn explain_names_changes_that_help_and_asks_validators() {
    let dev = dev(&[("validator.yaml", VALIDATOR)]);
    let home = dev.home.path();
    let held = reserve(&dev, 0, &["--gpu", "2", "--class", "batch", "--for", "2h"]);
    let told = json(home, &["explain", "--gpu", "1"]);
    let ends = told["suggestions"].as_array().unwrap();
    assert!(
        ends.iter().any(|change| change["kind"] == "SUGGESTION_KIND_END" && change["object"] == held["id"]),
        "{told}"
    );
    assert_eq!(run(home, &["apply", "-f", "validator.yaml"]).0, 0);
    let told = json(home, &["explain", "--gpu", "2"]);
    assert_eq!(told["blockers"][0]["reason"], "ERROR_REASON_VALIDATION_FAILED", "{told}");
    assert!(!told["admissible"].as_bool().unwrap_or_default(), "{told}");
    let (code, text, _) = run(home, &["plan", "--gpu", "2"]);
    assert!(code == 9 && text.contains("one GPU is enough"), "{code}: {text}");
}

#[test]
fn reads_as_of_a_revision_show_what_was() {
    let dev = dev(&[]);
    let home = dev.home.path();
    let made = reserve(&dev, 0, &["--gpu", "1", "--for", "2h"]);
    let then = number(&made["revision"]).to_string();
    let id = made["id"].as_str().unwrap();
    assert_eq!(run(home, &["cancel", id]).0, 0);
    let now = json(home, &["get", "reservations", id]);
    assert_eq!(now[0]["state"], "RESERVATION_STATE_RELEASED");
    let past = json(home, &["get", "reservations", id, "--as-of", &then]);
    assert_eq!(past[0]["state"], "RESERVATION_STATE_ACTIVE");
    let listed = json(home, &["get", "reservations", "--as-of", &then]);
    assert_eq!(listed[0]["id"], made["id"]);
    let before =
        json(home, &["get", "reservations", "-a", "--as-of", &(number(&made["revision"]) - 1).to_string()]);
    assert!(before.as_array().unwrap().is_empty(), "{before}");
    let described = json(home, &["describe", "reservation", id, "--as-of", &then]);
    assert_eq!(described["object"]["state"], "RESERVATION_STATE_ACTIVE");
    assert_eq!(described["events"].as_array().unwrap().len(), 1, "{described}");
    let nodes = json(home, &["get", "nodes", "--as-of", &then]);
    assert!(number(&nodes[0]["allocated"]["cpuMillis"]) == 0 && nodes[0]["name"].is_string(), "{nodes}");
    let (code, _, err) = run(home, &["get", "nodes", "--as-of", "999999"]);
    assert!(code != 0 && err.contains("ahead"), "{err}");
    let (code, _, err) = run(home, &["get", "nodes", "--as-of", "10h"]);
    assert!(code != 0 && err.contains("oldest"), "{err}");
    let events = json(home, &["events", "--for", id, "--as-of", &then]);
    assert_eq!(events.as_array().unwrap().len(), 1, "{events}");
}

#[test]
fn the_log_of_a_cluster_runs_again_under_another_policy() {
    let dev = dev(&[("strict.yaml", STRICT)]);
    let home = dev.home.path();
    let first = reserve(&dev, 0, &["--gpu", "1", "--for", "2h"]);
    let large = reserve(&dev, 3, &["--gpu", "2", "--for", "1h"]);
    let small = reserve(&dev, 0, &["--gpu", "1", "--for", "1h"]);
    for held in [&small, &first] {
        assert_eq!(run(home, &["cancel", held["id"].as_str().unwrap()]).0, 0);
    }
    let begun = Instant::now();
    while json(home, &["get", "reservations", large["id"].as_str().unwrap()])[0]["state"]
        != "RESERVATION_STATE_ACTIVE"
    {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(run(home, &["cancel", large["id"].as_str().unwrap()]).0, 0);
    let (code, log, err) = run(home, &["audit", "log"]);
    assert_eq!(code, 0, "{err}");
    std::fs::write(home.join("log.jsonl"), log).unwrap();
    let told = json(home, &["simulate", "--log", "log.jsonl", "--policy", "strict.yaml"]);
    let all = &told["all"];
    assert_eq!((&all["actual"]["started"], &all["recorded"]["started"]), (&3.into(), &3.into()), "{told}");
    let mean = |past: &str| all[past]["meanWaitS"].as_f64().unwrap();
    assert!(mean("policy") > mean("recorded"), "the small one waits behind the large one: {told}");
    let (_, text, _) = run(home, &["simulate", "--log", "log.jsonl", "--policy", "strict.yaml"]);
    assert!(text.contains("actual") && text.contains("policy"), "{text}");
}
