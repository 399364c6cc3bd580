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
    Some(Usage { percent: percent.round() as u32, regained_after: wait_of(answer) })
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

    fn usage(headers: &[(&'static str, &str)]) -> Option<Usage> {
        let mut answer = Answer::new(200, "{}");
        for (name, text) in headers {
            answer.headers.insert(*name, text.replace('\n', " ").parse().unwrap());
        }
        usage_of(&answer)
    }

    fn used(percent: u32, minutes: Option<u64>) -> Option<Usage> {
        Some(Usage { percent, regained_after: minutes.map(|minutes| Duration::from_secs(minutes * 60)) })
    }

    #[test]
    fn the_fullest_of_all_limits_counts() {
        let app = r#"{"call_count":28,"total_time":25,"total_cputime":61}"#;
        let business = r#"{"1":[{"type":"ads_management","call_count":95,"total_cputime":20,"total_time":20,
            "estimated_time_to_regain_access":0}],"2":[{"call_count":3}]}"#;
        let account = r#"{"acc_id_util_pct":9.67,"reset_time_duration":0}"#;
        assert_eq!(usage(&[("x-app-usage", app)]), used(61, None));
        assert_eq!(usage(&[("x-ad-account-usage", account)]), used(10, None));
        let all =
            [("x-app-usage", app), ("x-business-use-case-usage", business), ("x-ad-account-usage", account)];
        assert_eq!(usage(&all), used(95, None));
        let over = business.replace("95", "120").replace("access\":0", "access\":19");
        assert_eq!(usage(&[("x-business-use-case-usage", over.as_str())]), used(120, Some(19)));
    }

    #[test]
    fn what_is_no_usage_says_nothing() {
        for text in ["", "null", "[]", "{}", "{\"call_count\":\"many\"}", "{\"1\":{\"call_count\":9}}", "NaN"]
        {
            assert_eq!(usage(&[("x-business-use-case-usage", text)]), None, "{text}");
        }
        assert_eq!(usage(&[("x-app-usage", "{\"call_count\":1e300}")]), used(u32::MAX, None));
        assert_eq!(usage(&[("x-app-usage", "{\"call_count\":-5}")]), used(0, None));
        assert_eq!(usage(&[]), None);
    }
}
