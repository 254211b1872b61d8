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
