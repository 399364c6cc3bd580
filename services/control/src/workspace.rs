//! A workspace: the wall between two customers.

use jiff::Timestamp;
use tracklayer_destination::WorkspaceDefaults;
use tracklayer_ids::WorkspaceId;

use crate::error::ControlError;
use crate::name::Name;

/// Partitions of a workspace that does not say. One visitor always lands in the same one.
const DEFAULT_PARTITIONS: u32 = 4;
const MAX_PARTITIONS: u32 = 64;
const MAX_VALUE_FROM: usize = 10;
const MAX_PROPERTY_CHARS: usize = 100;

/// A workspace to be made; every field is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorkspace {
    /// Its name, unique in the installation.
    pub name: Name,
    /// Partitions of its journal.
    pub partitions: u32,
    /// Which property a purchase is worth, in this order.
    pub value_from: Vec<String>,
    /// What one with none of them is worth.
    pub value_fallback: ValueFallback,
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: String,
    /// Partitions of its journal.
    pub partitions: u32,
    /// Which property a purchase is worth, in this order.
    pub value_from: Vec<String>,
    /// What one with none of them is worth.
    pub value_fallback: ValueFallback,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a purchase is worth where none of `value_from` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueFallback {
    /// It is refused.
    Refuse,
    /// Price times quantity, summed over the products.
    Products,
}

impl ValueFallback {
    /// The word in proto and SQL; empty for [`ValueFallback::Refuse`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "",
            Self::Products => "products",
        }
    }

    /// The fallback of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Refuse, Self::Products].into_iter().find(|fallback| fallback.as_str() == text)
    }
}

impl NewWorkspace {
    /// Parses a request; 0 partitions and an empty `value_from` stand for the defaults.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub fn parse(
        name: &str,
        partitions: u32,
        value_from: Vec<String>,
        value_fallback: &str,
    ) -> Result<Self, ControlError> {
        let name = Name::parse("name", name)?;
        let partitions = if partitions == 0 { DEFAULT_PARTITIONS } else { partitions };
        Ok(Self {
            name,
            partitions: parse_partitions(partitions)?,
            value_from: parse_value_from(value_from)?,
            value_fallback: ValueFallback::parse(value_fallback)
                .ok_or_else(|| ControlError::invalid("value_fallback", "must be `products` or empty"))?,
        })
    }
}

impl Workspace {
    /// What its connections take over where their document does not say.
    #[must_use]
    pub fn defaults(&self) -> WorkspaceDefaults {
        WorkspaceDefaults {
            value_from: self.value_from.clone(),
            value_fallback: match self.value_fallback {
                ValueFallback::Refuse => None,
                ValueFallback::Products => Some(ValueFallback::Products.as_str().to_owned()),
            },
        }
    }
}

/// The number of partitions that a request asks for.
///
/// # Errors
/// [`ControlError::Invalid`].
pub fn parse_partitions(given: u32) -> Result<u32, ControlError> {
    if (1..=MAX_PARTITIONS).contains(&given) {
        Ok(given)
    } else {
        Err(ControlError::invalid("partitions", "must be 1 to 64"))
    }
}

fn parse_value_from(given: Vec<String>) -> Result<Vec<String>, ControlError> {
    if given.is_empty() {
        return Ok(WorkspaceDefaults::default().value_from);
    }
    if given.len() > MAX_VALUE_FROM {
        return Err(ControlError::invalid("value_from", "must name at most 10 properties"));
    }
    for (index, property) in given.iter().enumerate() {
        let chars = property.chars().count();
        let fits = (1..=MAX_PROPERTY_CHARS).contains(&chars)
            && !property.chars().any(|c| c.is_control() || c.is_whitespace());
        let field = format!("value_from[{index}]");
        if !fits {
            return Err(ControlError::invalid(
                field,
                "must be a property's name, 1 to 100 characters, no spaces",
            ));
        }
        if given[..index].contains(property) {
            return Err(ControlError::invalid(field, "is named twice"));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_the_defaults() {
        let new = NewWorkspace::parse("northline", 0, Vec::new(), "").unwrap();
        assert_eq!(new.partitions, 4);
        assert_eq!(new.value_from, ["revenue", "total", "value"]);
        assert_eq!(new.value_fallback, ValueFallback::Refuse);
    }

    #[test]
    fn each_bad_field_is_named() {
        let texts = |given: &[&str]| given.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let cases = [
            (NewWorkspace::parse("North", 1, Vec::new(), ""), "name"),
            (NewWorkspace::parse("n", 65, Vec::new(), ""), "partitions"),
            (NewWorkspace::parse("n", 1, texts(&["revenue", ""]), ""), "value_from[1]"),
            (NewWorkspace::parse("n", 1, texts(&["total", "total"]), ""), "value_from[1]"),
            (NewWorkspace::parse("n", 1, texts(&["a"; 11]), ""), "value_from"),
            (NewWorkspace::parse("n", 1, Vec::new(), "guess"), "value_fallback"),
        ];
        for (result, expected) in cases {
            match result {
                Err(ControlError::Invalid { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
