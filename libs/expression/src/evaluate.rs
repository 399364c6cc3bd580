//! Evaluation of a program over one event. Every step is paid for, so that no event makes an expression expensive.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::event::{Event, Shape, View};
use crate::program::{Arithmetic, Each, Literal, Node, Order, Program};
use crate::value::{Fault, Outcome, Value};
use crate::vocabulary::Macro;
use crate::{MAX_STEPS, MAX_STEPS_OF_EVENT, MAX_TEXT};

/// What is left of the steps that several expressions may take together over one event.
#[derive(Debug, Clone, Copy)]
pub struct Budget(u32);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_STEPS_OF_EVENT)
    }
}

thread_local! {
    /// What is left of the steps of [`within`], where this thread is in it.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does some work whose evaluations may take `left` steps together, and takes off what they took. Where it is 0 afterwards, that was too
/// little: those that were left failed with [`Fault::TooMuchWork`], at once, and what they gave is to be thrown away.
pub fn within<T>(left: &mut u64, work: impl FnOnce() -> T) -> T {
    /// Also where the work panics.
    struct Before(Option<u64>);
    impl Drop for Before {
        fn drop(&mut self) {
            LEFT.set(self.0);
        }
    }
    let before = Before(LEFT.replace(Some(*left)));
    let done = work();
    *left = LEFT.get().unwrap_or_default();
    drop(before);
    done
}

impl Program {
    /// What the expression gives for an event, on its own.
    ///
    /// # Errors
    /// It gives nothing, from a closed list of reasons.
    pub fn evaluate<'a, E: Event>(&'a self, event: &'a E) -> Result<Outcome<'a>, Fault> {
        self.evaluate_within(event, &mut Budget::default())
    }

    /// The same as one of several, which share a budget.
    ///
    /// # Errors
    /// As [`Program::evaluate`]; [`Fault::TooMuchWork`] as well where the others have left too little.
    pub fn evaluate_within<'a, E: Event>(
        &'a self,
        event: &'a E,
        budget: &mut Budget,
    ) -> Result<Outcome<'a>, Fault> {
        let left = LEFT.get();
        let of_all = left.map_or(u32::MAX, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let given = budget.0.min(MAX_STEPS).min(of_all);
        let mut run = Run { event, reads_persons: self.reads_persons, steps: given, items: Vec::new() };
        let value = run.value(&self.node);
        budget.0 -= given - run.steps;
        if let Some(left) = left {
            let is_used_up = given == of_all && matches!(value, Err(Fault::TooMuchWork));
            LEFT.set(Some(if is_used_up { 0 } else { left - u64::from(given - run.steps) }));
        }
        if matches!(value, Err(Fault::TooMuchWork)) {
            budget.0 -= run.steps.min(budget.0);
        }
        Ok(match value? {
            Value::Null => Outcome::Null,
            Value::Bool(value) => Outcome::Bool(value),
            Value::Number(number) => Outcome::Number(number.normalize()),
            Value::Text(text) if text.trim().is_empty() => Outcome::Null,
            Value::Text(text) => Outcome::Text(text),
            Value::Time(_) | Value::List(_) | Value::View(_) => return Err(Fault::Type),
        })
    }
}

/// One evaluation.
pub(crate) struct Run<'a, E: Event> {
    event: &'a E,
    reads_persons: bool,
    steps: u32,
    /// The items at hand, by the depth of their macros.
    items: Vec<Of<'a, E>>,
}

/// A value of an event's expression.
pub(crate) type Of<'a, E> = Value<'a, <E as Event>::View<'a>>;

/// A list to be walked.
enum Items<'a, V> {
    Values(Vec<Value<'a, V>>),
    View(V),
}

impl<'a, E: Event> Run<'a, E> {
    pub fn value(&mut self, node: &'a Node) -> Result<Of<'a, E>, Fault> {
        self.pay(1)?;
        Ok(match node {
            Node::Literal(literal) => match literal {
                Literal::Null => Value::Null,
                Literal::Bool(value) => Value::Bool(*value),
                Literal::Number(number) => Value::Number(*number),
                Literal::Text(text) => Value::Text(Cow::Borrowed(text)),
                Literal::Time(time) => Value::Time(*time),
            },
            Node::Word(word) => match self.event.word(*word) {
                "" => Value::Null,
                text => self.text_read(text)?,
            },
            Node::Has(identity) => Value::Bool(self.event.has(*identity)),
            Node::Time => Value::Time(self.event.time()),
            Node::Root(_) | Node::Select { .. } => match self.view(node)? {
                Some(view) => self.load(view)?,
                None => Value::Null,
            },
            Node::Item(depth) => {
                let copied = self.items.get(*depth).map_or(0, copied_steps);
                self.pay(copied)?;
                let item = self.items.get(*depth).cloned().unwrap_or(Value::Null);
                self.settled(item)?
            }
            Node::Index { of, at } => {
                let item = self.item(of, at)?;
                self.settled(item)?
            }
            Node::IsPresent { of, key } => Value::Bool(match self.view(of)? {
                Some(of) => self.member(of, key)?.is_some_and(is_present),
                None => false,
            }),
            Node::Not(value) => Value::Bool(!self.truth(value)?),
            Node::Negate(value) => Value::Number(-self.number(value)?),
            Node::And(left, right) => Value::Bool(self.until(false, left, right)?),
            Node::Or(left, right) => Value::Bool(self.until(true, left, right)?),
            Node::If(parts) => {
                let [test, yes, no] = &**parts;
                let chosen = if self.truth(test)? { yes } else { no };
                self.value(chosen)?
            }
            Node::Arithmetic(of, left, right) => self.arithmetic(*of, left, right)?,
            Node::Compare(order, left, right) => Value::Bool(self.compare(*order, left, right)?),
            Node::Equal { sides, negated } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                Value::Bool(self.is_equal(&left, &right)? != *negated)
            }
            Node::In { value, list } => Value::Bool(self.is_in(value, list)?),
            Node::List(nodes) => {
                Value::List(nodes.iter().map(|node| self.value(node)).collect::<Result<_, _>>()?)
            }
            Node::Call(function, args) => self.called(*function, args)?,
            Node::Matches { text, regex, price } => {
                let text = self.text(text)?;
                self.pay(text.len().saturating_mul(*price))?;
                Value::Bool(regex.is_match(&text))
            }
            Node::Each(each) => self.each(each)?,
        })
    }

    /// Takes steps off what is left.
    pub fn pay(&mut self, steps: usize) -> Result<(), Fault> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.checked_sub(steps).ok_or(Fault::TooMuchWork)?;
        Ok(())
    }

    /// Where a value lies in the event, if it does.
    fn view(&mut self, node: &'a Node) -> Result<Option<E::View<'a>>, Fault> {
        Ok(match node {
            Node::Root(root) => Some(self.event.root(*root)),
            Node::Item(depth) => match self.items.get(*depth) {
                Some(Value::View(view)) => Some(*view),
                _ => None,
            },
            Node::Select { of, key } => match self.view(of)? {
                Some(of) => self.member(of, key)?,
                None => None,
            },
            Node::Index { of, at } => match self.item(of, at)? {
                Value::View(view) => Some(view),
                _ => None,
            },
            _ => match self.value(node)? {
                Value::View(view) => Some(view),
                _ => None,
            },
        })
    }

    fn member(&mut self, of: E::View<'a>, key: &str) -> Result<Option<E::View<'a>>, Fault> {
        self.pay(1 + of.weight() / 16)?;
        Ok(of.member(key))
    }

    fn item(&mut self, of: &'a Node, at: &'a Node) -> Result<Of<'a, E>, Fault> {
        let at = self.number(at)?.normalize();
        let at = at.to_usize().filter(|_| at.scale() == 0).ok_or(Fault::Type)?;
        Ok(match self.items_of(of)? {
            Items::Values(values) => values.into_iter().nth(at).unwrap_or(Value::Null),
            Items::View(view) => {
                self.pay(1 + view.weight() / 16)?;
                view.item(at).map_or(Value::Null, Value::View)
            }
        })
    }

    fn items_of(&mut self, node: &'a Node) -> Result<Items<'a, E::View<'a>>, Fault> {
        if let Node::Root(_) | Node::Item(_) | Node::Select { .. } = node {
            // Not loaded: a text that is no list is not looked at either.
            return match self.view(node)? {
                Some(view) => match view.shape() {
                    Shape::List => Ok(Items::View(view)),
                    Shape::Null => Err(Fault::Absent),
                    _ => Err(Fault::Type),
                },
                None => Err(Fault::Absent),
            };
        }
        match self.value(node)? {
            Value::List(values) => Ok(Items::Values(values)),
            Value::View(view) if view.shape() == Shape::List => Ok(Items::View(view)),
            Value::Null => Err(Fault::Absent),
            _ => Err(Fault::Type),
        }
    }

    /// All items of a list as values.
    pub fn values_of(&mut self, node: &'a Node) -> Result<Vec<Of<'a, E>>, Fault> {
        match self.items_of(node)? {
            Items::Values(values) => values.into_iter().map(|value| self.settled(value)).collect(),
            Items::View(view) => view.items().map(|item| self.paid_load(item)).collect(),
        }
    }

    fn paid_load(&mut self, view: E::View<'a>) -> Result<Of<'a, E>, Fault> {
        self.pay(1)?;
        self.load(view)
    }

    /// A value of the event; null and blank text count as absent.
    fn load(&mut self, view: E::View<'a>) -> Result<Of<'a, E>, Fault> {
        Ok(match view.shape() {
            Shape::Null => Value::Null,
            Shape::Bool(value) => Value::Bool(value),
            Shape::Number => Value::Number(view.number().ok_or(Fault::OutOfRange)?),
            Shape::Text(text) => self.text_read(text)?,
            Shape::List | Shape::Object => Value::View(view),
        })
    }

    fn text_read(&mut self, text: &'a str) -> Result<Of<'a, E>, Fault> {
        self.pay(text.len() / 32)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        if !self.reads_persons && self.event.is_withheld(text) {
            return Err(Fault::Personal);
        }
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn settled(&mut self, value: Of<'a, E>) -> Result<Of<'a, E>, Fault> {
        match value {
            Value::View(view) => self.load(view),
            value => Ok(value),
        }
    }

    pub fn truth(&mut self, node: &'a Node) -> Result<bool, Fault> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            Value::Null => Err(Fault::Absent),
            _ => Err(Fault::Type),
        }
    }

    pub fn number(&mut self, node: &'a Node) -> Result<Decimal, Fault> {
        match self.value(node)? {
            Value::Number(number) => Ok(number),
            Value::Null => Err(Fault::Absent),
            _ => Err(Fault::Type),
        }
    }

    pub fn text(&mut self, node: &'a Node) -> Result<Cow<'a, str>, Fault> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            Value::Null => Err(Fault::Absent),
            _ => Err(Fault::Type),
        }
    }

    /// `||` (until true) and `&&` (until false): as CEL has it, a side that decides makes up for one that fails.
    fn until(&mut self, deciding: bool, left: &'a Node, right: &'a Node) -> Result<bool, Fault> {
        let left = self.truth(left);
        match left {
            Ok(value) if value == deciding => return Ok(deciding),
            Err(Fault::TooMuchWork) => return left,
            Ok(_) | Err(_) => {}
        }
        match (left, self.truth(right)) {
            (_, Ok(value)) if value == deciding => Ok(deciding),
            (_, Err(Fault::TooMuchWork)) => Err(Fault::TooMuchWork),
            (Err(fault), _) | (Ok(_), Err(fault)) => Err(fault),
            (Ok(_), Ok(value)) => Ok(value),
        }
    }

    fn arithmetic(&mut self, of: Arithmetic, left: &'a Node, right: &'a Node) -> Result<Of<'a, E>, Fault> {
        let (left, right) = (self.value(left)?, self.value(right)?);
        let (left, right) = match (left, right) {
            (Value::Null, _) | (_, Value::Null) => return Err(Fault::Absent),
            (Value::Number(left), Value::Number(right)) => (left, right),
            (Value::Text(left), Value::Text(right)) if of == Arithmetic::Add => {
                self.make_room(left.len() + right.len())?;
                return Ok(Value::Text(left + right));
            }
            _ => return Err(Fault::Type),
        };
        let result = match of {
            Arithmetic::Add => left.checked_add(right),
            Arithmetic::Subtract => left.checked_sub(right),
            Arithmetic::Multiply => left.checked_mul(right),
            Arithmetic::Divide | Arithmetic::Remainder if right.is_zero() => {
                return Err(Fault::DivisionByZero);
            }
            Arithmetic::Divide => left.checked_div(right),
            Arithmetic::Remainder => left.checked_rem(right),
        };
        result.map(Value::Number).ok_or(Fault::OutOfRange)
    }

    /// Pays for making a text of that length.
    pub fn make_room(&mut self, bytes: usize) -> Result<(), Fault> {
        if bytes > MAX_TEXT {
            return Err(Fault::TooLong);
        }
        self.pay(bytes / 32)
    }

    fn compare(&mut self, order: Order, left: &'a Node, right: &'a Node) -> Result<bool, Fault> {
        let how = match (self.value(left)?, self.value(right)?) {
            (Value::Null, _) | (_, Value::Null) => return Err(Fault::Absent),
            (Value::Number(left), Value::Number(right)) => left.cmp(&right),
            (Value::Text(left), Value::Text(right)) => left.cmp(&right),
            (Value::Time(left), Value::Time(right)) => left.cmp(&right),
            _ => return Err(Fault::Type),
        };
        Ok(match order {
            Order::Less => how == Ordering::Less,
            Order::LessOrEqual => how != Ordering::Greater,
            Order::Greater => how == Ordering::Greater,
            Order::GreaterOrEqual => how != Ordering::Less,
        })
    }

    /// Values of different types are not equal, as in CEL; lists and objects are not compared.
    fn is_equal(&mut self, left: &Of<'a, E>, right: &Of<'a, E>) -> Result<bool, Fault> {
        Ok(match (left, right) {
            (Value::List(_) | Value::View(_), _) | (_, Value::List(_) | Value::View(_)) => {
                return Err(Fault::Type);
            }
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Number(left), Value::Number(right)) => left == right,
            (Value::Time(left), Value::Time(right)) => left == right,
            (Value::Text(left), Value::Text(right)) => {
                self.pay(left.len().min(right.len()) / 32)?;
                left == right
            }
            _ => false,
        })
    }

    fn is_in(&mut self, value: &'a Node, list: &'a Node) -> Result<bool, Fault> {
        let value = self.value(value)?;
        // A list that is written out needs no list of its own at run time.
        if let Node::List(nodes) = list {
            for node in nodes {
                let item = self.value(node)?;
                if self.is_equal(&value, &item)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        for item in self.values_of(list)? {
            // An object among them is another thing than the value, whatever that is.
            if !matches!(item, Value::View(_)) && self.is_equal(&value, &item)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn each(&mut self, each: &'a Each) -> Result<Of<'a, E>, Fault> {
        let mut walk = Walk { of: each.of, taken: Vec::new(), hits: 0, fault: None };
        let walked = self.walk(each, &mut walk);
        // After a fault as well: another side may make up for it, and then an item of this macro must not stand for one outside.
        self.items.truncate(each.depth);
        walked?;
        walk.result()
    }

    fn walk(&mut self, each: &'a Each, walk: &mut Walk<'a, E::View<'a>>) -> Result<(), Fault> {
        match self.items_of(&each.list)? {
            Items::Values(values) => {
                for item in values {
                    if self.one_of(each, item, walk)? {
                        break;
                    }
                }
            }
            Items::View(view) => {
                for item in view.items() {
                    if self.one_of(each, Value::View(item), walk)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// One item of a macro; true: the rest does not matter any more.
    fn one_of(
        &mut self,
        each: &'a Each,
        item: Of<'a, E>,
        walk: &mut Walk<'a, E::View<'a>>,
    ) -> Result<bool, Fault> {
        self.pay(1)?;
        self.items.truncate(each.depth);
        self.items.push(item);
        if let Some(only) = &each.only
            && !self.truth(only)?
        {
            return Ok(false);
        }
        match each.of {
            Macro::Map => {
                let made = self.value(&each.body)?;
                walk.taken.push(made);
                Ok(false)
            }
            Macro::Filter => {
                if self.truth(&each.body)? {
                    self.items.truncate(each.depth + 1);
                    walk.taken.extend(self.items.pop());
                }
                Ok(false)
            }
            Macro::ExistsOne => {
                walk.hits += usize::from(self.truth(&each.body)?);
                Ok(false)
            }
            Macro::All | Macro::Exists => match self.truth(&each.body) {
                Ok(value) => {
                    let decides = value == (each.of == Macro::Exists);
                    walk.hits += usize::from(decides);
                    Ok(decides)
                }
                Err(Fault::TooMuchWork) => Err(Fault::TooMuchWork),
                Err(fault) => {
                    walk.fault.get_or_insert(fault);
                    Ok(false)
                }
            },
        }
    }
}

/// What a macro has found so far.
struct Walk<'a, V> {
    of: Macro,
    taken: Vec<Value<'a, V>>,
    hits: usize,
    /// The first fault, which an item that decides makes up for.
    fault: Option<Fault>,
}

impl<'a, V> Walk<'a, V> {
    fn result(self) -> Result<Value<'a, V>, Fault> {
        match (self.of, self.fault) {
            (Macro::Map | Macro::Filter, _) => Ok(Value::List(self.taken)),
            (Macro::ExistsOne, _) => Ok(Value::Bool(self.hits == 1)),
            (Macro::Exists, _) if self.hits > 0 => Ok(Value::Bool(true)),
            (Macro::All, _) if self.hits > 0 => Ok(Value::Bool(false)),
            (_, Some(fault)) => Err(fault),
            (Macro::Exists, None) => Ok(Value::Bool(false)),
            (Macro::All, None) => Ok(Value::Bool(true)),
        }
    }
}

/// What a copy of a value costs.
fn copied_steps<V>(value: &Value<'_, V>) -> usize {
    match value {
        Value::List(values) => values.iter().map(|value| 1 + copied_steps(value)).sum(),
        Value::Text(Cow::Owned(text)) => text.len() / 32,
        Value::Text(Cow::Borrowed(_))
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Time(_)
        | Value::View(_) => 0,
    }
}

fn is_present<'a, V: View<'a>>(view: V) -> bool {
    match view.shape() {
        Shape::Null => false,
        Shape::Text(text) => !text.trim().is_empty(),
        Shape::Bool(_) | Shape::Number | Shape::List | Shape::Object => true,
    }
}
