//! What expressions mean.

use serde_json::json;

use crate::sample::{Sample, compiled, gives, told};

/// Asserts on each pair of expression and result.
fn check(cases: &[(&str, &str)]) {
    let told: Vec<(&str, String)> = cases.iter().map(|(text, _)| (*text, gives(text))).collect();
    let wanted: Vec<(&str, String)> =
        cases.iter().map(|(text, wanted)| (*text, (*wanted).to_owned())).collect();
    assert_eq!(told, wanted);
}

#[test]
fn numbers_are_decimal_and_exact() {
    check(&[
        ("0.1 + 0.2", "0.3"),
        ("properties.revenue * 3", "59.7"),
        ("properties.revenue - 0.9", "19"),
        ("7 / 2", "3.5"),
        ("int(7 / 2)", "3"),
        ("int(-7 / 2)", "-3"),
        ("7 % 4", "3"),
        ("-properties.revenue", "-19.9"),
        ("double(properties.net) / 2", "6.25"),
        ("round(10 / 3, 2)", "3.33"),
        ("round(2.345, 2)", "2.35"),
        ("round(-2.345, 2)", "-2.35"),
        ("1e3 + 5u", "1005"),
        ("1 / 0", "expression_division_by_zero"),
        ("1 % 0", "expression_division_by_zero"),
        ("79228162514264337593.0 * 79228162514264337593.0", "expression_out_of_range"),
        ("properties.huge", "expression_out_of_range"),
        ("round(1.5, 9)", "expression_out_of_range"),
        ("properties.net * 2", "expression_type"),
    ]);
}

#[test]
fn what_is_not_there_is_null_and_not_computed_with() {
    check(&[
        ("properties.unknown", "null"),
        ("properties.nothing", "null"),
        ("properties.blank", "null"),
        ("properties.unknown.deeper", "null"),
        ("properties.coupon.deeper", "null"),
        ("properties.products[9].sku", "null"),
        ("properties.unknown == \"web\"", "false"),
        ("properties.unknown != \"web\"", "true"),
        ("properties.unknown == null", "true"),
        ("properties.blank == null", "true"),
        ("properties.blank + \"x\"", "expression_absent"),
        ("properties.unknown > 10", "expression_absent"),
        ("properties.unknown + 1", "expression_absent"),
        ("properties.unknown + \"x\"", "expression_absent"),
        ("!properties.unknown", "expression_absent"),
        ("properties.unknown.contains(\"x\")", "expression_absent"),
        ("properties.unknown.exists(x, x == 1)", "expression_absent"),
        ("size(properties.unknown)", "expression_absent"),
        ("string(properties.unknown)", "expression_absent"),
        ("has(properties.unknown)", "false"),
        ("has(properties.blank)", "false"),
        ("has(properties.nothing)", "false"),
        ("has(properties.gift)", "true"),
        ("has(properties.unknown.deeper)", "false"),
        ("has(context.traits.email)", "true"),
        ("has_user_id && !has_anonymous_id", "true"),
    ]);
}

#[test]
fn a_side_that_decides_makes_up_for_one_that_fails() {
    check(&[
        ("properties.unknown > 1 || true", "true"),
        ("true || properties.unknown > 1", "true"),
        ("properties.unknown > 1 && false", "false"),
        ("properties.unknown > 1 || false", "expression_absent"),
        ("properties.unknown > 1 && true", "expression_absent"),
        ("properties.products.exists(p, p.price > 5 || p.unknown > 1)", "true"),
        ("properties.products.exists(p, p.unknown > 1)", "expression_absent"),
        ("properties.products.all(p, p.price > 5 && p.unknown > 1)", "false"),
        ("properties.products.all(p, p.unknown > 1)", "expression_absent"),
    ]);
}

#[test]
fn texts_are_searched_and_put_together() {
    check(&[
        ("properties.order_id + \"-\" + string(2)", "\"A-1-2\""),
        ("properties.currency.upperAscii()", "\"EUR\""),
        ("properties.coupon.lowerAscii()", "\"summer-10\""),
        ("\"  x \".trim()", "\"x\""),
        ("properties.coupon.contains(\"MER\")", "true"),
        ("properties.coupon.startsWith(\"SUMMER\")", "true"),
        ("context.page.path.endsWith(\"/checkout\")", "true"),
        ("properties.coupon.matches(\"^[A-Z]+-\\\\d+$\")", "true"),
        ("matches(properties.coupon, r\"^\\d\")", "false"),
        ("size(\"häfen\")", "5"),
        ("properties.revenue.contains(\"1\")", "expression_type"),
        ("\"\" + \"\"", "null"),
        ("string(properties.revenue)", "\"19.9\""),
        ("string(20.00)", "\"20\""),
        ("string(true)", "\"true\""),
        ("type == \"track\" && event == \"Order Completed\" && messageId == \"m-1\"", "true"),
    ]);
}

#[test]
fn lists_are_walked() {
    check(&[
        ("properties.products.size()", "2"),
        ("properties.products.exists(p, p.category == \"gift card\")", "true"),
        ("properties.products.all(p, p.quantity >= 1)", "true"),
        ("properties.products.exists_one(p, p.price > 5)", "true"),
        ("properties.products.map(p, p.price * p.quantity).sum()", "19.9"),
        ("properties.products.map(p, p.category != \"gift card\", p.price * p.quantity).sum()", "9.9"),
        ("properties.products.filter(p, p.category != \"gift card\").map(p, p.sku).join(\",\")", "\"S1\""),
        ("properties.products.filter(p, p.price > 5)[0].sku", "\"S2\""),
        ("properties.products[1].sku", "\"S2\""),
        ("properties.products.map(p, p.sku).join(\",\")", "\"S1,S2\""),
        ("[1, 2, 3].filter(n, n > 1).map(n, n * 2).sum()", "10"),
        ("[1, 2].exists(a, [2, 3].exists(b, a == b))", "true"),
        ("properties.currency in [\"eur\", \"usd\"]", "true"),
        ("\"sale\" in properties.tags", "true"),
        ("3 in properties.tags", "true"),
        ("\"S1\" in properties.products", "false"),
        ("properties.tags.filter(t, true)[0]", "\"new\""),
        ("properties.tags.join(\",\")", "expression_type"),
        ("properties.products.sum()", "expression_type"),
        ("properties.products == null", "expression_type"),
        ("properties.coupon.exists(x, true)", "expression_type"),
        ("properties.products[0.5].sku", "expression_type"),
        ("properties[\"a key\"] + 1", "8"),
        ("properties.products", "expression_type"),
    ]);
}

#[test]
fn times_are_compared() {
    check(&[
        ("timestamp >= timestamp(\"2026-11-27T00:00:00Z\")", "true"),
        ("timestamp < timestamp(\"2026-11-27T13:00:00+02:00\")", "false"),
        ("string(timestamp)", "\"2026-11-27T12:00:00Z\""),
    ]);
}

#[test]
fn a_choice_evaluates_one_side() {
    check(&[
        ("properties.revenue > 10 ? \"large\" : \"small\"", "\"large\""),
        ("properties.gift ? 1 / 0 : 2", "2"),
        ("has(properties.unknown) ? properties.unknown * 2 : null", "null"),
        ("properties.unknown ? 1 : 2", "expression_absent"),
        ("properties.revenue ? 1 : 2", "expression_type"),
    ]);
}

#[test]
fn what_looks_personal_is_not_read_where_no_person_may_be() {
    check(&[
        ("properties.note", "expression_personal"),
        ("properties.note + \"x\"", "expression_personal"),
        ("properties.note.contains(\"me\")", "expression_personal"),
        ("has(properties.note)", "true"),
    ]);
}

#[test]
fn choices_are_known_where_all_are_written_out() {
    let choices = |text: &str| {
        compiled(text)
            .unwrap()
            .choices()
            .map(|c| c.into_iter().map(|c| c.map(str::to_owned)).collect::<Vec<_>>())
    };
    let some = |text: &str| Some(text.to_owned());
    let text = "properties.a ? \"x\" : (properties.b ? \"y\" : null)";
    assert_eq!(choices(text), Some(vec![some("x"), some("y"), None]));
    assert_eq!(choices("\"x\""), Some(vec![some("x")]));
    assert_eq!(choices("properties.a ? \"x\" : properties.b"), None);
    assert_eq!(choices("\"x\" + \"y\""), None);
}

#[test]
fn a_fault_that_is_made_up_for_leaves_no_item_behind() {
    let event = Sample(json!({
        "properties": {
            "products": [
                { "price": 5, "vip": true, "parts": [{ "price": 1, "qty": 2 }, { "price": 3 }] },
                { "price": 7, "vip": true, "parts": [{ "price": 4, "qty": 4 }] },
            ],
            "orders": [
                { "name": "first", "customer": [{ "name": "Ada" }] },
                { "name": "second", "customer": [{ "name": "Grace" }] },
            ],
        },
    }));
    let told = |text: &str| told(&compiled(text).unwrap(), &event);
    for (text, wanted) in [
        (
            "properties.products.filter(p, p.parts.map(q, q.price * q.qty).sum() > 10 || p.vip).map(p, p.price).sum()",
            "12",
        ),
        (
            "properties.orders.filter(o, o.customer.exists_one(c, 1/0 > 1) || true).map(o, o.name).join(\",\")",
            "\"first,second\"",
        ),
        (
            "properties.orders.filter(o, o.customer.filter(c, 1/0 > 1).size() > 0 || true).map(o, o.name).join(\",\")",
            "\"first,second\"",
        ),
        (
            "properties.orders.filter(o, !(o.customer.map(c, c.name + 1).size() > 0 && false)).map(o, o.name).join(\",\")",
            "\"first,second\"",
        ),
        (
            "properties.orders.map(o, o.customer.exists_one(c, 1/0 > 1) || true, o.name).join(\",\")",
            "\"first,second\"",
        ),
    ] {
        assert_eq!(told(text), wanted, "{text}");
    }
}
