//! Limits, budgets and rates from the outside: files in, refusals with numbers, what was taken, tokens.

mod common;

use common::{Dev, run};
use serde_json::Value;

const POLICY: &str = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec: { prices: { gpu: 2.50 }, currency: USD }
---
apiVersion: plimsoll/v1
kind: Quota
metadata: { name: everyone }
spec:
  perUser: { concurrent: 2, gpuHours: 10 }
  budget: { total: 9.00, currency: USD, onExhausted: queue }
  rate: { api/openai: 60/min burst 3 }
";

/// A `dev` with four GPUs at 2.50 an hour and the quota above.
fn dev() -> Dev {
    let dev = Dev::start(&["--fake-gpu", "a100:4"]);
    std::fs::write(dev.home.path().join("budgets.yaml"), POLICY).unwrap();
    let applied = text(&dev, 0, &["apply", "-f", "budgets.yaml"]);
    assert!(applied.contains("quota/everyone created"), "{applied}");
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

fn reserve<'a>(tenant: &'a str, hours: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let asked = ["-o", "json", "reserve", "--gpu", "1", "--tenant", tenant, "--confirm", "--for", hours];
    [&asked, more].concat()
}

#[test]
fn a_budget_is_committed_at_the_grant_given_back_at_the_end_and_said_with_numbers() {
    let dev = dev();
    let first = json(&dev, &reserve("ada", "2h", &["--now"])[2..]);
    assert_eq!(first["costMicros"], "5000000");
    // 4.00 is left: an hour and a half costs 3.75, two hours cost 5.00.
    let refused = text(&dev, 1, &reserve("bob", "2h", &["--now"]));
    assert!(refused.contains("BUDGET_EXHAUSTED"), "{refused}");
    assert!(refused.contains("cost (USD) in quota everyone: 5 asked, 4 of 9 left"), "{refused}");
    let never = text(&dev, 1, &reserve("bob", "4h", &[]));
    assert!(never.contains("10 asked, 4 of 9 left"), "{never}");
    let (code, stdout, stderr) = run(dev.home.path(), &reserve("bob", "2h", &[]));
    assert_eq!(code, 3, "{stderr}");
    let waiting: Value = serde_json::from_str(&stdout).unwrap();
    let id = waiting["id"].as_str().unwrap();
    assert!(text(&dev, 0, &["explain", id]).contains("4 of 9 left"));
    // What the first did not use comes back, and the next begins.
    text(&dev, 0, &["release", first["id"].as_str().unwrap(), "--token", first["token"].as_str().unwrap()]);
    text(&dev, 0, &["wait", id, "--timeout", "10s"]);
    let shown = text(&dev, 0, &["describe", "quota", "everyone"]);
    for part in ["cost/total 9", "committed", "bob", "quotas/everyone was put"] {
        assert!(shown.to_lowercase().contains(part), "{part}: {shown}");
    }
    let report = json(&dev, &["report", "cost"]);
    assert_eq!((&report[0]["quota"], &report[0]["committed"]), (&"everyone".into(), &"5000000".into()));
    let table = text(&dev, 0, &["get", "quotas", "--no-headers", "--columns", "quota,about,used"]);
    assert!(table.contains("everyone") && table.contains("cost/total 5"), "{table}");
}

#[test]
fn limits_hold_per_user_and_a_request_may_bound_its_own_cost() {
    let dev = dev();
    for _ in 0..2 {
        json(&dev, &reserve("ada", "10m", &["--now"])[2..]);
    }
    let refused = text(&dev, 1, &reserve("ada", "10m", &["--now"]));
    assert!(refused.contains("concurrent of user ada in quota everyone: 1 asked, 0 of 2 left"), "{refused}");
    json(&dev, &reserve("bob", "10m", &["--now"])[2..]);
    let refused = text(&dev, 1, &reserve("eve", "1h", &["--now", "--max-cost", "2.40"]));
    assert!(refused.contains("cost of this request: 2.5 asked, 2.4 of 2.4 left"), "{refused}");
}

#[test]
fn each_user_is_bound_by_the_tier_that_names_him() {
    let dev = Dev::start(&["--fake-gpu", "a100:4"]);
    let tiers = "
apiVersion: plimsoll/v1
kind: Quota
metadata: { name: default }
spec: { tier: { users: [\"*\"] }, perUser: { concurrent: 1 } }
---
apiVersion: plimsoll/v1
kind: Quota
metadata: { name: premium }
spec: { tier: { rank: 1, users: [ada, \"research-*\"] }, perUser: { concurrent: 2 } }
";
    std::fs::write(dev.home.path().join("tiers.yaml"), tiers).unwrap();
    text(&dev, 0, &["apply", "-f", "tiers.yaml"]);
    for user in ["ada", "ada", "grace"] {
        json(&dev, &reserve(user, "10m", &["--now"])[2..]);
    }
    let refused = text(&dev, 1, &reserve("ada", "10m", &["--now"]));
    assert!(refused.contains("concurrent of user ada in quota premium: 1 asked, 0 of 2 left"), "{refused}");
    let refused = text(&dev, 1, &reserve("grace", "10m", &["--now"]));
    assert!(refused.contains("concurrent of user grace in quota default: 1 asked, 0 of 1 left"), "{refused}");
    let shown = text(&dev, 0, &["get", "quotas"]);
    assert!(shown.contains("tier 1: ada, research-*") && shown.contains("tier 0: *"), "{shown}");
    let both = tiers.replace("tier: { users", "tenant: ada, tier: { users");
    std::fs::write(dev.home.path().join("both.yaml"), both).unwrap();
    let (code, _, stderr) = run(dev.home.path(), &["apply", "-f", "both.yaml"]);
    assert!(code == 2 && stderr.contains("leave one of them out"), "{code}: {stderr}");
}

#[test]
fn tokens_run_out_and_come_back() {
    let dev = dev();
    assert_eq!(json(&dev, &["take", "everyone/api/openai", "-n", "3"])["left"], 0);
    let refused = text(&dev, 1, &["take", "everyone/api/openai"]);
    assert!(refused.contains("RATE_EXCEEDED") && refused.contains("again in"), "{refused}");
    assert_eq!(json(&dev, &["take", "everyone/api/openai", "--scope", "other"])["taken"], 1);
    text(&dev, 5, &["take", "everyone/nosuch"]);
}

#[test]
fn quotas_are_shown_as_files_and_deleted_when_nothing_is_committed() {
    let dev = dev();
    let shown = text(&dev, 0, &["get", "quotas", "-o", "yaml"]);
    std::fs::write(dev.home.path().join("shown.yaml"), &shown).unwrap();
    let again = text(&dev, 0, &["apply", "-f", "shown.yaml"]);
    assert_eq!(again.matches("unchanged").count(), 1, "{again}");
    let lease = json(&dev, &reserve("ada", "1h", &["--now"])[2..]);
    let refused = text(&dev, 1, &["delete", "quota", "everyone"]);
    assert!(refused.contains("IN_USE") || refused.contains("in use"), "{refused}");
    text(&dev, 0, &["release", lease["id"].as_str().unwrap(), "--token", lease["token"].as_str().unwrap()]);
    text(&dev, 0, &["delete", "quota", "everyone"]);
    assert_eq!(json(&dev, &["get", "quotas"]), serde_json::json!([]));
}
