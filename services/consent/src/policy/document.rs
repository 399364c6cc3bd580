//! The policy as people write it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::purpose::Purposes;

/// A policy document. Unknown fields are refused: a misspelt rule must not be a silent one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// `YYYY-MM-DD.n`, with a suffix where there are several. Names the policy in every decision; never used twice.
    pub version: String,
    /// Who wrote it.
    #[serde(default)]
    pub author: String,
    /// Who approved it.
    #[serde(default)]
    pub approver: String,
    /// Since when it holds, for people.
    #[serde(default)]
    pub valid_from: String,
    /// How long an explicit consent counts, in days.
    pub explicit_ttl_days: u32,
    /// How long a TC string counts after its last update, in days.
    #[serde(default = "thirteen_months")]
    pub tc_string_ttl_days: u32,
    /// Countries of the publisher where "purpose 1 was not asked" is permission.
    #[serde(default)]
    pub purpose_one_not_asked: Vec<String>,
    /// Place to rules: "DE", "US-CA"; "unknown" is required.
    pub jurisdictions: BTreeMap<String, Jurisdiction>,
    /// The customer's category names to purposes.
    pub category_map: BTreeMap<String, Purposes>,
    /// Vendors of the global vendor list, by id.
    #[serde(default)]
    pub vendors: BTreeMap<String, VendorPolicy>,
    /// Kinds of destination, where there is something to say about them.
    #[serde(default)]
    pub kinds: BTreeMap<String, KindPolicy>,
    /// Kind to place to the fields that a restricted send carries there.
    #[serde(default)]
    pub restricted_mode: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
    /// Place to kinds that are never served there.
    #[serde(default)]
    pub denied_kinds: BTreeMap<String, Vec<String>>,
}

/// Rules of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jurisdiction {
    /// What holds without a signal.
    pub regime: Regime,
    /// What Global Privacy Control does.
    pub gpc: GpcEffect,
    /// Whether anything lifts it.
    #[serde(default)]
    pub gpc_override: GpcOverride,
}

/// What holds without a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// Nothing without consent.
    OptIn,
    /// Allowed until the person objects.
    OptOut,
    /// No law of its own; objections count all the same.
    None,
}

/// What Global Privacy Control does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpcEffect {
    /// Denies, by law.
    Binding,
    /// Denies, by choice.
    Voluntary,
    /// Denies what nobody specifically consented to.
    Advisory,
    /// Nothing.
    Ignored,
}

/// Whether anything lifts Global Privacy Control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpcOverride {
    /// Nothing does.
    #[default]
    Never,
    /// An explicit grant of a known person who was told about the conflict, later than the signal's start.
    AfterNotice,
}

/// What a vendor declared in the global vendor list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VendorPolicy {
    /// Purposes on legitimate interest. 1 and 3 to 6 are forbidden there since TCF 2.2.
    #[serde(default)]
    pub legitimate_interest: Vec<u8>,
    /// Purposes whose basis a publisher may turn round.
    #[serde(default)]
    pub flexible: Vec<u8>,
}

/// What the policy says about a kind of destination. The floor of purposes itself is not policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindPolicy {
    /// Its id in the global vendor list; without one a TC string can only deny.
    #[serde(default)]
    pub vendor: Option<u16>,
    /// Purposes beyond the floor.
    #[serde(default)]
    pub extra_purposes: Purposes,
    /// Webhooks only: a processor contract is recorded, so that the floor is `analytics` instead of `sale_share`.
    #[serde(default)]
    pub processor: bool,
}

/// Why a document is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not readable as TOML.
    #[error("the policy is not readable as TOML")]
    Toml(#[source] Box<toml::de::Error>),
    /// Not readable as JSON.
    #[error("the policy is not readable as JSON")]
    Json(#[source] serde_json::Error),
    /// Readable, but wrong; everything that is wrong.
    #[error("the policy is not usable: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

fn thirteen_months() -> u32 {
    395
}

impl PolicyDocument {
    /// The one compiled in.
    pub const DEFAULT: &'static str = include_str!("default.toml");

    /// Reads TOML.
    ///
    /// # Errors
    /// Not TOML, or a field that is unknown, missing or of another type.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        toml::from_str(text).map_err(|e| PolicyError::Toml(Box::new(e)))
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// Not JSON, or a field that is unknown, missing or of another type.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        serde_json::from_str(text).map_err(PolicyError::Json)
    }
}
