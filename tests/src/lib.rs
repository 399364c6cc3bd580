//! The harness of the end-to-end tests: the real binary as child processes, real clients beside it, and what an outsider can
//! see of both. It uses no crate of the services: a test knows the platform as its users do, by addresses, command line and
//! the ad platforms' side (the sandbox).
//!
//! Modules in reading order: `binary` (which `tracklayer`), `child` (processes that cannot outlive the test), [`platform`]
//! (`tracklayer dev`), [`roles`] (the five services as five processes), [`fleet`] (several processes of each role, kept
//! running), [`servers`] (PostgreSQL and Redis that a test may kill), [`small_disk`] (one that can be filled), [`clock`] (one that
//! can be set), [`proxy`] (what networks do), [`recorder`] (what the platforms were asked, byte for byte), [`handshake`] (a server without TLS), [`story`] (what `events show` tells), [`sample`] (the sample day as a process), [`otlp`] (a collector of
//! traces), [`patience`] (waiting with a limit), [`clients`] (Node, Python and Chromium with the SDKs installed), [`bucket`] (a server that speaks S3), [`shop`] (the
//! sample shop's page), [`order`] (what most tests send and look for), [`batches`] (many events at once).
//!
//! Everything that a test starts ends with the test process, however that ends: each child hangs on a pipe whose other end
//! only the test holds.

pub mod batches;
mod binary;
pub mod bucket;
mod child;
pub mod clients;
pub mod clock;
pub mod fleet;
pub mod handshake;
pub mod order;
pub mod otlp;
pub mod patience;
pub mod platform;
pub mod proxy;
pub mod recorder;
pub mod roles;
pub mod sample;
pub mod servers;
pub mod shop;
pub mod small_disk;
pub mod story;

pub use binary::target_dir;
pub use clock::Clock;
pub use fleet::{Fleet, Member, Replica};
pub use handshake::NoHandshake;
pub use order::Order;
pub use patience::{LIMIT, eventually, eventually_within};
pub use platform::{Addresses, Options, Platform, Running};
pub use proxy::{Proxy, Weather};
pub use recorder::{Recorded, Recorder};
pub use roles::{Processes, ROLES, Role};
pub use sample::SampleDay;
pub use story::{Delivery, Occurrence, Story};
