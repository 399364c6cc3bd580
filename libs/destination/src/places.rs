//! What expressions read of an event, and which of them may read what.
//!
//! An expression computes, so that what it makes of an address no longer looks like one: no later check would find it. Therefore
//! values that tell of a person go only where all values are normalised, hashed and withheld as consent says: into the fields of
//! the person. Town, region, postal code and country go out as they are at some platforms: they read nothing else of a person than
//! that. Ids of browsers and devices go nowhere; `field_map` takes them as they are. Whether something is there, `has()`,
//! may be asked of everything.

use jiff::Timestamp;
use rust_decimal::Decimal;
use tracklayer_expression::{Event, Identity, Root, Shape, View, Word};
use tracklayer_proto::event::v1::EventType;

use crate::commerce::decimal_of;
use crate::connection::{looks_personal, names_a_person};
use crate::deliverable::Deliverable;
use crate::json::Json;
use crate::keys;

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Whether an event is sent, and under which of the names that are written in it.
    Choice,
    /// A field of the person that every platform takes hashed, or not at all.
    Person,
    /// Where the person lives: platforms take it as it is.
    Place,
    /// A field of the order, or a custom one.
    Field,
}

/// What a value tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Who somebody is.
    Person,
    /// In which town, region or country somebody lives.
    Place,
    /// Which browser, device or account it was.
    Identifier,
    /// Where on the web, with whatever stands in the address.
    Address,
    /// Something else.
    Plain,
}

/// Keys of ids, folded.
const IDENTIFIERS: [&str; 31] = [
    "gclid",
    "gbraid",
    "wbraid",
    "dclid",
    "gclsrc",
    "fbclid",
    "fbc",
    "fbp",
    "ttclid",
    "ttp",
    "msclkid",
    "clickid",
    "clientid",
    "gaclientid",
    "appinstanceid",
    "sessionid",
    "gasessionid",
    "userid",
    "anonymousid",
    "anonid",
    "deviceid",
    "advertisingid",
    "idfa",
    "idfv",
    "gaid",
    "madid",
    "externalid",
    "externalids",
    "leadid",
    "fbloginid",
    "profilekey",
];

/// Keys of addresses on the web, folded.
const ADDRESSES: [&str; 6] = ["url", "href", "referrer", "referer", "search", "querystring"];

/// Keys below `traits` that tell who somebody is, although elsewhere they are names and ids of things.
const OF_TRAITS: [&str; 4] = ["name", "id", "login", "avatar"];

/// What the key of a town, a region, a postal code or a country ends in, folded.
const PLACES: [&str; 14] = [
    "city",
    "town",
    "state",
    "region",
    "province",
    "zip",
    "zipcode",
    "postalcode",
    "postcode",
    "country",
    "statecode",
    "regioncode",
    "provincecode",
    "countrycode",
];

/// Keys of objects that may hold such a key, folded; so may whatever has "address" in it.
const HOLDERS: [&str; 5] = ["traits", "user", "customer", "contact", "recipient"];

/// Whether a reader may read a place, "properties", "products", "*", "sku".
///
/// # Errors
/// Why not, and what to do instead.
pub fn may_read(reader: Reader, path: &[String]) -> Result<(), String> {
    let told = path.join(".");
    match (class_of(path), reader) {
        (Class::Plain, _)
        | (Class::Person | Class::Place, Reader::Person)
        | (Class::Place, Reader::Place)
        | (Class::Address, Reader::Choice) => Ok(()),
        (Class::Person, Reader::Place) => Err(format!(
            "`{told}` tells who a person is, and a town, region, postal code or country goes out as it is at some platforms: of a person, \
             only keys of these are read for it, as in `context.traits.address.city`"
        )),
        (Class::Person | Class::Place, Reader::Choice | Reader::Field) => Err(format!(
            "`{told}` tells of a person: only the person's own fields (email, phone, ...) are made of it, which are hashed and follow \
             consent; has() may ask whether it is there"
        )),
        (Class::Identifier, _) => Err(format!(
            "`{told}` identifies a browser, a device or an account, which no expression reads: field_map takes it as it is, has() may \
             ask whether it is there"
        )),
        (Class::Address, Reader::Person | Reader::Place | Reader::Field) => Err(format!(
            "`{told}` is an address, which may hold ids and personal data: only `filter` and `names` read it"
        )),
    }
}

/// Whether `field_map` may take a town, a region, a postal code or a country from a dotted path: by the rule for expressions, since
/// some platforms take these as they are.
///
/// # Errors
/// Why not, and what to do instead.
pub fn may_hold_a_place(path: &str) -> Result<(), String> {
    let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
    let is_id = !ROOTS.contains(&keys[0].as_str());
    if !is_id && may_read(Reader::Place, &keys).is_ok() {
        return Ok(());
    }
    Err(format!(
        "`{path}` tells who somebody is, and a town, region, postal code or country goes out as it is at some platforms: of a person, only \
         keys of these are taken for it, as in `context.traits.address.city`"
    ))
}

/// Objects of an event whose keys tell what is in them.
const ROOTS: [&str; 4] = ["properties", "traits", "context", "integrations"];

fn class_of(path: &[String]) -> Class {
    let is_of_traits = path.first().is_some_and(|root| root == "traits")
        || path.get(1).is_some_and(|key| key == "traits")
            && path.first().is_some_and(|root| root == "context");
    // The roots, and `context.traits`, are no words about what stands below them.
    let is_root = |index: usize| index == 0 || (index == 1 && is_of_traits && path[0] == "context");
    let keys = || path.iter().enumerate().filter(|(index, _)| !is_root(*index)).map(|(_, key)| key.as_str());
    let any = |words: &[&str]| keys().any(|key| words.contains(&folded(key).as_str()));
    let is_device_id = path.len() == 3 && path[0] == "context" && path[1] == "device" && path[2] == "id";
    if keys().any(tells_of_a_person) || (is_of_traits && any(&OF_TRAITS)) {
        if is_place(keys().filter(|key| *key != "*")) { Class::Place } else { Class::Person }
    } else if is_device_id || any(&IDENTIFIERS) || keys().any(|key| keys::identifies(key, &IDENTIFIERS)) {
        Class::Identifier
    } else if any(&ADDRESSES) || keys().any(keys::is_web_address) {
        Class::Address
    } else {
        Class::Plain
    }
}

/// Whether the last key is one of a place, and those before it hold nothing else of a person.
fn is_place<'k>(mut keys: impl DoubleEndedIterator<Item = &'k str>) -> bool {
    let is_of_home = |key: &str| keys::is_of_home(key, &PLACES);
    let is_last = |key: &str| PLACES.iter().any(|place| folded(key).ends_with(place)) && is_of_home(key);
    keys.next_back().is_some_and(is_last)
        && keys
            .all(|key| !tells_of_a_person(key) || is_of_home(key) || HOLDERS.contains(&folded(key).as_str()))
}

/// Whether a key tells of a person, as a whole or by its words.
fn tells_of_a_person(key: &str) -> bool {
    names_a_person(key) || keys::tells_of_a_person(key)
}

fn folded(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

impl Event for Deliverable {
    type View<'a> = Json<'a>;

    fn root(&self, root: Root) -> Json<'_> {
        match root {
            Root::Properties => self.properties(),
            Root::Context => self.context_object(),
            Root::Traits => self.traits(),
        }
    }

    fn word(&self, word: Word) -> &str {
        match word {
            Word::Type => match self.event.r#type() {
                EventType::Track => "track",
                EventType::Page => "page",
                EventType::Screen => "screen",
                EventType::Identify => "identify",
                EventType::Group => "group",
                EventType::Alias => "alias",
                EventType::Unspecified => "",
            },
            Word::Event => &self.event.name,
            Word::MessageId => &self.event.message_id,
        }
    }

    fn has(&self, identity: Identity) -> bool {
        match identity {
            Identity::UserId => !self.event.user_id.is_empty(),
            Identity::AnonymousId => !self.event.anonymous_id.is_empty(),
        }
    }

    fn time(&self) -> Timestamp {
        Self::time(self)
    }

    fn is_withheld(&self, text: &str) -> bool {
        looks_personal(Json::Text(text))
    }
}

impl<'a> View<'a> for Json<'a> {
    fn shape(self) -> Shape<'a> {
        match self {
            Json::Null => Shape::Null,
            Json::Bool(value) => Shape::Bool(value),
            Json::Number(_) => Shape::Number,
            Json::Text(text) => Shape::Text(text),
            Json::List(_) => Shape::List,
            Json::Object(_) => Shape::Object,
        }
    }

    fn number(self) -> Option<Decimal> {
        decimal_of(self)
    }

    fn member(self, key: &str) -> Option<Self> {
        self.get(key)
    }

    fn item(self, index: usize) -> Option<Self> {
        self.as_list()?.get(index)
    }

    fn items(self) -> impl Iterator<Item = Self> + 'a {
        self.as_list().into_iter().flat_map(crate::json::List::iter)
    }

    fn weight(self) -> usize {
        Json::weight(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_read_what() {
        let all = [Reader::Choice, Reader::Person, Reader::Place, Reader::Field];
        let readers = |path: &str| {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            all.into_iter().filter(|reader| may_read(*reader, &path).is_ok()).collect::<Vec<_>>()
        };
        for plain in [
            "properties.revenue",
            "properties.products.*.sku",
            "properties.products.*.name",
            "properties.channel",
            "context.page.path",
            "context.locale",
            "context.campaign.source",
            "context.campaign.name",
            "context.traits.plan",
            "traits.tier",
            "context.device.type",
            "context.app.name",
            "properties.id",
            "properties.products.*.product_id",
            "properties.orderId",
            "properties.payment_method_id",
            "properties.new_customer",
            "properties.customer_type",
            "properties.hourly",
            "properties.addons",
            "properties.product_name",
            "properties.shipping_method_name",
            "properties.curl_pattern",
        ] {
            assert_eq!(readers(plain), all, "{plain}");
        }
        for person in [
            "properties.email",
            "properties.customer.name",
            "properties.billing_address",
            "properties.billing_address.street",
            "properties.email.city",
            "properties.ip_address.state",
            "properties.city.email",
            "context.traits.email",
            "context.traits.name",
            "context.traits.id",
            "traits.name",
            "traits.firstName",
            "context.ip",
            "context.userAgent",
            "properties.contacts.*.Phone Number",
            "properties.traits.plan",
            "properties.customer_emails",
            "properties.mobileNumber",
            "properties.client_ip",
            "properties.billing_name",
            "properties.shipping_street",
            "properties.auth_token",
        ] {
            assert_eq!(readers(person), [Reader::Person], "{person}");
        }
        for place in [
            "properties.billing_address.city",
            "context.traits.address.postalCode",
            "traits.address.country",
            "traits.addresses.*.state",
            "traits.city",
            "properties.customer.zip",
            "properties.billing_address_city",
            "properties.shipping_city",
            "properties.shippingZip",
        ] {
            assert_eq!(readers(place), [Reader::Person, Reader::Place], "{place}");
        }
        for id in [
            "properties.gclid",
            "properties.fbp",
            "context.device.id",
            "context.device.advertisingId",
            "context.externalIds.*.value",
            "properties.client_id",
            "context.traits.anonymousId",
            "properties.loyalty_id",
            "properties.visitorUUID",
            "properties.first_gclid",
            "properties.session_ids",
        ] {
            assert_eq!(readers(id), [], "{id}");
        }
        for address in [
            "context.page.url",
            "context.page.search",
            "context.page.referrer",
            "properties.url",
            "properties.landing_page_url",
            "properties.imageUrls",
        ] {
            assert_eq!(readers(address), [Reader::Choice], "{address}");
        }
    }
}
