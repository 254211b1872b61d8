//! Rules on requests and policy objects.

use plimsoll_expr::Expression;
use plimsoll_ledger::{
    Class, GpuAsk, PolicyObject, Pool, Queue, Request, Requirements, Role, Rule, Validator,
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
            let broken = match subject {
                Subject::Reservation => all.of_request(&request(1, "batch")),
                Subject::Pool => all.of_object(&PolicyObject::Pool(Pool::default())),
                Subject::Class => all.of_object(&PolicyObject::Class(Class::default())),
                Subject::NodeLimits => all.of_object(&PolicyObject::NodeLimits(Default::default())),
                Subject::Queue => all.of_object(&PolicyObject::Queue(Queue::default())),
            };
            assert_eq!(broken, [], "{text}");
        }
    }
}
