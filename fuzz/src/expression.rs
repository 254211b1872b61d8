//! Conditions: CEL with quantities, from whoever may write policy.

use std::collections::BTreeMap;

use plimsoll_expr::{Expression, Names, Type, Unit, Value};

/// Stack of the thread that it runs on, in bytes: that of a thread of the runtime.
const SMALL_STACK: usize = 2 << 20;

/// Reads the input as a condition, and evaluates it. It comes to an end with an answer or with words that name a place inside the text.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let text = text.to_owned();
    let thread = std::thread::Builder::new().stack_size(SMALL_STACK).spawn(move || read(&text));
    thread.expect("a thread starts").join().expect("it returned");
}

fn read(text: &str) {
    match Expression::parse(text, &names()) {
        Ok(expression) => {
            if let Err(fault) = expression.holds(&values()) {
                assert!(!fault.0.is_empty(), "{text:?} has no answer and no reason");
            }
        }
        Err(problem) => {
            let lines = text.split('\n').count() as u32;
            assert!((1..=lines.max(1)).contains(&problem.line), "{text:?}: {problem}");
            assert!(!problem.message.is_empty() && problem.column > 0, "{text:?}: {problem}");
            assert!(!problem.show(text).is_empty());
        }
    }
}

fn names() -> Names {
    let request = Names::new([
        ("gpu", Type::Number(Unit::Plain)),
        ("memory", Type::Number(Unit::Bytes)),
        ("ttl", Type::Number(Unit::Seconds)),
        ("class", Type::Text),
        ("labels", Type::Map(Box::new(Type::Text))),
        ("models", Type::List(Box::new(Type::Text))),
        ("spread", Type::Bool),
    ]);
    Names::new([("request", Type::Object(request))])
}

fn values() -> BTreeMap<&'static str, Value> {
    let request = Value::object([
        ("gpu", Value::count(2)),
        ("memory", Value::count(4 << 30)),
        ("ttl", Value::count(60)),
        ("class", Value::text("batch")),
        ("labels", Value::object([("team", Value::text("vision"))])),
        ("models", Value::List(vec![Value::text("a100"), Value::text("h100")])),
        ("spread", Value::Bool(false)),
    ]);
    BTreeMap::from([("request", request)])
}

/// Conditions of every kind, and hostile ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut texts: Vec<String> = [
        "request.gpu <= 8 || request.class == 'critical'",
        "request.memory > 4Gi && request.memory < 1Ti",
        "request.memory * 50% < 1.5Gi + 512Mi",
        "request.ttl <= 2h ? request.spread : !request.spread",
        "has(request.labels.team) && request.labels['team'].startsWith('vis')",
        "request.models.exists(m, m == 'h100') || size(request.models) == 0",
        "request.models.map(m, m + '-80gb')[0] in ['a100-80gb', \"x\"]",
        "request.gpu in [1, 2, 4, 8] && -request.gpu * 0.5 != 1e3",
        "request.memory > 1gi",
        "request.colour == 'red'",
        "((((((((((((request.spread))))))))))))",
        "request.class == 'it\\'s'",
        "a = 1 // no",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push(format!("1{} == 1", "+1".repeat(120)));
    texts.push(format!("{}request.spread", "!".repeat(200)));
    texts.push(format!("request{}", ".a".repeat(120)));
    texts.push(format!("request.models{}", "[0]".repeat(60)));
    texts.push("request.spread?".repeat(12));
    texts.into_iter().map(String::into_bytes).collect()
}
