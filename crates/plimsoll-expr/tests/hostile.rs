//! Whatever the text is, it is read or refused: no panic, no overflow of the stack, on a thread as small as those that serve.

use std::collections::BTreeMap;

use plimsoll_expr::{Expression, MAX_BYTES, Names, Type, Unit, Value};
use proptest::prelude::*;

/// Stack of a thread of the runtime.
const SMALL: usize = 2 << 20;

fn names() -> Names {
    Names::new([
        ("a", Type::Number(Unit::Plain)),
        ("b", Type::Bool),
        ("l", Type::List(Box::new(Type::Text))),
        ("m", Type::Map(Box::new(Type::Text))),
    ])
}

fn values() -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("a", Value::Number(1.0)),
        ("b", Value::Bool(true)),
        ("l", Value::List(vec![Value::text("x"); 64])),
        ("m", Value::object([("k", Value::text("v"))])),
    ])
}

/// Reads, evaluates and drops it.
fn try_out(text: &str) -> bool {
    match Expression::parse(text, &names()) {
        Ok(expression) => {
            drop(expression.holds(&values()));
            true
        }
        Err(problem) => {
            drop(problem.show(text));
            false
        }
    }
}

fn on_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(SMALL).spawn(work).unwrap();
    thread.join().expect("it returned");
}

/// Patterns repeated until the text is as long as it may be, and past it.
fn hostile() -> Vec<String> {
    let repeated = [
        ("", "1+", "1 == 1"),
        ("", "a*", "a > 1"),
        ("", "-", "1 < 2"),
        ("", "!", "b"),
        ("", "- -", "a < 1"),
        ("", "(", "b"),
        ("(", "b)||(", "b)"),
        ("", "[", "1"),
        ("", "{1:", "1"),
        ("", "b?b:", "b"),
        ("", "b ? (b) : ", "b"),
        ("", "b&&", "b"),
        ("", "b||", "b"),
        ("", "b&&b||", "b"),
        ("a", ".a", " > 1"),
        ("l", "[0]", " > 1"),
        ("m", ".k", "=='v'"),
        ("", "a<", "a"),
        ("", "a==", "a"),
        ("", "a in ", "l"),
        ("", "size(", "l"),
        ("", "l.all(x,", "b"),
        ("", "has(", "m.k"),
        ("l", ".map(x,x)", "==l"),
        ("l", ".filter(x,b)", "==l"),
        ("", "\"", ""),
        ("", "'\\", ""),
        ("", "`", ""),
        ("", "b'", ""),
        ("", "0x", ""),
        ("", "9", ""),
        ("", "1e", ""),
        ("", ".", ""),
        ("", "?", ""),
        ("", ":", ""),
        ("", "a.", "a"),
        ("", "b==!", "b"),
        ("[", "1,", "1]==[1]"),
        ("a in [", "1Gi,", "1]"),
        ("", "a%", "a"),
        ("", "\u{1f980}", ""),
        ("", "_", "q"),
        ("", "x{", "}"),
        ("", "\n", "b"),
        ("", "//\n", "b"),
        ("", "/*", "b"),
        ("", "@", "b"),
        ("", "$", "b"),
        ("", "\0", "b"),
        ("'", "\u{fc}", "'=='a'"),
    ];
    let mut texts = Vec::new();
    for (head, pattern, tail) in repeated {
        for count in [
            1, 5, 11, 12, 13, 24, 30, 31, 32, 48, 60, 64, 85, 100, 120, 127, 128, 200, 255, 256, 500, 1_000,
            100_000,
        ] {
            let mut text = format!("{head}{}{tail}", pattern.repeat(count));
            let open = text
                .chars()
                .filter(|c| *c == '(')
                .count()
                .saturating_sub(text.chars().filter(|c| *c == ')').count());
            texts.push(text.clone());
            text.push_str(&")".repeat(open.min(2_000)));
            texts.push(text.clone());
            text.push_str(&"]".repeat(text.matches('[').count().min(2_000)));
            texts.push(text);
        }
    }
    texts
}

#[test]
fn deep_and_long_texts_are_read_or_refused_on_a_small_stack() {
    on_small_stack(|| {
        let taken = hostile().iter().filter(|text| try_out(text)).count();
        assert!(taken > 50, "some of them are harmless: {taken}");
    });
}

#[test]
fn what_is_long_is_refused_before_anything_looks_at_it() {
    let text = "b&&".repeat(MAX_BYTES);
    assert!(Expression::parse(&text, &names()).unwrap_err().message.contains("3072 bytes"));
}

#[test]
fn a_chain_of_conditions_is_as_long_as_the_text_may_be() {
    let text = format!("{}b", "b && ".repeat(100));
    assert_eq!(Expression::parse(&text, &names()).unwrap().holds(&values()), Ok(true));
}

/// Pieces of expressions, in any order: much of it parses.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "l",
        "m",
        "m.k",
        "l[0]",
        "1",
        "0.5",
        "'x'",
        "90%",
        "4Gi",
        "500m",
        "2h",
        "1e3",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " == ",
        " != ",
        " < ",
        " >= ",
        " && ",
        " || ",
        "!",
        "-",
        "(",
        ")",
        "[",
        "]",
        ",",
        " in ",
        " ? ",
        " : ",
        "size(",
        "has(",
        "l.all(x, ",
        "l.map(y, ",
        ".size()",
        "x",
        "y",
        "true",
        "null",
        "{",
        "}",
        ".",
        "'",
        "\"",
        "\\",
        "\n",
        "\u{e9}",
        "1u",
        "0x1F",
        "b\"",
        "r'",
        "_qq",
        "double(",
        "type(",
        "a.b.c",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_pieces_are_read_or_refused(text in pieces()) {
        try_out(&text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        try_out(&text);
    }

    #[test]
    fn what_is_read_has_an_answer_or_says_why(left in pieces(), right in pieces()) {
        if let Ok(expression) = Expression::parse(&format!("{left} == {right}"), &names()) {
            let fault = expression.holds(&values()).err().map(|fault| fault.0).unwrap_or_default();
            prop_assert!(!fault.contains("overload") && !fault.contains("Unsupported"), "{}: {fault}", expression.text());
        }
    }
}
