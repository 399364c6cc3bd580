//! How much of Meta's limits is used: headers that hold JSON, beside good answers and bad ones, once an app or an account has made
//! enough calls.
//!
//! Source: Meta, docs/graph-api/overview/rate-limiting; 2026-11. Which `type` of `X-Business-Use-Case-Usage` counts for the
//! Conversions API is not published: the highest of all does.

use std::time::Duration;

use serde_json::Value;

use crate::destination::Usage;
use crate::outcome::Answer;

/// The longest wait that is believed.
const LONGEST_MINUTES: u64 = 24 * 60;

/// What the headers say; none where there are none.
#[must_use]
pub fn usage_of(answer: &Answer) -> Option<Usage> {
    let app = header(answer, "x-app-usage");
    let business = header(answer, "x-business-use-case-usage");
    let account = header(answer, "x-ad-account-usage");
    let shares = app
        .iter()
        .chain(rows(business.as_ref()))
        .flat_map(|row| ["call_count", "total_time", "total_cputime"].map(|key| row.get(key)))
        .chain(account.iter().map(|row| row.get("acc_id_util_pct")));
    let percent = shares
        .flatten()
        .filter_map(Value::as_f64)
        .fold(None, |most: Option<f64>, share| Some(most.map_or(share, |most| most.max(share))))?;
    // A float that is too large, or no number at all, becomes the nearest whole one.
    Some(Usage { percent: percent.round() as u32 })
}

/// The longest wait that the headers name: minutes in `X-Business-Use-Case-Usage`, seconds in `X-Ad-Account-Usage`.
#[must_use]
pub fn wait_of(answer: &Answer) -> Option<Duration> {
    let business = header(answer, "x-business-use-case-usage");
    let business = rows(business.as_ref())
        .filter_map(|row| row.get("estimated_time_to_regain_access")?.as_u64())
        .max()
        .map(|minutes| Duration::from_secs(minutes.min(LONGEST_MINUTES) * 60));
    let account = header(answer, "x-ad-account-usage")
        .and_then(|usage| usage.get("reset_time_duration")?.as_u64())
        .map(|seconds| Duration::from_secs(seconds.min(LONGEST_MINUTES * 60)));
    business.into_iter().chain(account).filter(|wait| !wait.is_zero()).max()
}

fn header(answer: &Answer, name: &str) -> Option<Value> {
    answer.header(name).and_then(|text| serde_json::from_str(text).ok())
}

/// The rows of all businesses.
fn rows(usage: Option<&Value>) -> impl Iterator<Item = &Value> {
    let businesses = usage.and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values);
    businesses.filter_map(Value::as_array).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&'static str, &str)]) -> Answer {
        let mut answer = Answer::new(200, "{}");
        for (name, text) in headers {
            answer.headers.insert(*name, text.replace('\n', " ").parse().unwrap());
        }
        answer
    }

    fn used(headers: &[(&'static str, &str)]) -> Option<u32> {
        usage_of(&answer(headers)).map(|usage| usage.percent)
    }

    const APP: &str = r#"{"call_count":28,"total_time":25,"total_cputime":61}"#;
    const BUSINESS: &str = r#"{"1":[{"type":"ads_management","call_count":95,"total_cputime":20,"total_time":20,
        "estimated_time_to_regain_access":0}],"2":[{"call_count":3}]}"#;
    const ACCOUNT: &str = r#"{"acc_id_util_pct":9.67,"reset_time_duration":0}"#;

    #[test]
    fn the_fullest_of_all_limits_counts() {
        assert_eq!(used(&[("x-app-usage", APP)]), Some(61));
        assert_eq!(used(&[("x-ad-account-usage", ACCOUNT)]), Some(10));
        let all =
            [("x-app-usage", APP), ("x-business-use-case-usage", BUSINESS), ("x-ad-account-usage", ACCOUNT)];
        assert_eq!(used(&all), Some(95));
        let over = BUSINESS.replace("95", "120");
        assert_eq!(used(&[("x-business-use-case-usage", over.as_str())]), Some(120));
    }

    #[test]
    fn the_longest_of_all_waits_counts_and_has_an_end() {
        let wait = |business: &str, account: &str| {
            let headers = [("x-business-use-case-usage", business), ("x-ad-account-usage", account)];
            wait_of(&answer(&headers)).map(|wait| wait.as_secs())
        };
        let (minutes, long) = (
            BUSINESS.replace("access\":0", "access\":19"),
            BUSINESS.replace("access\":0", "access\":999999"),
        );
        let seconds = ACCOUNT.replace("duration\":0", "duration\":2000");
        assert_eq!(wait(BUSINESS, ACCOUNT), None, "none is no wait");
        assert_eq!(wait(&minutes, ACCOUNT), Some(19 * 60));
        assert_eq!(wait(&minutes, &seconds), Some(2_000));
        assert_eq!(wait(&long, &seconds), Some(24 * 3_600));
    }

    #[test]
    fn what_is_no_usage_says_nothing() {
        for text in ["", "null", "[]", "{}", "{\"call_count\":\"many\"}", "{\"1\":{\"call_count\":9}}", "NaN"]
        {
            assert_eq!(used(&[("x-business-use-case-usage", text)]), None, "{text}");
        }
        assert_eq!(used(&[("x-app-usage", "{\"call_count\":1e300}")]), Some(u32::MAX));
        assert_eq!(used(&[("x-app-usage", "{\"call_count\":-5}")]), Some(0));
        assert_eq!(used(&[]), None);
    }
}
