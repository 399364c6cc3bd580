//! Money, orders and products as Segment's e-commerce spec (v2) writes them, read once for every platform. Amounts are
//! decimals until the moment they become JSON.

use std::borrow::Cow;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Number, Value};

use crate::connection::Connection;
use crate::deliverable::{Deliverable, Path, text_of};
use crate::json::Json;
use crate::outcome::{Note, Refusal, RefusalCode, Rule};
use crate::overlay::Overlay;
use crate::usual::{usual, usuals};

/// What a purchase is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worth {
    /// Properties, the first with an amount wins.
    pub value_from: Vec<Path>,
    /// Whether the products' sum stands in for a purchase without a value.
    pub from_products: bool,
}

impl Worth {
    /// What the event is worth: what an expression gives, else [`Worth::paid`].
    #[must_use]
    pub fn stated(&self, event: &Deliverable) -> Option<Decimal> {
        mapped_value(event).unwrap_or_else(|| self.paid(event))
    }

    /// The amount of the first property that has one: what the customer sees, whatever an expression makes of it.
    #[must_use]
    pub fn paid(&self, event: &Deliverable) -> Option<Decimal> {
        self.value_from.iter().find_map(|path| decimal_of(path.of(event)?))
    }

    /// What a purchase is worth.
    ///
    /// # Errors
    /// None of `value_from` is there, or the amount is negative.
    pub fn of_purchase(&self, event: &Deliverable, products: &[Product<'_>]) -> Result<Decimal, Refusal> {
        let value = match mapped_value(event) {
            Some(given) => given.ok_or_else(|| {
                Refusal::new(RefusalCode::MissingValue, "the expression of `fields.value` gives no amount")
                    .at("fields.value")
            })?,
            None => self.paid_or_summed(event, products)?,
        };
        if value.is_sign_negative() && !value.is_zero() {
            return Err(Refusal::new(
                RefusalCode::InvalidPayload,
                "a purchase cannot be worth less than nothing",
            )
            .at("properties.revenue"));
        }
        Ok(value)
    }

    fn paid_or_summed(&self, event: &Deliverable, products: &[Product<'_>]) -> Result<Decimal, Refusal> {
        self.paid(event).or_else(|| self.from_products.then(|| sum_of(products)).flatten()).ok_or_else(|| {
            let name =
                |path: &Path| path.as_str().strip_prefix("properties.").unwrap_or(path.as_str()).to_owned();
            let names = self.value_from.iter().map(name).collect::<Vec<_>>().join(", ");
            Refusal::new(RefusalCode::MissingValue, format!("a purchase needs an amount in one of: {names}"))
                .at(self.value_from.first().map_or("properties.revenue", Path::as_str).to_owned())
        })
    }

    /// What another event is worth: a stated amount, else the products' sum.
    #[must_use]
    pub fn of_other(&self, event: &Deliverable, products: &[Product<'_>]) -> Option<Decimal> {
        mapped_value(event)
            .unwrap_or_else(|| self.paid(event).or_else(|| sum_of(products)))
            .filter(|value| !value.is_sign_negative() || value.is_zero())
    }
}

/// What the expression of `fields.value` gives; none: there is no such expression. Its amount then stands for every other one.
fn mapped_value(event: &Deliverable) -> Option<Option<Decimal>> {
    event.overlay().and_then(Overlay::value)
}

/// A product of an event: its texts are the event's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Product<'e> {
    /// Its id, by the connection's `content_id_from`.
    pub id: Option<Cow<'e, str>>,
    /// Name.
    pub name: Option<Cow<'e, str>>,
    /// Brand.
    pub brand: Option<Cow<'e, str>>,
    /// Category; a list is joined by commas.
    pub category: Option<Cow<'e, str>>,
    /// Variant.
    pub variant: Option<Cow<'e, str>>,
    /// Coupon of this line.
    pub coupon: Option<Cow<'e, str>>,
    /// Price of one piece.
    pub price: Option<Decimal>,
    /// Pieces, at least 1.
    pub quantity: u32,
    /// Place in a list.
    pub position: Option<u32>,
    /// Affiliation of this line.
    pub affiliation: Option<Cow<'e, str>>,
    /// How it comes to the customer, one of [`DELIVERY_CATEGORIES`].
    pub delivery_category: Option<&'static str>,
}

/// Ways in which an order comes to the customer, the same words at Meta and TikTok. Sources: Meta,
/// CAPI/parameters/custom-data, delivery_category; 2026-02. TikTok, Events API 2.0, properties; 2026-08.
pub const DELIVERY_CATEGORIES: [&str; 3] = ["in_store", "curbside", "home_delivery"];

/// The way of that name.
fn delivery_category(value: Json<'_>) -> Option<&'static str> {
    let word = text_of(value)?;
    DELIVERY_CATEGORIES.into_iter().find(|way| *way == word)
}

/// Where product ids come from unless the connection says otherwise.
pub const CONTENT_ID_FROM: [&str; 2] = ["product_id", "sku"];

/// The products of an event: its `products`, else the event itself if it names one.
#[must_use]
pub fn products<'e>(event: &'e Deliverable, id_from: &[impl AsRef<str>]) -> Vec<Product<'e>> {
    match event.at(usual!("properties.products")) {
        Some(Json::List(list)) => {
            let objects = || list.iter().filter(|value| value.as_object().is_some());
            let mut products = Vec::with_capacity(objects().count());
            products.extend(objects().map(|value| product(value, id_from)));
            products
        }
        _ => {
            let single = product(event.properties(), id_from);
            if single.id.is_some() { vec![single] } else { Vec::new() }
        }
    }
}

/// The same by the usual ids.
fn usual_products(event: &Deliverable) -> Vec<Product<'_>> {
    products(event, &CONTENT_ID_FROM)
}

/// Whether the event carries a list of products.
#[must_use]
pub fn has_product_list(event: &Deliverable) -> bool {
    matches!(event.at(usual!("properties.products")), Some(Json::List(list)) if !list.is_empty())
}

/// Whether a product of the event's list names a price, be it one that is no amount ("$7.00").
#[must_use]
pub fn lists_a_price(event: &Deliverable) -> bool {
    let Some(Json::List(list)) = event.at(usual!("properties.products")) else { return false };
    list.iter().any(|product| product.at("price").and_then(text_of).is_some())
}

fn product<'e>(value: Json<'e>, id_from: &[impl AsRef<str>]) -> Product<'e> {
    let at = |key: &str| value.get(key).and_then(Json::present);
    let text = |key: &str| at(key).and_then(text_of);
    Product {
        id: id_from.iter().find_map(|path| value.at(path.as_ref()).and_then(text_of)),
        name: text("name"),
        brand: text("brand"),
        category: at("category").and_then(joined),
        variant: text("variant"),
        coupon: text("coupon"),
        price: at("price").and_then(decimal_of).filter(|p| !p.is_sign_negative() || p.is_zero()),
        quantity: at("quantity").and_then(decimal_of).map_or(1, at_least_one),
        position: at("position").and_then(decimal_of).and_then(|d| d.to_u32()),
        affiliation: text("affiliation"),
        delivery_category: at("delivery_category").and_then(delivery_category),
    }
}

fn at_least_one(quantity: Decimal) -> u32 {
    quantity.trunc().to_u32().unwrap_or(1).max(1)
}

/// A text, or a list of texts joined by commas.
#[must_use]
pub fn joined<'a>(value: impl Into<Json<'a>>) -> Option<Cow<'a, str>> {
    match value.into() {
        Json::List(list) => {
            let parts: Vec<Cow<'_, str>> = list.iter().filter_map(text_of).collect();
            (!parts.is_empty()).then(|| Cow::Owned(parts.join(",")))
        }
        other => text_of(other),
    }
}

/// Σ price × quantity of the products that have a price; none if none has.
#[must_use]
pub fn sum_of(products: &[Product<'_>]) -> Option<Decimal> {
    products
        .iter()
        .filter_map(|p| p.price?.checked_mul(Decimal::from(p.quantity)))
        .try_fold((Decimal::ZERO, false), |(sum, _), line| Some((sum.checked_add(line)?, true)))
        .and_then(|(sum, any)| any.then_some(sum))
}

/// Σ quantity.
#[must_use]
pub fn pieces(products: &[Product<'_>]) -> u64 {
    products.iter().map(|p| u64::from(p.quantity)).sum()
}

/// An amount: a JSON number, or text that is a plain decimal number.
#[must_use]
pub fn decimal_of<'a>(value: impl Into<Json<'a>>) -> Option<Decimal> {
    let read = |s: &str| Decimal::from_str(s).or_else(|_| Decimal::from_scientific(s)).ok();
    match value.into() {
        Json::Number(n) => {
            n.as_i64().map(Decimal::from).or_else(|| few_digits(n)).or_else(|| read(&n.to_string()))
        }
        Json::Text(s) => read(s.trim()),
        Json::Null | Json::Bool(_) | Json::List(_) | Json::Object(_) => None,
    }
    .map(|d| d.normalize())
}

/// The decimal that a number is written as, where that has a few digits behind the point, as amounts of daily life have: the way over
/// text takes ten times as long. Of decimals of at most 15 digits no two are the same double, so what divides to the number is it.
/// Source: IEEE 754, DBL_DIG.
fn few_digits(number: &Number) -> Option<Decimal> {
    const POWERS: [(u32, f64); 4] = [(1, 1e1), (2, 1e2), (3, 1e3), (4, 1e4)];
    let double = number.as_f64().filter(|_| number.is_f64())?;
    POWERS.into_iter().find_map(|(scale, power)| {
        let mantissa = (double * power).round();
        let is_it = mantissa.abs() < 1e15 && mantissa / power == double;
        is_it.then(|| Decimal::new(mantissa as i64, scale))
    })
}

/// An amount as a JSON number: whole ones without a fraction, others in the shortest form that reads back the same.
#[must_use]
pub fn number(amount: Decimal) -> Value {
    let amount = amount.normalize();
    if amount.scale() == 0
        && let Some(whole) = amount.to_i64()
    {
        return Value::from(whole);
    }
    double_of(amount).and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

/// The double nearest to a decimal. Where mantissa and power of ten are doubles themselves, which is so of every amount of
/// daily life, their quotient is rounded once and hence the nearest; the way over text takes ten times as long.
fn double_of(amount: Decimal) -> Option<f64> {
    /// Powers of ten that are whole doubles.
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
        1e18, 1e19, 1e20, 1e21, 1e22,
    ];
    let power = usize::try_from(amount.scale()).ok().and_then(|scale| POWERS.get(scale));
    match (power, amount.mantissa()) {
        (Some(power), mantissa) if mantissa.unsigned_abs() <= 1 << 53 => Some(mantissa as f64 / power),
        (_, _) => amount.to_string().parse().ok(),
    }
}

/// What stands in `currency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Currency {
    /// An ISO 4217 code in upper case.
    Code(&'static str),
    /// Nothing there.
    Absent,
    /// Something that is no currency.
    Wrong,
}

impl Currency {
    /// Reads the event's currency.
    #[must_use]
    pub fn of(connection: &Connection, event: &Deliverable) -> Self {
        match connection.find(event, "currency", usuals!["properties.currency"]) {
            None => Self::Absent,
            Some(value) => currency_code(value).map_or(Self::Wrong, Self::Code),
        }
    }

    /// The code, if there is one.
    #[must_use]
    pub const fn code(self) -> Option<&'static str> {
        match self {
            Self::Code(code) => Some(code),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// The code of a purchase.
    ///
    /// # Errors
    /// There is none. It is never guessed: a wrong currency corrupts the reported revenue.
    pub fn required(self) -> Result<&'static str, Refusal> {
        let why = match self {
            Self::Code(code) => return Ok(code),
            Self::Absent => "a purchase needs a currency (ISO 4217)",
            Self::Wrong => "what stands in currency is no ISO 4217 code",
        };
        Err(Refusal::new(RefusalCode::MissingCurrency, why).at("properties.currency"))
    }
}

/// A currency to pay in: metals, funds and test codes are none, and the platforms refuse them.
fn currency_code<'a>(value: impl Into<Json<'a>>) -> Option<&'static str> {
    tracklayer_normalise::money::currency(&text_of(value)?)
}

/// The order's id.
#[must_use]
pub fn order_id<'a>(connection: &'a Connection, event: &'a Deliverable) -> Option<Cow<'a, str>> {
    connection.text(event, "order_id", usuals!["properties.order_id", "properties.orderId"])
}

/// The refunded amount of a refund event, positive: as stated, else the sum of the products that it lists; none: everything
/// that is left. Source: Segment, e-commerce spec v2, "Order Refunded": a partial refund lists its products; 2026-11.
#[must_use]
pub fn refund_amount(connection: &Connection, event: &Deliverable) -> Option<Decimal> {
    stated_refund(connection, event).or_else(|| {
        let listed = has_product_list(event);
        listed.then(|| sum_of(&usual_products(event))).flatten()
    })
}

/// Whether a refund lists what came back and leaves open what it was worth: a product without a price, and no amount. It is
/// part of an order, so it is not "everything that is left", and its amount is not guessed.
#[must_use]
pub fn refund_is_unpriced(connection: &Connection, event: &Deliverable) -> bool {
    stated_refund(connection, event).is_none()
        && has_product_list(event)
        && usual_products(event).iter().any(|p| p.price.is_none())
}

fn stated_refund(connection: &Connection, event: &Deliverable) -> Option<Decimal> {
    usuals![
        "properties.total",
        "properties.amount",
        "properties.refund",
        "properties.revenue",
        "properties.value"
    ]
    .iter()
    .find_map(|place| decimal_of(event.at(*place)?))
    .or_else(|| connection.worth.paid(event))
    .map(|amount| amount.abs())
}

/// What is left of an order after all refunds, in the terms in which its value was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remainder {
    /// Nothing: the whole order was refunded.
    Nothing,
    /// This much, of what was sent.
    Left(Decimal),
    /// The order's value is not known here.
    Unknown,
}

/// What is left after this refund. Refunds are amounts of what the customer paid; where the value sent was another figure
/// (without tax, say), what is left is scaled by refund/total.
#[must_use]
pub fn remainder(state: Option<&crate::deliverable::OrderState>, refund: Option<Decimal>) -> Remainder {
    let Some(refund) = refund else { return Remainder::Nothing };
    let Some(value) = state.and_then(|s| s.value) else { return Remainder::Unknown };
    let total = state.and_then(crate::deliverable::OrderState::whole).unwrap_or(value);
    let before = state.map_or(Decimal::ZERO, |s| s.refunded.abs());
    let Some(refunded) = before.checked_add(refund) else { return Remainder::Nothing };
    if refunded >= total || value <= Decimal::ZERO {
        return Remainder::Nothing;
    }
    let left = if total == value {
        value.checked_sub(refunded)
    } else {
        refunded
            .checked_div(total)
            .and_then(|share| value.checked_mul(Decimal::ONE - share))
            .map(|d| d.round_dp(minor_digits(state.and_then(|s| s.currency.as_deref()))))
    };
    left.map_or(Remainder::Unknown, |left| {
        if left > Decimal::ZERO { Remainder::Left(left) } else { Remainder::Nothing }
    })
}

/// What a refund takes off an order, in the terms in which its value was sent, so that purchase and refunds add up to what is
/// left; none where that value is not known.
#[must_use]
pub fn taken_off(state: &crate::deliverable::OrderState, refund: Option<Decimal>) -> Option<Decimal> {
    let left_after = |refund| match remainder(Some(state), refund) {
        Remainder::Nothing => Some(Decimal::ZERO),
        Remainder::Left(left) => Some(left),
        Remainder::Unknown => None,
    };
    left_after(Some(Decimal::ZERO))?.checked_sub(left_after(refund)?)
}

/// Digits of a currency's minor unit: 2 for EUR, 0 for JPY, 3 for KWD; 2 where nothing is known. Source: ISO 4217.
fn minor_digits(currency: Option<&str>) -> u32 {
    currency
        .and_then(|code| iso_currency::Currency::from_code(&code.to_ascii_uppercase()))
        .and_then(iso_currency::Currency::exponent)
        .map_or(2, u32::from)
}

/// Whether an order id holds an e-mail address or a phone number, which Google forbids and nobody should send.
#[must_use]
pub fn order_id_is_personal(order_id: &str) -> bool {
    crate::connection::looks_personal(Json::Text(order_id))
        || order_id.contains('@')
        || order_id.contains("%40")
}

/// The order's id where a platform takes it as it is and can do without: one that holds an address or number of a person stays
/// behind, with a note.
pub fn order_id_to_send<'a>(
    connection: &'a Connection,
    event: &'a Deliverable,
    target: &'static str,
    notes: &mut Vec<Note>,
) -> Option<Cow<'a, str>> {
    let id = order_id(connection, event)?;
    if order_id_is_personal(&id) {
        notes.push(Note::rejected(target, Rule::LooksPersonal));
        return None;
    }
    Some(id)
}

/// Refuses an order id that holds an e-mail address or a phone number, where the platform cannot do without it.
///
/// # Errors
/// It does.
pub fn check_order_id(order_id: &str) -> Result<(), Refusal> {
    if order_id_is_personal(order_id) {
        return Err(Refusal::new(
            RefusalCode::OrderIdContainsPii,
            "the order id holds an e-mail address or phone number",
        )
        .at("properties.order_id")
        .as_platform("ORDER_ID_CONTAINS_PII"));
    }
    Ok(())
}

/// A custom field whose name the platforms know, in the type that they take; none if it cannot be had. One wrong type refuses
/// the whole request of a batch.
#[must_use]
pub fn custom_value(name: &str, value: Value) -> Option<Value> {
    let text = |value: &Value| text_of(value).map(|text| Value::from(&*text));
    match name {
        "value" | "net_revenue" | "predicted_ltv" => {
            decimal_of(&value).filter(|amount| !amount.is_sign_negative() || amount.is_zero()).map(number)
        }
        "num_items" => decimal_of(&value).and_then(|count| count.to_u32()).map(Value::from),
        "currency" => currency_code(&value).map(Value::from),
        "content_type" => text(&value).filter(|t| t == "product" || t == "product_group"),
        "delivery_category" => delivery_category(Json::from(&value)).map(Value::from),
        // Meta's words for it: `new_customer_to_business` and others of that form.
        "customer_segmentation" => text_of(&value)
            .filter(|t| t.len() <= 64 && t.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            .map(|text| Value::from(&*text)),
        "order_id" => text_of(&value).filter(|id| !order_id_is_personal(id)).map(|text| Value::from(&*text)),
        "content_name" | "content_category" | "search_string" | "query" | "status" | "item_number"
        | "shop_id" | "description" => text(&value),
        // Built from the products, and from nothing else.
        "contents" | "content_ids" => None,
        _ => Some(value),
    }
}

/// What an event says about its order, for the state that delivery keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderFacts {
    /// The order.
    pub order_id: Option<String>,
    /// What the customer paid.
    pub total: Option<Decimal>,
}

impl OrderFacts {
    /// Reads the event.
    #[must_use]
    pub fn of(connection: &Connection, event: &Deliverable) -> Self {
        let total = event.at(usual!("properties.total")).and_then(decimal_of);
        // Refunds are amounts of what the customer paid, which an expression's value is not.
        let paid = || mapped_value(event).and_then(|_| connection.worth.paid(event));
        let order_id = order_id(connection, event).map(Cow::into_owned);
        Self { order_id, total: total.or_else(paid) }
    }

    /// A purchase that goes out with this value, and with what a later change can say of whom it was matched by.
    #[must_use]
    pub fn sold(
        self,
        value: Option<Decimal>,
        currency: Option<&str>,
        at: jiff::Timestamp,
        match_key: Option<crate::match_key::MatchKey>,
    ) -> Option<crate::outcome::OrderEffect> {
        let Self { order_id, total } = self;
        Some(crate::outcome::OrderEffect::Sold {
            order_id: order_id?,
            value,
            total,
            currency: currency.map(str::to_owned),
            at,
            match_key,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_amount_is_the_double_that_its_text_reads_as(mantissa in any::<i64>(), scale in 0_u32..29, small in 0_u32..64) {
            for mantissa in [mantissa, mantissa >> small] {
                let amount = Decimal::new(mantissa, scale);
                prop_assert_eq!(double_of(amount), amount.to_string().parse::<f64>().ok(), "{}", amount);
            }
        }

        #[test]
        fn a_number_is_the_decimal_that_it_is_written_as(number in any::<f64>(), small in -1e7..1e7, cents in any::<i32>(), scale in 0..6) {
            for number in [number, small, f64::from(cents) / 10_f64.powi(scale)] {
                let Some(number) = Number::from_f64(number) else { continue };
                let text = number.to_string();
                let read = Decimal::from_str(&text).or_else(|_| Decimal::from_scientific(&text)).ok();
                prop_assert_eq!(decimal_of(&Value::Number(number)), read.map(|d| d.normalize()), "{}", text);
            }
        }

        #[test]
        fn a_whole_number_is_read_as_its_text_is(whole in any::<i64>()) {
            prop_assert_eq!(decimal_of(&Value::from(whole)), Decimal::from_str(&whole.to_string()).ok().map(|d| d.normalize()));
        }
    }
}
