//! Elastic pools from the outside: a node is lent to the pool in which somebody waits, and comes home when it is wanted there.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, json, run};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
const POLICY: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: serving }
spec:
  select: [{ key: for, operator: In, values: [serving] }]
  elasticity: elastic
  maxNodes: 2
  growthPeriod: 1s
  idleTimeout: 1s
---
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: training }
spec:
  select: [{ key: for, operator: In, values: [training] }]
  elasticity: elastic
  growthPeriod: 1s
  idleTimeout: 1s
";

/// Asks for all of a node's cores: the reservation's id.
fn reserve(dev: &Dev, pool: &str, code: i32) -> String {
    let nodes = json(dev.home.path(), &["get", "nodes"]);
    let amount = &nodes[0]["allocatable"]["cpuMillis"];
    let cpu = amount.as_u64().or_else(|| amount.as_str()?.parse().ok()).expect("it has cores");
    let cpu = format!("{cpu}m");
    let asked = ["-o", "json", "reserve", "--cpu", &cpu, "--pool", pool, "--confirm", "--ttl", "5m"];
    let (ended, stdout, stderr) = run(dev.home.path(), &asked);
    assert_eq!(ended, code, "{stderr}");
    let made: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
    made["id"].as_str().unwrap().to_owned()
}

fn until_active(dev: &Dev, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let one = json(dev.home.path(), &["get", "reservations", id])[0].clone();
        if one["state"] == "RESERVATION_STATE_ACTIVE" {
            return one;
        }
        let (_, said, _) = run(dev.home.path(), &["explain", "pool/serving"]);
        assert!(begun.elapsed() < PATIENCE, "{one}\n{said}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn said(dev: &Dev, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

#[test]
fn a_node_goes_to_the_pool_in_which_somebody_waits_and_home_again() {
    let dev = Dev::start(&["--nodes", "2", "--node-label", "for=serving,training"]);
    std::fs::write(dev.home.path().join("elastic.yaml"), POLICY).unwrap();
    said(&dev, &["apply", "-f", "elastic.yaml"]);
    let (code, differs, _) = run(dev.home.path(), &["diff", "-f", "elastic.yaml", "--exit-code"]);
    assert_eq!(code, 0, "it is what was written: {differs}");

    let first = reserve(&dev, "serving", 0);
    let second = reserve(&dev, "serving", 3);
    let granted = until_active(&dev, &second);
    let lent = granted["allocations"][0]["node"].as_str().unwrap().to_owned();
    assert!(said(&dev, &["get", "nodes"]).contains("serving (of training)"));
    let node = json(dev.home.path(), &["get", "nodes", &lent])[0].clone();
    assert_eq!((node["pool"].as_str(), node["homePool"].as_str()), (Some("serving"), Some("training")));
    let wide = said(&dev, &["get", "pools", "-o", "wide"]);
    assert!(wide.contains("ELASTICITY") && wide.contains("elastic 0..2"), "{wide}");
    let explained = said(&dev, &["explain", "pool/serving"]);
    assert!(explained.contains(&format!("borrowed: {lent} of training")), "{explained}");

    // A third one waits: the pool has its most.
    let third = reserve(&dev, "serving", 3);
    let begun = Instant::now();
    while !said(&dev, &["explain", "pool/serving"]).contains("max nodes of pool serving (3 asked, 2)") {
        assert!(begun.elapsed() < PATIENCE, "{}", said(&dev, &["explain", "pool/serving"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    // The borrowed one is idle first, so that it is the one that may go first.
    for id in [&third, &second, &first] {
        said(&dev, &["cancel", id]);
    }
    // What no node of its pool can ever hold waits, where another pool has borrowed its node.
    let home = reserve(&dev, "training", 3);
    let granted = until_active(&dev, &home);
    let moves = said(&dev, &["events", "--limit", "200"]);
    assert_eq!(granted["allocations"][0]["node"], lent.as_str(), "{moves}");
    let node = json(dev.home.path(), &["get", "nodes", &lent])[0].clone();
    assert_eq!(node["pool"], "training", "{node}");
    assert_eq!(node["homePool"].as_str().unwrap_or_default(), "", "it is at home: {node}");
    let events = said(&dev, &["events", "--limit", "200"]);
    assert_eq!(events.matches("(pool/move)").count(), 2, "{events}");
}

#[test]
fn a_pool_that_is_fragmented_beyond_its_threshold_says_so() {
    let dev = Dev::start(&["--fake-gpu", "t4:2"]);
    let pool = "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: default }\nspec: { fragmentationThreshold: 50% }\n";
    std::fs::write(dev.home.path().join("line.yaml"), pool).unwrap();
    said(&dev, &["apply", "-f", "line.yaml"]);
    let wide = || said(&dev, &["get", "pools", "-o", "wide"]);
    said(&dev, &["reserve", "--gpu", "0.5", "--confirm", "--ttl", "5m"]);
    assert!(wide().contains("t4 0% of 1.5 free stranded"), "halves can use all of it: {}", wide());
    // Both boards at once are asked for as often as a half: those can use nothing of what is free.
    let (code, _, stderr) = run(dev.home.path(), &["reserve", "--gpu", "2", "--confirm", "--ttl", "5m"]);
    assert_eq!(code, 3, "it waits: {stderr}");
    assert!(wide().contains("t4 50% of 1.5 free stranded (over its threshold)"), "{}", wide());
}
