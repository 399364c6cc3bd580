//! Meta going wrong. Throttling comes as HTTP 400 or 403 with `OAuthException`; the headers hold JSON.
//!
//! Source: Meta, Graph API, "Rate limits", and Marketing API, "Error reference"; 2026-11.

use serde_json::json;

use super::answer::Refusal;
use crate::answer::Answer;
use crate::exchange::Inbound;

/// Code 4 with the app's usage.
pub(crate) fn throttled(inbound: &Inbound<'_>) -> Answer {
    refuse(inbound, "4", None)
}

/// The token has expired.
pub(crate) fn expired(inbound: &Inbound<'_>) -> Answer {
    refuse(inbound, "190", Some(463))
}

/// An answer that says that so much of a business's limit is used.
pub(crate) fn near_limit(inbound: &Inbound<'_>, percent: u32, answer: Answer) -> Answer {
    answer.header("x-business-use-case-usage", business_usage(inbound, percent, 0))
}

fn business_usage(inbound: &Inbound<'_>, percent: u32, minutes: u32) -> String {
    let dataset = inbound.path.split('/').nth(2).unwrap_or("0");
    let usage = json!({ dataset: [{
        "type": "ads_management", "call_count": percent, "total_cputime": 20, "total_time": 20,
        "estimated_time_to_regain_access": minutes, "ads_api_access_tier": "standard_access",
    }]});
    usage.to_string()
}

/// Code 2.
pub(crate) fn transient(inbound: &Inbound<'_>, status: u16) -> Answer {
    Answer { status, ..refuse(inbound, "2", None) }
}

/// One event refuses its request: for a key that is not expected, which is named, or for too little to match a person by, which is
/// not. Source: facebook-nodejs-business-sdk issue 258; Setono's client; 2026-11.
pub(crate) fn bad_event(index: usize, named: bool) -> Refusal {
    if named {
        let text = format!("Unexpected key \"x\" on param \"$['data'][{index}]['custom_data']\".");
        Refusal::event(2_804_019, "Server Side Api Parameter Error", text)
    } else {
        let text = "This event does not have enough customer information parameters to be matched.";
        Refusal::event(
            2_804_050,
            "You Haven't Added Sufficient Customer Information Parameter Data For This Event",
            text,
        )
    }
}

/// A code as it comes with its texts and headers.
pub(crate) fn refuse(inbound: &Inbound<'_>, code: &str, subcode: Option<u64>) -> Answer {
    let code: i64 = code.parse().unwrap_or(1);
    let (message, transient): (&str, bool) = match code {
        1 => ("An unknown error occurred", true),
        2 => ("Service temporarily unavailable", true),
        4 => ("(#4) Application request limit reached", true),
        17 => ("(#17) User request limit reached", true),
        32 => ("(#32) Page request limit reached", true),
        368 => ("The action attempted has been deemed abusive or is otherwise disallowed", false),
        613 => ("(#613) Calls to this api have exceeded the rate limit.", false),
        190 => ("Error validating access token: Session has expired", false),
        10 | 200..=299 => ("(#200) Permissions error", false),
        80004 => {
            ("(#80004) There have been too many calls to this ad-account. Wait a bit and try again.", false)
        }
        _ => ("An error occurred", false),
    };
    let subcode = subcode.or(match code {
        17 => Some(2_446_079),
        613 => Some(1_487_742),
        _ => None,
    });
    let status = match code {
        190 => 401,
        // Permissions. Source: Meta, docs/graph-api/guides/error-handling; 2026-11.
        10 | 200..=299 => 403,
        _ => 400,
    };
    let answer =
        Refusal { subcode, transient, ..Refusal::new(status, code, message) }.answer(inbound.localised);
    let usage = json!({ "call_count": 100, "total_time": 25, "total_cputime": 25 });
    match code {
        4 | 17 | 32 => answer.header("x-app-usage", usage.to_string()),
        613 => answer.header(
            "x-ad-account-usage",
            json!({ "acc_id_util_pct": 100, "reset_time_duration": 100, "ads_api_access_tier": "standard_access" })
                .to_string(),
        ),
        80000..=80014 => answer.header("x-business-use-case-usage", business_usage(inbound, 100, 1)),
        _ => answer,
    }
}
