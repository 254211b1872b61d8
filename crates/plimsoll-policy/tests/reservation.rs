//! `kind: Reservation`: requests in files, beside policy.

use plimsoll_policy::{Problem, Source, parse, parse_all};

const WORK: &str = "
apiVersion: plimsoll/v1
kind: Class
metadata: { name: night }
spec: { priority: 20 }
---
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: nightly, labels: { team: vision } }
spec:
  class: night
  queue: vision
  gpu: a100:2
  cpu: 4
  memory: 16Gi
  resources: { license/foo: 1 }
  require: [{ key: zone, operator: In, values: [a] }]
  members: 2-4
  spread: true
  repairWithin: 10m
  for: 8h
  confirm: true
  wait: 30m
  onPreempt: end
  maxCost: 2.50
";

fn source(text: &str) -> Vec<Source> {
    vec![Source { name: "w.yaml".into(), text: text.into() }]
}

fn told(problems: Vec<Problem>) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_request_in_a_file_is_what_the_flags_of_reserve_say() {
    let contents = parse_all(&source(WORK), &|_| None).map_err(told).unwrap();
    assert_eq!(contents.objects.len(), 1);
    let spec = &contents.requests[0].spec;
    assert_eq!(
        (spec.name.as_str(), spec.class.as_str(), spec.queue.as_str()),
        ("nightly", "night", "vision")
    );
    assert_eq!(spec.labels.get("team").map(String::as_str), Some("vision"));
    let needs = spec.requirements.as_ref().unwrap();
    let amounts = needs.amounts.as_ref().unwrap();
    assert_eq!((amounts.cpu_millis, amounts.memory_bytes), (4_000, 16 << 30));
    assert_eq!(amounts.other.get("license/foo"), Some(&1));
    let gpu = needs.gpu.as_ref().unwrap();
    assert_eq!((gpu.count, gpu.models.as_slice()), (2, &["a100".to_owned()][..]));
    assert_eq!(needs.required.len(), 1);
    let gang = spec.gang.unwrap();
    assert_eq!((gang.min_members, gang.max_members, gang.spread), (2, 4, true));
    assert_eq!(spec.repair_within_ms, 600_000);
    assert_eq!((spec.max_duration_ms, spec.ttl_ms), (8 * 3_600_000, 8 * 3_600_000), "kept until its end");
    assert_eq!(spec.wait.unwrap().deadline_ms, 30 * 60_000);
    assert_eq!(spec.limits.unwrap().cost_micros, 2_500_000);
    assert!(spec.auto_confirm);
}

#[test]
fn a_request_in_a_file_says_where_and_when() {
    let text = "
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: a }
spec:
  cpu: 1
  members: 16
  for: 1h
  at: 2026-12-24T22:00:00+01:00
  prefer: [{ weight: 10, key: zone, operator: In, values: [a] }]
  topology: { required: block, preferred: rack, slices: 8@rack }
  affinity: [{ key: app, value: db, level: rack }, { key: app, value: cache, weight: 50 }]
  antiAffinity: [{ key: app, value: web }]
";
    let contents = parse_all(&source(text), &|_| None).map_err(told).unwrap();
    let spec = &contents.requests[0].spec;
    assert_eq!(spec.start_at_ms, 1_798_146_000_000);
    let preferred = &spec.requirements.as_ref().unwrap().preferred[0];
    let term = preferred.term.as_ref().unwrap();
    assert_eq!(
        (preferred.weight, term.key.as_str(), term.values.as_slice()),
        (10, "zone", &["a".to_owned()][..])
    );
    let topology = spec.topology.as_ref().unwrap();
    assert_eq!((topology.required.as_str(), topology.preferred.as_str()), ("block", "rack"));
    assert_eq!((topology.slice_size, topology.slice_level.as_str()), (8, "rack"));
    let rules: Vec<_> = spec
        .affinity
        .iter()
        .map(|rule| (rule.key.as_str(), rule.value.as_str(), rule.level.as_str(), rule.weight, rule.anti))
        .collect();
    assert_eq!(
        rules,
        [("app", "db", "rack", 0, false), ("app", "cache", "", 50, false), ("app", "web", "", 0, true)]
    );
}

#[test]
fn a_gang_in_a_file_may_have_roles() {
    let text = "
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: a }
spec:
  spread: true
  require: [{ key: zone, operator: In, values: [a] }]
  roles:
    - { name: launcher, cpu: 500m }
    - name: worker
      members: 2-8
      cpu: 4
      memory: 16Gi
      gpu: h100:2
      resources: { license/foo: 1 }
      prefer: [{ weight: 10, key: rack, operator: In, values: [r1] }]
    - { name: helper, members: 0-2, gpuMemory: 10Gi }
";
    let contents = parse_all(&source(text), &|_| None).map_err(told).unwrap();
    let spec = &contents.requests[0].spec;
    let bounds: Vec<_> =
        spec.roles.iter().map(|role| (role.name.as_str(), role.min_members, role.max_members)).collect();
    assert_eq!(bounds, [("launcher", 1, 1), ("worker", 2, 8), ("helper", 0, 2)]);
    assert!(spec.gang.is_some_and(|gang| gang.spread && gang.min_members == 0));
    assert_eq!(spec.requirements.as_ref().unwrap().required.len(), 1);
    let worker = spec.roles[1].requirements.as_ref().unwrap();
    let amounts = worker.amounts.as_ref().unwrap();
    assert_eq!((amounts.cpu_millis, amounts.memory_bytes), (4_000, 16 << 30));
    assert_eq!((worker.gpu.as_ref().unwrap().count, worker.preferred[0].weight), (2, 10));
    assert_eq!(spec.roles[2].requirements.as_ref().unwrap().gpu.as_ref().unwrap().memory_bytes, 10 << 30);
}

#[test]
fn roles_are_checked_at_their_places() {
    for (line, words) in [
        ("roles: [{ name: a, cpu: 1 }, { name: a, cpu: 1 }]", "spec.roles[1].name"),
        ("roles: [{ name: a, members: 3-2 }]", "spec.roles[0].members \"3-2\""),
        ("roles: [{ name: a, cpu: lots }]", "spec.roles[0].cpu"),
        ("roles: [{ cpu: 1 }]", "roles[0].name"),
        ("roles: [{ name: a, cups: 1 }]", "unknown key \"cups\""),
        ("cpu: 1, roles: [{ name: a, cpu: 1 }]", "say what members need in the roles"),
        ("members: 3, roles: [{ name: a, members: 2, cpu: 1 }]", "2 is the sum of the roles'"),
    ] {
        let text = format!(
            "apiVersion: plimsoll/v1\nkind: Reservation\nmetadata: {{ name: a }}\nspec: {{ {line} }}\n"
        );
        let problems = parse_all(&source(&text), &|_| None).map_err(told).unwrap_err();
        assert!(problems[0].contains("w.yaml:4:") && problems[0].contains(words), "{line}: {problems:?}");
    }
}

#[test]
fn where_and_when_are_checked_at_their_places() {
    for (line, place, words) in [
        ("at: 22:00", "w.yaml:4:", "is not a moment"),
        ("at: 2026-12-24T22:00:00Z", "w.yaml:4:", "say for how long"),
        ("members: 4, topology: { slices: 3@rack }", "w.yaml:4:", "no whole groups"),
        ("topology: { slices: rack }", "w.yaml:4:", "SIZE@LEVEL"),
        ("topology: { need: rack }", "w.yaml:4:", "unknown key \"need\""),
        ("affinity: [{ value: db }]", "w.yaml:4:", "label's key has 1"),
        ("antiAffinity: [{ key: app, value: a, weight: 101 }]", "w.yaml:4:", "must be 1 to 100"),
        ("prefer: [{ key: zone, operator: In, values: [a] }]", "w.yaml:4:", "spec.prefer[0].weight"),
    ] {
        let text = format!(
            "apiVersion: plimsoll/v1\nkind: Reservation\nmetadata: {{ name: a }}\nspec: {{ cpu: 1, {line} }}\n"
        );
        let problems = parse_all(&source(&text), &|_| None).map_err(told).unwrap_err();
        assert_eq!(problems.len(), 1, "{line}: {problems:?}");
        assert!(problems[0].contains(place) && problems[0].contains(words), "{line}: {problems:?}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_told_with_its_place() {
    let text =
        "apiVersion: plimsoll/v1\nkind: Reservation\nmetadata: { name: a }\nspec: { cpu: lots, gpus: 1 }\n";
    let problems = parse_all(&source(text), &|_| None).map_err(told).unwrap_err();
    assert!(problems.iter().any(|problem| problem.contains("w.yaml:4") && problem.contains("spec.cpu")));
    assert!(
        problems.iter().any(|problem| problem.contains("gpus") && problem.contains("gpu")),
        "{problems:?}"
    );
    let unnamed = "apiVersion: plimsoll/v1\nkind: Reservation\nspec: { cpu: 1 }\n";
    assert!(parse_all(&source(unnamed), &|_| None).is_err(), "its name makes its key");
}

#[test]
fn where_only_policy_is_taken_a_request_is_an_error() {
    let problems = parse(&source(WORK)).map_err(told).unwrap_err();
    assert!(problems[0].contains("plan and apply take it"), "{problems:?}");
}
