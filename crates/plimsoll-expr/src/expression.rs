//! A condition that was checked, and its evaluation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use cel::parser::Parser;
use cel::{Context, Env, ExecutionError, IdedExpr};

use crate::check::Checker;
use crate::lexer::{Lexed, lex};
use crate::names::Names;
use crate::problem::Problem;
use crate::run::{depth, on_large_stack};
use crate::value::Value;

/// Deepest expression, in levels of what was parsed. A chain of `+` is as deep as it is long; one of `&&` or `||` is not.
const MAX_DEPTH: usize = 32;
/// Rules of the grammar inside each other: those of one bracket are about one.
const MAX_RECURSION: u16 = 48;

/// A condition: parsed, its names known, its types and units right.
#[derive(Clone, Debug)]
pub struct Expression {
    text: String,
    parsed: Arc<IdedExpr>,
    used: BTreeSet<String>,
}

/// Why a condition has no answer for the values given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl Expression {
    /// Reads a condition over `names`. Whatever the text is, this returns, on any thread.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and what would be right.
    pub fn parse(text: &str, names: &Names) -> Result<Expression, Problem> {
        let lexed = lex(text)?;
        let chars: Vec<char> = text.chars().collect();
        let parsed = on_large_stack(|| parse(&lexed, &chars, names));
        let (parsed, used) = parsed.unwrap_or_else(|| {
            Err(Problem::at(
                &chars,
                0,
                chars.len(),
                "the expression could not be read",
                "write it in other words",
            ))
        })?;
        let expression = Expression { text: text.to_owned(), parsed: Arc::new(parsed), used };
        expression.dry_run(names, &chars)?;
        Ok(expression)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Names of the outermost level that it uses: only their values are needed.
    pub fn uses(&self, name: &str) -> bool {
        self.used.contains(name)
    }

    /// Whether the condition holds for these values.
    ///
    /// # Errors
    /// Where it has no answer: a label that is not there, a division by zero.
    pub fn holds(&self, values: &BTreeMap<&str, Value>) -> Result<bool, Fault> {
        let mut context = Context::with_env(environment());
        for name in &self.used {
            let value =
                values.get(name.as_str()).ok_or_else(|| Fault(format!("there is no value of {name}")))?;
            context.add_variable_from_value(name.as_str(), cel::Value::from(value));
        }
        match cel::Value::resolve(&self.parsed, &context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err(Fault("it is neither true nor false".to_owned())),
            Err(error) => Err(Fault(explain(&error))),
        }
    }

    /// Evaluates it with values of the right types, so that what the checks do not see is told now and not later.
    fn dry_run(&self, names: &Names, chars: &[char]) -> Result<(), Problem> {
        let samples = names.iter().map(|(name, kind)| (name, Value::sample(kind))).collect();
        let Err(fault) = self.holds(&samples) else { return Ok(()) };
        let depends =
            fault.0.starts_with(NO_KEY) || fault.0.starts_with(NO_ITEM) || fault.0.starts_with(BY_ZERO);
        if depends { Ok(()) } else { Err(Problem::at(chars, 0, chars.len(), fault.0, "")) }
    }
}

const NO_KEY: &str = "there is no";
const NO_ITEM: &str = "the list has no item";
const BY_ZERO: &str = "it divides by zero";

fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("{NO_KEY} {key}: ask before, as in has(x.y) or 'y' in x"),
        ExecutionError::IndexOutOfBounds(_) => format!("{NO_ITEM} at that place"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => BY_ZERO.to_owned(),
        other => other.to_string(),
    }
}

fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    Arc::clone(ENVIRONMENT.get_or_init(|| Arc::new(Env::stdlib())))
}

fn parse(lexed: &Lexed, chars: &[char], names: &Names) -> Result<(IdedExpr, BTreeSet<String>), Problem> {
    let parser = Parser::new().max_recursion_depth(MAX_RECURSION).error_recovery_limit(4);
    let (mut parsed, info) =
        parser.parse_with_source_info(&lexed.text).map_err(|errors| syntax(&errors, chars))?;
    let levels = depth(&parsed);
    if levels > MAX_DEPTH {
        let message = format!("the expression is {levels} levels deep, at most {MAX_DEPTH} are taken");
        return Err(Problem::at(chars, 0, chars.len(), message, "split it into several rules"));
    }
    let mut checker = Checker::new(chars, lexed, &info, names);
    checker.condition(&mut parsed)?;
    Ok((parsed, checker.used))
}

/// What the parser says first, at its place.
fn syntax(errors: &cel::ParseErrors, chars: &[char]) -> Problem {
    let Some(error) = errors.errors.first() else {
        return Problem::at(chars, 0, chars.len(), "the expression could not be read", "");
    };
    let number = |value: isize| usize::try_from(value).unwrap_or_default();
    let (line, column) = (number(error.pos.0), number(error.pos.1));
    let before: usize =
        chars.split_inclusive(|c| *c == '\n').take(line.saturating_sub(1)).map(<[char]>::len).sum();
    let at = before + column.saturating_sub(1);
    let message = if at >= chars.len() {
        "the expression ends too early".to_owned()
    } else {
        let word: String = chars[at..].iter().take_while(|c| !c.is_whitespace()).take(20).collect();
        format!("`{word}` does not fit here")
    };
    Problem::at(
        chars,
        at,
        at + 1,
        message,
        "conditions are written as in request.gpu <= 8 || request.class == 'critical'",
    )
}
