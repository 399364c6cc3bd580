//! TikTok Events API: Segment's `tiktok-conversions`, which TikTok maintains, with all its automatic presets.

use serde_json::{Value, json};

use super::{EventRule, Platform, Rule, Seen, Who, bare, is_about, is_canonical_of, sha256, squeezed, worth};

const PIXEL: &str = "C4TESTPIXEL0000000000";

pub fn platform() -> Platform {
    Platform {
        name: "TikTok",
        document: json!({ "kind": "tiktok_events", "mode": "live",
            "settings": { "event_source_id": PIXEL, "access_token": "token" } }),
        subscriptions: json!([{ "destination": "tiktok-conversions", "settings": { "accessToken": "token", "pixelCode": PIXEL },
            "action": "presets" }]),
        order_state: |_| None,
        rules: [event(), person(), properties()].into_iter().flatten().collect(),
        event_rules: vec![
            EventRule {
                who: Who::Ours,
                holds: |event, _| event["event"] == "Product List Viewed",
                reason: "a list is viewed content, too (ViewContent with product_group); Segment has no preset for it",
            },
            EventRule {
                who: Who::Theirs,
                holds: |event, why| {
                    let is_of_page =
                        event["context"].get("page").is_none() && event["properties"].get("url").is_none();
                    is_of_page && why.starts_with("invalid_payload") && why.contains("page address")
                },
                reason: "a web event needs page.url (Events API 2.0, parameters): TikTok refuses it with its whole batch; default_page_url helps",
            },
            EventRule {
                who: Who::Theirs,
                holds: |event, why| {
                    let old = ["Order Placed", "Product Clicked"].iter().any(|name| event["event"] == *name);
                    old && why.starts_with("event_not_mapped")
                },
                reason: "PlaceAnOrder and ClickButton end in 2027 (TikTok help, updated standard events, 2026-11); event_map can name them",
            },
            EventRule {
                who: Who::Theirs,
                holds: |event, why| {
                    let others = ["Callback Started", "Download Link Clicked"]
                        .iter()
                        .any(|name| event["event"] == *name);
                    others && why.starts_with("event_not_mapped")
                },
                reason: "Contact and Download for names that are not of Segment's e-commerce spec; event_map can name them",
            },
        ],
    }
}

fn event() -> Vec<Rule> {
    vec![
        Rule {
            places: &["data[].event"],
            holds: |seen| {
                let names = (seen.name(), seen.our_text(), seen.their_text());
                matches!(
                    names,
                    ("Order Completed", "Purchase", "CompletePayment")
                        | ("Form Submitted", "Lead", "SubmitForm")
                        | ("page", "Pageview", "PageView")
                )
            },
            reason: "the names since 2025-05-01 (TikTok help, updated standard events); the old ones are converted. Pageview as TikTok's own tag template",
        },
        Rule {
            places: &["partner_name"],
            holds: |seen| seen.who() == Who::Theirs && seen.their_text() == "Segment",
            reason: "the name of a partner that TikTok has registered; others leave it out (40063)",
        },
        Rule {
            places: &["data[].limited_data_use"],
            holds: |seen| seen.who() == Who::Theirs && seen.theirs == Some(&json!(false)),
            reason: "stated only where it limits (portal 1771101204435970); absent is false",
        },
        Rule {
            places: &["data[].page.url"],
            holds: |seen| {
                let has_page = seen.of_event("/context/page").is_some();
                seen.who() == Who::Ours
                    && !has_page
                    && seen.text_of_event("/properties/url") == Some(seen.our_text())
            },
            reason: "a web event needs page.url (Events API 2.0, parameters): the product's own stands in; Segment sends none",
        },
    ]
}

/// Whether Segment says "nothing" where we say nothing.
fn is_empty(seen: &Seen<'_>) -> bool {
    seen.who() == Who::Theirs && (seen.theirs == Some(&json!("")) || seen.theirs == Some(&json!([])))
}

fn is_of_the_german(seen: &Seen<'_>) -> bool {
    seen.text_of_event("/context/traits/address/country") == Some("de")
}

fn person() -> Vec<Rule> {
    vec![
        Rule {
            places: &[
                "data[].user.first_name",
                "data[].user.last_name",
                "data[].user.zip_code",
                "data[].user.city",
                "data[].user.state",
                "data[].user.country",
                "data[].user.phone",
            ],
            holds: is_empty,
            reason: "what is not known is left out; Segment sends an empty text or list for it",
        },
        Rule {
            places: &["data[].user.first_name", "data[].user.last_name", "data[].user.zip_code"],
            holds: |seen| {
                let (spec, snake) = match seen.path.rsplit('.').next() {
                    Some("first_name") => ("firstName", "/context/traits/first_name"),
                    Some("last_name") => ("lastName", "/context/traits/last_name"),
                    _ => ("address/postalCode", "/context/traits/address/postal_code"),
                };
                let written = seen.text_of_event(&format!("/context/traits/{spec}")).unwrap_or_default();
                let ours = if spec == "address/postalCode" { written[..5].to_owned() } else { bare(written) };
                seen.theirs == Some(&json!(""))
                    && seen.of_event(snake).is_none()
                    && seen.our_text() == sha256(&ours)
            },
            reason: "Segment's spec says firstName, lastName, postalCode; this default reads first_name, last_name, postal_code alone, we read both",
        },
        Rule {
            places: &["data[].user.first_name", "data[].user.last_name"],
            holds: |seen| {
                let pointer = format!("/context/traits/{}", seen.path.rsplit('.').next().unwrap_or_default());
                let written = seen.text_of_event(&pointer).unwrap_or_default();
                seen.our_text() == sha256(&bare(written)) && seen.their_text() == sha256(&squeezed(written))
            },
            reason: "lower case without punctuation (Events API 2.0, parameters, and Segment's own text for the field); its code drops white space only",
        },
        Rule {
            places: &["data[].user.zip_code"],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/address/postal_code").unwrap_or_default();
                written == "D-50667"
                    && seen.our_text() == sha256("50667")
                    && seen.their_text() == sha256("d-50667")
            },
            reason: "no dash (Events API 2.0, parameters) and no country letters; Segment drops white space only",
        },
        Rule {
            places: &["data[].user.city"],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/address/city").unwrap_or_default();
                let latin: String = written.chars().filter(char::is_ascii_alphanumeric).collect();
                seen.our_text() == bare(written)
                    && seen.their_text() == latin.to_lowercase()
                    && latin != bare(written)
            },
            reason: "letters of other alphabets stay (Events API 2.0: UTF-8); Segment drops them, and Köln becomes kln",
        },
        Rule {
            places: &["data[].user.email"],
            holds: |seen| {
                let written = seen.text_of_event("/context/traits/email").unwrap_or_default();
                let address = written.trim().to_lowercase();
                written.trim() != written
                    && seen.ours == Some(&json!([sha256(&address)]))
                    && seen.theirs == Some(&json!([sha256(&written.to_lowercase())]))
            },
            reason: "trimmed (Events API 2.0, parameters); Segment hashes the spaces with it",
        },
        Rule {
            places: &["data[].user.phone"],
            holds: |seen| {
                is_of_the_german(seen)
                    && seen.ours == Some(&json!([sha256("+491712345678")]))
                    && seen.theirs == Some(&json!([sha256("+01712345678")]))
            },
            reason: "E.164 with the country's code (Events API 2.0, parameters); Segment puts a plus before the national digits",
        },
        Rule {
            places: &["data[].user.external_id"],
            holds: |seen| {
                let id =
                    seen.text_of_event("/userId").or(seen.text_of_event("/anonymousId")).unwrap_or_default();
                id.to_lowercase() != id
                    && seen.ours == Some(&json!([sha256(id)]))
                    && seen.theirs == Some(&json!([sha256(&id.to_lowercase())]))
            },
            reason: "the case stays, as in TikTok's own tag template (2026-08); external_id_lower_case is for shops whose pixel lowers it",
        },
        Rule {
            places: &["data[].user.ip"],
            holds: |seen| is_canonical_of(seen.our_text(), seen.their_text()),
            reason: "the same address in its canonical form (RFC 5952)",
        },
        Rule {
            places: &["data[].user.ip"],
            holds: |seen| seen.who() == Who::Theirs && seen.their_text() == "10.0.0.5",
            reason: "a private address is no person's",
        },
    ]
}

/// Whether we have no product to tell of.
fn has_no_product(seen: &Seen<'_>) -> bool {
    !seen.all_ours.contains_key("data[0].properties.contents[0].content_id")
}

fn properties() -> Vec<Rule> {
    vec![
        Rule {
            places: &["data[].properties"],
            holds: |seen| seen.who() == Who::Ours && seen.ours == Some(&json!({})) && has_no_product(seen),
            reason: "nothing to tell; Segment fills it with an empty list and a content_type",
        },
        Rule {
            places: &["data[].properties.content_type"],
            holds: |seen| seen.who() == Who::Theirs && seen.their_text() == "product" && has_no_product(seen),
            reason: "says what the contents' ids are (Events API 2.0, properties), and there are none",
        },
        Rule {
            places: &["data[].properties.contents", "data[].properties.contents[]"],
            holds: |seen| {
                let is_nothing = seen.theirs == Some(&json!([])) || seen.theirs == Some(&json!({}));
                seen.who() == Who::Theirs && is_nothing && has_no_product(seen)
            },
            reason: "no product, no contents; Segment sends an empty list, for a search a product without anything",
        },
        Rule {
            places: &["data[].properties.contents[].content_type"],
            holds: |seen| seen.who() == Who::Ours && seen.our_text() == "product",
            reason: "content_type of each product (Events API 2.0, properties, contents); Segment has no field for it",
        },
        Rule {
            places: &["data[].properties.value"],
            holds: |seen| {
                let is_stated = ["value", "revenue"]
                    .iter()
                    .any(|key| !matches!(seen.event["properties"][key], Value::Null));
                seen.who() == Who::Ours && !is_stated && is_about(seen.ours, worth(seen.event))
            },
            reason: "what the products are worth, price times quantity, where no value is stated; Segment sends none",
        },
    ]
}
