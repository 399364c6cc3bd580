//! Ids that Meta itself gave out and takes back as they are: of leads, subscriptions, logins and conversations.
//!
//! Sources: Meta, CAPI/parameters/customer-information-parameters; 2026-01. Business messaging: Meta, "Conversions API for
//! Business Messaging", and the subcodes of its refusals as public notes have them; 2026-11.

use tracklayer_normalise::{Field, Hints, Outcome, Platform, Reason, Wire, normalise};

use super::settings::ActionSource;
use crate::clicks;
use crate::connection::{Connection, looks_personal};
use crate::deliverable::Deliverable;
use crate::fields::{Fields, Member};
use crate::json::Json;
use crate::note::NoteReason;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};
use crate::usual::{Usual, usual, usuals};

/// The form of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A whole number.
    Number,
    /// A number of 15 or 16 digits: an id that Meta gave to a lead. Shops and other platforms call their own so, too.
    Lead,
    /// The id of a click.
    Click,
    /// Text, never changed.
    Text,
}

/// Which events carry an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    /// All of them.
    Any,
    /// Those of apps.
    App,
    /// Those of conversations.
    Messaging,
}

/// The ids by their names, which they bear in `field_map`, in `properties` and in `user_data`, with what a note calls them.
const IDS: [(&str, Usual, &str, Form, Carrier); 10] = [
    (
        "subscription_id",
        usual!("properties.subscription_id"),
        "user_data.subscription_id",
        Form::Text,
        Carrier::Any,
    ),
    ("fb_login_id", usual!("properties.fb_login_id"), "user_data.fb_login_id", Form::Number, Carrier::Any),
    ("lead_id", usual!("properties.lead_id"), "user_data.lead_id", Form::Lead, Carrier::Any),
    ("anon_id", usual!("properties.anon_id"), "user_data.anon_id", Form::Text, Carrier::App),
    ("page_id", usual!("properties.page_id"), "user_data.page_id", Form::Text, Carrier::Messaging),
    (
        "page_scoped_user_id",
        usual!("properties.page_scoped_user_id"),
        "user_data.page_scoped_user_id",
        Form::Text,
        Carrier::Messaging,
    ),
    ("ctwa_clid", usual!("properties.ctwa_clid"), "user_data.ctwa_clid", Form::Click, Carrier::Messaging),
    (
        "ig_account_id",
        usual!("properties.ig_account_id"),
        "user_data.ig_account_id",
        Form::Text,
        Carrier::Messaging,
    ),
    ("ig_sid", usual!("properties.ig_sid"), "user_data.ig_sid", Form::Text, Carrier::Messaging),
    (
        "whatsapp_business_account_id",
        usual!("properties.whatsapp_business_account_id"),
        "user_data.whatsapp_business_account_id",
        Form::Text,
        Carrier::Messaging,
    ),
];

/// Writes the ids that the event has into `user_data`.
pub fn insert(
    connection: &Connection,
    event: &Deliverable,
    source: ActionSource,
    user: &mut Fields<'_>,
    notes: &mut Vec<Note>,
) {
    for (name, place, target, form, carrier) in IDS {
        let goes_out = match carrier {
            Carrier::Any => true,
            Carrier::App => source == ActionSource::App,
            Carrier::Messaging => source == ActionSource::BusinessMessaging,
        };
        if !goes_out {
            continue;
        }
        let Some(text) = connection.text(event, name, &[place]) else { continue };
        match checked(form, &text) {
            Ok(value) => user.insert(name, value),
            Err(reason) => notes.push(Note { about: ABOUT, ..Note::rejected(target, reason) }),
        }
    }
}

/// What notes call these ids.
const ABOUT: &str = Field::OpaqueId.as_str();

/// An id in Meta's form, or why it is none. One that is wrong fails its whole request.
fn checked(form: Form, text: &str) -> Result<Member<'static>, NoteReason> {
    let id = match normalise(Platform::Meta, Field::OpaqueId, text, &Hints::default()) {
        Outcome::Omitted { reason } | Outcome::Rejected { reason } => return Err(reason.into()),
        id => id.into_wire().map(Wire::into_string).unwrap_or_default(),
    };
    let number = || id.parse::<u64>().ok().filter(|id| *id > 0);
    match form {
        Form::Text if looks_personal(Json::Text(&id)) => Err(Rule::LooksPersonal.into()),
        Form::Text => Ok(id.into()),
        Form::Click => Ok(clicks::checked(&id)?.to_owned().into()),
        Form::Number => number().map(Member::from).ok_or(Reason::NotANumber.into()),
        // Source: Meta, "Conversion Leads", payload specification: "15 or 16-digit number"; a bad one is 2804036; 2026-11.
        Form::Lead => {
            let number = number().ok_or(Reason::NotANumber)?;
            if (15..=16).contains(&id.len()) { Ok(number.into()) } else { Err(Rule::NotTaken.into()) }
        }
    }
}

/// Event names that conversations have; any other fails its whole request (2804066).
const MESSAGING_NAMES: [&str; 14] = [
    "Purchase",
    "LeadSubmitted",
    "AddToCart",
    "InitiateCheckout",
    "ViewContent",
    "OrderCreated",
    "OrderShipped",
    "OrderDelivered",
    "OrderCanceled",
    "OrderReturned",
    "CartAbandoned",
    "QualifiedLead",
    "RatingProvided",
    "ReviewProvided",
];

/// Where a conversation takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessagingChannel {
    /// WhatsApp.
    Whatsapp,
    /// Messenger.
    Messenger,
    /// Instagram.
    Instagram,
}

impl MessagingChannel {
    /// The channel of an event of business messaging. Without one it would fail its whole request.
    ///
    /// # Errors
    /// There is none, or it is not one of the three.
    pub fn of(connection: &Connection, event: &Deliverable) -> Result<Self, Refusal> {
        let word = connection.text(event, "messaging_channel", usuals!["properties.messaging_channel"]);
        let word = word.unwrap_or_default();
        [Self::Whatsapp, Self::Messenger, Self::Instagram]
            .into_iter()
            .find(|channel| word.eq_ignore_ascii_case(channel.as_str()))
            .ok_or_else(|| {
                Refusal::new(
                    RefusalCode::EventNotSupported,
                    "an event of business messaging needs its messaging_channel: whatsapp, messenger or instagram",
                )
                .at("properties.messaging_channel")
                .as_platform("2804063")
            })
    }

    /// Meta's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Messenger => "messenger",
            Self::Instagram => "instagram",
        }
    }

    /// What names the conversation: of each list one, and what Meta calls its absence.
    const fn needs(self) -> [(&'static [&'static str], &'static str); 2] {
        match self {
            Self::Whatsapp => {
                [(&["ctwa_clid"], "2804087"), (&["whatsapp_business_account_id", "page_id"], "2804116")]
            }
            Self::Messenger => [(&["page_id"], "2804069"), (&["page_scoped_user_id"], "2804050")],
            Self::Instagram => [(&["ig_account_id"], "2804079"), (&["ig_sid"], "2804050")],
        }
    }

    /// Refuses an event that Meta would refuse with its whole request.
    ///
    /// # Errors
    /// The name is none of a conversation's, or nothing says which conversation it was.
    pub fn check(self, name: &str, user: &Fields<'_>) -> Result<(), Refusal> {
        if !MESSAGING_NAMES.contains(&name) {
            let why = format!("`{name}` is no event of business messaging; map it to one that is");
            return Err(Refusal::new(RefusalCode::EventNotSupported, why).at("event").as_platform("2804066"));
        }
        for (keys, code) in self.needs() {
            if !keys.iter().any(|key| user.contains(key)) {
                let why = format!("an event of {} needs {}", self.as_str(), keys.join(" or "));
                return Err(Refusal::new(RefusalCode::InvalidPayload, why)
                    .at(format!("properties.{}", keys[0]))
                    .as_platform(code));
            }
        }
        Ok(())
    }
}
