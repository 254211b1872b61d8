//! Validators from the outside: rules in, every broken one told with its path, nothing decided; and `convert`.

mod common;

use common::{Dev, run};

const RULES: &str = "
apiVersion: plimsoll/v1
kind: Validator
metadata: { name: fair-use }
spec:
  for: Reservation
  rules:
  - expression: \"request.cpu <= 2 || request.class == 'critical'\"
    message: more than 2 cores are for the class critical
    path: spec.resources.cpu
  - { expression: \"'team' in request.labels\", message: say who it is for, path: metadata.labels.team }
---
apiVersion: plimsoll/v1
kind: Validator
metadata: { name: classes }
spec:
  for: Class
  rules: [{ expression: class.priority <= 1000, message: too high, path: spec.priority }]
";

const CLASS: &str = "
apiVersion: plimsoll/v1
kind: Class
metadata: { name: emergency }
spec: { priority: 1001 }
";

fn both(dev: &Dev, code: i32, arguments: &[&str]) -> (String, String) {
    let (ended, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(ended, code, "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

fn file(dev: &Dev, name: &str, text: &str) {
    std::fs::write(dev.home.path().join(name), text).unwrap();
}

fn dev() -> Dev {
    let dev = Dev::start(&[]);
    file(&dev, "rules.yaml", RULES);
    file(&dev, "class.yaml", CLASS);
    let (applied, _) = both(&dev, 0, &["apply", "-f", "rules.yaml"]);
    assert_eq!(applied, "validator/fair-use created\nvalidator/classes created\n");
    dev
}

#[test]
fn every_broken_rule_is_told_and_nothing_is_decided() {
    let dev = dev();
    let (_, refused) = both(&dev, 9, &["reserve", "--cpu", "3", "--now"]);
    assert!(
        refused.contains(
            "spec.resources.cpu: more than 2 cores are for the class critical (validator fair-use)"
        ),
        "{refused}"
    );
    assert!(refused.contains("metadata.labels.team: say who it is for (validator fair-use)"), "{refused}");
    assert!(refused.contains("VALIDATION_FAILED"), "{refused}");
    let (_, refused) = both(&dev, 9, &["reserve", "--cpu", "1", "--now"]);
    assert!(!refused.contains("2 cores"), "{refused}");
    let (listed, _) = both(&dev, 0, &["get", "reservations", "-a", "-o", "name"]);
    assert_eq!(listed, "");
    let team = ["reserve", "--cpu", "1", "--now", "--label", "team=vision"];
    both(&dev, 0, &team);
    let (_, refused) = both(&dev, 9, &["run", "--cpu", "1", "--", "true"]);
    assert!(refused.contains("VALIDATION_FAILED"), "{refused}");
    // Without the rules it is taken again.
    both(&dev, 0, &["delete", "validator", "fair-use"]);
    both(&dev, 0, &["reserve", "--cpu", "1", "--now"]);
}

#[test]
fn policy_objects_meet_the_rules_of_the_cluster_and_of_their_own_files() {
    let dev = dev();
    let (_, refused) = both(&dev, 9, &["apply", "-f", "class.yaml"]);
    assert!(refused.contains("spec.priority: too high (validator classes)"), "{refused}");
    let (_, refused) = both(&dev, 9, &["validate", "-f", "rules.yaml", "-f", "class.yaml"]);
    assert!(refused.contains("class.yaml:2:1: class/emergency: spec.priority: too high"), "{refused}");
    both(&dev, 0, &["validate", "-f", "class.yaml"]);
    both(&dev, 0, &["delete", "validator", "classes"]);
    both(&dev, 0, &["apply", "-f", "class.yaml"]);
    both(&dev, 0, &["delete", "class", "emergency"]);
    // What comes together is held against each other.
    let (_, refused) = both(&dev, 9, &["apply", "-f", "rules.yaml", "-f", "class.yaml"]);
    assert!(refused.contains("too high"), "{refused}");
}

#[test]
fn a_wrong_condition_is_told_at_its_place_with_what_would_be_right() {
    let dev = dev();
    file(&dev, "wrong.yaml", &RULES.replace("request.cpu <= 2", "request.memory < 1gi"));
    for arguments in [["validate", "-f", "wrong.yaml"], ["apply", "-f", "wrong.yaml"]] {
        let (_, refused) = both(&dev, 2, &arguments);
        assert!(
            refused.contains(
                "wrong.yaml:8:35: spec.rules[0].expression: `1gi` is not a quantity; did you mean `1Gi`?"
            ),
            "{refused}"
        );
        assert!(refused.contains("^^^\n"), "{refused}");
    }
}

#[test]
fn validators_are_listed_described_and_written_as_files() {
    let dev = dev();
    let (table, _) =
        both(&dev, 0, &["get", "validators", "--no-headers", "--columns", "validator,for,match,rules"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["classes", "Class", "all", "1"], ["fair-use", "Reservation", "all", "2"]]);
    let (page, _) = both(&dev, 0, &["describe", "validator", "fair-use"]);
    assert!(page.contains("say who it is for") && page.contains("policy/put"), "{page}");
    let (yaml, _) = both(&dev, 0, &["get", "validators", "-o", "yaml"]);
    file(&dev, "again.yaml", &yaml);
    let (again, _) = both(&dev, 0, &["apply", "-f", "again.yaml"]);
    assert_eq!(again, "validator/classes unchanged\nvalidator/fair-use unchanged\n");
}

#[test]
fn free_form_blocks_become_documents_that_can_be_applied() {
    let dev = Dev::start(&[]);
    file(
        &dev,
        "seeds.yaml",
        "queues:\n  configuration:\n    batch: { overflow_policy: spill_to_disk, max_size: 10000, batch_size: 100 }\nscheduling:\n  classes:\n    standard: { priority: 50, preemptible: true }\n",
    );
    let (documents, remarks) = both(&dev, 0, &["convert", "-q", "-f", "seeds.yaml"]);
    assert_eq!(remarks, "");
    assert!(documents.contains("overflow: spill_to_disk"), "{documents}");
    file(&dev, "converted.yaml", &documents);
    let (applied, _) = both(&dev, 0, &["apply", "-f", "converted.yaml"]);
    assert_eq!(applied, "class/standard configured\nqueue/batch created\n");
}
