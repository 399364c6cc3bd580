//! The IAB TC string, version 2.
//!
//! Source: IAB Tech Lab, "Consent string and vendor list formats v2" (2.3), 2026-02. Publisher restrictions are read in
//! the form that text and IAB's encoders use (NumEntries, ranges), also inside GPP section 2, whose own text describes
//! another form that nobody writes.

use jiff::Timestamp;

use super::{DecodeError, bits::BitReader, ranges::RangeSet};

/// Most segments that are read.
const MAX_SEGMENTS: usize = 8;

/// What a TC string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcString {
    /// When it was first made; day precision since 2021.
    pub created: Timestamp,
    /// When the choice was last updated.
    pub last_updated: Timestamp,
    /// Consent management platform.
    pub cmp_id: u16,
    /// Its version.
    pub cmp_version: u16,
    /// Screen on which consent was given.
    pub consent_screen: u8,
    /// Two letters.
    pub consent_language: [char; 2],
    /// Version of the vendor list.
    pub vendor_list_version: u16,
    /// Version of the policies: 4 is TCF 2.2, 5 is 2.3.
    pub tcf_policy_version: u8,
    /// Whether the choice is for this service alone; since 2021 it has to be.
    pub is_service_specific: bool,
    /// Whether the publisher uses texts of its own.
    pub use_non_standard_texts: bool,
    /// Special features 1 to 12.
    pub special_feature_opt_ins: PurposeBits,
    /// Purposes 1 to 24 consented.
    pub purposes_consent: PurposeBits,
    /// Purposes 1 to 24 with legitimate interest shown and not objected to.
    pub purposes_li_transparency: PurposeBits,
    /// Purpose 1 was not asked, since the publisher's country does not require it.
    pub purpose_one_treatment: bool,
    /// Country of the publisher, two letters.
    pub publisher_cc: [char; 2],
    /// Vendors consented.
    pub vendor_consents: RangeSet,
    /// Vendors with legitimate interest not objected to.
    pub vendor_li: RangeSet,
    /// Restrictions of the publisher.
    pub publisher_restrictions: Vec<Restriction>,
    /// Vendors that were shown; `None` if the segment is missing.
    pub disclosed_vendors: Option<RangeSet>,
    /// The publisher's own purposes.
    pub publisher_tc: Option<PublisherTc>,
    /// How many segments the string has.
    pub segments: usize,
}

/// Numbers 1 to 24 as a bit set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PurposeBits(u64);

/// A publisher's restriction on one purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restriction {
    /// The purpose.
    pub purpose: u8,
    /// What is demanded.
    pub kind: RestrictionKind,
    /// Of whom.
    pub vendors: RangeSet,
}

/// Type of a publisher's restriction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestrictionKind {
    /// 0, and 3 which is undefined: the purpose is flatly not allowed.
    NotAllowed,
    /// 1: only on the basis of consent.
    RequireConsent,
    /// 2: only on the basis of legitimate interest.
    RequireLegitimateInterest,
}

/// The publisher's own purposes (segment 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherTc {
    /// Standard purposes consented.
    pub purposes_consent: PurposeBits,
    /// Standard purposes with legitimate interest.
    pub purposes_li: PurposeBits,
    /// How many custom purposes there are.
    pub num_custom: u8,
    /// Custom purposes consented.
    pub custom_consents: PurposeBits,
    /// Custom purposes with legitimate interest.
    pub custom_li: PurposeBits,
}

impl PurposeBits {
    /// Whether the number (from 1) is in the set.
    #[must_use]
    pub fn contains(self, number: u8) -> bool {
        (1..=64).contains(&number) && self.0 >> (number - 1) & 1 == 1
    }

    /// The numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=64).filter(move |n| self.contains(*n))
    }
}

impl TcString {
    /// Decodes a string.
    ///
    /// # Errors
    /// Whatever makes it unreadable; an unknown further segment is not an error.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        if text.len() > super::MAX_STRING_BYTES {
            return Err(DecodeError::TooLong);
        }
        let mut segments = text.split('.');
        let mut tc = Self::decode_core(segments.next().unwrap_or_default())?;
        for segment in segments {
            tc.segments += 1;
            if tc.segments > MAX_SEGMENTS {
                return Err(DecodeError::TooManySections);
            }
            tc.read_segment(segment)?;
        }
        Ok(tc)
    }

    fn decode_core(text: &str) -> Result<Self, DecodeError> {
        let bits = &mut BitReader::new(text)?;
        if bits.number(6)? != 2 {
            return Err(DecodeError::UnknownVersion);
        }
        let created = instant(bits)?;
        Ok(Self {
            created,
            last_updated: instant(bits)?,
            cmp_id: bits.short(12)?,
            cmp_version: bits.short(12)?,
            consent_screen: bits.byte(6)?,
            consent_language: letters(bits)?,
            vendor_list_version: bits.short(12)?,
            tcf_policy_version: bits.byte(6)?,
            is_service_specific: bits.flag()?,
            use_non_standard_texts: bits.flag()?,
            special_feature_opt_ins: PurposeBits(bits.mask(12)?),
            purposes_consent: PurposeBits(bits.mask(24)?),
            purposes_li_transparency: PurposeBits(bits.mask(24)?),
            purpose_one_treatment: bits.flag()?,
            publisher_cc: letters(bits)?,
            vendor_consents: RangeSet::read_vendors(bits)?,
            vendor_li: RangeSet::read_vendors(bits)?,
            publisher_restrictions: restrictions(bits)?,
            disclosed_vendors: None,
            publisher_tc: None,
            segments: 1,
        })
    }

    fn read_segment(&mut self, text: &str) -> Result<(), DecodeError> {
        let bits = &mut BitReader::new(text)?;
        match bits.number(3)? {
            1 if self.disclosed_vendors.is_some() => return Err(DecodeError::DuplicateSegment),
            1 => self.disclosed_vendors = Some(RangeSet::read_vendors(bits)?),
            3 if self.publisher_tc.is_some() => return Err(DecodeError::DuplicateSegment),
            3 => self.publisher_tc = Some(publisher_tc(bits)?),
            // 2 is the allowed vendors of 2021, without meaning today; others may come.
            _ => {}
        }
        Ok(())
    }

    /// The publisher's restriction on a vendor's purpose: the strictest if several are there.
    #[must_use]
    pub fn restriction(&self, purpose: u8, vendor: u16) -> Option<RestrictionKind> {
        let mut found = None;
        for restriction in &self.publisher_restrictions {
            if restriction.purpose != purpose || !restriction.vendors.contains(vendor) {
                continue;
            }
            found = match found {
                None => Some(restriction.kind),
                Some(kind) if kind == restriction.kind => Some(kind),
                // Two different demands cannot both be met.
                Some(_) => Some(RestrictionKind::NotAllowed),
            };
        }
        found
    }
}

fn instant(bits: &mut BitReader<'_>) -> Result<Timestamp, DecodeError> {
    let deciseconds = i64::try_from(bits.number(36)?).map_err(|_| DecodeError::OutOfBounds)?;
    Timestamp::from_millisecond(deciseconds * 100).map_err(|_| DecodeError::OutOfBounds)
}

fn letters(bits: &mut BitReader<'_>) -> Result<[char; 2], DecodeError> {
    let mut both = ['?'; 2];
    for letter in &mut both {
        let value = bits.byte(6)?;
        if value < 26 {
            *letter = char::from(b'A' + value);
        }
    }
    Ok(both)
}

fn restrictions(bits: &mut BitReader<'_>) -> Result<Vec<Restriction>, DecodeError> {
    let count = bits.number(12)?;
    let mut all = Vec::new();
    for _ in 0..count {
        let purpose = bits.byte(6)?;
        let kind = match bits.byte(2)? {
            1 => RestrictionKind::RequireConsent,
            2 => RestrictionKind::RequireLegitimateInterest,
            _ => RestrictionKind::NotAllowed,
        };
        all.push(Restriction { purpose, kind, vendors: RangeSet::read_entries(bits)? });
    }
    Ok(all)
}

fn publisher_tc(bits: &mut BitReader<'_>) -> Result<PublisherTc, DecodeError> {
    let purposes_consent = PurposeBits(bits.mask(24)?);
    let purposes_li = PurposeBits(bits.mask(24)?);
    let num_custom = bits.byte(6)?;
    Ok(PublisherTc {
        purposes_consent,
        purposes_li,
        num_custom,
        custom_consents: PurposeBits(bits.mask(usize::from(num_custom))?),
        custom_li: PurposeBits(bits.mask(usize::from(num_custom))?),
    })
}
