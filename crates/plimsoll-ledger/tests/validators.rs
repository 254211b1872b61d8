//! Validators as the ledger has them: text of a bounded size, from ledger version 4 on.

mod fixture;

use fixture::{Fixture, request};
use plimsoll_ledger::limits::{MAX_EXPRESSION_BYTES, MAX_RULES, MAX_VALIDATORS};
use plimsoll_ledger::{
    Command, LATEST_VERSION, Ledger, Outcome, PolicyName, PolicyObject, Reason, Rule, Validator, Verdict,
};
use plimsoll_types::Revision;

fn validator(name: &str, expression: &str, rules: usize) -> PolicyObject {
    let rule = Rule { expression: expression.to_owned(), ..Rule::default() };
    PolicyObject::Validator(Validator {
        name: name.to_owned(),
        subject: "Reservation".to_owned(),
        rules: vec![rule; rules],
        ..Validator::default()
    })
}

fn put(objects: Vec<PolicyObject>) -> Command {
    Command::ApplyPolicy { put: objects, delete: Vec::new(), if_revision: Revision(0) }
}

fn delete(name: &str) -> Command {
    let delete = vec![PolicyName::Validator(name.to_owned())];
    Command::ApplyPolicy { put: Vec::new(), delete, if_revision: Revision(0) }
}

fn newest() -> Fixture {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f
}

#[test]
fn before_version_4_there_are_no_validators() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 3 });
    assert_eq!(f.refused(put(vec![validator("a", "true", 1)])), Reason::UnsupportedVersion);
    assert_eq!((put(vec![validator("a", "true", 1)]).since_version(), delete("a").since_version()), (4, 4));
}

#[test]
fn a_validator_is_text_to_the_ledger_and_survives_its_rows() {
    let mut f = newest();
    // Whether it means anything is asked elsewhere: a request is decided without it.
    assert_eq!(f.run(put(vec![validator("a", "no such thing (", 1)])), Outcome::Done);
    let granted =
        f.run(Command::Submit { request: request(1_000), verdict: Verdict::Place(fixture::on(&[0])) });
    assert!(matches!(granted, Outcome::Reservation(_)), "{granted:?}");
    let kept = f.ledger.validator("a").expect("it is there");
    assert_eq!(
        (kept.rules[0].expression.as_str(), kept.changed),
        ("no such thing (", f.ledger.meta().policy_changed)
    );
    let again = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its rows make a ledger");
    assert_eq!(again.validators().collect::<Vec<_>>(), f.ledger.validators().collect::<Vec<_>>());
    assert_eq!(f.run(delete("a")), Outcome::Done);
    assert_eq!(f.refused(delete("a")), Reason::NotFound);
    assert_eq!(f.ledger.validators().count(), 0);
}

#[test]
fn validators_are_bounded_in_number_and_size() {
    let mut f = newest();
    let long = "x".repeat(MAX_EXPRESSION_BYTES + 1);
    for (expression, rules) in [(long.as_str(), 1), ("", 1), ("true", 0), ("true", MAX_RULES + 1)] {
        assert_eq!(
            f.refused(put(vec![validator("a", expression, rules)])),
            Reason::InvalidArgument,
            "{rules} rules"
        );
    }
    let many = |count: usize| (0..count).map(|n| validator(&format!("v{n}"), "true", 1)).collect::<Vec<_>>();
    assert_eq!(f.run(put(many(MAX_VALIDATORS))), Outcome::Done);
    assert_eq!(f.run(put(many(MAX_VALIDATORS))), Outcome::Done, "the same ones again");
    assert_eq!(f.refused(put(vec![validator("one-more", "true", 1)])), Reason::TableFull);
    let instead = Command::ApplyPolicy {
        put: vec![validator("one-more", "true", 1)],
        delete: vec![PolicyName::Validator("v0".to_owned())],
        if_revision: Revision(0),
    };
    assert_eq!(f.run(instead), Outcome::Done);
}
