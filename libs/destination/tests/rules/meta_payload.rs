//! What Meta takes beside the vectors: every action source, the ids that it gave out itself, and its own fields.

use serde_json::{Map, Value, json};
use tracklayer_destination::preview::batches;
use tracklayer_destination::{Consent, Item, RefusalCode};

use crate::{build, document, opened, purchase, with};

/// The purchase with more properties.
fn having(properties: Value) -> Value {
    let mut event = purchase();
    event["properties"].as_object_mut().unwrap().extend(properties.as_object().cloned().unwrap());
    event
}

fn body(properties: Value) -> Value {
    build(&document("meta_capi"), having(properties), Consent::Allow).unwrap().body.to_value()
}

/// The noted fields with the codes of their reasons.
fn noted(properties: Value) -> Vec<(String, &'static str)> {
    let item = build(&document("meta_capi"), having(properties), Consent::Allow).unwrap();
    item.notes.iter().map(|note| (note.field.to_string(), note.reason.code())).collect()
}

/// Meta, "Server Event Parameters": website needs address and user agent, app needs app_data, others nothing but their name.
#[test]
fn every_action_source_goes_out_with_what_it_needs() {
    let of_whatsapp = json!({
        "messaging_channel": "whatsapp", "ctwa_clid": "AbC", "whatsapp_business_account_id": "12345"
    });
    let sources = [
        "email",
        "website",
        "app",
        "phone_call",
        "chat",
        "physical_store",
        "system_generated",
        "business_messaging",
        "other",
    ];
    for source in sources {
        let mut event = having(of_whatsapp.clone());
        event["properties"]["action_source"] = json!(source);
        event["context"]["os"] = json!({ "name": "Android", "version": "14" });
        let body = build(&document("meta_capi"), event, Consent::Allow).unwrap().body.to_value();
        assert_eq!(body["action_source"], source);
        assert_eq!(body.get("event_source_url").is_some(), source == "website", "{source}");
        assert_eq!(body.get("app_data").is_some(), source == "app", "{source}");
        assert_eq!(body.get("messaging_channel").is_some(), source == "business_messaging", "{source}");
        assert_eq!(body["user_data"].get("ctwa_clid").is_some(), source == "business_messaging", "{source}");
        assert!(body["user_data"]["client_user_agent"].is_string(), "{source}");
    }
}

/// Meta, "App Data Parameters": both flags inside app_data, and 16 values of which the first and the fifth are there.
#[test]
fn an_app_event_says_which_device_it_was_and_what_may_be_tracked() {
    let app = |device: Value, collecting: Value| {
        let mut event = having(json!({ "action_source": "app", "application_tracking_enabled": collecting }));
        event["context"]["os"] = json!({ "name": "iOS", "version": "17.1" });
        event["context"]["device"] = device;
        let item = build(&document("meta_capi"), event, Consent::Allow).unwrap();
        item.body.to_value()["app_data"].clone()
    };
    for (device, collecting, flags) in [
        (json!({ "adTrackingEnabled": true }), Value::Null, (1, 1)),
        (json!({ "adTrackingEnabled": false, "trackingStatus": "authorized" }), Value::Null, (0, 1)),
        (json!({ "trackingStatus": "authorized" }), Value::Null, (1, 1)),
        (json!({ "trackingStatus": "denied" }), json!(false), (0, 0)),
        (json!({}), json!(true), (0, 1)),
    ] {
        let data = app(device.clone(), collecting);
        let told = (&data["advertiser_tracking_enabled"], &data["application_tracking_enabled"]);
        assert_eq!(told, (&json!(flags.0), &json!(flags.1)), "{device}");
        let extinfo = data["extinfo"].as_array().unwrap();
        assert_eq!(extinfo.len(), 16);
        assert!(extinfo.iter().all(Value::is_string), "{data}");
        assert_eq!((&extinfo[0], &extinfo[4]), (&json!("i2"), &json!("17.1")));
    }
}

/// Meta, "Conversions API for Business Messaging".
#[test]
fn a_conversation_names_its_channel_and_itself() {
    let channels = [
        ("whatsapp", json!({ "ctwa_clid": "AbC-1", "whatsapp_business_account_id": "1" })),
        ("whatsapp", json!({ "ctwa_clid": "AbC-1", "page_id": "2" })),
        ("messenger", json!({ "page_id": "2", "page_scoped_user_id": "3" })),
        ("instagram", json!({ "ig_account_id": "4", "ig_sid": "5" })),
    ];
    for (channel, ids) in channels {
        let mut event =
            having(json!({ "action_source": "business_messaging", "messaging_channel": channel }));
        event["properties"].as_object_mut().unwrap().extend(ids.as_object().cloned().unwrap());
        let sent = build(&document("meta_capi"), event.clone(), Consent::Allow).unwrap().body.to_value();
        assert_eq!(sent["messaging_channel"], channel);
        for (key, id) in ids.as_object().unwrap() {
            assert_eq!(&sent["user_data"][key], id, "{channel}");
            let mut lacking = event.clone();
            lacking["properties"].as_object_mut().unwrap().remove(key);
            let refusal = build(&document("meta_capi"), lacking, Consent::Allow).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::InvalidPayload, "{channel} without {key}");
            assert!(refusal.platform_code.is_some());
        }
        // A name that is none of a conversation's would fail its whole request.
        let other = with(event.clone(), "/event", json!("Payment Info Entered"));
        let refusal = build(&document("meta_capi"), other, Consent::Allow).unwrap_err();
        assert_eq!(refusal.platform_code, Some("2804066"));
        let lead =
            build(&document("meta_capi"), with(event, "/event", json!("Lead Generated")), Consent::Allow);
        assert_eq!(lead.unwrap().body.to_value()["event_name"], "LeadSubmitted");
    }
    let unknown = having(json!({ "action_source": "business_messaging", "messaging_channel": "sms" }));
    let refusal = build(&document("meta_capi"), unknown, Consent::Allow).unwrap_err();
    assert_eq!(refusal.platform_code, Some("2804063"));
}

/// Meta, "Customer Information Parameters": not hashed; fb_login_id and lead_id are whole numbers.
#[test]
fn ids_of_metas_own_go_out_as_they_are() {
    let ids = json!({
        "subscription_id": "Sub-1", "fb_login_id": "100012345678", "lead_id": "525645896321548", "anon_id": "XZ-0",
        "page_id": "7", "ctwa_clid": "Q"
    });
    let user = &body(ids.clone())["user_data"];
    assert_eq!(user["subscription_id"], "Sub-1");
    assert_eq!(user["fb_login_id"], json!(100_012_345_678_u64));
    assert_eq!(user["lead_id"], json!(525_645_896_321_548_u64));
    assert!(user.get("anon_id").is_none(), "of apps only: {user}");
    assert!(
        user.get("page_id").is_none() && user.get("ctwa_clid").is_none(),
        "of conversations only: {user}"
    );

    let mut app = having(ids);
    app["properties"]["action_source"] = json!("app");
    app["context"]["os"] = json!({ "name": "Android", "version": "14" });
    let user =
        build(&document("meta_capi"), app, Consent::Allow).unwrap().body.to_value()["user_data"].clone();
    assert_eq!(user["anon_id"], "XZ-0");

    for wrong in [json!("L-1"), json!(-3), json!(1.5), json!("0"), json!(true)] {
        let sent = body(json!({ "lead_id": wrong }));
        assert!(sent["user_data"].get("lead_id").is_none(), "{wrong}");
        assert_eq!(noted(json!({ "lead_id": wrong })), [("user_data.lead_id".to_owned(), "not_a_number")]);
    }
    // A CRM's own number and TikTok's lead: properties of the same name.
    for not_metas in [json!(48_213), json!("7123456789012345678")] {
        let noted = noted(json!({ "lead_id": not_metas }));
        assert_eq!(noted, [("user_data.lead_id".to_owned(), "not_taken")], "{not_metas}");
    }
    let mapped = with(document("meta_capi"), "/field_map", json!({ "lead_id": "properties.crm.lead" }));
    let lead = json!({ "crm": { "lead": 1_525_645_896_321_548_u64 } });
    let sent = build(&mapped, having(lead), Consent::Allow).unwrap();
    assert_eq!(sent.body.to_value()["user_data"]["lead_id"], 1_525_645_896_321_548_u64);
}

#[test]
fn what_goes_out_unhashed_is_no_address_and_no_number_of_a_person() {
    for personal in ["jane@example.com", "+49 171 2345678"] {
        let sent = json!({
            "subscription_id": personal,
            "original_event_data": { "event_name": "Purchase", "event_id": personal, "event_time": "1795168800" }
        });
        let body = body(sent.clone());
        assert!(!body.to_string().contains(personal), "{body}");
        assert_eq!(body["original_event_data"]["event_time"], 1_795_168_800);
        let code = "looks_personal";
        let fields = ["original_event_data.event_id", "user_data.subscription_id"];
        let mut told = noted(sent);
        told.sort();
        assert_eq!(told, fields.map(|field| (field.to_owned(), code)));
    }
    let milliseconds = json!({ "original_event_data": { "event_time": 1_795_168_800_000_u64 } });
    assert!(body(milliseconds.clone()).get("original_event_data").is_none());
    assert_eq!(noted(milliseconds), [("original_event_data.event_time".to_owned(), "not_taken")]);
}

#[test]
fn a_click_id_of_a_conversation_is_one() {
    for broken in ["{{ctwa_clid}}", "__CTWA_CLID__", "a b"] {
        let event = having(json!({
            "action_source": "business_messaging", "messaging_channel": "whatsapp", "page_id": "7", "ctwa_clid": broken
        }));
        let refusal = build(&document("meta_capi"), event, Consent::Allow).unwrap_err();
        assert_eq!(refusal.platform_code, Some("2804087"), "{broken}");
    }
}

/// Meta, "Custom Data Parameters", and its SDK's Content.
#[test]
fn custom_data_takes_metas_fields_in_metas_types() {
    let fits = json!({
        "predicted_ltv": "120.50", "net_revenue": 40, "delivery_category": "home_delivery", "status": "registered",
        "item_number": 17, "customer_segmentation": "new_customer_to_business"
    });
    let custom = &body(fits)["custom_data"];
    for (key, value) in [
        ("predicted_ltv", json!(120.5)),
        ("net_revenue", json!(40)),
        ("delivery_category", json!("home_delivery")),
        ("status", json!("registered")),
        ("item_number", json!("17")),
        ("customer_segmentation", json!("new_customer_to_business")),
    ] {
        assert_eq!(custom[key], value, "{key}");
    }
    for (key, value, code) in [
        ("predicted_ltv", json!("much"), "not_taken"),
        ("net_revenue", json!(-1), "not_taken"),
        ("delivery_category", json!("drone"), "not_taken"),
        ("status", json!({ "a": 1 }), "not_taken"),
        ("item_number", json!("jane@example.com"), "looks_personal"),
        ("customer_segmentation", json!("New Customer"), "not_taken"),
    ] {
        let properties = json!({ key: value });
        assert!(body(properties.clone())["custom_data"].get(key).is_none(), "{key} {value}");
        assert_eq!(noted(properties), [(format!("custom_data.{key}"), code)], "{value}");
    }
}

#[test]
fn a_product_says_how_it_is_delivered_and_nothing_that_meta_does_not_know() {
    let products = json!([
        { "product_id": "a", "delivery_category": "curbside", "name": "Mug", "brand": "B", "price": 2 },
        { "product_id": "b", "delivery_category": "by drone" }
    ]);
    let contents = &body(json!({ "products": products }))["custom_data"]["contents"];
    let expected = json!([
        { "id": "a", "quantity": 1, "item_price": 2, "delivery_category": "curbside" },
        { "id": "b", "quantity": 1 }
    ]);
    assert_eq!(contents, &expected);
}

/// Meta, "Server Event Parameters": event_name, event_time in seconds, order_id, event_id; any other key is refused.
#[test]
fn a_delayed_event_names_the_one_that_it_belongs_to() {
    let stated = json!({
        "event_name": "Purchase", "event_time": "2026-11-20T10:00:00Z", "order_id": 77, "event_id": "e-1", "colour": "red"
    });
    let sent = body(json!({ "original_event_data": stated }));
    let expected =
        json!({ "event_name": "Purchase", "event_time": 1_795_168_800, "order_id": "77", "event_id": "e-1" });
    assert_eq!(sent["original_event_data"], expected);
    assert_eq!(
        body(json!({ "original_event_data": { "event_time": 1_795_168_800 } }))["original_event_data"],
        json!({ "event_time": 1_795_168_800 })
    );
    let bad = json!({ "original_event_data": { "event_time": "yesterday", "order_id": "jane@example.com" } });
    assert!(body(bad.clone()).get("original_event_data").is_none());
    let codes: Vec<_> = noted(bad).into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, ["not_taken", "looks_personal"]);
    assert!(body(json!({ "original_event_data": "x" })).get("original_event_data").is_none());
}

#[test]
fn opting_out_is_a_flag_and_no_custom_property() {
    let passing = with(document("meta_capi"), "/settings/custom_data_passthrough", json!(true));
    for (flag, sent) in
        [(json!(true), true), (json!("true"), true), (json!(false), false), (json!("no"), false)]
    {
        let item = build(&passing, having(json!({ "opt_out": flag, "lead_id": 5 })), Consent::Allow).unwrap();
        let body = item.body.to_value();
        assert_eq!(body.get("opt_out") == Some(&json!(true)), sent, "{flag}");
        let custom = &body["custom_data"];
        assert!(custom.get("opt_out").is_none() && custom.get("lead_id").is_none(), "{custom}");
    }
}

/// Meta, "Data Processing Options": each state has its number.
#[test]
fn limited_data_use_names_every_state_that_has_it() {
    let states = ["CA", "CO", "CT", "FL", "OR", "TX", "MT", "DE", "NE", "NH", "NJ", "MN", "MD", "RI"];
    for (number, state) in (1_000..).zip(states) {
        let restricted = Consent::Restricted {
            place: format!("US-{state}"),
            denied_purposes: vec!["sale_share".to_owned()],
        };
        let body = build(&document("meta_capi"), purchase(), restricted).unwrap().body.to_value();
        let told =
            ["data_processing_options", "data_processing_options_country", "data_processing_options_state"]
                .map(|key| body[key].clone());
        assert_eq!(told, [json!(["LDU"]), json!(1), json!(number)], "{state}");
        let asking = json!({
            "data_processing_options": ["LDU"], "data_processing_options_country": 1,
            "data_processing_options_state": number
        });
        assert_eq!(self::body(asking)["data_processing_options_state"], number, "{state}");
    }
}

/// Meta, "Using the API": 1 to 1,000 events in a request, the test code beside them.
#[test]
fn a_thousand_events_share_a_request_and_one_more_does_not() {
    let document = with(document("meta_capi"), "/settings/test_event_code", json!("TEST1"));
    let destination = opened(&document);
    let item = build(&document, purchase(), Consent::Allow).unwrap();
    let items: Vec<Item> = vec![item; 1_001];
    let sizes: Vec<usize> = batches(&*destination, &items).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1_000, 1]);
    let request = destination.assemble(&batches(&*destination, &items)[0], None);
    let body: Map<String, Value> = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body.keys().collect::<Vec<_>>(), ["data", "test_event_code"]);
    assert_eq!((body["data"].as_array().unwrap().len(), &body["test_event_code"]), (1_000, &json!("TEST1")));
}
