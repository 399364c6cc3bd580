//! Reads big-endian bits straight from base64url characters, six bits each, without decoding them into bytes first.

use super::DecodeError;

/// Longest Fibonacci code that is read, in bits: above it a number would not fit any section id.
const MAX_FIBONACCI_BITS: usize = 24;

/// A position in a base64url text.
#[derive(Debug, Clone)]
pub struct BitReader<'a> {
    text: &'a [u8],
    at: usize,
}

const INVALID: u8 = 0xff;

/// Value of each character of the base64url alphabet (RFC 4648, section 5).
const VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut table = [INVALID; 256];
    let mut i = 0u8;
    while i < 64 {
        table[alphabet[i as usize] as usize] = i;
        i += 1;
    }
    table
};

impl<'a> BitReader<'a> {
    /// Over a text, which may end in `=` padding.
    ///
    /// # Errors
    /// Empty, too long, or a character outside the alphabet anywhere.
    pub fn new(text: &'a str) -> Result<Self, DecodeError> {
        if text.len() > super::MAX_STRING_BYTES {
            return Err(DecodeError::TooLong);
        }
        let text = text.trim_end_matches('=').as_bytes();
        if text.is_empty() {
            return Err(DecodeError::Empty);
        }
        if text.iter().any(|c| VALUES[usize::from(*c)] == INVALID) {
            return Err(DecodeError::BadCharacter);
        }
        Ok(Self { text, at: 0 })
    }

    /// Bits not yet read.
    #[must_use]
    pub fn left(&self) -> usize {
        (self.text.len() * 6).saturating_sub(self.at)
    }

    /// One bit.
    ///
    /// # Errors
    /// No bit is left.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        let character = self.text.get(self.at / 6).ok_or(DecodeError::Truncated)?;
        let bit = VALUES[usize::from(*character)] >> (5 - self.at % 6) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// An unsigned number of `bits` bits, at most 64.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub fn number(&mut self, bits: usize) -> Result<u64, DecodeError> {
        if bits > self.left() || bits > 64 {
            return Err(DecodeError::Truncated);
        }
        let mut value = 0u64;
        for _ in 0..bits {
            value = value << 1 | u64::from(self.flag()?);
        }
        Ok(value)
    }

    /// A number of at most 8 bits.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub fn byte(&mut self, bits: usize) -> Result<u8, DecodeError> {
        u8::try_from(self.number(bits.min(8))?).map_err(|_| DecodeError::OutOfBounds)
    }

    /// A number of at most 16 bits.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub fn short(&mut self, bits: usize) -> Result<u16, DecodeError> {
        u16::try_from(self.number(bits.min(16))?).map_err(|_| DecodeError::OutOfBounds)
    }

    /// A bitfield of `bits` bits, at most 64, as a mask whose lowest bit is the field's first.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub fn mask(&mut self, bits: usize) -> Result<u64, DecodeError> {
        let value = self.number(bits)?;
        Ok(if bits == 0 { 0 } else { value.reverse_bits() >> (64 - bits) })
    }

    /// A Fibonacci-coded number: the sum of the Fibonacci numbers (1, 2, 3, 5 …) whose bits are set, least first, closed
    /// by a second 1 in a row. Source: IAB, GPP Consent String Specification, "Fibonacci Encoding"; 2025-12.
    ///
    /// # Errors
    /// The bits end, or the number is out of any section id's bounds.
    pub fn fibonacci(&mut self) -> Result<u32, DecodeError> {
        let (mut value, mut this, mut next, mut previous_bit) = (0u32, 1u32, 2u32, false);
        for _ in 0..MAX_FIBONACCI_BITS {
            let bit = self.flag()?;
            if bit && previous_bit {
                return Ok(value);
            }
            if bit {
                value += this;
            }
            previous_bit = bit;
            (this, next) = (next, this + next);
        }
        Err(DecodeError::OutOfBounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_across_characters() -> Result<(), DecodeError> {
        // C = 000010, P = 001111
        let mut bits = BitReader::new("CP")?;
        assert_eq!(bits.number(6)?, 2);
        assert_eq!(bits.number(4)?, 3);
        assert_eq!(bits.left(), 2);
        assert_eq!(bits.number(3), Err(DecodeError::Truncated));
        Ok(())
    }

    #[test]
    fn fibonacci_codes_are_those_of_the_specification() -> Result<(), DecodeError> {
        // 11 = 1, 1011 = 4, 000011 = 8; padded with zero bits to whole characters: 110000, 101100, 000011.
        for (text, value) in [("w", 1), ("s", 4), ("D", 8)] {
            assert_eq!(BitReader::new(text)?.fibonacci()?, value, "{text}");
        }
        assert_eq!(BitReader::new("AAAA")?.fibonacci(), Err(DecodeError::OutOfBounds));
        Ok(())
    }

    #[test]
    fn a_mask_has_the_fields_first_bit_lowest() -> Result<(), DecodeError> {
        // g = 100000
        assert_eq!(BitReader::new("gA")?.mask(12)?, 1);
        assert_eq!(BitReader::new("AB")?.mask(12)?, 1 << 11);
        Ok(())
    }
}
