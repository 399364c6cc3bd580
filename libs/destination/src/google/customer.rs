//! Whether the buyer is a new customer, where an event says so: what Google's goals for new customers work with.
//!
//! Source: googleads v26 `ConversionCustomerType`; `google-ads-datamanager` 0.9.4 `CustomerType`; 2026-11. Segment's spec has no such
//! property; `new_customer` is the one of Google's own tag.

use crate::deliverable::{Deliverable, text_of};
use crate::json::Json;
use crate::usual::usual;

/// What a buyer is to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomerType {
    /// Bought for the first time.
    New,
    /// Bought before.
    Returning,
    /// Came back after a long time. The Ads API has no word for it.
    Reengaged,
}

impl CustomerType {
    /// As `properties.customer_type` (new, returning, reengaged) or `properties.new_customer` (true, false) say; none where
    /// they say nothing, or something else: it is never guessed.
    #[must_use]
    pub fn of(event: &Deliverable) -> Option<Self> {
        let stated = event
            .at(usual!("properties.customer_type"))
            .and_then(text_of)
            .map(|text| text.to_ascii_lowercase());
        match stated.as_deref() {
            Some("new") => Some(Self::New),
            Some("returning") => Some(Self::Returning),
            Some("reengaged") => Some(Self::Reengaged),
            _ => match event.at(usual!("properties.new_customer"))? {
                Json::Bool(true) => Some(Self::New),
                Json::Bool(false) => Some(Self::Returning),
                _ => None,
            },
        }
    }

    /// Google's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Returning => "RETURNING",
            Self::Reengaged => "REENGAGED",
        }
    }
}
