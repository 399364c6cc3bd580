//! Generated messages, clients and servers of every `tracklayer.*.v1` package, and their descriptors. Nothing else.
#![allow(clippy::all, clippy::unwrap_used, missing_docs)]

macro_rules! area {
    ($area:ident) => {
        #[doc = concat!("Package `tracklayer.", stringify!($area), ".v1`.")]
        pub mod $area {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/tracklayer.", stringify!($area), ".v1.rs"));
            }
        }
    };
}

area!(event);
area!(ingest);
area!(identity);
area!(consent);
area!(delivery);
area!(control);

/// The encoded `FileDescriptorSet` of all packages, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
