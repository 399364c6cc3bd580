//! The typed pass over operators, functions and macros.

use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use regex::{Regex, RegexBuilder};

use crate::check::{Checked, Checker};
use crate::compile::CompileError;
use crate::program::{Arithmetic, Each, Literal, Node, Order, Type};
use crate::vocabulary::{Function, GLOBAL, MACROS, MEMBER, Macro, hint};

/// Longest regular expression, in bytes.
const MAX_PATTERN: usize = 256;
/// Largest compiled form of one, in bytes: what it costs for each byte of a text grows with it.
const MAX_COMPILED_PATTERN: usize = 64 * 1024;
/// So many bytes of a compiled pattern cost one step for each byte of the text.
const PATTERN_BYTES_A_STEP: usize = 4 * 1024;

type Result<T> = std::result::Result<T, CompileError>;

impl Checker<'_> {
    pub(crate) fn call(&mut self, id: u64, call: &CallExpr, is_read: bool) -> Result<Checked> {
        let name = call.func_name.as_str();
        if let Some(target) = &call.target {
            return self.member_call(id, name, target, &call.args, is_read);
        }
        match (name, call.args.as_slice()) {
            (operators::CONDITIONAL, [test, yes, no]) => self.choice(test, yes, no),
            (operators::LOGICAL_AND, [left, right]) => self.both(left, right, "&&", Node::And),
            (operators::LOGICAL_OR, [left, right]) => self.both(left, right, "||", Node::Or),
            (operators::LOGICAL_NOT, [value]) => {
                let value = self.typed(value, &[Type::Bool], "!")?;
                Ok(Checked::computed(Node::Not(value), Type::Bool))
            }
            (operators::NEGATE, [value]) => {
                let value = self.typed(value, &[Type::Number], "-")?;
                Ok(Checked::computed(Node::Negate(value), Type::Number))
            }
            (operators::ADD, [left, right]) => self.sum_of(id, left, right),
            (operators::SUBSTRACT, [left, right]) => self.arithmetic(Arithmetic::Subtract, left, right, "-"),
            (operators::MULTIPLY, [left, right]) => self.arithmetic(Arithmetic::Multiply, left, right, "*"),
            (operators::DIVIDE, [left, right]) => self.arithmetic(Arithmetic::Divide, left, right, "/"),
            (operators::MODULO, [left, right]) => self.arithmetic(Arithmetic::Remainder, left, right, "%"),
            (operators::EQUALS, [left, right]) => self.equal(id, left, right, false),
            (operators::NOT_EQUALS, [left, right]) => self.equal(id, left, right, true),
            (operators::LESS, [left, right]) => self.compare(id, Order::Less, left, right, "<"),
            (operators::LESS_EQUALS, [left, right]) => {
                self.compare(id, Order::LessOrEqual, left, right, "<=")
            }
            (operators::GREATER, [left, right]) => self.compare(id, Order::Greater, left, right, ">"),
            (operators::GREATER_EQUALS, [left, right]) => {
                self.compare(id, Order::GreaterOrEqual, left, right, ">=")
            }
            (operators::IN, [value, list]) => {
                let value = Box::new(self.value(value)?.node);
                let list = self.typed(list, &[Type::List], "in")?;
                Ok(Checked::computed(Node::In { value, list }, Type::Bool))
            }
            (operators::INDEX, [of, at]) => self.index(id, of, at, is_read),
            (operators::HAS, [field]) => self.presence(id, field),
            ("timestamp", [text]) => self.instant(id, text),
            ("matches", [text, pattern]) => self.matches(id, text, pattern),
            _ => self.global_call(id, name, &call.args),
        }
    }

    fn typed(&mut self, tree: &IdedExpr, wanted: &[Type], who: &str) -> Result<Box<Node>> {
        let checked = self.value(tree)?;
        self.need(tree.id, &checked, wanted, who)?;
        Ok(Box::new(checked.node))
    }

    fn choice(&mut self, test: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Result<Checked> {
        let test = self.typed(test, &[Type::Bool], "?")?;
        let (yes, no) = (self.value(yes)?, self.value(no)?);
        let kind = match (yes.kind, no.kind) {
            (one, other) if one == other => one,
            (Type::Null, other) | (other, Type::Null) => other,
            _ => Type::Any,
        };
        Ok(Checked::computed(Node::If(Box::new([*test, yes.node, no.node])), kind))
    }

    fn both(
        &mut self,
        left: &IdedExpr,
        right: &IdedExpr,
        who: &str,
        node: fn(Box<Node>, Box<Node>) -> Node,
    ) -> Result<Checked> {
        let left = self.typed(left, &[Type::Bool], who)?;
        let right = self.typed(right, &[Type::Bool], who)?;
        Ok(Checked::computed(node(left, right), Type::Bool))
    }

    fn sum_of(&mut self, id: u64, left: &IdedExpr, right: &IdedExpr) -> Result<Checked> {
        let (one, other) = (self.value(left)?, self.value(right)?);
        self.need(left.id, &one, &[Type::Number, Type::Text], "+")?;
        self.need(right.id, &other, &[Type::Number, Type::Text], "+")?;
        let kind = self.same(id, one.kind, other.kind, "+")?;
        Ok(Checked::computed(
            Node::Arithmetic(Arithmetic::Add, Box::new(one.node), Box::new(other.node)),
            kind,
        ))
    }

    fn arithmetic(
        &mut self,
        of: Arithmetic,
        left: &IdedExpr,
        right: &IdedExpr,
        who: &str,
    ) -> Result<Checked> {
        let left = self.typed(left, &[Type::Number], who)?;
        let right = self.typed(right, &[Type::Number], who)?;
        Ok(Checked::computed(Node::Arithmetic(of, left, right), Type::Number))
    }

    /// The type that two sides have in common.
    fn same(&self, id: u64, one: Type, other: Type, who: &str) -> Result<Type> {
        match (one, other) {
            (Type::Any, kind) | (kind, Type::Any) => Ok(kind),
            (one, other) if one == other => Ok(one),
            (one, other) => {
                let why = format!(
                    "`{who}` has a {one} on one side and a {other} on the other; string() and double() convert"
                );
                Err(self.error(id, why))
            }
        }
    }

    fn equal(&mut self, id: u64, left: &IdedExpr, right: &IdedExpr, negated: bool) -> Result<Checked> {
        let who = if negated { "!=" } else { "==" };
        let (one, other) = (self.value(left)?, self.value(right)?);
        const PLAIN: [Type; 5] = [Type::Bool, Type::Number, Type::Text, Type::Time, Type::Null];
        self.need(left.id, &one, &PLAIN, who)?;
        self.need(right.id, &other, &PLAIN, who)?;
        if one.kind != Type::Null && other.kind != Type::Null {
            self.same(id, one.kind, other.kind, who)?;
        }
        let sides = Box::new([one.node, other.node]);
        Ok(Checked::computed(Node::Equal { sides, negated }, Type::Bool))
    }

    fn compare(
        &mut self,
        id: u64,
        order: Order,
        left: &IdedExpr,
        right: &IdedExpr,
        who: &str,
    ) -> Result<Checked> {
        let (one, other) = (self.value(left)?, self.value(right)?);
        const ORDERED: [Type; 3] = [Type::Number, Type::Text, Type::Time];
        self.need(left.id, &one, &ORDERED, who)?;
        self.need(right.id, &other, &ORDERED, who)?;
        self.same(id, one.kind, other.kind, who)?;
        Ok(Checked::computed(Node::Compare(order, Box::new(one.node), Box::new(other.node)), Type::Bool))
    }

    /// `list[0]`, or `properties["a name with spaces"]`.
    fn index(&mut self, id: u64, of: &IdedExpr, at: &IdedExpr, is_read: bool) -> Result<Checked> {
        let of = self.lower(of, false)?;
        if let Some(key) = text_of(at) {
            return self.member(id, of, key, is_read);
        }
        let at_value = self.value(at)?;
        self.need(at.id, &at_value, &[Type::Number], "[]")?;
        let place = match &of.place {
            Some(_) => {
                let place = self.below(id, &of, "*")?;
                if is_read {
                    self.check_read(id, &place)?;
                }
                Some(place)
            }
            None if matches!(of.kind, Type::List | Type::Any) => None,
            None => return Err(self.error(id, format!("`[]` takes a list, not {}", of.kind))),
        };
        let node = Node::Index { of: Box::new(of.node), at: Box::new(at_value.node) };
        Ok(Checked { node, kind: Type::Any, place })
    }

    fn presence(&mut self, id: u64, field: &IdedExpr) -> Result<Checked> {
        let Expr::Select(select) = &field.expr else {
            return Err(self.error(id, "has() takes a field, as in `has(properties.coupon)`"));
        };
        let of = self.way(&select.operand)?;
        self.below(field.id, &of, &select.field)?;
        let node = Node::IsPresent { of: Box::new(of.node), key: select.field.as_str().into() };
        Ok(Checked::computed(node, Type::Bool))
    }

    fn instant(&self, id: u64, text: &IdedExpr) -> Result<Checked> {
        let instant = text_of(text).and_then(|text| text.parse().ok());
        let instant = instant.ok_or_else(|| {
            self.error(
                id,
                "timestamp() takes a time that is written out, as in `timestamp(\"2026-11-27T00:00:00Z\")`",
            )
        })?;
        Ok(Checked::computed(Node::Literal(Literal::Time(instant)), Type::Time))
    }

    fn matches(&mut self, id: u64, text: &IdedExpr, pattern: &IdedExpr) -> Result<Checked> {
        let text = self.typed(text, &[Type::Text], "matches")?;
        let Some(source) = text_of(pattern) else {
            return Err(self.error(id, "the pattern of matches() must be written out as a string"));
        };
        let (regex, price) = regex(source).map_err(|why| self.error(pattern.id, why))?;
        Ok(Checked::computed(Node::Matches { text, regex, price }, Type::Bool))
    }

    fn global_call(&mut self, id: u64, name: &str, args: &[IdedExpr]) -> Result<Checked> {
        let Some((_, function, count)) = GLOBAL.iter().find(|(known, ..)| *known == name) else {
            let words: Vec<&str> =
                GLOBAL.iter().map(|(name, ..)| *name).chain(["has", "matches", "timestamp"]).collect();
            let elsewhere = MEMBER.iter().map(|(name, ..)| *name).chain(MACROS.iter().map(|(name, _)| *name));
            if elsewhere.into_iter().any(|known| known == name) {
                return Err(
                    self.error(id, format!("`{name}` stands behind a value, as in `value.{name}(…)`"))
                );
            }
            return Err(self.error(id, format!("unknown function `{name}`{}", hint(name, &words))));
        };
        self.arguments(id, name, *function, *count, args.iter())
    }

    fn member_call(
        &mut self,
        id: u64,
        name: &str,
        target: &IdedExpr,
        args: &[IdedExpr],
        is_read: bool,
    ) -> Result<Checked> {
        if let Some((_, of)) = MACROS.iter().find(|(known, _)| *known == name) {
            return self.each(id, name, *of, target, args, is_read);
        }
        if name == "matches" {
            let [pattern] = args else {
                return Err(self.error(id, "`matches` takes one pattern"));
            };
            return self.matches(id, target, pattern);
        }
        let Some((_, function, count)) = MEMBER.iter().find(|(known, ..)| *known == name) else {
            let members = MEMBER.iter().map(|(name, ..)| *name);
            let words: Vec<&str> =
                members.chain(["matches"]).chain(MACROS.iter().map(|(name, _)| *name)).collect();
            return Err(self.error(id, format!("unknown function `{name}`{}", hint(name, &words))));
        };
        self.arguments(id, name, *function, *count, std::iter::once(target).chain(args))
    }

    fn arguments<'t>(
        &mut self,
        id: u64,
        name: &str,
        function: Function,
        count: usize,
        args: impl Iterator<Item = &'t IdedExpr>,
    ) -> Result<Checked> {
        let args: Vec<&IdedExpr> = args.collect();
        if args.len() != count {
            let why = format!(
                "`{name}` takes {count} value(s), the one before the dot included, not {}",
                args.len()
            );
            return Err(self.error(id, why));
        }
        const PLAIN: &[Type] = &[Type::Number, Type::Text, Type::Bool, Type::Time];
        let (wanted, kind): (&[&[Type]], Type) = match function {
            Function::Size => (&[&[Type::Text, Type::List]], Type::Number),
            Function::String => (&[PLAIN], Type::Text),
            Function::Double | Function::Int => (&[&[Type::Number, Type::Text]], Type::Number),
            Function::Round => (&[&[Type::Number], &[Type::Number]], Type::Number),
            Function::Contains | Function::StartsWith | Function::EndsWith => {
                (&[&[Type::Text], &[Type::Text]], Type::Bool)
            }
            Function::LowerAscii | Function::UpperAscii | Function::Trim => (&[&[Type::Text]], Type::Text),
            Function::Sum => (&[&[Type::List]], Type::Number),
            Function::Join => (&[&[Type::List], &[Type::Text]], Type::Text),
        };
        let mut nodes = Vec::with_capacity(count);
        for (arg, wanted) in args.into_iter().zip(wanted) {
            nodes.push(*self.typed(arg, wanted, name)?);
        }
        Ok(Checked::computed(Node::Call(function, nodes), kind))
    }

    fn each(
        &mut self,
        id: u64,
        name: &str,
        of: Macro,
        target: &IdedExpr,
        args: &[IdedExpr],
        is_read: bool,
    ) -> Result<Checked> {
        let (item, only, body) = match args {
            [item, body] => (item, None, body),
            [item, only, body] if of == Macro::Map => (item, Some(only), body),
            _ => {
                return Err(
                    self.error(id, format!("`{name}` takes a name for the item and what to do with it"))
                );
            }
        };
        let Expr::Ident(item_name) = &item.expr else {
            return Err(self.error(item.id, format!("`{name}` takes a plain name for the item first")));
        };
        // Who takes items out of a list reads them; who only looks at each reads what he looks at.
        let list = self.lower(target, of == Macro::Filter && is_read)?;
        self.need(target.id, &list, &[Type::List], name)?;
        let place = list.place.clone().map(|mut place| {
            place.push("*".to_owned());
            place
        });
        let (only, body, depth) = self.with_item(id, item_name, place, |inside, depth| {
            let only = only.map(|only| inside.typed(only, &[Type::Bool], name)).transpose()?;
            let body_value = inside.value(body)?;
            if of != Macro::Map {
                inside.need(body.id, &body_value, &[Type::Bool], name)?;
            }
            Ok((only, body_value.node, depth))
        })?;
        let each = Each { of, list: list.node, only: only.map(|only| *only), body, depth };
        let node = Node::Each(Box::new(each));
        Ok(match of {
            Macro::All | Macro::Exists | Macro::ExistsOne => Checked::computed(node, Type::Bool),
            Macro::Map => Checked::computed(node, Type::List),
            // The items are the event's own still.
            Macro::Filter => Checked { node, kind: Type::List, place: list.place },
        })
    }
}

/// A text that is written out.
fn text_of(tree: &IdedExpr) -> Option<&str> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Compiles a pattern, and says what it costs for each byte of a text. Matching takes time in proportion to the text and, at worst, to
/// the compiled pattern: see the crate's documentation.
fn regex(source: &str) -> std::result::Result<(Regex, usize), String> {
    if source.len() > MAX_PATTERN {
        return Err(format!("the pattern has {} bytes, at most {MAX_PATTERN} are allowed", source.len()));
    }
    let built =
        |most| RegexBuilder::new(source).size_limit(most).dfa_size_limit(MAX_COMPILED_PATTERN).build();
    // The crate does not tell how large a pattern has become, only whether it stays below a limit.
    let smaller = (0..4).map(|step| 1_usize << step);
    if let Some(cheap) =
        smaller.into_iter().find_map(|price| Some((built(price * PATTERN_BYTES_A_STEP).ok()?, price)))
    {
        return Ok(cheap);
    }
    built(MAX_COMPILED_PATTERN).map(|regex| (regex, MAX_COMPILED_PATTERN / PATTERN_BYTES_A_STEP)).map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => {
                "the pattern becomes too large: repeat less, or use [A-Za-z0-9_] for \\w".to_owned()
            }
            error => {
                let why = error.to_string();
                let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("the pattern is none: {last}")
            }
        },
    )
}
