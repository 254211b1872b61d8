//! Preemption from the outside: notice, a kept place, the old place in the queue, and what the holder hears of it.

mod common;

use std::time::{Duration, Instant};

use common::{Dev, run};
use serde_json::Value;

const CLASSES: &str = "
apiVersion: plimsoll/v1
kind: Class
metadata: { name: batch }
spec: { priority: 10, preemptible: true, grace: 2s }
";

/// A `dev` with one GPU and a batch class whose grace is short.
fn dev() -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:1"]);
    std::fs::write(dev.home.path().join("classes.yaml"), CLASSES).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "classes.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    dev
}

fn reserve(dev: &Dev, code: i32, class: &str, ttl: &str, more: &[&str]) -> Value {
    let asked = [&["-o", "json", "reserve", "--class", class, "--gpu", "1", "--confirm", "--ttl", ttl], more]
        .concat();
    let (ended, stdout, stderr) = run(dev.home.path(), &asked);
    assert_eq!(ended, code, "{asked:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn id(reservation: &Value) -> &str {
    reservation["id"].as_str().unwrap()
}

fn get(dev: &Dev, reservation: &Value) -> Value {
    let found = common::json(dev.home.path(), &["get", "reservations", id(reservation)]);
    found[0].clone()
}

/// Waits until it stands so.
fn until(dev: &Dev, reservation: &Value, state: &str) -> Value {
    let begun = Instant::now();
    loop {
        let now = get(dev, reservation);
        if now["state"] == format!("RESERVATION_STATE_{state}") {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not {state}: {now}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_higher_class_gets_the_place_after_the_grace_and_the_lower_one_waits_again() {
    let dev = dev();
    let low = reserve(&dev, 0, "batch", "1m", &[]);
    let later = reserve(&dev, 3, "batch", "1m", &[]);
    let high = reserve(&dev, 3, "high", "1m", &[]);
    let leaving = until(&dev, &low, "PREEMPTING");
    assert_eq!(leaving["preempted"]["by"], high["id"]);
    assert_eq!(leaving["preempted"]["rule"], "PREEMPTION_RULE_LOWER_CLASS");
    let planned = get(&dev, &high);
    assert_eq!(planned["state"], "RESERVATION_STATE_PLANNED");
    assert_eq!(planned["blockers"][0]["reason"], "ERROR_REASON_AWAITS_PREEMPTION");
    // Its lease is a minute: the grace of 2 s, and the slack of 7 s for clocks that drift.
    until(&dev, &high, "ACTIVE");
    let again = get(&dev, &low);
    assert_eq!((&again["state"], &again["token"]), (&"RESERVATION_STATE_PENDING".into(), &Value::Null));
    let (_, queue, _) =
        run(dev.home.path(), &["get", "reservations", "--no-headers", "--columns", "id,state"]);
    assert!(queue.contains("pending"), "{queue}");
    let (code, _, stderr) = run(dev.home.path(), &["cancel", id(&high)]);
    assert_eq!(code, 0, "{stderr}");
    until(&dev, &low, "ACTIVE");
    assert_eq!(get(&dev, &later)["state"], "RESERVATION_STATE_PENDING", "the older one goes first");
}

#[test]
fn who_would_rather_end_ends() {
    let dev = dev();
    let low = reserve(&dev, 0, "batch", "2s", &["--on-preempt", "end"]);
    let high = reserve(&dev, 3, "high", "1m", &[]);
    until(&dev, &low, "PREEMPTED");
    until(&dev, &high, "ACTIVE");
    assert_eq!(get(&dev, &low)["endReason"], "END_REASON_PREEMPTED");
}

#[test]
fn a_command_stops_at_the_notice_and_starts_again_with_the_next_grant() {
    let dev = dev();
    // A grace that no test waits for: who has stopped leaves at once.
    std::fs::write(dev.home.path().join("classes.yaml"), CLASSES.replace("2s", "30m")).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "classes.yaml"]);
    assert_eq!(code, 0, "{stderr}");
    let home = dev.home.path().to_owned();
    let script = "trap 'echo saved; exit 0' TERM; echo started $PLIMSOLL_ATTEMPT; \
                  [ $PLIMSOLL_ATTEMPT = 2 ] && exit 5; for i in $(seq 600); do sleep 0.1; done";
    let holder = std::thread::spawn(move || {
        let asked =
            ["run", "--class", "batch", "--gpu", "1", "--ttl", "1s", "--anywhere", "--", "sh", "-c", script];
        run(&home, &asked)
    });
    let begun = Instant::now();
    while common::json(dev.home.path(), &["get", "reservations"]).as_array().is_none_or(Vec::is_empty) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    let high = reserve(&dev, 3, "high", "1m", &[]);
    until(&dev, &high, "ACTIVE");
    let (code, _, stderr) = run(dev.home.path(), &["release", id(&high)]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = holder.join().unwrap();
    assert_eq!((code, stdout.as_str()), (5, "started 1\nsaved\nstarted 2\n"), "{stderr}");
    assert!(stderr.contains("taken back for") && stderr.contains("stopped after"), "{stderr}");
}
