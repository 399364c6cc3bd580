//! Sets of vendor ids, kept as sorted ranges and never expanded.
//!
//! A string of 22 kB that says "1 to 65,535" four thousand times costs a widely used decoder ten seconds and 770 MiB;
//! here it is one range.

use super::{DecodeError, bits::BitReader};

/// Vendor ids, as disjoint ascending ranges, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<(u16, u16)>);

impl RangeSet {
    /// From ranges in any order, which may overlap.
    #[must_use]
    pub fn from_ranges(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(start) <= u32::from(last.1) + 1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// Whether the id is in the set; a binary search.
    #[must_use]
    pub fn contains(&self, id: u16) -> bool {
        let after = self.0.partition_point(|range| range.0 <= id);
        after > 0 && self.0[after - 1].1 >= id
    }

    /// How many ids are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|(start, end)| u32::from(*end) - u32::from(*start) + 1).sum()
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Whether no id is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads NumEntries (12 bits) and that many entries: IsARange, start, and the end of a range.
    ///
    /// # Errors
    /// Truncated, or a range that ends before it starts.
    pub fn read_entries(bits: &mut BitReader<'_>) -> Result<Self, DecodeError> {
        let entries = bits.number(12)?;
        let mut ranges = Vec::new();
        for _ in 0..entries {
            let is_range = bits.flag()?;
            let start = bits.short(16)?;
            let end = if is_range { bits.short(16)? } else { start };
            if end < start {
                return Err(DecodeError::BackwardRange);
            }
            ranges.push((start, end));
        }
        Ok(Self::from_ranges(ranges))
    }

    /// Reads the vendor form: MaxVendorId (16 bits), IsRangeEncoding, then a bitfield or entries.
    ///
    /// # Errors
    /// Truncated, or a range that ends before it starts.
    pub fn read_vendors(bits: &mut BitReader<'_>) -> Result<Self, DecodeError> {
        let max = bits.short(16)?;
        if bits.flag()? {
            return Self::read_entries(bits);
        }
        if usize::from(max) > bits.left() {
            return Err(DecodeError::Truncated);
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for id in 1..=max {
            if !bits.flag()? {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.1 == id - 1 => last.1 = id,
                _ => ranges.push((id, id)),
            }
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_and_neighbouring_ranges_become_one() {
        let set = RangeSet::from_ranges(vec![(5, 9), (1, 3), (4, 4), (65_535, 65_535), (8, 12)]);
        assert_eq!(set.ranges(), [(1, 12), (65_535, 65_535)]);
        assert_eq!(set.count(), 13);
        assert!(set.contains(1) && set.contains(12) && set.contains(65_535));
        assert!(!set.contains(0) && !set.contains(13) && !set.contains(65_534));
    }
}
