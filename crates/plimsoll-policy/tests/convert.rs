//! The free-form blocks that the product was asked for in, one by one: what they become, and what is said of the rest.
//!
//! `PLIMSOLL_UPDATE_DATA=1` writes the expected files anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plimsoll_ledger::{
    Command, Entry, LATEST_VERSION, Ledger, Outcome, PolicyObject, Stamp, validate_request,
};
use plimsoll_policy::{Source, convert, parse_all};
use plimsoll_proto::convert::request_from_v1;
use plimsoll_types::{LedgerTime, Revision};
use plimsoll_validators::Validators;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/seed-004")
}

fn blocks() -> Vec<(String, Source)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("it can be read");
        (name.clone(), Source { name: format!("{name}.yaml"), text })
    };
    paths.iter().map(read).collect()
}

fn shown(source: &Source) -> String {
    let converted = convert(std::slice::from_ref(source)).expect("it is YAML");
    let mut text = converted.to_yaml();
    for remark in &converted.remarks {
        text.push_str(&format!("# {remark}\n"));
    }
    text
}

#[test]
fn every_block_becomes_what_is_expected() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 21, "every block of the seed");
    let update = std::env::var_os("PLIMSOLL_UPDATE_DATA").is_some();
    for (name, source) in &blocks {
        let path = folder().join(format!("{name}.expected"));
        let text = shown(source);
        if update {
            std::fs::write(&path, &text).expect("it can be written");
        }
        let expected =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, expected, "{name}");
    }
}

/// A ledger as new clusters have it.
fn fresh() -> Ledger {
    let mut ledger = Ledger::new();
    run(&mut ledger, Command::Upgrade { to: LATEST_VERSION });
    ledger
}

fn run(ledger: &mut Ledger, command: Command) {
    let revision = Revision(ledger.revision().0 + 1);
    let stamp = Stamp { revision, proposed_at: LedgerTime(1_000_000) };
    let outcome = ledger.apply(stamp, &Entry::system(command)).answer.outcome;
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

/// Applies all that comes out of sources to a fresh ledger; the kinds of it, and what is said.
fn applied(name: &str, sources: &[Source]) -> (BTreeSet<String>, Vec<String>) {
    let converted = convert(sources).expect("it is YAML");
    let text = converted.to_yaml();
    let parsed = parse_all(&[Source { name: name.to_owned(), text: text.clone() }], &|_| None);
    let contents = parsed.unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{text}"));
    assert_eq!(contents.objects.len() + contents.requests.len(), converted.documents.len(), "{name}");
    let mut ledger = fresh();
    let put: Vec<PolicyObject> = contents.objects.into_iter().map(|parsed| parsed.object).collect();
    let validators = put.iter().filter_map(|object| match object {
        PolicyObject::Validator(validator) => Some(validator),
        _ => None,
    });
    let validators = Validators::new(validators);
    run(&mut ledger, Command::ApplyPolicy { put: put.clone(), delete: Vec::new(), if_revision: Revision(0) });
    assert_eq!(ledger.check_invariants(), [], "{name}");
    // What is asked makes sense, names what is there, and meets the rules that came out beside it.
    for requested in contents.requests {
        let request = request_from_v1(&requested.spec).expect("it was read");
        assert_eq!(validate_request(&request), [], "{name}: {}", request.name);
        assert!(ledger.pool(&request.pool).is_some(), "{name}: pool {}", request.pool);
        assert!(ledger.class(&request.class).is_some(), "{name}: class {}", request.class);
        assert!(request.queue.is_empty() || ledger.queue(&request.queue).is_some(), "{name}");
        // Of pipelines with a label it is asked that they say how long: what blocks of others say of them is not theirs.
        let broken = validators.of_request(&request);
        assert!(broken.is_empty() || sources.len() > 1, "{name}: {}: {broken:?}", request.name);
    }
    let kinds = converted.documents.iter().map(|one| one["kind"].as_str().expect("a kind").to_owned());
    (kinds.collect(), converted.remarks.iter().map(ToString::to_string).collect())
}

#[test]
fn a_fresh_ledger_takes_all_that_comes_out_of_each_block() {
    let each = blocks().into_iter().flat_map(|(name, source)| applied(&name, &[source]).0);
    let kinds: BTreeSet<String> = each.collect();
    let all = [
        "Class",
        "Pool",
        "Queue",
        "Quota",
        "Reservation",
        "ScalingPolicy",
        "Schedule",
        "Service",
        "Validator",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn a_fresh_ledger_takes_all_blocks_as_one_file() {
    let sources: Vec<Source> = blocks().into_iter().map(|(_, source)| source).collect();
    let (_, told) = applied("all", &sources);
    let between = |one: &&str| one.contains("which holds") || one.contains("already");
    let told: Vec<&str> = told.iter().map(String::as_str).filter(between).collect();
    assert_eq!(
        told,
        [
            "multi-tenant-pipeline.yaml:2:1: Pool \"default\".fairness: is \"fair\" here, and was \"weighted\" before, which holds",
            "priority-based-scheduling.yaml:1:1: Pool \"default\".fairness: is \"priority\" here, and was \"weighted\" before, which holds",
            "resource-affinity.yaml:1:1: Reservation \"pipeline\": there is a request of this name already: this one is pipeline-2",
            "storage-resources.yaml:1:1: Reservation \"pipeline\": there is a request of this name already: this one is pipeline-3",
        ]
    );
}

#[test]
fn what_no_document_can_say_is_left_out_and_told() {
    let source = |text: &str| [Source { name: "f".to_owned(), text: text.to_owned() }];
    for (text, path) in [
        ("scheduling: { classes: { a: { preemptible: true } } }\n", "Class \"a\""),
        ("reservations: [{ name: a, resources: { cpu: 1 } }]\n", "Schedule \"a\""),
        ("reservations: [{ name: a, resources: { cpu_millis: 1 }, duration: always }]\n", "Schedule \"a\""),
        ("queues: { configuration: { a: { batch_size: 5, processing_interval: 2d } } }\n", "Queue \"a\""),
        ("compute: { spot_instances: { percentage: 170 } }\n", "Pool \"default\""),
        ("steps: [{ id: a, resources: { gpu: 1.5 } }]\n", "Reservation \"a\""),
        (
            "affinity: { node_affinity: { required: [{ key: a, operator: Like }] } }\n",
            "Reservation \"pipeline\"",
        ),
    ] {
        let converted = convert(&source(text)).unwrap();
        assert_eq!(converted.documents, [] as [serde_json::Value; 0], "{text}");
        let told: Vec<&str> = converted.remarks.iter().map(|remark| remark.path.as_str()).collect();
        assert!(told.contains(&path), "{text}: {told:?}");
    }
}

#[test]
fn quotas_of_several_tiers_bind_the_users_of_each_alone() {
    let source = |text: &str| [Source { name: "f".to_owned(), text: text.to_owned() }];
    let tenants = |text: &str| {
        let documents = convert(&source(text)).unwrap().documents;
        let tier = |one: &serde_json::Value| {
            one["spec"]["tier"].is_object().then(|| one["spec"]["tier"].to_string().replace('"', ""))
        };
        documents.iter().map(tier).collect::<Vec<_>>()
    };
    let premium = "multi_tenancy: { user_limits: { default: { daily_executions: 1 }, premium: { daily_executions: 9 } } }";
    assert_eq!(
        tenants(premium),
        ["{group:user,rank:0,users:[*]}", "{group:user,rank:1,users:[premium-*]}"]
            .map(|tier| Some(tier.to_owned()))
    );
    assert_eq!(tenants("multi_tenancy: { user_limits: { default: { daily_executions: 1 } } }"), [None]);
    assert_eq!(
        tenants("multi_tenancy: { enabled: false, user_limits: { default: { daily_executions: 1 } } }"),
        []
    );
}

#[test]
fn limits_of_pipelines_leave_other_requests_alone() {
    let text = "pipeline: { resource_limits: { max_execution_time: 3600, max_cpu: 8 } }";
    let converted = convert(&[Source { name: "f".to_owned(), text: text.to_owned() }]).unwrap();
    let requests = "
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: by-hand }
spec: { cpu: 9 }
---
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: fine, labels: { pipeline: a } }
spec: { cpu: 8, for: 1h }
---
apiVersion: plimsoll/v1
kind: Reservation
metadata: { name: long, labels: { pipeline: a } }
spec: { cpu: 5, members: 2, for: 2h }
";
    let text = format!("{}---{requests}", converted.to_yaml());
    let contents = parse_all(&[Source { name: "f".to_owned(), text }], &|_| None).expect("it is valid");
    let PolicyObject::Validator(validator) = &contents.objects[0].object else { panic!("no validator") };
    let validators = Validators::new([validator]);
    let broken: Vec<usize> = contents
        .requests
        .iter()
        .map(|one| validators.of_request(&request_from_v1(&one.spec).expect("it was read")).len())
        .collect();
    assert_eq!(broken, [0, 0, 2]);
}

#[test]
fn parallel_tasks_of_several_kinds_are_the_roles_of_one_gang() {
    let text = "steps: [{ id: a, parallel: { max_workers: 2, tasks: [{ action: x, resources: { cpu: 1 } }, { action: y, resources: { gpu: { type: a100, count: 2 } } }] } }]";
    let converted = convert(&[Source { name: "f".to_owned(), text: text.to_owned() }]).unwrap();
    let roles = serde_json::json!([{ "name": "x", "cpu": 1 }, { "name": "y", "gpu": "a100:2" }]);
    assert_eq!(converted.documents[0]["spec"], serde_json::json!({ "roles": roles }));
}

#[test]
fn every_value_is_in_a_document_or_told() {
    // A block that nobody knows is told as a whole, and the values of a known one that nobody looks at one by one.
    let source = |text: &str| [Source { name: "f".to_owned(), text: text.to_owned() }];
    let told = |text: &str| {
        let remarks = convert(&source(text)).unwrap().remarks;
        remarks.into_iter().map(|remark| remark.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(told("colours: { red: 1, blue: [2, 3] }\n"), ["f:1:10: colours: has no counterpart yet"]);
    assert_eq!(
        told("queues:\n  configuration:\n    a: { max_size: 5, colour: red }\n    b: { max_size: many }\n"),
        [
            "f:3:31: queues.configuration.a.colour: has no counterpart yet",
            "f:4:20: queues.configuration.b.max_size: is not a whole number"
        ]
    );
    assert_eq!(told("just text\n"), ["f:1:1: the document: has no counterpart yet"]);
    assert!(convert(&source("a: [1")).is_err());
}
