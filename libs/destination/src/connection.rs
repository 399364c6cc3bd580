//! What every kind needs of its document, made ready once: filter, maps, ids, money.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::commerce::Worth;
use crate::deliverable::{Consent, Deliverable, Own, Path, text_of};
use crate::destination::ConsentQuery;
use crate::document::{ConsentCap, Document, Kind, MapTarget, Mode, Paths, SettingsError, WorkspaceDefaults};
use crate::json::Json;
use crate::mapping::{EventFilter, EventMap, wants};
use crate::outcome::{Note, Refusal, RefusalCode, Rule, Skip};
use crate::overlay::Overlay;
use crate::person;
use crate::places::may_hold_a_place;
use crate::usual::{Usual, usual};

/// Fields of browsers and orders that `field_map` and `constants` may name, beside those of [`person::FIELDS`], for every kind.
const FIELDS: [&str; 38] = [
    "ip",
    "user_agent",
    "page_url",
    "referrer",
    "locale",
    "order_id",
    "currency",
    "coupon",
    "query",
    "discount",
    "tax",
    "shipping",
    "affiliation",
    "action_source",
    "gclid",
    "gbraid",
    "wbraid",
    "ttclid",
    "ttp",
    "fbclid",
    "fbc",
    "fbp",
    "client_id",
    "session_id",
    "lead_id",
    "subscription_id",
    "fb_login_id",
    "anon_id",
    "page_id",
    "page_scoped_user_id",
    "ctwa_clid",
    "ig_account_id",
    "ig_sid",
    "whatsapp_business_account_id",
    "messaging_channel",
    "advertising_id",
    "idfv",
    "att_status",
];

/// All fields that every kind has.
fn fields() -> impl Iterator<Item = &'static str> {
    person::FIELDS.into_iter().chain(FIELDS)
}

/// The common part of an opened connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The kind.
    pub kind: Kind,
    /// The mode.
    pub mode: Mode,
    /// Which events.
    pub filter: EventFilter,
    /// Under which names.
    pub map: EventMap,
    /// What a purchase is worth.
    pub worth: Worth,
    /// Whether the document says where something about the person is, so that what others read of the event is not its own.
    pub has_own_person_fields: bool,
    field_map: BTreeMap<String, Paths>,
    constants: BTreeMap<String, Value>,
    /// None: from the second key that the event has claimed, else `properties.event_id`, else `messageId`.
    event_id_from: Option<Vec<Path>>,
    external_id_from: Vec<Path>,
    extra_purposes: Vec<String>,
    cap: Option<ConsentCap>,
}

impl Connection {
    /// Takes the common part out of a document. `custom_prefix` is what custom fields of this kind start with
    /// ("custom_data."); none: the kind has none. Problems are added to `errors`.
    pub fn new<S>(
        document: &Document<S>,
        workspace: &WorkspaceDefaults,
        custom_prefix: Option<&str>,
        errors: &mut Vec<SettingsError>,
    ) -> Self {
        let keys = document.field_map.keys().map(|k| ("field_map", k));
        for (map, key) in keys.chain(document.constants.keys().map(|k| ("constants", k))) {
            let custom =
                custom_prefix.is_some_and(|prefix| key.len() > prefix.len() && key.starts_with(prefix));
            if !custom && !fields().any(|field| field == key) {
                let custom = custom_prefix.map(|p| format!(", or custom ones `{p}…`")).unwrap_or_default();
                errors.push(SettingsError::new(
                    format!("{map}.{key}"),
                    format!("is not a field; fields are {}{custom}", fields().collect::<Vec<_>>().join(", ")),
                ));
            }
        }
        for (field, paths) in
            document.field_map.iter().filter(|(key, _)| person::PLACES.contains(&key.as_str()))
        {
            for why in paths.iter().filter_map(|path| may_hold_a_place(path).err()) {
                errors.push(SettingsError::new(format!("field_map.{field}"), why));
            }
        }
        let paths = |given: &[String]| given.iter().map(|path| Path::new(path)).collect::<Vec<_>>();
        let external_id_from = document.external_id_from.as_deref().map(paths);
        let value_from = document.value_from.as_ref().unwrap_or(&workspace.value_from);
        Self {
            kind: document.kind,
            mode: document.mode,
            filter: document.event_filter.clone(),
            map: EventMap::new(&document.event_map),
            worth: Worth {
                value_from: value_from.iter().map(|path| Path::of_property(path)).collect(),
                from_products: document.value_fallback.is_some()
                    || workspace.value_fallback.as_deref() == Some("products"),
            },
            has_own_person_fields: person::FIELDS.iter().any(|field| {
                document.field_map.contains_key(*field)
                    || document.constants.contains_key(*field)
                    || document.fields.contains_key(*field)
            }),
            field_map: document.field_map.clone(),
            constants: document.constants.clone(),
            event_id_from: document.event_id_from.as_deref().map(paths),
            external_id_from: external_id_from
                .unwrap_or_else(|| ["userId", "anonymousId"].map(Path::new).into()),
            extra_purposes: document.purposes.iter().map(|p| p.as_str().to_owned()).collect(),
            cap: document.consent_cap,
        }
    }

    /// What to ask the firewall.
    #[must_use]
    pub fn consent_query(&self) -> ConsentQuery {
        ConsentQuery { kind: self.kind.as_str(), extra_purposes: self.extra_purposes.clone(), cap: self.cap }
    }

    /// The part of `wants` that all kinds share.
    ///
    /// # Errors
    /// The connection does not want the event.
    pub fn wants(&self, event: &Deliverable) -> Result<(), Skip> {
        wants(self.kind, &self.filter, &self.map, event)
    }

    /// Refuses what must never have come here: an event that consent denies. The lane has asked before; this is the last
    /// gate.
    ///
    /// # Errors
    /// Consent says no.
    pub fn check_consent(&self, event: &Deliverable) -> Result<(), Refusal> {
        match &event.decision {
            Consent::Deny { reason } => Err(Refusal::new(
                RefusalCode::RestrictionNotExpressible,
                format!("consent denies this event ({reason}); it must not be built"),
            )),
            Consent::Allow
            | Consent::AllowInPart { .. }
            | Consent::AllowUnstated
            | Consent::Restricted { .. } => Ok(()),
        }
    }

    /// The same where nobody behind the connection could be told of a restriction, `why` for people.
    ///
    /// # Errors
    /// Consent says no, or restricted.
    pub fn check_unrestricted(&self, event: &Deliverable, why: &str) -> Result<(), Refusal> {
        self.check_consent(event)?;
        match event.decision {
            Consent::Restricted { .. } => Err(Refusal::new(RefusalCode::RestrictionNotExpressible, why)),
            Consent::Deny { .. } | Consent::Allow | Consent::AllowInPart { .. } | Consent::AllowUnstated => {
                Ok(())
            }
        }
    }

    /// The event's name at the platform, where the map gives one.
    #[must_use]
    pub fn mapped_name<'a>(&'a self, event: &'a Deliverable) -> Option<&'a str> {
        match self.map.target(event)? {
            MapTarget::Name(name) => Some(name),
            MapTarget::Detail(detail) => detail.get("name").and_then(Value::as_str),
            MapTarget::Off(()) => None,
        }
    }

    /// A field's value: what an expression gives, which then is the only place; else the document's own paths first, then `defaults`, then its constant.
    #[must_use]
    pub fn find<'a>(&'a self, event: &'a Deliverable, field: &str, defaults: &[Usual]) -> Option<Json<'a>> {
        self.find_or(event, field, || defaults.iter().find_map(|place| event.at(*place)))
    }

    /// The same with a look of one's own in between.
    #[must_use]
    pub fn find_or<'a>(
        &'a self,
        event: &'a Deliverable,
        field: &str,
        default: impl FnOnce() -> Option<Json<'a>>,
    ) -> Option<Json<'a>> {
        if let Some(given) = event.overlay().and_then(|overlay| overlay.field(field)) {
            return given.map(Json::from);
        }
        self.field_map
            .get(field)
            .and_then(|paths| paths.iter().find_map(|path| event.get(path)))
            .or_else(default)
            .or_else(|| self.constants.get(field).filter(|v| !v.is_null()).map(Json::from))
    }

    /// The same as text.
    #[must_use]
    pub fn text<'a>(
        &'a self,
        event: &'a Deliverable,
        field: &str,
        defaults: &[Usual],
    ) -> Option<Cow<'a, str>> {
        text_of(self.find(event, field, defaults)?)
    }

    /// The event's id at the platform: never empty, since ingest gives every event a message_id. Copies of a commerce event that
    /// were deduplicated by their order have one id, whichever of them it is that goes out; a pixel can have the same.
    #[must_use]
    pub fn event_id<'a>(&self, event: &'a Deliverable) -> Cow<'a, str> {
        let found = match &self.event_id_from {
            Some(paths) => paths.iter().find_map(|path| text_of(path.of(event)?)),
            None => {
                let of_order = event.commerce_key().map(Cow::Borrowed);
                let stated = || text_of(event.at(usual!("properties.event_id"))?);
                of_order.or_else(stated).or_else(|| text_of(event.own(Own::MessageId)?))
            }
        };
        found.unwrap_or(Cow::Borrowed(&event.event.message_id))
    }

    /// The person's id at the platform, before normalisation.
    #[must_use]
    pub fn external_id<'a>(&self, event: &'a Deliverable) -> Option<Cow<'a, str>> {
        self.external_id_from.iter().find_map(|path| text_of(path.of(event)?))
    }

    /// Names of custom fields with this prefix, prefix cut off, for which there are expressions: whatever else would stand there does not.
    pub fn owned_custom_fields<'a>(
        &self,
        event: &'a Deliverable,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a str> {
        event
            .overlay()
            .into_iter()
            .flat_map(Overlay::fields)
            .filter_map(move |(key, _)| key.strip_prefix(prefix))
    }

    /// Custom fields with this prefix, prefix cut off: maps first, constants where nothing is there. What looks like an e-mail
    /// address or a phone number stays behind: no platform takes one there.
    pub fn custom_fields(
        &self,
        event: &Deliverable,
        prefix: &str,
        notes: &mut Vec<Note>,
    ) -> Map<String, Value> {
        let mut fields = Map::new();
        for (key, paths) in &self.field_map {
            if let (Some(name), Some(value)) =
                (key.strip_prefix(prefix), paths.iter().find_map(|path| event.get(path)))
            {
                fields.insert(name.to_owned(), value.to_value());
            }
        }
        for (key, value) in &self.constants {
            if let Some(name) = key.strip_prefix(prefix) {
                fields.entry(name.to_owned()).or_insert_with(|| value.clone());
            }
        }
        for (key, value) in event.overlay().into_iter().flat_map(Overlay::fields) {
            if let (Some(name), Some(value)) = (key.strip_prefix(prefix), value) {
                fields.insert(name.to_owned(), value.clone());
            }
        }
        fields.retain(|name, value| {
            let personal = looks_personal(&*value);
            if personal {
                notes.push(Note::rejected(format!("{prefix}{name}"), Rule::LooksPersonal));
            }
            !personal
        });
        fields
    }
}

/// Other properties that may go along as custom ones: plain values whose key names nothing personal, is not in `taken`, and is
/// no field that an expression gives.
#[must_use]
pub fn harmless_properties(event: &Deliverable, taken: &[&str]) -> Map<String, Value> {
    let Some(properties) = event.properties().as_object() else { return Map::new() };
    properties
        .iter()
        .filter(|(key, value)| {
            matches!(value, Json::Text(_) | Json::Number(_) | Json::Bool(_))
                && value.present().is_some()
                && !taken.contains(key)
                && event.overlay().is_none_or(|overlay| overlay.field(key).is_none())
                && !names_a_person(key)
                && !looks_personal(*value)
        })
        .map(|(key, value)| (key.to_owned(), value.to_value()))
        .collect()
}

/// Whether a property's key names something about a person, in any spelling.
pub(crate) fn names_a_person(key: &str) -> bool {
    const WORDS: [&str; 36] = [
        "email",
        "mail",
        "phone",
        "mobile",
        "firstname",
        "lastname",
        "fullname",
        "surname",
        "givenname",
        "familyname",
        "username",
        "address",
        "street",
        "city",
        "zip",
        "zipcode",
        "postalcode",
        "postcode",
        "birthday",
        "birthdate",
        "dob",
        "dateofbirth",
        "gender",
        "ip",
        "useragent",
        "ssn",
        "passport",
        "password",
        "token",
        "customername",
        "traits",
        "user",
        "customer",
        "contact",
        "recipient",
        "sharemessage",
    ];
    let folded: String = key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    WORDS.contains(&folded.as_str())
        || ["email", "phone", "firstname", "lastname", "address", "birth", "password"]
            .iter()
            .any(|w| folded.contains(w))
}

/// Whether a value looks like an e-mail address or an international phone number, or holds one in a list or object.
#[must_use]
pub fn looks_personal<'a>(value: impl Into<Json<'a>>) -> bool {
    let text = match value.into() {
        Json::Text(text) => text.trim(),
        Json::List(list) => return list.iter().any(looks_personal),
        Json::Object(members) => return members.iter().any(|(_, value)| looks_personal(value)),
        Json::Null | Json::Bool(_) | Json::Number(_) => return false,
    };
    let is_mail = || {
        let at = text.bytes().position(|byte| byte == b'@').filter(|at| *at > 0);
        at.is_some_and(|at| text[at..].contains('.') && !text.contains("://"))
    };
    let is_phone = || {
        text.starts_with('+')
            && (7..=15).contains(&text.bytes().filter(u8::is_ascii_digit).count())
            && text[1..].chars().all(|c| c.is_ascii_digit() || " -().".contains(c))
    };
    is_mail() || is_phone()
}
