//! What building and sending an event can end in: an [`Item`], a [`Skip`], a [`Refusal`]; and per item of a finished request
//! an [`ItemOutcome`].

use std::time::Duration;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::body::ItemBody;
use crate::match_key::MatchKey;
pub use crate::note::{Note, NoteKind, Rule};
use crate::quality::KeySet;
use crate::request::MASK;

/// Why an event cannot be sent: a closed list, the same for every platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// Older than the platform takes.
    EventTooOld,
    /// Later than now, beyond the margin for skewed clocks.
    EventInFuture,
    /// The connection has no mapping for the event and sends no others.
    EventNotMapped,
    /// The platform has nothing for this event (Meta: a refund).
    EventNotSupported,
    /// The platform keeps the name for itself.
    EventNameReserved,
    /// A purchase without a value.
    MissingValue,
    /// A purchase without a currency.
    MissingCurrency,
    /// A website event without user agent, where the connection insists.
    MissingClientUserAgent,
    /// A GA4 web event without a client id.
    NoClientId,
    /// Nothing that the platform could match a person by.
    NoMatchKey,
    /// The order id looks like an e-mail address or a phone number.
    OrderIdContainsPii,
    /// Consent allows a restricted send only, and the platform cannot state the restriction.
    RestrictionNotExpressible,
    /// What would be sent breaks a rule of the platform.
    InvalidPayload,
    /// A change of an order that was not sent: the platform has nothing to change, or would count it anew.
    OrderNotSent,
    /// A refund of an order of which everything came back before.
    NothingLeft,
    /// A sale of an order that was changed since it was sold: the platform would forget the change.
    OrderAdjusted,
    /// A new value of an order from before the newest change of it that is known, which it would undo; one that repeats what the order
    /// was worth before something of it came back; or a refund from before a new value, which is part of that.
    OrderChangedSince,
    /// A new value of an order that is the one that the platform has.
    OrderUnchanged,
    /// An update of an order that says no amount: what it is worth by now is not told.
    NoNewValue,
    /// A new value of an order that the platform has not, or does not change any more.
    NothingToUpdate,
    /// A new value of an order from before a refund of it that was told, which it leaves out.
    ValueWithoutRefunds,
}

impl RefusalCode {
    /// Every code.
    pub const ALL: [Self; 21] = [
        Self::EventTooOld,
        Self::EventInFuture,
        Self::EventNotMapped,
        Self::EventNotSupported,
        Self::EventNameReserved,
        Self::MissingValue,
        Self::MissingCurrency,
        Self::MissingClientUserAgent,
        Self::NoClientId,
        Self::NoMatchKey,
        Self::OrderIdContainsPii,
        Self::RestrictionNotExpressible,
        Self::InvalidPayload,
        Self::OrderNotSent,
        Self::NothingLeft,
        Self::OrderAdjusted,
        Self::OrderChangedSince,
        Self::OrderUnchanged,
        Self::NoNewValue,
        Self::NothingToUpdate,
        Self::ValueWithoutRefunds,
    ];

    /// The code as it stands in ledger, preview and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EventTooOld => "event_too_old",
            Self::EventInFuture => "event_in_future",
            Self::EventNotMapped => "event_not_mapped",
            Self::EventNotSupported => "event_not_supported",
            Self::EventNameReserved => "event_name_reserved",
            Self::MissingValue => "missing_value",
            Self::MissingCurrency => "missing_currency",
            Self::MissingClientUserAgent => "missing_client_user_agent",
            Self::NoClientId => "no_client_id",
            Self::NoMatchKey => "no_match_key",
            Self::OrderIdContainsPii => "order_id_contains_pii",
            Self::RestrictionNotExpressible => "restriction_not_expressible",
            Self::InvalidPayload => "invalid_payload",
            Self::OrderNotSent => "order_not_sent",
            Self::NothingLeft => "nothing_left",
            Self::OrderAdjusted => "order_adjusted",
            Self::OrderChangedSince => "order_changed_since",
            Self::OrderUnchanged => "order_unchanged",
            Self::NoNewValue => "no_new_value",
            Self::NothingToUpdate => "nothing_to_update",
            Self::ValueWithoutRefunds => "value_without_refunds",
        }
    }
}

/// What a refusal means for the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The connection has no use for such an event: nothing went wrong, and nobody needs to act.
    Filtered,
    /// Consent keeps it back.
    Blocked,
    /// It is not delivered unless somebody acts.
    Dead,
}

impl Fate {
    /// The ledger's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filtered => "filtered",
            Self::Blocked => "blocked",
            Self::Dead => "dead",
        }
    }
}

impl RefusalCode {
    /// What becomes of an event that is refused so.
    #[must_use]
    pub const fn fate(self) -> Fate {
        match self {
            Self::EventNotMapped
            | Self::EventNotSupported
            | Self::NothingLeft
            | Self::OrderAdjusted
            | Self::OrderChangedSince
            | Self::OrderUnchanged
            | Self::NoNewValue
            | Self::NothingToUpdate => Fate::Filtered,
            Self::RestrictionNotExpressible => Fate::Blocked,
            Self::EventTooOld
            | Self::EventInFuture
            | Self::EventNameReserved
            | Self::MissingValue
            | Self::MissingCurrency
            | Self::MissingClientUserAgent
            | Self::NoClientId
            | Self::NoMatchKey
            | Self::OrderIdContainsPii
            | Self::InvalidPayload
            | Self::OrderNotSent
            | Self::ValueWithoutRefunds => Fate::Dead,
        }
    }
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that cannot be sent: dead for this connection, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// From the closed list.
    pub code: RefusalCode,
    /// The field to blame, `properties.currency`, if one is.
    pub field: Option<String>,
    /// For people; no personal data.
    pub reason: String,
    /// What the platform itself would have called it, where it has a name.
    pub platform_code: Option<&'static str>,
    /// What had been left out of the event by then: often the cause, where nothing is left to match a person by.
    pub notes: Vec<Note>,
}

impl Refusal {
    /// A refusal without a field to blame.
    pub fn new(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self { code, field: None, reason: reason.into(), platform_code: None, notes: Vec::new() }
    }

    /// Names the field to blame.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Tells what had been left out by then.
    #[must_use]
    pub fn with_notes(mut self, notes: Vec<Note>) -> Self {
        self.notes = notes;
        self
    }

    /// Names the platform's own code.
    #[must_use]
    pub const fn as_platform(mut self, code: &'static str) -> Self {
        self.platform_code = Some(code);
        self
    }
}

/// Why a connection does not want an event: the ledger's state is *filtered*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// `event_filter` of the connection leaves it out.
    Filter,
    /// The event's `integrations` object turned this destination off.
    Integrations,
    /// `event_map` maps it to null.
    Unmapped,
    /// A test order.
    TestOrder,
    /// A call that this kind has no use for (identify at an ad platform).
    EventType,
    /// A consent event, which feeds the signal store and is never sent.
    ConsentEvent,
    /// The expression of `filter` or `names` gives nothing for this event, for another reason than that something is not there.
    ExpressionFailed,
}

impl SkipReason {
    /// The reason as it stands in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Integrations => "integrations",
            Self::Unmapped => "unmapped",
            Self::TestOrder => "test_order",
            Self::EventType => "event_type",
            Self::ConsentEvent => "consent_event",
            Self::ExpressionFailed => "expression_failed",
        }
    }
}

/// An event that the connection does not want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// From the closed list.
    pub reason: SkipReason,
    /// For people.
    pub detail: String,
}

/// What a sent item does to the state that delivery keeps per (connection, order_id).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEffect {
    /// A purchase: this value went out for it.
    Sold {
        /// The order.
        order_id: String,
        /// The value that goes out.
        value: Option<Decimal>,
        /// What the customer paid, where the event says it (`total`): refunds are measured against it.
        total: Option<Decimal>,
        /// ISO 4217.
        currency: Option<String>,
        /// The event's time.
        at: Timestamp,
        /// What it was matched by, where a later change has to say so.
        match_key: Option<MatchKey>,
    },
    /// The order is worth something else now; refunds so far are part of it.
    Restated {
        /// The order.
        order_id: String,
        /// The value that goes out; none: nothing.
        value: Option<Decimal>,
        /// What the customer pays now, where the event says it.
        total: Option<Decimal>,
        /// What it is worth that in (ISO 4217); none: in what it was.
        currency: Option<String>,
        /// The time that the change was stated with.
        at: Timestamp,
        /// The time of the change itself; `at` may have been put behind the change before it.
        changed_at: Timestamp,
    },
    /// A refund.
    Refunded {
        /// The order.
        order_id: String,
        /// This refund's amount, positive; none means everything that is left.
        amount: Option<Decimal>,
        /// The time that the change was stated with.
        at: Timestamp,
        /// The time of the change itself; `at` may have been put behind the change before it.
        changed_at: Timestamp,
    },
}

impl OrderEffect {
    /// The order that it is about.
    #[must_use]
    pub fn order_id(&self) -> &str {
        match self {
            Self::Sold { order_id, .. }
            | Self::Restated { order_id, .. }
            | Self::Refunded { order_id, .. } => order_id,
        }
    }
}

/// One event as it stands in a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The element of the request's list (or the whole body, where a platform takes single events).
    pub body: ItemBody,
    /// Fields left out, and why.
    pub notes: Vec<Note>,
    /// Items of different groups may not share a request (another Google action, a TikTok test code, an API method).
    pub group: String,
    /// Two items of one key may not share a request although their group is the same (Google: one order id twice).
    pub exclusive: Option<String>,
    /// The event's id at the platform.
    pub event_id: String,
    /// Whether the platform recognises a repeat of this very item inside [`crate::Limits::dedup_window`]. If not, an unknown
    /// outcome must not be repeated.
    pub repeatable: bool,
    /// The platform's name of the event, for ledger and metrics.
    pub name: String,
    /// What the lane must remember about the order once the item is delivered.
    pub order: Option<OrderEffect>,
    /// Why its delivery says less of its order than it seems to; the ledger's reason beside *delivered*.
    pub remark: Option<Remark>,
    /// What the platform can match its person by, as it stands in `body`; none: the platform matches nobody.
    pub keys: Option<KeySet>,
    /// The `now` that it was built with. A signed request (webhook) carries it: build anew before every attempt.
    pub built_at: Timestamp,
}

/// What the ledger says of a change that went out as it states itself, and was not reckoned from what was sent for its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remark {
    /// Its order was not sent from here; the connection sends such.
    OrderNotSent,
    /// It is in another currency than its order, of which nothing is taken off here.
    OtherCurrency,
    /// It leaves open how much came back, so that nothing is taken off here.
    AmountOpen,
}

impl Remark {
    /// Every remark.
    pub const ALL: [Self; 3] = [Self::OrderNotSent, Self::OtherCurrency, Self::AmountOpen];

    /// The reason as it stands in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderNotSent => "order_not_sent",
            Self::OtherCurrency => "other_currency",
            Self::AmountOpen => "amount_open",
        }
    }

    /// What there is to say of it, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::OrderNotSent => "told as it states itself: this connection has not sent its order",
            Self::OtherCurrency => {
                "told as it states itself, in another currency than its order: nothing is taken off what is kept of the order"
            }
            Self::AmountOpen => {
                "told without an amount, which it leaves open: nothing is taken off what is kept of the order"
            }
        }
    }
}

/// What came back, before it means anything.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body as received, possibly cut by the lane's own limit.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without headers, for tests and the sandbox.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: http::HeaderMap::new(), body: body.into() }
    }

    /// The body as JSON; none if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Retry-After`: seconds, or an HTTP date measured against the answer's own `Date`, so that no clock of ours is needed
    /// and none of theirs is trusted. None where there is none, or where it asks for no wait: the lane's own backoff is the
    /// least. Never more than [`LONGEST_WAIT`]. Source: RFC 9110, 10.2.3; 2026-11.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        let asked = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit are more seconds than anybody waits.
            Duration::from_secs(text.parse().unwrap_or(u64::MAX))
        } else {
            let date = |text| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
            let wait = date(text)?.duration_since(date(self.header("date")?)?);
            Duration::try_from(wait).unwrap_or_default()
        };
        bounded_wait(asked)
    }
}

/// The longest wait that an answer can ask for. Whoever asks for more is asked again after it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A wait that an answer asks for, as a lane may take it: none if it is no wait, never more than [`LONGEST_WAIT`].
#[must_use]
pub fn bounded_wait(asked: Duration) -> Option<Duration> {
    (!asked.is_zero()).then(|| asked.min(LONGEST_WAIT))
}

/// Most characters of a platform's text that are looked at.
const MOST_READ: usize = 2_000;
/// Most of them that are told.
const MOST_TOLD: usize = 200;
/// As long as this are the shortest credentials that are told from words; platforms' tokens have a hundred characters and more.
const FEWEST_OF_A_TOKEN: usize = 32;
/// Longer than this is no word: ids and the names of codes have hyphens or underscores more often.
const LONGEST_WORD: usize = 16;

/// A platform's text for people, as it may stand in ledger and log: at most 200 characters, and nothing in it that looks like
/// an e-mail address, an international phone number or a credential, since platforms quote what they were sent.
#[must_use]
pub fn told(text: &str) -> String {
    // What is cut off last could be the part of an address or a token that it is known by.
    let read: String = text.chars().take(MOST_READ).collect();
    let told: String = without_tokens(&read)
        .split_inclusive(char::is_whitespace)
        .map(|piece| {
            let word = piece.trim_end();
            let is_mail = word.contains('@') || word.contains("%40");
            let plus = word.find('+').map(|at| &word[at + 1..]);
            let is_phone = plus.is_some_and(|rest| rest.bytes().take_while(u8::is_ascii_digit).count() >= 7);
            if is_mail || is_phone { format!("{MASK}{}", &piece[word.len()..]) } else { piece.to_owned() }
        })
        .collect();
    told.chars().take(MOST_TOLD).collect()
}

/// A text without what looks like a credential, whoever's it is: 32 letters, digits, hyphens and underscores or more in a row, both
/// letters and digits among them, more than sixteen of them without a hyphen or underscore. Digests look like that, too.
#[must_use]
pub fn without_tokens(text: &str) -> String {
    let is_of_a_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_a_token) {
        let (before, run) = rest.split_at(start);
        let end = run.find(|c: char| !is_of_a_token(c)).unwrap_or(run.len());
        told.push_str(before);
        told.push_str(if looks_like_a_token(&run[..end]) { MASK } else { &run[..end] });
        rest = &run[end..];
    }
    told.push_str(rest);
    told
}

fn looks_like_a_token(run: &str) -> bool {
    run.len() >= FEWEST_OF_A_TOKEN
        && run.bytes().any(|byte| byte.is_ascii_digit())
        && run.bytes().any(|byte| byte.is_ascii_alphabetic())
        && run.split(['-', '_']).any(|piece| piece.len() > LONGEST_WORD)
}

/// Why a whole lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldKind {
    /// Too many requests.
    Throttled,
    /// The platform is in trouble.
    Transient,
    /// The credential does not work: somebody must act.
    Auth,
    /// A setting is wrong: somebody must act.
    Configuration,
}

impl HoldKind {
    /// The word in health and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Auth => "auth",
            Self::Configuration => "configuration",
        }
    }
}

/// What became of one item of a request: the truth per event. `classify` gives one per item, in the request's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Taken.
    Delivered {
        /// A warning of the platform, or how to ask later (Data Manager's request id, marked unconfirmed).
        note: Option<String>,
    },
    /// The platform had it already.
    DeliveredBefore {
        /// The platform's code.
        code: String,
    },
    /// The platform has this very change of an order, or another one in its place. Where a request of ours may have brought it
    /// before, it did. Else somebody else's stands there, so that it is no delivery: built anew from what is known of the order by
    /// then, it is tried again a few times.
    DeliveredIfRepeated {
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
    },
    /// This event only; its neighbours have their own outcomes.
    Retry {
        /// Not before; none: the lane's own backoff. Zero: at once, alone.
        after: Option<Duration>,
        /// How many attempts in all make sense; then the event is dead with this code. None: until its deadline.
        attempts: Option<u32>,
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
    },
    /// Never acceptable as it is.
    Dead {
        /// The platform's code, or one of [`RefusalCode`].
        code: String,
        /// For people.
        detail: String,
    },
    /// The request failed, not the event: the lane holds, the events are kept.
    HoldLane {
        /// Not before; none: the lane's own backoff.
        after: Option<Duration>,
        /// How many attempts in all make sense; then the lane treats the answer as [`ItemOutcome::Isolate`]. None: for ever.
        attempts: Option<u32>,
        /// What is wrong.
        kind: HoldKind,
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
    },
    /// The request was refused because of one event that the answer does not name: the lane bisects. Of a single event it
    /// means dead, with this code.
    Isolate {
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
    },
    /// The access token is not accepted (any more): refresh it once and send the same again; a second time in a row is a
    /// hold of kind [`HoldKind::Auth`].
    RefreshToken {
        /// The platform's code.
        code: String,
        /// For people.
        detail: String,
    },
    /// This item was not judged: its neighbour failed the request. Send again without that one.
    ResendRest,
    /// This item must go out once more without its identifiers (Google: terms not signed, but a click id is there).
    ResendReduced {
        /// The platform's code.
        code: String,
        /// The item to send instead.
        body: ItemBody,
        /// What the platform can match its person by, as it stands in that.
        keys: KeySet,
    },
}

impl ItemOutcome {
    /// Delivered, nothing to say.
    pub const DELIVERED: Self = Self::Delivered { note: None };

    /// The lane holds, for as long as it takes.
    #[must_use]
    pub fn hold(
        kind: HoldKind,
        after: Option<Duration>,
        code: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::HoldLane { after, attempts: None, kind, code: code.into(), detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_not_told() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, expected) in [
            ("Malformed access token EAABsbCS1iHgBAKZCx0987654321abcdefZD.", "Malformed access token ***."),
            ("token=ya29.a0AfH6SMBx-1234_567890abcdefghijklmnop&x=1", "token=ya29.***&x=1"),
            (hex, "***"),
            ("20261123110000010203040506070809", "20261123110000010203040506070809"),
            ("id t-a8896317-069f-4198-afed-182a3872a660", "id t-a8896317-069f-4198-afed-182a3872a660"),
            ("CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE_2", "CUSTOMER_NOT_ALLOWLISTED_FOR_THIS_FEATURE_2"),
            ("Zugriff verweigert: 32 Zeichen für ü", "Zugriff verweigert: 32 Zeichen für ü"),
        ] {
            assert_eq!(told(text), expected);
        }
    }

    #[test]
    fn a_credential_is_known_by_what_is_cut_off() {
        let text = format!("{} EAABsbCS1iHgBAKZCx0987654321abcdefZD", "a".repeat(180));
        assert_eq!(told(&text), format!("{} ***", "a".repeat(180)));
        assert_eq!(told(&"a ".repeat(5_000)).chars().count(), 200);
    }
}
