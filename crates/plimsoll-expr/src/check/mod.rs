//! Names, types and units of a parsed expression; quantities and numbers take their values here.
//!
//! The CEL library has no type checker. This one knows what conditions need: every name, every function, and that only like is compared with
//! like, the parts that an evaluation would skip too.

mod call;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SelectExpr, SourceInfo};
use cel::common::types::CelDouble;

use crate::lexer::{Lexed, is_placeholder};
use crate::literal::Literal;
use crate::names::{Names, Type, Unit, suggest};
use crate::problem::Problem;

/// Sizes smaller than this are slips: nobody means four bytes.
const LEAST_BYTES: f64 = 1024.0;

/// Checks an expression and the names that it uses.
pub(crate) struct Checker<'a> {
    text: &'a [char],
    /// What the parser read: as long as the text in characters; its places are counted in bytes.
    parsed: &'a str,
    info: &'a SourceInfo,
    literals: &'a BTreeMap<usize, Literal>,
    names: &'a Names,
    scope: Vec<(String, Type)>,
    loops: usize,
    /// Names of the outermost level that it uses.
    pub(crate) used: BTreeSet<String>,
}

type Checked = Result<Type, Problem>;

impl<'a> Checker<'a> {
    pub(crate) fn new(
        text: &'a [char],
        lexed: &'a Lexed,
        info: &'a SourceInfo,
        names: &'a Names,
    ) -> Checker<'a> {
        let Lexed { text: parsed, literals } = lexed;
        Checker { text, parsed, info, literals, names, scope: Vec::new(), loops: 0, used: BTreeSet::new() }
    }

    /// The whole expression, which must be a condition.
    pub(crate) fn condition(&mut self, expr: &mut IdedExpr) -> Result<(), Problem> {
        let kind = self.check(expr, None)?;
        if kind.is_bool() {
            return Ok(());
        }
        let message = format!("the expression is {}, true or false is expected", kind.describe());
        Err(Problem::at(self.text, 0, self.text.len(), message, "compare it with something, as in x <= 8"))
    }

    fn problem(&self, expr: &IdedExpr, message: impl Into<String>, help: impl Into<String>) -> Problem {
        let (start, stop) = self.place(expr).unwrap_or((0, 0));
        // The parser's end is the place of the last character.
        Problem::at(self.text, start, stop.max(start) + 1, message, help)
    }

    /// The type of a part; `hint` is the unit that a bare quantity in it is meant in.
    fn check(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        match &mut expr.expr {
            Expr::Literal(_) => self.literal(expr, hint),
            Expr::Ident(_) => self.name(expr, hint),
            Expr::Select(_) => self.select(expr),
            Expr::Call(_) => self.call(expr, hint),
            Expr::List(_) => self.list(expr, hint),
            Expr::Comprehension(_) => self.comprehension(expr),
            Expr::Map(_) | Expr::Struct(_) => {
                Err(self.problem(expr, "blocks of values are not taken", "compare with single values"))
            }
            Expr::Unspecified => Err(self.problem(expr, "something is missing here", "")),
        }
    }

    /// Numbers are decimal throughout, so that 1 and 0.5 can be compared and added.
    fn literal(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let number = match &expr.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => return Ok(Type::Bool),
            Expr::Literal(LiteralValue::String(_)) => return Ok(Type::Text),
            Expr::Literal(LiteralValue::Int(number)) => *number.inner() as f64,
            Expr::Literal(LiteralValue::Double(number)) => *number.inner(),
            _ => {
                return Err(self.problem(
                    expr,
                    "this kind of value is not taken",
                    "numbers are written 8 or 0.5",
                ));
            }
        };
        expr.expr = double(number);
        match hint {
            Some(Unit::Bytes) if number > 0.0 && number < LEAST_BYTES => {
                let help = format!("did you mean `{number}Gi`?");
                Err(self.problem(expr, format!("{number} here is {number} bytes"), help))
            }
            Some(Unit::Ratio) if number > 1.0 => {
                let help = format!("did you mean `{number}%`?");
                Err(self.problem(expr, format!("a part of the whole is never {number}: it is 0 to 1"), help))
            }
            _ => Ok(Type::Number(hint.unwrap_or(Unit::Plain))),
        }
    }

    fn quantity(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let Some(literal) = self.placed(expr) else {
            return Err(self.problem(
                expr,
                "no such name",
                suggest("", self.names.iter().map(|(name, _)| name)),
            ));
        };
        let unit = hint.filter(|unit| *unit != Unit::Plain).unwrap_or_else(|| literal.natural());
        match literal.value_in(unit) {
            Some(value) => {
                expr.expr = double(value);
                Ok(Type::Number(unit))
            }
            None => {
                let message = format!("`{}` is not {}", literal.text, Type::Number(unit).describe());
                Err(self.problem(expr, message, format!("it is compared with {}", unit.describe())))
            }
        }
    }

    fn name(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let Expr::Ident(name) = &expr.expr else { return Ok(Type::Any) };
        if is_placeholder(name) {
            return self.quantity(expr, hint);
        }
        if let Some(kind) = self.type_of_name(name) {
            if self.scope.iter().all(|(known, _)| known != name) {
                self.used.insert(name.clone());
            }
            return Ok(kind);
        }
        let help = suggest(name, self.names.iter().map(|(name, _)| name));
        Err(self.problem(expr, format!("`{name}` is not known"), help))
    }

    fn type_of_name(&self, name: &str) -> Option<Type> {
        let local = self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind);
        local.or_else(|| self.names.get(name)).cloned()
    }

    fn select(&mut self, expr: &mut IdedExpr) -> Checked {
        let Expr::Select(SelectExpr { operand, field, test }) = &mut expr.expr else { return Ok(Type::Any) };
        let (field, test) = (field.clone(), *test);
        let of = self.check(operand, None)?;
        let found = match &of {
            Type::Object(names) => match names.get(&field) {
                Some(kind) => kind.clone(),
                None => {
                    let help = suggest(&field, names.iter().map(|(name, _)| name));
                    return Err(self.problem(expr, format!("`{field}` is not known here"), help));
                }
            },
            Type::Map(kind) => Type::clone(kind),
            Type::Any => Type::Any,
            other => {
                let message = format!("{} has nothing of the name `{field}`", other.describe());
                return Err(self.problem(expr, message, ""));
            }
        };
        Ok(if test { Type::Bool } else { found })
    }

    fn list(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let Expr::List(list) = &mut expr.expr else { return Ok(Type::Any) };
        let mut elements = std::mem::take(&mut list.elements);
        let mut kind = Type::Any;
        for element in &mut elements {
            let of = self.check(element, hint)?;
            kind = kind.with(&of).ok_or_else(|| {
                let message = format!("the list has {} and {} in it", kind.describe(), of.describe());
                self.problem(element, message, "")
            })?;
        }
        if let Expr::List(list) = &mut expr.expr {
            list.elements = elements;
        }
        Ok(Type::List(Box::new(kind)))
    }
}

impl Type {
    fn is_bool(&self) -> bool {
        matches!(self, Type::Bool | Type::Any)
    }

    /// What both are; `None` where they are different. A plain number takes the unit of the other.
    fn with(&self, other: &Type) -> Option<Type> {
        match (self, other) {
            (Type::Any, kind) | (kind, Type::Any) => Some(kind.clone()),
            (Type::Number(Unit::Plain), Type::Number(unit))
            | (Type::Number(unit), Type::Number(Unit::Plain)) => Some(Type::Number(*unit)),
            (Type::List(left), Type::List(right)) => left.with(right).map(|kind| Type::List(Box::new(kind))),
            (left, right) => (left == right).then(|| left.clone()),
        }
    }
}

fn double(number: f64) -> Expr {
    Expr::Literal(LiteralValue::Double(CelDouble::from(number)))
}
