//! What fills a document: its nodes in the order of the text, and those at usual places.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{Node, index_of};
use crate::usual::{self, Usual, bit_of};

/// A node for each usual place.
#[derive(Debug)]
pub(super) struct Usuals([u32; usual::COUNT]);

/// The number of no node.
const NOWHERE: u32 = u32::MAX;

impl Default for Usuals {
    fn default() -> Self {
        Self([NOWHERE; usual::COUNT])
    }
}

impl Usuals {
    /// The node at a place; none: nothing is there.
    pub(super) fn get(&self, place: Usual) -> Option<usize> {
        let node = self.0[place.number()];
        (node != NOWHERE).then_some(node as usize)
    }

    /// Sets a place. What an earlier member of that name had in it is no longer there: the last one counts.
    fn set(&mut self, place: Usual, node: usize) {
        if self.0[place.number()] != NOWHERE {
            self.clear(place);
        }
        self.0[place.number()] = index_of(node);
    }

    /// Forgets a place, and all that is in it.
    pub(super) fn clear(&mut self, place: Usual) {
        self.0[place.number()..place.end()].fill(NOWHERE);
    }
}

/// Appends what it reads to a document's nodes.
pub(super) struct Fill<'n> {
    pub text: &'n str,
    pub nodes: &'n mut Vec<Node>,
    pub unescaped: &'n mut Vec<Box<str>>,
    pub usual: &'n mut Usuals,
    /// Where what is read next stands, if that is a usual place.
    pub place: Option<Usual>,
}

impl Fill<'_> {
    /// Says where the value that is read next stands.
    pub(super) fn enter(&mut self, place: Option<Usual>) {
        self.place = place;
        if let Some(place) = place {
            self.usual.set(place, self.nodes.len());
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Fill<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.nodes.push(Node::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.nodes.push(Node::Bool(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.nodes.push(Node::Number(value.into()));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.nodes.push(Node::Number(value.into()));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.nodes.push(Number::from_f64(value).map_or(Node::Null, Node::Number));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        let start = text.as_ptr() as usize - self.text.as_ptr() as usize;
        self.nodes.push(Node::Plain { start: index_of(start), end: index_of(start + text.len()) });
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.nodes.push(Node::Unescaped(index_of(self.unescaped.len())));
        self.unescaped.push(text.into());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let at = self.nodes.len();
        self.nodes.push(Node::Null);
        // Nothing within a list is a usual place.
        self.place = None;
        while items.next_element_seed(&mut *self)?.is_some() {
            self.place = None;
        }
        self.nodes[at] = Node::List { end: index_of(self.nodes.len()) };
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let at = self.nodes.len();
        self.nodes.push(Node::Null);
        let (object, mut keys) = (self.place, 0);
        while let Some((bit, place)) = members.next_key_seed(Key(&mut *self, object))? {
            keys |= 1 << bit;
            self.enter(place);
            members.next_value_seed(&mut *self)?;
        }
        self.nodes[at] = Node::Object { end: index_of(self.nodes.len()), keys };
        Ok(())
    }
}

/// A key of an object: filed like any text, and answered with its bit and the usual place that it leads to.
struct Key<'f, 'n>(&'f mut Fill<'n>, Option<Usual>);

/// What a key comes to.
type Read = (u8, Option<Usual>);

impl Key<'_, '_> {
    fn read(&self, key: &str) -> Read {
        let bit = bit_of(key);
        (bit, self.1.and_then(|object| object.member(key, bit)))
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Read;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = Read;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Read, E> {
        let read = self.read(key);
        self.0.visit_borrowed_str::<E>(key)?;
        Ok(read)
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Read, E> {
        let read = self.read(key);
        self.0.visit_str::<E>(key)?;
        Ok(read)
    }
}
