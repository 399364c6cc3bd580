//! Acceptance checks at TikTok. Events with a test code are shown under Test Events and not processed; without a code they would be, so
//! nothing is shown without one.
//!
//! Source: TikTok, Events API 2.0, "Test events"; 2026-11.

use super::TikTok;
use crate::outcome::{Answer, Item};
use crate::request::HttpRequest;
use crate::verify::{
    Check, NoTest, Sample, Shown, TestAnswer, Vector, credentials, currencies, event_age, hashing,
    of_outcomes,
};

const NO_CODE: NoTest = NoTest(
    "give a test code (--test-code, or settings.test_event_code): Events Manager, the event source's Test Events tab shows it; without one \
     the events would be processed",
);

const BAD_CODE: NoTest = NoTest(
    "a test code has letters and digits only: copy it anew (--test-code, or settings.test_event_code) from Events Manager, the event \
     source's Test Events tab; with a mistyped one the events might be processed",
);

/// TikTok publishes no example with its digest but in its own tag template.
const VECTORS: [Vector; 1] = [Vector {
    at: "/user/email/0",
    of: "email",
    input: "test@test.com",
    sha256: "f660ab912ec121d1b1e928a0bb4bc61b15f5ad44d5efdc4e1c92a25e99b8e44a",
    source: "tiktok/gtm-template-eapi, template.js; 2026-11",
}];

/// The checks.
pub fn checks(tiktok: &TikTok, sample: &Sample) -> Vec<Check> {
    let source = "settings.max_event_age_days; TikTok's own pages say 7 and 28 days; 2026-11";
    let mut checks = vec![credentials(sample, "the token may send to the event source")];
    checks.extend(currencies(sample, "/properties/value", "/properties/currency", Shown::ToPlatform));
    checks.extend(event_age(tiktok, sample, source, Shown::ToPlatform));
    checks.extend(hashing(sample, &VECTORS));
    checks
}

/// The request that shows items under Test Events.
pub fn request(tiktok: &TikTok, items: &[&Item], test_code: Option<&str>) -> Result<HttpRequest, NoTest> {
    let codes = [test_code, tiktok.settings.test_event_code.as_deref()];
    let code = codes.into_iter().flatten().map(str::trim).find(|code| !code.is_empty()).ok_or(NO_CODE)?;
    if !code.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(BAD_CODE);
    }
    Ok(tiktok.request(items, Some(code)))
}

/// Reads the answer, as a lane reads it.
pub fn read(answer: &Answer, sent: &[&Item]) -> TestAnswer {
    of_outcomes(super::answer::classify(answer, sent))
}
