//! The typed pass: the parser's syntax tree against the vocabulary, into nodes that can be evaluated. Whatever it does not know
//! is an error, so that a new version of the parser cannot bring a new word along.

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SelectExpr, SourceInfo};
use rust_decimal::Decimal;

use crate::compile::{CompileError, Rules, position};
use crate::program::{Literal, Node, Type};
use crate::vocabulary::{NAMES, Name, Word, hint};
use crate::{MAX_DEPTH, MAX_NESTED_MACROS};

/// A node with what is known of it.
pub(crate) struct Checked {
    pub node: Node,
    pub kind: Type,
    /// Where in the event the value stands, if it stands there as it is.
    pub place: Option<Vec<String>>,
}

impl Checked {
    pub fn computed(node: Node, kind: Type) -> Self {
        Self { node, kind, place: None }
    }
}

/// The item of a macro.
struct Item {
    name: String,
    place: Option<Vec<String>>,
}

/// The pass over one expression.
pub(crate) struct Checker<'c> {
    text: &'c str,
    places: &'c SourceInfo,
    rules: &'c Rules<'c>,
    items: Vec<Item>,
    depth: usize,
}

type Result<T> = std::result::Result<T, CompileError>;

impl<'c> Checker<'c> {
    pub fn new(text: &'c str, places: &'c SourceInfo, rules: &'c Rules<'c>) -> Self {
        Self { text, places, rules, items: Vec::new(), depth: 0 }
    }

    /// Checks the whole expression.
    pub fn check(mut self, tree: &IdedExpr) -> Result<Checked> {
        let checked = self.value(tree)?;
        let gives = self.rules.gives;
        let fits = matches!(checked.kind, Type::Any | Type::Null) || gives.contains(&checked.kind);
        if !fits || (checked.kind == Type::Null && gives == [Type::Bool]) {
            let wanted: Vec<&str> = gives.iter().map(|kind| kind.as_str()).collect();
            return Err(self.error(
                tree.id,
                format!("gives a {}, but {} is wanted here", checked.kind, wanted.join(" or ")),
            ));
        }
        Ok(checked)
    }

    /// An expression whose value is used.
    pub fn value(&mut self, tree: &IdedExpr) -> Result<Checked> {
        self.lower(tree, true)
    }

    /// An expression that is only walked through, towards a field or the items of a list.
    pub fn way(&mut self, tree: &IdedExpr) -> Result<Checked> {
        self.lower(tree, false)
    }

    pub fn lower(&mut self, tree: &IdedExpr, is_read: bool) -> Result<Checked> {
        if self.depth >= MAX_DEPTH {
            let why = format!(
                "nests deeper than {MAX_DEPTH}; put parentheses around groups of terms, or say it in two fields"
            );
            return Err(self.error(tree.id, why));
        }
        self.depth += 1;
        let checked = match &tree.expr {
            Expr::Literal(literal) => self.literal(tree.id, literal),
            Expr::Ident(name) => self.name(tree.id, name, is_read),
            Expr::Select(select) => self.select(tree.id, select, is_read),
            Expr::Call(call) => self.call(tree.id, call, is_read),
            Expr::List(list) => {
                let items: Result<Vec<Node>> =
                    list.elements.iter().map(|item| Ok(self.value(item)?.node)).collect();
                Ok(Checked::computed(Node::List(items?), Type::List))
            }
            Expr::Map(_) => Err(self.error(tree.id, "objects cannot be made here")),
            Expr::Struct(_) => Err(self.error(tree.id, "messages cannot be made here")),
            Expr::Comprehension(_) | Expr::Unspecified => {
                Err(self.error(tree.id, "is no expression that is known here"))
            }
        };
        self.depth -= 1;
        checked
    }

    fn literal(&self, id: u64, literal: &LiteralValue) -> Result<Checked> {
        let (literal, kind) = match literal {
            LiteralValue::Null => (Literal::Null, Type::Null),
            LiteralValue::Boolean(value) => (Literal::Bool(*value.inner()), Type::Bool),
            LiteralValue::Int(value) => (Literal::Number(Decimal::from(*value.inner())), Type::Number),
            LiteralValue::UInt(value) => (Literal::Number(Decimal::from(*value.inner())), Type::Number),
            LiteralValue::Double(value) => {
                // The shortest text that reads as this double is what was written, up to 15 digits.
                let number = value.inner().to_string().parse::<Decimal>();
                let number = number.map_err(|_| self.error(id, "the number has too many digits"))?;
                (Literal::Number(number.normalize()), Type::Number)
            }
            LiteralValue::String(text) => (Literal::Text(text.inner().into()), Type::Text),
            LiteralValue::Bytes(_) => return Err(self.error(id, "bytes are not known here; write a string")),
        };
        Ok(Checked::computed(Node::Literal(literal), kind))
    }

    fn name(&mut self, id: u64, name: &str, is_read: bool) -> Result<Checked> {
        if let Some(depth) = self.items.iter().rposition(|item| item.name == name) {
            let place = self.items[depth].place.clone();
            if is_read && let Some(place) = &place {
                self.check_read(id, place)?;
            }
            return Ok(Checked { node: Node::Item(depth), kind: Type::Any, place });
        }
        let Some((_, known)) = NAMES.iter().find(|(known, _)| *known == name) else {
            let words: Vec<&str> = NAMES
                .iter()
                .map(|(name, _)| *name)
                .chain(self.items.iter().map(|i| i.name.as_str()))
                .collect();
            return Err(self.error(id, format!("unknown field `{name}`{}", hint(name, &words))));
        };
        match known {
            Name::Root(root) if is_read => Err(self.error(
                id,
                format!(
                    "`{name}` is an object; name one of its fields, as in `{name}.category`",
                    name = root.name()
                ),
            )),
            Name::Root(root) => {
                let place = Some(vec![root.name().to_owned()]);
                Ok(Checked { node: Node::Root(*root), kind: Type::Object, place })
            }
            Name::Word(word @ (Word::Type | Word::Event | Word::MessageId)) => {
                Ok(Checked::computed(Node::Word(*word), Type::Text))
            }
            Name::Has(identity) => Ok(Checked::computed(Node::Has(*identity), Type::Bool)),
            Name::Time => Ok(Checked::computed(Node::Time, Type::Time)),
        }
    }

    fn select(&mut self, id: u64, select: &SelectExpr, is_read: bool) -> Result<Checked> {
        let of = self.way(&select.operand)?;
        self.member(id, of, &select.field, is_read)
    }

    /// A field of a value of the event.
    pub fn member(&self, id: u64, of: Checked, key: &str, is_read: bool) -> Result<Checked> {
        let place = self.below(id, &of, key)?;
        if is_read {
            self.check_read(id, &place)?;
        }
        let node = Node::Select { of: Box::new(of.node), key: key.into() };
        Ok(Checked { node, kind: Type::Any, place: Some(place) })
    }

    /// The place of a field or an item.
    pub fn below(&self, id: u64, of: &Checked, key: &str) -> Result<Vec<String>> {
        let Some(mut place) = of.place.clone() else {
            return Err(
                self.error(id, format!("`{key}` is no field: only what stands in the event has fields"))
            );
        };
        place.push(key.to_owned());
        Ok(place)
    }

    pub fn check_read(&self, id: u64, place: &[String]) -> Result<()> {
        (self.rules.may_read)(place).map_err(|why| self.error(id, why))
    }

    /// Opens a macro: what stands in `inside` knows the item by its name.
    pub fn with_item<T>(
        &mut self,
        id: u64,
        name: &str,
        place: Option<Vec<String>>,
        inside: impl FnOnce(&mut Self, usize) -> Result<T>,
    ) -> Result<T> {
        if self.items.len() >= MAX_NESTED_MACROS {
            return Err(self
                .error(id, format!("at most {MAX_NESTED_MACROS} list macros may stand inside each other")));
        }
        let is_taken =
            NAMES.iter().any(|(known, _)| *known == name) || self.items.iter().any(|item| item.name == name);
        if is_taken {
            return Err(
                self.error(id, format!("`{name}` means something else already; call the item otherwise"))
            );
        }
        let depth = self.items.len();
        self.items.push(Item { name: name.to_owned(), place });
        let result = inside(self, depth);
        self.items.truncate(depth);
        result
    }

    /// That a value can have one of the types.
    pub fn need(&self, id: u64, checked: &Checked, wanted: &[Type], who: &str) -> Result<()> {
        if checked.kind == Type::Any || wanted.contains(&checked.kind) {
            return Ok(());
        }
        let wanted: Vec<&str> = wanted.iter().map(|kind| kind.as_str()).collect();
        Err(self.error(id, format!("`{who}` takes {}, not {}", wanted.join(" or "), checked.kind)))
    }

    pub fn error(&self, id: u64, why: impl Into<String>) -> CompileError {
        let at = self.places.offset_for(id).map_or(0, |(start, _)| start as usize);
        let (line, column) = position(self.text, at);
        CompileError { line, column, why: why.into(), may_pass: false }
    }
}
