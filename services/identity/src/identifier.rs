//! Identifiers as the domain sees them: a type, a keyed hash and the key derived from it. Clear values end here.
//!
//! The hash covers the type's name, so it alone names an identifier within its workspace.

use std::collections::HashMap;
use std::sync::Arc;

use tracklayer_event::identifiers;
use tracklayer_ids::{SubjectKey, WorkspaceKey};

use crate::memory::FastMap;
use crate::policy::{Policy, TypeIndex, Types};

/// Most identifiers of one event that count; the strongest do.
pub const MAX_PER_EVENT: usize = 8;

/// Keyed hash of an identifier's type and normalised value: what is stored instead of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueMac(pub [u8; 32]);

impl ValueMac {
    /// Its first half: 128 bits, which no two identifiers share.
    #[must_use]
    pub fn half(&self) -> [u8; 16] {
        std::array::from_fn(|n| self.0[n])
    }
}

/// A keyed hash needs no other: nobody outside can choose one.
impl std::hash::Hash for ValueMac {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from_le_bytes(std::array::from_fn(|n| self.0[n])));
    }
}

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
    /// By the raw value, so that one that occurs in many events of a batch is normalised once. Whoever sends events chooses
    /// it, so this is hashed with a secret.
    seen: FastMap<TypeIndex, HashMap<String, Option<u32>>>,
    places: FastMap<ValueMac, u32>,
    distinct: Vec<Identifier>,
    dropped: u64,
}

impl Hasher {
    /// For one workspace and one batch.
    #[must_use]
    pub fn new(key: WorkspaceKey, policy: Arc<Policy>) -> Self {
        Self {
            key,
            types: Types::new(Arc::clone(&policy)),
            policy,
            seen: FastMap::default(),
            places: FastMap::default(),
            distinct: Vec::new(),
            dropped: 0,
        }
    }

    /// The usable identifiers of one event, distinct, strongest first, at most [`MAX_PER_EVENT`]. Values that cannot be
    /// one of their type and values that policy blocks are left out.
    pub fn observe(&mut self, raw: &[RawIdentifier]) -> Vec<Identifier> {
        let mut places = Vec::new();
        self.observe_into(raw, &mut places);
        places.into_iter().map(|place| self.distinct[place as usize]).collect()
    }

    /// The same, as places among the [distinct](Self::end) ones of the batch, behind those of other events.
    pub fn observe_into(&mut self, raw: &[RawIdentifier], places: &mut Vec<u32>) {
        let from = places.len();
        for identifier in raw {
            // An event has few: looking through them costs less than sorting them twice.
            if let Some(place) = self.place(identifier).filter(|place| !places[from..].contains(place)) {
                places.push(place);
            }
        }
        let (types, distinct) = (&self.types, &self.distinct);
        places[from..].sort_unstable_by_key(|place| {
            let identifier = &distinct[*place as usize];
            types.strength(identifier.type_index, identifier.mac)
        });
        places.truncate(from + MAX_PER_EVENT);
    }

    /// One identifier, or nothing if it is not usable.
    pub fn identifier(&mut self, raw: &RawIdentifier) -> Option<Identifier> {
        self.place(raw).map(|place| self.distinct[place as usize])
    }

    /// How many identifiers were not usable so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The distinct identifiers that were met, and their types.
    #[must_use]
    pub fn end(self) -> (Vec<Identifier>, Types) {
        (self.distinct, self.types)
    }

    /// The types that were met.
    #[must_use]
    pub fn into_types(self) -> Types {
        self.types
    }

    fn place(&mut self, raw: &RawIdentifier) -> Option<u32> {
        let type_index = self.types.intern(&raw.type_name);
        let of_type = self.seen.entry(type_index).or_default();
        let place = if let Some(known) = of_type.get(raw.value.expose().as_str()) {
            *known
        } else {
            let usable = normalise(&raw.type_name, raw.value.expose())
                .filter(|normalised| !self.policy.is_blocked(&raw.type_name, normalised));
            let place = usable.map(|normalised| {
                let mac = self.key.value_mac(&raw.type_name, &normalised);
                *self.places.entry(ValueMac(mac)).or_insert_with(|| {
                    let key = self.key.seed(&raw.type_name, &mac);
                    self.distinct.push(Identifier { type_index, mac: ValueMac(mac), key });
                    u32::try_from(self.distinct.len() - 1).unwrap_or(u32::MAX)
                })
            });
            of_type.insert(raw.value.expose().clone(), place);
            place
        };
        self.dropped += u64::from(place.is_none());
        place
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
