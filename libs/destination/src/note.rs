//! What becomes of single fields of an event: what stays behind and why, told by `preview` and counted by delivery.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use tracklayer_expression::Fault;
use tracklayer_normalise::{Field, Reason};

/// What became of one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteKind {
    /// Nothing was there.
    Omitted,
    /// Something wrong was there.
    Rejected,
    /// The field went out, but a person should know (a website event without a user agent).
    Warned,
}

impl NoteKind {
    /// The kind as it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Omitted => "omitted",
            Self::Rejected => "rejected",
            Self::Warned => "warned",
        }
    }
}

/// A rule about a payload that a field does not meet; what is about the form of a value is a [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// A value, and no currency beside it.
    ValueWithoutCurrency,
    /// One half of a pair of value and currency.
    HalfOfValueAndCurrency,
    /// An e-mail address or a telephone number where none may stand.
    LooksPersonal,
    /// A product without an id.
    ProductWithoutId,
    /// Another type, or a word that the platform does not know.
    NotTaken,
    /// A number above or below what the platform takes.
    OutOfBounds,
    /// A click id of other letters than click ids have.
    NotOfAClickIdsLetters,
    /// A website event without the page's address.
    NoPageAddress,
    /// A website event without a user agent.
    NoUserAgent,
    /// A parameter that GA4 does not take.
    NotAParameter,
    /// More than 25 parameters, which is all that GA4 takes.
    TooManyParameters,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 11] = [
        Self::ValueWithoutCurrency,
        Self::HalfOfValueAndCurrency,
        Self::LooksPersonal,
        Self::ProductWithoutId,
        Self::NotTaken,
        Self::OutOfBounds,
        Self::NotOfAClickIdsLetters,
        Self::NoPageAddress,
        Self::NoUserAgent,
        Self::NotAParameter,
        Self::TooManyParameters,
    ];

    /// The rule as it stands in metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::ValueWithoutCurrency => "value_without_currency",
            Self::HalfOfValueAndCurrency => "half_of_value_and_currency",
            Self::LooksPersonal => "looks_personal",
            Self::ProductWithoutId => "product_without_id",
            Self::NotTaken => "not_taken",
            Self::OutOfBounds => "out_of_bounds",
            Self::NotOfAClickIdsLetters => "not_of_a_click_ids_letters",
            Self::NoPageAddress => "no_page_address",
            Self::NoUserAgent => "no_user_agent",
            Self::NotAParameter => "not_a_parameter",
            Self::TooManyParameters => "too_many_parameters",
        }
    }

    /// The rule for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ValueWithoutCurrency => "a value without a currency",
            Self::HalfOfValueAndCurrency => "a value without a currency, or a currency without a value",
            Self::LooksPersonal => "looks like personal data",
            Self::ProductWithoutId => "a product without an id",
            Self::NotTaken => "not what the platform takes there",
            Self::OutOfBounds => "a number that is out of bounds",
            Self::NotOfAClickIdsLetters => "not of the letters of a click id",
            Self::NoPageAddress => "a website event without a page address",
            Self::NoUserAgent => "a website event without user agent",
            Self::NotAParameter => "not a parameter that GA4 takes",
            Self::TooManyParameters => "more than 25 parameters",
        }
    }
}

/// Why a field is noted: from closed lists, without personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteReason {
    /// The value has no form at the platform.
    Form(Reason),
    /// The payload may not have it.
    Rule(Rule),
    /// The connection's expression gives nothing.
    Expression(Fault),
}

impl NoteReason {
    /// The reason as it stands in metrics and for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Form(reason) => reason.code(),
            Self::Rule(rule) => rule.code(),
            Self::Expression(fault) => fault.code(),
        }
    }

    /// The reason for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Form(reason) => reason.text(),
            Self::Rule(rule) => rule.text(),
            Self::Expression(fault) => fault.text(),
        }
    }
}

impl From<Reason> for NoteReason {
    fn from(reason: Reason) -> Self {
        Self::Form(reason)
    }
}

impl From<Rule> for NoteReason {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl fmt::Display for NoteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The class of custom fields: their names are the operator's, hence no labels.
const CUSTOM: &str = "custom";

/// A remark about one field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What became of it.
    pub kind: NoteKind,
    /// The platform's field, `user_data.ph`.
    pub field: Cow<'static, str>,
    /// What the field holds, the same word at every platform and from a closed list: `phone`.
    pub about: &'static str,
    /// Why.
    pub reason: NoteReason,
}

impl Note {
    /// A value that has no form at the platform, or may not be in it.
    pub fn of_value(
        kind: NoteKind,
        about: Field,
        field: impl Into<Cow<'static, str>>,
        reason: impl Into<NoteReason>,
    ) -> Self {
        Self { kind, field: field.into(), about: about.as_str(), reason: reason.into() }
    }

    /// Something wrong was there. A field whose name is not known at compile time is a custom one.
    pub fn rejected(field: impl Into<Cow<'static, str>>, reason: impl Into<NoteReason>) -> Self {
        Self::new(NoteKind::Rejected, field.into(), reason.into())
    }

    /// The connection's expression for a field gives nothing. `known`: the field's name, if it is no custom one.
    pub(crate) fn of_expression(name: &str, known: Option<&'static str>, fault: Fault) -> Self {
        let field = Cow::Owned(format!("fields.{name}"));
        let reason = NoteReason::Expression(fault);
        Self { kind: NoteKind::Rejected, field, about: known.unwrap_or(CUSTOM), reason }
    }

    /// It stays behind although nothing is wrong with it.
    pub fn omitted(field: impl Into<Cow<'static, str>>, reason: impl Into<NoteReason>) -> Self {
        Self::new(NoteKind::Omitted, field.into(), reason.into())
    }

    /// It went out, but a person should know.
    pub fn warned(field: impl Into<Cow<'static, str>>, reason: impl Into<NoteReason>) -> Self {
        Self::new(NoteKind::Warned, field.into(), reason.into())
    }

    fn new(kind: NoteKind, field: Cow<'static, str>, reason: NoteReason) -> Self {
        let about = match &field {
            Cow::Borrowed(path) => path.rsplit('.').next().unwrap_or(path),
            Cow::Owned(_) => CUSTOM,
        };
        Self { kind, field, about, reason }
    }
}

/// What notes are counted by: few enough values to be the labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NoteLabels {
    /// What became of the field.
    pub kind: &'static str,
    /// What the field holds: [`Note::about`].
    pub field: &'static str,
    /// Why: [`NoteReason::code`].
    pub reason: &'static str,
}

/// Notes of many events, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoteCounts(BTreeMap<NoteLabels, u64>);

impl NoteCounts {
    /// Counts an event's notes.
    pub fn add(&mut self, notes: &[Note]) {
        for note in notes {
            let labels =
                NoteLabels { kind: note.kind.as_str(), field: note.about, reason: note.reason.code() };
            *self.0.entry(labels).or_default() += 1;
        }
    }

    /// How many of each.
    pub fn iter(&self) -> impl Iterator<Item = (NoteLabels, u64)> + '_ {
        self.0.iter().map(|(labels, count)| (*labels, *count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_custom_fields_name_is_no_label() {
        let notes = [
            Note::rejected("custom_data.value", Rule::ValueWithoutCurrency),
            Note::rejected(format!("custom_data.{}", "tier"), Rule::LooksPersonal),
            Note::rejected(format!("custom_data.{}", "shop"), Rule::LooksPersonal),
            Note::of_value(NoteKind::Rejected, Field::Phone, "user_data.ph".to_owned(), Reason::NoDigits),
        ];
        let mut counts = NoteCounts::default();
        counts.add(&notes);
        let told: Vec<_> =
            counts.iter().map(|(labels, count)| (labels.field, labels.reason, count)).collect();
        assert_eq!(
            told,
            [
                ("custom", "looks_personal", 2),
                ("phone", "no_digits", 1),
                ("value", "value_without_currency", 1)
            ]
        );
    }

    #[test]
    fn a_code_means_one_reason() {
        let rules = Rule::ALL.map(NoteReason::Rule);
        let faults = Fault::ALL.map(NoteReason::Expression);
        let forms = Reason::ALL.iter().copied().map(NoteReason::Form);
        let all: Vec<NoteReason> = forms.chain(rules).chain(faults).collect();
        let codes: HashSet<&str> = all.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), all.len());
    }
}
