//! What Google's two upload APIs share: OAuth, identifiers, click ids, orders and the error envelope.

pub mod action;
pub mod error;
pub mod oauth;
pub mod order;
pub mod time;
pub mod user;
