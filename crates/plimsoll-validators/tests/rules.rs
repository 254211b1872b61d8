//! Rules on requests and policy objects.

use plimsoll_expr::Expression;
use plimsoll_ledger::{
    Affinity, Balancing, Class, GpuAsk, Measure, Meter, PolicyObject, Pool, PreferredHours, Qos, Queue,
    QuotaPolicy, Rate, Request, Requirements, Reset, Role, Rule, ScalingPolicy, ScalingTarget, Schedule,
    Scope, Service, Tier, Topology, Users, Validator,
};
use plimsoll_types::Resources;
use plimsoll_validators::{Compiled, Subject, Validators, Wrong};

fn validator(subject: &str, rules: &[(&str, &str, &str)]) -> Validator {
    let rule = |(expression, message, path): &(&str, &str, &str)| Rule {
        expression: (*expression).to_owned(),
        message: (*message).to_owned(),
        path: (*path).to_owned(),
    };
    Validator {
        name: "v".to_owned(),
        subject: subject.to_owned(),
        rules: rules.iter().map(rule).collect(),
        ..Validator::default()
    }
}

fn request(gpus: u32, class: &str) -> Request {
    let mut request = Request { pool: "gpu".to_owned(), class: class.to_owned(), ..Request::default() };
    request.requirements.gpu = Some(GpuAsk::whole(gpus));
    request
}

#[test]
fn every_rule_that_does_not_hold_is_told_with_its_path_and_message() {
    let validator = validator(
        "Reservation",
        &[
            ("request.gpu <= 8 || request.class == 'critical'", "at most 8 GPUs", "spec.resources.gpu"),
            ("request.class != 'batch'", "", "spec.class"),
            ("request.labels['team'] != ''", "name a team", "metadata.labels.team"),
            ("request.members == 1", "no gangs", ""),
        ],
    );
    let all = Validators::new([&validator]);
    let told = |request: &Request| {
        all.of_request(request).into_iter().map(|broken| (broken.path, broken.message)).collect::<Vec<_>>()
    };
    let broken = told(&request(9, "batch"));
    assert_eq!(broken[0], ("spec.resources.gpu".to_owned(), "at most 8 GPUs".to_owned()));
    assert_eq!(broken[1], ("spec.class".to_owned(), "request.class != 'batch' must hold".to_owned()));
    assert!(broken[2].1.starts_with("name a team (the rule has no answer: there is no team"), "{broken:?}");
    assert_eq!(broken.len(), 3);
    assert_eq!(told(&request(9, "critical")).len(), 1);
}

#[test]
fn a_bound_on_a_member_holds_for_the_members_of_each_role() {
    let rules = [
        ("request.cpu <= 2", "small", "spec.resources.cpu"),
        ("request.gpu <= 1", "one", "spec.resources.gpu"),
        ("request.gpu_models.all(model, model == 'a100')", "old ones", ""),
    ];
    let validator = validator("Reservation", &rules);
    let all = Validators::new([&validator]);
    let role = |name: &str, cpu_millis: u64, gpus: u32| {
        let gpu = (gpus > 0).then(|| GpuAsk { models: vec!["h100".to_owned()], ..GpuAsk::whole(gpus) });
        let requirements =
            Requirements { amounts: Resources::new(cpu_millis, 0), gpu, ..Requirements::default() };
        Role { name: name.to_owned(), requirements, min_members: 1, max_members: 1 }
    };
    let gang = |roles: Vec<Role>| Request { pool: "gpu".to_owned(), roles, ..Request::default() };
    assert!(all.of_request(&gang(vec![role("a", 2_000, 0), role("b", 1_000, 0)])).is_empty());
    let told = all.of_request(&gang(vec![role("a", 1_000, 0), role("b", 2_001, 0), role("c", 1, 2)]));
    let messages: Vec<&str> = told.iter().map(|broken| broken.message.as_str()).collect();
    assert_eq!(messages, ["small", "one", "old ones"]);
}

#[test]
fn a_validator_looks_at_its_pools_and_queues_only() {
    let mut validator = validator("Reservation", &[("request.gpu <= 1", "one", "")]);
    validator.pools.insert("gpu".to_owned());
    let all = Validators::new([&validator]);
    assert_eq!(all.of_request(&request(2, "batch")).len(), 1);
    assert!(all.of_request(&Request { pool: "other".to_owned(), ..request(2, "batch") }).is_empty());
    validator.queues.insert("vision".to_owned());
    let all = Validators::new([&validator]);
    assert!(all.of_request(&request(2, "batch")).is_empty());
    assert_eq!(all.of_request(&Request { queue: "vision".to_owned(), ..request(2, "batch") }).len(), 1);
}

#[test]
fn policy_objects_have_rules_of_their_own() {
    let class = validator("Class", &[("class.priority <= 100", "too high", "spec.priority")]);
    let pool = validator(
        "Pool",
        &[("pool.strategy == 'best_fit' && has(pool.labels.owner)", "who owns it?", "metadata.labels")],
    );
    let queue =
        validator("Queue", &[("queue.parent != '' || queue.weight == 0", "no more roots", "spec.parent")]);
    let all = Validators::new([&class, &pool, &queue]);
    let broken = |object: PolicyObject| all.of_object(&object).len();
    assert_eq!(broken(PolicyObject::Class(Class { priority: 101, ..Class::default() })), 1);
    assert_eq!(broken(PolicyObject::Class(Class { priority: 100, ..Class::default() })), 0);
    assert_eq!(broken(PolicyObject::Pool(Pool::default())), 1);
    let queue = Queue { weight_milli: 1_000, ..Queue::default() };
    assert_eq!(broken(PolicyObject::Queue(queue)), 1);
    assert_eq!(broken(PolicyObject::Validator(validator("Class", &[]))), 0, "nobody can lock the rules in");
}

/// What a kind says of an object, rule by rule: those that hold.
fn holding<'a>(object: &PolicyObject, subject: &str, rules: &[&'a str]) -> Vec<&'a str> {
    let holds =
        |rule: &&&str| Validators::new([&validator(subject, &[(rule, "", "")])]).of_object(object).is_empty();
    rules.iter().filter(holds).copied().collect()
}

#[test]
fn rules_see_who_serves_what_and_what_is_bought() {
    let service =
        Service { balancing: Balancing::Affinity, load_bound_permille: 1_250, ..Service::default() };
    let rules = ["service.balancing == 'affinity'", "service.load_bound == 1.25", "service.slow_start > 1s"];
    assert_eq!(holding(&PolicyObject::Service(service), "Service", &rules), rules[..2]);
    let mut scaling =
        ScalingPolicy { target: ScalingTarget::Pool("gpu".to_owned()), ..ScalingPolicy::default() };
    scaling.rules.max = 20;
    let rules = ["scaling.pool == 'gpu'", "scaling.service == ''", "scaling.max <= 20", "scaling.predictive"];
    assert_eq!(holding(&PolicyObject::ScalingPolicy(scaling), "ScalingPolicy", &rules), rules[..3]);
    let users = Users { queues: vec!["vision".to_owned()], ..Users::default() };
    let resources = Resources::new(4_000, 1 << 30);
    let schedule = Schedule { rule: "always".to_owned(), resources, users, ..Schedule::default() };
    let rules = [
        "schedule.cpu <= 4",
        "schedule.memory == 1Gi",
        "schedule.queues.exists(queue, queue == 'vision')",
        "!schedule.always",
    ];
    assert_eq!(holding(&PolicyObject::Schedule(schedule), "Schedule", &rules), rules[..3]);
}

#[test]
fn limits_are_seen_by_the_names_that_files_have_for_them() {
    let meter = |scope, measure, reset| Meter::new(scope, measure, reset);
    let quota = QuotaPolicy {
        tier: Some(Tier { group: "plan".to_owned(), rank: 2, users: vec!["ada".to_owned()] }),
        limits: [
            (meter(Scope::User, Measure::Concurrent, Reset::Live), 5),
            (meter(Scope::Together, Measure::GpuHours, Reset::Month), 12_500_000),
            (meter(Scope::Run, Measure::Cost, Reset::Rolling(1_000)), 3_000_000),
            (meter(Scope::Run, Measure::Cost, Reset::Rolling(2_000)), 2_000_000),
        ]
        .into(),
        rates: [("requests".to_owned(), Rate { tokens: 120, period_ms: 60_000, burst: 5 })].into(),
        ..QuotaPolicy::default()
    };
    let rules = [
        "quota.limits['perUser.concurrent'] == 5",
        "quota.limits['together.gpuHours.month'] == 12.5",
        "quota.limits['perRun.cost.rolling'] == 2",
        "quota.rates_per_second['requests'] == 2",
        "quota.tier_group == 'plan' && quota.tier_rank == 2",
        "quota.limits['perUser.cost.day'] > 1",
    ];
    assert_eq!(holding(&PolicyObject::Quota(quota), "Quota", &rules), rules[..5]);
}

#[test]
fn rules_see_all_that_a_request_asks() {
    let rule = |anti, weight| Affinity {
        key: "app".to_owned(),
        value: "db".to_owned(),
        level: "node".to_owned(),
        weight,
        anti,
    };
    let asked = Request {
        qos: Some(Qos::BestEffort),
        nice: 7,
        topology: Topology { required: "rack".to_owned(), slice_size: 2, ..Topology::default() },
        affinity: vec![rule(true, 0), rule(false, 5)],
        hours: Some(PreferredHours { schedule: "night".to_owned(), longest_wait_ms: 60_000 }),
        max_cost_micros: 2_500_000,
        ..request(1, "batch")
    };
    let rules = [
        "request.qos == 'best_effort' && request.nice == 7",
        "request.topology_required == 'rack' && request.slice_size == 2",
        "'app=db' in request.away_from_work",
        "request.hours == 'night' && request.longest_wait == 1m",
        "request.max_cost == 2.5",
        "request.spot",
        "'app=db' in request.near_work",
        "request.later",
        "size(request.roles) > 0",
    ];
    let holds = |rule: &&&str| {
        Validators::new([&validator("Reservation", &[(rule, "", "")])]).of_request(&asked).is_empty()
    };
    let holding: Vec<&str> = rules.iter().filter(holds).copied().collect();
    assert_eq!(holding, rules[..6]);
}

#[test]
fn a_validator_of_places_looks_at_what_belongs_there() {
    let mut validator = validator("Schedule", &[("schedule.shorten", "shorten", "")]);
    validator.pools.insert("gpu".to_owned());
    let all = Validators::new([&validator]);
    let of = |pool: &str| PolicyObject::Schedule(Schedule { pool: pool.to_owned(), ..Schedule::default() });
    assert_eq!((all.of_object(&of("gpu")).len(), all.of_object(&of("cpu")).len()), (1, 0));
}

#[test]
fn what_cannot_be_read_refuses_everything_of_its_kind() {
    let unread = validator("Reservation", &[("request.colour == 'red'", "red", "")]);
    let all = Validators::new([&unread]);
    assert!(all.of_request(&request(1, "batch"))[0].message.contains("`colour` is not known here"));
    assert!(all.of_object(&PolicyObject::Class(Class::default())).is_empty());
}

#[test]
fn everything_wrong_with_a_validator_is_told_at_once() {
    let wrong = Compiled::new(&validator(
        "Reservation",
        &[("request.gpus < 1", "", ""), ("true", "", ""), ("1 <", "", "")],
    ));
    let fields: Vec<String> = wrong.unwrap_err().iter().map(Wrong::field).collect();
    assert_eq!(fields, ["rules[0].expression", "rules[2].expression"]);
    let wrong = Compiled::new(&validator("Reservations", &[])).unwrap_err();
    assert!(wrong[0].sentence().contains("there are: Reservation, Pool"), "{wrong:?}");
    let mut named = validator("Class", &[("true", "", "")]);
    named.pools.insert("gpu".to_owned());
    assert_eq!(Compiled::new(&named).unwrap_err(), [Wrong::Places(Subject::Class)]);
}

#[test]
fn a_rule_can_use_every_name_that_there_is() {
    for (_, subject) in Subject::WORDS {
        let names = subject.names();
        let Some(plimsoll_expr::Type::Object(fields)) = names.get(subject.variable()).cloned() else {
            panic!("{subject:?}")
        };
        for (field, _) in fields.iter() {
            let text = format!("{0}.{field} == {0}.{field}", subject.variable());
            Expression::parse(&text, &names).unwrap_or_else(|problem| panic!("{}", problem.show(&text)));
            let rule =
                validator(Subject::WORDS.iter().find(|(_, s)| *s == subject).unwrap().0, &[(&text, "", "")]);
            let all = Validators::new([&rule]);
            let object = match subject {
                Subject::Reservation => None,
                Subject::Pool => Some(PolicyObject::Pool(Pool::default())),
                Subject::Class => Some(PolicyObject::Class(Class::default())),
                Subject::NodeLimits => Some(PolicyObject::NodeLimits(Default::default())),
                Subject::Queue => Some(PolicyObject::Queue(Queue::default())),
                Subject::Quota => Some(PolicyObject::Quota(QuotaPolicy::default())),
                Subject::Schedule => Some(PolicyObject::Schedule(Schedule::default())),
                Subject::Service => Some(PolicyObject::Service(Service::default())),
                Subject::ScalingPolicy => Some(PolicyObject::ScalingPolicy(ScalingPolicy::default())),
            };
            let broken = match &object {
                None => all.of_request(&request(1, "batch")),
                Some(object) => all.of_object(object),
            };
            assert_eq!(broken, [], "{text}");
        }
    }
}
