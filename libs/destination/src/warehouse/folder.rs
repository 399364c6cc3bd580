//! The folder of an event's file: `day=2026-11-29/event=order_completed`, as Hive, DuckDB, Spark and Athena read partitions.
//!
//! The day is that of receipt, in UTC. By the event's own time a late event would change a day that somebody has read already; by
//! receipt a day is over once it is over, for good. A reader who wants the event's own time filters by the column and reads
//! a day more on either side.
//!
//! Readers know where an event is by its name: what a folder is called is not changed.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::deliverable::{Deliverable, instant};
use crate::mapping::map_name;

/// Most letters of a name in a path, the mark behind it apart.
const MAX_LETTERS: usize = 64;

/// The folder, relative to the connection's place.
#[must_use]
pub fn of(event: &Deliverable) -> String {
    let received = event.event.received_at.as_ref().and_then(instant).unwrap_or(Timestamp::UNIX_EPOCH);
    let day = received.strftime("%Y-%m-%d");
    format!("day={day}/event={}", segment(map_name(&event.event)))
}

/// An event's name as one segment of a path: small letters, digits and `_`. Names that differ only by case, spaces, `-`, `_`, `.`
/// and `:` share a segment; where any other letter was lost, eight digits of the name's hash tell it from others. The exact name is a
/// column. Never empty, never more than 73 bytes, never anything that a file system or a shell reads another way.
#[must_use]
pub fn segment(name: &str) -> String {
    let mut text = String::new();
    let mut lost = name.is_empty();
    for letter in name.trim().chars() {
        match letter {
            'a'..='z' | '0'..='9' => text.push(letter),
            'A'..='Z' => text.push(letter.to_ascii_lowercase()),
            other => {
                lost |= !matches!(other, ' ' | '-' | '_' | '.' | ':');
                if !text.ends_with('_') && !text.is_empty() {
                    text.push('_');
                }
            }
        }
    }
    let trimmed = text.trim_end_matches('_');
    lost |= trimmed.is_empty() || trimmed.len() > MAX_LETTERS;
    // All of it is ASCII: any place is between two letters.
    let short = &trimmed[..trimmed.len().min(MAX_LETTERS)];
    if !lost {
        return short.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..4]);
    if short.is_empty() { format!("unnamed-{hash}") } else { format!("{short}-{hash}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_the_segment_that_it_always_had() {
        for (name, expected) in [
            ("Order Completed", "order_completed"),
            ("order-completed", "order_completed"),
            ("checkout.step:2", "checkout_step_2"),
            ("page", "page"),
            ("../../etc/passwd", "etc_passwd-3754d6cb"),
            ("..", "unnamed-5ec1f7e7"),
            ("", "unnamed-e3b0c442"),
            ("a=b", "a_b-42144f39"),
            ("a/b", "a_b-c14cddc0"),
            ("Заказ", "unnamed-3648b2d2"),
            ("Größe\0", "gr_e-00000663"),
        ] {
            assert_eq!(segment(name), expected, "{name:?}");
        }
        let long = "x".repeat(1_000);
        assert_eq!(segment(&long).len(), MAX_LETTERS + 9);
        assert_ne!(segment(&long), segment(&"x".repeat(999)));
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(name in any::<String>()) {
            let segment = segment(&name);
            prop_assert!((1..=MAX_LETTERS + 9).contains(&segment.len()), "{segment}");
            let plain = segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
            prop_assert!(plain && !segment.starts_with(['_', '-']), "{segment}");
        }
    }
}
