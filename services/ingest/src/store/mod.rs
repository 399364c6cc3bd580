//! All SQL of ingest. The journal's own statements are in its crate.

pub mod rejected;
pub mod shopify_orders;
