//! SHA-256, and telling digests from data.

use sha2::{Digest, Sha256};

/// SHA-256 of nothing. Sources that hash blank fields produce it; it would join everybody whose field was blank.
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// SHA-256 of the text's UTF-8 bytes, as lower-case hex.
pub fn sha256_hex(s: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Digit by digit into a text took as long as the digest itself.
    let mut digits = [0_u8; 64];
    let (pairs, _) = digits.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(Sha256::digest(s.as_bytes()).iter()) {
        *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    // Digits are ASCII: there is nothing that could be no text.
    str::from_utf8(&digits).unwrap_or_default().to_owned()
}

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
