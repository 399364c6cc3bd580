//! What Northline sells.

use serde_json::{Value, json};

/// One product.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// `product_id` and stem of the SKU.
    pub id: &'static str,
    /// Name.
    pub name: &'static str,
    /// Category.
    pub category: &'static str,
    /// Price in cents.
    pub cents: i64,
}

/// The shop.
pub const PRODUCTS: [Product; 10] = [
    Product { id: "nl-101", name: "Harbour Mug", category: "Kitchen", cents: 1450 },
    Product { id: "nl-102", name: "Wool Blanket", category: "Home", cents: 8900 },
    Product { id: "nl-103", name: "Rain Jacket", category: "Outdoor", cents: 15900 },
    Product { id: "nl-104", name: "Trail Bottle", category: "Outdoor", cents: 2495 },
    Product { id: "nl-105", name: "Linen Shirt", category: "Clothing", cents: 5990 },
    Product { id: "nl-106", name: "Desk Lamp", category: "Home", cents: 7450 },
    Product { id: "nl-107", name: "Coffee Subscription", category: "Subscription", cents: 1890 },
    Product { id: "nl-108", name: "Notebook Set", category: "Office", cents: 1250 },
    Product { id: "nl-109", name: "Canvas Bag", category: "Accessories", cents: 3490 },
    Product { id: "nl-110", name: "Merino Socks", category: "Clothing", cents: 1690 },
];

/// An amount as JSON number with two decimals, without passing through a binary fraction.
#[must_use]
pub fn amount(cents: i64) -> Value {
    let text = format!("{}.{:02}", cents / 100, cents % 100);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

impl Product {
    /// As an element of `products`.
    #[must_use]
    pub fn line(&self, quantity: i64) -> Value {
        json!({
            "product_id": self.id, "sku": format!("{}-S", self.id), "name": self.name,
            "category": self.category, "price": amount(self.cents), "quantity": quantity,
        })
    }
}
