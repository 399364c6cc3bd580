//! Acceptance checks at Meta. A test code is no dry run: events with one are measured like all others. So what is shown
//! has a name of its own, by which it is no purchase and nobody's campaign is led by it; and nothing is shown without a code.
//!
//! Source: Meta, Conversions API, "Using the API", Test Events tool; 2026-11.

use serde_json::json;

use super::Meta;
use crate::body::ItemBody;
use crate::outcome::{Answer, Item};
use crate::request::HttpRequest;
use crate::verify::{
    Aspect, Check, NoTest, Sample, Shown, TestAnswer, Vector, Way, credentials, currencies, event_age,
    hashing, of_outcomes,
};

/// What Meta is told instead of the event's own name.
pub const TEST_EVENT: &str = "TrackLayerTest";

const NO_CODE: NoTest = NoTest(
    "give a test code (--test-code, or settings.test_event_code): Events Manager, the dataset's Test events tab shows it, `TEST…`; without \
     one the events would be taken for real ones",
);

const VECTORS: [Vector; 2] = [
    Vector {
        at: "/user_data/em/0",
        of: "email",
        input: "John_Smith@gmail.com",
        sha256: "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
        source: "Meta, \"Customer Information Parameters\"; 2026-11",
    },
    Vector {
        at: "/user_data/ph/0",
        of: "phone",
        input: "+1 (650) 555-1212",
        sha256: "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
        source: "Meta, \"Customer Information Parameters\"; 2026-11",
    },
];

/// The checks.
pub fn checks(meta: &Meta, sample: &Sample) -> Vec<Check> {
    let source = "Meta, Conversions API, \"Server Event Parameters\", event_time; 2026-11";
    let mut checks = vec![credentials(sample, "the token may send to the dataset")];
    checks.extend(currencies(sample, "/custom_data/value", "/custom_data/currency", Shown::ToPlatform));
    checks.extend(event_age(meta, sample, source, Shown::ToPlatform));
    checks.extend(hashing(sample, &VECTORS));
    checks.push(Check {
        name: "pixel_event_id",
        aspect: Aspect::Pixel,
        looks_at: "the browser's pixel sends the same event ids (Meta, \"Dataset Quality API\"; 2026-11)"
            .to_owned(),
        way: Way::Ask,
    });
    checks
}

/// The request that shows items under Test Events.
pub fn request(meta: &Meta, items: &[&Item], test_code: Option<&str>) -> Result<HttpRequest, NoTest> {
    let code = test_code.or(meta.settings.test_event_code.as_deref()).ok_or(NO_CODE)?;
    let renamed: Vec<ItemBody> = items
        .iter()
        .map(|item| {
            let mut body = item.body.to_value();
            if let Some(body) = body.as_object_mut() {
                body.insert("event_name".to_owned(), json!(TEST_EVENT));
            }
            ItemBody::of(&body)
        })
        .collect();
    Ok(meta.request(renamed.iter().collect(), Some(code)))
}

/// Reads the answer, as a lane reads it.
pub fn read(answer: &Answer, sent: &[&Item]) -> TestAnswer {
    of_outcomes(super::answer::classify(answer, sent))
}
