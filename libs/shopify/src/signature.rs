//! Whether a webhook is Shopify's: HMAC-SHA256 over the body's bytes as they came, in base64.
//!
//! Source: shopify.dev/docs/apps/build/webhooks/verify-deliveries; 2026-11.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::settings::Settings;

/// Whether `signature` (the value of `X-Shopify-Hmac-Sha256`) was made over these bytes with the secret or the one before it.
/// Compares in constant time.
#[must_use]
pub fn is_signed(settings: &Settings, body: &[u8], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
    let secrets = std::iter::once(&settings.webhook_secret).chain(&settings.previous_webhook_secret);
    // Both are tried whatever the first says: how long it takes tells nobody which one fits.
    secrets.fold(false, |fits, secret| fits | made_with(secret.expose(), body, &signature))
}

fn made_with(secret: &str, body: &[u8], signature: &[u8]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BODY: &[u8] = br#"{"id":820982911946154508,"total_price":"369.97"}"#;
    /// Made with OpenSSL: `openssl dgst -sha256 -hmac shpss_test_secret -binary | base64`.
    const SIGNATURE: &str = "UZuKd3zobrLvqLt0cjxBVOSJ0Op3AVBa4f5syRTbQM8=";

    fn settings(secret: &str, previous: Option<&str>) -> Settings {
        Settings::parse(
            &json!({"kind": "shopify", "webhook_secret": secret, "previous_webhook_secret": previous}),
        )
        .unwrap()
    }

    #[test]
    fn the_secret_and_the_one_before_it_are_believed() {
        assert!(is_signed(&settings("shpss_test_secret", None), BODY, SIGNATURE));
        assert!(is_signed(&settings("shpss_new_secret", Some("shpss_test_secret")), BODY, SIGNATURE));
        assert!(!is_signed(&settings("shpss_new_secret", None), BODY, SIGNATURE));
    }

    #[test]
    fn another_body_or_what_is_no_signature_is_not() {
        let settings = settings("shpss_test_secret", None);
        assert!(!is_signed(&settings, br#"{"id":820982911946154508,"total_price":"369.98"}"#, SIGNATURE));
        for bad in ["", "%%%", "AAAA", &SIGNATURE[..43], "UZuKd3zobrLvqLt0cjxBVOSJ0Op3AVBa4f5syRTbQM9="] {
            assert!(!is_signed(&settings, BODY, bad), "{bad}");
        }
    }
}
