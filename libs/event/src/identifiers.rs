//! The identifiers that an event carries, normalised as identity files them.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tracklayer_proto::event::v1::{Event, EventType};

use crate::json;

/// Longest identifier value.
const MAX_VALUE_BYTES: usize = 512;
/// Type of `anonymousId`.
pub const ANONYMOUS_ID: &str = "anonymous_id";
/// Type of an e-mail address.
pub const EMAIL: &str = "email";
/// Type of a telephone number.
pub const PHONE: &str = "phone";
/// Type of `context.device.id`.
pub const DEVICE_ID: &str = "device_id";
/// Type of `userId` where the source does not say another.
pub const USER_ID: &str = "user_id";

/// Whether an identifier stands for a device or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Browser or device.
    Device,
    /// A human.
    Person,
}

/// One identifier of an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventIdentifier {
    /// Registered type: "user_id" or the source's own, "anonymous_id", "email", "phone", "device_id".
    pub r#type: String,
    /// Normalised value. Personal data.
    pub value: String,
    /// What it stands for.
    pub level: Level,
}

/// Every identifier of an event, user id first, without repeats, ten at most. `user_id_type` is the source's (empty:
/// `user_id`).
///
/// E-mail and phone are taken from traits, `context.traits` and `properties`; the traits of a group describe the group
/// and are left out. An alias adds its previous id, as a user id or an anonymous id: see `is_user_id`.
#[must_use]
pub fn identifiers_of(event: &Event, user_id_type: &str) -> Vec<EventIdentifier> {
    let user_id_type = if user_id_type.is_empty() { USER_ID } else { user_id_type };
    let mut found = Vec::new();
    add(&mut found, user_id_type, id(&event.user_id), Level::Person);
    add(&mut found, ANONYMOUS_ID, id(&event.anonymous_id), Level::Device);
    if event.r#type == i32::from(EventType::Alias) && event.previous_id != event.user_id {
        let previous = event.previous_id.trim();
        if is_user_id(previous, event) {
            add(&mut found, user_id_type, id(previous), Level::Person);
        } else {
            add(&mut found, ANONYMOUS_ID, id(previous), Level::Device);
        }
    }
    if event.r#type != i32::from(EventType::Group) {
        add_contacts(&mut found, &event.traits_json);
    }
    add_context(&mut found, &event.context_json);
    add_contacts(&mut found, &event.properties_json);
    found
}

/// Whether an alias's previous id is another user id (two people's ids: a collision for identity) and not the anonymous id
/// that the call was made for. The wire does not say. A UUID, or the event's own anonymous id, is anonymous, as the SDKs
/// make them; an e-mail address, or what is built like the user id ("u_1" and "u_2", 4711 and 4712), is a user id.
fn is_user_id(previous: &str, event: &Event) -> bool {
    if uuid::Uuid::try_parse(previous).is_ok() || previous == event.anonymous_id.trim() {
        return false;
    }
    previous.contains('@') || shape(previous) == shape(event.user_id.trim())
}

/// An id with every run of digits as one zero.
fn shape(id: &str) -> String {
    let mut shape = String::with_capacity(id.len());
    for c in id.chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if c != '0' || !shape.ends_with('0') {
            shape.push(c);
        }
    }
    shape
}

fn add(found: &mut Vec<EventIdentifier>, identifier_type: &str, value: Option<String>, level: Level) {
    let Some(value) = value else { return };
    if !found.iter().any(|f| f.r#type == identifier_type && f.value == value) {
        found.push(EventIdentifier { r#type: identifier_type.to_owned(), value, level });
    }
}

fn add_contacts(found: &mut Vec<EventIdentifier>, object: &[u8]) {
    let Ok(text) = std::str::from_utf8(object) else { return };
    let [email_value, phone_value] = last_values(text, ["email", "phone"]);
    add(found, EMAIL, email_value.and_then(json::text).and_then(|v| email(&v)), Level::Person);
    add(found, PHONE, phone_value.and_then(json::text).and_then(|v| phone(&v)), Level::Person);
}

fn add_context(found: &mut Vec<EventIdentifier>, context: &[u8]) {
    let Ok(text) = std::str::from_utf8(context) else { return };
    let [traits, device] = last_values(text, ["traits", "device"]);
    if let Some(traits) = traits.filter(|value| json::is_object(value)) {
        add_contacts(found, traits.get().as_bytes());
    }
    if let Some(device) = device.filter(|value| json::is_object(value)) {
        let [device_id] = last_values(device.get(), ["id"]);
        add(found, DEVICE_ID, device_id.and_then(json::text).and_then(|v| id(&v)), Level::Device);
    }
}

/// The last value of each key. An event that repeats a key a thousand times has no more identifiers for it: identity and
/// consent refuse a whole batch for one event with more than they take, and its partition would stand still.
fn last_values<'a, const N: usize>(object: &'a str, keys: [&str; N]) -> [Option<&'a RawValue>; N] {
    let mut values = [None; N];
    // Stored text was parsed at ingest; what is empty has no members.
    let _ = json::for_each_member(object, |key, value| {
        if let Some(at) = keys.iter().position(|known| *known == key) {
            values[at] = Some(value);
        }
    });
    values
}

/// An opaque id: trimmed, case kept; `None` for what no id is.
#[must_use]
pub fn id(value: &str) -> Option<String> {
    let value = value.trim();
    let usable = !value.is_empty() && value.len() <= MAX_VALUE_BYTES && !value.chars().any(char::is_control);
    usable.then(|| value.to_owned())
}

/// An e-mail address: trimmed, lower-case, the domain in its ASCII form. Dots and plus signs stay: platforms differ.
#[must_use]
pub fn email(value: &str) -> Option<String> {
    let value = value.trim();
    if value.len() > MAX_VALUE_BYTES || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let (local, domain) = value.rsplit_once('@')?;
    if local.is_empty() || domain.is_empty() {
        return None;
    }
    let domain = match url::Host::parse(domain) {
        Ok(url::Host::Domain(domain)) => domain,
        _ => return None,
    };
    Some(format!("{}@{domain}", local.to_lowercase()))
}

/// A telephone number in E.164, if it says its country; `None` otherwise.
#[must_use]
pub fn phone(value: &str) -> Option<String> {
    let value = value.trim();
    let national: Cow<'_, str> = match value.strip_prefix('+').or_else(|| value.strip_prefix("00")) {
        Some(rest) => rest.chars().filter(char::is_ascii_digit).collect(),
        None => return None,
    };
    ((7..=15).contains(&national.len()) && !national.starts_with('0')).then(|| format!("+{national}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn kinds(event: &Event) -> Vec<(String, String)> {
        identifiers_of(event, "shopify_customer_id").into_iter().map(|i| (i.r#type, i.value)).collect()
    }

    #[test]
    fn values_are_normalised_and_named_once() {
        let event = Event {
            r#type: EventType::Identify.into(),
            user_id: " 4711 ".into(),
            anonymous_id: "a-1".into(),
            traits_json: Bytes::from_static(
                br#"{"email":" Ada@B\u00fccher.Example ","phone":"+49 (151) 123-456 78"}"#,
            ),
            context_json: Bytes::from_static(
                br#"{"traits":{"email":"ada@xn--bcher-kva.example"},"device":{"id":"d-1"}}"#,
            ),
            ..Event::default()
        };
        let expected = [
            ("shopify_customer_id", "4711"),
            ("anonymous_id", "a-1"),
            ("email", "ada@xn--bcher-kva.example"),
            ("phone", "+4915112345678"),
            ("device_id", "d-1"),
        ];
        assert_eq!(kinds(&event), expected.map(|(t, v)| (t.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_key_that_is_repeated_a_thousand_times_gives_one_identifier() {
        let repeat = |member: &dyn Fn(usize) -> String| {
            Bytes::from(format!("{{{}}}", (0..1_200).map(member).collect::<Vec<_>>().join(",")))
        };
        let event = Event {
            r#type: EventType::Alias.into(),
            user_id: "u_1".into(),
            anonymous_id: "a".into(),
            previous_id: "u_2".into(),
            traits_json: repeat(&|n| format!(r#""email":"t{n}@x.de","phone":"+49151000{n:04}""#)),
            properties_json: repeat(&|n| format!(r#""email":"p{n}@x.de","phone":"+49152000{n:04}""#)),
            context_json: repeat(&|n| {
                format!(
                    r#""traits":{{"email":"c{n}@x.de","phone":"+49153000{n:04}"}},"device":{{"id":"d","id":"d{n}"}}"#
                )
            }),
            ..Event::default()
        };
        let found = kinds(&event);
        assert_eq!(found.len(), 10, "{found:?}");
        assert!(found.contains(&("email".to_owned(), "t1199@x.de".to_owned())), "{found:?}");
        assert!(found.contains(&("device_id".to_owned(), "d1199".to_owned())), "{found:?}");
    }

    #[test]
    fn a_groups_traits_are_not_the_persons() {
        let event = Event {
            r#type: EventType::Group.into(),
            user_id: "u".into(),
            traits_json: Bytes::from_static(br#"{"email":"office@example.com"}"#),
            ..Event::default()
        };
        assert_eq!(kinds(&event), [("shopify_customer_id".to_owned(), "u".to_owned())]);
    }

    #[test]
    fn an_alias_to_itself_adds_nothing_and_a_uuid_is_a_device() {
        let alias = |previous: &str| Event {
            r#type: EventType::Alias.into(),
            user_id: "u_1".into(),
            previous_id: previous.into(),
            ..Event::default()
        };
        assert_eq!(kinds(&alias("u_1")).len(), 1);
        for user in ["u_0", "u_17", "ada@example.com"] {
            assert_eq!(kinds(&alias(user))[1].0, "shopify_customer_id", "{user}");
        }
        assert_eq!(kinds(&alias("a_1"))[1].0, "anonymous_id");
        assert_eq!(kinds(&alias("3708315a-c695-4a0c-9145-81d841e72fda"))[1].0, "anonymous_id");
    }

    #[test]
    fn what_no_address_or_number_is_is_left_out() {
        for bad in ["", "@", "a@", "@b", "a b@c.de", "plain", "a@1.2.3.4"] {
            assert_eq!(email(bad), None, "{bad}");
        }
        for bad in ["0151 12345678", "+1", "+0123456789", "hello", "+12345678901234567890"] {
            assert_eq!(phone(bad), None, "{bad}");
        }
        assert_eq!(phone("0049 151 12345678").as_deref(), Some("+4915112345678"));
    }
}
