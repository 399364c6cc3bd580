//! Who it was: the customer, and what the shop's pages left in the cart's attributes for us to know the visitor again.
//!
//! A cart's attributes become the order's `note_attributes`. The buyer can edit them, so that names are a closed list, lengths are
//! bounded, and what has not the shape of its kind is left out. With consent it is the other way round: what cannot be read is
//! passed on as unreadable, which counts as a refusal, and never dropped. Fields about newsletters (`buyer_accepts_marketing`,
//! `email_marketing_consent`, …) say nothing about tracking and are not read. Source: shopify.dev, "Customer Privacy API"; 2026-11.

use serde_json::Value;
use uuid::Uuid;

use crate::address;
use crate::landing::page_and_campaign;
use crate::read::Node;
use crate::settings::{Settings, UserIdFrom};
use crate::webhook::Headers;
use crate::write::{Object, quoted};

/// Most attributes of a document that are looked at.
const MAX_ATTRIBUTES: usize = 250;
/// Longest id in an attribute; what Meta's and Google's ads carry today has up to some 300 bytes.
const MAX_ID_BYTES: usize = 512;
/// What is kept of a user agent; those of browsers inside other apps are the longest.
const MAX_USER_AGENT_BYTES: usize = 1_024;
/// Longest consent object: a TC string has some hundred bytes, a GPP string up to a thousand or two.
const MAX_CONSENT_BYTES: usize = 4_096;
/// Deepest consent object; what is deeper is none, and would take the whole event with it.
const MAX_CONSENT_DEPTH: usize = 8;

/// Names of an attribute, without a leading underscore and with `-` as `_`, and the member of `context` that it becomes.
const IDS: [(&[&str], &str, Shape); 9] = [
    (&["fbp"], "fbp", Shape::Meta),
    (&["fbc"], "fbc", Shape::Meta),
    (&["fbclid"], "fbclid", Shape::Token),
    (&["gclid"], "gclid", Shape::Token),
    (&["gbraid"], "gbraid", Shape::Token),
    (&["wbraid"], "wbraid", Shape::Token),
    (&["ttclid"], "ttclid", Shape::Token),
    (&["ttp"], "ttp", Shape::Token),
    (&["ga", "ga_client_id"], "_ga", Shape::Token),
];
const ANONYMOUS_ID: [&str; 5] =
    ["tl_anonymous_id", "anonymous_id", "anonymousId", "ajs_anonymous_id", "rudderAnonymousId"];
const CONSENT: &str = "tl_consent";
const GPC: &str = "tl_gpc";

/// What an id must look like.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Visible ASCII.
    Token,
    /// `fb.<subdomain index>.<milliseconds>.<id>`. Source: Meta, "fbp and fbc Parameters"; 2026-11.
    Meta,
}

/// Who it was, as the event's envelope and context say it.
#[derive(Default)]
pub(crate) struct Visitor {
    /// Empty: none.
    pub(crate) anonymous_id: String,
    /// It was made here: it names the cart, nobody's browser.
    pub(crate) anonymous_id_is_made: bool,
    /// Empty: none.
    pub(crate) user_id: String,
    /// Country and state.
    pub(crate) place: String,
    /// Members of the event's context.
    pub(crate) context: Object,
}

/// Namespace of ids that are made here: random, and never to change.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_8a52_5d0e_4c3b_9b7a_2f64_e0d1_93c8);

/// An id that is the same for the same words.
pub(crate) fn made_id(words: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, words.join("\n").as_bytes())
}

impl Visitor {
    /// Of an order or a checkout. `token` is what it is known by where there is no cart.
    pub(crate) fn of(document: Node<'_>, headers: &Headers<'_>, settings: &Settings, token: &str) -> Self {
        let attributes = Attributes::of(document);
        let customer = document.at("customer");
        let user_id = match settings.user_id_from {
            UserIdFrom::CustomerId => customer.at("id").id().unwrap_or_default(),
            UserIdFrom::None => String::new(),
        };
        let mut anonymous_id = attributes.anonymous_id().unwrap_or_default();
        let anonymous_id_is_made = anonymous_id.is_empty() && user_id.is_empty();
        if anonymous_id_is_made {
            // An event needs an id. The cart's joins its checkout and its order to one visitor, of whom nothing else is known.
            let cart = document.at("cart_token").text();
            anonymous_id = made_id(&["cart", cart.as_deref().unwrap_or(token)]).to_string();
        }
        let mut context = Object::default();
        let client = document.at("client_details");
        // Never the address of the request: that is Shopify's.
        let ip = client.at("browser_ip").text().or_else(|| document.at("browser_ip").text());
        let locale = client.at("accept_language").text().or_else(|| document.at("customer_locale").text());
        let locale = locale.map(|l| l.split([',', ';']).next().unwrap_or_default().trim().to_owned());
        let user_agent = client.at("user_agent").text_of_at_most(MAX_USER_AGENT_BYTES);
        context.text("ip", ip).text("userAgent", user_agent).text("locale", locale);
        let (page, campaign) = page_and_campaign(document, headers, settings);
        context.object("page", &page).object("campaign", &campaign);
        context.object("traits", &traits(document));
        attributes.write_ids(&mut context);
        attributes.write_consent(&mut context);
        let place = address::place(address::of_document(document));
        let place = if place.is_empty() { String::new() } else { place.finish() };
        Self { anonymous_id, anonymous_id_is_made, user_id, place, context }
    }
}

/// The buyer's, never the recipient's: of a present, the shipping address has another person's name and phone. Both names are of one
/// node, so that they are one person's.
fn traits(document: Node<'_>) -> Object {
    let (customer, billing) = (document.at("customer"), document.at("billing_address"));
    let first = |candidates: &[Node<'_>]| candidates.iter().find_map(|node| node.text().map(String::from));
    let email = first(&[document.at("email"), document.at("contact_email"), customer.at("email")]);
    let phones = [document.at("phone"), customer.at("phone"), billing.at("phone")];
    let has_a_name =
        |node: &Node<'_>| ["first_name", "last_name"].iter().any(|key| node.at(key).text().is_some());
    let named = [customer, billing].into_iter().find(has_a_name).unwrap_or(customer);
    let mut object = Object::default();
    object
        .text("email", email)
        .text("phone", first(&phones))
        .text("firstName", named.at("first_name").text())
        .text("lastName", named.at("last_name").text())
        .object("address", &address::traits(address::of_document(document)));
    object
}

/// The document's attributes: names as compared, and values as they stand.
struct Attributes<'a>(Vec<(String, &'a str)>);

impl<'a> Attributes<'a> {
    fn of(document: Node<'a>) -> Self {
        let pairs = document.at("note_attributes").items().take(MAX_ATTRIBUTES).filter_map(|attribute| {
            let name = attribute.at("name").raw_text()?.trim();
            let value = attribute.at("value").raw_text()?.trim();
            let name = name.strip_prefix('_').unwrap_or(name).replace('-', "_");
            (!value.is_empty() && name.len() <= 64).then_some((name, value))
        });
        Self(pairs.collect())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| *value)
    }

    fn anonymous_id(&self) -> Option<String> {
        let candidates = ANONYMOUS_ID.iter().flat_map(|name| self.all(name));
        // Segment's cookie is written in quotes.
        candidates
            .map(|value| value.trim_matches('"'))
            .find(|value| Shape::Token.fits(value))
            .map(str::to_owned)
    }

    fn write_ids(&self, context: &mut Object) {
        for (names, member, shape) in IDS {
            let mut candidates = names.iter().flat_map(|name| self.all(name));
            context.text(member, candidates.find(|value| shape.fits(value)));
        }
    }

    /// Two statements that differ are written both: whoever reads two takes the stricter.
    fn write_consent(&self, context: &mut Object) {
        let mut seen: Vec<&str> = Vec::new();
        for statement in self.all(CONSENT) {
            if !seen.contains(&statement) && seen.len() < 2 {
                seen.push(statement);
                context.json("consent", &consent(statement));
            }
        }
        let statements: Vec<&str> = self.all(GPC).collect();
        let on = statements.iter().find(|value| !matches!(**value, "0" | "false"));
        // Neither on nor off: what cannot be read counts as a refusal.
        context
            .text("gpc", on.map(|value| if matches!(*value, "1" | "true") { *value } else { "unreadable" }));
    }
}

/// A consent object as it stands; what is none is passed on as a text, which counts as unreadable.
fn consent(statement: &str) -> String {
    let fits = statement.len() <= MAX_CONSENT_BYTES
        && statement.starts_with('{')
        // No text of an event may hold one.
        && !statement.contains("\\u0000");
    let is_object = fits
        && serde_json::from_str::<Value>(statement)
            .is_ok_and(|value| value.is_object() && depth(&value) <= MAX_CONSENT_DEPTH);
    if is_object { statement.to_owned() } else { quoted("unreadable") }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

impl Shape {
    fn fits(self, value: &str) -> bool {
        let token = (1..=MAX_ID_BYTES).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
        match self {
            Self::Token => token,
            Self::Meta => {
                let mut parts = value.splitn(4, '.');
                let digits = |part: Option<&str>| {
                    part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
                };
                token
                    && parts.next() == Some("fb")
                    && digits(parts.next())
                    && digits(parts.next())
                    && parts.next().is_some_and(|id| !id.is_empty())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn context(attributes: &[(&str, &str)]) -> (Visitor, Value) {
        let attributes: Vec<Value> = attributes.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        let document =
            json!({"note_attributes": attributes, "cart_token": "68778783ad298f1c80c3bafcddeea02f"});
        let settings =
            Settings::parse(&json!({"kind": "shopify", "webhook_secret": "shpss_test_secret"})).unwrap();
        let visitor = Visitor::of(Node::of(&document), &Headers::default(), &settings, "t");
        let context = serde_json::from_str(&visitor.context.finish()).unwrap();
        (visitor, context)
    }

    #[test]
    fn ids_are_taken_under_their_names_with_and_without_an_underscore() {
        let (visitor, context) = context(&[
            ("_tl_anonymous_id", "3708315a-c695-4a0c-9145-81d841e72fda"),
            ("_fbp", "fb.1.1700000000000.1098115397"),
            ("fbc", "fb.1.1700000000000.IwAR0abc"),
            ("_gclid", "Cj0K_Ab-C"),
            ("_ttclid", "E.C.P.abc"),
            ("_ga", "GA1.2.1234567890.1700000000"),
            ("Gift message", "Happy birthday"),
        ]);
        assert_eq!(visitor.anonymous_id, "3708315a-c695-4a0c-9145-81d841e72fda");
        assert_eq!(
            context,
            json!({
                "fbp": "fb.1.1700000000000.1098115397", "fbc": "fb.1.1700000000000.IwAR0abc", "gclid": "Cj0K_Ab-C",
                "ttclid": "E.C.P.abc", "_ga": "GA1.2.1234567890.1700000000",
            })
        );
    }

    #[test]
    fn an_id_of_the_wrong_shape_is_left_out_and_the_next_of_that_name_taken() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        let (visitor, context) = context(&[
            ("fbp", "1098115397"),
            ("_fbp", "fb.1.x.1"),
            ("fbc", "fb.1.1700000000000."),
            ("gclid", "two words"),
            ("_gclid", "second"),
            ("wbraid", &long),
            ("anonymous_id", "ünïcode"),
        ]);
        assert_eq!(context, json!({"gclid": "second"}));
        assert_eq!(visitor.anonymous_id, made_id(&["cart", "68778783ad298f1c80c3bafcddeea02f"]).to_string());
    }

    #[test]
    fn consent_that_cannot_be_read_is_not_lost() {
        let said = r#"{"categoryPreferences":{"Advertising":false}}"#;
        assert_eq!(
            context(&[("_tl_consent", said)]).1["consent"],
            serde_json::from_str::<Value>(said).unwrap()
        );
        let long = format!(r#"{{"tcString":"{}"}}"#, "x".repeat(MAX_CONSENT_BYTES));
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(20), "]".repeat(20));
        let nul = r#"{"tcString":"a\u0000"}"#;
        for unreadable in ["yes", "{", "[]", r#""granted""#, &long, &deep, nul] {
            assert_eq!(
                context(&[("tl_consent", unreadable)]).1["consent"],
                json!("unreadable"),
                "{unreadable}"
            );
        }
        assert!(context(&[]).1.get("consent").is_none(), "none is invented");
    }

    #[test]
    fn gpc_that_is_said_anywhere_is_on() {
        for (values, expected) in [
            (vec!["1"], Some("1")),
            (vec!["0", "true"], Some("true")),
            (vec!["false"], None),
            (vec!["maybe\u{0}"], Some("unreadable")),
        ] {
            let pairs: Vec<(&str, &str)> = values.iter().map(|v| ("_tl_gpc", *v)).collect();
            assert_eq!(context(&pairs).1.get("gpc").and_then(Value::as_str), expected, "{values:?}");
        }
    }
}
