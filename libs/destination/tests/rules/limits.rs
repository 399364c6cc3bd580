//! What a connection may send, and with which others it shares that.

use serde_json::{Value, json};
use tracklayer_destination::{Limits, WorkspaceDefaults, open};

use crate::{KINDS, document, opened, with};

fn limits(kind: &str, changes: &[(&str, Value)]) -> Limits {
    let changed = changes.iter().fold(document(kind), |document, (key, value)| {
        with(document, &format!("/settings/{key}"), value.clone())
    });
    *opened(&changed).limits()
}

fn client(id: &str) -> (&'static str, Value) {
    ("oauth/client_id", json!(id))
}

#[test]
fn connections_of_one_cloud_project_share_what_google_allows_it() {
    for kind in ["google_data_manager", "google_ads"] {
        let whose = |changes: &[(&str, Value)]| limits(kind, changes).whose.unwrap();
        let one = whose(&[client("123456789012-abc.apps.googleusercontent.com")]);
        assert_eq!(
            one,
            whose(&[client("123456789012-xyz.apps.googleusercontent.com")]),
            "another client of it"
        );
        for others in [[client("123456789013-abc.apps.googleusercontent.com")], [client("shop-abc")]] {
            assert_ne!(one, whose(&others), "another project: {others:?}");
        }
        // Whoever says where tokens come from has shown nobody else that the client is theirs.
        for (key, value) in
            [("oauth/token_url", "https://tokens.example/token"), ("base_url", "https://google.example")]
        {
            let elsewhere = [client("123456789012-abc.apps.googleusercontent.com"), (key, json!(value))];
            assert_ne!(one, whose(&elsewhere), "{key}");
        }
        assert!(!one.to_string().contains("123456789012"), "only a hash: {one}");
    }
    let of = |kind| limits(kind, &[]).whose;
    assert_ne!(of("google_data_manager"), of("google_ads"), "each API counts for itself");
    for kind in KINDS.into_iter().filter(|kind| !kind.starts_with("google_")) {
        assert_eq!(of(kind), None, "{kind}");
    }
}

#[test]
fn an_operator_says_what_google_has_granted() {
    let of = |kind, changes: &[(&str, Value)]| {
        let limits = limits(kind, changes);
        (limits.requests_per_minute, limits.requests_per_day)
    };
    assert_eq!(of("google_data_manager", &[]), (Some(300), Some(100_000)));
    let granted = [("requests_per_minute", json!(1_200)), ("requests_per_day", json!(500_000))];
    assert_eq!(of("google_data_manager", &granted), (Some(1_200), Some(500_000)));
    for (level, per_day) in [("explorer", Some(2_880)), ("basic", Some(15_000)), ("standard", None)] {
        assert_eq!(of("google_ads", &[("access_level", json!(level))]), (None, per_day), "{level}");
    }
    assert_eq!(of("google_ads", &[]), (None, None), "nobody has said the level");
    for (kind, key, value) in [
        ("google_data_manager", "requests_per_minute", json!(0)),
        ("google_data_manager", "requests_per_day", json!(0)),
        ("google_ads", "access_level", json!("gold")),
    ] {
        let refused =
            open(&with(document(kind), &format!("/settings/{key}"), value), &WorkspaceDefaults::default());
        let errors = refused.err().unwrap().to_string();
        assert!(errors.contains(key), "{kind} {key}: {errors}");
    }
}
