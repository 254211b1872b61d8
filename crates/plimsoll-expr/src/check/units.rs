//! Units that names say, and where parts stand.

use cel::IdedExpr;
use cel::common::ast::Expr;
use cel::common::ast::operators as op;

use super::Checker;
use crate::lexer::is_placeholder;
use crate::literal::Literal;
use crate::names::{Type, Unit};

impl<'a> Checker<'a> {
    /// The unit that names in a part say; `None` where only quantities and plain numbers are in it.
    pub(super) fn unit_of(&self, expr: &IdedExpr) -> Option<Unit> {
        match &expr.expr {
            Expr::Ident(_) | Expr::Select(_) | Expr::Call(_) => self.unit_of_part(expr),
            Expr::List(list) => list.elements.iter().find_map(|element| self.unit_of(element)),
            _ => None,
        }
    }

    pub(super) fn unit_of_part(&self, expr: &IdedExpr) -> Option<Unit> {
        match &expr.expr {
            Expr::Call(call) => match call.func_name.as_str() {
                // The quotient of two amounts has no unit.
                op::DIVIDE => match call.args.as_slice() {
                    [of, by] if self.is_plain(by) => self.unit_of(of),
                    _ => Some(Unit::Plain),
                },
                op::ADD | op::SUBSTRACT | op::MULTIPLY | op::NEGATE | op::INDEX => {
                    call.args.iter().find_map(|arg| self.unit_of(arg))
                }
                op::CONDITIONAL => call.args.iter().skip(1).find_map(|arg| self.unit_of(arg)),
                "size" => Some(Unit::Plain),
                _ => None,
            },
            _ => match self.type_of_path(expr)? {
                Type::Number(unit) => Some(unit),
                Type::List(kind) | Type::Map(kind) => match *kind {
                    Type::Number(unit) => Some(unit),
                    _ => None,
                },
                _ => None,
            },
        }
    }

    /// True where nothing in a part has a unit, its quantities neither.
    pub(super) fn is_plain(&self, expr: &IdedExpr) -> bool {
        match &expr.expr {
            Expr::Ident(name) if is_placeholder(name) => {
                self.placed(expr).is_none_or(|literal| matches!(literal.natural(), Unit::Plain | Unit::Ratio))
            }
            _ => self.unit_of(expr).is_none_or(|unit| unit == Unit::Plain),
        }
    }

    /// The quantity that stands at the place of a name.
    pub(super) fn placed(&self, expr: &IdedExpr) -> Option<&'a Literal> {
        self.literals.get(&self.place(expr)?.0)
    }

    /// Where a part begins and ends, in characters.
    pub(super) fn place(&self, expr: &IdedExpr) -> Option<(usize, usize)> {
        let (start, stop) = self.info.offset_for(expr.id)?;
        let chars = |bytes: u32| {
            let bytes = (bytes as usize).min(self.parsed.len());
            self.parsed.char_indices().take_while(|(at, _)| *at < bytes).count()
        };
        Some((chars(start), chars(stop)))
    }

    /// The type of `a.b.c` without a check.
    pub(super) fn type_of_path(&self, expr: &IdedExpr) -> Option<Type> {
        match &expr.expr {
            Expr::Ident(name) => self.type_of_name(name),
            Expr::Select(select) if !select.test => match self.type_of_path(&select.operand)? {
                Type::Object(names) => names.get(&select.field).cloned(),
                Type::Map(kind) => Some(*kind),
                _ => None,
            },
            _ => None,
        }
    }
}
