//! What a platform's own trial of a request says: it looks at the items and counts nothing.

/// The result of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// The platform would take them all.
    Passed,
    /// What it would not take, or finds fault with; never empty.
    Found(Vec<Finding>),
    /// Nothing was said about the items: a credential, a quota, a server in trouble.
    Unanswered {
        /// The platform's code, `HTTP_502` where it has none.
        code: String,
        /// For people.
        detail: String,
    },
}

/// One thing that a platform finds fault with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The item's place among those that were tried; none: it is about the request, or about nothing that the answer names.
    pub index: Option<usize>,
    /// The platform's name of the field, `events.params.currency`; empty: none is named.
    pub field: String,
    /// The platform's code.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl Trial {
    /// From what was found.
    #[must_use]
    pub fn of(findings: Vec<Finding>) -> Self {
        if findings.is_empty() { Self::Passed } else { Self::Found(findings) }
    }
}
