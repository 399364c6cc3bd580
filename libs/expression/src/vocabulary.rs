//! The words that an expression may use: names of the event's parts, functions and macros. What is not here is unknown, and is
//! told apart when an expression is compiled.

/// An object of the event, whose members are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `properties`.
    Properties,
    /// `context`.
    Context,
    /// `traits`.
    Traits,
}

/// A text of the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// `type`: the call, "track".
    Type,
    /// `event`: the name of a track, page or screen call.
    Event,
    /// `messageId`.
    MessageId,
}

/// A way in which an event names its person. Only whether it does can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// `has_user_id`.
    UserId,
    /// `has_anonymous_id`.
    AnonymousId,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Root(Root),
    Word(Word),
    Has(Identity),
    /// `timestamp`.
    Time,
}

pub(crate) const NAMES: [(&str, Name); 9] = [
    ("type", Name::Word(Word::Type)),
    ("event", Name::Word(Word::Event)),
    ("messageId", Name::Word(Word::MessageId)),
    ("timestamp", Name::Time),
    ("properties", Name::Root(Root::Properties)),
    ("context", Name::Root(Root::Context)),
    ("traits", Name::Root(Root::Traits)),
    ("has_user_id", Name::Has(Identity::UserId)),
    ("has_anonymous_id", Name::Has(Identity::AnonymousId)),
];

impl Root {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Properties => "properties",
            Self::Context => "context",
            Self::Traits => "traits",
        }
    }
}

/// A function. `size`, `matches` and the conversions are CEL's; `lowerAscii`, `upperAscii`, `trim` and `join` are cel-go's strings
/// library, `sum` is that of Kubernetes' lists library, `round` is our own. Sources: github.com/google/cel-spec,
/// doc/langdef.md; github.com/google/cel-go, ext/README.md; kubernetes.io, "Common Expression Language in Kubernetes"; 2026-11.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Size,
    String,
    Double,
    Int,
    Round,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Sum,
    Join,
}

/// Functions before their arguments: `size(x)`.
pub(crate) const GLOBAL: [(&str, Function, usize); 5] = [
    ("size", Function::Size, 1),
    ("string", Function::String, 1),
    ("double", Function::Double, 1),
    ("int", Function::Int, 1),
    ("round", Function::Round, 2),
];

/// Functions behind a value: `x.contains(y)`. The value counts as an argument.
pub(crate) const MEMBER: [(&str, Function, usize); 9] = [
    ("size", Function::Size, 1),
    ("contains", Function::Contains, 2),
    ("startsWith", Function::StartsWith, 2),
    ("endsWith", Function::EndsWith, 2),
    ("lowerAscii", Function::LowerAscii, 1),
    ("upperAscii", Function::UpperAscii, 1),
    ("trim", Function::Trim, 1),
    ("sum", Function::Sum, 1),
    ("join", Function::Join, 2),
];

/// A macro over the items of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

pub(crate) const MACROS: [(&str, Macro); 6] = [
    ("all", Macro::All),
    ("exists", Macro::Exists),
    ("exists_one", Macro::ExistsOne),
    ("existsOne", Macro::ExistsOne),
    ("map", Macro::Map),
    ("filter", Macro::Filter),
];

/// `; did you mean `x`?`, if one of the words is close to what was written, and then the words.
pub(crate) fn hint(written: &str, words: &[&str]) -> String {
    let close = words
        .iter()
        .map(|word| (strsim::osa_distance(written, word), word))
        .filter(|(distance, word)| *distance <= usize::max(1, word.len().min(written.len()) / 3))
        .min_by_key(|(distance, _)| *distance);
    let meant = close.map(|(_, word)| format!("; did you mean `{word}`?")).unwrap_or_else(|| ".".to_owned());
    format!("{meant} There are: {}", words.join(", "))
}
