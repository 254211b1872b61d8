//! What is wrong with a file is told with place, line and, where one is near, the word that was meant; all at once.

use plimsoll_policy::{Source, parse};

/// The problems of one file, as they are shown.
fn problems(text: &str) -> Vec<String> {
    let source = Source { name: "p.yaml".into(), text: text.into() };
    let found = parse(&[source]).expect_err("the file is wrong");
    found.iter().map(ToString::to_string).collect()
}

/// A pool with one line in its spec, and the single problem that it has.
fn in_pool(line: &str) -> String {
    one(&format!("apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {{ name: gpu }}\nspec:\n  {line}\n"))
}

fn in_limits(line: &str) -> String {
    one(&format!("apiVersion: plimsoll/v1\nkind: NodeLimits\nmetadata: {{ name: edge }}\nspec:\n  {line}\n"))
}

fn in_class(line: &str) -> String {
    one(&format!("apiVersion: plimsoll/v1\nkind: Class\nmetadata: {{ name: low }}\nspec:\n  {line}\n"))
}

fn one(text: &str) -> String {
    let all = problems(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0].clone()
}

#[test]
fn unknown_keys_and_words_are_told_with_what_was_meant() {
    for (found, expected) in [
        (
            in_pool("stratgy: best_fit"),
            "p.yaml:5:3: unknown key \"stratgy\" in spec; did you mean \"strategy\"?\n  5 |   stratgy: best_fit\n    |   ^^^^^^^",
        ),
        (
            in_pool("max_pending: 5"),
            "p.yaml:5:3: unknown key \"max_pending\" in spec; did you mean \"maxPending\"?\n  5 |   max_pending: 5\n    |   ^^^^^^^^^^^",
        ),
        (
            in_pool("autoscaling: {}"),
            "p.yaml:5:3: unknown key \"autoscaling\" in spec; there are: select, strategy, countables, queueOrder, maxPending, fairness, price, preemption, maxPreemptionsPerHour, prices, currency, topology, queueing, starvationBound, rebalanceInterval, oversubscription, contention, elasticity, minNodes, maxNodes, growthNodes, growthPeriod, idleTimeout, fragmentationThreshold, spot, powerBudget, halfLife, classOrder, priorityWeights\n  5 |   autoscaling: {}\n    |   ^^^^^^^^^^^",
        ),
        (
            in_pool("strategy: bestfit"),
            "p.yaml:5:13: spec.strategy \"bestfit\" is not known; did you mean \"best_fit\"?\n  5 |   strategy: bestfit\n    |             ^^^^^^^",
        ),
        (
            in_pool("select: [{ key: zone, operator: in, values: [a] }]"),
            "p.yaml:5:35: spec.select[0].operator \"in\" is not known; did you mean \"In\"?\n  5 |   select: [{ key: zone, operator: in, values: [a] }]\n    |                                   ^^",
        ),
        (
            one("apiVersion: plimsoll/v1\nkind: Pol\nmetadata: { name: gpu }\n"),
            "p.yaml:2:7: kind \"Pol\" is not known; did you mean \"Pool\"?\n  2 | kind: Pol\n    |       ^^^",
        ),
        (
            one("apiVersion: plimsoll/v2\nkind: Pool\nmetadata: { name: gpu }\n"),
            "p.yaml:1:13: apiVersion \"plimsoll/v2\" is not known: this is plimsoll/v1\n  1 | apiVersion: plimsoll/v2\n    |             ^^^^^^^^^^^",
        ),
        (
            one("kind: Pool\nmetadata: { name: gpu }\n"),
            "p.yaml:1:1: apiVersion is missing: write apiVersion: plimsoll/v1\n  1 | kind: Pool\n    | ^",
        ),
        (
            one("apiVersion: plimsoll/v1\nmetadata: { name: gpu }\n"),
            "p.yaml:1:1: kind is missing; there are: Pool, Class, NodeLimits, Queue, Quota, Schedule, Service, ScalingPolicy, Validator, Reservation\n  1 | apiVersion: plimsoll/v1\n    | ^",
        ),
        (
            in_limits("max: { mem: 4Gi }"),
            "p.yaml:5:10: unknown resource \"mem\"; did you mean \"memory\"?\n  5 |   max: { mem: 4Gi }\n    |          ^^^",
        ),
    ] {
        assert_eq!(found, expected);
    }
}

#[test]
fn wrong_types_and_values_are_told_with_what_is_expected() {
    for (found, expected) in [
        (in_pool("maxPending: many"), "p.yaml:5:15: spec.maxPending is \"many\", a whole number is expected"),
        (in_pool("maxPending: -1"), "p.yaml:5:15: spec.maxPending is -1, must be 0 to 4294967295"),
        (in_pool("strategy: [a]"), "p.yaml:5:13: spec.strategy is a list, one word is expected"),
        (
            in_pool("select: gpu"),
            "p.yaml:5:11: spec.select is \"gpu\", a list is expected: [{ key: zone, operator: In, values: [a, b] }]",
        ),
        (
            in_pool("select: [{ key: zone, operator: In }]"),
            "p.yaml:5:12: spec.select[0].values is empty, at least one is expected",
        ),
        (in_pool("select: [{ key: zone }]"), "p.yaml:5:12: spec.select[0].operator is missing"),
        (
            in_pool("countables: { license/foo: 3x }"),
            "p.yaml:5:30: spec.countables.license/foo: \"3x\" is not a number: \"x\" is no suffix; numbers are written 3 or 10k",
        ),
        (
            in_pool("countables: { cpu: 3 }"),
            "p.yaml:5:17: spec.countables.cpu: cpu is counted on nodes, not in a pool",
        ),
        (
            in_limits("max: { memory: 400m }"),
            "p.yaml:5:18: spec.max.memory: \"400m\" is not a size: m means thousandths, so this is less than a byte; did you mean 400Mi?",
        ),
        (
            in_limits("max: { cpu: 80% }"),
            "p.yaml:5:15: spec.max.cpu: \"80%\" is not an amount of cpu: \"%\" is no suffix; cores are written 2, 0.5 or 500m",
        ),
        (
            in_limits("max: { cpu: 0 }"),
            "p.yaml:5:10: spec.max.cpu is 0, which would cap nothing: leave it out, or cordon the nodes",
        ),
        (
            in_limits("max: { gpu: 1 }"),
            "p.yaml:5:10: spec.max.gpu: node limits do not cap GPUs, which are devices of their own",
        ),
        (
            in_class("preemptible: true"),
            "p.yaml:5:3: spec.priority is missing: higher numbers go first, as in priority: 50",
        ),
        (
            in_class("{ priority: 1, preemptible: yes }"),
            "p.yaml:5:31: spec.preemptible is \"yes\", true or false is expected",
        ),
        (
            in_class("{ priority: 1, defaultTtl: soon }"),
            "p.yaml:5:30: spec.defaultTtl: \"soon\" is not a duration: durations are written 300, 5m, 1h30m or PT5M",
        ),
        (
            in_class("priority: 3000000000"),
            "p.yaml:5:13: spec.priority is 3000000000, must be -2147483648 to 2147483647",
        ),
        (one("- 5\n"), "p.yaml:1:3: a document is \"5\", a block of keys is expected"),
        (
            one("apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: GPU }\n"),
            "p.yaml:3:19: metadata.name: \"GPU\" is not a name: use 1 to 63 lower-case letters, digits, '-', '.' and '_', with a letter or digit at both ends",
        ),
        (one("apiVersion: plimsoll/v1\nkind: Pool\n"), "p.yaml:1:1: metadata.name is missing"),
    ] {
        assert_eq!(found.lines().next(), Some(expected));
    }
}

#[test]
fn all_problems_of_all_files_are_told_at_once_and_in_order() {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let pool = "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: gpu }\n";
    let sources = [
        source("a.yaml", pool),
        source(
            "b.yaml",
            &format!(
                "{pool}spec:\n  maxPending: x\n  stratgy: y\n---\nkind: Class\nmetadata: {{ nam: c }}\n"
            ),
        ),
        source("c.yaml", "a: [\n"),
        source("d.yaml", pool),
    ];
    let found = parse(&sources).expect_err("they are wrong");
    let lines: Vec<String> = found
        .iter()
        .map(|problem| problem.to_string().lines().next().unwrap_or_default().to_owned())
        .collect();
    let begins = |line: &str, start: &str| assert!(line.starts_with(start), "{line:?} {start:?}");
    assert_eq!(lines.len(), 8, "{lines:#?}");
    for (line, start) in lines.iter().zip([
        "b.yaml:5:15: spec.maxPending is \"x\"",
        "b.yaml:6:3: unknown key \"stratgy\"",
        "b.yaml:8:1: apiVersion is missing",
        "b.yaml:8:1: spec.priority is missing",
        "b.yaml:9:11: metadata.name is missing",
        "b.yaml:9:13: unknown key \"nam\" in metadata; did you mean \"name\"?",
        "c.yaml:",
        "d.yaml:3:19: Pool \"gpu\" is there twice, first at a.yaml:1:1",
    ]) {
        begins(line, start);
    }
}

#[test]
fn quotas_are_told_what_is_wrong_with_their_limits_and_rates() {
    let text = "apiVersion: plimsoll/v1
kind: Quota
metadata: { name: q }
spec:
  nominal: { cpu: 4 }
  perUser: { concurent: 5, cpuHours: { week: 3 } }
  budget: { daily: ten, onExhausted: stop }
  rate: { api: 60 per minute }
";
    let source = Source { name: "q.yaml".into(), text: text.into() };
    let problems = parse(&[source]).unwrap_err();
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let told = told.join("\n");
    for part in [
        "q.yaml:5:12: spec.nominal belongs to a queue: write kind: Queue",
        "unknown key \"concurent\" in spec.perUser; did you mean \"concurrent\"?",
        "spec.perUser.cpuHours.week: there are day, month, total, or a half-life such as 7d",
        "spec.budget.daily: \"ten\" is not a number of hours or of money",
        "spec.budget.onExhausted \"stop\" is not known",
        "is not a rate: rates are written 60/min burst 10",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

#[test]
fn conditions_of_validators_are_told_at_their_place_inside_the_line() {
    let in_rule = |rule: &str| {
        problems(&format!(
            "apiVersion: plimsoll/v1\nkind: Validator\nmetadata: {{ name: v }}\nspec:\n  for: Reservation\n  rules:\n  - {rule}\n"
        ))
    };
    assert_eq!(
        in_rule("{ expression: \"request.memory < 1gi\" }"),
        [
            "p.yaml:7:37: spec.rules[0].expression: `1gi` is not a quantity; did you mean `1Gi`?\n  7 |   - { expression: \"request.memory < 1gi\" }\n    |                                     ^^^"
        ]
    );
    assert_eq!(
        in_rule("expression: reqest.gpu < 1"),
        [
            "p.yaml:7:17: spec.rules[0].expression: `reqest` is not known; did you mean `request`?\n  7 |   - expression: reqest.gpu < 1\n    |                 ^^^^^^"
        ]
    );
    // Where it is not written as it is read, the whole of it is meant.
    let folded = in_rule("expression: >\n      request.gpu <\n      1gi");
    assert!(folded.len() == 1 && folded[0].starts_with("p.yaml:8:7:"), "{folded:?}");
    let wrong = problems(
        "apiVersion: plimsoll/v1\nkind: Validator\nmetadata: { name: v }\nspec:\n  for: Reservatoin\n  match: { pools: a }\n",
    );
    let lines: Vec<&str> = wrong.iter().filter_map(|problem| problem.lines().next()).collect();
    assert_eq!(
        lines,
        [
            "p.yaml:5:3: spec.rules is empty: give at least one rule",
            "p.yaml:5:8: spec.for \"Reservatoin\" is not known; did you mean \"Reservation\"?",
            "p.yaml:6:12: unknown key \"pools\" in spec.match; did you mean \"pool\"?",
        ]
    );
}

#[test]
fn other_words_for_the_same_are_taken_once() {
    let queue = |spec: &str| {
        format!("apiVersion: plimsoll/v1\nkind: Queue\nmetadata: {{ name: q }}\nspec: {{ {spec} }}\n")
    };
    let parsed = parse(&[Source { name: "q".into(), text: queue("maxSize: 1000, overflow: reject") }])
        .expect("it is right");
    let plimsoll_ledger::PolicyObject::Queue(read) = &parsed[0].object else { panic!("{parsed:?}") };
    assert_eq!(read.max_pending, 1_000);
    assert!(
        one(&queue("maxSize: 1, maxPending: 2")).contains("spec.maxSize is another word for spec.maxPending")
    );
    let unbounded = one(&queue("overflow: spill_to_disk"));
    assert!(unbounded.contains("spec.overflow needs max_pending"), "{unbounded}");
    assert!(one(&queue("overflow: drop")).contains("spec.overflow \"drop\" is not known"));
    let limits = Source {
        name: "l".into(),
        text: "apiVersion: plimsoll/v1\nkind: NodeLimits\nmetadata: { name: l }\nspec: { maxCpu: 1.5, maxMemory: 1000Mi }\n".into(),
    };
    let parsed = parse(&[limits]).expect("it is right");
    let plimsoll_ledger::PolicyObject::NodeLimits(read) = &parsed[0].object else { panic!("{parsed:?}") };
    assert_eq!(read.max, plimsoll_types::Resources::new(1_500, 1000 << 20));
    assert!(in_limits("maxCpu: 0").contains("spec.maxCpu is 0"));
    assert!(in_limits("maxCpu: 1\n  max: { cpu: 2 }").contains("there in spec.max too"));
}
fn in_schedule(line: &str) -> String {
    one(&format!(
        "apiVersion: plimsoll/v1\nkind: Schedule\nmetadata: {{ name: night }}\nspec:\n  resources: {{ cpu: 1 }}\n  {line}\n"
    ))
}

#[test]
fn what_is_wrong_with_a_rule_is_told_where_it_stands() {
    for (line, place, told) in [
        ("window: \"22:00-25:00 UTC\"", "p.yaml:6:11:", "\"25:00\" is not a time of day: write it as 22:00"),
        ("window: \"22:00-06:00\"", "p.yaml:6:11:", "names no time zone: write 22:00-06:00 UTC"),
        (
            "window: { start: \"22:00\", end: \"06:00\", timezone: Berlin }",
            "p.yaml:6:",
            "\"Berlin\" is not a time zone",
        ),
        ("rrule: \"FREQ=YEARLY\"\n  duration: 8h", "p.yaml:6:10:", "\"YEARLY\" is not taken"),
        ("rrule: \"FREQ=DAILY\"\n  duration: long", "p.yaml:7:13:", "\"long\" is not a length of time"),
        ("window: \"22:00-06:00 UTC\"\n  days: [mon-fry]", "p.yaml:7:9:", "\"fry\" is not a day"),
        ("window: always\n  at: 2026-12-24T18:00:00Z", "p.yaml:7:7:", "spec.at stands beside spec.window"),
        ("pipelines: [\"batch_*\"]", "p.yaml:5:3:", "spec says not when"),
    ] {
        let found = in_schedule(line);
        assert!(found.starts_with(place) && found.contains(told), "{line}\n{found}");
    }
}

/// A scaling policy of a pool with these lines in its spec.
fn in_scaling(lines: &str) -> Vec<String> {
    problems(&format!(
        "apiVersion: plimsoll/v1\nkind: ScalingPolicy\nmetadata: {{ name: grow }}\nspec:\n  target: pool/gpu\n{lines}"
    ))
}

#[test]
fn templates_are_told_with_their_place() {
    let small = "{ name: small, resources: { cpu: 4, memory: 8Gi } }";
    for (found, place, expected) in [
        (
            in_scaling("  templates: [{ resources: { cpu: 4 } }]\n"),
            "p.yaml:6:15",
            "spec.templates[0].name is missing",
        ),
        (
            in_scaling("  templates:\n    - { name: a, resources: { cpu: 4 }, pice: 0.3 }\n"),
            "p.yaml:7:41",
            "did you mean \"price\"?",
        ),
        (
            in_scaling("  templates:\n    - { name: a }\n"),
            "p.yaml:7:7",
            "what does a node of this template offer?",
        ),
        (
            in_scaling(&format!("  templates:\n    - {small}\n    - {small}\n")),
            "p.yaml:8:15",
            "\"small\" is there twice",
        ),
        (
            in_scaling("  templates:\n    - { name: a, resources: { cpu: 4 }, capacityType: lent }\n"),
            "p.yaml:7:55",
            "on_demand, reserved, spot",
        ),
        (
            in_scaling("  templates:\n    - { name: a, resources: { cpu: 4, power: 300 }, watts: 300 }\n"),
            "p.yaml:7:60",
            "give one of the two",
        ),
        (
            in_scaling("  templates:\n    - { name: a, resources: { cpu: 4, gpu: 1 } }\n"),
            "p.yaml:7:29",
            "GPUs stand under gpus, with their model",
        ),
        (
            in_scaling(&format!("  template: {{ resources: {{ cpu: 4 }} }}\n  templates: [{small}]\n")),
            "p.yaml:7:14",
            "give one of the two",
        ),
        (
            in_scaling(&format!("  templates: [{small}]\n  expander: [cheapest]\n")),
            "p.yaml:7:14",
            "leastWaste",
        ),
        (
            in_scaling(&format!("  templates: [{small}]\n  expander: [price, price]\n")),
            "p.yaml:7:21",
            "price is there twice",
        ),
        (in_scaling("  expander: [price]\n"), "p.yaml:6:13", "there are none"),
        (
            in_scaling(&format!(
                "  templates: [{small}]\n  provider: {{ type: externalgrpc, address: \"a:1\", group: g }}\n"
            )),
            "p.yaml:7:58",
            "{template}",
        ),
    ] {
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(place) && found[0].contains(expected), "{}", found[0]);
        assert!(found[0].contains('^'), "{}", found[0]);
    }
}
