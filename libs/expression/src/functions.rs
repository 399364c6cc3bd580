//! What the functions do.

use std::borrow::Cow;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};

use crate::evaluate::{Of, Run};
use crate::event::{Event, Shape, View};
use crate::program::Node;
use crate::value::{Fault, Value};
use crate::vocabulary::Function;

/// Most digits behind the point that `round` leaves.
const MAX_DIGITS: u32 = 8;

impl<'a, E: Event> Run<'a, E> {
    pub fn called(&mut self, function: Function, args: &'a [Node]) -> Result<Of<'a, E>, Fault> {
        match (function, args) {
            (Function::Size, [of]) => self.size(of),
            (Function::String, [of]) => self.written(of),
            (Function::Double, [of]) => Ok(Value::Number(self.number_in(of)?)),
            (Function::Int, [of]) => Ok(Value::Number(self.number_in(of)?.trunc())),
            (Function::Round, [of, digits]) => {
                let (number, digits) = (self.number(of)?, self.number(digits)?.normalize());
                let digits = digits.to_u32().filter(|d| *d <= MAX_DIGITS && digits.scale() == 0);
                let digits = digits.ok_or(Fault::OutOfRange)?;
                Ok(Value::Number(
                    number.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero),
                ))
            }
            (Function::Contains, [of, part]) => self.search(of, part, |text, part| text.contains(part)),
            (Function::StartsWith, [of, part]) => self.search(of, part, |text, part| text.starts_with(part)),
            (Function::EndsWith, [of, part]) => self.search(of, part, |text, part| text.ends_with(part)),
            (Function::LowerAscii, [of]) => self.changed(of, |text| text.to_ascii_lowercase()),
            (Function::UpperAscii, [of]) => self.changed(of, |text| text.to_ascii_uppercase()),
            (Function::Trim, [of]) => Ok(Value::Text(match self.text(of)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            })),
            (Function::Sum, [list]) => {
                let mut sum = Decimal::ZERO;
                for item in self.values_of(list)? {
                    let item = match item {
                        Value::Number(item) => item,
                        Value::Null => return Err(Fault::Absent),
                        _ => return Err(Fault::Type),
                    };
                    sum = sum.checked_add(item).ok_or(Fault::OutOfRange)?;
                }
                Ok(Value::Number(sum))
            }
            (Function::Join, [list, between]) => self.joined(list, between),
            // The typed pass has counted the arguments.
            _ => Err(Fault::Type),
        }
    }

    /// Characters of a text, items of a list.
    fn size(&mut self, of: &'a Node) -> Result<Of<'a, E>, Fault> {
        let count = match self.value(of)? {
            Value::Text(text) => {
                self.pay(text.len() / 32)?;
                text.chars().count()
            }
            Value::List(values) => values.len(),
            Value::View(view) if view.shape() == Shape::List => {
                self.pay(view.weight())?;
                view.items().count()
            }
            Value::Null => return Err(Fault::Absent),
            _ => return Err(Fault::Type),
        };
        Ok(Value::Number(Decimal::from(count)))
    }

    fn written(&mut self, of: &'a Node) -> Result<Of<'a, E>, Fault> {
        let text = match self.value(of)? {
            text @ Value::Text(_) => return Ok(text),
            Value::Number(number) => number.normalize().to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Time(time) => time.to_string(),
            Value::Null => return Err(Fault::Absent),
            Value::List(_) | Value::View(_) => return Err(Fault::Type),
        };
        Ok(Value::Text(Cow::Owned(text)))
    }

    fn number_in(&mut self, of: &'a Node) -> Result<Decimal, Fault> {
        match self.value(of)? {
            Value::Number(number) => Ok(number),
            Value::Text(text) => {
                let text = text.trim();
                text.parse().or_else(|_| Decimal::from_scientific(text)).map_err(|_| Fault::Type)
            }
            Value::Null => Err(Fault::Absent),
            _ => Err(Fault::Type),
        }
    }

    fn search(
        &mut self,
        of: &'a Node,
        part: &'a Node,
        found: impl FnOnce(&str, &str) -> bool,
    ) -> Result<Of<'a, E>, Fault> {
        let (text, part) = (self.text(of)?, self.text(part)?);
        self.pay((text.len() + part.len()) / 32)?;
        Ok(Value::Bool(found(&text, &part)))
    }

    fn changed(&mut self, of: &'a Node, change: impl FnOnce(&str) -> String) -> Result<Of<'a, E>, Fault> {
        let text = self.text(of)?;
        self.make_room(text.len())?;
        Ok(Value::Text(Cow::Owned(change(&text))))
    }

    fn joined(&mut self, list: &'a Node, between: &'a Node) -> Result<Of<'a, E>, Fault> {
        let between = self.text(between)?;
        let mut joined = String::new();
        for (index, item) in self.values_of(list)?.into_iter().enumerate() {
            let item = match item {
                Value::Text(item) => item,
                Value::Null => return Err(Fault::Absent),
                _ => return Err(Fault::Type),
            };
            let between = if index == 0 { "" } else { &*between };
            self.make_room(joined.len() + between.len() + item.len())?;
            joined.push_str(between);
            joined.push_str(&item);
        }
        Ok(Value::Text(Cow::Owned(joined)))
    }
}
