//! Queue disciplines from the outside: a start that is promised and comes true, what overtakes meanwhile, and what is said to those who wait.

mod common;

use common::{Dev, run};
use serde_json::Value;

/// A `dev` with two GPUs whose pool is walked by a discipline.
fn dev(queueing: &str) -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:2"]);
    let pool = format!(
        "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {{ name: default }}\nspec: {{ queueing: {queueing}, starvationBound: 6h }}\n"
    );
    std::fs::write(dev.home.path().join("pool.yaml"), pool).unwrap();
    text(&dev, 0, &["apply", "-f", "pool.yaml"]);
    dev
}

fn text(dev: &Dev, code: i32, arguments: &[&str]) -> String {
    let (ended, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(ended, code, "{arguments:?}: {stdout}{stderr}");
    if code == 0 { stdout } else { stderr }
}

/// Reserves GPUs for a time; `waits` is whether it has to.
fn reserve(dev: &Dev, gpus: &str, length: &[&str], waits: bool) -> Value {
    let asked = [&["-o", "json", "reserve", "--gpu", gpus, "--confirm"], length].concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &asked);
    assert_eq!(ended, if waits { 3 } else { 0 }, "{asked:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn id(reservation: &Value) -> &str {
    reservation["id"].as_str().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_str().map_or_else(|| value.as_u64().unwrap_or_default(), |text| text.parse().unwrap())
}

fn get(dev: &Dev, id: &str) -> Value {
    common::json(dev.home.path(), &["get", "r", id])[0].clone()
}

#[test]
fn a_short_request_overtakes_and_the_start_that_was_said_comes_true() {
    let dev = dev("backfill_1");
    reserve(&dev, "1", &["--for", "15s"], false);
    let wide = reserve(&dev, "2", &["--for", "5s"], true);
    let long = reserve(&dev, "1", &["--for", "1h"], true);
    // Gone long before the wide one starts.
    let short = reserve(&dev, "1", &["--for", "2s"], false);
    assert!(short["id"].as_str() > wide["id"].as_str());

    let explained = common::json(dev.home.path(), &["explain", id(&wide)]);
    let start = &explained["reservation"]["start"];
    assert_eq!((&start["promised"], &start["discipline"]), (&Value::Bool(true), &"backfill_1".into()));
    assert!(number(&start["revision"]) > 0, "{start}");
    let promised_ms = number(&start["startTimeMs"]);
    assert_eq!(number(&explained["expectedStartMs"]), promised_ms);
    let said = text(&dev, 0, &["explain", id(&wide)]);
    assert!(said.contains("rank 1 of 2, ") || said.contains("rank 1 of 2\n"), "{said}");
    assert!(
        said.contains("expected start in ") && said.contains("kept free for it (backfill_1, at"),
        "{said}"
    );
    // Behind it: as things are, once the wide one has left.
    let said = text(&dev, 0, &["explain", id(&long)]);
    assert!(said.contains("expected start in about "), "{said}");
    let listed = text(&dev, 0, &["get", "r", "--no-headers", "--columns", "id,expected"]);
    assert!(listed.lines().any(|line| line.starts_with(id(&wide)) && line.contains(" in ")), "{listed}");

    text(&dev, 0, &["wait", id(&wide), "--timeout", "40s"]);
    let started_ms = number(&get(&dev, id(&wide))["grantTimeMs"]);
    assert!(
        started_ms <= promised_ms + 1_000,
        "it was to start at {promised_ms}, and started at {started_ms}"
    );
    assert_eq!(get(&dev, id(&long))["state"], "RESERVATION_STATE_PENDING");
    text(&dev, 0, &["wait", id(&long), "--timeout", "40s"]);
    assert!(number(&get(&dev, id(&long))["grantTimeMs"]) > started_ms);
}

#[test]
fn who_waits_for_what_has_no_end_is_told_so() {
    let dev = dev("backfill_all");
    let endless = reserve(&dev, "1", &["--ttl", "1h"], false);
    let wide = reserve(&dev, "2", &["--for", "5s"], true);
    let said = text(&dev, 0, &["explain", id(&wide)]);
    assert!(said.contains(&format!("no expected start: {} on ", id(&endless))), "{said}");
    assert!(said.contains("declares no end (backfill_all, at revision"), "{said}");
    let described = text(&dev, 0, &["describe", id(&wide)]);
    assert!(described.contains("declares no end"), "{described}");
}

#[test]
fn a_discipline_that_is_none_is_refused_with_those_there_are() {
    let dev = dev("learned");
    let shown = text(&dev, 0, &["get", "pools", "-o", "yaml"]);
    assert!(shown.contains("queueing: learned") && shown.contains("starvationBound: 6h"), "{shown}");
    let pool = "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: default }\nspec: { queueing: las }\n";
    std::fs::write(dev.home.path().join("las.yaml"), pool).unwrap();
    let (code, _, refused) = run(dev.home.path(), &["apply", "-f", "las.yaml"]);
    assert_ne!(code, 0);
    assert!(refused.contains("backfill_1") && refused.contains("las.yaml:4"), "{refused}");
}
