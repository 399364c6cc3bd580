//! What others make of the same data, beside what we make of it: every difference has a reason that is written down, or the test
//! fails.
//!
//! `meta_sdk` holds our normalisation for Meta against Meta's own SDK for Python, on random inputs; `segment` our requests for
//! Meta, Google and TikTok against those of Segment's own mapping code, on Segment's e-commerce events. Both run the others' code
//! unmodified, from their registries, installed once under `target/clients`; neither opens a socket. To see the tables, or
//! another seed:
//!
//! ```sh
//! cargo test -p tracklayer-tests --test differential -- --nocapture
//! DIFFERENTIAL_SEED=7 DIFFERENTIAL_CASES=200000 cargo test -p tracklayer-tests --test differential meta -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "this whole file is tests")]

mod meta_sdk;
mod segment;
mod table;
