//! `docs/errors.md` has one section for each reason of the one enum, and no other; its facts are those of the registry.

use plimsoll_client::reason::{self, Details, Retry};
use plimsoll_client::v1::{Blocker, ErrorReason};

use crate::page;

const PATH: &str = "docs/errors.md";
/// Ends the part of a section that comes from the registry.
const ADVICE: &str = "**What to do:** ";

#[test]
fn every_reason_has_its_section_with_the_facts_of_the_registry() {
    let text = page::read(PATH);
    let mut sections = text.split("\n## ");
    let mut wanted = sections.next().expect("a text has a beginning").trim_end().to_owned();
    wanted.push('\n');
    let written: Vec<(&str, &str)> =
        sections.map(|section| section.split_once('\n').unwrap_or((section, ""))).collect();
    let mut names = Vec::new();
    for reason in reason::all() {
        let name = reason::name(reason);
        let body = written.iter().find(|(heading, _)| *heading == name).map(|(_, body)| *body);
        let body = body.unwrap_or_else(|| panic!("{PATH} has no section for {name}"));
        // What follows the advice is prose, written by hand: when it comes, and what it carries.
        let prose = match body.split_once(ADVICE) {
            Some((_, rest)) => rest.split_once('\n').map_or("", |(_, prose)| prose),
            None => body,
        };
        assert!(prose.trim().len() > 20, "{PATH}: {name} does not say when it comes and what it carries");
        wanted.push_str(&format!("\n## {name}\n\n{}\n\n{}\n", facts(reason), prose.trim()));
        names.push(name);
    }
    for (heading, _) in written {
        assert!(names.contains(&heading), "{PATH}: {heading} is no reason");
    }
    page::expect(PATH, &wanted);
}

fn facts(reason: ErrorReason) -> String {
    let entry = reason::entry(reason);
    let again = match entry.retry {
        Retry::Never => "no: the same request is refused again",
        Retry::Later => "later, after a back-off; the SDKs do not do it by themselves",
        Retry::Again => "yes; the SDKs do it with the same request id",
        Retry::AfterRead => "after reading the present state",
    };
    // A call that ran out of time may have changed something, if it was one that changes things: see `Problem::deadline`.
    let definite = match reason {
        ErrorReason::Deadline => "for reads; a change may have been applied",
        _ if Details::new(reason, "").definite => "yes",
        _ => "no",
    };
    let mut description = entry.description.to_owned();
    description[..1].make_ascii_uppercase();
    format!(
        "{description}.\n\n| gRPC code | exit code | definite | ask again | details |\n| --- | --- | --- | --- | --- |\n\
         | {} | {} | {definite} | {again} | {} |\n\n{ADVICE}{}.",
        code_name(entry.code),
        entry.exit_code,
        details(reason),
        entry.advice,
    )
}

/// `google.rpc` details of a status of this reason that has something standing in the way.
fn details(reason: ErrorReason) -> String {
    let blockers = vec![Blocker { reason: reason.into(), subject: "cpu".to_owned(), ..Blocker::default() }];
    let status = Details { blockers, ..Details::new(reason, "") }.into_status();
    let decoded = tonic::Status::details(&status).to_vec();
    let known = ["ErrorInfo", "RetryInfo", "PreconditionFailure", "QuotaFailure", "BadRequest", "Help"];
    let has = |name: &&&str| {
        let url = format!("google.rpc.{name}");
        decoded.windows(url.len()).any(|window| window == url.as_bytes())
    };
    known.iter().filter(has).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// As gRPC spells it: `FAILED_PRECONDITION`.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}
