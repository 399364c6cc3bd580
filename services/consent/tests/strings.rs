//! Every vector of `tests/vectors/consent-strings.json`: strings encoded with IAB's own libraries, and what they say.
#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach their helper functions")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tracklayer_consent::strings::{
    DecodeError,
    gpp::{GppString, Reading},
    ranges::RangeSet,
    tcf::{PurposeBits, RestrictionKind, TcString},
    us::{Field, UsSection},
    usp::{Answer, UsPrivacy},
};

const VECTORS: &str = include_str!("../../../tests/vectors/consent-strings.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).expect("the vectors are JSON")
}

fn ids(set: &RangeSet) -> Vec<u16> {
    set.ranges().iter().flat_map(|(start, end)| *start..=*end).collect()
}

/// A list of ids, or ranges with a count.
fn assert_ids(set: &RangeSet, expected: &Value, what: &str) {
    let Some(ranges) = expected.get("ranges") else {
        assert_eq!(json!(ids(set)), *expected, "{what}");
        return;
    };
    let expected: Vec<(u16, u16)> = ranges
        .as_array()
        .unwrap()
        .iter()
        .map(|range| match range {
            Value::Array(both) => (both[0].as_u64().unwrap() as u16, both[1].as_u64().unwrap() as u16),
            single => (single.as_u64().unwrap() as u16, single.as_u64().unwrap() as u16),
        })
        .collect();
    assert_eq!(set.ranges(), expected, "{what}");
}

fn numbers(bits: PurposeBits) -> Value {
    json!(bits.iter().collect::<Vec<_>>())
}

fn day(at: jiff::Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

fn tcf_as_json(tc: &TcString) -> Value {
    json!({
        "version": 2,
        "created": day(tc.created),
        "last_updated": day(tc.last_updated),
        "cmp_id": tc.cmp_id,
        "cmp_version": tc.cmp_version,
        "consent_screen": tc.consent_screen,
        "consent_language": tc.consent_language.iter().collect::<String>(),
        "vendor_list_version": tc.vendor_list_version,
        "tcf_policy_version": tc.tcf_policy_version,
        "is_service_specific": tc.is_service_specific,
        "use_non_standard_texts": tc.use_non_standard_texts,
        "special_feature_opt_ins": numbers(tc.special_feature_opt_ins),
        "purposes_consent": numbers(tc.purposes_consent),
        "purposes_li_transparency": numbers(tc.purposes_li_transparency),
        "purpose_one_treatment": tc.purpose_one_treatment,
        "publisher_cc": tc.publisher_cc.iter().collect::<String>(),
        "publisher_restrictions": tc.publisher_restrictions.iter().map(|r| json!({
            "purpose": r.purpose,
            "type": match r.kind {
                RestrictionKind::NotAllowed => 0,
                RestrictionKind::RequireConsent => 1,
                RestrictionKind::RequireLegitimateInterest => 2,
            },
            "vendors": ids(&r.vendors),
        })).collect::<Vec<_>>(),
        "segments": tc.segments,
        "publisher_tc": tc.publisher_tc.as_ref().map(|p| json!({
            "purposes_consent": numbers(p.purposes_consent),
            "purposes_li": numbers(p.purposes_li),
            "num_custom": p.num_custom,
            "custom_consents": numbers(p.custom_consents),
            "custom_li": numbers(p.custom_li),
        })),
    })
}

#[test]
fn every_tc_string_says_what_the_libraries_of_iab_read() {
    let vectors = vectors();
    let all = vectors["tcf"].as_array().unwrap();
    assert_eq!(all.len(), 15);
    for vector in all {
        let id = vector["id"].as_str().unwrap();
        let tc =
            TcString::decode(vector["encoded"].as_str().unwrap()).unwrap_or_else(|e| panic!("{id}: {e}"));
        let mut expected = vector["decoded"].clone();
        let fields = expected.as_object_mut().unwrap();
        assert_ids(&tc.vendor_consents, &fields.remove("vendor_consents").unwrap(), id);
        assert_ids(&tc.vendor_li, &fields.remove("vendor_li").unwrap(), id);
        match (&tc.disclosed_vendors, fields.remove("disclosed_vendors").unwrap()) {
            (None, Value::Null) => {}
            (Some(disclosed), expected) => assert_ids(disclosed, &expected, id),
            (None, expected) => panic!("{id}: no disclosed vendors, expected {expected}"),
        }
        assert_eq!(tcf_as_json(&tc), expected, "{id}");
    }
}

fn us_as_json(us: &UsSection) -> Value {
    let mut fields = serde_json::Map::new();
    for (field, values) in us.fields() {
        let is_list =
            matches!(field, Field::SensitiveDataProcessing | Field::KnownChildSensitiveDataConsents);
        let value = if is_list && values.len() > 1 { json!(values) } else { json!(values[0]) };
        fields.insert(format!("{field:?}"), value);
    }
    if let Some(gpc) = us.gpc {
        fields.insert("GpcSegmentType".to_owned(), json!(1));
        fields.insert("Gpc".to_owned(), json!(gpc));
    }
    Value::Object(fields)
}

fn answer(answer: Answer) -> &'static str {
    match answer {
        Answer::Yes => "Y",
        Answer::No => "N",
        Answer::NotApplicable => "-",
    }
}

fn usp_as_json(usp: UsPrivacy) -> Value {
    json!({
        "Version": 1,
        "Notice": answer(usp.notice),
        "OptOutSale": answer(usp.opt_out_sale),
        "LspaCovered": answer(usp.lspa_covered),
    })
}

fn prefix(id: u16) -> &'static str {
    match id {
        2 => "tcfeuv2",
        6 => "uspv1",
        7 => "usnat",
        8 => "usca",
        9 => "usva",
        10 => "usco",
        11 => "usut",
        12 => "usct",
        16 => "ustx",
        23 => "usmn",
        24 => "usmd",
        other => panic!("section {other} is in no vector"),
    }
}

#[test]
fn every_gpp_string_says_what_the_libraries_of_iab_read() {
    let vectors = vectors();
    let all = vectors["gpp"].as_array().unwrap();
    assert_eq!(all.len(), 21);
    let tcf_of = |id: &str| {
        let vector = vectors["tcf"].as_array().unwrap().iter().find(|v| v["id"] == id).unwrap();
        TcString::decode(vector["encoded"].as_str().unwrap()).unwrap()
    };
    for vector in all {
        let id = vector["id"].as_str().unwrap();
        let gpp =
            GppString::decode(vector["encoded"].as_str().unwrap()).unwrap_or_else(|e| panic!("{id}: {e}"));
        let read: Vec<u16> = gpp.sections.iter().map(|s| s.id).collect();
        assert_eq!(json!(read), vector["header"]["section_ids"], "{id}");
        assert_eq!(gpp.sections.len(), vector["decoded"].as_object().unwrap().len(), "{id}");
        for section in &gpp.sections {
            let expected = &vector["decoded"][prefix(section.id)];
            match &section.reading {
                Reading::Us(us) => assert_eq!(us_as_json(us), *expected, "{id}"),
                Reading::UsPrivacy(usp) => assert_eq!(usp_as_json(*usp), *expected, "{id}"),
                Reading::Tcf(tc) => {
                    let mut plain = tcf_of(expected["same_as"].as_str().unwrap());
                    // The GPP library appends an empty publisher segment.
                    assert!(tc.publisher_tc.is_some(), "{id}");
                    plain.publisher_tc = tc.publisher_tc.clone();
                    plain.segments += 1;
                    assert_eq!(**tc, plain, "{id}");
                }
                other => panic!("{id}: {other:?}"),
            }
        }
    }
}

#[test]
fn malformed_and_odd_strings_are_told_apart() {
    let vectors = vectors();
    let all = vectors["malformed"].as_array().unwrap();
    assert_eq!(all.len(), 11);
    for vector in all {
        let id = vector["id"].as_str().unwrap();
        let text = vector["encoded"].as_str().unwrap();
        match vector["expect"].as_str().unwrap() {
            "error" => {
                assert!(TcString::decode(text).is_err(), "{id}");
                assert!(GppString::decode(text).is_err(), "{id}");
            }
            "ok_empty" => assert!(GppString::decode(text).unwrap().sections.is_empty(), "{id}"),
            "error_section" => {
                let gpp = GppString::decode(text).unwrap();
                assert!(
                    matches!(gpp.sections[0].reading, Reading::Unreadable(DecodeError::Truncated)),
                    "{id}"
                );
            }
            "ok_partial" => {
                let gpp = GppString::decode(text).unwrap();
                let read: Vec<u16> = gpp.sections.iter().map(|s| s.id).collect();
                assert_eq!(json!(read), vector["section_ids"], "{id}");
                let Reading::Us(usca) = &gpp.section(8).unwrap().reading else { panic!("{id}") };
                assert!(usca.says(Field::SaleOptOut, 1) && usca.gpc == Some(true), "{id}");
                assert_eq!(gpp.section(40).unwrap().reading, Reading::Opaque("XYZ".into()), "{id}");
            }
            other => panic!("{id}: unknown expectation {other}"),
        }
    }
}

/// Writes bits as base64url characters.
#[derive(Default)]
struct BitWriter {
    bits: Vec<bool>,
}

impl BitWriter {
    fn number(&mut self, value: u64, bits: usize) -> &mut Self {
        self.bits.extend((0..bits).rev().map(|i| value >> i & 1 == 1));
        self
    }

    fn text(&self) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let six = |bits: &[bool]| (0..6).fold(0, |v, i| v << 1 | usize::from(bits.get(i) == Some(&true)));
        self.bits.chunks(6).map(|bits| char::from(alphabet[six(bits)])).collect()
    }
}

/// A core segment up to the vendor consents, everything zero but the version.
fn core_before_vendors() -> BitWriter {
    let mut bits = BitWriter::default();
    bits.number(2, 6);
    bits.bits.resize(213, false);
    bits
}

fn range_bomb(entries: u64) -> String {
    let mut bits = core_before_vendors();
    bits.number(65_535, 16).number(1, 1).number(entries, 12);
    for _ in 0..entries {
        bits.number(1, 1).number(1, 16).number(65_535, 16);
    }
    bits.number(0, 17).number(0, 12);
    bits.text()
}

#[test]
fn a_range_bomb_is_refused_by_length_and_a_shorter_one_is_one_range() {
    let bomb = range_bomb(4_000);
    assert!(bomb.len() > 21_000);
    let started = Instant::now();
    assert_eq!(TcString::decode(&bomb), Err(DecodeError::TooLong));
    assert_eq!(GppString::decode(&bomb), Err(DecodeError::TooLong));
    let short = range_bomb(2_900);
    assert!(short.len() < 16 * 1024);
    let tc = TcString::decode(&short).unwrap();
    assert_eq!(tc.vendor_consents.ranges(), [(1, 65_535)]);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_range_that_ends_before_it_starts_is_an_error() {
    let mut bits = core_before_vendors();
    bits.number(100, 16).number(1, 1).number(1, 12).number(1, 1).number(9, 16).number(8, 16).number(0, 29);
    assert_eq!(TcString::decode(&bits.text()), Err(DecodeError::BackwardRange));
}

#[test]
fn the_two_forms_of_the_draft_sections_read_the_same() {
    let Ok(plain) = UsSection::decode(24, "BhVQ.YA") else { panic!("plain form") };
    // The header form: section id in six bits, a version, and whatever follows, as a part of its own.
    let mut header = BitWriter::default();
    header.number(24, 6).number(1, 6).number(0, 12);
    let with_header = UsSection::decode(24, &format!("{}.BhVQ.YA", header.text()));
    assert_eq!(with_header, Ok(plain));
}

#[test]
fn an_undefined_two_bit_value_refuses_the_section_and_no_other() {
    // usca with SaleOptOut = 3, then usva opted out.
    let mut usca = BitWriter::default();
    usca.number(1, 6).number(1, 2).number(1, 2).number(0, 2).number(3, 2).number(0, 40);
    // Header: one group, 8 to 9.
    let mut header = BitWriter::default();
    header.number(3, 6).number(1, 6).number(1, 12).number(1, 1).number(0b00_0011, 6).number(0b11, 2);
    let gpp = GppString::decode(&format!("{}~{}~BVUAACA", header.text(), usca.text())).unwrap();
    assert_eq!(gpp.section(8).unwrap().reading, Reading::Unreadable(DecodeError::UndefinedValue));
    let Reading::Us(usva) = &gpp.section(9).unwrap().reading else { panic!("usva") };
    assert!(usva.says(Field::SaleOptOut, 1));
}

mod any_text {
    use proptest::prelude::*;
    use tracklayer_consent::strings::gcd::ConsentMode;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn is_read_or_refused_but_never_panics(text in "\\PC{0,400}") {
            let _ = TcString::decode(&text);
            let _ = GppString::decode(&text);
            let _ = UsPrivacy::decode(&text);
            let _ = ConsentMode::decode(&text);
        }

        #[test]
        fn of_the_alphabet_is_read_or_refused_but_never_panics(text in "[CDB][A-Za-z0-9_~.-]{0,600}") {
            let _ = TcString::decode(&text);
            let _ = GppString::decode(&text);
            for id in 0..=30 {
                let _ = UsSection::decode(id, &text);
            }
        }

        #[test]
        fn encoded_by_the_test_encoder_decodes_to_the_same(
            consent in 0u32..1 << 24,
            li in 0u32..1 << 24,
            vendors in prop::collection::btree_set(1u16..2_000, 0..60),
            restricted in prop::collection::vec((1u8..11, 0u8..3, prop::collection::btree_set(1u16..900, 1..5)), 0..4),
            as_ranges: bool,
        ) {
            let mut bits = BitWriter::default();
            bits.number(2, 6).number(15_000_000_000, 36).number(15_000_000_000, 36).number(300, 12).number(7, 12);
            bits.number(1, 6).number(4, 6).number(13, 6).number(163, 12).number(5, 6).number(1, 1).number(0, 1);
            bits.number(0, 12).number(u64::from(consent), 24).number(u64::from(li), 24).number(0, 1);
            bits.number(3, 6).number(4, 6);
            let max = vendors.iter().max().copied().unwrap_or(0);
            bits.number(u64::from(max), 16).number(u64::from(as_ranges), 1);
            if as_ranges {
                bits.number(vendors.len() as u64, 12);
                for vendor in &vendors {
                    bits.number(0, 1).number(u64::from(*vendor), 16);
                }
            } else {
                for vendor in 1..=max {
                    bits.number(u64::from(vendors.contains(&vendor)), 1);
                }
            }
            bits.number(0, 17).number(restricted.len() as u64, 12);
            for (purpose, kind, vendors) in &restricted {
                bits.number(u64::from(*purpose), 6).number(u64::from(*kind), 2).number(vendors.len() as u64, 12);
                for vendor in vendors {
                    bits.number(1, 1).number(u64::from(*vendor), 16).number(u64::from(*vendor), 16);
                }
            }
            let tc = TcString::decode(&bits.text()).unwrap();
            let expected: Vec<u16> = vendors.into_iter().collect();
            prop_assert_eq!(ids(&tc.vendor_consents), expected);
            for purpose in 1..=24u8 {
                prop_assert_eq!(tc.purposes_consent.contains(purpose), consent >> (24 - purpose) & 1 == 1);
                prop_assert_eq!(tc.purposes_li_transparency.contains(purpose), li >> (24 - purpose) & 1 == 1);
            }
            let read: Vec<Vec<u16>> = tc.publisher_restrictions.iter().map(|r| ids(&r.vendors)).collect();
            let written: Vec<Vec<u16>> = restricted.into_iter().map(|(_, _, v)| v.into_iter().collect()).collect();
            prop_assert_eq!(read, written);
            prop_assert_eq!(tc.consent_language, ['E', 'N']);
            prop_assert_eq!(tc.publisher_cc, ['D', 'E']);
        }
    }
}
