//! Topology and affinity from the outside: levels in a file, gangs in domains, work with and apart from other work.

mod common;

use std::collections::BTreeSet;

use common::{Dev, run};
use serde_json::Value;

const POOL: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { topology: [zone, rack] }
";

/// A `dev` of four nodes in two zones of two racks each: this machine in a/1, sim-001 in a/2, sim-002 in b/1, sim-003 in b/2.
fn dev() -> Dev {
    let labels = ["--node-label", "zone=a,a,b,b", "--node-label", "rack=1,2"];
    let dev = Dev::start(&[&["--nodes", "4", "--fake-gpu", "a100:2"], &labels[..]].concat());
    std::fs::write(dev.home.path().join("pool.yaml"), POOL).unwrap();
    text(&dev, 0, &["apply", "-f", "pool.yaml"]);
    dev
}

fn text(dev: &Dev, code: i32, arguments: &[&str]) -> String {
    let (ended, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(ended, code, "{arguments:?}: {stdout} {stderr}");
    if code == 0 { stdout } else { stderr }
}

fn reserve(dev: &Dev, more: &[&str]) -> Value {
    let asked = [&["reserve", "--confirm", "--now", "--for", "1h"], more].concat();
    common::json(dev.home.path(), &asked)
}

fn nodes(reservation: &Value) -> Vec<String> {
    let allocations = reservation["allocations"].as_array().unwrap_or_else(|| panic!("{reservation}"));
    let name = |allocation: &Value| {
        let name = allocation["node"].as_str().unwrap_or_else(|| panic!("{allocation}"));
        name.trim_start_matches("nodes/").to_owned()
    };
    allocations.iter().map(name).collect()
}

#[test]
fn a_gang_is_in_one_domain_of_the_level_it_requires() {
    let dev = dev();
    let shown = text(&dev, 0, &["get", "pools", "default", "-o", "yaml"]);
    assert!(shown.contains("topology"), "{shown}");
    // Four GPUs: two racks of one zone.
    let pair = reserve(&dev, &["--gpu", "1", "--members", "4", "--topology", "required=zone,preferred=rack"]);
    let zone = |name: &String| matches!(name.as_str(), "sim-002" | "sim-003");
    let placed = nodes(&pair);
    assert_eq!(placed.len(), 4, "{placed:?}");
    assert!(placed.iter().all(zone) || !placed.iter().any(zone), "{placed:?}");
    assert_eq!(pair["spec"]["topology"]["required"], "zone");
    // A rack has two GPUs: three members never fit in one.
    let refused = text(&dev, 7, &["reserve", "--gpu", "1", "--members", "3", "--topology", "required=rack"]);
    assert!(refused.contains("3 members asked, 2 fit there at most"), "{refused}");
    // The other zone has four left, in groups of two per rack.
    let groups = ["--topology", "required=zone,slices=2@rack"];
    let slices = reserve(&dev, &[&["--gpu", "1", "--members", "4"], &groups[..]].concat());
    let placed = nodes(&slices);
    assert_eq!((placed[0] == placed[1], placed[2] == placed[3], placed[0] == placed[2]), (true, true, false));
    let refused = text(&dev, 2, &["reserve", "--gpu", "1", "--topology", "required=row", "--now"]);
    assert!(refused.contains("level row of pool default"), "{refused}");
    let told = text(&dev, 0, &["describe", "reservation", slices["id"].as_str().unwrap()]);
    assert!(told.to_lowercase().contains("slice"), "{told}");
}

#[test]
fn explain_names_the_domain_and_what_would_be_granted() {
    let dev = dev();
    for gpus in ["2", "2", "2", "1"] {
        reserve(&dev, &["--gpu", gpus, "--topology", "required=rack"]);
    }
    let pair = ["--gpu", "1", "--members", "2", "--topology", "required=rack"];
    let (ended, stdout, stderr) = run(dev.home.path(), &[&["-o", "json", "reserve"], &pair[..]].concat());
    assert_eq!(ended, 3, "one GPU is left: {stdout} {stderr}");
    let waiting: Value = serde_json::from_str(&stdout).unwrap();
    let id = waiting["id"].as_str().unwrap_or_else(|| panic!("{waiting}")).to_owned();
    let why = text(&dev, 0, &["explain", &id]);
    assert!(why.contains("2 members asked, 1 fit there at most"), "{why}");
}

#[test]
fn work_is_with_and_apart_from_other_work() {
    let dev = dev();
    let db = nodes(&reserve(&dev, &["--cpu", "0.1", "--label", "app=db"]));
    let near = nodes(&reserve(&dev, &["--cpu", "0.1", "--affinity", "app=db@rack"]));
    assert_eq!(near, db, "a rack has one node");
    let web = ["--cpu", "0.1", "--label", "app=web", "--anti-affinity", "app=web@rack"];
    let apart: BTreeSet<String> = (0..4).flat_map(|_| nodes(&reserve(&dev, &web))).collect();
    assert_eq!(apart.len(), 4, "one in each rack");
    let refused = text(&dev, 1, &[&["reserve", "--now"], &web[..]].concat());
    assert!(refused.contains("AFFINITY_CONFLICT") || refused.contains("app=web"), "{refused}");
    let kept_away = text(&dev, 1, &["reserve", "--now", "--cpu", "0.1", "--label", "app=web"]);
    assert!(kept_away.contains("kept away as app=web"), "{kept_away}");
    let nobody = text(&dev, 1, &["reserve", "--now", "--cpu", "0.1", "--affinity", "app=nobody@zone"]);
    assert!(nobody.contains("app=nobody"), "{nobody}");
    // A wish refuses nobody.
    reserve(&dev, &["--cpu", "0.1", "--affinity", "50:app=nobody@zone", "--anti-affinity", "50:app=db"]);
}
