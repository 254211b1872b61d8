//! Operators, functions and loops over lists: what they take, and what comes out.

use cel::IdedExpr;
use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue};

use super::{Checked, Checker};
use crate::lexer::is_placeholder;
use crate::names::{Type, Unit, suggest};
use crate::problem::Problem;

/// Functions and macros that may be called.
const FUNCTIONS: [&str; 10] =
    ["size", "contains", "startsWith", "endsWith", "has", "all", "exists", "exists_one", "filter", "map"];

impl Checker<'_> {
    pub(super) fn call(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let place = IdedExpr { id: expr.id, expr: Expr::Unspecified };
        let Expr::Call(call) = &mut expr.expr else { return Ok(Type::Any) };
        let name = call.func_name.clone();
        match (name.as_str(), call.args.as_mut_slice(), &mut call.target) {
            (op::LOGICAL_AND | op::LOGICAL_OR, [left, right], None) => {
                for side in [left, right] {
                    self.expect_bool(side)?;
                }
                Ok(Type::Bool)
            }
            (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [of], None) => {
                self.expect_bool(of)?;
                Ok(Type::Bool)
            }
            (op::CONDITIONAL, [condition, yes, no], None) => {
                self.expect_bool(condition)?;
                let hint = hint.or_else(|| self.unit_of(yes)).or_else(|| self.unit_of(no));
                let (yes, no) = (self.check(yes, hint)?, self.check(no, hint)?);
                self.same(&place, &yes, &no)
            }
            (op::EQUALS | op::NOT_EQUALS, [left, right], None) => {
                let (left, right) = self.both(left, right)?;
                self.same(&place, &left, &right)?;
                Ok(Type::Bool)
            }
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [left, right], None) => {
                let (left, right) = self.both(left, right)?;
                let kind = self.same(&place, &left, &right)?;
                match kind {
                    Type::Number(_) | Type::Text | Type::Any => Ok(Type::Bool),
                    _ => Err(self.problem(&place, format!("{} has no order", kind.describe()), "")),
                }
            }
            (op::IN, [item, of], None) => {
                let hint = self.unit_of(item).or_else(|| self.unit_of(of));
                let (item, of) = (self.check(item, hint)?, self.check(of, hint)?);
                match of {
                    Type::List(kind) => self.same(&place, &item, &kind)?,
                    Type::Map(_) => self.same(&place, &item, &Type::Text)?,
                    Type::Any => Type::Any,
                    other => {
                        let message = format!("nothing is in {}", other.describe());
                        return Err(self.problem(&place, message, "a list is written ['a', 'b']"));
                    }
                };
                Ok(Type::Bool)
            }
            (op::ADD | op::SUBSTRACT, [left, right], None) => {
                let given = hint.or_else(|| self.unit_of(left)).or_else(|| self.unit_of(right));
                let (left, right) = (self.check(left, given)?, self.check(right, given)?);
                let kind = self.same(&place, &left, &right)?;
                let adds = name == op::ADD && matches!(kind, Type::Text | Type::List(_));
                self.arithmetic(&place, kind, adds)
            }
            (op::MULTIPLY | op::DIVIDE, [left, right], None) => {
                let (left, right) = (self.factor(left, hint)?, self.factor(right, hint)?);
                let (left, right) =
                    (self.arithmetic(&place, left, false)?, self.arithmetic(&place, right, false)?);
                Ok(match (left, right) {
                    (Type::Number(left), Type::Number(right)) if name == op::DIVIDE && left == right => {
                        Type::Number(Unit::Plain)
                    }
                    (Type::Number(Unit::Plain | Unit::Ratio), other) => other,
                    (other, _) => other,
                })
            }
            (op::NEGATE, [of], None) => {
                let kind = self.check(of, hint)?;
                self.arithmetic(&place, kind, false)
            }
            (op::MODULO, _, None) => Err(self.problem(
                &place,
                "numbers have decimals here, so there is no `%`",
                "percents are written 90%",
            )),
            (op::INDEX, [of, index], None) => self.index(&place, of, index),
            ("size", [of], None) => {
                self.sized(of)?;
                count(expr);
                Ok(Type::Number(Unit::Plain))
            }
            ("size", [], Some(of)) => {
                self.sized(of)?;
                count(expr);
                Ok(Type::Number(Unit::Plain))
            }
            ("contains" | "startsWith" | "endsWith", [part], Some(of)) => {
                for text in [&mut **of, part] {
                    let kind = self.check(text, None)?;
                    if !matches!(kind, Type::Text | Type::Any) {
                        let message = format!("{name} is for text, and this is {}", kind.describe());
                        return Err(self.problem(text, message, "whether a list has something: 'a' in list"));
                    }
                }
                Ok(Type::Bool)
            }
            _ => Err(self.unknown_call(&place, &name)),
        }
    }

    fn unknown_call(&self, place: &IdedExpr, name: &str) -> Problem {
        if FUNCTIONS.contains(&name) {
            let help = match name {
                "size" => "size(x)",
                "has" => "has(x.y)",
                "contains" | "startsWith" | "endsWith" => {
                    "x.contains('part'), x.startsWith('part'), x.endsWith('part')"
                }
                _ => "list.exists(x, x == 'a'), and so all, exists_one, filter and map",
            };
            return self.problem(
                place,
                format!("{name} is not called like this"),
                format!("it is written {help}"),
            );
        }
        let what = if name.starts_with(|c: char| c.is_ascii_alphabetic()) { "function" } else { "sign" };
        self.problem(place, format!("the {what} `{name}` is not known"), suggest(name, FUNCTIONS))
    }

    /// Both sides of a comparison, a quantity on one side in the unit of the other.
    fn both(&mut self, left: &mut IdedExpr, right: &mut IdedExpr) -> Result<(Type, Type), Problem> {
        let hint = self.unit_of(left).or_else(|| self.unit_of(right));
        Ok((self.check(left, hint)?, self.check(right, hint)?))
    }

    /// A factor: a bare number is no amount, and a percentage is a part of the whole.
    fn factor(&mut self, expr: &mut IdedExpr, hint: Option<Unit>) -> Checked {
        let hint = match &expr.expr {
            Expr::Literal(_) => None,
            Expr::Ident(name) if is_placeholder(name) => {
                let literal = self.placed(expr);
                hint.filter(|unit| literal.is_some_and(|literal| literal.value_in(*unit).is_some()))
            }
            _ => hint,
        };
        self.check(expr, hint)
    }

    fn index(&mut self, place: &IdedExpr, of: &mut IdedExpr, index: &mut IdedExpr) -> Checked {
        match self.check(of, None)? {
            Type::List(kind) => {
                // Lists are indexed by whole numbers, which stay what they are.
                if !matches!(index.expr, Expr::Literal(LiteralValue::Int(_))) {
                    return Err(self.problem(index, "a list is indexed by a whole number", "as in list[0]"));
                }
                Ok(*kind)
            }
            Type::Map(kind) => {
                let by = self.check(index, None)?;
                self.same(index, &by, &Type::Text)?;
                Ok(*kind)
            }
            Type::Any => Ok(Type::Any),
            other => {
                let message = format!("{} is not indexed", other.describe());
                Err(self.problem(place, message, "names are written x.y"))
            }
        }
    }

    fn sized(&mut self, of: &mut IdedExpr) -> Result<(), Problem> {
        let kind = self.check(of, None)?;
        if matches!(kind, Type::List(_) | Type::Map(_) | Type::Text | Type::Any) {
            return Ok(());
        }
        Err(self.problem(of, format!("{} has no size", kind.describe()), "it is for lists, labels and text"))
    }

    pub(super) fn comprehension(&mut self, expr: &mut IdedExpr) -> Checked {
        let place = IdedExpr { id: expr.id, expr: Expr::Unspecified };
        let Expr::Comprehension(parts) = &mut expr.expr else { return Ok(Type::Any) };
        let ComprehensionExpr {
            iter_range,
            iter_var,
            iter_var2,
            accu_var,
            accu_init,
            loop_cond,
            loop_step,
            result,
        } = &mut **parts;
        if self.loops > 0 {
            return Err(self.problem(
                &place,
                "a list is gone through inside another",
                "write it as two rules",
            ));
        }
        let item = match self.check(iter_range, None)? {
            Type::List(kind) => *kind,
            Type::Map(_) => Type::Text,
            Type::Any => Type::Any,
            other => {
                let message = format!("{} has no items", other.describe());
                return Err(self.problem(
                    &place,
                    message,
                    "all, exists, filter and map are for lists and labels",
                ));
            }
        };
        let accumulated = self.check(accu_init, None)?;
        let depth = self.scope.len();
        self.loops += 1;
        self.scope.push((iter_var.clone(), item));
        if let Some(second) = iter_var2 {
            self.scope.push((second.clone(), Type::Any));
        }
        self.scope.push((accu_var.clone(), accumulated));
        let looped = self.check(loop_cond, None).and_then(|_| self.check(loop_step, None));
        self.loops -= 1;
        let stepped = match looped {
            Ok(kind) => kind,
            Err(problem) => {
                self.scope.truncate(depth);
                return Err(problem);
            }
        };
        self.scope.truncate(depth);
        self.scope.push((accu_var.clone(), stepped));
        let result = self.check(result, None);
        self.scope.truncate(depth);
        result
    }

    fn expect_bool(&mut self, expr: &mut IdedExpr) -> Result<(), Problem> {
        let kind = self.check(expr, None)?;
        if kind.is_bool() {
            return Ok(());
        }
        Err(self.problem(expr, format!("this is {}, true or false is expected", kind.describe()), ""))
    }

    fn same(&self, place: &IdedExpr, left: &Type, right: &Type) -> Checked {
        left.with(right).ok_or_else(|| {
            let message = format!("{} and {} are not compared", left.describe(), right.describe());
            let help = match (left, right) {
                (Type::Text, _) | (_, Type::Text) => "text stands in quotes, everything else without",
                _ => "",
            };
            self.problem(place, message, help)
        })
    }

    fn arithmetic(&self, place: &IdedExpr, kind: Type, also: bool) -> Checked {
        match kind {
            Type::Number(_) | Type::Any => Ok(kind),
            _ if also => Ok(kind),
            _ => Err(self.problem(place, format!("{} is no number", kind.describe()), "")),
        }
    }
}

/// Sizes are whole numbers to CEL: this one becomes decimal, as every number here is.
fn count(expr: &mut IdedExpr) {
    let inner = IdedExpr { id: expr.id, expr: std::mem::take(&mut expr.expr) };
    expr.expr = Expr::Call(CallExpr { func_name: "double".to_owned(), target: None, args: vec![inner] });
}
