//! Quality of service from the outside: what is promised twice goes to best effort, which leaves first; latency targets are counted.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, json, run};
use serde_json::Value;

const POLICY: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { oversubscription: { cpu: 2 } }
---
apiVersion: plimsoll/v1
kind: Class
metadata: { name: scavenger }
spec: { priority: 90, qos: best_effort, grace: 1s }
---
apiVersion: plimsoll/v1
kind: Class
metadata: { name: critical }
spec: { priority: 100, latencyTarget: now }
";

fn dev() -> Dev {
    let dev = Dev::start(&[]);
    std::fs::write(dev.home.path().join("qos.yaml"), POLICY).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "qos.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    dev
}

/// What the one node has, in thousandths of a core.
fn cpu_millis(dev: &Dev) -> u64 {
    let nodes = json(dev.home.path(), &["get", "nodes"]);
    let amount = &nodes[0]["allocatable"]["cpuMillis"];
    amount.as_u64().or_else(|| amount.as_str()?.parse().ok()).unwrap_or_else(|| panic!("no cpu in {nodes}"))
}

fn reserve(dev: &Dev, code: i32, cpu_millis: u64, more: &[&str]) -> Value {
    let cpu = format!("{cpu_millis}m");
    let asked = [&["-o", "json", "reserve", "--cpu", &cpu, "--confirm", "--ttl", "10s"], more].concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &asked);
    assert_eq!(ended, code, "{asked:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{asked:?}: {error}: {stdout}"))
}

fn state(dev: &Dev, reservation: &Value) -> String {
    let id = reservation["id"].as_str().unwrap();
    json(dev.home.path(), &["get", "reservations", id])[0]["state"].as_str().unwrap().to_owned()
}

#[test]
fn best_effort_takes_what_is_promised_twice_and_leaves_for_whoever_is_backed() {
    let dev = dev();
    let all = cpu_millis(&dev);
    let scavengers: Vec<Value> = (0..2).map(|_| reserve(&dev, 0, all, &["--class", "scavenger"])).collect();
    assert_eq!(scavengers[0]["spec"]["qos"], "QOS_BEST_EFFORT", "as its class says");
    // Twice as much is promised, and taken. Who is backed waits until one of them is out.
    let backed = reserve(&dev, 3, all, &["--class", "batch", "--qos", "guaranteed"]);
    let begun = Instant::now();
    while state(&dev, &backed) != "RESERVATION_STATE_ACTIVE" {
        assert!(begun.elapsed() < Duration::from_secs(20), "it waits: {}", state(&dev, &backed));
        std::thread::sleep(Duration::from_millis(50));
    }
    let states: Vec<String> = scavengers.iter().map(|one| state(&dev, one)).collect();
    assert!(states.contains(&"RESERVATION_STATE_PENDING".to_owned()), "one waits again: {states:?}");
    assert!(states.contains(&"RESERVATION_STATE_ACTIVE".to_owned()), "the other stays: {states:?}");
    reserve(&dev, 3, 1, &["--class", "critical"]);
}

#[test]
fn latency_targets_are_counted_and_nonsense_is_told() {
    let dev = dev();
    reserve(&dev, 0, 10, &["--class", "critical"]);
    let told = json(dev.home.path(), &["describe", "class", "critical"]);
    assert_eq!(told["object"]["status"]["grants"], 1, "{told}");
    assert_eq!(told["object"]["status"]["latencyTargetMissed"], 0, "{told}");
    let (_, stdout, _) = run(dev.home.path(), &["get", "classes", "-o", "wide"]);
    assert!(stdout.contains("LATENCY TARGET") && stdout.contains("best effort"), "{stdout}");
    let asked = ["reserve", "--cpu", "2", "--qos", "burstable", "--burst", "cpu=1"];
    let (code, _, stderr) = run(dev.home.path(), &asked);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("burst.cpu"), "{stderr}");
}

/// The class once more, with or without a threshold that any machine is above.
fn put_threshold(dev: &Dev, line: &str) {
    let policy = format!(
        "apiVersion: plimsoll/v1\nkind: Class\nmetadata: {{ name: scavenger }}\nspec:\n  priority: 90\n  qos: best_effort\n  grace: 1s\n{line}"
    );
    std::fs::write(dev.home.path().join("class.yaml"), policy).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "class.yaml"]);
    assert_eq!(code, 0, "{stderr}");
}

fn until(dev: &Dev, reservation: &Value, wanted: &str) {
    let begun = Instant::now();
    while state(dev, reservation) != wanted {
        assert!(begun.elapsed() < Duration::from_secs(40), "{} and not {wanted}", state(dev, reservation));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn best_effort_leaves_a_node_that_measures_too_full_and_comes_back_once_its_class_stays() {
    let dev = dev();
    let ask = |more: &[&str]| -> Value {
        let asked = [&["-o", "json", "reserve", "--cpu", "100m", "--confirm", "--ttl", "5m"], more].concat();
        let (code, stdout, stderr) = run(dev.home.path(), &asked);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let loose = ask(&["--class", "scavenger"]);
    let backed = ["burstable", "guaranteed"].map(|qos| ask(&["--class", "scavenger", "--qos", qos]));
    put_threshold(&dev, "  evictWhen: memory > 0.1% for 1s\n");
    until(&dev, &loose, "RESERVATION_STATE_PENDING");
    let id = loose["id"].as_str().unwrap();
    let told = json(dev.home.path(), &["describe", id]);
    let preempted = &told["object"]["preempted"];
    assert_eq!(preempted["rule"], "PREEMPTION_RULE_THRESHOLD", "{told}");
    let evicted = &preempted["evicted"];
    assert_eq!((&evicted["gauge"], &evicted["abovePermille"]), (&"memory".into(), &1.into()), "{told}");
    assert!(evicted["measuredPermille"].as_u64() > Some(1) && evicted["node"].is_string(), "{told}");
    let (_, events, _) = run(dev.home.path(), &["events"]);
    assert!(events.contains("evict/threshold") && events.contains(", above 0.1% for "), "{events}");
    let (_, why, _) = run(dev.home.path(), &["explain", id]);
    assert!(why.contains("had to leave ") && why.contains(", above 0.1% for "), "{why}");
    assert!(why.contains("and class scavenger leaves above 0.1%"), "{why}");
    // There is room, but it would have to leave again.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(state(&dev, &loose), "RESERVATION_STATE_PENDING");
    for backed in &backed {
        assert_eq!(state(&dev, backed), "RESERVATION_STATE_ACTIVE", "who is backed stays");
    }
    put_threshold(&dev, "");
    until(&dev, &loose, "RESERVATION_STATE_ACTIVE");
    put_threshold(&dev, "  evictWhen: memory > 90%\n");
    let (_, stdout, _) = run(dev.home.path(), &["get", "classes", "-o", "wide"]);
    assert!(stdout.contains("memory > 90% for 30s"), "{stdout}");
    let wrong = "apiVersion: plimsoll/v1\nkind: Class\nmetadata: { name: c }\nspec: { priority: 1, evictWhen: disk > 5% }\n";
    std::fs::write(dev.home.path().join("wrong.yaml"), wrong).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["validate", "-f", "wrong.yaml"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("spec.evictWhen") && stderr.contains("is not measured"), "{stderr}");
}
