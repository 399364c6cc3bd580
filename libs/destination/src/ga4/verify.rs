//! Acceptance checks at GA4, by its debug address, which keeps nothing. It looks at neither the secret nor the stream, and the real one
//! answers 2xx to everything: what nobody tells is told as such.

use super::Ga4;
use crate::google::verify::{HashedAt, vectors};
use crate::verify::{Aspect, Check, Sample, Shown, currencies, event_age, hashing, untold};

/// The checks.
pub fn checks(ga4: &Ga4, sample: &Sample) -> Vec<Check> {
    let instead = "GA4 tells nobody whether api_secret and the stream's id are right: send one real event and look for it in Admin > DebugView \
                   or Reports > Realtime";
    let mut checks =
        vec![untold("credentials", Aspect::Credentials, "the secret belongs to the stream", instead)];
    checks.extend(currencies(
        sample,
        "/events/0/params/value",
        "/events/0/params/currency",
        Shown::ToPlatform,
    ));
    let source = "GA4 Measurement Protocol, timestamp_micros; 2026-11";
    checks.extend(event_age(ga4, sample, source, Shown::ToPlatform));
    if ga4.settings.send_user_data {
        let at = HashedAt {
            email: "/user_data/sha256_email_address/0",
            phone: "/user_data/sha256_phone_number/0",
        };
        checks.extend(hashing(sample, &vectors(at)));
    } else {
        let instead =
            "settings.send_user_data is off: nothing about a person is sent, and so nothing is hashed";
        checks.push(untold("hash_email", Aspect::Hashing, "people are hashed as published", instead));
    }
    checks
}
