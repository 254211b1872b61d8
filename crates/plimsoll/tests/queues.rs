//! Queues and quotas from the outside: files in, refusals with numbers, whose turn it is.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, run, start};
use serde_json::Value;

const QUEUES: &str = "
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: research }
---
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: vision }
spec:
  parent: research
  weight: 2
  quotas:
    default: { gpu: { nominal: 2, limit: 3 } }
---
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: speech }
spec:
  parent: research
  quotas:
    default: { gpu: { guaranteed: 0.5, nominal: 2 } }
";

/// A `dev` with four GPUs and the queues above.
fn dev() -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:4"]);
    std::fs::write(dev.home.path().join("queues.yaml"), QUEUES).unwrap();
    let applied = text(&dev, 0, &["apply", "-f", "queues.yaml"]);
    assert_eq!(applied, "queue/research created\nqueue/vision created\nqueue/speech created\n");
    dev
}

fn text(dev: &Dev, code: i32, arguments: &[&str]) -> String {
    let (ended, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(ended, code, "{arguments:?}: {stderr}");
    if code == 0 { stdout } else { stderr }
}

fn json(dev: &Dev, arguments: &[&str]) -> Value {
    common::json(dev.home.path(), arguments)
}

/// Reserves in a queue; what has to wait ends with 3.
fn reserve(dev: &Dev, queue: &str, gpus: &str, more: &[&str]) -> Value {
    let code = if more.contains(&"--now") { 0 } else { 3 };
    let asked =
        [&["-o", "json", "reserve", "--queue", queue, "--gpu", gpus, "--confirm", "--for", "1h"], more]
            .concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &asked);
    assert_eq!(ended, code, "{asked:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn a_quota_is_lent_and_its_limit_is_said_with_numbers() {
    let dev = dev();
    for _ in 0..3 {
        let granted = reserve(&dev, "vision", "1", &["--now"]);
        assert_eq!(granted["state"], "RESERVATION_STATE_ACTIVE");
        assert_eq!(granted["spec"]["queue"], "vision");
    }
    let refused = text(&dev, 1, &["reserve", "--queue", "vision", "--gpu", "0.5", "--now"]);
    let said = "gpu in queue vision: 500 thousandths asked, 0 thousandths left of the quota, at most 3000 thousandths";
    assert!(refused.contains(said), "{refused}");
    let refused = text(&dev, 7, &["reserve", "--queue", "vision", "--gpu", "4"]);
    assert!(refused.contains("QUOTA_EXCEEDED") || refused.contains("gpu in queue vision"), "{refused}");
    let refused = text(&dev, 5, &["reserve", "--queue", "nosuch", "--gpu", "1"]);
    assert!(refused.contains("nosuch"), "{refused}");
    let shown = json(&dev, &["get", "queues", "vision"]);
    let quota = &shown[0]["status"]["quotas"][0];
    assert_eq!((&quota["used"], &quota["borrowed"]), (&"3000".into(), &"1000".into()));
    let table = text(&dev, 0, &["get", "queues", "--no-headers", "--columns", "queue,used"]);
    assert!(table.contains("default/gpu 3/2"), "{table}");
    assert!(text(&dev, 0, &["describe", "queue", "speech"]).contains("queues/speech was put"));
}

#[test]
fn what_waits_for_a_quota_starts_when_it_comes_free() {
    let dev = dev();
    let first = reserve(&dev, "vision", "2", &["--now"]);
    let waiting = reserve(&dev, "vision", "2", &[]);
    assert_eq!(waiting["state"], "RESERVATION_STATE_PENDING");
    let why = text(&dev, 0, &["explain", waiting["id"].as_str().unwrap()]);
    assert!(why.contains("gpu in queue vision"), "{why}");
    let token = first["token"].as_str().unwrap();
    text(&dev, 0, &["release", first["id"].as_str().unwrap(), "--token", token]);
    text(&dev, 0, &["wait", waiting["id"].as_str().unwrap(), "--timeout", "10s"]);
}

#[test]
fn by_weighted_share_the_queue_that_borrows_less_goes_first() {
    let dev = dev();
    let policy =
        "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: default }\nspec: { fairness: weighted }\n";
    std::fs::write(dev.home.path().join("pool.yaml"), policy).unwrap();
    text(&dev, 0, &["apply", "-f", "pool.yaml"]);
    // Everything is taken outside of the queues; then vision asks before speech, for more than its own.
    let all = json(&dev, &["reserve", "--gpu", "4", "--confirm", "--now", "--for", "1h"]);
    let asked: Vec<(String, &str)> = ["vision", "vision", "vision", "speech", "speech"]
        .into_iter()
        .map(|queue| (reserve(&dev, queue, "1", &[])["id"].as_str().unwrap().to_owned(), queue))
        .collect();
    text(&dev, 0, &["release", all["id"].as_str().unwrap(), "--token", all["token"].as_str().unwrap()]);
    // Four of five fit: vision's third would be borrowed, speech's second is its own.
    let third = &asked[2].0;
    for (id, _) in asked.iter().filter(|(id, _)| id != third) {
        text(&dev, 0, &["wait", id, "--timeout", "10s"]);
    }
    assert_eq!(json(&dev, &["get", "r", third])[0]["state"], "RESERVATION_STATE_PENDING");
}

#[test]
fn by_use_over_time_the_queue_that_had_less_goes_first_though_it_asked_later() {
    let dev = dev();
    let policy = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { fairness: fair_tree, halfLife: 1m }
---
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: hungry }
---
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: patient }
";
    std::fs::write(dev.home.path().join("policy.yaml"), policy).unwrap();
    text(&dev, 0, &["apply", "-f", "policy.yaml"]);
    let token = |held: &Value| held["token"].as_str().unwrap().to_owned();
    let release = |held: &Value| {
        text(&dev, 0, &["release", held["id"].as_str().unwrap(), "--token", &token(held)]);
    };
    let past = reserve(&dev, "hungry", "4", &["--now"]);
    // Four GPUs for 3 s of a half-life of 60 s are a mean of 0.14: as much as one and a half count that are held now.
    std::thread::sleep(Duration::from_secs(3));
    release(&past);
    let all = json(&dev, &["reserve", "--gpu", "4", "--confirm", "--now", "--for", "1h"]);
    let ask = |queue: &str| -> Vec<String> {
        (0..4).map(|_| reserve(&dev, queue, "1", &[])["id"].as_str().unwrap().to_owned()).collect()
    };
    let (hungry, patient) = (ask("hungry"), ask("patient"));
    release(&all);
    for id in &patient[..3] {
        text(&dev, 0, &["wait", id, "--timeout", "10s"]);
    }
    let waits = |id: &String| json(&dev, &["get", "r", id])[0]["state"] == "RESERVATION_STATE_PENDING";
    assert!(hungry[1..].iter().all(waits), "by age it would have all");
    let shown = text(&dev, 0, &["get", "queues", "-o", "wide"]);
    assert!(shown.contains("OVER TIME") && shown.contains("default/gpu 1"), "{shown}");
}

#[test]
fn classes_share_a_pool_by_their_weights_and_queues_are_told_what_they_may_expect() {
    let dev = dev();
    let policy = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { classOrder: weighted, preemption: never }
---
apiVersion: plimsoll/v1
kind: Class
metadata: { name: critical }
spec: { priority: 100, weight: 3 }
---
apiVersion: plimsoll/v1
kind: Class
metadata: { name: batch }
spec: { priority: 10, weight: 1 }
";
    std::fs::write(dev.home.path().join("policy.yaml"), policy).unwrap();
    text(&dev, 0, &["apply", "-f", "policy.yaml"]);
    let all = json(&dev, &["reserve", "--gpu", "4", "--confirm", "--now", "--for", "1h"]);
    // Two of its own, and one of those that speech does not want.
    let asked = reserve(&dev, "vision", "3", &[])["id"].as_str().unwrap().to_owned();
    let shown = json(&dev, &["get", "queues"]);
    let vision = shown.as_array().unwrap().iter().find(|one| one["name"] == "vision").unwrap();
    assert_eq!(vision["status"]["quotas"][0]["expected"], "3000", "{vision}");
    assert!(text(&dev, 0, &["get", "queues", "-o", "wide"]).contains("EXPECTS"));
    text(&dev, 0, &["cancel", &asked]);
    let ask = |class: &str| -> Vec<String> {
        let asked = ["-o", "json", "reserve", "--gpu", "1", "--class", class, "--confirm", "--for", "1h"];
        let one = |_| {
            let (code, stdout, stderr) = run(dev.home.path(), &asked);
            assert_eq!(code, 3, "it waits: {stderr}");
            serde_json::from_str::<Value>(&stdout).unwrap()["id"].as_str().unwrap().to_owned()
        };
        (0..3).map(one).collect()
    };
    let (batch, critical) = (ask("batch"), ask("critical"));
    text(&dev, 0, &["release", all["id"].as_str().unwrap(), "--token", all["token"].as_str().unwrap()]);
    for id in [&critical[0], &critical[1], &critical[2], &batch[0]] {
        text(&dev, 0, &["wait", id, "--timeout", "10s"]);
    }
    let waits = |id: &String| json(&dev, &["get", "r", id])[0]["state"] == "RESERVATION_STATE_PENDING";
    assert!(batch[1..].iter().all(waits));
    let planned = policy.replace("classOrder: weighted", "classOrder: weighted, queueing: backfill_2");
    std::fs::write(dev.home.path().join("planned.yaml"), planned).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "planned.yaml"]);
    assert!(code == 2 && stderr.contains("plans by class"), "{code}: {stderr}");
}

#[test]
fn a_queue_that_goes_by_points_says_what_they_are_of() {
    let dev = dev();
    let policy = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec:
  queueing: priority
  priorityWeights: { age: 10, maxAge: 30d, size: 100, fairShare: 1000, resources: { gpu: 400 } }
";
    std::fs::write(dev.home.path().join("policy.yaml"), policy).unwrap();
    text(&dev, 0, &["apply", "-f", "policy.yaml"]);
    let shown = text(&dev, 0, &["get", "pool", "default", "-o", "yaml"]);
    std::fs::write(dev.home.path().join("shown.yaml"), &shown).unwrap();
    assert!(text(&dev, 0, &["apply", "-f", "shown.yaml"]).contains("unchanged"), "{shown}");
    reserve(&dev, "vision", "2", &["--now"]);
    let others = json(&dev, &["reserve", "--gpu", "2", "--confirm", "--now", "--for", "1h"]);
    let id = |asked: Value| asked["id"].as_str().unwrap().to_owned();
    let (older, nice) =
        (id(reserve(&dev, "vision", "1", &[])), id(reserve(&dev, "speech", "1", &["--nice", "950"])));
    let younger = id(reserve(&dev, "speech", "1", &[]));
    let told = text(&dev, 0, &["explain", &older]);
    assert!(told.contains("rank 2 of 3") && told.contains("points, inside its class"), "{told}");
    let shown = json(&dev, &["explain", &nice])["points"].clone();
    let terms = shown["terms"].as_array().unwrap();
    let names: Vec<&str> = terms.iter().map(|term| term["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["age", "size", "fair_share", "gpu", "nice"], "{shown}");
    // What is 0 is left out.
    let points = |term: &Value| term["points"].as_str().map_or(0, |points| points.parse::<i64>().unwrap());
    assert_eq!(
        terms.iter().map(points).sum::<i64>().to_string(),
        shown["total"].as_str().unwrap(),
        "{shown}"
    );
    text(&dev, 0, &["release", others["id"].as_str().unwrap(), "--token", others["token"].as_str().unwrap()]);
    for started in [&younger, &older] {
        text(&dev, 0, &["wait", started, "--timeout", "10s"]);
    }
    assert_eq!(json(&dev, &["get", "r", &nice])[0]["state"], "RESERVATION_STATE_PENDING");
    let elsewhere = policy.replace("queueing: priority", "queueing: skip");
    std::fs::write(dev.home.path().join("elsewhere.yaml"), elsewhere).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "elsewhere.yaml"]);
    assert!(code == 2 && stderr.contains("only queueing priority goes by points"), "{code}: {stderr}");
}

#[test]
fn queues_are_shown_as_files_and_deleted_when_nothing_uses_them() {
    let dev = dev();
    let shown = text(&dev, 0, &["get", "queues", "-o", "yaml"]);
    std::fs::write(dev.home.path().join("shown.yaml"), &shown).unwrap();
    let again = text(&dev, 0, &["apply", "-f", "shown.yaml"]);
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    let refused = text(&dev, 1, &["delete", "queue", "research"]);
    assert!(refused.contains("IN_USE") || refused.contains("in use"), "{refused}");
    text(&dev, 0, &["delete", "-f", "queues.yaml"]);
    assert_eq!(json(&dev, &["get", "queues"]), serde_json::json!([]));
}

const BULK: &str = "
apiVersion: plimsoll/v1
kind: Queue
metadata: { name: bulk }
spec: { maxPending: 2, overflow: spill_to_disk }
";

/// Waits until this holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < late, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_is_set_aside_is_there_after_a_crash_and_comes_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let begin = || start(home, &["dev", "--port", "0", "--data", "state", "--fake-gpu", "a100:1"]).0;
    let mut process = begin();
    std::fs::write(home.join("bulk.yaml"), BULK).unwrap();
    assert_eq!(run(home, &["apply", "-f", "bulk.yaml"]).0, 0);
    let asked = ["-o", "json", "reserve", "--gpu", "1", "--confirm", "--for", "1h"];
    let held = common::json(home, &["reserve", "--gpu", "1", "--confirm", "--now", "--for", "1h"]);
    let reserve = |number: usize| {
        let label = format!("number={number}");
        let (code, stdout, stderr) =
            run(home, &[&asked[..], &["--queue", "bulk", "--label", &label]].concat());
        assert_eq!(code, 3, "it waits: {stderr}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        told["id"].as_str().unwrap().to_owned()
    };
    let ids: Vec<String> = (0..5).map(reserve).collect();
    let get = |id: &str| common::json(home, &["get", "r", id])[0].clone();
    let aside = || -> Vec<usize> { (0..5).filter(|n| !get(&ids[*n])["aside"].is_null()).collect() };
    until("the last three are set aside", || aside() == [2, 3, 4]);
    let shown = run(home, &["get", "queues", "-o", "wide"]).1;
    assert!(shown.contains("3 spilled"), "{shown}");
    let why = run(home, &["explain", &ids[4]]).1;
    assert!(why.contains("set aside"), "{why}");

    process.0.kill().unwrap();
    process.0.wait().unwrap();
    process = begin();
    assert_eq!(aside(), [2, 3, 4]);
    // What it asked is read back from the store.
    assert_eq!(get(&ids[4])["spec"]["labels"]["number"], "4");
    for gone in &ids[..2] {
        assert_eq!(run(home, &["cancel", gone]).0, 0);
    }
    until("the next two are back", || aside() == [4]);
    let token = held["token"].as_str().unwrap();
    assert_eq!(run(home, &["release", held["id"].as_str().unwrap(), "--token", token]).0, 0);
    assert_eq!(run(home, &["wait", &ids[2], "--timeout", "10s"]).0, 0, "the first of them has it");
    assert_eq!(get(&ids[2])["spec"]["labels"]["number"], "2");
    until("nobody is aside", || aside().is_empty());
    drop(process);
}
