//! What becomes of one value.

use crate::{Reason, Sha256Hex};

/// What to do with one value. Reasons are from a closed list without personal data, fit for a metric's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The canonical form, and its digest where the platform takes one.
    Normalised {
        /// The canonical form.
        value: String,
        /// SHA-256 of `value` as lower-case hex; `None` where the platform takes the value plain.
        hash: Option<Sha256Hex>,
    },
    /// The value was a digest before it came here: it is passed on, never hashed again.
    AlreadyHashed {
        /// What goes out: lower-case hex, at Meta perhaps with its own libraries' appendix.
        hash: String,
    },
    /// Nothing was there: the field is left out.
    Omitted {
        /// Why.
        reason: Reason,
    },
    /// Something unusable was there: the field is left out, and somebody should look at the source.
    Rejected {
        /// Why.
        reason: Reason,
    },
}

/// What goes on the wire for one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// A plain value, or a digest that came as one.
    Text(String),
    /// A digest that was made here.
    Digest(Sha256Hex),
}

impl Wire {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Digest(digest) => digest.as_str(),
        }
    }

    /// The same by value.
    #[must_use]
    pub fn into_string(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Digest(digest) => digest.as_str().to_owned(),
        }
    }
}

impl Outcome {
    /// What goes on the wire: the digest, else the plain value; `None` if the field is left out.
    pub fn wire(&self) -> Option<&str> {
        match self {
            Self::Normalised { hash: Some(hash), .. } => Some(hash.as_str()),
            Self::AlreadyHashed { hash } => Some(hash),
            Self::Normalised { value, hash: None } => Some(value),
            Self::Omitted { .. } | Self::Rejected { .. } => None,
        }
    }

    /// Like [`Outcome::wire`], by value.
    pub fn into_wire(self) -> Option<Wire> {
        match self {
            Self::Normalised { hash: Some(hash), .. } => Some(Wire::Digest(hash)),
            Self::AlreadyHashed { hash } => Some(Wire::Text(hash)),
            Self::Normalised { value, hash: None } => Some(Wire::Text(value)),
            Self::Omitted { .. } | Self::Rejected { .. } => None,
        }
    }

    /// Why the field is left out, if it is.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Omitted { reason } | Self::Rejected { reason } => Some(*reason),
            Self::Normalised { .. } | Self::AlreadyHashed { .. } => None,
        }
    }
}
