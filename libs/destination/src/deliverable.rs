//! An event with everything that resolve found out about it, its JSON parsed once for all connections.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;
use rust_decimal::Decimal;
use tracklayer_event::commerce::id_of_key;
use tracklayer_normalise::{Numbers, Platform};
use tracklayer_proto::event::v1::{ClickIds, ConnectionDecision, Event};

use crate::commerce::order_id_is_personal;
use crate::json::{Json, ParsedJson};
use crate::mapping::{folded, map_name};
use crate::match_key::MatchKey;
use crate::overlay::{Filled, Overlay};
use crate::person::PersonKeys;
use crate::usual::{Usual, usual};

/// What the consent firewall decided for this event and this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    /// Send: nothing is denied.
    Allow,
    /// Send. What is denied the connection does not need (GA4 is for analytics), so nothing is restricted; but a payload that
    /// speaks of it says so, and has nothing in it that is for that alone.
    AllowInPart {
        /// What is denied, in the firewall's words or Google's.
        denied_purposes: Vec<String>,
    },
    /// Send, but state nothing about consent, since nothing is known. Only `preview` asks for it; the firewall never
    /// answers so.
    AllowUnstated,
    /// Send only with the platform's restriction stated.
    Restricted {
        /// The place that decided, "US-CA".
        place: String,
        /// What a payload must state as denied (`ad_user_data`, `ad_personalization`, or purposes of the firewall).
        denied_purposes: Vec<String>,
    },
    /// Do not send.
    Deny {
        /// The firewall's reason.
        reason: String,
    },
}

impl Consent {
    /// From the firewall's answer. An outcome that this version does not know is a denial.
    #[must_use]
    pub fn from_decision(decision: &ConnectionDecision) -> Self {
        match decision.outcome {
            1 if decision.denied_purposes.is_empty() => Self::Allow,
            1 => Self::AllowInPart { denied_purposes: decision.denied_purposes.clone() },
            2 => Self::Restricted {
                place: decision.place.clone(),
                denied_purposes: decision.denied_purposes.clone(),
            },
            _ => Self::Deny { reason: decision.reason.clone() },
        }
    }

    /// What resolve was told for a connection. Without an answer, the connection was not known then: nothing may go out until
    /// consent is asked.
    #[must_use]
    pub fn of_resolve(decision: Option<&ConnectionDecision>) -> Self {
        decision.map_or_else(|| Self::Deny { reason: "no_decision".to_owned() }, Self::from_decision)
    }

    /// Whether the use of personal data for ads (Google's `ad_user_data`) is denied.
    #[must_use]
    pub fn denies_user_data(&self) -> bool {
        self.denies(&["ad_user_data", "ad_measurement", "sale_share"])
    }

    /// Whether personalised ads (Google's `ad_personalization`) are denied. Everything that denies user data denies it too, and
    /// a restriction that names nothing still restricts: this is the least that it denies.
    #[must_use]
    pub fn denies_personalization(&self) -> bool {
        match self {
            Self::Allow | Self::AllowUnstated => false,
            Self::AllowInPart { .. } => {
                self.denies_user_data() || self.denies(&["ad_personalization", "ad_targeting"])
            }
            Self::Restricted { .. } | Self::Deny { .. } => true,
        }
    }

    fn denies(&self, names: &[&str]) -> bool {
        match self {
            Self::Allow | Self::AllowUnstated => false,
            Self::AllowInPart { denied_purposes } | Self::Restricted { denied_purposes, .. } => {
                denied_purposes.iter().any(|purpose| names.contains(&purpose.as_str()))
            }
            Self::Deny { .. } => true,
        }
    }
}

/// What delivery keeps per (connection, order_id).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderState {
    /// The value that was sent for the purchase.
    pub value: Option<Decimal>,
    /// What the customer paid, if it was known; refunds are measured against it. None: the value is the total.
    pub total: Option<Decimal>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// The purchase's time, as sent.
    pub at: Option<Timestamp>,
    /// All refunds so far, positive, without the event at hand.
    pub refunded: Decimal,
    /// Whether everything of it came back: told of as such, whatever it was worth.
    pub all_back: bool,
    /// Whether a new value was told since it was sold: `value` is that one.
    pub restated: bool,
    /// The newest time that a change of it was stated with: the next one has to be later.
    pub adjusted_at: Option<Timestamp>,
    /// When the newest change of it happened, by its own account: `adjusted_at` may have been put behind the change before it.
    pub changed_at: Option<Timestamp>,
    /// When the newest of the new values since it was sold was stated, by its own account: refunds from before it are part of it.
    pub restated_at: Option<Timestamp>,
    /// What its purchase was matched by, where that is kept and may be used.
    pub match_key: Option<MatchKey>,
}

impl OrderState {
    /// Whether a purchase was sent. Of one that was not there may be refunds all the same.
    #[must_use]
    pub const fn is_sold(&self) -> bool {
        self.value.is_some() || self.at.is_some()
    }

    /// Whether something was told of it beside its sale that still counts: a refund, a cancellation, a new value.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.all_back || self.restated || self.refunded > Decimal::ZERO
    }

    /// What refunds are measured against: the total, or the value where there is none (a total of nothing, paid with a voucher, is
    /// none).
    #[must_use]
    pub fn whole(&self) -> Option<Decimal> {
        self.total.filter(|total| *total > Decimal::ZERO).or(self.value)
    }

    /// Whether everything of it came back by earlier events.
    #[must_use]
    pub fn is_all_back(&self) -> bool {
        let by_amount = || self.whole().is_some_and(|whole| self.refunded >= whole);
        self.all_back || (self.refunded > Decimal::ZERO && by_amount())
    }
}

/// A text of an event beside its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// `messageId`.
    MessageId,
    /// `userId`.
    UserId,
    /// `anonymousId`.
    AnonymousId,
    /// `groupId`.
    GroupId,
    /// `previousId`.
    PreviousId,
    /// `event`.
    Name,
    /// The profile's key.
    CanonicalKey,
}

impl Own {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "messageId" | "message_id" => Self::MessageId,
            "userId" | "user_id" => Self::UserId,
            "anonymousId" | "anonymous_id" => Self::AnonymousId,
            "groupId" | "group_id" => Self::GroupId,
            "previousId" | "previous_id" => Self::PreviousId,
            "event" | "name" => Self::Name,
            "canonical_key" => Self::CanonicalKey,
            _ => return None,
        })
    }
}

/// A path that a document names, looked up once where that is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    text: String,
    lead: Lead,
}

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    Usual(Usual),
    Own(Own),
    /// To be walked.
    Other,
}

impl Path {
    /// From the top of the event, as [`Deliverable::get`] has it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        // Whatever stands behind the dot, these have nothing in them.
        let own = text.split('.').next().and_then(Own::named).map(Lead::Own);
        let lead = Usual::find(text).map(Lead::Usual).or(own).unwrap_or(Lead::Other);
        Self { text: text.to_owned(), lead }
    }

    /// From `properties`, with or without that word before it.
    #[must_use]
    pub fn of_property(text: &str) -> Self {
        Self::new(&format!("properties.{}", text.strip_prefix("properties.").unwrap_or(text)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands there.
    #[must_use]
    pub fn of<'e>(&self, event: &'e Deliverable) -> Option<Json<'e>> {
        match self.lead {
            Lead::Usual(place) => event.at(place),
            Lead::Own(field) => event.own(field),
            Lead::Other => event.get(&self.text),
        }
    }
}

/// What several connections read of an event, each in the same places, and what they make of it.
#[derive(Debug, Default)]
struct Readings {
    /// The person in each platform's form.
    keys: [OnceLock<PersonKeys>; 4],
    numbers: Numbers,
}

/// An event ready for [`crate::Destination::build`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Deliverable {
    /// The event as ingest accepted it.
    pub event: Arc<Event>,
    json: Arc<ParsedJson>,
    readings: Arc<Readings>,
    folded_name: Arc<str>,
    /// What the event was deduplicated by beside its message_id, "order_completed:A-1"; empty: nothing.
    commerce_key: Arc<str>,
    /// Ids known for the person or device from earlier events.
    pub known_click_ids: Arc<ClickIds>,
    /// The profile's canonical key, hex; empty if unknown.
    pub canonical_key_hex: Arc<str>,
    /// Consent's decision for the connection at hand.
    pub decision: Consent,
    /// The order's state at the connection at hand. None: nobody looked; one that was not found is an empty one.
    pub order_state: Option<OrderState>,
    /// What expressions of the connection at hand have made of the event; none: it has no expressions.
    overlay: Option<Arc<Overlay>>,
    /// The same from `order_key` until `build` takes it.
    kept: Arc<Mutex<Option<Filled>>>,
}

impl Deliverable {
    /// Parses the event's JSON once. Text that is not JSON counts as absent: ingest has validated it, and a builder must not
    /// fail on what it cannot read.
    #[must_use]
    pub fn new(
        event: Event,
        known_click_ids: ClickIds,
        canonical_key_hex: &str,
        decision: Consent,
        order_state: Option<OrderState>,
    ) -> Self {
        let parts: [(&[u8], Usual); 4] = [
            (&event.properties_json, usual!("properties")),
            (&event.traits_json, usual!("traits")),
            (&event.context_json, usual!("context")),
            (&event.integrations_json, usual!("integrations")),
        ];
        Self {
            json: Arc::new(ParsedJson::of_event(parts)),
            readings: Arc::default(),
            folded_name: folded(map_name(&event)).into(),
            commerce_key: Arc::default(),
            event: Arc::new(event),
            known_click_ids: Arc::new(known_click_ids),
            canonical_key_hex: canonical_key_hex.into(),
            decision,
            order_state,
            overlay: None,
            kept: Arc::default(),
        }
    }

    /// An event with what resolve found out about it; denied, until a connection's decision is put in.
    #[must_use]
    pub fn of_resolved(
        event: Event,
        known_click_ids: Option<ClickIds>,
        canonical_key: &[u8],
        commerce_key: &str,
    ) -> Self {
        let (known, key_hex) = (known_click_ids.unwrap_or_default(), hex::encode(canonical_key));
        Self::new(event, known, &key_hex, Consent::of_resolve(None), None).with_commerce_key(commerce_key)
    }

    /// What its JSON takes in memory while it is parsed, bytes.
    #[must_use]
    pub fn parsed_bytes(&self) -> usize {
        self.json.bytes()
    }

    /// With what a connection's expressions have made of it.
    #[must_use]
    pub(crate) fn with_overlay(&self, overlay: Overlay) -> Self {
        self.with_shared_overlay(&Arc::new(overlay))
    }

    /// The same of one that is kept elsewhere, too.
    #[must_use]
    pub(crate) fn with_shared_overlay(&self, overlay: &Arc<Overlay>) -> Self {
        Self { overlay: Some(Arc::clone(overlay)), ..self.clone() }
    }

    /// Keeps what a connection's expressions have made of it.
    pub(crate) fn keep(&self, filled: Filled) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(filled);
    }

    /// Takes what was kept, if it is of this connection.
    pub(crate) fn kept_of(&self, connection: u64) -> Option<Filled> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_if(|filled| filled.of == connection)
    }

    /// What a connection's expressions have made of it.
    #[must_use]
    pub(crate) fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_deref()
    }

    /// With the second key that it has claimed; empty: none.
    #[must_use]
    pub fn with_commerce_key(self, commerce_key: &str) -> Self {
        if commerce_key.is_empty() { self } else { Self { commerce_key: commerce_key.into(), ..self } }
    }

    /// The second key that the event has claimed. An id that holds an address or a number of a person is none to tell others.
    #[must_use]
    pub fn commerce_key(&self) -> Option<&str> {
        let fit = !self.commerce_key.is_empty() && !order_id_is_personal(id_of_key(&self.commerce_key));
        fit.then_some(&*self.commerce_key)
    }

    /// The same event for another connection: the parsed JSON is shared.
    #[must_use]
    pub fn for_connection(&self, decision: Consent, order_state: Option<OrderState>) -> Self {
        Self { decision, order_state, overlay: None, kept: Arc::default(), ..self.clone() }
    }

    /// When it happened (skew-corrected); receipt if the event has no usable time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        let read = |t: &Option<_>| t.as_ref().and_then(instant);
        read(&self.event.timestamp).or_else(|| read(&self.event.received_at)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// A value by its path from the top of the Segment event: `properties.order_id`, `context.traits.email`, `userId`,
    /// `messageId`. Empty texts and nulls count as absent.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Json<'_>> {
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let root = match head {
            "properties" => self.properties(),
            "traits" => self.traits(),
            "context" => self.context_object(),
            "integrations" => self.integrations(),
            _ => return self.own(Own::named(head)?),
        };
        root.at(rest)
    }

    /// A text of the event beside its JSON; an empty one counts as absent.
    #[must_use]
    pub fn own(&self, field: Own) -> Option<Json<'_>> {
        let text = match field {
            Own::MessageId => &*self.event.message_id,
            Own::UserId => &*self.event.user_id,
            Own::AnonymousId => &*self.event.anonymous_id,
            Own::GroupId => &*self.event.group_id,
            Own::PreviousId => &*self.event.previous_id,
            Own::Name => &*self.event.name,
            Own::CanonicalKey => &*self.canonical_key_hex,
        };
        (!text.is_empty()).then_some(Json::Text(text))
    }

    /// The value at a usual place. Empty texts and nulls count as absent.
    #[must_use]
    pub fn at(&self, place: Usual) -> Option<Json<'_>> {
        self.json.at(place)
    }

    /// The person in a platform's form, as connections that look at the usual places have it: normalised and hashed once.
    pub(crate) fn person_keys(
        &self,
        platform: Platform,
        normalise: impl FnOnce() -> PersonKeys,
    ) -> &PersonKeys {
        let slot = match platform {
            Platform::Meta => 0,
            Platform::Google => 1,
            Platform::Ga4 => 2,
            Platform::Tiktok => 3,
        };
        self.readings.keys[slot].get_or_init(normalise)
    }

    /// The person in the forms that were made before.
    pub(crate) fn known_person_keys(&self) -> [(Platform, Option<&PersonKeys>); 4] {
        let [meta, google, ga4, tiktok] = self.readings.keys.each_ref().map(OnceLock::get);
        [(Platform::Meta, meta), (Platform::Google, google), (Platform::Ga4, ga4), (Platform::Tiktok, tiktok)]
    }

    /// Its telephone numbers, each looked up in its numbering plan once.
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.readings.numbers
    }

    /// The name that maps and filters know the event by, as it is compared: see [`folded`].
    #[must_use]
    pub fn folded_name(&self) -> &str {
        &self.folded_name
    }

    /// `properties`, an object or null.
    #[must_use]
    pub fn properties(&self) -> Json<'_> {
        self.json.root(0)
    }

    /// `traits`, an object or null.
    #[must_use]
    pub fn traits(&self) -> Json<'_> {
        self.json.root(1)
    }

    /// `context`, an object or null.
    #[must_use]
    pub fn context_object(&self) -> Json<'_> {
        self.json.root(2)
    }

    /// `integrations`, an object or null.
    #[must_use]
    pub fn integrations(&self) -> Json<'_> {
        self.json.root(3)
    }
}

/// The instant of a proto timestamp, if it is one.
#[must_use]
pub fn instant(t: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(t.seconds, t.nanos).ok()
}

/// A value as text: text trimmed, whole numbers and booleans written out. Lists and objects are no text.
#[must_use]
pub fn text_of<'a>(value: impl Into<Json<'a>>) -> Option<Cow<'a, str>> {
    match value.into() {
        Json::Text(text) => {
            let text = text.trim();
            (!text.is_empty()).then_some(Cow::Borrowed(text))
        }
        Json::Number(number) => Some(Cow::Owned(number.to_string())),
        Json::Bool(true) => Some(Cow::Borrowed("true")),
        Json::Bool(false) => Some(Cow::Borrowed("false")),
        Json::Null | Json::List(_) | Json::Object(_) => None,
    }
}
