//! Finds the reasons for a difference. Each is a predicate on the input, our form and the SDK's: what we send must be exactly
//! what the reason makes of the input, computed here anew; else the difference stays unexplained.

mod digest;
mod number;
mod phone;
mod published;
mod raw;
mod text;

use tracklayer_normalise::Outcome;

use super::case::{Case, Key, Theirs};
use super::class::Class;

/// How the two sides stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Byte for byte the same on the wire.
    Equal,
    /// Neither sends anything.
    NeitherSends,
    /// Different, for these reasons.
    Explained(Vec<Class>),
    /// Different, and nobody knows why.
    Unexplained,
}

/// Compares what both sides would send.
pub fn find(case: &Case, ours: &Outcome, theirs: &Theirs) -> Finding {
    match (ours.wire(), theirs.wire.as_deref()) {
        (None, None) => return Finding::NeitherSends,
        (Some(ours), Some(theirs)) if ours == theirs => return Finding::Equal,
        _ => {}
    }
    match reasons(case, ours, theirs) {
        reasons if reasons.is_empty() => Finding::Unexplained,
        reasons => Finding::Explained(reasons),
    }
}

fn reasons(case: &Case, ours: &Outcome, theirs: &Theirs) -> Vec<Class> {
    let of_digest = digest::reasons(case, ours);
    if !of_digest.is_empty() {
        return of_digest;
    }
    match case.key {
        Key::Email => text::email(case, ours),
        Key::FirstName | Key::LastName => text::name(case, ours),
        Key::City => text::city(case, ours),
        Key::State => text::state(case, ours),
        Key::PostalCode => text::postal_code(case, ours),
        Key::Country => text::country(case, ours, theirs),
        Key::Phone => phone::phone(case, ours, theirs),
        Key::Gender => number::gender(case, ours),
        Key::Birthday => number::birthday(case, ours),
        Key::BirthDay | Key::BirthMonth | Key::BirthYear => number::part(case, ours),
        Key::ExternalId => raw::external_id(case, ours),
        Key::MobileAdId => raw::mobile_ad_id(case, ours),
        Key::Ip => raw::ip(case, ours),
        Key::Fbc | Key::Fbp => raw::cookie(case, ours),
        Key::Currency => raw::currency(case, ours, theirs),
    }
}

/// The value that we send, before hashing.
fn value(ours: &Outcome) -> Option<&str> {
    match ours {
        Outcome::Normalised { value, .. } => Some(value),
        Outcome::AlreadyHashed { .. } | Outcome::Omitted { .. } | Outcome::Rejected { .. } => None,
    }
}
