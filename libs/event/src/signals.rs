//! One number for everything about an event that consent and identity must not miss.
//!
//! A repeat of a message_id may be answered without storing it only if it brings nothing new: same signals, same
//! identifiers. The hash covers more than these (the whole context), so that it can only err towards storing.

use tracklayer_proto::event::v1::Event;
use xxhash_rust::xxh3::Xxh3;

/// Hash of an event's consent signals, identifiers, traits and context. Not stable over changes of the event's fields
/// beyond the life of a dedup claim.
#[must_use]
pub fn signals_hash(event: &Event) -> u64 {
    let mut hasher = Xxh3::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(event.anonymous_id.as_bytes());
    part(event.user_id.as_bytes());
    part(event.previous_id.as_bytes());
    part(event.group_id.as_bytes());
    part(&event.traits_json);
    part(&event.context_json);
    if let Some(consent) = &event.consent {
        part(&prost::Message::encode_to_vec(consent));
    }
    if let Some(click_ids) = &event.click_ids {
        // The time of first sight differs between two tries of one sending.
        for id in [
            &click_ids.fbclid,
            &click_ids.fbc,
            &click_ids.fbp,
            &click_ids.gclid,
            &click_ids.gbraid,
            &click_ids.wbraid,
            &click_ids.ttclid,
            &click_ids.ttp,
            &click_ids.ga_client_id,
        ] {
            part(id.as_bytes());
        }
    }
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracklayer_proto::event::v1::ConsentSignals;

    #[test]
    fn another_signal_or_identifier_is_another_hash_and_another_time_is_not() {
        let event = Event { user_id: "u".into(), ..Event::default() };
        let base = signals_hash(&event);
        let gpc = Event {
            consent: Some(ConsentSignals { gpc: true, ..ConsentSignals::default() }),
            ..event.clone()
        };
        let swapped = Event { user_id: String::new(), anonymous_id: "u".into(), ..Event::default() };
        let later = Event { client_retry: 1, sent_at: Some(prost_types::Timestamp::default()), ..event };
        assert_ne!(base, signals_hash(&gpc));
        assert_ne!(base, signals_hash(&swapped));
        assert_eq!(base, signals_hash(&later));
    }
}
