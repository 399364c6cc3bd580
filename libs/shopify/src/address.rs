//! An address as Segment's traits write it.

use crate::read::Node;
use crate::write::Object;

/// The buyer's address: where it is sent to, else who pays, else what the customer has on file. The order of the first two is that
/// in which the event's place is looked for.
pub(crate) fn of_document(document: Node<'_>) -> Node<'_> {
    let candidates = [
        document.at("shipping_address"),
        document.at("billing_address"),
        document.at("customer").at("default_address"),
    ];
    let names_a_country =
        |a: &Node<'_>| a.at("country_code").text().or_else(|| a.at("country").text()).is_some();
    candidates.into_iter().find(names_a_country).unwrap_or(candidates[0])
}

/// As `address` of traits.
pub(crate) fn traits(address: Node<'_>) -> Object {
    let street = match (address.at("address1").text(), address.at("address2").text()) {
        (Some(one), Some(two)) => Some(format!("{one}, {two}")),
        (Some(one), None) | (None, Some(one)) => Some(one.into_owned()),
        (None, None) => None,
    };
    let mut object = place(address);
    object
        .text("street", street)
        .text("city", address.at("city").text())
        .text("postalCode", address.at("zip").text());
    object
}

/// Country and state alone.
pub(crate) fn place(address: Node<'_>) -> Object {
    let either = |code: &str, name: &str| address.at(code).text().or_else(|| address.at(name).text());
    let mut object = Object::default();
    object
        .text("country", either("country_code", "country"))
        .text("state", either("province_code", "province"));
    object
}
