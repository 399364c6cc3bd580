//! `filter`, `names` and `fields`: what they do to an event, and what they may not.

use serde_json::{Value, json};
use tracklayer_destination::preview::{ConsentChoice, preview};
use tracklayer_destination::{
    Consent, Item, Kind, NoteKind, OrderEffect, OrderState, RefusalCode, SkipReason, WorkspaceDefaults, open,
    schema,
};

use crate::{KINDS, build, deliverable, document, now, opened, purchase, with};

fn with_fields(kind: &str, fields: Value) -> Value {
    with(document(kind), "/fields", fields)
}

fn built(document: &Value, event: Value) -> Item {
    build(document, event, Consent::Allow).unwrap_or_else(|refusal| panic!("{document}: {refusal:?}"))
}

/// Path and reason of each thing that is wrong with a document.
fn wrong(document: &Value) -> Vec<String> {
    let errors = open(document, &WorkspaceDefaults::default()).err();
    errors
        .into_iter()
        .flat_map(|errors| errors.0)
        .map(|error| format!("{}: {}", error.path, error.why))
        .collect()
}

#[test]
fn a_filter_takes_what_it_says_true_of_for_every_kind() {
    for kind in KINDS {
        let skip = |filter: &str, event: Value| {
            let destination = opened(&with(document(kind), "/filter", json!(filter)));
            destination.wants(&deliverable(event, Consent::Allow, None)).err().map(|skip| skip.reason)
        };
        assert_eq!(
            skip("properties.revenue > 50 && properties.currency == \"EUR\"", purchase()),
            None,
            "{kind}"
        );
        assert_eq!(skip("properties.revenue > 60", purchase()), Some(SkipReason::Filter), "{kind}");
        assert_eq!(
            skip("properties.unknown > 1", purchase()),
            Some(SkipReason::Filter),
            "{kind}: nothing to compare with"
        );
        assert_eq!(
            skip("properties.unknown", purchase()),
            Some(SkipReason::Filter),
            "{kind}: nothing is no yes"
        );
        assert_eq!(
            skip("properties.currency", purchase()),
            Some(SkipReason::ExpressionFailed),
            "{kind}: EUR is no yes"
        );
        assert_eq!(skip("properties.currency > 1", purchase()), Some(SkipReason::ExpressionFailed), "{kind}");
        assert_eq!(
            skip("1 / (properties.tax - 4) > 1", purchase()),
            Some(SkipReason::ExpressionFailed),
            "{kind}"
        );
        let test = with(purchase(), "/properties/test", json!(true));
        assert_eq!(skip("true", test), Some(SkipReason::TestOrder), "{kind}: a filter widens nothing");
    }
}

#[test]
fn a_failed_filter_says_which_and_why() {
    let destination = opened(&with(document("meta_capi"), "/filter", json!("properties.currency > 1")));
    let skip = destination.wants(&deliverable(purchase(), Consent::Allow, None)).unwrap_err();
    assert_eq!(skip.detail, "`filter`: a value has another type than its expression needs (expression_type)");
    let line = purchase().to_string();
    let document = with(document("meta_capi"), "/filter", json!("properties.currency > 1"));
    let told =
        preview(&document, &WorkspaceDefaults::default(), [line.as_str()], now(), &ConsentChoice::Allow)
            .unwrap();
    let told: Value = serde_json::from_str(&told[0]).unwrap();
    assert_eq!(told["status"], "filtered");
    assert_eq!(told["refused"][0]["code"], "expression_failed");
}

#[test]
fn a_name_is_chosen_between_those_that_are_written_out() {
    let names = json!({ "Order Completed": "properties.revenue > 50 ? \"BigPurchase\" : (properties.tax > 0 ? null : \"Small\")" });
    let document = with(document("meta_capi"), "/names", names);
    assert_eq!(built(&document, purchase()).name, "BigPurchase");
    let cheap = with(purchase(), "/properties/revenue", json!(20));
    let destination = opened(&document);
    let skip = destination.wants(&deliverable(cheap.clone(), Consent::Allow, None)).unwrap_err();
    assert_eq!(skip.reason, SkipReason::Unmapped, "null: not sent");
    let free = with(cheap, "/properties/tax", json!(0));
    assert_eq!(built(&document, free).name, "Small");
    // Without the amount nobody can say which of both it is: it does not go out under the usual name either.
    let none = with(purchase(), "/properties/revenue", json!(null));
    let none = deliverable(none, Consent::Allow, None);
    assert_eq!(destination.wants(&none).unwrap_err().reason, SkipReason::ExpressionFailed);
    assert_eq!(destination.build(&none, now()).unwrap_err().code, RefusalCode::EventNotMapped);
}

#[test]
fn a_chosen_name_makes_a_call_wanted_that_the_kind_has_no_use_for() {
    let identify = json!({
        "type": "identify", "messageId": "m-9", "userId": "u_1", "timestamp": "2026-11-23T11:59:30Z",
        "traits": { "email": "john@example.com", "plan": "pro" }, "context": { "userAgent": "UA", "page": { "url": "https://a.example/" } }
    });
    let plain = opened(&document("meta_capi"));
    assert!(plain.wants(&deliverable(identify.clone(), Consent::Allow, None)).is_err());
    let named = opened(&with(
        document("meta_capi"),
        "/names",
        json!({ "identify": "traits.plan == \"pro\" ? \"Lead\" : null" }),
    ));
    assert!(named.wants(&deliverable(identify, Consent::Allow, None)).is_ok());
}

#[test]
fn a_value_is_exact_and_is_what_refunds_are_measured_by() {
    let document = with_fields("google_ads", json!({ "value": "properties.revenue * 0.35" }));
    let mut event = purchase();
    event["properties"].as_object_mut().unwrap().remove("total");
    let item = built(&document, event);
    assert_eq!(item.body.to_value()["conversionValue"], json!(19.04));
    let Some(OrderEffect::Sold { value, total, .. }) = item.order else { panic!("{item:?}") };
    assert_eq!(value, Some("19.04".parse().unwrap()));
    assert_eq!(total, Some("54.4".parse().unwrap()), "refunds are amounts of what the customer paid");
}

#[test]
fn a_value_that_cannot_be_had_is_no_other_value() {
    for (kind, text) in [
        ("meta_capi", "properties.margin * 2"),
        ("tiktok_events", "has(properties.margin) ? properties.margin : null"),
        ("ga4_mp", "properties.revenue / (properties.tax - 4)"),
        ("google_data_manager", "properties.affiliation_id"),
    ] {
        let mut document = with_fields(kind, json!({ "value": text }));
        document["value_fallback"] = json!("products");
        let refusal = build(&document, purchase(), Consent::Allow).unwrap_err();
        assert_eq!(
            refusal.code,
            RefusalCode::MissingValue,
            "{kind}: neither revenue nor the products stand in"
        );
        assert_eq!(refusal.field.as_deref(), Some("fields.value"), "{kind}");
        let failed: Vec<_> =
            refusal.notes.iter().map(|note| (note.field.as_ref(), note.reason.code())).collect();
        let wanted: &[_] =
            if kind == "ga4_mp" { &[("fields.value", "expression_division_by_zero")] } else { &[] };
        assert_eq!(failed, wanted, "{kind}: what is not there is no failure");
    }
}

#[test]
fn a_field_that_fails_stays_out_with_a_note_and_the_event_goes() {
    let fields = json!({
        "custom_data.tier": "properties.revenue > 50 ? \"gold\" : \"silver\"",
        "custom_data.pieces": "properties.products.map(p, p.quantity).sum()",
        "custom_data.bad": "properties.currency * 2",
        "custom_data.none": "properties.unknown",
        "order_id": "\"shop-\" + properties.order_id",
    });
    let item = built(&with_fields("meta_capi", fields), purchase());
    let custom = &item.body.to_value()["custom_data"];
    assert_eq!(custom["tier"], "gold");
    assert_eq!(custom["pieces"], 3);
    assert_eq!(custom["order_id"], "shop-o-1001");
    assert!(custom.get("bad").is_none() && custom.get("none").is_none(), "{custom}");
    let notes: Vec<_> = item.notes.iter().filter(|note| note.field.starts_with("fields.")).collect();
    let [note] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!(
        (note.kind, note.field.as_ref(), note.about),
        (NoteKind::Rejected, "fields.custom_data.bad", "custom")
    );
    assert_eq!(note.reason.code(), "expression_type");
}

#[test]
fn a_persons_field_is_normalised_and_hashed_and_follows_consent() {
    let fields = json!({ "email": "(\" \" + context.traits.email).upperAscii()" });
    let hashed = |document: &Value, consent: Consent| {
        build(document, purchase(), consent).unwrap().body.to_value()["user_data"]["em"].clone()
    };
    let plain = hashed(&document("meta_capi"), Consent::Allow);
    assert!(plain.is_array(), "{plain}");
    assert_eq!(
        hashed(&with_fields("meta_capi", fields.clone()), Consent::Allow),
        plain,
        "the same address, whatever it looked like"
    );
    // Connections share what was read of an event, but not what one's own expressions make of it.
    let event = deliverable(purchase(), Consent::Allow, None);
    let of = |document: &Value| {
        opened(document).build(&event, now()).unwrap().body.to_value()["user_data"]["em"].clone()
    };
    assert_eq!(of(&document("meta_capi")), plain);
    let other = of(&with_fields("meta_capi", json!({ "email": "\"other@example.com\"" })));
    assert!(other.is_array() && other != plain, "{other}");
    let denied =
        Consent::Restricted { place: "DE".to_owned(), denied_purposes: vec!["ad_user_data".to_owned()] };
    let body = |document: &Value| {
        build(document, purchase(), denied.clone()).map(|item| item.body.to_value()["userData"].clone())
    };
    let withheld = body(&document("google_data_manager")).map_err(|refusal| refusal.code);
    let mapped = body(&with_fields("google_data_manager", fields)).map_err(|refusal| refusal.code);
    assert_eq!(mapped, withheld, "what consent withholds is withheld of an expression's value too");
}

#[test]
fn nothing_about_a_person_leaves_by_another_field() {
    for (field, text) in [
        ("custom_data.x", "context.traits.email"),
        ("custom_data.x", "context.traits.email.lowerAscii() + \"!\""),
        ("custom_data.x", "properties.customer.name"),
        ("custom_data.x", "properties.fbp"),
        ("custom_data.x", "context.ip"),
        ("custom_data.x", "context.page.url"),
        ("order_id", "traits.phone"),
        ("email", "properties.gclid"),
    ] {
        let told = wrong(&with_fields("meta_capi", json!({ field: text })));
        assert_eq!(told.len(), 1, "{field} {text}: {told:?}");
        assert!(told[0].starts_with(&format!("fields.{field}: line 1, column ")), "{told:?}");
    }
    for text in [
        "context.traits.email.endsWith(\"@shop.example\")",
        "context.ip == \"203.0.113.7\"",
        "properties.gclid == \"x\"",
    ] {
        assert_eq!(wrong(&with(document("meta_capi"), "/filter", json!(text))).len(), 1, "{text}");
    }
    // Where a key says nothing, the value does.
    let event = with(purchase(), "/properties/note", json!("call john@example.com"));
    let item = built(
        &with_fields("meta_capi", json!({ "custom_data.x": "\"note: \" + properties.note.lowerAscii()" })),
        event,
    );
    assert!(!item.body.as_str().contains("john"), "{}", item.body);
    assert!(item.notes.iter().any(|note| note.reason.code() == "expression_personal"), "{:?}", item.notes);
    // What is put together to an address is none to send, either.
    let event = with(purchase(), "/properties/note", json!("john"));
    let item = built(
        &with_fields("meta_capi", json!({ "custom_data.x": "properties.note + \"@example.com\"" })),
        event,
    );
    assert!(!item.body.as_str().contains("john@"), "{}", item.body);
    assert!(item.notes.iter().any(|note| note.reason.code() == "expression_personal"), "{:?}", item.notes);
}

#[test]
fn what_an_expression_is_for_has_no_other_value() {
    let event = with(purchase(), "/properties/tier", json!("bronze"));
    let event = with(event, "/properties/status", json!("done"));
    let mut plain = document("meta_capi");
    plain["settings"]["custom_data_passthrough"] = json!(true);
    let custom = |document: &Value| built(document, event.clone()).body.to_value()["custom_data"].clone();
    assert_eq!((&custom(&plain)["tier"], &custom(&plain)["status"]), (&json!("bronze"), &json!("done")));
    let fields =
        json!({ "custom_data.tier": "properties.unknown", "custom_data.status": "properties.currency * 2" });
    let mapped = custom(&with(plain, "/fields", fields));
    assert!(mapped.get("tier").is_none() && mapped.get("status").is_none(), "{mapped}");
    let mut ga4 = document("ga4_mp");
    ga4["fields"] = json!({ "params.affiliation": "properties.unknown", "coupon": "properties.unknown" });
    let event =
        with(with(purchase(), "/properties/affiliation", json!("x")), "/properties/coupon", json!("y"));
    let body = built(&ga4, event).body.to_value().to_string();
    assert!(!body.contains("affiliation") && !body.contains("coupon"), "{body}");
}

#[test]
fn what_is_wrong_is_told_with_its_place_all_at_once() {
    let mut document = document("meta_capi");
    document["filter"] = json!("propertes.revenue > 1");
    document["names"] = json!({ "Order Completed": "properties.name", "page": "\" \"" });
    document["fields"] =
        json!({ "value": "event", "colour": "event", "coupon": "event", "custom_data.value": "1" });
    document["field_map"] = json!({ "coupon": "properties.code" });
    let told = wrong(&document);
    for wanted in [
        "filter: line 1, column 1: unknown field `propertes`; did you mean `properties`?",
        "names.Order Completed: must choose between names that are written in it",
        "names.page: chooses ` `, which must be a name without spaces around it",
        "fields.value: line 1, column 1: gives a string, but number is wanted here",
        "fields.custom_data.value: is built from the order and its products",
        "fields.colour: is not a field for expressions; those are value, discount, tax, shipping, order_id,",
        "fields.coupon: stands in field_map as well; say it in one of both",
    ] {
        assert!(told.iter().any(|told| told.starts_with(wanted)), "{wanted}\nin {told:#?}");
    }
    assert_eq!(told.len(), 7, "{told:#?}");
}

#[test]
fn kinds_have_rules_of_their_own() {
    let google = with(
        document("google_ads"),
        "/names",
        json!({ "Product Added": "properties.a ? \"987654323\" : \"Cart\"" }),
    );
    assert!(
        wrong(&google)[0].contains("chooses `Cart`, which must be the id of a conversion action"),
        "{:?}",
        wrong(&google)
    );
    let orders =
        with(document("google_ads"), "/names", json!({ "order  completed": "properties.a ? \"1\" : \"2\"" }));
    assert!(wrong(&orders)[0].contains("must be one conversion action"), "{:?}", wrong(&orders));
    let both = with(
        with(document("meta_capi"), "/names", json!({ "Signed Up": "\"Lead\"" })),
        "/event_map",
        json!({ "signed  up": "Lead" }),
    );
    assert!(
        wrong(&both)[0].starts_with("names.Signed Up: stands in event_map as well"),
        "{:?}",
        wrong(&both)
    );
    let hook = with_fields("webhook", json!({ "value": "1" }));
    assert!(wrong(&hook)[0].starts_with("fields.value: has no use here"), "{:?}", wrong(&hook));
    let variable = with_fields("google_ads", json!({ "custom_variables.tier": "event" }));
    assert!(
        wrong(&variable)[0].contains("must name the custom variable by its id"),
        "{:?}",
        wrong(&variable)
    );
    let many: serde_json::Map<String, Value> =
        (0..33).map(|n| (format!("custom_data.f{n}"), json!("1"))).collect();
    let many = with_fields("meta_capi", Value::Object(many));
    assert_eq!(wrong(&many), ["fields: has 33 expressions, at most 32 are allowed"]);
}

#[test]
fn the_schema_of_every_kind_has_them() {
    for kind in Kind::ALL {
        let schema = schema(kind);
        for (key, limit) in [
            ("filter", "/maxLength"),
            ("names", "/additionalProperties/maxLength"),
            ("fields", "/additionalProperties/maxLength"),
        ] {
            let found = schema["properties"][key].pointer(limit);
            assert_eq!(found, Some(&json!(2_048)), "{kind} {key}: {}", schema["properties"][key]);
        }
    }
    let long = with(document("meta_capi"), "/filter", json!(format!("\"{}\"", "x".repeat(2_048))));
    assert!(wrong(&long).iter().any(|told| told.starts_with("filter: ")), "{:?}", wrong(&long));
}

#[test]
fn a_field_that_a_kind_does_not_send_is_refused() {
    let told = |kind: &str, field: &str| wrong(&with_fields(kind, json!({ field: "null" })));
    for (kind, field, custom) in [
        ("meta_capi", "coupon", "custom_data."),
        ("meta_capi", "tax", "custom_data."),
        ("meta_capi", "street", "custom_data."),
        ("tiktok_events", "shipping", "properties."),
        ("tiktok_events", "gender", "properties."),
        ("ga4_mp", "discount", "params."),
        ("google_ads", "affiliation", "custom_variables."),
        ("google_data_manager", "birth_date", "custom_variables."),
    ] {
        let told = told(kind, field);
        let [error] = told.as_slice() else { panic!("{kind} {field}: {told:?}") };
        assert!(error.starts_with(&format!("fields.{field}: is no field that {kind} sends")), "{error}");
        assert!(error.ends_with(&format!("custom ones `{custom}…`")), "{error}");
    }
    for (kind, field) in
        [("ga4_mp", "coupon"), ("ga4_mp", "tax"), ("google_ads", "discount"), ("meta_capi", "gender")]
    {
        assert!(told(kind, field).is_empty(), "{kind} {field}");
    }
}

#[test]
fn a_discount_is_the_expressions() {
    for (kind, cart) in [
        ("google_data_manager", "/cartData/transactionDiscount"),
        ("google_ads", "/cartData/localTransactionCost"),
    ] {
        let event = with(purchase(), "/properties/discount", json!(7));
        let given = |text: Option<&str>| {
            let mut document = with(document(kind), "/settings/merchant_id", json!("12345"));
            if let Some(text) = text {
                document["fields"] = json!({ "discount": text });
            }
            built(&document, event.clone()).body.to_value().pointer(cart).cloned()
        };
        assert_eq!(given(None), Some(json!(7)), "{kind}");
        assert_eq!(given(Some("properties.discount / 2")), Some(json!(3.5)), "{kind}");
        assert_eq!(given(Some("properties.unknown")), None, "{kind}: nothing else stands in");
    }
}

/// An order that went out.
fn sold() -> OrderState {
    let paid = Some("54.4".parse().unwrap());
    OrderState {
        value: paid,
        total: paid,
        currency: Some("EUR".to_owned()),
        at: Some("2026-11-20T14:03:21Z".parse().unwrap()),
        refunded: "0".parse().unwrap(),
        ..OrderState::default()
    }
}

#[test]
fn an_updated_orders_total_is_what_the_customer_paid() {
    for kind in ["google_ads", "google_data_manager"] {
        let mut event = with(purchase(), "/event", json!("Order Updated"));
        event["properties"].as_object_mut().unwrap().remove("total");
        let destination = opened(&with_fields(kind, json!({ "value": "properties.revenue * 0.35" })));
        let item = destination.build(&deliverable(event, Consent::Allow, Some(sold())), now()).unwrap();
        let Some(OrderEffect::Restated { value, total, .. }) = item.order else { panic!("{kind}: {item:?}") };
        assert_eq!(value, Some("19.04".parse().unwrap()), "{kind}");
        assert_eq!(
            total,
            Some("54.4".parse().unwrap()),
            "{kind}: refunds are amounts of what the customer paid"
        );
    }
}

#[test]
fn expressions_of_one_event_share_their_work() {
    // Each alone stays within its own bound.
    let text = "properties.many.all(a, a >= 0) ? \"all\" : \"some\"";
    let many: Vec<u32> = (0..3_000).collect();
    let event = with(purchase(), "/properties/many", json!(many));
    let notes = |count: usize| {
        let fields: serde_json::Map<String, Value> =
            (0..count).map(|n| (format!("custom_data.f{n}"), json!(text))).collect();
        let item = built(&with_fields("meta_capi", Value::Object(fields)), event.clone());
        item.notes.iter().filter(|note| note.reason.code() == "expression_too_much_work").count()
    };
    assert_eq!(notes(1), 0);
    assert!(notes(32) >= 20, "{}", notes(32));
}

#[test]
fn what_the_orders_key_needed_is_what_goes_out() {
    let one = opened(&with_fields("google_ads", json!({ "order_id": "\"one-\" + properties.order_id" })));
    let other = opened(&with_fields("google_ads", json!({ "order_id": "\"other-\" + properties.order_id" })));
    let cancelled = with(purchase(), "/event", json!("Order Cancelled"));
    let event = deliverable(cancelled, Consent::Allow, Some(sold()));
    let id = |item: Item| item.body.to_value()["orderId"].clone();
    for _ in 0..2 {
        assert_eq!(one.order_key(&event).as_deref(), Some("one-o-1001"));
        assert_eq!(id(other.build(&event, now()).unwrap()), "other-o-1001", "of one connection only");
        assert_eq!(id(one.build(&event, now()).unwrap()), "one-o-1001");
    }
}
