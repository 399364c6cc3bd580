//! Shopify's webhooks: whether one is Shopify's, and which event of Segment's e-commerce spec (v2) it is.
//!
//! Modules in reading order: [`settings`] (what a source of kind `shopify` is told), [`signature`] (is it Shopify's), [`topic`]
//! (what is taken, and why the rest is not), [`webhook`] (a body and its headers → an event), with its parts `order`, `refund`,
//! `checkout`, `visitor` (who it was, and what the shop's pages left for us to know), `products`, `address`, `landing`; and below
//! them `money`, `read` (a document that may hold anything) and `write` (JSON whose amounts are exact).
//!
//! Pure: no clock, no I/O. No body makes it panic. What comes out is a call of the Segment spec as JSON text, so that it goes the
//! way of every other event, under the same rules and limits.
//!
//! The bodies are the REST resources of Shopify's Admin API, version 2026-10, as its page "Webhooks" lists them for each topic;
//! fields that older versions lack are optional here. Source: shopify.dev/docs/api/webhooks; 2026-11.

mod address;
mod checkout;
mod landing;
mod money;
mod order;
mod products;
mod read;
mod refund;
pub mod settings;
pub mod signature;
pub mod topic;
mod visitor;
pub mod webhook;
mod write;

pub use settings::{Amounts, CompletedOn, OrderIdFrom, SECRET_PATHS, Settings, SettingsError, UserIdFrom};
pub use signature::is_signed;
pub use topic::{Ignored, Topic};
pub use webhook::{Headers, KnownOrder, Reading, ToldRefund, Translation, Unusable, Webhook, read};
