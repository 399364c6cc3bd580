//! The page on which the visit began: `landing_site` is its path and query, with what an ad left there.

use url::Url;

use crate::read::{MAX_TEXT_BYTES, Node, clean};
use crate::settings::Settings;
use crate::webhook::{Headers, plain};
use crate::write::Object;

/// From this length on the address may have been cut off by whoever stored it, so that what stands at its very end may be the
/// beginning of a click id. Shopify says nothing of a limit; columns of 255 characters are usual, and a click id that is cut is worse
/// than none, since platforms refuse it.
const PERHAPS_CUT: usize = 255;
/// Longest address that is taken.
const MAX_BYTES: usize = 1_024;

/// Parameters of a campaign, in Segment's words.
const CAMPAIGN: [(&str, &str); 5] = [
    ("utm_campaign", "name"),
    ("utm_source", "source"),
    ("utm_medium", "medium"),
    ("utm_term", "term"),
    ("utm_content", "content"),
];

/// `context.page` and `context.campaign`.
pub(crate) fn page_and_campaign(
    document: Node<'_>,
    headers: &Headers<'_>,
    settings: &Settings,
) -> (Object, Object) {
    let (mut page, mut campaign) = (Object::default(), Object::default());
    page.text("referrer", document.at("referring_site").text());
    let Some(url) = landing_page(document, headers, settings) else { return (page, campaign) };
    page.text("path", Some(url.path())).text("url", Some(url.as_str()));
    for (parameter, name) in CAMPAIGN {
        let value = url.query_pairs().find(|(key, _)| key == parameter).map(|(_, value)| value);
        campaign.text(name, value.as_deref().map(|value| clean(value, MAX_TEXT_BYTES)));
    }
    (page, campaign)
}

fn landing_page(document: Node<'_>, headers: &Headers<'_>, settings: &Settings) -> Option<Url> {
    let landing = document.at("landing_site").raw_text()?.trim();
    if landing.is_empty() || landing.len() > MAX_BYTES || landing.chars().any(char::is_control) {
        return None;
    }
    let whole = if landing.len() >= PERHAPS_CUT { without_last_parameter(landing) } else { landing };
    let url = if whole.starts_with('/') {
        Url::parse(&format!("https://{}{whole}", storefront(document, headers, settings)?)).ok()?
    } else {
        Url::parse(whole).ok()?
    };
    matches!(url.scheme(), "http" | "https").then_some(url)
}

fn without_last_parameter(address: &str) -> &str {
    address.rfind(['&', '?']).and_then(|end| address.get(..end)).unwrap_or(address)
}

fn storefront(document: Node<'_>, headers: &Headers<'_>, settings: &Settings) -> Option<String> {
    if let Some(host) = &settings.storefront_host {
        return Some(host.clone());
    }
    // Its path opens the order to whoever has it: only the host is taken.
    let status_page = document
        .at("order_status_url")
        .raw_text()
        .or_else(|| document.at("abandoned_checkout_url").raw_text());
    let host = status_page.and_then(|url| Url::parse(url).ok()?.host_str().map(str::to_owned));
    host.or_else(|| plain(headers.shop_domain, 253).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn page(document: &serde_json::Value) -> (String, String) {
        let settings =
            Settings::parse(&json!({"kind": "shopify", "webhook_secret": "shpss_test_secret"})).unwrap();
        let headers = Headers { shop_domain: "northline.myshopify.com", ..Headers::default() };
        let (page, campaign) = page_and_campaign(Node::of(document), &headers, &settings);
        (page.finish(), campaign.finish())
    }

    #[test]
    fn the_landing_page_is_on_the_storefronts_host() {
        let (page, campaign) = page(&json!({
            "landing_site": "/products/jacket?utm_source=google&utm_medium=cpc&gclid=Cj0K_Ab-C",
            "referring_site": "https://www.google.com/",
            "order_status_url": "https://shop.northline.example/548380009/orders/b1946ac92492/authenticate?key=secret",
        }));
        assert_eq!(
            page,
            r#"{"referrer":"https://www.google.com/","path":"/products/jacket","url":"https://shop.northline.example/products/jacket?utm_source=google&utm_medium=cpc&gclid=Cj0K_Ab-C"}"#
        );
        assert_eq!(campaign, r#"{"source":"google","medium":"cpc"}"#);
    }

    #[test]
    fn a_click_id_that_may_be_cut_is_left_out() {
        let landing = format!("/?utm_source=meta&pad={}&fbclid=IwAR0abc", "x".repeat(230));
        let (page, _) = page(&json!({ "landing_site": landing }));
        assert!(page.contains("utm_source=meta") && !page.contains("fbclid"), "{page}");
    }

    #[test]
    fn what_is_no_page_is_none() {
        for landing in [json!("javascript:alert(1)"), json!("\u{0}/"), json!(""), json!(7), json!("//")] {
            let (page, campaign) = page(&json!({ "landing_site": landing }));
            assert!(!page.contains("javascript"), "{page}");
            assert_eq!(campaign, "{}");
        }
    }
}
