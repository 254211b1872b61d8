//! What conditions mean, and what is said of wrong ones.

use std::collections::BTreeMap;

use plimsoll_expr::{Expression, Names, Type, Unit, Value};

fn names() -> Names {
    let request = Names::new([
        ("class", Type::Text),
        ("cpu", Type::Number(Unit::Cores)),
        ("memory", Type::Number(Unit::Bytes)),
        ("bandwidth", Type::Number(Unit::BitsPerSecond)),
        ("gpu", Type::Number(Unit::Plain)),
        ("ttl", Type::Number(Unit::Seconds)),
        ("models", Type::List(Box::new(Type::Text))),
        ("labels", Type::Map(Box::new(Type::Text))),
        ("confirmed", Type::Bool),
    ]);
    Names::new([
        ("request", Type::Object(request)),
        ("memory_used", Type::Number(Unit::Ratio)),
        ("load", Type::Number(Unit::Percent)),
    ])
}

fn values() -> BTreeMap<&'static str, Value> {
    let request = Value::object([
        ("class", Value::text("batch")),
        ("cpu", Value::milli(2_500)),
        ("memory", Value::count(4 << 30)),
        ("bandwidth", Value::count(100_000_000)),
        ("gpu", Value::milli(2_000)),
        ("ttl", Value::count(7_200)),
        ("models", Value::List(vec![Value::text("a100"), Value::text("h100")])),
        ("labels", Value::object([("team", Value::text("vision"))])),
        ("confirmed", Value::Bool(false)),
    ]);
    BTreeMap::from([
        ("request", request),
        ("memory_used", Value::Number(0.93)),
        ("load", Value::Number(70.0)),
    ])
}

#[test]
fn conditions_hold_or_do_not() {
    for (text, holds) in [
        ("request.gpu <= 8 || request.class == 'critical'", true),
        ("request.gpu > 2", false),
        ("request.cpu == 2.5 && request.cpu > 500m && request.cpu < 2500m + 1", true),
        ("request.memory == 4Gi", true),
        ("request.memory > 4096Mi", false),
        ("request.memory <= 2 * 2Gi", true),
        ("request.memory / request.gpu == 2Gi", true),
        ("request.memory / 1Gi == 4", true),
        ("request.memory * 50% == 2Gi", true),
        ("request.bandwidth == 100Mbps", true),
        ("request.ttl <= 2h && request.ttl >= 120m && request.ttl == 7200", true),
        ("memory_used > 90%", true),
        ("memory_used > 0.95", false),
        ("load > 90% || load == 70", true),
        ("request.class in ['batch', 'low']", true),
        ("'team' in request.labels && request.labels['team'] == 'vision'", true),
        ("has(request.labels.owner)", false),
        ("!has(request.labels.owner) || request.labels.owner == 'ada'", true),
        ("size(request.models) == 2 && request.models.size() + 0.5 < 3", true),
        ("request.models.all(m, m.startsWith('h'))", false),
        ("request.models.exists(m, m == 'h100')", true),
        ("request.models.exists_one(m, m.contains('100'))", false),
        ("size(request.models.filter(m, m != 'a100')) == 1", true),
        ("'x-a100' in request.models.map(m, 'x-' + m)", true),
        ("request.models[0] == 'a100'", true),
        ("request.confirmed ? request.gpu == 1 : request.gpu == 2", true),
        ("-request.gpu < 0", true),
        ("request.class == '\u{fc}ber' || request.memory >= 1Gi", true),
        ("true", true),
    ] {
        let expression =
            Expression::parse(text, &names()).unwrap_or_else(|problem| panic!("{}", problem.show(text)));
        assert_eq!(expression.holds(&values()), Ok(holds), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_would_be_right() {
    for (text, column, message, help) in [
        ("request.memory < 1gi", 18, "`1gi` is not a quantity", "did you mean `1Gi`?"),
        ("reqest.gpu < 1", 1, "`reqest` is not known", "did you mean `request`?"),
        ("request.gpus < 1", 8, "`gpus` is not known here", "did you mean `gpu`?"),
        ("true || request.colour == 1", 16, "`colour` is not known here", "there are: bandwidth, class, "),
        ("request.class == 4", 15, "text and a number are not compared", "text stands in quotes"),
        ("request.memory > 2h", 18, "`2h` is not a size", "it is compared with a size, as in 512Mi or 4Gi"),
        ("request.memory > 4", 18, "4 here is 4 bytes", "did you mean `4Gi`?"),
        ("memory_used > 90", 15, "a part of the whole is never 90", "did you mean `90%`?"),
        ("request.cpu > request.memory", 13, "an amount of cpu and a size are not compared", ""),
        ("request.gpu", 1, "the expression is a number, true or false is expected", "compare it"),
        ("1 || true", 1, "this is a number, true or false is expected", ""),
        ("request.gpu <", 14, "the expression ends too early", "conditions are written"),
        ("request.gpu < )", 15, "`)` does not fit here", "conditions are written"),
        ("matches(request.class)", 8, "the function `matches` is not known", "there are: size"),
        (
            "request.class.startswith('a')",
            25,
            "the function `startswith` is not known",
            "did you mean `startsWith`?",
        ),
        ("request.gpu % 2 == 0", 13, "numbers have decimals here", "percents are written 90%"),
        (
            "request.models.all(a, request.models.all(b, a == b))",
            41,
            "a list is gone through inside another",
            "two rules",
        ),
        ("_qq > 1", 1, "no such name", "there are: load"),
        ("{'a': 1}.a == 1", 1, "blocks of values are not taken", ""),
        ("request.confirmed > false", 19, "true or false has no order", ""),
        ("request.models == 'a'", 16, "a list and text are not compared", ""),
    ] {
        let problem = Expression::parse(text, &names()).expect_err(text);
        assert!(problem.message.starts_with(message), "{text}: {problem}");
        assert!(problem.help.contains(help), "{text}: {problem}");
        assert_eq!(problem.column, column, "{}", problem.show(text));
    }
    let problem = Expression::parse("request.gpu < 1 &&\n  request.memory > 1gi", &names()).unwrap_err();
    assert_eq!((problem.line, problem.column, problem.width), (2, 20, 3));
}

#[test]
fn the_conditions_of_the_seeds_are_taken_as_they_stand() {
    let measured = Names::measurements();
    for text in
        ["cpu_utilization > 90", "memory_available < 1Gi", "memory > 90%", "queue_depth >= 50", "wait > 2m"]
    {
        Expression::parse(text, &measured).unwrap_or_else(|problem| panic!("{}", problem.show(text)));
    }
}

#[test]
fn a_condition_without_an_answer_says_why() {
    for (text, why) in [
        ("request.labels['owner'] == 'ada'", "there is no owner"),
        ("request.labels.owner == 'ada'", "there is no owner"),
        ("request.models[7] == 'a'", "the list has no item"),
    ] {
        let expression =
            Expression::parse(text, &names()).unwrap_or_else(|problem| panic!("{}", problem.show(text)));
        let fault = expression.holds(&values()).unwrap_err();
        assert!(fault.0.starts_with(why), "{text}: {fault}");
    }
}
