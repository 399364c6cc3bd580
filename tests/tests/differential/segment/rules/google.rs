//! Google Ads API: Segment's `google-enhanced-conversions`. Its actions have no event and no conversion action of their own, so
//! both are named here, and nothing else.

use serde_json::{Value, json};

use super::{EventRule, Platform, Rule, Seen, Who, bare, is_about, sha256};

const CUSTOMER: &str = "123-456-7890";
const ACTION: &str = "987654321";
const ADJUSTMENT: &str = "uploadConversionAdjustment2";

fn document(mode: &str) -> Value {
    let oauth = json!({ "client_id": "client", "client_secret": "secret", "refresh_token": "refresh" });
    json!({ "kind": "google_ads", "mode": "live",
        "settings": { "customer_id": CUSTOMER, "conversion_action_id": ACTION, "mode": mode, "oauth": oauth } })
}

fn action(name: &str, event: &str, mut mapping: Value) -> Value {
    mapping["conversion_action"] = json!(987_654_321);
    json!({ "destination": "google-enhanced-conversions", "settings": { "customerId": CUSTOMER }, "action": name,
        "subscribe": format!("type = \"track\" and event = \"{event}\""), "mapping": mapping })
}

/// Conversions of orders, and their retractions.
pub fn conversions() -> Platform {
    let retraction = || json!({ "adjustment_type": "RETRACTION" });
    Platform {
        name: "Google click conversions",
        document: document("conversion"),
        subscriptions: json!([
            action("uploadClickConversion2", "Order Completed", json!({})),
            action(ADJUSTMENT, "Order Refunded", retraction()),
            action(ADJUSTMENT, "Order Cancelled", retraction()),
        ]),
        order_state: |_| {
            Some(json!({ "value": 40.98, "total": 47.48, "currency": "USD", "at": "2026-11-20T10:00:00Z" }))
        },
        rules: [request(), identifiers(), conversion(), retraction_rules()].into_iter().flatten().collect(),
        event_rules: vec![EventRule {
            who: Who::Ours,
            holds: |event, _| event["event"] == "Order Updated",
            reason: "an updated order restates its conversion; Segment's adjustments have no event of their own, and none is named here",
        }],
    }
}

/// Identifiers for conversions that the tag has reported.
pub fn enhancements() -> Platform {
    Platform {
        name: "Google enhanced conversions for web",
        document: document("enhancement"),
        subscriptions: json!([action(
            ADJUSTMENT,
            "Order Completed",
            json!({ "adjustment_type": "ENHANCEMENT" })
        )]),
        order_state: |_| None,
        rules: [request(), identifiers(), enhancement()].into_iter().flatten().collect(),
        event_rules: vec![EventRule {
            who: Who::Ours,
            holds: |event, _| event["event"] == "Order Updated" || event["event"] == "Order Cancelled",
            reason: "an updated order restates its conversion, a cancelled one retracts it; Segment's adjustments have no event of their own",
        }],
    }
}

fn request() -> Vec<Rule> {
    vec![
        Rule {
            places: &["(url)"],
            holds: |seen| seen.our_text() == seen.their_text().replace("/v21/", "/v26/"),
            reason: "v26 is the newest of 2026-11; v21, which Segment's package has, ended on 2026-08-05 (Google Ads API, sunset dates)",
        },
        Rule {
            places: &["validateOnly"],
            holds: |seen| seen.who() == Who::Ours && seen.ours == Some(&json!(false)),
            reason: "said although false is the default (googleads v26 UploadClickConversionsRequest)",
        },
    ]
}

fn identifiers() -> Vec<Rule> {
    vec![
        Rule {
            places: &[
                "conversions[].userIdentifiers[].hashedEmail",
                "conversionAdjustments[].userIdentifiers[].hashedEmail",
            ],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/email").unwrap_or_default();
                written == " Max.Muster+shop@GMail.com "
                    && seen.our_text() == sha256("maxmuster@gmail.com")
                    && seen.their_text() == sha256("maxmuster+shop@gmail.com")
            },
            reason: "gmail.com loses dots and what follows a plus (Data Manager API, Format user data, 2026-11); Segment drops one dot",
        },
        Rule {
            places: &[
                "conversions[].userIdentifiers[].hashedEmail",
                "conversionAdjustments[].userIdentifiers[].hashedEmail",
            ],
            holds: |seen| {
                let digest = seen.text_of_event("/context/traits/email").unwrap_or_default();
                seen.their_text() == digest && seen.our_text() == digest.to_lowercase() && digest.len() == 64
            },
            reason: "a digest goes out in lower-case hex (Data Manager API, Format user data, 2026-11); Segment passes it as it came",
        },
        Rule {
            places: &[
                "conversions[].userIdentifiers[].hashedPhoneNumber",
                "conversionAdjustments[].userIdentifiers[].hashedPhoneNumber",
            ],
            holds: |seen| {
                seen.text_of_event("/context/traits/phone") == Some("0171 2345678")
                    && seen.text_of_event("/context/traits/address/country") == Some("de")
                    && seen.our_text() == sha256("+491712345678")
                    && seen.their_text() == sha256("+101712345678")
            },
            reason: "E.164 by the address's country (Data Manager API, Format user data, 2026-11); Segment takes every number for American",
        },
    ]
}

/// Google gave these to accounts of its allowlist only. Source: Google Ads API, deprecations: closed since 2026-02-02.
const ALLOWLISTED: &str = "IP address and session attributes are closed to new adopters since 2026-02-02 (Google Ads API, deprecations)";
const NO_MERCHANT: &str = "cart data are matched in a Merchant Center account (googleads v26 CartData): ours go out with merchant_id; Segment sends them without";

fn conversion() -> Vec<Rule> {
    vec![
        Rule {
            places: &["conversions[].conversionDateTime", "conversionAdjustments[].adjustmentDateTime"],
            holds: |seen| {
                seen.their_text().contains(".250+")
                    && seen.our_text() == seen.their_text().replace(".250", "")
            },
            reason: "yyyy-mm-dd hh:mm:ss±hh:mm has no fraction (googleads v26 ClickConversion); Segment cuts it off in UTC only",
        },
        Rule {
            places: &["conversions[].conversionValue"],
            holds: |seen| {
                let number = |key| seen.event["properties"][key].as_f64().unwrap_or(-1.0);
                is_about(seen.ours, number("revenue")) && is_about(seen.theirs, number("total"))
            },
            reason: "what a purchase is worth is one setting of the workspace for all platforms, by default revenue; Segment's default here is total",
        },
        Rule {
            places: &["conversions[].gclid"],
            holds: |seen| {
                let of_page =
                    seen.text_of_event("/context/page/url").is_some_and(|url| url.contains("&gclid=Cj0xyz&"));
                let stated = seen.text_of_event("/properties/gclid").or(of_page.then_some("Cj0xyz"));
                seen.who() == Who::Ours && stated == Some(seen.our_text())
            },
            reason: "gclid of the event, else of the page's address; Segment's default maps none",
        },
        Rule {
            places: &["conversions[].consent.adUserData"],
            holds: |seen| seen.who() == Who::Ours && seen.our_text() == "GRANTED",
            reason: "consent was decided and is stated (googleads v26 Consent); Segment's default states none",
        },
        Rule {
            places: &["conversions[].conversionEnvironment"],
            holds: |seen| seen.who() == Who::Ours && seen.our_text() == "WEB",
            reason: "WEB or APP by the event's channel (googleads v26 ConversionEnvironment); Segment's default states none",
        },
        Rule {
            places: &["conversions[].userIpAddress"],
            holds: |seen| {
                seen.who() == Who::Theirs && seen.text_of_event("/context/ip") == Some(seen.their_text())
            },
            reason: ALLOWLISTED,
        },
        Rule {
            places: &[
                "conversions[].sessionAttributesKeyValuePairs.keyValuePairs[].sessionAttributeKey",
                "conversions[].sessionAttributesKeyValuePairs.keyValuePairs[].sessionAttributeValue",
            ],
            holds: |seen| {
                let known = ["/context/page/url", "/context/page/referrer", "/context/userAgent"];
                let is_key = seen.their_text().starts_with("landing_page_");
                seen.who() == Who::Theirs
                    && (is_key || known.iter().any(|at| seen.text_of_event(at) == Some(seen.their_text())))
            },
            reason: ALLOWLISTED,
        },
        Rule {
            places: &[
                "conversions[].cartData.items[].productId",
                "conversions[].cartData.items[].quantity",
                "conversions[].cartData.items[].unitPrice",
            ],
            holds: |seen| {
                seen.who() == Who::Theirs
                    && !seen.all_theirs.contains_key("conversions[0].cartData.merchantId")
            },
            reason: NO_MERCHANT,
        },
    ]
}

/// Whether this is an adjustment of that kind.
fn is_adjustment(seen: &Seen<'_>, kind: &str) -> bool {
    seen.all_theirs.get("conversionAdjustments[0].adjustmentType") == Some(&json!(kind))
}

fn no_pair() -> Rule {
    Rule {
        places: &["conversionAdjustments[].gclidDateTimePair"],
        holds: |seen| seen.who() == Who::Theirs && seen.theirs == Some(&json!({})),
        reason: "an empty pair says nothing; the order id is the key (googleads v26 ConversionAdjustment)",
    }
}

fn retraction_rules() -> Vec<Rule> {
    vec![
        no_pair(),
        Rule {
            places: &["conversionAdjustments[].userAgent"],
            holds: |seen| seen.who() == Who::Theirs && is_adjustment(seen, "RETRACTION"),
            reason: "user agents are for enhancements (googleads v26 ConversionAdjustment.user_agent)",
        },
        Rule {
            places: &[
                "conversionAdjustments[].userIdentifiers[].hashedEmail",
                "conversionAdjustments[].userIdentifiers[].hashedPhoneNumber",
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedFirstName",
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedLastName",
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedStreetAddress",
                "conversionAdjustments[].userIdentifiers[].addressInfo.city",
                "conversionAdjustments[].userIdentifiers[].addressInfo.state",
                "conversionAdjustments[].userIdentifiers[].addressInfo.countryCode",
                "conversionAdjustments[].userIdentifiers[].addressInfo.postalCode",
            ],
            holds: |seen| seen.who() == Who::Theirs && is_adjustment(seen, "RETRACTION"),
            reason: "identifiers are for enhancements (googleads v26 ConversionAdjustment.user_identifiers); a retraction needs the order id alone",
        },
    ]
}

fn enhancement() -> Vec<Rule> {
    vec![
        no_pair(),
        Rule {
            places: &["conversionAdjustments[].restatementValue"],
            holds: |seen| {
                seen.who() == Who::Theirs
                    && seen.theirs == Some(&json!({}))
                    && is_adjustment(seen, "ENHANCEMENT")
            },
            reason: "an enhancement restates nothing (googleads v26 ConversionAdjustment.restatement_value)",
        },
        Rule {
            places: &["conversionAdjustments[].adjustmentDateTime"],
            holds: |seen| seen.who() == Who::Theirs && is_adjustment(seen, "ENHANCEMENT"),
            reason: "an enhancement changes the conversion at no time of its own: Google's own sample for it sets none (google-ads-python, 2026-08)",
        },
        Rule {
            places: &[
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedFirstName",
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedLastName",
                "conversionAdjustments[].userIdentifiers[].addressInfo.hashedStreetAddress",
            ],
            holds: |seen| {
                let (pointer, keeps_spaces) = match seen.path.rsplit('.').next() {
                    Some("hashedFirstName") => ("/context/traits/firstName", false),
                    Some("hashedLastName") => ("/context/traits/lastName", false),
                    _ => ("/context/traits/address/street", true),
                };
                let written = seen.text_of_event(pointer).unwrap_or_default();
                let ours = if keeps_spaces { written.to_lowercase() } else { bare(written) };
                seen.our_text() == sha256(&ours) && seen.their_text() == sha256(written)
            },
            reason: "lower case and no punctuation before hashing (Data Manager API, Format user data, 2026-11); Segment hashes as written",
        },
        Rule {
            places: &[
                "conversionAdjustments[].userIdentifiers[].addressInfo.city",
                "conversionAdjustments[].userIdentifiers[].addressInfo.state",
            ],
            holds: |seen| {
                let ours: String = seen
                    .their_text()
                    .to_lowercase()
                    .chars()
                    .filter(|c| c.is_alphanumeric() || *c == ' ')
                    .collect();
                seen.who() == Who::Both && seen.our_text() == ours
            },
            reason: "lower case without symbols (Data Manager API, Format user data, 2026-11); Segment passes the text as written",
        },
        Rule {
            places: &["conversionAdjustments[].userIdentifiers[].addressInfo.city"],
            holds: |seen| seen.who() == Who::Theirs && seen.their_text().trim().is_empty(),
            reason: "a blank city is none, and an address needs names, country and postal code (googleads v26 OfflineUserAddressInfo)",
        },
        Rule {
            places: &["conversionAdjustments[].userIdentifiers[].addressInfo.countryCode"],
            holds: |seen| seen.our_text() == seen.their_text().to_uppercase() && seen.our_text().len() == 2,
            reason: "ISO 3166-1 alpha-2 in upper case (googleads v26 OfflineUserAddressInfo)",
        },
    ]
}
