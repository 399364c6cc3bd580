//! Which categories each source's banner names, learned from the maps that pass by.
//!
//! Many banners list only what was allowed, and a category that a map leaves out counts as refused: turning advertising off
//! then looks like a map that refuses nothing. So a map may narrow if it lacks a name that the source's maps were seen
//! with. Before enough of them were seen, and where they name more than a banner has, every map may. Doubt costs a line in
//! the consent log, and nothing else.
//!
//! Source of the rule: Segment, Consent in Segment Connections, "a category that is missing is false"; 2025-11.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tracklayer_ids::SourceId;
use tracklayer_proto::event::v1::CategoryPreference;

/// Maps of a source before its names are believed to be known: by then somebody will have allowed everything.
const LEARNING_MAPS: u32 = 1_000;
/// Most names of one source that are remembered.
const MAX_NAMES: usize = 200;
/// Longest name that is one; consent cannot read a longer one.
const MAX_NAME_BYTES: usize = 256;

/// What was learned. Sources are few, so they are never forgotten.
#[derive(Debug, Default)]
pub struct Vocabulary {
    by_source: Mutex<HashMap<SourceId, Learned>>,
}

#[derive(Debug, Default)]
struct Learned {
    maps: u32,
    /// Hashes of the names, as the banner writes them.
    names: HashSet<u64>,
    overflown: bool,
}

impl Vocabulary {
    /// Learns from a map, and says whether it may leave out a category that an earlier one allowed.
    pub fn may_lack_one(&self, source: SourceId, categories: &[CategoryPreference]) -> bool {
        let mut by_source = self.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let learned = by_source.entry(source).or_default();
        let learning = learned.maps < LEARNING_MAPS;
        learned.maps = learned.maps.saturating_add(1);
        let mut named = 0;
        for category in categories {
            let hash = xxhash_rust::xxh3::xxh3_64(category.category.as_bytes());
            let known = learned.names.contains(&hash);
            if !known && learned.names.len() < MAX_NAMES && category.category.len() <= MAX_NAME_BYTES {
                learned.names.insert(hash);
                named += 1;
            } else if known {
                named += 1;
            } else {
                learned.overflown = true;
            }
        }
        learning || learned.overflown || named < learned.names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(names: &[&str]) -> Vec<CategoryPreference> {
        names.iter().map(|name| CategoryPreference { category: (*name).to_owned(), allowed: true }).collect()
    }

    /// A vocabulary that has seen enough of a source.
    fn learned(source: SourceId, names: &[&str]) -> Vocabulary {
        let vocabulary = Vocabulary::default();
        for _ in 0..LEARNING_MAPS {
            assert!(vocabulary.may_lack_one(source, &map(names)), "still learning");
        }
        vocabulary
    }

    #[test]
    fn a_map_that_leaves_out_a_known_category_may_narrow_and_a_whole_one_not() {
        let vocabulary = learned(SourceId(1), &["C0001", "C0004"]);
        assert!(!vocabulary.may_lack_one(SourceId(1), &map(&["C0004", "C0001"])));
        assert!(vocabulary.may_lack_one(SourceId(1), &map(&["C0001"])));
        assert!(vocabulary.may_lack_one(SourceId(1), &map(&[])));
        assert!(vocabulary.may_lack_one(SourceId(2), &map(&["C0001", "C0004"])), "another banner");
        // The banner has a new category: whoever does not name it may have refused it.
        assert!(!vocabulary.may_lack_one(SourceId(1), &map(&["C0001", "C0004", "C0005"])));
        assert!(vocabulary.may_lack_one(SourceId(1), &map(&["C0001", "C0004"])));
    }

    #[test]
    fn where_names_are_without_end_or_no_names_every_map_may_narrow() {
        let names: Vec<String> = (0..=MAX_NAMES).map(|n| format!("c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let vocabulary = learned(SourceId(1), &names[..1]);
        assert!(vocabulary.may_lack_one(SourceId(1), &map(&names)));
        assert!(vocabulary.may_lack_one(SourceId(1), &map(&names)), "it is too many for good");
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        assert!(learned(SourceId(1), &["a"]).may_lack_one(SourceId(1), &map(&["a", &long])));
    }
}
