//! The policy as tables.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

use super::document::{GpcEffect, GpcOverride, PolicyDocument, PolicyError, Regime};
use crate::{
    kind::Kind,
    purpose::{Purpose, Purposes},
    strings::us::UsSection,
};

/// Place code for "not known".
pub const UNKNOWN: &str = "unknown";

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    version: Box<str>,
    hash: [u8; 32],
    document: Box<str>,
    explicit_ttl_seconds: i64,
    tc_string_ttl_seconds: i64,
    purpose_one_not_asked: Vec<[char; 2]>,
    places: HashMap<Box<str>, PlaceRules>,
    unknown: PlaceRules,
    categories: HashMap<Box<str>, Purposes>,
    floors: [Purposes; Kind::ALL.len()],
    lens_of: [usize; Kind::ALL.len()],
    lenses: Vec<Lens>,
    restrictions: BTreeMap<(Kind, Box<str>), serde_json::Value>,
}

/// Rules of a place, ready to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceRules {
    /// What holds without a signal.
    pub regime: Regime,
    /// What Global Privacy Control does.
    pub gpc: GpcEffect,
    /// Whether an informed opt-in lifts it.
    pub gpc_override: GpcOverride,
    denied_kinds: u8,
    restricted_kinds: u8,
}

/// A candidate place of an event with its rules.
#[derive(Debug, Clone, Copy)]
pub struct PlaceRef<'a> {
    /// As asked: "US-CA", "DE", "unknown".
    pub code: &'a str,
    /// What holds there.
    pub rules: &'a PlaceRules,
    /// Its own GPP section.
    pub section: Option<u16>,
    /// Whether it is in the United States.
    pub in_us: bool,
}

/// From whose view a signal is read: two kinds with the same lens get the same answer for each purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lens {
    /// Vendor of the global vendor list.
    pub vendor: Option<Vendor>,
    /// Whether Google's consent mode speaks about it.
    pub google: bool,
}

/// A vendor of the global vendor list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendor {
    /// Its id.
    pub id: u16,
    legitimate_interest: u32,
    flexible: u32,
}

impl Vendor {
    /// Whether it declared legitimate interest for the purpose.
    #[must_use]
    pub fn declares_legitimate_interest(&self, purpose: u8) -> bool {
        purpose < 32 && self.legitimate_interest >> purpose & 1 == 1
    }

    /// Whether a publisher may turn the purpose's basis round.
    #[must_use]
    pub fn is_flexible(&self, purpose: u8) -> bool {
        purpose < 32 && self.flexible >> purpose & 1 == 1
    }
}

impl PlaceRules {
    /// R2.
    #[must_use]
    pub fn denies(&self, kind: Kind) -> bool {
        self.denied_kinds >> kind.index() & 1 == 1
    }

    /// R13: whether the policy lists a restricted send.
    #[must_use]
    pub fn restricts(&self, kind: Kind) -> bool {
        self.restricted_kinds >> kind.index() & 1 == 1
    }
}

impl Policy {
    /// The one compiled in.
    ///
    /// # Errors
    /// Never, unless the document in the source is broken; a test holds that.
    pub fn compiled_in() -> Result<Self, PolicyError> {
        Self::compile(&PolicyDocument::from_toml(PolicyDocument::DEFAULT)?, PolicyDocument::DEFAULT)
    }

    /// Reads a document: JSON if it starts with a brace, else TOML.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document = if text.trim_start().starts_with('{') {
            PolicyDocument::from_json(text)?
        } else {
            PolicyDocument::from_toml(text)?
        };
        Self::compile(&document, text)
    }

    /// Compiles a document; `text` is what its content hash is of.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(document: &PolicyDocument, text: &str) -> Result<Self, PolicyError> {
        let mut problems = Vec::new();
        check_version(&document.version, &mut problems);
        let mut places = HashMap::new();
        for (code, jurisdiction) in &document.jurisdictions {
            if code != UNKNOWN && !is_place(code) {
                problems
                    .push(format!("jurisdictions: `{code}` is not a place (\"DE\", \"US-CA\", \"unknown\")"));
            }
            let rules = PlaceRules {
                regime: jurisdiction.regime,
                gpc: jurisdiction.gpc,
                gpc_override: jurisdiction.gpc_override,
                denied_kinds: 0,
                restricted_kinds: 0,
            };
            places.insert(code.as_str().into(), rules);
        }
        let mut restrictions = BTreeMap::new();
        mark_denied_kinds(document, &mut places, &mut problems);
        mark_restricted_kinds(document, &mut places, &mut restrictions, &mut problems);
        let (floors, lens_of, lenses) = compile_kinds(document, &mut problems);
        let unknown = places.get(UNKNOWN).copied();
        if unknown.is_none() {
            problems.push("jurisdictions: `unknown` is missing".to_owned());
        }
        for (field, days) in [
            ("explicit_ttl_days", document.explicit_ttl_days),
            ("tc_string_ttl_days", document.tc_string_ttl_days),
        ] {
            if days == 0 || days > 3_660 {
                problems.push(format!("{field}: {days} is not between 1 and 3,660"));
            }
        }
        let (Some(unknown), true) = (unknown, problems.is_empty()) else {
            return Err(PolicyError::Invalid(problems));
        };
        let folded = document.category_map.iter().map(|(name, purposes)| (fold(name), *purposes));
        let mut categories: HashMap<Box<str>, Purposes> = HashMap::new();
        for (name, purposes) in folded {
            let entry = categories.entry(name).or_default();
            *entry = entry.union(purposes);
        }
        Ok(Self {
            version: document.version.as_str().into(),
            hash: Sha256::digest(text.as_bytes()).into(),
            document: text.into(),
            explicit_ttl_seconds: i64::from(document.explicit_ttl_days) * 86_400,
            tc_string_ttl_seconds: i64::from(document.tc_string_ttl_days) * 86_400,
            purpose_one_not_asked: document
                .purpose_one_not_asked
                .iter()
                .filter_map(|cc| letters(cc))
                .collect(),
            places,
            unknown,
            categories,
            floors,
            lens_of,
            lenses,
            restrictions,
        })
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of its text.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Its text, as it is kept beside the receipts.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.document
    }

    /// Whether an explicit consent of this age has expired.
    #[must_use]
    pub fn explicit_has_expired(&self, age_seconds: i64) -> bool {
        age_seconds > self.explicit_ttl_seconds
    }

    /// Whether a TC string of this age has expired.
    #[must_use]
    pub fn tc_string_has_expired(&self, age_seconds: i64) -> bool {
        age_seconds > self.tc_string_ttl_seconds
    }

    /// Whether "purpose 1 was not asked" is permission for a publisher of this country.
    #[must_use]
    pub fn purpose_one_need_not_be_asked(&self, publisher_cc: [char; 2]) -> bool {
        self.purpose_one_not_asked.contains(&publisher_cc)
    }

    /// Purposes that a category of the customer's banner stands for; `None` if the policy does not know it.
    #[must_use]
    pub fn category(&self, name: &str) -> Option<Purposes> {
        if let Some(purposes) = self.categories.get(name) {
            return Some(*purposes);
        }
        self.categories.get(&fold(name)).copied()
    }

    /// Purposes without which nothing is sent to the kind.
    #[must_use]
    pub fn floor(&self, kind: Kind) -> Purposes {
        self.floors[kind.index()]
    }

    /// Index of the kind's lens in [`Self::lenses`].
    #[must_use]
    pub fn lens_of(&self, kind: Kind) -> usize {
        self.lens_of[kind.index()]
    }

    /// The lenses.
    #[must_use]
    pub fn lenses(&self) -> &[Lens] {
        &self.lenses
    }

    /// Fields of a restricted send, where the policy lists one.
    #[must_use]
    pub fn restriction(&self, kind: Kind, place: &str) -> Option<&serde_json::Value> {
        self.restrictions.get(&(kind, self.row_of(place).into()))
    }

    /// The places of an event with their rules; none: unknown, the strictest.
    #[must_use]
    pub fn places<'a>(&'a self, codes: &[&'a str]) -> Vec<PlaceRef<'a>> {
        if codes.is_empty() {
            return vec![self.place(UNKNOWN)];
        }
        codes.iter().map(|code| self.place(code)).collect()
    }

    /// A place with its rules: its own row, else that of its country, else `unknown`.
    #[must_use]
    pub fn place<'a>(&'a self, code: &'a str) -> PlaceRef<'a> {
        let rules = self.places.get(self.row_of(code)).unwrap_or(&self.unknown);
        PlaceRef {
            code: if is_place(code) { code } else { UNKNOWN },
            rules,
            section: UsSection::of_state(code),
            in_us: code == "US" || code.starts_with("US-"),
        }
    }

    fn row_of<'a>(&self, code: &'a str) -> &'a str {
        if self.places.contains_key(code) {
            return code;
        }
        match code.split_once('-') {
            Some((country, _)) if is_place(code) && self.places.contains_key(country) => country,
            _ => UNKNOWN,
        }
    }
}

/// Case and surrounding spaces of a category's name do not matter.
fn fold(name: &str) -> Box<str> {
    name.trim().to_lowercase().into()
}

/// "DE", "US-CA", "FR-75".
fn is_place(code: &str) -> bool {
    let (country, region) = code.split_once('-').map_or((code, None), |(c, r)| (c, Some(r)));
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && region.is_none_or(|r| {
            (1..=3).contains(&r.len()) && r.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        })
}

fn letters(country: &str) -> Option<[char; 2]> {
    let mut chars = country.chars();
    Some([chars.next()?, chars.next()?])
}

/// `YYYY-MM-DD.n`, with an optional suffix.
fn check_version(version: &str, problems: &mut Vec<String>) {
    let day_and_number = version.split_once('.').is_some_and(|(day, number)| {
        day.parse::<jiff::civil::Date>().is_ok() && number.starts_with(|c: char| c.is_ascii_digit())
    });
    let plain =
        version.len() <= 64 && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !day_and_number || !plain {
        problems.push(format!("version: `{version}` is not of the form YYYY-MM-DD.n"));
    }
}

/// The policies call the kind that can state every restriction by either of its names.
fn kind_named(name: &str, table: &str, problems: &mut Vec<String>) -> Option<Kind> {
    let kind = Kind::parse(name);
    if kind.is_none() {
        problems.push(format!("{table}: `{name}` is not a kind of destination"));
    }
    kind
}

type Places = HashMap<Box<str>, PlaceRules>;

fn mark_denied_kinds(document: &PolicyDocument, places: &mut Places, problems: &mut Vec<String>) {
    for (place, kinds) in &document.denied_kinds {
        let Some(rules) = places.get_mut(place.as_str()) else {
            problems.push(format!("denied_kinds: `{place}` is not among the jurisdictions"));
            continue;
        };
        for name in kinds {
            if let Some(kind) = kind_named(name, "denied_kinds", problems) {
                rules.denied_kinds |= 1 << kind.index();
            }
        }
    }
}

fn mark_restricted_kinds(
    document: &PolicyDocument,
    places: &mut Places,
    restrictions: &mut BTreeMap<(Kind, Box<str>), serde_json::Value>,
    problems: &mut Vec<String>,
) {
    for (name, rows) in &document.restricted_mode {
        let Some(kind) = kind_named(name, "restricted_mode", problems) else { continue };
        for (place, fields) in rows {
            let Some(rules) = places.get_mut(place.as_str()) else {
                problems.push(format!("restricted_mode: `{place}` is not among the jurisdictions"));
                continue;
            };
            rules.restricted_kinds |= 1 << kind.index();
            restrictions.insert((kind, place.as_str().into()), fields.clone());
        }
    }
}

type CompiledKinds = ([Purposes; Kind::ALL.len()], [usize; Kind::ALL.len()], Vec<Lens>);

fn compile_kinds(document: &PolicyDocument, problems: &mut Vec<String>) -> CompiledKinds {
    for (name, policy) in &document.kinds {
        let kind = kind_named(name, "kinds", problems);
        if policy.processor && kind != Some(Kind::Webhook) {
            problems.push(format!("kinds.{name}: `processor` is for webhooks only"));
        }
    }
    let mut vendors = HashMap::new();
    for (id, vendor) in &document.vendors {
        match id.parse::<u16>() {
            Ok(id) if id > 0 => {
                let vendor = Vendor {
                    id,
                    legitimate_interest: purpose_mask(&vendor.legitimate_interest),
                    flexible: purpose_mask(&vendor.flexible),
                };
                vendors.insert(id, vendor);
            }
            _ => problems.push(format!("vendors: `{id}` is not an id of the global vendor list")),
        }
    }
    let (mut floors, mut lens_of) = ([Purposes::NONE; Kind::ALL.len()], [0; Kind::ALL.len()]);
    let mut lenses: Vec<Lens> = Vec::new();
    for kind in Kind::ALL {
        let policy = document.kinds.get(kind.name()).cloned().unwrap_or_default();
        let floor = if policy.processor { Purposes::of(&[Purpose::Analytics]) } else { kind.floor() };
        floors[kind.index()] = floor.union(policy.extra_purposes);
        let vendor = policy.vendor.map(|id| {
            vendors.get(&id).cloned().unwrap_or(Vendor { id, legitimate_interest: 0, flexible: 0 })
        });
        let lens = Lens { vendor, google: kind.is_google() };
        lens_of[kind.index()] = lenses.iter().position(|known| *known == lens).unwrap_or_else(|| {
            lenses.push(lens);
            lenses.len() - 1
        });
    }
    (floors, lens_of, lenses)
}

/// Legitimate interest is forbidden for purposes 1 and 3 to 6. Source: IAB Europe, TCF Policies 2.2; 2023-05.
fn purpose_mask(purposes: &[u8]) -> u32 {
    purposes.iter().filter(|p| **p < 32 && !matches!(p, 0 | 1 | 3..=6)).fold(0, |mask, p| mask | 1 << p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_in_the_source_compiles() -> Result<(), PolicyError> {
        let policy = Policy::compiled_in()?;
        assert_eq!(policy.version(), "2026-11-23.1");
        assert_eq!(policy.place("US-CA").rules.gpc, GpcEffect::Binding);
        assert_eq!(policy.place("US-VA").rules.gpc, GpcEffect::Voluntary);
        assert_eq!(policy.place("DE").rules.regime, Regime::OptIn);
        assert_eq!(policy.place("unknown").rules.gpc_override, GpcOverride::Never);
        assert_eq!(policy.category("Advertising"), Some(Purposes::ADS));
        assert_eq!(policy.category(" c0004 "), Some(Purposes::ADS));
        assert_eq!(policy.category("Weather"), None);
        Ok(())
    }

    #[test]
    fn a_place_without_a_row_has_that_of_its_country_else_unknown() -> Result<(), PolicyError> {
        let policy = Policy::compiled_in()?;
        assert_eq!(policy.place("US-NY").rules.regime, Regime::OptOut);
        assert_eq!(policy.place("DE-BY").rules.regime, Regime::OptIn);
        for code in ["BR", "us-ca", "", "US-CA-SF", "US-", "XX-1"] {
            assert_eq!(policy.place(code).rules, policy.place("unknown").rules, "{code}");
        }
        assert_eq!(policy.place("us-ca").code, UNKNOWN);
        Ok(())
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let text = r#"{"version": "new", "explicit_ttl_days": 0, "jurisdictions": {"Germany": {"regime": "opt_in",
            "gpc": "binding"}}, "category_map": {}, "denied_kinds": {"DE": ["meta"]},
            "kinds": {"meta_capi": {"processor": true}}}"#;
        let Err(PolicyError::Invalid(problems)) = Policy::parse(text) else { panic!("was taken") };
        let all = problems.join("\n");
        for part in
            ["version", "explicit_ttl_days", "Germany", "`unknown` is missing", "`DE` is not", "processor"]
        {
            assert!(all.contains(part), "{part} is missing in {all}");
        }
        assert!(matches!(Policy::parse("{\"vresion\": 1}"), Err(PolicyError::Json(_))));
    }

    #[test]
    fn a_webhook_is_a_third_party_unless_the_policy_records_a_contract() -> Result<(), PolicyError> {
        let policy = Policy::compiled_in()?;
        assert_eq!(policy.floor(Kind::Webhook), Purposes::of(&[Purpose::SaleShare]));
        let mut document = PolicyDocument::from_toml(PolicyDocument::DEFAULT)?;
        document.kinds.entry("webhook".to_owned()).or_default().processor = true;
        let policy = Policy::compile(&document, "")?;
        assert_eq!(policy.floor(Kind::Webhook), Purposes::of(&[Purpose::Analytics]));
        Ok(())
    }
}
