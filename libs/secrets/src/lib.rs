//! Secrets: settings that are encrypted at rest inside a connection document, and keys that are made here and shown once.
//!
//! A sealed setting is text, `enc:v1:<base64 of nonce and ciphertext>`: AES-256-GCM under
//! [`MasterKey::secrets`](tracklayer_ids::MasterKey::secrets), with the setting's path as associated data, so that a sealed
//! value that is moved to another setting does not open. The document around it stays readable JSON.
//!
//! Modules in reading order: [`document`] (seal, open, mask, keep), [`cipher`] (one value), [`path`] (where a setting is),
//! [`key`] (random keys).

mod cipher;
mod document;
mod key;
mod path;

pub use cipher::PREFIX;
pub use document::{MASK, SecretError, mask_document, merge_unchanged, open_document, seal_document};
pub use key::generate_key;
