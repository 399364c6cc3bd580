//! Identifiers as the domain sees them: a type, a keyed hash and the key derived from it. Clear values end here.
//!
//! The hash covers the type's name, so it alone names an identifier within its workspace.

use std::collections::HashMap;
use std::sync::Arc;

use tracklayer_event::identifiers;
use tracklayer_ids::{SubjectKey, WorkspaceKey};

use crate::policy::{Policy, TypeIndex, Types};

/// Most identifiers of one event that count; the strongest do.
pub const MAX_PER_EVENT: usize = 8;

/// Keyed hash of an identifier's type and normalised value: what is stored instead of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueMac(pub [u8; 32]);

/// One usable identifier of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identifier {
    /// Its type, valid with the [`Types`] that made it.
    pub type_index: TypeIndex,
    /// Its hash.
    pub mac: ValueMac,
    /// Its seed key: what consent files its signals under.
    pub key: SubjectKey,
}

/// An identifier as it came: type and value.
#[derive(Clone)]
pub struct RawIdentifier {
    /// Name of the type.
    pub type_name: String,
    /// The value; personal data.
    pub value: tracklayer_ids::Pii<String>,
}

/// Turns the raw identifiers of one batch into hashes, each distinct (type, value) once.
pub struct Hasher {
    key: WorkspaceKey,
    policy: Arc<Policy>,
    types: Types,
    seen: HashMap<(TypeIndex, String), Option<Identifier>>,
    dropped: u64,
}

impl Hasher {
    /// For one workspace and one batch.
    #[must_use]
    pub fn new(key: WorkspaceKey, policy: Arc<Policy>) -> Self {
        Self { key, types: Types::new(Arc::clone(&policy)), policy, seen: HashMap::new(), dropped: 0 }
    }

    /// The usable identifiers of one event, distinct, strongest first, at most [`MAX_PER_EVENT`]. Values that cannot be
    /// one of their type and values that policy blocks are left out.
    pub fn observe(&mut self, raw: &[RawIdentifier]) -> Vec<Identifier> {
        let mut identifiers: Vec<Identifier> = raw.iter().filter_map(|r| self.identifier(r)).collect();
        identifiers.sort_by_key(|i| self.types.strength(i.type_index, i.mac));
        identifiers.dedup_by_key(|i| i.mac);
        identifiers.truncate(MAX_PER_EVENT);
        identifiers
    }

    /// One identifier, or nothing if it is not usable.
    pub fn identifier(&mut self, raw: &RawIdentifier) -> Option<Identifier> {
        let type_index = self.types.intern(&raw.type_name);
        let (key, policy, dropped) = (&self.key, &self.policy, &mut self.dropped);
        // Looked up by the raw value, so that a value which occurs in many events of a batch is normalised once.
        let made = self.seen.entry((type_index, raw.value.expose().clone())).or_insert_with(|| {
            let normalised = normalise(&raw.type_name, raw.value.expose())?;
            if policy.is_blocked(&raw.type_name, &normalised) {
                return None;
            }
            let mac = key.value_mac(&raw.type_name, &normalised);
            Some(Identifier { type_index, mac: ValueMac(mac), key: key.seed(&raw.type_name, &mac) })
        });
        *dropped += u64::from(made.is_none());
        *made
    }

    /// How many identifiers were not usable so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The types that were met.
    #[must_use]
    pub fn into_types(self) -> Types {
        self.types
    }
}

/// One spelling for each identifier: the same functions that ingest files its signals under.
fn normalise(type_name: &str, value: &str) -> Option<String> {
    match type_name {
        identifiers::EMAIL => identifiers::email(value),
        identifiers::PHONE => identifiers::phone(value),
        _ => identifiers::id(value),
    }
}

#[cfg(test)]
mod tests {
    use tracklayer_ids::{MasterKey, WorkspaceId};

    use super::*;

    fn raw(type_name: &str, value: &str) -> RawIdentifier {
        RawIdentifier { type_name: type_name.to_owned(), value: value.to_owned().into() }
    }

    fn hasher() -> Hasher {
        Hasher::new(MasterKey::new([1; 32]).workspace(WorkspaceId(1)), Arc::new(Policy::default()))
    }

    #[test]
    fn identifiers_come_strongest_first_and_once() {
        let mut hasher = hasher();
        let seen = hasher.observe(&[
            raw("anonymous_id", "a-1"),
            raw("email", "Ann@Example.org "),
            raw("email", "ann@example.org"),
            raw("user_id", "u-1"),
            raw("user_id", "undefined"),
        ]);
        let key = MasterKey::new([1; 32]).workspace(WorkspaceId(1));
        let expected = [("user_id", "u-1"), ("email", "ann@example.org"), ("anonymous_id", "a-1")];
        assert_eq!(seen.iter().map(|i| i.key).collect::<Vec<_>>(), expected.map(|(t, v)| key.subject(t, v)));
        assert_eq!(hasher.dropped(), 1);
    }

    #[test]
    fn above_eight_the_strongest_count() {
        let mut many: Vec<RawIdentifier> = (0..9).map(|n| raw("anonymous_id", &format!("a-{n}"))).collect();
        many.push(raw("user_id", "u-1"));
        let mut hasher = hasher();
        let seen = hasher.observe(&many);
        assert_eq!(seen.len(), MAX_PER_EVENT);
        assert_eq!(seen[0].key, MasterKey::new([1; 32]).workspace(WorkspaceId(1)).subject("user_id", "u-1"));
        assert!(seen[1..].windows(2).all(|w| w[0].mac < w[1].mac));
    }
}
