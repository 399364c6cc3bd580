//! Why the two sides differ, platform by platform.

mod google;
mod meta;
mod tiktok;

use serde_json::Value;

use super::compare::Leaves;

/// On which side something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// On both, another value.
    Both,
    /// On ours alone.
    Ours,
    /// On Segment's alone.
    Theirs,
}

impl Who {
    /// As the table has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Both => "different",
            Self::Ours => "ours alone",
            Self::Theirs => "Segment alone",
        }
    }
}

/// One difference and what stands around it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub event: &'a Value,
    pub action: &'a str,
    pub path: &'a str,
    pub ours: Option<&'a Value>,
    pub theirs: Option<&'a Value>,
    pub all_ours: &'a Leaves,
    pub all_theirs: &'a Leaves,
}

impl Seen<'_> {
    /// On which side it stands.
    pub const fn who(&self) -> Who {
        match (self.ours, self.theirs) {
            (Some(_), None) => Who::Ours,
            (None, Some(_)) => Who::Theirs,
            (Some(_), Some(_)) | (None, None) => Who::Both,
        }
    }

    /// A value of the event, by JSON pointer.
    pub fn of_event(&self, pointer: &str) -> Option<&Value> {
        self.event.pointer(pointer)
    }

    /// The same as text.
    pub fn text_of_event(&self, pointer: &str) -> Option<&str> {
        self.of_event(pointer)?.as_str()
    }

    /// The event's name, or the call's word.
    pub fn name(&self) -> &str {
        self.text_of_event("/event").unwrap_or("page")
    }

    pub fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name())
    }

    pub fn our_text(&self) -> &str {
        self.ours.and_then(Value::as_str).unwrap_or_default()
    }

    pub fn their_text(&self) -> &str {
        self.theirs.and_then(Value::as_str).unwrap_or_default()
    }
}

/// Why a place differs.
pub struct Rule {
    /// The places, without indexes.
    pub places: &'static [&'static str],
    /// Whether it explains what is seen.
    pub holds: fn(&Seen<'_>) -> bool,
    /// The reason, with its source.
    pub reason: &'static str,
}

/// Why one side alone sends an event; the text is why the other does not.
pub struct EventRule {
    pub who: Who,
    pub holds: fn(&Value, &str) -> bool,
    pub reason: &'static str,
}

/// One platform: both sides' settings, and what is known of their differences.
pub struct Platform {
    pub name: &'static str,
    /// Our connection.
    pub document: Value,
    /// Segment's actions, as its runner takes them.
    pub subscriptions: Value,
    /// What is known of the order of an event when it comes.
    pub order_state: fn(&Value) -> Option<Value>,
    pub rules: Vec<Rule>,
    pub event_rules: Vec<EventRule>,
}

impl Platform {
    /// Every reason.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> {
        self.rules.iter().map(|rule| rule.reason).chain(self.event_rules.iter().map(|rule| rule.reason))
    }
}

/// All platforms that both sides serve.
pub fn platforms() -> Vec<Platform> {
    vec![meta::platform(), google::conversions(), google::enhancements(), tiktok::platform()]
}

/// SHA-256 of a text as lower-case hex.
pub fn sha256(text: &str) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(text.as_bytes()))
}

/// Lower case, white space off: as Segment's code cleans what it hashes.
pub fn squeezed(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase()
}

/// Lower case, letters and digits only.
pub fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
}

/// The products of an event: its list, else itself.
pub fn products(event: &Value) -> Vec<&Value> {
    match event.pointer("/properties/products").and_then(Value::as_array) {
        Some(list) => list.iter().collect(),
        None => vec![&event["properties"]],
    }
}

/// Price times quantity, summed over the products that have a price.
pub fn worth(event: &Value) -> f64 {
    products(event)
        .into_iter()
        .filter_map(|product| Some(product["price"].as_f64()? * product["quantity"].as_f64().unwrap_or(1.0)))
        .sum()
}

/// Numbers that are equal to the cent.
pub fn is_about(value: Option<&Value>, number: f64) -> bool {
    value.and_then(Value::as_f64).is_some_and(|value| (value - number).abs() < 0.005)
}

/// Whether two texts are one IP address, the first in its canonical form.
pub fn is_canonical_of(ours: &str, theirs: &str) -> bool {
    theirs.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().to_string() == ours)
}
