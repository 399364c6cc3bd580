//! The claim that dedup keeps in Redis for a message_id: the position of its first occurrence.
//!
//! An event is a duplicate if and only if the key holds *another* position. Whoever handles an event again after a crash
//! finds its own position and goes on, so a crash can never turn a claim into a loss. A commerce event of a source so
//! configured claims a second key; its claim then names that key under both.

use tracklayer_ids::{Position, SourceId, WorkspaceId};
use tracklayer_proto::event::v1::Event;

/// Bytes of an encoded claim, and of one that names a commerce key.
const ENCODED_BYTES: usize = 42;
const COMMERCE_BYTES: usize = 66;
const FORMAT: u8 = 1;
const COMMERCE_FORMAT: u8 = 2;
const KEY_PREFIX: &[u8] = b"tl:c:";
const TWINS_PREFIX: &[u8] = b"tl:t:";

/// What a claim says about the first occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Where it stands.
    pub position: Position,
    /// Its source.
    pub source: SourceId,
    /// Its channel, as event.v1 numbers them.
    pub channel: u8,
    /// Hash of type and name, case and spaces folded: the same id under another name is no duplicate.
    pub fingerprint: u64,
    /// Hash of its consent signals and identifiers: a repeat with other signals must be stored.
    pub signals: u64,
    /// The second key, of a commerce event whose source is so configured.
    pub commerce: Option<CommerceClaim>,
}

/// The second key of a claim. It stands in what the first key holds too, so that one message_id of two orders is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommerceClaim {
    /// Hash of workspace and commerce key: what the Redis key ends in.
    pub hash: u128,
    /// Hash of the first occurrence's message_id: who finds it by the second key has another.
    pub message: u64,
}

/// Redis key of a message_id: a prefix and a 16-byte hash.
#[must_use]
pub fn claim_key(workspace: WorkspaceId, message_id: &str) -> Vec<u8> {
    hashed_key(&[&workspace.0.to_be_bytes(), message_id.as_bytes()])
}

/// Whether a Redis key is that of a claim.
#[must_use]
pub fn is_claim_key(key: &[u8]) -> bool {
    key.starts_with(KEY_PREFIX)
}

/// Redis key of a message_id that was used for two different events: claimed per source and fingerprint.
#[must_use]
pub fn claim_key_per_source(
    workspace: WorkspaceId,
    source: SourceId,
    fingerprint: u64,
    message_id: &str,
) -> Vec<u8> {
    hashed_key(&[
        &workspace.0.to_be_bytes(),
        b"\x00source",
        &source.0.to_be_bytes(),
        &fingerprint.to_be_bytes(),
        message_id.as_bytes(),
    ])
}

/// Redis key under which stands who has brought twins of a winner: a prefix and a 16-byte hash. It is no claim, and nothing but the
/// twin audit reads it.
#[must_use]
pub fn twins_key(workspace: WorkspaceId, winner: Position) -> Vec<u8> {
    let hash = hash(&[
        &workspace.0.to_be_bytes(),
        &winner.generation.0.to_be_bytes(),
        &winner.partition.0.to_be_bytes(),
        &winner.offset.0.to_be_bytes(),
    ]);
    [TWINS_PREFIX, &hash.to_be_bytes()].concat()
}

/// Hash of a commerce key: see [`CommerceClaim::hash`].
#[must_use]
pub fn commerce_hash(workspace: WorkspaceId, commerce_key: &str) -> u128 {
    hash(&[&workspace.0.to_be_bytes(), b"\x00commerce", commerce_key.as_bytes()])
}

/// Hash under which a message_id is indexed.
#[must_use]
pub fn message_hash(message_id: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(message_id.as_bytes())
}

fn hashed_key(parts: &[&[u8]]) -> Vec<u8> {
    key_of(hash(parts))
}

fn key_of(hash: u128) -> Vec<u8> {
    [KEY_PREFIX, &hash.to_be_bytes()].concat()
}

fn hash(parts: &[&[u8]]) -> u128 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

impl CommerceClaim {
    /// Of an event that claims a commerce key.
    #[must_use]
    pub fn of(workspace: WorkspaceId, commerce_key: &str, message_id: &str) -> Self {
        Self { hash: commerce_hash(workspace, commerce_key), message: message_hash(message_id) }
    }

    /// Its Redis key.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        key_of(self.hash)
    }

    /// In place of [`claim_key`] where the message_id was used for another event: claimed per source, fingerprint and this key.
    #[must_use]
    pub fn key_per_source(
        &self,
        workspace: WorkspaceId,
        source: SourceId,
        fingerprint: u64,
        message_id: &str,
    ) -> Vec<u8> {
        hashed_key(&[
            &workspace.0.to_be_bytes(),
            b"\x00source",
            &source.0.to_be_bytes(),
            &fingerprint.to_be_bytes(),
            &self.hash.to_be_bytes(),
            message_id.as_bytes(),
        ])
    }
}

/// Hash of an event's type and name, case and spaces folded.
#[must_use]
pub fn fingerprint(event_type: i32, name: &str) -> u64 {
    let mut folded = String::with_capacity(name.len() + 4);
    folded.push_str(&event_type.to_string());
    folded.push('\u{1f}');
    for word in name.split_whitespace() {
        folded.extend(word.chars().flat_map(char::to_lowercase));
    }
    xxhash_rust::xxh3::xxh3_64(folded.as_bytes())
}

/// Hash of what a repeat may add: consent signals, identifiers and traits. A repeat with another hash is stored, so that
/// resolve can record what it brings. Times, retry counts and traces are left out: a client's honest repeat changes them.
#[must_use]
pub fn signals_hash(event: &Event) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let consent = event.consent.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
    let parts: [&[u8]; 7] = [
        &consent,
        event.anonymous_id.as_bytes(),
        event.user_id.as_bytes(),
        event.previous_id.as_bytes(),
        event.group_id.as_bytes(),
        &event.traits_json,
        &event.context_json,
    ];
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.digest()
}

impl Claim {
    /// The claim of an event at a position.
    #[must_use]
    pub fn of(event: &Event, position: Position) -> Self {
        Self {
            position,
            source: SourceId(event.source_id),
            channel: u8::try_from(event.channel).unwrap_or(0),
            fingerprint: fingerprint(event.r#type, &event.name),
            signals: signals_hash(event),
            commerce: None,
        }
    }

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (format, room) =
            self.commerce.map_or((FORMAT, ENCODED_BYTES), |_| (COMMERCE_FORMAT, COMMERCE_BYTES));
        let mut bytes = Vec::with_capacity(room);
        bytes.push(format);
        bytes.extend_from_slice(&self.position.generation.0.to_be_bytes());
        bytes.extend_from_slice(&self.position.partition.0.to_be_bytes());
        bytes.extend_from_slice(&self.position.offset.0.to_be_bytes());
        bytes.extend_from_slice(&self.source.0.to_be_bytes());
        bytes.push(self.channel);
        bytes.extend_from_slice(&self.fingerprint.to_be_bytes());
        bytes.extend_from_slice(&self.signals.to_be_bytes());
        if let Some(commerce) = self.commerce {
            bytes.extend_from_slice(&commerce.hash.to_be_bytes());
            bytes.extend_from_slice(&commerce.message.to_be_bytes());
        }
        bytes
    }

    /// From bytes; `None` if they are not a claim of a known format.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (head, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*head)
        }
        let mut rest = bytes;
        let [format] = take(&mut rest)?;
        if format != FORMAT && format != COMMERCE_FORMAT {
            return None;
        }
        let position = Position::new(
            u32::from_be_bytes(take(&mut rest)?),
            u32::from_be_bytes(take(&mut rest)?),
            u64::from_be_bytes(take(&mut rest)?),
        );
        Some(Self {
            position,
            source: SourceId(i64::from_be_bytes(take(&mut rest)?)),
            channel: take::<1>(&mut rest)?[0],
            fingerprint: u64::from_be_bytes(take(&mut rest)?),
            signals: u64::from_be_bytes(take(&mut rest)?),
            commerce: match format {
                COMMERCE_FORMAT => Some(CommerceClaim {
                    hash: u128::from_be_bytes(take(&mut rest)?),
                    message: u64::from_be_bytes(take(&mut rest)?),
                }),
                _ => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_encoding_and_nothing_else_decodes() {
        let claim = Claim {
            position: Position::new(1, 3, 99),
            source: SourceId(7),
            channel: 1,
            fingerprint: 5,
            signals: 6,
            commerce: None,
        };
        assert_eq!(Claim::decode(&claim.encode()), Some(claim));
        let commerce = CommerceClaim::of(WorkspaceId(1), "order_completed:A-1", "m-1");
        let of_order = Claim { commerce: Some(commerce), ..claim };
        assert_eq!(Claim::decode(&of_order.encode()), Some(of_order));
        assert_eq!(Claim::decode(b"1"), None);
        assert_eq!(Claim::decode(&[2; 42]), None);
        assert_eq!(Claim::decode(&[3; 66]), None);
    }

    /// A script of delivery's reads a claim by these places, and claims outlive a release.
    #[test]
    fn the_bytes_of_a_claim_stand_where_they_always_stood() {
        let claim = Claim {
            position: Position::new(1, 2, 3),
            source: SourceId(4),
            channel: 5,
            fingerprint: 6,
            signals: 7,
            commerce: Some(CommerceClaim { hash: 8, message: 9 }),
        };
        let (number, long) = (|n: u8| [0, 0, 0, 0, 0, 0, 0, n], [0; 15]);
        let place = [&[0, 0, 0, 1, 0, 0, 0, 2][..], &number(3)].concat();
        let rest = [&number(4)[..], &[5], &number(6), &number(7)].concat();
        let plain = Claim { commerce: None, ..claim };
        assert_eq!(plain.encode(), [&[1][..], &place, &rest].concat());
        assert_eq!(claim.encode(), [&[2][..], &place, &rest, &long, &[8], &number(9)].concat());
    }

    #[test]
    fn a_key_of_an_order_is_no_key_of_a_message() {
        let order = |workspace, key| CommerceClaim::of(WorkspaceId(workspace), key, "m").key();
        assert_eq!(order(1, "order_completed:A").len(), 21);
        assert_ne!(order(1, "order_completed:A"), order(2, "order_completed:A"));
        assert_ne!(order(1, "order_completed:A"), order(1, "order_cancelled:A"));
        assert_ne!(order(1, "order_completed:A"), claim_key(WorkspaceId(1), "order_completed:A"));
    }

    #[test]
    fn case_and_spaces_do_not_make_another_event() {
        assert_eq!(fingerprint(1, "Order Completed"), fingerprint(1, " order  completed"));
        assert_ne!(fingerprint(1, "Order Completed"), fingerprint(1, "Order Refunded"));
        assert_ne!(fingerprint(1, ""), fingerprint(2, ""));
    }

    #[test]
    fn who_brought_twins_stands_under_no_claims_key_and_once_for_each_winner() {
        let key = |workspace, offset| twins_key(WorkspaceId(workspace), Position::new(1, 0, offset));
        assert!(!is_claim_key(&key(1, 0)));
        assert_eq!(key(1, 0).len(), 21);
        assert_ne!(key(1, 0), key(1, 1));
        assert_ne!(key(1, 0), key(2, 0));
    }

    #[test]
    fn equal_ids_of_two_workspaces_are_two_claims() {
        assert_ne!(claim_key(WorkspaceId(1), "m"), claim_key(WorkspaceId(2), "m"));
        assert_eq!(claim_key(WorkspaceId(1), "m").len(), 21);
    }
}
