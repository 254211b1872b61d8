//! What runs on a stack of its own, and how deep what was parsed is.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};

/// Stack of the thread that parses, in bytes: what the longest and deepest text needs was measured below a quarter of it.
const STACK_BYTES: usize = 16 << 20;

/// Runs `work` on a thread with a large stack. `None` where it could not be started, or failed.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("expression".to_owned()).stack_size(STACK_BYTES);
        builder.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// Levels of an expression, found without recursion.
pub(crate) fn depth(expr: &IdedExpr) -> usize {
    let mut deepest = 0;
    let mut rest = vec![(expr, 1)];
    while let Some((expr, level)) = rest.pop() {
        deepest = deepest.max(level);
        let mut add = |inner| rest.push((inner, level + 1));
        match &expr.expr {
            Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).for_each(&mut add),
            Expr::Select(select) => add(&select.operand),
            Expr::List(list) => list.elements.iter().for_each(&mut add),
            Expr::Comprehension(parts) => {
                let parts = &**parts;
                let of =
                    [&parts.iter_range, &parts.accu_init, &parts.loop_cond, &parts.loop_step, &parts.result];
                of.into_iter().for_each(&mut add);
            }
            Expr::Map(map) => map.entries.iter().for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [&entry.key, &entry.value].into_iter().for_each(&mut add),
                EntryExpr::StructField(field) => add(&field.value),
            }),
            Expr::Struct(of) => of.entries.iter().for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => [&entry.key, &entry.value].into_iter().for_each(&mut add),
                EntryExpr::StructField(field) => add(&field.value),
            }),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }
    deepest
}
