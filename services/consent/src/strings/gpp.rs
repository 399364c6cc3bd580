//! The IAB GPP string: a header that lists section ids, then the sections.
//!
//! Source: IAB, Global Privacy Platform, `Core/Consent String Specification.md`, 2025-12. A section that cannot be read
//! is refused alone, and an id that nobody knows yet is kept as opaque text: neither may take the opt-outs of its
//! neighbours away.

use super::{DecodeError, bits::BitReader, tcf::TcString, us::UsSection, usp::UsPrivacy};

/// Most sections of one string.
pub const MAX_SECTIONS: usize = 32;
/// The EU section, which is a TC string.
pub const TCF_EU_V2: u16 = 2;
/// The US privacy string of old.
pub const US_PRIVACY_V1: u16 = 6;

/// What a GPP string says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GppString {
    /// Sections in the order of the header, ids ascending.
    pub sections: Vec<Section>,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its id.
    pub id: u16,
    /// Its content.
    pub reading: Reading,
}

/// Content of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Section 2.
    Tcf(Box<TcString>),
    /// Section 6.
    UsPrivacy(UsPrivacy),
    /// Sections 7 to 27.
    Us(UsSection),
    /// An id whose layout is not known, its text kept.
    Opaque(Box<str>),
    /// A known section that cannot be read.
    Unreadable(DecodeError),
}

impl GppString {
    /// Decodes a string.
    ///
    /// # Errors
    /// The header cannot be read, or does not fit the sections. A bad section is a value, not an error.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        if text.len() > super::MAX_STRING_BYTES {
            return Err(DecodeError::TooLong);
        }
        let mut parts = text.split('~');
        let ids = section_ids(parts.next().unwrap_or_default())?;
        if parts.clone().count() != ids.len() {
            return Err(DecodeError::SectionCount);
        }
        let sections =
            ids.into_iter().zip(parts).map(|(id, text)| Section { id, reading: Reading::of(id, text) });
        Ok(Self { sections: sections.collect() })
    }

    /// The section with this id.
    #[must_use]
    pub fn section(&self, id: u16) -> Option<&Section> {
        self.sections.iter().find(|section| section.id == id)
    }
}

impl Reading {
    fn of(id: u16, text: &str) -> Self {
        let reading = match id {
            TCF_EU_V2 => TcString::decode(text).map(|tc| Self::Tcf(Box::new(tc))),
            US_PRIVACY_V1 => UsPrivacy::decode(text).map(Self::UsPrivacy),
            _ if UsSection::is_known(id) => UsSection::decode(id, text).map(Self::Us),
            _ => Ok(Self::Opaque(text.into())),
        };
        reading.unwrap_or_else(Self::Unreadable)
    }
}

/// Reads the header: type 3, version 1, then the ids as Range(Fibonacci), where each number is the distance from the last
/// id seen.
fn section_ids(header: &str) -> Result<Vec<u16>, DecodeError> {
    let bits = &mut BitReader::new(header)?;
    if bits.number(6)? != 3 {
        return Err(DecodeError::WrongType);
    }
    if bits.number(6)? != 1 {
        return Err(DecodeError::UnknownVersion);
    }
    let items = bits.number(12)?;
    let (mut ids, mut last) = (Vec::new(), 0u32);
    for _ in 0..items {
        let is_group = bits.flag()?;
        let start = last + bits.fibonacci()?;
        let end = if is_group { start + bits.fibonacci()? } else { start };
        if ids.len() + (end - start) as usize + 1 > MAX_SECTIONS {
            return Err(DecodeError::TooManySections);
        }
        for id in start..=end {
            ids.push(u16::try_from(id).map_err(|_| DecodeError::OutOfBounds)?);
        }
        last = end;
    }
    Ok(ids)
}
