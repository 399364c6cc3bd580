//! The usual places: the paths of an event that connectors look at whatever a connection's document says.
//!
//! A lane looks at some eighty of them for every event and connection, and most are empty there. They are known when this is compiled, so
//! each is found once, while the event's JSON is parsed, and a look is one step whether something is there or not. What a document
//! names itself is walked to, see [`crate::Json::at`].

/// The paths, each object right before what is in it.
const PATHS: [&str; COUNT] = [
    "properties",
    "properties._ttp",
    "properties.action_source",
    "properties.ad",
    "properties.affiliation",
    "properties.amount",
    "properties.anon_id",
    "properties.app_instance_id",
    "properties.application_tracking_enabled",
    "properties.att_status",
    "properties.category",
    "properties.client_id",
    "properties.content_type",
    "properties.coupon",
    "properties.creative",
    "properties.creative_name",
    "properties.creative_slot",
    "properties.ctwa_clid",
    "properties.currency",
    "properties.customer_segmentation",
    "properties.customer_type",
    "properties.data_processing_options",
    "properties.data_processing_options_country",
    "properties.data_processing_options_state",
    "properties.delivery_category",
    "properties.description",
    "properties.discount",
    "properties.email",
    "properties.event_id",
    "properties.fb_login_id",
    "properties.fbc",
    "properties.fbclid",
    "properties.fbp",
    "properties.firstName",
    "properties.first_name",
    "properties.ga_session_id",
    "properties.gbraid",
    "properties.gclid",
    "properties.idfv",
    "properties.ig_account_id",
    "properties.ig_sid",
    "properties.is_test",
    "properties.item_id",
    "properties.item_list_id",
    "properties.item_list_name",
    "properties.item_number",
    "properties.lastName",
    "properties.last_name",
    "properties.lead_event_source",
    "properties.lead_id",
    "properties.limited_data_use",
    "properties.list_id",
    "properties.messaging_channel",
    "properties.method",
    "properties.name",
    "properties.net_revenue",
    "properties.new_customer",
    "properties.num_items",
    "properties.opt_out",
    "properties.orderId",
    "properties.order_id",
    "properties.original_event_data",
    "properties.original_timestamp",
    "properties.original_value",
    "properties.page_id",
    "properties.page_scoped_user_id",
    "properties.payment_method",
    "properties.payment_type",
    "properties.phone",
    "properties.phone_number",
    "properties.position",
    "properties.predicted_ltv",
    "properties.product_id",
    "properties.products",
    "properties.promotion_id",
    "properties.promotion_name",
    "properties.query",
    "properties.referrer",
    "properties.refund",
    "properties.restate",
    "properties.revenue",
    "properties.search_string",
    "properties.share_via",
    "properties.shipping",
    "properties.shipping_method",
    "properties.shipping_tier",
    "properties.shop_id",
    "properties.sku",
    "properties.status",
    "properties.subscription_id",
    "properties.subtotal",
    "properties.tax",
    "properties.test",
    "properties.test_order",
    "properties.title",
    "properties.total",
    "properties.ttclid",
    "properties.ttp",
    "properties.url",
    "properties.value",
    "properties.wbraid",
    "properties.whatsapp_business_account_id",
    "traits",
    "traits.address",
    "traits.address.city",
    "traits.address.country",
    "traits.address.postalCode",
    "traits.address.postal_code",
    "traits.address.state",
    "traits.address.street",
    "traits.address.zip",
    "traits.birth_date",
    "traits.birthday",
    "traits.city",
    "traits.country",
    "traits.email",
    "traits.firstName",
    "traits.first_name",
    "traits.gender",
    "traits.lastName",
    "traits.last_name",
    "traits.phone",
    "traits.phone_number",
    "traits.state",
    "context",
    "context.action_source",
    "context.app",
    "context.app.build",
    "context.app.name",
    "context.app.namespace",
    "context.app.version",
    "context.client_id",
    "context.device",
    "context.device.adTrackingEnabled",
    "context.device.advertisingId",
    "context.device.idfv",
    "context.device.model",
    "context.device.trackingStatus",
    "context.device.type",
    "context.fbc",
    "context.fbclid",
    "context.fbp",
    "context.gbraid",
    "context.gclid",
    "context.ip",
    "context.locale",
    "context.network",
    "context.network.carrier",
    "context.os",
    "context.os.name",
    "context.os.version",
    "context.page",
    "context.page.referrer",
    "context.page.title",
    "context.page.url",
    "context.screen",
    "context.screen.density",
    "context.screen.height",
    "context.screen.width",
    "context.timezone",
    "context.traits",
    "context.traits.address",
    "context.traits.address.city",
    "context.traits.address.country",
    "context.traits.address.postalCode",
    "context.traits.address.postal_code",
    "context.traits.address.state",
    "context.traits.address.street",
    "context.traits.address.zip",
    "context.traits.birth_date",
    "context.traits.birthday",
    "context.traits.city",
    "context.traits.country",
    "context.traits.email",
    "context.traits.firstName",
    "context.traits.first_name",
    "context.traits.gender",
    "context.traits.lastName",
    "context.traits.last_name",
    "context.traits.phone",
    "context.traits.phone_number",
    "context.traits.state",
    "context.ttclid",
    "context.ttp",
    "context.userAgent",
    "context.wbraid",
    "integrations",
    "integrations.Google Analytics 4",
    "integrations.Google Analytics 4.clientId",
    "integrations.Google Analytics 4.firebaseAppInstanceId",
    "integrations.Google Analytics 4.sessionId",
];

/// How many there are.
pub(crate) const COUNT: usize = 191;

/// How many of them are objects that have others in them.
const OBJECTS: usize = 14;

/// No place, and no object.
const NONE: u8 = u8::MAX;

const _: () = assert!(COUNT < NONE as usize, "a place is told by one byte");

/// A usual place, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usual(u8);

/// A usual place by its path: `usual!("properties.order_id")`. A path that is none does not compile.
macro_rules! usual {
    ($path:literal) => {
        const { $crate::usual::Usual::of($path) }
    };
}

/// Several, the first of which with a value wins.
macro_rules! usuals {
    ($($path:literal),* $(,)?) => {
        const { &[$($crate::usual::Usual::of($path)),*] }
    };
}

pub(crate) use {usual, usuals};

impl Usual {
    /// The place of that path, when it is compiled.
    ///
    /// # Panics
    /// It is no usual one.
    pub(crate) const fn of(path: &str) -> Self {
        match Self::find(path) {
            Some(place) => place,
            None => panic!("no usual place: see PATHS"),
        }
    }

    /// The place of that path; none: it is no usual one.
    #[must_use]
    pub const fn find(path: &str) -> Option<Self> {
        let mut number = 0;
        while number < COUNT {
            if is_same(PATHS[number].as_bytes(), path.as_bytes()) {
                return Some(Self(number as u8));
            }
            number += 1;
        }
        None
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..COUNT).map(|number| Self(number as u8))
    }

    /// Its path.
    #[cfg(test)]
    pub(crate) const fn path(self) -> &'static str {
        PATHS[self.0 as usize]
    }

    /// Its number, below [`COUNT`].
    pub(crate) const fn number(self) -> usize {
        self.0 as usize
    }

    /// The number after those of all that is in it.
    pub(crate) fn end(self) -> usize {
        TREE.ends[self.0 as usize] as usize
    }

    /// What a member of it is. `bit` is the key's, see [`bit_of`].
    pub(crate) fn member(self, key: &str, bit: u8) -> Option<Self> {
        let object = TREE.objects[self.number()];
        let mut at = *TREE.firsts.get(usize::from(object))?.get(usize::from(bit))?;
        while at != NONE {
            let number = usize::from(at);
            if PATHS[number].as_bytes()[usize::from(TREE.keys[number])..] == *key.as_bytes() {
                return Some(Self(at));
            }
            at = TREE.nexts[number];
        }
        None
    }
}

/// A number below 64 that keys are told apart by before they are compared.
pub(crate) const fn bit_of(key: &str) -> u8 {
    let bytes = key.as_bytes();
    if bytes.is_empty() {
        return 0;
    }
    let mixed = (bytes.len() as u64) << 16 | (bytes[0] as u64) << 8 | bytes[bytes.len() - 1] as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as u8
}

/// How the places lie in each other.
struct Tree {
    /// Where the last key of each path begins.
    keys: [u8; COUNT],
    /// The number after those of all that is in it.
    ends: [u8; COUNT],
    /// Which object it is, counted from 0; [`NONE`]: nothing is in it.
    objects: [u8; COUNT],
    /// The first member of each object by the bit of its key.
    firsts: [[u8; 64]; OBJECTS],
    /// The next member of the same object with the same bit.
    nexts: [u8; COUNT],
}

static TREE: Tree = Tree::of_paths();

impl Tree {
    const fn of_paths() -> Self {
        let mut tree = Self {
            keys: [0; COUNT],
            ends: [0; COUNT],
            objects: [NONE; COUNT],
            firsts: [[NONE; 64]; OBJECTS],
            nexts: [NONE; COUNT],
        };
        let mut objects = 0;
        let mut number = 0;
        while number < COUNT {
            let path = PATHS[number].as_bytes();
            let mut end = number + 1;
            while end < COUNT && is_in(PATHS[end].as_bytes(), path) {
                end += 1;
            }
            tree.ends[number] = end as u8;
            if end > number + 1 {
                tree.objects[number] = objects as u8;
                objects += 1;
            }
            let mut dot = path.len();
            while dot > 0 && path[dot - 1] != b'.' {
                dot -= 1;
            }
            tree.keys[number] = dot as u8;
            if dot > 0 {
                let object = tree.objects[Usual::of(split(PATHS[number], dot - 1).0).number()] as usize;
                let bit = bit_of(split(PATHS[number], dot).1) as usize;
                tree.nexts[number] = tree.firsts[object][bit];
                tree.firsts[object][bit] = number as u8;
            }
            number += 1;
        }
        assert!(objects == OBJECTS, "OBJECTS is another number");
        tree
    }
}

const fn split(text: &str, at: usize) -> (&str, &str) {
    text.split_at(at)
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && starts_with(one, other)
}

/// Whether a path leads to something within another one.
const fn is_in(path: &[u8], object: &[u8]) -> bool {
    path.len() > object.len() && path[object.len()] == b'.' && starts_with(path, object)
}

const fn starts_with(text: &[u8], start: &[u8]) -> bool {
    if text.len() < start.len() {
        return false;
    }
    let mut at = 0;
    while at < start.len() {
        if text[at] != start[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_place_is_found_by_the_keys_of_its_path() {
        assert_eq!(PATHS.iter().collect::<HashSet<_>>().len(), COUNT, "none stands twice");
        for (number, path) in PATHS.iter().enumerate() {
            let mut keys = path.split('.');
            let root = Usual::find(keys.next().unwrap()).unwrap();
            let place = keys.try_fold(root, |at, key| at.member(key, bit_of(key)));
            assert_eq!(place.map(Usual::number), Some(number), "{path}");
            let within = PATHS.iter().filter(|other| other.starts_with(&format!("{path}."))).count();
            assert_eq!(place.unwrap().end(), number + 1 + within, "{path}");
        }
        assert_eq!(usual!("traits").member("order_id", bit_of("order_id")), None);
        assert_eq!(usual!("traits.email").member("email", bit_of("email")), None, "no object");
    }
}
