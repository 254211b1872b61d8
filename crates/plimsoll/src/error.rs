//! Errors as users see them: what was asked and what stands in the way, ways out, the reason and the exit code.

use std::collections::BTreeMap;

use plimsoll_client::v1::{Blocker, ErrorReason};
use plimsoll_client::{Error, reason};
use serde_json::{Value, json};
use tonic::Code;

use crate::blockers::{by_weight, sentence, summary};
use crate::exit::Exit;
use crate::output::Paint;

/// A command that did not do what was asked.
#[derive(Clone, Debug)]
pub(crate) struct CliError {
    /// What was asked, where the message does not say so; may be empty.
    asked: String,
    message: String,
    /// One line for each thing that stands in the way or each field that is wrong.
    problems: Vec<String>,
    help: Vec<String>,
    reason: String,
    exit: Exit,
    code: Code,
    metadata: BTreeMap<String, String>,
    blockers: Vec<Blocker>,
    violations: Vec<(String, String)>,
    retry_after_ms: Option<u64>,
}

impl CliError {
    /// An error with its exit code; `reason` is a word for scripts, in capitals.
    pub(crate) fn new(exit: Exit, reason: &str, message: impl Into<String>) -> CliError {
        CliError {
            asked: String::new(),
            message: message.into(),
            problems: Vec::new(),
            help: Vec::new(),
            reason: reason.to_owned(),
            exit,
            code: match exit {
                Exit::Usage => Code::InvalidArgument,
                Exit::NotFound => Code::NotFound,
                Exit::Unreachable => Code::Unavailable,
                _ => Code::FailedPrecondition,
            },
            metadata: BTreeMap::new(),
            blockers: Vec::new(),
            violations: Vec::new(),
            retry_after_ms: None,
        }
    }

    /// Wrong usage.
    pub(crate) fn usage(message: impl Into<String>) -> CliError {
        CliError::new(Exit::Usage, "USAGE", message)
    }

    /// Something on this machine failed: a file, a terminal, a process.
    pub(crate) fn local(doing: &str, error: impl std::fmt::Display) -> CliError {
        CliError::new(Exit::Refused, "LOCAL", format!("{doing}: {error}"))
    }

    /// Says what was asked.
    pub(crate) fn asked(mut self, asked: impl Into<String>) -> CliError {
        self.asked = asked.into();
        self
    }

    /// Adds a way out.
    pub(crate) fn help(mut self, help: impl Into<String>) -> CliError {
        self.help.push(help.into());
        self
    }

    /// Adds places in files that are wrong, each with its line.
    pub(crate) fn at_places(mut self, problems: &[plimsoll_policy::Problem]) -> CliError {
        for problem in problems {
            self.problems.push(problem.to_string().replace('\n', "\n  "));
            self.violations.push((problem.place.to_string(), problem.message.clone()));
        }
        self
    }

    /// Adds what is wrong at places: the place, and what is said of it.
    pub(crate) fn at(mut self, wrong: Vec<(String, String)>) -> CliError {
        self.problems.extend(wrong.iter().map(|(place, what)| format!("{place}: {what}")));
        self.violations.extend(wrong);
        self
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(mut self, exit: Exit) -> CliError {
        self.exit = exit;
        self
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The one shape of errors, for people.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let separator = if self.asked.is_empty() { "" } else { ": " };
        let mut text = format!("{} {}{separator}{}\n", paint.bad("error:"), self.asked, self.message);
        for problem in &self.problems {
            text.push_str(&format!("  {} {problem}\n", paint.bullet()));
        }
        for help in &self.help {
            text.push_str(&format!("  {}  {help}\n", paint.strong("help")));
        }
        text.push_str(&format!("  ({}, exit {})\n", self.reason, self.exit.code()));
        text
    }

    /// A `google.rpc.Status` in proto3 JSON, for scripts.
    pub(crate) fn status(&self) -> Value {
        let url = |name: &str| format!("type.googleapis.com/google.rpc.{name}");
        let mut metadata = self.metadata.clone();
        metadata.insert("exit_code".to_owned(), self.exit.code().to_string());
        let mut details = vec![json!({
            "@type": url("ErrorInfo"), "reason": self.reason, "domain": reason::DOMAIN, "metadata": metadata,
        })];
        if let Some(ms) = self.retry_after_ms {
            let delay = format!("{}.{:03}s", ms / 1000, ms % 1000);
            details.push(json!({ "@type": url("RetryInfo"), "retryDelay": delay }));
        }
        if !self.blockers.is_empty() {
            let violations: Vec<Value> = self.blockers.iter().map(|b| self.violation(b)).collect();
            let name =
                if self.code == Code::ResourceExhausted { "QuotaFailure" } else { "PreconditionFailure" };
            details.push(json!({ "@type": url(name), "violations": violations }));
        }
        if !self.violations.is_empty() {
            let fields: Vec<Value> = self
                .violations
                .iter()
                .map(|(field, description)| json!({ "field": field, "description": description }))
                .collect();
            details.push(json!({ "@type": url("BadRequest"), "fieldViolations": fields }));
        }
        if !self.help.is_empty() {
            let links: Vec<Value> = self.help.iter().map(|help| json!({ "description": help })).collect();
            details.push(json!({ "@type": url("Help"), "links": links }));
        }
        let separator = if self.asked.is_empty() { "" } else { ": " };
        let message = format!("{}{separator}{}", self.asked, self.message);
        json!({ "code": self.code as i32, "message": message, "details": details })
    }

    fn violation(&self, blocker: &Blocker) -> Value {
        let mut violation = json!({ "subject": blocker.subject, "description": sentence(blocker) });
        if self.code != Code::ResourceExhausted {
            violation["type"] = json!(reason::name(blocker.reason()));
        }
        violation
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> CliError {
        let mut out = CliError::new(Exit::of_code(error.exit_code()), error.reason_name(), error.to_string());
        out.code = error.code();
        out.help.extend(error.advice().map(str::to_owned));
        match error {
            Error::Refused(refused) => {
                out.metadata = refused.metadata.clone();
                out.message = placement(&refused).unwrap_or(out.message);
                out.metadata.insert("definite".to_owned(), refused.definite.to_string());
                out.problems = if refused.violations.is_empty() {
                    by_weight(&refused.blockers).iter().map(sentence).collect()
                } else {
                    refused.violations.iter().map(|(field, text)| format!("{field}: {text}")).collect()
                };
                // One problem is the message already.
                if out.problems.len() == 1
                    && (out.message.contains(&out.problems[0]) || refused.violations.is_empty())
                {
                    out.problems.clear();
                }
                out.blockers = by_weight(&refused.blockers);
                out.violations = refused.violations;
                out.retry_after_ms = refused.retry_after_ms;
            }
            Error::Unknown { request_id, .. } => {
                out.metadata.insert("request_id".to_owned(), request_id);
                out.metadata.insert("definite".to_owned(), "false".to_owned());
            }
            Error::Invalid(_) => out.reason = "USAGE".to_owned(),
            Error::Unavailable { .. } | Error::LeaseLost { .. } => {}
        }
        out
    }
}

/// What stands in the way of a place, with the first thing as people write it; `None` for other refusals.
fn placement(refused: &plimsoll_client::Refused) -> Option<String> {
    let is_about_place = refused.blockers.first().is_some_and(|first| {
        !first.message.is_empty() && refused.message.starts_with(first.message.as_str())
    });
    let never =
        if refused.reason == ErrorReason::Infeasible { "nothing there is can ever hold this: " } else { "" };
    is_about_place.then(|| format!("{never}{}", summary(&refused.blockers)))
}

impl From<plimsoll_types::quantity::QuantityError> for CliError {
    fn from(error: plimsoll_types::quantity::QuantityError) -> CliError {
        CliError::usage(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_one_shape() {
        let error = CliError::usage("\"x\" is not a size").asked("cannot reserve").help("write 4Gi");
        let text = error.text(Paint::PLAIN);
        assert_eq!(
            text,
            "error: cannot reserve: \"x\" is not a size\n  help  write 4Gi\n  (USAGE, exit 2)\n"
        );
        let status = error.status();
        assert_eq!(status["code"], 3);
        assert_eq!(status["details"][0]["reason"], "USAGE");
        assert_eq!(status["details"][0]["metadata"]["exit_code"], "2");
    }

    #[test]
    fn an_unknown_outcome_carries_its_request_id() {
        let error = Error::Unknown { request_id: "id-0".into(), message: "cut off".into() };
        let status = CliError::from(error).status();
        assert_eq!(status["details"][0]["metadata"]["request_id"], "id-0");
        assert_eq!(status["details"][0]["metadata"]["definite"], "false");
    }
}
