//! `tracklayer connections verify` at the real binary: a connection of each kind passes at its platform's stand-in, and what is wrong
//! with one stands in the row that it belongs to. Nothing of it is counted, kept in the ledger or remembered.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tracklayer_sandbox::options;
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform};
use tracklayer_tests::{Options, Platform, Running};

/// What a verification printed, and how it ended.
struct Verified {
    code: Option<i32>,
    printed: Value,
}

impl Verified {
    fn results(&self) -> BTreeMap<&str, &str> {
        let checks = self.printed["checks"].as_array().unwrap_or_else(|| panic!("{:#}", self.printed));
        checks.iter().map(|c| (c["check"].as_str().unwrap(), c["result"].as_str().unwrap())).collect()
    }

    fn row(&self, check: &str) -> &Value {
        let checks = self.printed["checks"].as_array().unwrap();
        checks.iter().find(|c| c["check"] == check).unwrap_or_else(|| panic!("{check}: {:#}", self.printed))
    }

    /// Every check is good, and so is the end.
    fn assert_good(&self, name: &str, untold: &[&str]) {
        for (check, result) in self.results() {
            let expected = if untold.contains(&check) { "untold" } else { "passed" };
            assert_eq!(result, expected, "{name} {check}: {:#}", self.printed);
        }
        assert_eq!((self.code, &self.printed["passed"]), (Some(0), &json!(true)), "{name}");
    }

    /// The check has failed with these words, and the command with 1.
    fn assert_failed(&self, name: &str, check: &str, words: &str) {
        let row = self.row(check);
        assert_eq!(row["result"], "failed", "{name}: {:#}", self.printed);
        let said = row["said"].as_str().unwrap();
        assert!(said.contains(words), "{name} {check}: {said}");
        assert!(!row["advice"].as_str().unwrap().is_empty(), "{name}: {row:#}");
        assert_eq!((self.code, &self.printed["passed"]), (Some(1), &json!(false)), "{name}");
    }
}

async fn verify(platform: &Running, name: &str, more: &[&str]) -> Verified {
    let mut command = tokio::process::Command::new(platform.binary());
    command.args(["connections", "verify", name, "--output", "json"]).args(more);
    command.arg("--data-dir").arg(platform.data_dir()).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let printed = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}{err}"));
    Verified { code: output.status.code(), printed }
}

async fn put(platform: &Running, name: &str, document: &Value) {
    let file = platform.data_dir().join(format!("{name}.json"));
    std::fs::write(&file, document.to_string()).unwrap();
    let file = file.to_str().unwrap();
    platform.cli(&["connections", "put", name, file, "--accept-errors"]).await.unwrap();
}

/// A document of each kind by its name, and the checks that nobody can tell of.
fn documents(platform: &Running) -> Vec<(&'static str, Value, &'static [&'static str])> {
    let sandbox = &platform.addresses().sandbox;
    let oauth = json!({
        "client_id": options::GOOGLE_CLIENT_ID, "client_secret": options::GOOGLE_CLIENT_SECRET,
        "refresh_token": options::GOOGLE_REFRESH_TOKEN, "token_url": format!("{sandbox}/google-oauth/token"),
    });
    let of = |kind: &str, settings: Value| json!({ "kind": kind, "mode": "live", "settings": settings });
    vec![
        (
            "v-meta",
            of(
                "meta_capi",
                json!({
                    "dataset_id": options::META_DATASET, "access_token": options::META_TOKEN,
                    "base_url": format!("{sandbox}/meta"), "test_event_code": "TEST48213",
                }),
            ),
            // No browser has a pixel there.
            &["pixel_event_id"],
        ),
        (
            "v-tiktok",
            of(
                "tiktok_events",
                json!({
                    "event_source_id": options::TIKTOK_PIXEL, "access_token": options::TIKTOK_TOKEN,
                    "base_url": format!("{sandbox}/tiktok"), "test_event_code": "TEST1",
                }),
            ),
            &[],
        ),
        (
            "v-google",
            of(
                "google_data_manager",
                json!({
                    "operating_account": { "account_id": options::GOOGLE_CUSTOMER },
                    "login_account": { "account_id": options::GOOGLE_LOGIN_CUSTOMER },
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth,
                    "base_url": format!("{sandbox}/data-manager"),
                }),
            ),
            &[],
        ),
        (
            "v-google-ads",
            of(
                "google_ads",
                json!({
                    "customer_id": options::GOOGLE_CUSTOMER, "login_customer_id": options::GOOGLE_LOGIN_CUSTOMER,
                    "conversion_action_id": options::GOOGLE_CONVERSION_ACTION, "oauth": oauth,
                    "base_url": format!("{sandbox}/google-ads"),
                }),
            ),
            &[],
        ),
        (
            "v-ga4",
            of(
                "ga4_mp",
                json!({
                    "measurement_id": options::GA4_MEASUREMENT_ID, "api_secret": options::GA4_API_SECRET,
                    "base_url": format!("{sandbox}/ga4"), "send_user_data": true,
                }),
            ),
            // GA4 tells nobody.
            &["credentials"],
        ),
        (
            "v-webhook",
            of(
                "webhook",
                json!({ "url": format!("{sandbox}/webhook/crm"), "secret": options::WEBHOOK_SECRET }),
            ),
            &["hash_email"],
        ),
        (
            "v-lake",
            of(
                "warehouse",
                json!({ "url": format!("file://{}/warehouse/verified", platform.data_dir().display()) }),
            ),
            &["hash_email"],
        ),
    ]
}

fn with(document: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = document.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[name] = value;
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_passes_at_its_platform_and_nothing_of_it_is_counted_or_kept() {
    let platform = Platform::start(Options::default()).await.unwrap();
    for (name, document, untold) in documents(&platform) {
        put(&platform, name, &document).await;
        let verified = verify(&platform, name, &[]).await;
        verified.assert_good(name, untold);
        let aspects: Vec<&str> = verified.printed["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["aspect"].as_str().unwrap())
            .collect();
        for aspect in ["credentials", "currency", "event_age", "hashing"] {
            assert!(aspects.contains(&aspect), "{name} {aspect}: {aspects:?}");
        }
        // And again: what was shown before is no repetition of anything.
        verify(&platform, name, &[]).await.assert_good(name, untold);
    }

    // What is shown is shown apart; Meta measures it all the same, under a name that is no conversion.
    let sandbox = platform.sandbox();
    let totals = sandbox.totals().await.unwrap();
    for platform in [AdPlatform::GoogleAds, AdPlatform::DataManager, AdPlatform::Ga4] {
        let totals = &totals[&platform];
        assert!(totals.requests > 0, "{platform:?} was asked");
        assert_eq!((totals.counted, totals.events_received), (0, 0), "{platform:?}");
    }
    // Twice: credentials, two currencies, one age.
    assert_eq!((totals[&AdPlatform::TikTok].counted, totals[&AdPlatform::TikTok].test_events), (0, 8));
    assert_eq!((totals[&AdPlatform::Webhook].counted, totals[&AdPlatform::Webhook].test_events), (0, 2));
    assert_eq!(totals[&AdPlatform::Meta].test_events, 8);
    let measured = sandbox.counted(AdPlatform::Meta).await.unwrap();
    assert_eq!(measured.len(), 8, "{measured:?}");
    assert!(measured.iter().all(|event| event.event_name == "TrackLayerTest"), "{measured:?}");

    // Nothing was accepted, and nothing is in any ledger.
    let balance = platform.cli_json(&["ledger", "balance"]).await.unwrap();
    assert_eq!((&balance["received"], &balance["clean"]), (&json!(0), &json!(true)), "{balance:#}");
    for connection in balance["connections"].as_array().unwrap() {
        let events = |state: &Value| state["events"].as_u64().unwrap();
        let states: u64 = connection["states"].as_array().unwrap().iter().map(events).sum();
        assert_eq!(states, 0, "{connection:#}");
    }
    // Nothing is left in the folder.
    let folder = platform.data_dir().join("warehouse/verified/_verify");
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_connection_stands_in_its_row_and_the_command_fails() {
    let platform = Platform::start(Options::default()).await.unwrap();
    let documents = documents(&platform);
    let document = |name: &str| &documents.iter().find(|(known, _, _)| *known == name).unwrap().1;
    let nowhere = "http://127.0.0.1:9";
    let usd = json!({ "currency": "\"USD\"" });
    for (name, pointer, value, check, words) in [
        ("v-meta", "/settings/access_token", json!("wrong"), "credentials", "190"),
        ("v-meta", "/settings/dataset_id", json!("99"), "credentials", "100/33"),
        ("v-meta", "/settings/test_event_code", json!(null), "credentials", "nothing was sent"),
        ("v-meta", "/fields", usd.clone(), "currency_jpy", "/custom_data/currency is \"USD\""),
        ("v-tiktok", "/settings/access_token", json!("wrong"), "credentials", "40105"),
        ("v-tiktok", "/settings/event_source_id", json!("C0OTHER"), "credentials", "40001"),
        // The sandbox takes seven days.
        ("v-tiktok", "/settings/max_event_age_days", json!(28), "age_inside", "4000"),
        ("v-tiktok", "/fields", usd.clone(), "currency_kwd", "/properties/currency is \"USD\""),
        ("v-google", "/settings/oauth/refresh_token", json!("wrong"), "credentials", "invalid_grant"),
        (
            "v-google",
            "/settings/oauth/refresh_token",
            json!(options::GOOGLE_ADS_ONLY_REFRESH_TOKEN),
            "credentials",
            "SCOPE",
        ),
        (
            "v-google",
            "/settings/operating_account/account_id",
            json!("999-999-9999"),
            "credentials",
            "PERMISSION_DENIED",
        ),
        (
            "v-google",
            "/settings/conversion_action_id",
            json!("1"),
            "credentials",
            "INVALID_CONVERSION_ACTION_ID",
        ),
        ("v-google", "/fields", usd.clone(), "currency_jpy", "/currency is \"USD\""),
        (
            "v-google-ads",
            "/settings/customer_id",
            json!("999-999-9999"),
            "credentials",
            "USER_PERMISSION_DENIED",
        ),
        ("v-google-ads", "/settings/conversion_action_id", json!("1"), "credentials", "CONVERSION_ACTION"),
        ("v-google-ads", "/settings/api_version", json!("v20"), "credentials", "UNSUPPORTED_VERSION"),
        ("v-google-ads", "/fields", usd.clone(), "currency_jpy", "/currencyCode is \"USD\""),
        ("v-ga4", "/settings/base_url", json!(nowhere), "currency_jpy", "it could not be sent"),
        ("v-ga4", "/fields", usd, "currency_jpy", "/events/0/params/currency is \"USD\""),
        ("v-webhook", "/settings/secret", json!("whsec_b3RoZXI="), "credentials", "HTTP_401"),
        ("v-webhook", "/settings/url", json!(nowhere), "credentials", "it could not be sent"),
        ("v-lake", "/settings/url", json!("file:///somewhere/else"), "credentials", "warehouse_root"),
    ] {
        put(&platform, name, &with(document(name), pointer, value)).await;
        let told = format!("{name} {pointer}");
        let verified = verify(&platform, name, &[]).await;
        verified.assert_failed(&told, check, words);
        let results = verified.results();
        // Nothing more is sent to a platform that does not let the connection in; what is looked at here is looked at all the same.
        if check == "credentials" && !["v-webhook", "v-lake"].contains(&name) {
            assert_eq!((results["currency_jpy"], results["age_inside"]), ("not_made", "not_made"), "{told}");
            assert_eq!((results["age_outside"], results["hash_email"]), ("passed", "passed"), "{told}");
        }
        let printed = verified.printed.to_string();
        for secret in [options::META_TOKEN, options::GOOGLE_CLIENT_SECRET, options::WEBHOOK_SECRET] {
            assert!(!printed.contains(secret), "{told}: {printed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_code_may_be_given_and_a_token_that_was_revoked_is_renewed_once() {
    let platform = Platform::start(Options::default()).await.unwrap();
    // The sample workspace's own, without a code in its settings, paused.
    platform.cli(&["connections", "pause", "meta", "--reason", "first look"]).await.unwrap();
    verify(&platform, "meta", &[]).await.assert_failed("meta", "credentials", "nothing was sent");
    let meta = verify(&platform, "meta", &["--test-code", "TEST1"]).await;
    meta.assert_good("meta", &["pixel_event_id"]);
    assert!(meta.row("pixel_event_id")["said"].as_str().unwrap().starts_with("not told by Meta yet"));
    let sandbox = platform.sandbox();
    assert_eq!(sandbox.totals().await.unwrap()[&AdPlatform::Meta].test_events, 4);

    verify(&platform, "google", &[]).await.assert_good("google", &[]);
    sandbox.inject(AdPlatform::DataManager, Fault::ExpiredToken, How::Times(1)).await.unwrap();
    verify(&platform, "google", &[]).await.assert_good("google", &[]);

    // An event that the connection does not map is refused here, with its reason.
    let other = verify(&platform, "google", &["--event", "Something Else"]).await;
    other.assert_failed("google", "credentials", "event_not_mapped");

    let text = platform.cli(&["connections", "verify", "google"]).await.unwrap();
    for words in ["check", "what to do", "currency_kwd", "KWD 12.345", "90 days", "Google Ads Help"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
