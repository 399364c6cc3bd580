//! A checked expression, ready for evaluation.

use std::fmt;

use jiff::Timestamp;
use regex::Regex;
use rust_decimal::Decimal;

use crate::vocabulary::{Function, Identity, Macro, Root, Word};

/// The type of a value, as far as it is known before there is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A decimal number.
    Number,
    /// A text.
    Text,
    /// An instant.
    Time,
    /// Nothing.
    Null,
    /// A list.
    List,
    /// An object.
    Object,
    /// Whatever the event has there.
    Any,
}

impl Type {
    /// The type for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Number => "number",
            Self::Text => "string",
            Self::Time => "timestamp",
            Self::Null => "null",
            Self::List => "list",
            Self::Object => "object",
            Self::Any => "any value",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An operation on two numbers; `+` also puts texts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(Box<str>),
    Time(Timestamp),
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Literal(Literal),
    Word(Word),
    Has(Identity),
    Time,
    Root(Root),
    /// The item at hand of the macro at this depth.
    Item(usize),
    Select {
        of: Box<Node>,
        key: Box<str>,
    },
    Index {
        of: Box<Node>,
        at: Box<Node>,
    },
    IsPresent {
        of: Box<Node>,
        key: Box<str>,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    If(Box<[Node; 3]>),
    Arithmetic(Arithmetic, Box<Node>, Box<Node>),
    Compare(Order, Box<Node>, Box<Node>),
    Equal {
        sides: Box<[Node; 2]>,
        negated: bool,
    },
    In {
        value: Box<Node>,
        list: Box<Node>,
    },
    List(Vec<Node>),
    Call(Function, Vec<Node>),
    Matches {
        text: Box<Node>,
        regex: Regex,
        /// Steps for each byte of the text.
        price: usize,
    },
    Each(Box<Each>),
}

/// A macro over a list.
#[derive(Debug, Clone)]
pub(crate) struct Each {
    pub of: Macro,
    pub list: Node,
    /// Of `map` with three arguments: which items it takes.
    pub only: Option<Node>,
    pub body: Node,
    /// Macros around this one: where its item lies.
    pub depth: usize,
}

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Program {
    pub(crate) node: Node,
    pub(crate) kind: Type,
    pub(crate) reads_persons: bool,
}

impl Program {
    /// The type of what it gives, as far as it is known.
    #[must_use]
    pub const fn kind(&self) -> Type {
        self.kind
    }

    /// The texts and nulls that it can give, where they are all written in it: `a ? "x" : null`. None: it computes them.
    #[must_use]
    pub fn choices(&self) -> Option<Vec<Option<&str>>> {
        let mut choices = Vec::new();
        collect_choices(&self.node, &mut choices).then_some(choices)
    }
}

/// Whether a node gives nothing but what is written in it.
fn collect_choices<'n>(node: &'n Node, choices: &mut Vec<Option<&'n str>>) -> bool {
    match node {
        Node::Literal(Literal::Text(text)) => choices.push(Some(text)),
        Node::Literal(Literal::Null) => choices.push(None),
        Node::If(parts) => {
            return collect_choices(&parts[1], choices) && collect_choices(&parts[2], choices);
        }
        _ => return false,
    }
    true
}
