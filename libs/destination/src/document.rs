//! The connection document: what an operator writes about one connection. Common parts are the same for every kind;
//! `settings` are the kind's own. A document is checked as a whole, and all that is wrong with it is told at once.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracklayer_ids::Secret;

use crate::mapping::EventFilter;

/// What a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Meta Conversions API.
    MetaCapi,
    /// Google Data Manager API: the default for Google Ads.
    GoogleDataManager,
    /// Google Ads API: click conversions and adjustments, for accounts that are still allowed to.
    GoogleAds,
    /// GA4 Measurement Protocol.
    Ga4Mp,
    /// TikTok Events API 2.0.
    TiktokEvents,
    /// Any HTTP receiver, by Standard Webhooks.
    Webhook,
    /// The customer's own warehouse.
    Warehouse,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::MetaCapi,
        Self::GoogleDataManager,
        Self::GoogleAds,
        Self::Ga4Mp,
        Self::TiktokEvents,
        Self::Webhook,
        Self::Warehouse,
    ];

    /// The name in documents, ledger and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MetaCapi => "meta_capi",
            Self::GoogleDataManager => "google_data_manager",
            Self::GoogleAds => "google_ads",
            Self::Ga4Mp => "ga4_mp",
            Self::TiktokEvents => "tiktok_events",
            Self::Webhook => "webhook",
            Self::Warehouse => "warehouse",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What custom fields of this kind start with; none: it has none.
    #[must_use]
    pub const fn custom_prefix(self) -> Option<&'static str> {
        match self {
            Self::MetaCapi => Some("custom_data."),
            Self::GoogleDataManager | Self::GoogleAds => Some("custom_variables."),
            Self::Ga4Mp => Some("params."),
            Self::TiktokEvents => Some("properties."),
            Self::Webhook | Self::Warehouse => None,
        }
    }

    /// Names under which an event's `integrations` object may switch this kind off.
    #[must_use]
    pub const fn integration_names(self) -> &'static [&'static str] {
        match self {
            Self::MetaCapi => {
                &["meta_capi", "Facebook Conversions API (Actions)", "Facebook Conversions API", "Meta"]
            }
            Self::GoogleDataManager => {
                &["google_data_manager", "Google Data Manager", "Google Ads Conversions", "Google Ads"]
            }
            Self::GoogleAds => &["google_ads", "Google Ads Conversions", "Google Ads"],
            Self::Ga4Mp => &["ga4_mp", "Google Analytics 4", "Google Analytics 4 Cloud"],
            Self::TiktokEvents => {
                &["tiktok_events", "TikTok Conversions", "TikTok Conversions (Actions)", "TikTok"]
            }
            Self::Webhook => &["webhook", "Webhooks", "Webhooks (Actions)"],
            Self::Warehouse => &["warehouse", "Warehouses"],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a connection does with what it builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nothing.
    #[default]
    Off,
    /// Build, validate, record; do not send.
    Shadow,
    /// Send.
    Live,
}

/// A purpose that a connection declares beyond its kind's floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Running the service.
    Necessary,
    /// Comfort.
    Functional,
    /// Own statistics.
    Analytics,
    /// Measuring ads.
    AdMeasurement,
    /// Personalised ads.
    AdTargeting,
    /// Disclosure to somebody who uses it for himself.
    SaleShare,
}

impl Purpose {
    /// The firewall's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Necessary => "necessary",
            Self::Functional => "functional",
            Self::Analytics => "analytics",
            Self::AdMeasurement => "ad_measurement",
            Self::AdTargeting => "ad_targeting",
            Self::SaleShare => "sale_share",
        }
    }
}

/// The most that a connection wants of consent. Can only narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConsentCap {
    /// At most a restricted send.
    Restricted,
    /// Nothing.
    Deny,
}

/// What an event name becomes at the platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MapTarget {
    /// The platform's event name (Google kinds: the conversion action's id).
    Name(String),
    /// The same with more to say; the keys are the kind's own.
    Detail(serde_json::Map<String, Value>),
    /// Not sent.
    Off(()),
}

/// One path or several, the first with a value wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Paths {
    /// One path, "properties.customer.email".
    One(String),
    /// Several, in order.
    Several(Vec<String>),
}

impl Paths {
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths.as_slice(),
        }
        .iter()
        .map(String::as_str)
    }
}

/// Where the money of a purchase comes from when none of `value_from` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueFallback {
    /// The sum of price × quantity of the products.
    Products,
}

/// The connection document. `S` are the kind's settings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document<S = Value> {
    /// What the connection leads to.
    pub kind: Kind,
    /// What it does. Default: off.
    #[serde(default)]
    pub mode: Mode,
    /// The kind's own settings.
    pub settings: S,
    /// Which events the connection takes, as an expression that gives a bool (docs/mapping.md): what does not give true is left out.
    /// Beside `event_filter`; both must agree.
    #[serde(default)]
    #[schemars(schema_with = "expression_schema")]
    pub filter: Option<String>,
    /// Event name → an expression that chooses between names of the platform (Google kinds: ids of conversion actions), or null: not
    /// sent. For names that `event_map` does not have.
    #[serde(default)]
    #[schemars(schema_with = "expressions_schema")]
    pub names: BTreeMap<String, String>,
    /// Field → an expression that gives it, instead of any other place: `value`, fields of people and orders (`email`, `order_id`,
    /// `currency`, ...) or custom ones with the kind's prefix (`custom_data.tier`).
    #[serde(default)]
    #[schemars(schema_with = "expressions_schema")]
    pub fields: BTreeMap<String, String>,
    /// Event name → the platform's. Names are compared without case and with spaces folded; `page`, `screen` and `identify`
    /// stand for those calls. Null: not sent.
    #[serde(default)]
    pub event_map: BTreeMap<String, MapTarget>,
    /// Field → where it comes from, tried before the usual places. Fields are those of people and orders (`email`, `phone`,
    /// `order_id`, `currency`, ...) or custom ones with the kind's prefix (`custom_data.tier`).
    #[serde(default)]
    pub field_map: BTreeMap<String, Paths>,
    /// Field → the value it has when nothing else gives one.
    #[serde(default)]
    pub constants: BTreeMap<String, Value>,
    /// Where the event id at the platform comes from. Default: properties.event_id, then messageId; for commerce events of a source
    /// with `dedup_by_order_id`, the order: `order_completed:` and order_id, `order_cancelled:` and order_id, `order_refunded:` and
    /// refund_id. A pixel beside it sends the same.
    #[serde(default)]
    pub event_id_from: Option<Vec<String>>,
    /// Where external_id comes from. Default: userId, then anonymousId. `canonical_key` is the profile's key.
    #[serde(default)]
    pub external_id_from: Option<Vec<String>>,
    /// Which property a purchase is worth, in this order. Default: the workspace's.
    #[serde(default)]
    pub value_from: Option<Vec<String>>,
    /// What a purchase with none of `value_from` is worth. Default: the workspace's (it is refused).
    #[serde(default)]
    pub value_fallback: Option<ValueFallback>,
    /// Which events the connection takes at all. Default: all but test orders.
    #[serde(default)]
    pub event_filter: EventFilter,
    /// Purposes beyond the kind's floor.
    #[serde(default)]
    pub purposes: Vec<Purpose>,
    /// The most that the connection wants of consent.
    #[serde(default)]
    pub consent_cap: Option<ConsentCap>,
}

/// What the workspace says about money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceDefaults {
    /// Which property a purchase is worth, in this order.
    pub value_from: Vec<String>,
    /// `products`, or none: such a purchase is refused.
    pub value_fallback: Option<String>,
}

impl Default for WorkspaceDefaults {
    fn default() -> Self {
        Self { value_from: ["revenue", "total", "value"].map(str::to_owned).to_vec(), value_fallback: None }
    }
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// Where: "settings.dataset_id"; empty for the document as a whole.
    pub path: String,
    /// What, and what is allowed. Never the value: it may be a secret.
    pub why: String,
    /// Whether nothing is wrong as far as is known: it could not be read now, and may be at another try.
    pub may_pass: bool,
}

impl SettingsError {
    /// One error.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self { path: path.into(), why: why.into(), may_pass: false }
    }
}

/// Everything that is wrong with a document; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection document is not valid: {}", .0.iter().map(|e| format!("{}: {}", e.path, e.why)).collect::<Vec<_>>().join("; "))]
pub struct SettingsErrors(pub Vec<SettingsError>);

impl SettingsErrors {
    /// Whether the same document may be opened at another try.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.0.iter().all(|error| error.may_pass)
    }

    /// A single error.
    pub fn one(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self(vec![SettingsError::new(path, why)])
    }
}

/// JSON Schema of a document of this kind.
#[must_use]
pub fn schema_of<S: JsonSchema>(kind: Kind) -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<Document<S>>().to_value();
    schema["title"] = json!(format!("Connection of kind {kind}"));
    schema["properties"]["kind"] =
        json!({ "const": kind.as_str(), "description": "What the connection leads to." });
    schema
}

/// Reads a document of a known kind: everything that the schema finds wrong is told at once.
///
/// # Errors
/// The document does not fit the schema.
pub fn read<S: JsonSchema + DeserializeOwned>(
    kind: Kind,
    document: &Value,
) -> Result<Document<S>, SettingsErrors> {
    let schema = schema_of::<S>(kind);
    let validator = jsonschema::validator_for(&schema)
        .map_err(|error| SettingsErrors::one("", format!("the schema of {kind} cannot be used: {error}")))?;
    let errors: Vec<SettingsError> = validator
        .iter_errors(document)
        .map(|error| {
            SettingsError::new(dotted(&error.instance_path().to_string()), error.masked().to_string())
        })
        .collect();
    if !errors.is_empty() {
        return Err(SettingsErrors(errors));
    }
    serde_json::from_value(document.clone()).map_err(|error| SettingsErrors::one("", error.to_string()))
}

/// "/settings/dataset_id" → "settings.dataset_id".
fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// Schema of a secret setting: text that is written and never read back.
pub(crate) fn secret_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = String::json_schema(generator);
    schema.insert("writeOnly".to_owned(), Value::Bool(true));
    schema.insert("minLength".to_owned(), json!(1));
    // The line break that came along when it was copied: no header takes it, and the lane would hold without a word of why.
    schema.insert("pattern".to_owned(), json!(r"^[^\x00-\x1f\x7f]+$"));
    schema
}

/// Schema of an expression.
fn expression_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = String::json_schema(generator);
    schema.insert("minLength".to_owned(), json!(1));
    schema.insert("maxLength".to_owned(), json!(tracklayer_expression::MAX_LENGTH));
    schema
}

/// Schema of a map of expressions.
fn expressions_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = BTreeMap::<String, String>::json_schema(generator);
    schema.insert("additionalProperties".to_owned(), expression_schema(generator).to_value());
    schema
}

/// Text that is a secret; a newtype only in the schema's eyes.
pub type SecretText = Secret<String>;
