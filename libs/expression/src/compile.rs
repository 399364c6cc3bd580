//! From the text of an expression to a program, or to what is wrong with it and where.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::SourceInfo;
use cel::{Env, IdedExpr, ParseErrors};

use crate::check::Checker;
use crate::program::{Program, Type};
use crate::{MAX_DEPTH, MAX_LENGTH};

/// What an expression is for.
pub struct Rules<'r> {
    /// The types that it may give. What has [`Type::Any`] is looked at when there is an event.
    pub gives: &'r [Type],
    /// Whether it may read texts that [`crate::Event::is_withheld`] names.
    pub reads_persons: bool,
    /// Whether it may read the value at a path, `["properties", "products", "*", "sku"]`; why not, for people.
    pub may_read: &'r (dyn Fn(&[String]) -> Result<(), String> + Sync),
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct CompileError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What, and what is allowed.
    pub why: String,
    /// Whether nothing is wrong with it as far as is known: it could not be read now, and may be at another try.
    pub may_pass: bool,
}

impl CompileError {
    fn at_start(why: impl Into<String>) -> Self {
        Self { line: 1, column: 1, why: why.into(), may_pass: false }
    }
}

/// The parser recurses as deep as a text nests, and a text of allowed length can nest deep before it is found to.
const PARSER_STACK: usize = 64 * 1024 * 1024;

thread_local! {
    /// Whether this thread is one of [`together`].
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Calls what compiles several expressions, on one thread for all of them: for its stack, and because the parser is not ours and must
/// not stop a service. An expression that is compiled elsewhere has a thread of its own.
///
/// # Errors
/// There is no thread to be had now, which may pass.
pub fn together<T: Send>(compiling: impl FnOnce() -> T + Send) -> Result<T, CompileError> {
    on_a_thread(PARSER_STACK, compiling)
}

fn on_a_thread<T: Send>(stack: usize, compiling: impl FnOnce() -> T + Send) -> Result<T, CompileError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("expression".to_owned()).stack_size(stack);
        let thread = thread
            .spawn_scoped(scope, || {
                HAS_STACK.set(true);
                compiling()
            })
            .map_err(|error| {
                let why = format!("could not start a thread to read it: {error}");
                CompileError { may_pass: true, ..CompileError::at_start(why) }
            })?;
        thread.join().map_err(|_| CompileError::at_start(UNREADABLE))
    })
}

const UNREADABLE: &str = "the expression cannot be read";

/// Compiles an expression. Takes up to a few milliseconds: do it once, not for each event.
///
/// # Errors
/// The first thing that is wrong with it, and where.
pub fn compile(text: &str, rules: &Rules<'_>) -> Result<Program, CompileError> {
    if text.trim().is_empty() {
        return Err(CompileError::at_start(
            "an expression is needed here; leave the whole entry out if there is none",
        ));
    }
    if text.len() > MAX_LENGTH {
        return Err(CompileError::at_start(format!(
            "the expression has {} bytes, at most {MAX_LENGTH} are allowed",
            text.len()
        )));
    }
    let compiling = AssertUnwindSafe(|| compile_here(text, rules));
    if HAS_STACK.get() {
        return catch_unwind(compiling).unwrap_or_else(|_| Err(CompileError::at_start(UNREADABLE)));
    }
    together(compiling.0)?
}

fn compile_here(text: &str, rules: &Rules<'_>) -> Result<Program, CompileError> {
    let (tree, places) = parse(text)?;
    let checked = Checker::new(text, &places, rules).check(&tree)?;
    Ok(Program { node: checked.node, kind: checked.kind, reads_persons: rules.reads_persons })
}

fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), CompileError> {
    let depth = u16::try_from(MAX_DEPTH).unwrap_or(u16::MAX);
    // Without macros: `has`, `exists` and the others stay calls, as they are written.
    let parser = Env::default()
        .with_optional_support(false)
        .parser()
        .max_recursion_depth(depth)
        // More says nothing that the first error does not.
        .error_recovery_limit(1);
    parser.parse_with_source_info(text).map_err(|errors| first_of(&errors, text))
}

fn first_of(errors: &ParseErrors, text: &str) -> CompileError {
    let Some(error) = errors.errors.first() else {
        return CompileError::at_start("the expression cannot be read");
    };
    let line = usize::try_from(error.pos.0).unwrap_or_default().clamp(1, text.lines().count().max(1));
    let column = usize::try_from(error.pos.1).unwrap_or_default().max(1);
    let why: String = error.msg.chars().take(200).collect();
    CompileError { line, column, why: format!("is no expression of CEL: {why}"), may_pass: false }
}

/// Line and column, in characters, of a byte of the text.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_there_is_no_thread_now_may_pass_and_a_panic_does_not() {
        // No machine has so much address space: the thread cannot be started.
        let none = on_a_thread(usize::MAX / 4, || ()).unwrap_err();
        assert!(none.may_pass && none.why.contains("could not start a thread"), "{none}");
        let crashed = on_a_thread::<()>(1 << 20, || panic!("the parser is not ours")).unwrap_err();
        assert_eq!((crashed.may_pass, crashed.why.as_str()), (false, UNREADABLE));
    }
}
