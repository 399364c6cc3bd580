//! Names that people give: workspaces, sources, connections; and the labels of admin keys.

use crate::error::ControlError;

/// 1 to 63 characters: a-z, 0-9, hyphen. Fit for an address, a metric and a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// What tells admin keys apart for people: 1 to 63 characters, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label(String);

const MAX_CHARS: usize = 63;

impl Name {
    /// Parses a name; `field` is where it stood.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub fn parse(field: &'static str, text: &str) -> Result<Self, ControlError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > MAX_CHARS || !text.chars().all(fits) {
            return Err(ControlError::invalid(field, "must have 1 to 63 characters: a-z, 0-9, hyphen"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Label {
    /// Parses a label.
    ///
    /// # Errors
    /// [`ControlError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        let text = text.trim();
        let chars = text.chars().count();
        if chars == 0 || chars > MAX_CHARS || text.chars().any(char::is_control) {
            return Err(ControlError::invalid(
                "label",
                "must have 1 to 63 characters, no control characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_and_at_most_63_long() {
        for good in ["a", "web-us", "4-seasons", &"x".repeat(63)] {
            assert!(Name::parse("name", good).is_ok(), "{good}");
        }
        for bad in ["", "Web", "web us", "web_us", "wéb", "a/b", "a\0", &"x".repeat(64)] {
            let error = Name::parse("name", bad).unwrap_err();
            assert!(matches!(error, ControlError::Invalid { ref field, .. } if field == "name"), "{bad}");
        }
    }

    #[test]
    fn a_label_is_for_people_but_has_no_control_characters() {
        assert_eq!(Label::parse("  Zoë's laptop ").unwrap().as_str(), "Zoë's laptop");
        assert!(Label::parse("a\nb").is_err());
        assert!(Label::parse("   ").is_err());
        assert!(Label::parse(&"x".repeat(64)).is_err());
    }
}
