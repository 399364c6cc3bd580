//! What is wrong with a setting, as an operator reads it.

use std::fmt::{self, Write as _};

/// One thing that is wrong, or risky. Each says: key, value, where it came from, what is allowed, what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// The setting ("claim_ttl"); empty where it is about no single one.
    pub key: String,
    /// Its value as given, `***` for a secret; filled in by `load`.
    pub value: Option<String>,
    /// Where it came from; filled in by `load`.
    pub origin: Option<String>,
    /// What is wrong, in a sentence without its key.
    pub what: String,
    /// What is allowed.
    pub allowed: Option<String>,
    /// What to do.
    pub advice: Option<String>,
    /// Only risky: said, and the service starts.
    pub warning: bool,
}

impl Problem {
    /// A value that is not allowed.
    #[must_use]
    pub fn new(
        key: &str,
        what: impl Into<String>,
        allowed: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            key: key.to_owned(),
            what: what.into(),
            allowed: Some(allowed.into()),
            advice: Some(advice.into()),
            ..Self::default()
        }
    }

    /// Values that are good each, and bad together.
    #[must_use]
    pub fn risky(key: &str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            what: what.into(),
            advice: Some(advice.into()),
            warning: true,
            ..Self::default()
        }
    }

    /// A sentence about no single setting.
    #[must_use]
    pub fn about_text(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }
}

impl From<String> for Problem {
    /// A whole sentence. Where it begins with a key (`lease_ms is 3, …`), `load` adds where that came from.
    fn from(text: String) -> Self {
        Self::about_text(text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), &self.value) {
            (true, _) => f.write_str(&self.what)?,
            (false, Some(value)) => write!(f, "{} = {value}: {}", self.key, self.what)?,
            (false, None) => write!(f, "{}: {}", self.key, self.what)?,
        }
        for (label, text) in [("from", &self.origin), ("allowed", &self.allowed), ("do", &self.advice)] {
            if let Some(text) = text {
                write!(f, "\n    {label}: {text}")?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a section, in the order in which it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The section.
    pub section: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in the configuration")?;
        if !self.section.is_empty() {
            write!(f, " of `{}`", self.section)?;
        }
        f.write_char(':')?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
