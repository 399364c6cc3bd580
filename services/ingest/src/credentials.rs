//! Write keys in all the ways in which SDKs send them. A key names a source, it proves nothing.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Takes padded and unpadded text.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What an `authorization` value holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// `Basic`: the user name is the write key.
    WriteKey(String),
    /// `Bearer`: an OAuth token, beside which the write key is in the body; or, on gRPC, the write key itself.
    Token(String),
}

/// Reads an `authorization` value. `None` if it is neither scheme, or has nothing in it.
#[must_use]
pub fn authorization(value: &str) -> Option<Authorization> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
        // Segment decodes a user name without its colon, too, for old clients. Source: HTTP API, "Authentication"; 2025-11.
        let key = decoded.split(':').next().unwrap_or_default().trim();
        return (!key.is_empty()).then(|| Authorization::WriteKey(key.to_owned()));
    }
    if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
        return Some(Authorization::Token(rest.to_owned()));
    }
    None
}

/// The key that counts: the header's, then the body's, then the query's; last a bearer token that may be one.
/// The flag says that header and body name two keys.
#[must_use]
pub fn choose<'a>(
    authorization: Option<&'a Authorization>,
    body: Option<Cow<'a, str>>,
    query: Option<Cow<'a, str>>,
) -> (Option<Cow<'a, str>>, bool) {
    match authorization {
        Some(Authorization::WriteKey(key)) => {
            let mismatch = body.is_some_and(|body| body != key.as_str());
            (Some(Cow::Borrowed(key)), mismatch)
        }
        Some(Authorization::Token(token)) => (body.or(query).or(Some(Cow::Borrowed(token))), false),
        None => (body.or(query), false),
    }
}

/// Decodes base64 as pixels carry it: standard or URL alphabet, padded or not, plus signs turned into spaces.
#[must_use]
pub fn pixel_data(data: &str) -> Option<Vec<u8>> {
    let standard: String = data
        .chars()
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            ' ' => '+',
            other => other,
        })
        .collect();
    BASE64.decode(standard.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_is_read_with_and_without_colon_padding_and_case() {
        let key = Some(Authorization::WriteKey("wk_test".into()));
        for value in
            ["Basic d2tfdGVzdDo=", "basic d2tfdGVzdDo", "BASIC d2tfdGVzdA==", "Basic d2tfdGVzdDpwYXNz"]
        {
            assert_eq!(authorization(value), key, "{value}");
        }
        assert_eq!(authorization("Bearer abc"), Some(Authorization::Token("abc".into())));
        for value in ["", "Basic", "Basic Og==", "Basic %%%", "Digest x", "Bearer "] {
            assert_eq!(authorization(value), None, "{value}");
        }
    }

    #[test]
    fn the_header_wins_over_the_body_and_the_body_over_the_query() {
        let header = Authorization::WriteKey("h".into());
        let token = Authorization::Token("t".into());
        let (body, query) = (|| Some(Cow::Borrowed("b")), || Some(Cow::Borrowed("q")));
        assert_eq!(choose(Some(&header), body(), query()), (Some("h".into()), true));
        assert_eq!(choose(Some(&header), Some("h".into()), None), (Some("h".into()), false));
        assert_eq!(choose(Some(&token), body(), query()), (Some("b".into()), false));
        assert_eq!(choose(Some(&token), None, None), (Some("t".into()), false));
        assert_eq!(choose(None, body(), query()), (Some("b".into()), false));
        assert_eq!(choose(None, None, query()), (Some("q".into()), false));
        assert_eq!(choose(None, None, None), (None, false));
    }

    #[test]
    fn pixel_data_is_read_in_both_alphabets() {
        let bytes = [0xfb, 0xff, 0xfe, 0x01];
        for text in ["+//+AQ==", "-__-AQ", " //+AQ", "+//+AQ"] {
            assert_eq!(pixel_data(text).as_deref(), Some(bytes.as_slice()), "{text}");
        }
        assert_eq!(pixel_data("!"), None);
    }
}
