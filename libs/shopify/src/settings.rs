//! What a source of kind `shopify` is told: a JSON document, checked when it is saved and again when it is opened.

use serde::Deserialize;
use serde_json::Value;
use tracklayer_ids::Secret;

/// What stands in the document's `kind`.
pub const KIND: &str = "shopify";

/// Members of the document that are secrets, as paths.
pub const SECRET_PATHS: &[&str] = &["webhook_secret", "previous_webhook_secret"];

/// Longest secret; Shopify's have 38 characters (an app's) or 64 (a shop's own webhooks).
const MAX_SECRET_BYTES: usize = 256;
/// Most names in `ignored_source_names`.
const MAX_SOURCE_NAMES: usize = 50;
/// Longest text of a setting.
const MAX_TEXT_BYTES: usize = 253;

/// The settings, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Always "shopify".
    pub kind: Kind,
    /// What the webhooks are signed with: the app's client secret, or what the shop's page "Notifications" shows for webhooks made
    /// there. 8 to 256 characters.
    pub webhook_secret: Secret<String>,
    /// Also believed, while a secret is being replaced: Shopify may sign with the old one for an hour. Source: shopify.dev, "Verify
    /// webhook deliveries"; 2026-11.
    #[serde(default)]
    pub previous_webhook_secret: Option<Secret<String>>,
    /// The shop, "northline.myshopify.com"; webhooks that name another are refused. The name is not covered by the signature: where
    /// one app serves several shops, they share its secret, and only this keeps them apart. Absent: any.
    #[serde(default)]
    pub shop_domain: Option<String>,
    /// Which of the order's names is `order_id`: it has to be what the shop's other sources send.
    #[serde(default)]
    pub order_id_from: OrderIdFrom,
    /// Which webhook is the purchase.
    #[serde(default)]
    pub completed_on: CompletedOn,
    /// In whose currency amounts are told.
    #[serde(default)]
    pub amounts: Amounts,
    /// What becomes `userId`.
    #[serde(default)]
    pub user_id_from: UserIdFrom,
    /// Host of the shop's pages, "shop.northline.example": where a visitor's landing page is, of which an order names only the path.
    /// Absent: the host of the order's status page, else the shop's domain.
    #[serde(default)]
    pub storefront_host: Option<String>,
    /// Orders of these channels are not taken: "pos", "shopify_draft_order". At most 50.
    #[serde(default)]
    pub ignored_source_names: Vec<String>,
    /// Whether test orders are taken, too.
    #[serde(default)]
    pub test_orders: bool,
}

/// The one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Shopify.
    #[default]
    Shopify,
}

/// Which of an order's names is its `order_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderIdFrom {
    /// `id`, "820982911946154508": never changes, and is what refunds name.
    #[default]
    Id,
    /// `name`, "#1001": what the customer sees.
    Name,
    /// `order_number`, "1001": the name without what the shop puts around it.
    OrderNumber,
}

/// Which webhook is "Order Completed". The other of the two is taken for none, so that no order counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompletedOn {
    /// `orders/create`: when it is placed.
    #[default]
    Created,
    /// `orders/paid`: when the money is there.
    Paid,
}

/// In whose currency amounts are told. Amount and currency are always of one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amounts {
    /// The shop's.
    #[default]
    Shop,
    /// The buyer's.
    Presentment,
}

/// What becomes `userId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserIdFrom {
    /// Shopify's customer id. The source's `user_id_type` should then be one of its own, `shopify_customer_id`.
    #[default]
    CustomerId,
    /// Nothing: e-mail and phone alone say who it was.
    None,
}

/// A document that cannot be used. Never carries a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {why}")]
pub struct SettingsError {
    /// The member.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub why: String,
}

impl Settings {
    /// Reads a document whose secrets are in clear.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(document: &Value) -> Result<Self, SettingsError> {
        let Some(members) = document.as_object() else {
            return Err(wrong("webhook", "must be a JSON object with `kind` and `webhook_secret`"));
        };
        for (name, allowed) in CHOICES {
            let known = |value: &Value| value.as_str().is_some_and(|text| allowed.contains(&text));
            if let Some(value) = members.get(*name)
                && !known(value)
            {
                return Err(wrong(name, format!("must be one of: {}", allowed.join(", "))));
            }
        }
        for secret in SECRET_PATHS {
            check_secret(secret, members.get(*secret))?;
        }
        if !members.contains_key("webhook_secret") {
            return Err(wrong("webhook_secret", "is required: it tells Shopify's webhooks from anybody's"));
        }
        if !members.contains_key("kind") {
            return Err(wrong("kind", "is required: shopify"));
        }
        // The text of serde's error names members and types; secrets are known to be text by now, and texts are not quoted there.
        let mut settings: Self =
            Self::deserialize(document).map_err(|error| wrong("webhook", error.to_string()))?;
        settings.shop_domain = settings.shop_domain.map(|host| host_of("shop_domain", &host)).transpose()?;
        settings.storefront_host =
            settings.storefront_host.map(|host| host_of("storefront_host", &host)).transpose()?;
        let names = &settings.ignored_source_names;
        if names.len() > MAX_SOURCE_NAMES
            || names.iter().any(|n| n.trim().is_empty() || n.len() > MAX_TEXT_BYTES)
        {
            return Err(wrong("ignored_source_names", "must be at most 50 names of 1 to 253 bytes"));
        }
        Ok(settings)
    }

    /// Whether a webhook names the shop that it is bound to.
    #[must_use]
    pub fn is_of_shop(&self, shop_domain: &str) -> bool {
        self.shop_domain.as_deref().is_none_or(|bound| bound.eq_ignore_ascii_case(shop_domain.trim()))
    }
}

/// Members that are one of a few words.
const CHOICES: &[(&str, &[&str])] = &[
    ("kind", &["shopify"]),
    ("order_id_from", &["id", "name", "order_number"]),
    ("completed_on", &["created", "paid"]),
    ("amounts", &["shop", "presentment"]),
    ("user_id_from", &["customer_id", "none"]),
];

fn check_secret(path: &str, secret: Option<&Value>) -> Result<(), SettingsError> {
    let fits = match secret {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => {
            (8..=MAX_SECRET_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        }
        Some(_) => false,
    };
    if fits { Ok(()) } else { Err(wrong(path, "must have 8 to 256 printable ASCII characters and no space")) }
}

fn host_of(path: &str, text: &str) -> Result<String, SettingsError> {
    let host = text.trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    if host.contains('.') && host.len() <= MAX_TEXT_BYTES && host.bytes().all(plain) {
        Ok(host)
    } else {
        Err(wrong(path, "must be a host alone, such as northline.myshopify.com"))
    }
}

fn wrong(path: &str, why: impl Into<String>) -> SettingsError {
    SettingsError { path: path.to_owned(), why: why.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_enough_and_the_defaults_are_the_documented_ones() {
        let settings =
            Settings::parse(&json!({"kind": "shopify", "webhook_secret": "shpss_test_secret"})).unwrap();
        assert_eq!(settings.order_id_from, OrderIdFrom::Id);
        assert_eq!(settings.completed_on, CompletedOn::Created);
        assert_eq!(settings.amounts, Amounts::Shop);
        assert_eq!(settings.user_id_from, UserIdFrom::CustomerId);
        assert!(!settings.test_orders && settings.is_of_shop("any.myshopify.com"));
        assert!(!format!("{settings:?}").contains("shpss"), "a secret is not printed");
    }

    #[test]
    fn what_is_wrong_is_named_and_a_secret_never_shown() {
        let good = json!({"kind": "shopify", "webhook_secret": "shpss_test_secret"});
        for (member, value) in [
            ("kind", json!("woocommerce")),
            ("webhook_secret", json!("short")),
            ("webhook_secret", json!(12_345_678)),
            ("previous_webhook_secret", json!("with a space in it")),
            ("shop_domain", json!("https://northline.myshopify.com/")),
            ("storefront_host", json!("localhost")),
            ("order_id_from", json!("number")),
            ("completed_on", json!(1)),
            ("amounts", json!("both")),
            ("user_id_from", json!(null)),
            ("ignored_source_names", json!([""])),
        ] {
            let mut document = good.clone();
            document[member] = value;
            let error = Settings::parse(&document).unwrap_err();
            assert_eq!(error.path, member);
            assert!(!error.to_string().contains("with a space"), "{error}");
        }
        for (document, path) in [
            (json!({"kind": "shopify"}), "webhook_secret"),
            (json!({"webhook_secret": "shpss_test_secret"}), "kind"),
            (json!([]), "webhook"),
            (json!({"kind": "shopify", "webhook_secret": "shpss_test_secret", "shop": "x"}), "webhook"),
        ] {
            assert_eq!(Settings::parse(&document).unwrap_err().path, path);
        }
    }

    #[test]
    fn a_source_bound_to_a_shop_takes_no_other() {
        let settings = Settings::parse(&json!({
            "kind": "shopify", "webhook_secret": "shpss_test_secret", "shop_domain": "Northline.myshopify.com",
        }))
        .unwrap();
        assert!(settings.is_of_shop("northline.MyShopify.com"));
        for other in ["", "other.myshopify.com", "northline.myshopify.com.evil.example"] {
            assert!(!settings.is_of_shop(other), "{other}");
        }
    }
}
