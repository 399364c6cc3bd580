//! Match quality: which keys of an event a platform can match its person by, as far as they went out, and which stayed behind because
//! their value was of no use. A set of bits per event, read off the payload as it was built, so that it costs no allocation and no
//! builder can forget to tell of a key; counted by delivery for each connection and event.
//!
//! What a platform makes of them is its own affair: see [`crate::Destination::estimated_quality`] and
//! [`crate::Destination::read_quality`].

use std::fmt;

use crate::fields::Member;
use crate::note::{Note, NoteKind};

/// What a person can be matched by; the same word at every platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Key {
    /// E-mail address, hashed.
    Email,
    /// Phone number, hashed.
    Phone,
    /// The shop's own id of the person; at GA4 the user id.
    ExternalId,
    /// Meta's click.
    Fbc,
    /// Meta's browser.
    Fbp,
    /// Google's click.
    Gclid,
    /// Google's click, aggregated, of an app.
    Gbraid,
    /// Google's click, aggregated, of a page.
    Wbraid,
    /// TikTok's click.
    Ttclid,
    /// TikTok's browser.
    Ttp,
    /// Given name.
    FirstName,
    /// Family name.
    LastName,
    /// Date of birth.
    BirthDate,
    /// Gender.
    Gender,
    /// Street and number.
    Street,
    /// City.
    City,
    /// State, region.
    State,
    /// Postal code.
    PostalCode,
    /// Country.
    Country,
    /// Address on the network.
    Ip,
    /// User agent.
    UserAgent,
    /// Advertising id of a phone.
    MobileAdId,
    /// Meta's login.
    FbLoginId,
    /// Meta's lead.
    LeadId,
    /// Google Analytics' browser, or its instance of an app.
    ClientId,
}

impl Key {
    /// Every key, in the order of their numbers. Numbers are stored: a new key comes at the end.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Email,
        Self::Phone,
        Self::ExternalId,
        Self::Fbc,
        Self::Fbp,
        Self::Gclid,
        Self::Gbraid,
        Self::Wbraid,
        Self::Ttclid,
        Self::Ttp,
        Self::FirstName,
        Self::LastName,
        Self::BirthDate,
        Self::Gender,
        Self::Street,
        Self::City,
        Self::State,
        Self::PostalCode,
        Self::Country,
        Self::Ip,
        Self::UserAgent,
        Self::MobileAdId,
        Self::FbLoginId,
        Self::LeadId,
        Self::ClientId,
    ];

    /// How many there are.
    pub const COUNT: usize = 25;

    /// The stored number, from 0.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The key of a stored number; none: a newer version wrote it.
    #[must_use]
    pub fn from_number(number: usize) -> Option<Self> {
        Self::ALL.get(number).copied()
    }

    /// The word, the same in reports and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::ExternalId => "external_id",
            Self::Fbc => "fbc",
            Self::Fbp => "fbp",
            Self::Gclid => "gclid",
            Self::Gbraid => "gbraid",
            Self::Wbraid => "wbraid",
            Self::Ttclid => "ttclid",
            Self::Ttp => "ttp",
            Self::FirstName => "first_name",
            Self::LastName => "last_name",
            Self::BirthDate => "birth_date",
            Self::Gender => "gender",
            Self::Street => "street",
            Self::City => "city",
            Self::State => "state",
            Self::PostalCode => "postal_code",
            Self::Country => "country",
            Self::Ip => "ip",
            Self::UserAgent => "user_agent",
            Self::MobileAdId => "mobile_ad_id",
            Self::FbLoginId => "fb_login_id",
            Self::LeadId => "lead_id",
            Self::ClientId => "client_id",
        }
    }

    /// The key that a note is about; none: it is about something else.
    fn of_note(note: &Note) -> Option<Self> {
        Some(match note.about {
            "email" => Self::Email,
            "phone" => Self::Phone,
            "external_id" | "user_id" => Self::ExternalId,
            "fbc" => Self::Fbc,
            "fbp" => Self::Fbp,
            "gclid" => Self::Gclid,
            "gbraid" => Self::Gbraid,
            "wbraid" => Self::Wbraid,
            "ttclid" => Self::Ttclid,
            "ttp" => Self::Ttp,
            "first_name" => Self::FirstName,
            "last_name" => Self::LastName,
            "birthday" | "birth_date" => Self::BirthDate,
            "gender" => Self::Gender,
            "street" => Self::Street,
            "city" => Self::City,
            "state" => Self::State,
            "postal_code" => Self::PostalCode,
            "country" => Self::Country,
            "ip" => Self::Ip,
            "user_agent" => Self::UserAgent,
            "mobile_ad_id" | "advertising_id" => Self::MobileAdId,
            "client_id" => Self::ClientId,
            // Ids of the platform itself are told apart by their place alone.
            "click_id" | "opaque_id" => match note.field.rsplit('.').next()? {
                "fbclid" => Self::Fbc,
                "ttclid" => Self::Ttclid,
                "fb_login_id" => Self::FbLoginId,
                "lead_id" => Self::LeadId,
                _ => return None,
            },
            _ => return None,
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of keys.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct KeySet(u32);

impl KeySet {
    /// None.
    pub const NONE: Self = Self(0);

    /// These.
    #[must_use]
    pub const fn of(keys: &[Key]) -> Self {
        let (mut bits, mut place) = (0, 0);
        while place < keys.len() {
            bits |= 1 << keys[place] as u32;
            place += 1;
        }
        Self(bits)
    }

    /// Of an object's members those whose names are keys'; of lists and objects in it likewise.
    pub(crate) fn within(member: &Member<'_>, key_of: fn(&[u8]) -> Option<Key>) -> Self {
        let mut found = Self::NONE;
        match member {
            Member::Object(fields) => {
                for (name, inner) in fields.members() {
                    match inner {
                        Member::Object(_) | Member::List(_) => found = found.and(Self::within(inner, key_of)),
                        Member::Text(_)
                        | Member::Number(_)
                        | Member::Bool(_)
                        | Member::Value(_)
                        | Member::Texts(_) => {}
                    }
                    if let Some(key) = key_of(name.as_bytes()) {
                        found.add(key);
                    }
                }
            }
            Member::List(items) => {
                for item in items {
                    found = found.and(Self::within(item, key_of));
                }
            }
            Member::Text(_) | Member::Number(_) | Member::Bool(_) | Member::Value(_) | Member::Texts(_) => {}
        }
        found
    }

    /// Of these names those that are keys'.
    pub(crate) fn of_names<'n>(
        names: impl IntoIterator<Item = &'n str>,
        key_of: fn(&[u8]) -> Option<Key>,
    ) -> Self {
        let mut found = Self::NONE;
        for key in names.into_iter().filter_map(|name| key_of(name.as_bytes())) {
            found.add(key);
        }
        found
    }

    /// Adds one.
    pub const fn add(&mut self, key: Key) {
        self.0 |= 1 << key as u32;
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is among them.
    #[must_use]
    pub const fn has(self, key: Key) -> bool {
        self.0 & (1 << key as u32) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Key> {
        Key::ALL.into_iter().filter(move |key| self.has(*key))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The keys of which an event had a value that was of no use, so that nothing of them went out, each with the first reason. A key that
/// went out all the same (one of two telephone numbers) is not among them.
#[must_use]
pub fn left_out(sent: KeySet, notes: &[Note]) -> Vec<(Key, &'static str)> {
    let (mut seen, mut left) = (sent, Vec::new());
    for note in notes.iter().filter(|note| note.kind == NoteKind::Rejected) {
        if let Some(key) = Key::of_note(note).filter(|key| !seen.has(*key)) {
            seen.add(key);
            left.push((key, note.reason.code()));
        }
    }
    left
}

/// How many events of a kind went out with each key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// Events.
    pub events: u64,
    /// Of them with each key, by its number.
    pub sent: [u64; Key::COUNT],
}

impl KeyCounts {
    /// Of one event.
    #[must_use]
    pub fn of_one(keys: KeySet) -> Self {
        let mut counts = Self::default();
        counts.add(keys);
        counts
    }

    /// Counts an event.
    pub fn add(&mut self, keys: KeySet) {
        self.events += 1;
        for key in keys.iter() {
            self.sent[key.number()] += 1;
        }
    }

    /// The share of the events that had a key, 0 to 1.
    #[must_use]
    pub fn share(&self, key: Key) -> f64 {
        if self.events == 0 { 0.0 } else { self.sent[key.number()] as f64 / self.events as f64 }
    }
}

/// What a platform itself says about how well it matches one kind of event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventQuality {
    /// The platform's name of the event.
    pub event_name: String,
    /// Its score, on its own scale.
    pub score: Option<f64>,
    /// Of a key, by our word for it where there is one, the percentage of events that had it, as the platform counts.
    pub coverage: Vec<(String, f64)>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tracklayer_normalise::{Field, Reason};

    use super::*;
    use crate::fields::Fields;
    use crate::note::Rule;

    #[test]
    fn a_key_has_one_number_and_one_word() {
        for (number, key) in Key::ALL.into_iter().enumerate() {
            assert_eq!((key.number(), Key::from_number(number)), (number, Some(key)));
        }
        assert_eq!(Key::from_number(Key::COUNT), None);
        let words: BTreeSet<&str> = Key::ALL.into_iter().map(Key::as_str).collect();
        assert_eq!(words.len(), Key::COUNT);
    }

    #[test]
    fn a_set_holds_what_was_put_into_it() {
        let mut keys = KeySet::of(&[Key::Email, Key::ClientId]);
        keys.add(Key::Ttp);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [Key::Email, Key::Ttp, Key::ClientId]);
        assert!(!keys.has(Key::Phone) && KeySet::NONE.is_empty() && !keys.is_empty());
    }

    #[test]
    fn keys_are_found_wherever_they_stand() {
        let key_of = |name: &[u8]| match name {
            b"mail" => Some(Key::Email),
            b"zip" => Some(Key::PostalCode),
            _ => None,
        };
        let inner = Fields::default().with("address", Fields::default().with("zip", "1"));
        let list: Member = [Fields::default().with("mail", "a"), inner].into_iter().collect();
        let found = KeySet::within(&Fields::default().with("people", list).with("other", 1).into(), key_of);
        assert_eq!(found, KeySet::of(&[Key::Email, Key::PostalCode]));
    }

    #[test]
    fn what_was_of_no_use_is_told_once_and_only_where_nothing_went_out() {
        let of_phone = |reason| Note::of_value(NoteKind::Rejected, Field::Phone, "user_data.ph", reason);
        let notes = [
            of_phone(Reason::NoDigits),
            of_phone(Reason::NotAnFbp),
            Note::of_value(NoteKind::Rejected, Field::ClickId, "fbclid", Rule::LooksPersonal),
            Note::of_value(NoteKind::Omitted, Field::City, "user_data.ct", Reason::NoDigits),
            Note::of_value(NoteKind::Rejected, Field::OpaqueId, "user_data.lead_id", Rule::NotTaken),
            Note::rejected("custom_data.value", Rule::ValueWithoutCurrency),
        ];
        assert_eq!(
            left_out(KeySet::NONE, &notes),
            [(Key::Phone, "no_digits"), (Key::Fbc, "looks_personal"), (Key::LeadId, "not_taken")]
        );
        let sent = KeySet::of(&[Key::Phone, Key::Fbc, Key::LeadId]);
        assert!(left_out(sent, &notes).is_empty());
    }

    #[test]
    fn counts_tell_the_share_of_events_that_had_a_key() {
        let mut counts = KeyCounts::of_one(KeySet::of(&[Key::Email]));
        counts.add(KeySet::NONE);
        assert_eq!((counts.events, counts.share(Key::Email), counts.share(Key::Phone)), (2, 0.5, 0.0));
        assert_eq!(KeyCounts::default().share(Key::Email), 0.0, "of no events there is no share");
    }
}
