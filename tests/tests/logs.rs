//! The logs of a full run, at the level where most is said, hold no personal data and no secret.

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tracklayer_sandbox::{Fault, How, Platform as AdPlatform, options};
use tracklayer_tests::{Options, Order, Platform, ROLES, Role, SampleDay};

/// Personal data of the sample day's visitors: e-mails, phones, addresses, names, click ids. None is so short a number
/// that a timestamp or a size could hold it by chance: an address is recognised by its city, not by its postcode.
const OF_THE_DAY: [&str; 20] = [
    "@example.com",
    "@Example.COM",
    "%40example",
    "+1 (415)",
    "+1415555",
    "1415555",
    "+49 30 ",
    "+4930",
    "203.0.113.",
    "Élodie",
    "Lindqvist",
    "O'Hara",
    "Okafor",
    "Nuñez",
    "San Francisco",
    "Berlin",
    "fbclid",
    "gclid=",
    "ttclid",
    "utm_source",
];

fn sha256(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[tokio::test]
async fn a_full_run_at_debug_logs_no_personal_data_and_no_secret() {
    let environment = vec![("TRACKLAYER_LOG".to_owned(), "debug".to_owned())];
    let options = Options { environment, lease_ms: Some(1_000), ..Options::default() };
    let mut processes = Platform::processes(options).await.unwrap();

    // A day with everything that makes services talk: a platform that refuses and throttles, a service that goes away,
    // input that cannot be read.
    let sandbox = processes.platform().sandbox();
    let refuses = Fault::Refuse { code: "100".to_owned(), subcode: Some(2_804_019) };
    sandbox.inject(AdPlatform::Meta, refuses, How::Times(2)).await.unwrap();
    sandbox.inject(AdPlatform::TikTok, Fault::HangUpAfterAccepting, How::Times(2)).await.unwrap();
    sandbox.inject(AdPlatform::DataManager, Fault::ExpiredToken, How::Times(1)).await.unwrap();
    sandbox
        .inject(AdPlatform::Webhook, Fault::Status { code: 503, body: None }, How::Times(3))
        .await
        .unwrap();
    let day = SampleDay::start(processes.platform(), 5, 40, 0).unwrap();
    let order = Order::new("logs");
    let http = reqwest::Client::new();
    let platform = processes.platform();
    let url = format!("{}/v1/batch", platform.addresses().ingest_http);
    let unreadable = r#"{"batch":[{"type":"track","userId":"broken@example.com""#.to_owned();
    let mut bad = order.event();
    bad["type"] = json!("refused@example.com");
    let good = json!({ "batch": [order.event(), bad] }).to_string();
    for body in [unreadable, good] {
        let request = http.post(&url).basic_auth(platform.write_key("shop-server"), Some("")).body(body);
        request.send().await.unwrap();
    }
    http.post(&url).basic_auth("a-key-that-is-wrong", Some("")).body("{}").send().await.unwrap();
    day.end().await.unwrap();
    processes.kill(Role::Consent).unwrap();
    processes.start(Role::Consent).await.unwrap();
    let platform = processes.platform();
    platform.settled_story(&order.message_id).await;

    let addresses = platform.addresses();
    let master_key = std::fs::read_to_string(platform.data_dir().join("master.key")).unwrap();
    let mut forbidden: Vec<(String, String)> = Vec::new();
    let mut forbid = |what: &str, text: &str| forbidden.push((what.to_owned(), text.to_owned()));
    OF_THE_DAY.into_iter().for_each(|text| forbid("of a visitor", text));
    forbid("an e-mail's hash", &sha256(&order.email));
    forbid("a user id", &order.user_id);
    forbid("an anonymous id", &order.anonymous_id);
    forbid("the master key", master_key.trim());
    forbid("the admin key", &addresses.admin_key);
    forbid("a wrong write key", "a-key-that-is-wrong");
    addresses.write_keys.iter().for_each(|(source, key)| forbid(&format!("write key of {source}"), key));
    for secret in [
        options::META_TOKEN,
        options::TIKTOK_TOKEN,
        options::GOOGLE_CLIENT_SECRET,
        options::GOOGLE_REFRESH_TOKEN,
        options::GOOGLE_ACCESS_TOKEN,
        options::WEBHOOK_SECRET,
    ] {
        forbid("a platform's credential", secret);
    }

    let mut found = Vec::new();
    for role in ROLES {
        let path = platform.data_dir().join(format!("{}.log", role.as_str()));
        let log = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        assert!(log.contains("\"DEBUG\""), "{} speaks at debug", role.as_str());
        println!("{}: {} lines", role.as_str(), log.lines().count());
        for (what, text) in &forbidden {
            let lines = log.lines().filter(|line| line.contains(text.as_str()));
            found.extend(lines.take(2).map(|line| format!("{what} ({text}) in {}: {line}", role.as_str())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
