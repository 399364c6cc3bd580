//! What an event could be matched by, as it stands in the payload.

use serde_json::{Value, json};
use tracklayer_destination::quality::left_out;
use tracklayer_destination::{Consent, Item, Key, KeySet};

use crate::{KINDS, build, document, opened, purchase, with};

fn built(document: &Value, event: Value) -> Item {
    build(document, event, Consent::Allow).unwrap()
}

fn keys(item: &Item) -> Vec<Key> {
    item.keys.unwrap().iter().collect()
}

/// The purchase of somebody who says everything about himself.
fn whole_person() -> Value {
    let mut event = purchase();
    event["context"]["traits"] = json!({
        "email": "john_smith@example.com", "phone": "+1 650 555 1212", "firstName": "John", "lastName": "Smith",
        "gender": "m", "birthday": "1980-02-16",
        "address": {
            "street": "1 Hacker Way", "city": "Menlo Park", "state": "CA", "postalCode": "94025", "country": "US",
        },
    });
    event["context"]["device"] = json!({ "advertisingId": "38400000-8cf0-11bd-b23e-10b96e40000d" });
    event["properties"]["fbp"] = json!("fb.1.1596403881668.1116446470");
    event["properties"]["fbc"] = json!("fb.1.1554763741205.AbCdEfGhIjKlMnOpQrStUvWxYz1234567890");
    event["properties"]["ttclid"] = json!("E.C.P.abcdefgh");
    event["properties"]["ttp"] = json!("94e2a4j9-h3ss-k5vi-tqe4-6m1ph1p2bzct");
    event
}

#[test]
fn the_keys_of_an_event_are_those_in_its_payload() {
    use Key::{
        BirthDate, City, ClientId, Country, Email, ExternalId, Fbc, Fbp, FirstName, Gclid, Gender, Ip,
        LastName, MobileAdId, Phone, PostalCode, State, Street, Ttclid, Ttp, UserAgent,
    };
    let cases: [(&str, &[Key]); 5] = [
        (
            "meta_capi",
            &[
                Email, Phone, ExternalId, Fbc, Fbp, FirstName, LastName, BirthDate, Gender, City, State,
                PostalCode, Country, Ip, UserAgent, MobileAdId,
            ],
        ),
        (
            "tiktok_events",
            &[
                Email, Phone, ExternalId, Ttclid, Ttp, FirstName, LastName, City, State, PostalCode, Country,
                Ip, UserAgent, MobileAdId,
            ],
        ),
        ("google_data_manager", &[Email, Phone, Gclid, FirstName, LastName, PostalCode, Country]),
        ("google_ads", &[Email, Phone, Gclid]),
        (
            "ga4_mp",
            &[
                Email, Phone, ExternalId, FirstName, LastName, Street, City, State, PostalCode, Country,
                ClientId,
            ],
        ),
    ];
    for (kind, expected) in cases {
        let mut document = document(kind);
        if kind == "ga4_mp" {
            document = with(document, "/settings/send_user_data", json!(true));
        }
        assert_eq!(keys(&built(&document, whole_person())), expected, "{kind}");
    }
}

/// An enhancement of a conversion is the one item of Google Ads that takes an address.
#[test]
fn an_address_counts_by_its_parts() {
    use Key::{City, Country, Email, FirstName, LastName, Phone, PostalCode, State, Street, UserAgent};
    let document = with(document("google_ads"), "/settings/mode", json!("enhancement"));
    assert_eq!(
        keys(&built(&document, whole_person())),
        [Email, Phone, FirstName, LastName, Street, City, State, PostalCode, Country, UserAgent]
    );
}

#[test]
fn no_event_has_a_key_that_its_platform_does_not_take() {
    for kind in KINDS {
        let document = document(kind);
        let destination = opened(&document);
        let taken = destination.match_keys();
        let matched = built(&document, whole_person()).keys;
        assert_eq!(matched.is_none(), taken.is_empty(), "{kind}");
        let matched = matched.unwrap_or_default();
        assert_eq!(matched.and(taken), taken, "{kind}: {matched:?}");
    }
}

#[test]
fn what_is_of_no_use_is_no_key_and_says_why() {
    let mut event = whole_person();
    event["context"]["traits"]["phone"] = json!("call me");
    event["context"]["traits"]["email"] = json!("nobody");
    event["properties"]["fbp"] = json!("not-a-cookie");
    let item = built(&document("meta_capi"), event);
    let sent = item.keys.unwrap();
    for key in [Key::Phone, Key::Email, Key::Fbp] {
        assert!(!sent.has(key), "{key}");
    }
    let mut left: Vec<Key> = left_out(sent, &item.notes).into_iter().map(|(key, _)| key).collect();
    left.sort_unstable();
    assert_eq!(left, [Key::Email, Key::Phone, Key::Fbp]);

    let mut event = whole_person();
    event["context"]["traits"]["phone"] = json!(["call me", "+1 650 555 1212"]);
    let item = built(&document("meta_capi"), event);
    assert!(item.keys.unwrap().has(Key::Phone));
    assert!(left_out(item.keys.unwrap(), &item.notes).is_empty(), "one of two went out");
}

#[test]
fn a_connection_with_expressions_counts_as_one_without() {
    let plain = document("meta_capi");
    let mut mapped = plain.clone();
    mapped["fields"] = json!({ "email": "\"other@example.com\"" });
    assert_eq!(opened(&mapped).match_keys(), opened(&plain).match_keys());
    assert!(opened(&mapped).quality_request().is_some());
    let without = json!({ "messageId": "m-1", "type": "track", "event": "Lead", "userId": "u-1" });
    let keys = built(&mapped, without).keys.unwrap();
    assert_eq!(keys, KeySet::of(&[Key::Email, Key::ExternalId]), "what an expression gives counts");
}

/// The token stands in a header and the proof is never shown: the address is written into logs of proxies.
#[test]
fn meta_is_asked_with_the_connections_credentials_and_its_fields() {
    let document = with(document("meta_capi"), "/settings/app_secret", json!("s3cret-app"));
    let request = opened(&document).quality_request().unwrap();
    assert_eq!(request.method, "GET");
    assert!(request.url.contains("/dataset_quality?dataset_id=1234567890123456&fields=web%7Bevent_name"));
    let shown = request.masked().to_string();
    assert!(!shown.contains("s3cret") && shown.contains("appsecret_proof=***"), "{shown}");
    assert!(request.full_url().contains("appsecret_proof="));
    for kind in KINDS.into_iter().filter(|kind| *kind != "meta_capi") {
        assert!(opened(&crate::document(kind)).quality_request().is_none(), "{kind}");
    }
}
