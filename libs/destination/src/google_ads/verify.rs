//! Acceptance checks at the Google Ads API, by `validateOnly`.

use super::GoogleAds;
use super::settings::UploadMode;
use crate::google::verify::{AGE_SOURCE, HashedAt, vectors};
use crate::outcome::Answer;
use crate::trial::Trial;
use crate::verify::{
    Aspect, Check, Sample, Shown, TestAnswer, credentials, currencies, event_age, hashing, of_trial, untold,
};

/// What Google says of an upload in which nothing is wrong but that there is nobody it could be about. Source: googleads v26
/// `ConversionUploadError`, `ConversionAdjustmentUploadError`; 2026-11.
const NOBODY: [&str; 2] = ["CLICK_NOT_FOUND", "CONVERSION_NOT_FOUND"];

/// The checks.
pub fn checks(google_ads: &GoogleAds, sample: &Sample) -> Vec<Check> {
    let at =
        HashedAt { email: "/userIdentifiers/0/hashedEmail", phone: "/userIdentifiers/0/hashedPhoneNumber" };
    let mut checks =
        vec![credentials(sample, "the token may upload to the customer and its conversion action")];
    let source = match google_ads.settings.mode {
        UploadMode::Conversion => {
            checks.extend(currencies(sample, "/conversionValue", "/currencyCode", Shown::ToPlatform));
            AGE_SOURCE
        }
        UploadMode::Enhancement => {
            let instead = "an enhancement has no amount: the tag has told it";
            checks.push(untold("currency", Aspect::Currency, "amounts", instead));
            "Google Ads API, \"enhanced conversions for web\"; 2026-11"
        }
    };
    checks.extend(event_age(google_ads, sample, source, Shown::ToPlatform));
    checks.extend(hashing(sample, &vectors(at)));
    checks
}

/// Reads the answer. Test events are about nobody, so that Google finds neither a click nor a conversion of theirs: that is as it
/// should be.
pub fn read(trial: Trial, answer: &Answer) -> TestAnswer {
    match trial {
        Trial::Found(findings) if findings.iter().all(|finding| NOBODY.contains(&finding.code.as_str())) => {
            TestAnswer::Taken { note: Some("valid; there is no click behind a test event".to_owned()) }
        }
        trial => of_trial(trial, answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Finding;

    #[test]
    fn that_nobody_is_behind_a_test_event_is_no_fault_and_everything_else_is() {
        let finding = |code: &str| Finding {
            index: Some(0),
            field: String::new(),
            code: code.to_owned(),
            detail: String::new(),
        };
        let answer = Answer::new(200, "{}");
        let told = |codes: &[&str]| {
            let findings = codes.iter().copied().map(finding).collect();
            read(Trial::Found(findings), &answer)
        };
        assert!(matches!(told(&["CLICK_NOT_FOUND"]), TestAnswer::Taken { note: Some(_) }));
        assert!(matches!(told(&["CLICK_NOT_FOUND", "UNSUPPORTED"]), TestAnswer::Refused { .. }));
        assert!(matches!(told(&["NO_CONVERSION_ACTION_FOUND"]), TestAnswer::Refused { .. }));
    }
}
