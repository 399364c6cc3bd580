//! The platforms without a port, for tests that put many requests to them: the same checks, the same books, no connection
//! in between, and nothing that has to be waited for.

use bytes::Bytes;
use http::{Request, Response};

use crate::SandboxError;
use crate::exchange::{World, ask};
use crate::options::Options;
use crate::platform::Platform;
use crate::store::{Counted, Totals};

/// All platforms, asked by calls.
pub struct Platforms(World);

impl Platforms {
    /// Platforms that have counted nothing yet. Cheap: a test may take new ones for each of its cases.
    ///
    /// # Errors
    /// A webhook secret is not `whsec_` and base64.
    pub fn new(options: Options) -> Result<Self, SandboxError> {
        World::new(options).map(Self)
    }

    /// Answers a request as [`crate::Sandbox`] would over HTTP; no fault is put on it. Only the path and the query of its
    /// address count.
    pub fn ask(&self, request: &Request<Bytes>) -> Response<Bytes> {
        ask(&self.0, request)
    }

    /// Everything that a platform counted, in the order of arrival.
    pub fn counted(&self, platform: Platform) -> Vec<Counted> {
        self.0.book(platform).open().counted(0, usize::MAX)
    }

    /// What a platform was asked and what it made of it.
    pub fn totals(&self, platform: Platform) -> Totals {
        self.0.book(platform).open().totals.clone()
    }
}
