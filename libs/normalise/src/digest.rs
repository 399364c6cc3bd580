//! SHA-256, and telling digests from data.

use std::fmt;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// SHA-256 of nothing. Sources that hash blank fields produce it; it would join everybody whose field was blank.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// SHA-256 of the text's UTF-8 bytes, as lower-case hex.
pub fn sha256_hex(s: &str) -> String {
    Sha256Hex::of(s).as_str().to_owned()
}

/// A SHA-256 as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256Hex([u8; 64]);

impl Sha256Hex {
    /// Of the text's UTF-8 bytes.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut digits = [0_u8; 64];
        for (eight, word) in digits.as_chunks_mut::<8>().0.iter_mut().zip(sha256(text.as_bytes())) {
            *eight = hex_of(word);
        }
        Self(digits)
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // They are ASCII: there is nothing that could be no text.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Eight hexadecimal digits, all at once: one by one they took as long as the digest itself.
fn hex_of(word: u32) -> [u8; 8] {
    /// The same in each byte.
    const fn each(byte: u8) -> u64 {
        u64::from_be_bytes([byte; 8])
    }
    let mut nibbles = u64::from(word);
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & each(0x0f);
    // From ten on a letter: 39 further on than the digits.
    let letters = (nibbles + each(6)) >> 4 & each(1);
    (nibbles + each(b'0') + letters * 39).to_be_bytes()
}

/// What fits into one block, as nearly every name and address does, is padded here: what a hasher does around the one compression
/// takes as long as that.
fn sha256(bytes: &[u8]) -> [u32; 8] {
    /// Bytes of a block beside the bit that ends the text and its length.
    const ROOM: usize = 64 - 1 - 8;
    if bytes.len() > ROOM {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        return words;
    }
    let mut block = [0_u8; 64];
    block[..bytes.len()].copy_from_slice(bytes);
    block[bytes.len()] = 0x80;
    block[64 - 8..].copy_from_slice(&(bytes.len() as u64 * 8).to_be_bytes());
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    state
}

/// Source: FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// What a text is when it is looked at as a digest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SHA-256, in lower case.
    Sha256(String),
    /// SHA-256 of the empty text.
    Empty,
    /// 32 hex digits.
    Md5,
    /// As long as a digest of another sort.
    Other,
    /// Data.
    None,
}

/// Tells whether `text` is a digest. Only the length and the alphabet can say so.
pub(crate) fn kind(text: &str) -> Kind {
    if !matches!(text.len(), 32 | 40 | 64 | 96 | 128) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Kind::None;
    }
    match text.len() {
        64 if text.eq_ignore_ascii_case(OF_NOTHING) => Kind::Empty,
        64 => Kind::Sha256(text.to_ascii_lowercase()),
        32 => Kind::Md5,
        _ => Kind::Other,
    }
}

/// Tells whether `text` is a digest with the appendix that Meta's parameter builder puts behind it: a dot and eight
/// characters of base64url, or one of the older two-character marks of a language. It is passed on byte for byte.
///
/// Source: Meta, Conversions API, "Parameter Builder Library"; 2026-06.
pub(crate) fn has_meta_appendix(text: &str) -> bool {
    text.split_once('.').is_some_and(|(digest, appendix)| {
        matches!(kind(digest), Kind::Sha256(_)) && is_meta_appendix(appendix)
    })
}

/// Tells whether `text` is an appendix of Meta's parameter builder (see [`has_meta_appendix`]).
pub(crate) fn is_meta_appendix(text: &str) -> bool {
    match text.len() {
        8 => text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
        2 => matches!(text, "AQ" | "Ag" | "Aw" | "BA" | "BQ" | "Bg"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_published_example_is_the_published_one() {
        assert_eq!(
            sha256_hex("john_smith@gmail.com"),
            "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"
        );
        assert_eq!(sha256_hex(""), OF_NOTHING);
    }

    #[test]
    fn a_text_of_any_length_has_the_digest_that_a_hasher_makes() {
        let text = "Größe ".repeat(30);
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert_eq!(sha256_hex(&text[..end]), hex::encode(Sha256::digest(&text[..end])), "{end} bytes");
        }
    }

    #[test]
    fn only_64_hex_digits_are_taken_for_sha256() {
        let digest = sha256_hex("a");
        assert_eq!(kind(&digest.to_ascii_uppercase()), Kind::Sha256(digest.clone()));
        assert_eq!(kind(&digest[1..]), Kind::None);
        assert_eq!(kind(&digest[32..]), Kind::Md5);
        assert_eq!(kind(OF_NOTHING), Kind::Empty);
        assert_eq!(kind(&format!("g{}", &digest[1..])), Kind::None);
    }

    #[test]
    fn an_appendix_has_eight_characters_or_is_a_known_mark() {
        let digest = sha256_hex("a");
        assert!(has_meta_appendix(&format!("{digest}.AQQCAQIB")));
        assert!(has_meta_appendix(&format!("{digest}.Bg")));
        assert!(!has_meta_appendix(&format!("{digest}.xyz")));
        assert!(!has_meta_appendix(&format!("{digest}.ZZ")));
        assert!(!has_meta_appendix(&digest));
    }
}
