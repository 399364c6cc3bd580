//! The US Privacy string of old, "1YNN": version, notice given, opted out of sale, covered by the LSPA.
//!
//! Source: IAB, US Privacy String, version 1; deprecated 2024-01 in favour of GPP, still sent.

use super::DecodeError;

/// Yes, no, or not applicable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `Y`.
    Yes,
    /// `N`.
    No,
    /// `-`.
    NotApplicable,
}

/// What the string says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsPrivacy {
    /// Whether notice and the chance to opt out were given.
    pub notice: Answer,
    /// Whether the person opted out of sale.
    pub opt_out_sale: Answer,
    /// Whether the transaction is covered by the LSPA.
    pub lspa_covered: Answer,
}

impl UsPrivacy {
    /// Decodes four characters; small letters are taken.
    ///
    /// # Errors
    /// Another length, version or letter.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let [version, notice, opt_out_sale, lspa_covered] = text.as_bytes() else {
            return Err(match text.len() {
                0 => DecodeError::Empty,
                1..4 => DecodeError::Truncated,
                _ => DecodeError::TooLong,
            });
        };
        if *version != b'1' {
            return Err(DecodeError::UnknownVersion);
        }
        Ok(Self {
            notice: answer(*notice)?,
            opt_out_sale: answer(*opt_out_sale)?,
            lspa_covered: answer(*lspa_covered)?,
        })
    }
}

fn answer(letter: u8) -> Result<Answer, DecodeError> {
    match letter {
        b'Y' | b'y' => Ok(Answer::Yes),
        b'N' | b'n' => Ok(Answer::No),
        b'-' => Ok(Answer::NotApplicable),
        _ => Err(DecodeError::BadCharacter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_applicable_everywhere_is_a_statement_too() -> Result<(), DecodeError> {
        assert_eq!(UsPrivacy::decode("1---")?.opt_out_sale, Answer::NotApplicable);
        assert_eq!(UsPrivacy::decode("1YYN")?.opt_out_sale, Answer::Yes);
        assert_eq!(UsPrivacy::decode("2YYN"), Err(DecodeError::UnknownVersion));
        assert_eq!(UsPrivacy::decode("1YXN"), Err(DecodeError::BadCharacter));
        assert_eq!(UsPrivacy::decode("1Yé"), Err(DecodeError::BadCharacter));
        Ok(())
    }
}
