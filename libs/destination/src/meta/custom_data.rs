//! `custom_data`: money, products and what else the event says.
//!
//! Source: Meta, CAPI/parameters/custom-data; 2026-02. Types are repaired where the wrong one would refuse the whole request
//! (2804008, 2804019).

use super::payload::{Shape, TAKEN};
use super::settings::Settings;
use crate::commerce::{self, Currency, Product, custom_value, joined, number, order_id_to_send, pieces};
use crate::connection::{Connection, harmless_properties, looks_personal};
use crate::deliverable::{Deliverable, text_of};
use crate::fields::{Fields, Member};
use crate::outcome::{Note, Refusal, Rule};
use crate::usual::{Usual, usual, usuals};

/// What goes along as the event states it, under Meta's own name for it, with what a note calls it.
///
/// Meta lists `customer_segmentation` among the fields of an event and shows it in `custom_data`. It goes where it is shown:
/// an unknown key there is a custom property, in the event itself it would refuse the whole request (2804019).
const STATED: [(&str, Usual, &str); 6] = [
    ("predicted_ltv", usual!("properties.predicted_ltv"), "custom_data.predicted_ltv"),
    ("net_revenue", usual!("properties.net_revenue"), "custom_data.net_revenue"),
    ("delivery_category", usual!("properties.delivery_category"), "custom_data.delivery_category"),
    ("status", usual!("properties.status"), "custom_data.status"),
    ("item_number", usual!("properties.item_number"), "custom_data.item_number"),
    (
        "customer_segmentation",
        usual!("properties.customer_segmentation"),
        "custom_data.customer_segmentation",
    ),
];

/// Builds `custom_data`; empty if there is nothing to say.
pub fn custom_data<'a>(
    connection: &'a Connection,
    settings: &Settings,
    event: &'a Deliverable,
    all: &'a [Product<'a>],
    (name, shape): (&str, Shape),
    notes: &mut Vec<Note>,
) -> Result<Fields<'a>, Refusal> {
    let mut custom = Fields::with_capacity(8);
    let currency = Currency::of(connection, event);

    let value = match shape {
        Shape::Purchase => {
            let value = connection.worth.of_purchase(event, all)?;
            currency.required()?;
            Some(value)
        }
        Shape::Refund => commerce::refund_amount(connection, event),
        Shape::Other => connection.worth.of_other(event, all),
    };
    match (value, currency.code()) {
        (Some(value), Some(code)) => {
            custom.insert("value", number(value));
            custom.insert("currency", code);
        }
        // A value without currency refuses the whole request (2804023).
        (Some(_), None) => notes.push(Note::rejected("custom_data.value", Rule::ValueWithoutCurrency)),
        (None, _) => {}
    }
    if let Some(id) = order_id_to_send(connection, event, "custom_data.order_id", notes) {
        custom.insert("order_id", id);
    }
    insert_contents(&mut custom, event, all, notes);
    let query = connection.text(event, "query", usuals!["properties.query"]);
    if name == "Search"
        && let Some(query) = query
    {
        custom.insert("search_string", query);
    }
    for (key, place, target) in STATED {
        let Some(stated) = event.at(place) else { continue };
        if looks_personal(stated) {
            notes.push(Note::rejected(target, Rule::LooksPersonal));
            continue;
        }
        match custom_value(key, stated.to_value()) {
            Some(value) => custom.insert(key, value),
            None => notes.push(Note::rejected(target, Rule::NotTaken)),
        }
    }
    if settings.custom_data_passthrough {
        let properties = harmless_properties(event, &TAKEN).into_iter();
        custom.insert_new(
            properties.filter_map(|(key, value)| custom_value(&key, value).map(|value| (key, value))),
        );
    }
    connection.owned_custom_fields(event, "custom_data.").for_each(|key| custom.remove(key));
    for (key, value) in connection.custom_fields(event, "custom_data.", notes) {
        match custom_value(&key, value) {
            Some(value) => {
                custom.insert(key, value);
            }
            None => notes.push(Note::rejected(format!("custom_data.{key}"), Rule::NotTaken)),
        }
    }
    // A custom field may be one half of the pair.
    if custom.contains("value") && !custom.contains("currency") {
        custom.remove("value");
        notes.push(Note::rejected("custom_data.value", Rule::ValueWithoutCurrency));
    }
    Ok(custom)
}

fn insert_contents<'a>(
    custom: &mut Fields<'a>,
    event: &'a Deliverable,
    all: &'a [Product<'a>],
    notes: &mut Vec<Note>,
) {
    let with_id: Vec<_> = all.iter().filter_map(|p| Some((p.id.as_deref()?, p))).collect();
    if with_id.len() < all.len() {
        notes.push(Note::rejected("custom_data.contents", Rule::ProductWithoutId));
    }
    if !with_id.is_empty() {
        let kind = event.at(usual!("properties.content_type")).and_then(text_of);
        let kind = if kind.is_some_and(|kind| kind == "product_group") { "product_group" } else { "product" };
        custom.insert("content_type", kind);
        custom.insert("content_ids", with_id.iter().map(|(id, _)| *id).collect::<Member<'_>>());
        let contents = with_id.iter().map(|(id, product)| {
            let mut content = Fields::with_capacity(4);
            content.push("id", *id);
            content.push("quantity", product.quantity);
            content.push_some("item_price", product.price.map(number));
            content.push_some("delivery_category", product.delivery_category);
            content
        });
        custom.insert("contents", contents.collect::<Member<'_>>());
    }
    let own = event.folded_name();
    let has_list = commerce::has_product_list(event);
    // Published for InitiateCheckout; what is bought has a number of pieces, what is merely listed has none.
    let is_counted = ["order ", "checkout ", "cart "].iter().any(|start| own.starts_with(start));
    if has_list && is_counted && !with_id.is_empty() {
        custom.insert("num_items", pieces(all));
    }
    let single_name = all.first().filter(|_| !has_list).and_then(|product| product.name.as_deref());
    if let Some(name) = single_name {
        custom.insert("content_name", name);
    }
    let category = event.at(usual!("properties.category")).and_then(joined);
    if let Some(category) = category.filter(|_| !has_list || own == "product list viewed") {
        custom.insert("content_category", category);
    }
}
