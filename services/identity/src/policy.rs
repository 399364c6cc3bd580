//! What kinds of identifiers there are, how much each may link, and which values never count.
//!
//! A type that the policy does not name is a source's own login id (`app_user_id`, `wholesale_user_id`): exclusive, as
//! strong as the second strongest, and limited wherever `user_id` is limited. So a source may name its own type without
//! anybody editing a policy, and the numeric id 4711 of two systems never becomes one person.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::identifier::ValueMac;

/// Number of a type within one [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeIndex(pub u16);

/// Priority of a login id that the policy does not name.
const LOGIN_PRIORITY: u16 = 2;

/// One registered type.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TypeRule {
    name: String,
    priority: u16,
    exclusive: bool,
    /// (neighbour's type, most distinct neighbours of it).
    fanout: Vec<(TypeIndex, u32)>,
    /// The same for login ids that the policy does not name.
    login_fanout: Option<u32>,
}

/// The rules of identity, the same for all workspaces of an installation.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<TypeRule>,
    by_name: HashMap<String, TypeIndex>,
    blocked_exact: HashSet<String>,
    blocked_values: HashMap<String, HashSet<String>>,
    max_cluster: usize,
}

/// A policy as a JSON document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// The types by name.
    pub types: BTreeMap<String, TypeDocument>,
    /// Values that no type may have, lower case; upper case, spaces and quotes around them make no difference.
    pub blocked_exact_ci: Vec<String>,
    /// Values of nothing but zeros and dashes are always blocked; the only pattern accepted here is the one that says so.
    #[serde(default)]
    pub blocked_regex: Option<String>,
    /// Normalised values that a type may not have: shared desks, kiosks.
    #[serde(default)]
    pub blocked: BTreeMap<String, Vec<String>>,
    /// Most identifiers of one component before its weakest types stop linking. 2 to 1,000.
    pub max_cluster: usize,
}

/// A type in a [`PolicyDocument`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeDocument {
    /// 1 is the strongest.
    pub priority: u16,
    /// Whether a profile holds at most one value of it.
    #[serde(default)]
    pub exclusive: bool,
    /// Most distinct neighbours of another type before a value of this one stops linking.
    #[serde(default)]
    pub fanout: BTreeMap<String, u32>,
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file.
    #[error("could not read the identity policy from `{path}`")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not JSON, or not of the right shape.
    #[error("the identity policy is not a valid document")]
    Malformed(#[source] serde_json::Error),
    /// A limit for a type that is not there.
    #[error("type `{type_name}` limits `{neighbour}`, which is not a type of the policy")]
    UnknownNeighbour {
        /// Whose limit.
        type_name: String,
        /// For what.
        neighbour: String,
    },
    /// Limits on an exclusive type mean nothing: it is never a hub.
    #[error("type `{0}` is exclusive and cannot have fan-out limits")]
    ExclusiveWithLimits(String),
    /// Another pattern than zeros and dashes.
    #[error("`blocked_regex` must be `{expected}` or absent, got `{0}`", expected = ZEROS_AND_DASHES)]
    UnsupportedPattern(String),
    /// Out of bounds.
    #[error("`max_cluster` must be 2 to 1,000, got {0}")]
    MaxCluster(usize),
}

/// The one pattern that a policy may name.
const ZEROS_AND_DASHES: &str = "^[0\\-]*$";

/// Identifiers of one component that are ever weighed at once. Source: none outside; bounds the time of one recompute.
const MAX_CLUSTER: usize = 1_000;

impl Default for Policy {
    /// What applies where no policy file is given.
    fn default() -> Self {
        let rule = |name: &str, priority, exclusive, fanout: &[(u16, u32)], login_fanout| TypeRule {
            name: name.to_owned(),
            priority,
            exclusive,
            fanout: fanout.iter().map(|(neighbour, max)| (TypeIndex(*neighbour), *max)).collect(),
            login_fanout,
        };
        // Indices follow this order: 0 user_id, 1 shopify_customer_id, 2 email, 3 phone, 4 device_id, 5 anonymous_id.
        let rules = vec![
            rule("user_id", 1, true, &[], None),
            rule("shopify_customer_id", 2, true, &[], None),
            rule("email", 3, false, &[(0, 5), (1, 5), (5, 200)], Some(5)),
            rule("phone", 4, false, &[(0, 5), (1, 5), (2, 5)], Some(5)),
            rule("device_id", 5, false, &[(0, 3), (2, 5)], Some(3)),
            rule("anonymous_id", 6, false, &[(0, 3), (1, 3), (2, 5)], Some(3)),
        ];
        // Segment's and PostHog's lists of values that broken sites send. Sources: Segment, "Identity Resolution Settings";
        // PostHog, "Identifying users", 2025-11.
        let blocked = [
            "undefined",
            "null",
            "nil",
            "none",
            "nan",
            "anonymous",
            "guest",
            "unknown",
            "not_authenticated",
            "true",
            "false",
            "id",
            "distinct_id",
            "distinctid",
            "test",
            "[object object]",
            "-1",
            "0",
            "",
            "email",
        ];
        Self {
            by_name: index(&rules),
            rules,
            blocked_exact: blocked.into_iter().map(str::to_owned).collect(),
            blocked_values: HashMap::new(),
            max_cluster: MAX_CLUSTER,
        }
    }
}

fn index(rules: &[TypeRule]) -> HashMap<String, TypeIndex> {
    // A policy has a handful of types; 65,536 would be another program.
    rules.iter().zip(0u16..).map(|(rule, n)| (rule.name.clone(), TypeIndex(n))).collect()
}

impl Policy {
    /// Reads a JSON policy file.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid policy.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Unreadable { path: path.display().to_string(), source })?;
        Self::new(serde_json::from_str(&text).map_err(PolicyError::Malformed)?)
    }

    /// Checks a document.
    ///
    /// # Errors
    /// It contradicts itself.
    pub fn new(document: PolicyDocument) -> Result<Self, PolicyError> {
        if !(2..=MAX_CLUSTER).contains(&document.max_cluster) {
            return Err(PolicyError::MaxCluster(document.max_cluster));
        }
        if let Some(pattern) = document.blocked_regex.filter(|pattern| pattern != ZEROS_AND_DASHES) {
            return Err(PolicyError::UnsupportedPattern(pattern));
        }
        let by_name: HashMap<String, TypeIndex> =
            document.types.keys().zip(0u16..).map(|(name, n)| (name.clone(), TypeIndex(n))).collect();
        let mut rules = Vec::with_capacity(document.types.len());
        for (name, given) in document.types {
            if given.exclusive && !given.fanout.is_empty() {
                return Err(PolicyError::ExclusiveWithLimits(name));
            }
            let mut fanout = Vec::with_capacity(given.fanout.len());
            for (neighbour, max) in &given.fanout {
                let Some(index) = by_name.get(neighbour) else {
                    return Err(PolicyError::UnknownNeighbour {
                        type_name: name,
                        neighbour: neighbour.clone(),
                    });
                };
                fanout.push((*index, *max));
            }
            let login_fanout = given.fanout.get("user_id").copied();
            rules.push(TypeRule {
                name,
                priority: given.priority,
                exclusive: given.exclusive,
                fanout,
                login_fanout,
            });
        }
        Ok(Self {
            rules,
            by_name,
            blocked_exact: document.blocked_exact_ci.iter().map(|value| value.to_lowercase()).collect(),
            blocked_values: document.blocked.into_iter().map(|(t, v)| (t, v.into_iter().collect())).collect(),
            max_cluster: document.max_cluster,
        })
    }

    /// Whether a normalised value of a type never counts.
    #[must_use]
    pub fn is_blocked(&self, type_name: &str, normalised: &str) -> bool {
        let bare = normalised.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\'');
        bare.bytes().all(|b| b == b'0' || b == b'-')
            || self.blocked_exact.contains(&bare.to_lowercase())
            || self.blocked_values.get(type_name).is_some_and(|values| values.contains(normalised))
    }

    /// Most identifiers of one component before its weakest types stop linking.
    #[must_use]
    pub fn max_cluster(&self) -> usize {
        self.max_cluster
    }
}

/// The policy's types and those that a batch brought besides.
#[derive(Debug, Clone)]
pub struct Types {
    policy: Arc<Policy>,
    extra: Vec<String>,
}

impl Types {
    /// The policy's types.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, extra: Vec::new() }
    }

    /// The number of a type, given on first sight where the policy does not name it.
    pub fn intern(&mut self, name: &str) -> TypeIndex {
        if let Some(known) = self.policy.by_name.get(name) {
            return *known;
        }
        let place = self.extra.iter().position(|n| n == name).unwrap_or_else(|| {
            self.extra.push(name.to_owned());
            self.extra.len() - 1
        });
        TypeIndex(u16::try_from(self.policy.rules.len() + place).unwrap_or(u16::MAX))
    }

    /// The type's name.
    #[must_use]
    pub fn name(&self, index: TypeIndex) -> &str {
        match self.rule(index) {
            Some(rule) => &rule.name,
            None => self.extra.get(usize::from(index.0) - self.policy.rules.len()).map_or("", String::as_str),
        }
    }

    /// 1 is the strongest.
    #[must_use]
    pub fn priority(&self, index: TypeIndex) -> u16 {
        self.rule(index).map_or(LOGIN_PRIORITY, |rule| rule.priority)
    }

    /// Whether a profile holds at most one value of it.
    #[must_use]
    pub fn is_exclusive(&self, index: TypeIndex) -> bool {
        self.rule(index).is_none_or(|rule| rule.exclusive)
    }

    /// Whether it names a person, not just a device.
    #[must_use]
    pub fn is_person(&self, index: TypeIndex) -> bool {
        self.rule(index).is_none_or(|rule| rule.exclusive || rule.name == "email" || rule.name == "phone")
    }

    /// Most distinct neighbours of type `neighbour` that one value of type `of` may have; `None`: any number.
    #[must_use]
    pub fn limit(&self, of: TypeIndex, neighbour: TypeIndex) -> Option<u32> {
        let rule = self.rule(of)?;
        if self.rule(neighbour).is_none() {
            return rule.login_fanout;
        }
        rule.fanout.iter().find(|(index, _)| *index == neighbour).map(|(_, max)| *max)
    }

    /// Sort key: the strongest identifier first.
    #[must_use]
    pub fn strength(&self, index: TypeIndex, mac: ValueMac) -> (u16, ValueMac) {
        (self.priority(index), mac)
    }

    /// See [`Policy::max_cluster`].
    #[must_use]
    pub fn max_cluster(&self) -> usize {
        self.policy.max_cluster
    }

    fn rule(&self, index: TypeIndex) -> Option<&TypeRule> {
        self.policy.rules.get(usize::from(index.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_values_are_blocked_in_any_dress() {
        let policy = Policy::default();
        for value in [
            "undefined",
            "\"NULL\"",
            " Null ",
            "00000000-0000-0000-0000-000000000000",
            "",
            "0",
            "'guest'",
            "-",
        ] {
            assert!(policy.is_blocked("user_id", value), "{value:?}");
        }
        for value in ["u-1", "4711", "0a", "nullable"] {
            assert!(!policy.is_blocked("user_id", value), "{value:?}");
        }
    }

    #[test]
    fn a_type_without_a_rule_is_an_exclusive_login_id_of_its_source() {
        let mut types = Types::new(Arc::new(Policy::default()));
        let (app, anonymous, user) =
            (types.intern("app_user_id"), types.intern("anonymous_id"), types.intern("user_id"));
        assert_eq!(types.intern("app_user_id"), app);
        assert_eq!(types.name(app), "app_user_id");
        assert!(types.is_exclusive(app) && types.is_person(app));
        assert_eq!(types.priority(app), 2);
        assert_eq!(types.limit(anonymous, app), types.limit(anonymous, user));
        assert_eq!(types.limit(app, anonymous), None);
    }

    #[test]
    fn a_contradictory_policy_is_refused() {
        let parse = |text: &str| Policy::new(serde_json::from_str(text).unwrap());
        let unknown = r#"{"types":{"email":{"priority":1,"fanout":{"mail":2}}},"blocked_exact_ci":[],"max_cluster":10}"#;
        assert!(matches!(parse(unknown), Err(PolicyError::UnknownNeighbour { .. })));
        let pattern = r#"{"types":{},"blocked_exact_ci":[],"blocked_regex":".*","max_cluster":10}"#;
        assert!(matches!(parse(pattern), Err(PolicyError::UnsupportedPattern(_))));
        let cluster = r#"{"types":{},"blocked_exact_ci":[],"max_cluster":5000}"#;
        assert!(matches!(parse(cluster), Err(PolicyError::MaxCluster(5_000))));
        let limits = r#"{"types":{"user_id":{"priority":1,"exclusive":true,"fanout":{"user_id":2}}},"blocked_exact_ci":[],"max_cluster":10}"#;
        assert!(matches!(parse(limits), Err(PolicyError::ExclusiveWithLimits(_))));
    }
}
