//! How much may be in flight: requests and their bytes. Above it nothing is read, and the sender is told to come back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::IngestError;

/// Bytes are counted in pages, since a semaphore counts to 2^32 at most in one step.
const PAGE: usize = 1_024;

/// Counts what is in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    requests: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

/// Room for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    _request: OwnedSemaphorePermit,
    _pages: OwnedSemaphorePermit,
}

impl Admission {
    /// With room for so many requests and bytes.
    #[must_use]
    pub fn new(requests: u32, bytes: u64) -> Self {
        let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE;
        Self {
            requests: Arc::new(Semaphore::new(requests as usize)),
            pages: Arc::new(Semaphore::new(pages.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Takes room for a request of at most so many bytes, or refuses at once.
    ///
    /// # Errors
    /// [`IngestError::Overloaded`].
    pub fn admit(&self, bytes: usize) -> Result<Admitted, IngestError> {
        let overloaded = |_| IngestError::Overloaded { retry_after: Duration::from_secs(1) };
        let pages = u32::try_from(bytes.div_ceil(PAGE).max(1)).unwrap_or(u32::MAX);
        let request = Arc::clone(&self.requests).try_acquire_owned().map_err(overloaded)?;
        let pages = Arc::clone(&self.pages).try_acquire_many_owned(pages).map_err(overloaded)?;
        Ok(Admitted { _request: request, _pages: pages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_refused_until_something_ends() {
        let admission = Admission::new(2, 10 * 1_024);
        let first = admission.admit(8 * 1_024).unwrap();
        assert!(matches!(admission.admit(3 * 1_024), Err(IngestError::Overloaded { .. })));
        let second = admission.admit(1_024).unwrap();
        assert!(matches!(admission.admit(1), Err(IngestError::Overloaded { .. })), "a third request");
        drop((first, second));
        assert!(admission.admit(10 * 1_024).is_ok());
    }
}
