//! Statements: what came with one event, one per channel, in the form in which it is stored.
//!
//! The text of a statement is canonical, so that equal statements have equal hashes; decoding goes through a bounded cache
//! by that hash, since the same banner state comes with thousands of events.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    policy::Policy,
    purpose::Purposes,
    signal::{CategoryStatement, Content, ExplicitChoice, Sections},
    strings::{MAX_STRING_BYTES, gcd::ConsentMode, gpp::GppString, tcf::TcString, usp::UsPrivacy},
};

/// Most categories of one banner that are read; a map with more is unreadable.
const MAX_CATEGORIES: usize = 256;
/// Longest name of a category, in bytes.
const MAX_CATEGORY_BYTES: usize = 256;

/// Where a statement comes from. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Channel {
    /// Global Privacy Control. Sticky: the first time counts, and nothing replaces it.
    Gpc = 1,
    /// A banner's categories.
    Categories = 2,
    /// A consent object that could not be parsed.
    ObjectUnreadable = 3,
    /// TC string.
    Tcf = 4,
    /// GPP string with its sections in force.
    Gpp = 5,
    /// US privacy string.
    UsPrivacy = 6,
    /// Google's consent mode.
    ConsentMode = 7,
    /// Explicit choices. Each act counts by itself.
    Explicit = 8,
}

/// First 16 bytes of SHA-256 over channel and text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 16]);

/// What came with one event, as captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// Who said that Global Privacy Control is on; `None` if nobody did.
    pub gpc: Option<String>,
    /// The banner's categories, if the object was there; an empty map says no to all.
    pub categories: Option<Vec<(String, bool)>>,
    /// Whether a person acted on the banner.
    pub interaction: bool,
    /// TC string, empty if absent.
    pub tc_string: String,
    /// GPP string, empty if absent.
    pub gpp_string: String,
    /// GPP sections in force, as the sender says.
    pub gpp_sid: Vec<i32>,
    /// US privacy string, empty if absent.
    pub us_privacy: String,
    /// Google's consent mode, empty if absent.
    pub gcd: String,
    /// The consent object was there and could not be parsed.
    pub unreadable: bool,
    /// An explicit choice and who took it down.
    pub explicit: Option<(ExplicitChoice, String)>,
}

/// A statement, ready to be stored and decided with.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its channel.
    pub channel: Channel,
    /// Its identity within the channel.
    pub hash: ContentHash,
    /// Its text, canonical.
    pub text: Arc<str>,
    /// What it says.
    pub content: Content,
    /// Who captured it: `sec_gpc_header`, `segment_context`, `cmp`, `gcd`, `gpp`, `privacy_center` ...
    pub provenance: Arc<str>,
}

#[derive(Serialize, Deserialize)]
struct StoredChoice {
    granted: Vec<String>,
    denied: Vec<String>,
    two_step: bool,
    conflict_acknowledged: bool,
}

impl Channel {
    /// The channel with this number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        [
            Self::Gpc,
            Self::Categories,
            Self::ObjectUnreadable,
            Self::Tcf,
            Self::Gpp,
            Self::UsPrivacy,
            Self::ConsentMode,
            Self::Explicit,
        ]
        .into_iter()
        .find(|channel| *channel as i16 == number)
    }
}

/// Decodes statements through a bounded cache.
#[derive(Debug, Clone)]
pub struct Decoder {
    policy: Arc<Policy>,
    decoded: moka::sync::Cache<ContentHash, Content>,
}

impl Decoder {
    /// With a cache of about so many bytes.
    #[must_use]
    pub fn new(policy: Arc<Policy>, cache_bytes: u64) -> Self {
        let decoded = moka::sync::Cache::builder().max_capacity(cache_bytes).weigher(weight).build();
        Self { policy, decoded }
    }

    /// The policy whose vocabulary it reads categories with.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What a stored statement says. Whatever cannot be decoded is unreadable, never absent.
    #[must_use]
    pub fn content(&self, channel: Channel, hash: ContentHash, text: &str) -> Content {
        if let Some(known) = self.decoded.get(&hash) {
            return known;
        }
        let content = decode(&self.policy, channel, text);
        self.decoded.insert(hash, content.clone());
        content
    }

    /// The statements of one event.
    #[must_use]
    pub fn statements(&self, captured: &Captured, at: Timestamp) -> Vec<Statement> {
        let mut all = Vec::new();
        if let Some(provenance) = &captured.gpc {
            all.push(self.statement(Channel::Gpc, "", provenance));
        }
        if captured.unreadable {
            all.push(self.statement(Channel::ObjectUnreadable, "", "segment_context"));
        }
        if let Some(categories) = &captured.categories {
            all.push(match categories_text(categories, captured.interaction) {
                Some(text) => self.statement(Channel::Categories, &text, "segment_context"),
                None => self.statement(Channel::ObjectUnreadable, "", "segment_context"),
            });
        }
        if !captured.tc_string.is_empty() {
            all.push(self.statement(Channel::Tcf, &storable(&captured.tc_string), "cmp"));
        }
        if !captured.gpp_string.is_empty() {
            let sids: Vec<String> = captured.gpp_sid.iter().take(64).map(i32::to_string).collect();
            let text = format!("{};{}", sids.join(","), storable(&captured.gpp_string));
            let gpp = self.statement(Channel::Gpp, &text, "cmp");
            // GPC outlives the string that carried it.
            // One for each section: a few rows, however many combinations somebody sends.
            for section in gpp.content.gpc_sections().one_by_one() {
                all.push(self.statement(Channel::Gpc, &sections_text(section), "gpp"));
            }
            all.push(gpp);
        }
        if !captured.us_privacy.is_empty() {
            all.push(self.statement(Channel::UsPrivacy, &storable(&captured.us_privacy), "cmp"));
        }
        if !captured.gcd.is_empty() {
            all.push(self.statement(Channel::ConsentMode, &storable(&captured.gcd), "gcd"));
        }
        if let Some((choice, provenance)) = &captured.explicit {
            let text = choice_text(choice);
            let mut hasher = Sha256::new();
            hasher.update((Channel::Explicit as i16).to_be_bytes());
            hasher.update(at.as_nanosecond().to_be_bytes());
            hasher.update(text.as_bytes());
            all.push(Statement {
                channel: Channel::Explicit,
                hash: truncated(hasher),
                text: text.into(),
                content: Content::Explicit(*choice),
                provenance: storable(provenance).into(),
            });
        }
        all
    }

    fn statement(&self, channel: Channel, text: &str, provenance: &str) -> Statement {
        let mut hasher = Sha256::new();
        hasher.update((channel as i16).to_be_bytes());
        hasher.update(text.as_bytes());
        let hash = truncated(hasher);
        let content = self.content(channel, hash, text);
        Statement { channel, hash, text: text.into(), content, provenance: storable(provenance).into() }
    }
}

fn truncated(hasher: Sha256) -> ContentHash {
    let digest = hasher.finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    ContentHash(hash)
}

fn weight(_: &ContentHash, content: &Content) -> u32 {
    let ranges = |tc: &TcString| {
        tc.vendor_consents.ranges().len() + tc.vendor_li.ranges().len() + tc.publisher_restrictions.len() * 16
    };
    let extra = match content {
        Content::Tcf(reading) => reading.as_ref().as_ref().map_or(0, ranges) * 4,
        Content::Gpp(reading, _) => reading.as_ref().as_ref().map_or(0, |gpp| {
            gpp.sections.len() * 512
                + gpp
                    .sections
                    .iter()
                    .map(|s| match &s.reading {
                        crate::strings::gpp::Reading::Tcf(tc) => ranges(tc) * 4,
                        crate::strings::gpp::Reading::Opaque(text) => text.len(),
                        _ => 0,
                    })
                    .sum::<usize>()
        }),
        _ => 0,
    };
    u32::try_from(512 + extra).unwrap_or(u32::MAX)
}

/// PostgreSQL's text cannot hold NUL, and nothing over 16 KiB is kept: either way the string stays unreadable.
fn storable(text: &str) -> String {
    if text.len() > MAX_STRING_BYTES {
        return format!("!{} bytes", text.len());
    }
    text.replace('\0', "\u{fffd}")
}

/// `[interaction, {name: allowed}]`, names sorted; a name that is there twice is refused if either says so. `None`: too many
/// or too long to be a banner's.
fn categories_text(categories: &[(String, bool)], interaction: bool) -> Option<String> {
    if categories.len() > MAX_CATEGORIES || categories.iter().any(|(name, _)| name.len() > MAX_CATEGORY_BYTES)
    {
        return None;
    }
    let mut sorted: BTreeMap<&str, bool> = BTreeMap::new();
    for (name, allowed) in categories {
        sorted.entry(name).and_modify(|known| *known &= *allowed).or_insert(*allowed);
    }
    serde_json::to_string(&(interaction, sorted)).ok()
}

/// `""` for everywhere, else the ids.
pub(crate) fn sections_text(sections: Sections) -> String {
    if sections == Sections::EVERYWHERE {
        return String::new();
    }
    let ids: Vec<String> = (1..64).filter(|id| sections.contains(*id)).map(|id| id.to_string()).collect();
    ids.join(",")
}

fn choice_text(choice: &ExplicitChoice) -> String {
    let stored = StoredChoice {
        granted: choice.granted.names(),
        denied: choice.denied.names(),
        two_step: choice.two_step,
        conflict_acknowledged: choice.conflict_acknowledged,
    };
    serde_json::to_string(&stored).unwrap_or_default()
}

fn decode(policy: &Policy, channel: Channel, text: &str) -> Content {
    match channel {
        Channel::Gpc => Content::Gpc(read_sections(text)),
        Channel::ObjectUnreadable => Content::ObjectUnreadable,
        Channel::Categories => match serde_json::from_str::<(bool, BTreeMap<String, bool>)>(text) {
            Ok((interaction, map)) => {
                let categories = map.iter().map(|(name, allowed)| (name.as_str(), *allowed));
                Content::Categories(CategoryStatement::of(policy, categories, interaction))
            }
            Err(_) => Content::ObjectUnreadable,
        },
        Channel::Tcf => Content::Tcf(Arc::new(TcString::decode(text))),
        Channel::Gpp => {
            let (sids, string) = text.split_once(';').unwrap_or(("", text));
            let sids: Vec<i32> = sids.split(',').filter_map(|sid| sid.parse().ok()).collect();
            Content::Gpp(Arc::new(GppString::decode(string)), Sections::from_sids(&sids))
        }
        Channel::UsPrivacy => Content::UsPrivacy(UsPrivacy::decode(text)),
        Channel::ConsentMode => Content::ConsentMode(ConsentMode::decode(text)),
        Channel::Explicit => match serde_json::from_str::<StoredChoice>(text) {
            Ok(stored) => {
                let purposes = |names: &[String]| -> Purposes {
                    names.iter().filter_map(|name| crate::purpose::Purpose::parse(name)).collect()
                };
                Content::Explicit(ExplicitChoice {
                    granted: purposes(&stored.granted),
                    denied: purposes(&stored.denied),
                    two_step: stored.two_step,
                    conflict_acknowledged: stored.conflict_acknowledged,
                })
            }
            // Never absent: what cannot be read denies.
            Err(_) => {
                Content::Explicit(ExplicitChoice { denied: Purposes::ASKED, ..ExplicitChoice::default() })
            }
        },
    }
}

/// Sections of a stored GPC statement; whatever is not a list of ids counts everywhere.
fn read_sections(text: &str) -> Sections {
    let ids: Result<Vec<i32>, _> = text.split(',').map(str::parse).collect();
    match ids {
        Ok(ids) if Sections::from_sids(&ids) != Sections::NONE => Sections::from_sids(&ids),
        _ => Sections::EVERYWHERE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purpose::Purpose;

    fn decoder() -> Decoder {
        Decoder::new(Arc::new(Policy::compiled_in().unwrap()), 1 << 20)
    }

    fn only(captured: &Captured) -> Statement {
        let mut all = decoder().statements(captured, Timestamp::UNIX_EPOCH);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn equal_maps_in_another_order_are_one_statement() {
        let map = |names: &[&str]| Captured {
            categories: Some(names.iter().map(|name| ((*name).to_owned(), true)).collect()),
            interaction: true,
            ..Captured::default()
        };
        let (one, two) =
            (only(&map(&["Analytics", "Advertising"])), only(&map(&["Advertising", "Analytics"])));
        assert_eq!((one.hash, &one.text), (two.hash, &two.text));
        let other = Captured { interaction: false, ..map(&["Advertising", "Analytics"]) };
        assert_ne!(only(&other).hash, one.hash);
    }

    #[test]
    fn a_map_of_absurd_size_is_unreadable_and_not_absent() {
        let categories = Some((0..300).map(|i| (format!("c{i}"), true)).collect());
        let statement = only(&Captured { categories, ..Captured::default() });
        assert!(matches!(statement.content, Content::ObjectUnreadable));
    }

    #[test]
    fn a_string_with_nul_or_of_20_kib_stays_unreadable() {
        for tc_string in ["CQ\0tDj".to_owned(), "C".repeat(20_000)] {
            let statement = only(&Captured { tc_string, ..Captured::default() });
            assert!(!statement.text.contains('\0') && statement.text.len() < 100);
            let Content::Tcf(reading) = statement.content else { panic!("not a TC string") };
            assert!(reading.is_err());
        }
    }

    #[test]
    fn gpc_in_a_gpp_string_is_a_statement_of_its_own() {
        let captured = Captured { gpp_string: "DBABBg~BUoAAACA.YA".to_owned(), ..Captured::default() };
        let all = decoder().statements(&captured, Timestamp::UNIX_EPOCH);
        let Content::Gpc(sections) = all[0].content else { panic!("no GPC") };
        assert_eq!((sections, &*all[0].text), (Sections::one(8), "8"));
        // In force by the sender's word: everywhere.
        let captured = Captured { gpp_sid: vec![8, -1], ..captured };
        let all = decoder().statements(&captured, Timestamp::UNIX_EPOCH);
        assert!(matches!(all[0].content, Content::Gpc(Sections::EVERYWHERE)), "{all:?}");
    }

    #[test]
    fn what_is_stored_decodes_to_what_was_said() {
        let decoder = decoder();
        let choice = ExplicitChoice {
            granted: Purposes::of(&[Purpose::Analytics]),
            denied: Purposes::ADS,
            two_step: true,
            conflict_acknowledged: false,
        };
        let captured =
            Captured { explicit: Some((choice, "privacy_center".to_owned())), ..Captured::default() };
        let statement = decoder.statements(&captured, Timestamp::UNIX_EPOCH).remove(0);
        let Content::Explicit(read) = decode(decoder.policy(), Channel::Explicit, &statement.text) else {
            panic!("not explicit")
        };
        assert_eq!(read, choice);
        // The same choice at another time is another act.
        let later = decoder.statements(&captured, Timestamp::MAX).remove(0);
        assert_ne!(later.hash, statement.hash);
    }

    #[test]
    fn stored_text_that_cannot_be_read_denies() {
        let policy = Policy::compiled_in().unwrap();
        assert!(matches!(decode(&policy, Channel::Categories, "{"), Content::ObjectUnreadable));
        let Content::Explicit(choice) = decode(&policy, Channel::Explicit, "x") else {
            panic!("not explicit")
        };
        assert_eq!(choice.denied, Purposes::ASKED);
        assert!(matches!(decode(&policy, Channel::Gpc, "x"), Content::Gpc(Sections::EVERYWHERE)));
    }
}
