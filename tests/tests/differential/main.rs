//! What others make of the same data, beside what we make of it: every difference has a reason that is written down, or the test
//! fails.
//!
//! `meta_sdk` holds our normalisation for Meta against Meta's own SDK for Python, on random inputs. It runs the SDK unmodified,
//! from its registry, installed once under `target/clients`, and opens no socket. To see the tables, or another seed:
//!
//! ```sh
//! cargo test -p tracklayer-tests --test differential -- --nocapture
//! DIFFERENTIAL_SEED=7 DIFFERENTIAL_CASES=200000 cargo test -p tracklayer-tests --test differential meta -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod meta_sdk;
mod table;
