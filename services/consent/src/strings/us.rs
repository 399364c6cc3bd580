//! The US sections of GPP: one reader driven by a table of layouts.
//!
//! Source: IAB, Global Privacy Platform, `Sections/**`, 2025-12, and the reference library cmpapi 3.2.0 where the texts
//! are drafts (Maryland, Indiana, Kentucky, Rhode Island). A value of 3 in a two-bit field is defined nowhere: the section
//! is refused, since guessing "not applicable" would lose an opt-out.

use super::{DecodeError, bits::BitReader};

/// A field of a section, by its name in the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    Version,
    MspaVersion,
    ProcessingNotice,
    SharingNotice,
    SaleOptOutNotice,
    SharingOptOutNotice,
    TargetedAdvertisingOptOutNotice,
    SensitiveDataProcessingOptOutNotice,
    SensitiveDataOptOutNotice,
    SensitiveDataLimitUseNotice,
    SaleOptOut,
    SharingOptOut,
    TargetedAdvertisingOptOut,
    SensitiveDataProcessing,
    KnownChildSensitiveDataConsents,
    PersonalDataConsents,
    AdditionalDataProcessingConsent,
    MspaCoveredTransaction,
    MspaOptOutOptionMode,
    MspaServiceProviderMode,
    MspaMode,
}

use Field::{
    AdditionalDataProcessingConsent, KnownChildSensitiveDataConsents, MspaCoveredTransaction, MspaMode,
    MspaOptOutOptionMode, MspaServiceProviderMode, MspaVersion, PersonalDataConsents, ProcessingNotice,
    SaleOptOut, SaleOptOutNotice, SensitiveDataLimitUseNotice, SensitiveDataOptOutNotice,
    SensitiveDataProcessing, SensitiveDataProcessingOptOutNotice, SharingNotice, SharingOptOut,
    SharingOptOutNotice, TargetedAdvertisingOptOut, TargetedAdvertisingOptOutNotice, Version,
};

/// A field and how many two-bit entries it has. The version fields are six bits and come first.
type Layout = Vec<(Field, usize)>;

/// The national section, which counts in every state.
pub const USNAT: u16 = 7;
/// California.
pub const USCA: u16 = 8;

/// A decoded US section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsSection {
    values: Vec<(Field, Vec<u8>)>,
    /// The GPC subsection, where there is one.
    pub gpc: Option<bool>,
}

impl UsSection {
    /// Whether this module knows the section's layout.
    #[must_use]
    pub fn is_known(id: u16) -> bool {
        (USNAT..=27).contains(&id)
    }

    /// The section of a state ("US-CA"), if IAB has one.
    #[must_use]
    pub fn of_state(place: &str) -> Option<u16> {
        const STATES: [(&str, u16); 20] = [
            ("CA", 8),
            ("VA", 9),
            ("CO", 10),
            ("UT", 11),
            ("CT", 12),
            ("FL", 13),
            ("MT", 14),
            ("OR", 15),
            ("TX", 16),
            ("DE", 17),
            ("IA", 18),
            ("NE", 19),
            ("NH", 20),
            ("NJ", 21),
            ("TN", 22),
            ("MN", 23),
            ("MD", 24),
            ("IN", 25),
            ("KY", 26),
            ("RI", 27),
        ];
        let state = place.strip_prefix("US-")?;
        STATES.iter().find(|(code, _)| *code == state).map(|(_, id)| *id)
    }

    /// Decodes section `id`, 7 to 27.
    ///
    /// # Errors
    /// Whatever makes it unreadable, an unknown version included: its layout cannot be guessed.
    pub fn decode(id: u16, text: &str) -> Result<Self, DecodeError> {
        let mut parts = text.split('.');
        let mut core = parts.next().unwrap_or_default();
        let draft = id >= 24;
        // The drafts' text puts a header part first, whose first six bits are the section's id; the library does not.
        if draft && BitReader::new(core)?.number(6)? == u64::from(id) {
            core = parts.next().ok_or(DecodeError::Truncated)?;
        }
        let bits = &mut BitReader::new(core)?;
        let version = bits.byte(6)?;
        let layout = if draft { draft_layout(id) } else { layout(id, version)? };
        let mut section = Self { values: Vec::with_capacity(layout.len() + 2), gpc: None };
        section.values.push((if draft { MspaVersion } else { Version }, vec![version]));
        section.read_fields(bits, &layout)?;
        for part in parts {
            section.read_part(id, part)?;
        }
        Ok(section)
    }

    fn read_part(&mut self, id: u16, text: &str) -> Result<(), DecodeError> {
        let bits = &mut BitReader::new(text)?;
        // Indiana, Kentucky and Rhode Island: the second part is eight sensitive-data entries without type bits.
        if (25..=27).contains(&id) {
            return self.read_fields(bits, &[(SensitiveDataProcessing, 8)]);
        }
        if bits.byte(2)? == 1 {
            self.gpc = Some(self.gpc.unwrap_or(false) | bits.flag()?);
        }
        Ok(())
    }

    fn read_fields(
        &mut self,
        bits: &mut BitReader<'_>,
        layout: &[(Field, usize)],
    ) -> Result<(), DecodeError> {
        for (field, entries) in layout {
            let mut values = Vec::with_capacity(*entries);
            for _ in 0..*entries {
                values.push(bits.byte(2)?);
            }
            if values.contains(&3) {
                return Err(DecodeError::UndefinedValue);
            }
            self.values.push((*field, values));
        }
        Ok(())
    }

    /// The field's entries; `None` if the section has no such field.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<&[u8]> {
        self.values.iter().find(|(f, _)| *f == field).map(|(_, values)| values.as_slice())
    }

    /// Every field in the order of the section.
    #[must_use]
    pub fn fields(&self) -> &[(Field, Vec<u8>)] {
        &self.values
    }

    /// Whether the field is there and any of its entries has this value.
    #[must_use]
    pub fn says(&self, field: Field, value: u8) -> bool {
        self.get(field).is_some_and(|values| values.contains(&value))
    }
}

/// Layout after the version, for sections 7 to 23.
fn layout(id: u16, version: u8) -> Result<Layout, DecodeError> {
    let mspa = [(MspaCoveredTransaction, 1), (MspaOptOutOptionMode, 1), (MspaServiceProviderMode, 1)];
    let mut fields: Layout = Vec::new();
    match (id, version) {
        (USNAT, 1 | 2) => {
            fields.extend([
                (SharingNotice, 1),
                (SaleOptOutNotice, 1),
                (SharingOptOutNotice, 1),
                (TargetedAdvertisingOptOutNotice, 1),
                (SensitiveDataProcessingOptOutNotice, 1),
                (SensitiveDataLimitUseNotice, 1),
                (SaleOptOut, 1),
                (SharingOptOut, 1),
                (TargetedAdvertisingOptOut, 1),
                (SensitiveDataProcessing, if version == 1 { 12 } else { 16 }),
                (KnownChildSensitiveDataConsents, if version == 1 { 2 } else { 3 }),
                (PersonalDataConsents, 1),
            ]);
        }
        (USCA, 1) => fields.extend([
            (SaleOptOutNotice, 1),
            (SharingOptOutNotice, 1),
            (SensitiveDataLimitUseNotice, 1),
            (SaleOptOut, 1),
            (SharingOptOut, 1),
            (SensitiveDataProcessing, 9),
            (KnownChildSensitiveDataConsents, 2),
            (PersonalDataConsents, 1),
        ]),
        (9..=23, 1) => fields.extend(state_layout(id)),
        _ => return Err(DecodeError::UnknownVersion),
    }
    fields.extend(mspa);
    Ok(fields)
}

/// Sections 9 to 23 without the version and the MSPA fields.
fn state_layout(id: u16) -> Layout {
    let (sensitive, child) = match id {
        10 => (7, 1),
        12..=14 => (8, 3),
        15 => (11, 3),
        17 => (9, 5),
        20 => (8, 3),
        21 => (10, 5),
        _ => (8, 1),
    };
    // Virginia, Colorado, Utah, Connecticut and Montana are of the first generation.
    let first_generation = matches!(id, 9..=12 | 14);
    let mut fields: Layout = vec![
        (if first_generation { SharingNotice } else { ProcessingNotice }, 1),
        (SaleOptOutNotice, 1),
        (TargetedAdvertisingOptOutNotice, 1),
    ];
    match id {
        11 => fields.push((SensitiveDataProcessingOptOutNotice, 1)),
        18 => fields.push((SensitiveDataOptOutNotice, 1)),
        _ => {}
    }
    fields.extend([
        (SaleOptOut, 1),
        (TargetedAdvertisingOptOut, 1),
        (SensitiveDataProcessing, sensitive),
        (KnownChildSensitiveDataConsents, child),
    ]);
    if id == 14 || (!first_generation && id != 18) {
        fields.push((AdditionalDataProcessingConsent, 1));
    }
    fields
}

/// Sections 24 to 27 after MspaVersion.
fn draft_layout(id: u16) -> Layout {
    let mut fields: Layout = vec![
        (MspaCoveredTransaction, 1),
        (MspaMode, 1),
        (ProcessingNotice, 1),
        (SaleOptOutNotice, 1),
        (TargetedAdvertisingOptOutNotice, 1),
        (SaleOptOut, 1),
        (TargetedAdvertisingOptOut, 1),
    ];
    if id != 24 {
        fields.push((KnownChildSensitiveDataConsents, 1));
    }
    fields.push((AdditionalDataProcessingConsent, 1));
    fields
}
