//! Schedules and advance reservations from the outside: files in, windows out, refusals with who keeps what.

mod common;

use common::{Dev, run};
use serde_json::Value;

const SCHEDULES: &str = "
apiVersion: plimsoll/v1
kind: Schedule
metadata: { name: production_reserve }
spec:
  resources: { gpu: 2 }
  window: always
  pipelines: [\"production_*\"]
---
apiVersion: plimsoll/v1
kind: Schedule
metadata: { name: nightly }
spec:
  resources: { gpu: 1 }
  window: \"22:00-06:00 Europe/Berlin\"
  days: [mon-fri]
  queues: [batch]
";

fn dev() -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:4"]);
    std::fs::write(dev.home.path().join("schedules.yaml"), SCHEDULES).unwrap();
    let applied = text(&dev, 0, &["apply", "-f", "schedules.yaml"]);
    assert_eq!(applied, "schedule/production_reserve created\nschedule/nightly created\n");
    // The leader works the windows out at once, in an entry of its own.
    for _ in 0..100 {
        let all = json(&dev, &["get", "schedules"]);
        let is_open = |one: &Value| one["status"]["openedUntilMs"].is_string();
        if all.as_array().is_some_and(|all| all.iter().all(is_open)) {
            return dev;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("no windows: {}", text(&dev, 0, &["get", "schedules", "-o", "json"]));
}

fn text(dev: &Dev, code: i32, arguments: &[&str]) -> String {
    let (ended, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(ended, code, "{arguments:?}: {stdout} {stderr}");
    if code == 0 { stdout } else { stderr }
}

fn json(dev: &Dev, arguments: &[&str]) -> Value {
    common::json(dev.home.path(), arguments)
}

#[test]
fn what_a_schedule_keeps_is_there_for_its_users_and_nobody_else() {
    let dev = dev();
    let shown = text(&dev, 0, &["get", "schedules"]);
    assert!(shown.contains("22:00-06:00 Europe/Berlin mon-fri"), "{shown}");
    assert!(shown.contains("stays open"), "{shown}");
    fn ask(name: &str) -> [&str; 7] {
        ["reserve", "--gpu", "3", "--confirm", "--now", "--name", name]
    }
    let told = text(&dev, 1, &ask("sweep"));
    assert!(told.contains("gpu kept for schedule"), "{told}");
    let granted = text(&dev, 0, &[&ask("production_eval")[..], &["--for", "30s"]].concat());
    assert!(!granted.is_empty());
    let described = text(&dev, 0, &["describe", "schedule", "production_reserve"]);
    assert!(described.contains("production_*"), "{described}");
    let written = text(&dev, 0, &["-o", "yaml", "get", "schedule", "nightly"]);
    assert!(written.contains("22:00-06:00 Europe/Berlin mon-fri"), "{written}");
    assert!(text(&dev, 0, &["delete", "schedule", "nightly"]).contains("schedule/nightly deleted"));
}

#[test]
fn what_is_planned_is_placed_at_its_start() {
    let dev = Dev::start(&["--fake-gpu", "a100:1"]);
    let start = jiff::Timestamp::now().as_millisecond() + 4_000;
    let at = jiff::Timestamp::from_millisecond(start).unwrap().to_string();
    let planned = json(&dev, &["reserve", "--gpu", "1", "--at", &at, "--for", "1m"]);
    let id = planned["id"].as_str().unwrap().to_owned();
    assert_eq!(planned["state"], "RESERVATION_STATE_PLANNED");
    assert!(text(&dev, 0, &["get", "reservations"]).contains("planned"));
    let told = text(&dev, 1, &["reserve", "--gpu", "1", "--now"]);
    assert!(told.contains(&format!("kept for {id}")), "{told}");
    for _ in 0..200 {
        let now = json(&dev, &["get", "reservation", &id]);
        if now[0]["state"] == "RESERVATION_STATE_ACTIVE" {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it was not placed: {}", text(&dev, 0, &["explain", &id]));
}

#[test]
fn who_prefers_hours_waits_for_them_and_starts_when_they_begin() {
    let dev = Dev::start(&["--fake-gpu", "a100:1"]);
    // Moments of schedules are whole seconds.
    let opens_s = jiff::Timestamp::now().as_second() + 5;
    let opens = jiff::Timestamp::from_second(opens_s).unwrap().to_string();
    let apply = |code: i32, name: &str, text_of: &str| {
        std::fs::write(dev.home.path().join(name), text_of).unwrap();
        let (ended, _, stderr) = run(dev.home.path(), &["apply", "-f", name]);
        assert_eq!(ended, code, "{stderr}");
    };
    let hours = "apiVersion: plimsoll/v1\nkind: Schedule\nmetadata: { name: off-peak }\n";
    apply(0, "hours.yaml", &format!("{hours}spec: {{ at: \"{opens}\", for: 1h }}\n"));
    let asks = ["reserve", "--gpu", "1", "--confirm", "--for", "1m", "--prefer-hours", "off-peak"];
    let told = text(&dev, 1, &[&asks[..], &["--now"]].concat());
    assert!(told.contains("it prefers hours that have not come"), "{told}");
    let request = "apiVersion: plimsoll/v1\nkind: Reservation\nmetadata: { name: night }\n";
    apply(
        3,
        "night.yaml",
        &format!(
            "{request}spec: {{ gpu: 1, for: 1m, confirm: true, preferHours: {{ schedule: off-peak }} }}\n"
        ),
    );
    let waiting = json(&dev, &["get", "reservations"])[0].clone();
    let id = waiting["id"].as_str().unwrap().to_owned();
    assert_eq!(waiting["state"], "RESERVATION_STATE_PENDING", "{waiting}");
    assert_eq!(waiting["spec"]["hours"]["longestWaitMs"], "86400000");
    let explained = text(&dev, 0, &["explain", &id]);
    assert!(
        explained.contains("awaits-hours") && explained.contains("do not wait for the hours"),
        "{explained}"
    );
    for _ in 0..300 {
        let now = json(&dev, &["get", "reservation", &id]);
        if now[0]["state"] == "RESERVATION_STATE_ACTIVE" {
            let granted_ms: i64 = now[0]["grantTimeMs"].as_str().unwrap().parse().unwrap();
            assert!(granted_ms >= opens_s * 1_000, "granted {granted_ms}, opened {opens}");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("it was not placed: {}", text(&dev, 0, &["explain", &id]));
}
