//! Events a second that one source, and so one write key, may send to this replica: a bucket that holds one second's worth. How much
//! that is says the source, else the installation.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracklayer_ids::SourceId;

use crate::error::IngestError;

/// The buckets. Sources are few, so they are never forgotten.
#[derive(Debug)]
pub struct RateLimit {
    default_per_second: u32,
    buckets: Mutex<HashMap<SourceId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl RateLimit {
    /// So many events a second where a source does not say; 0: no limit.
    #[must_use]
    pub fn new(default_per_second: u32) -> Self {
        Self { default_per_second, buckets: Mutex::default() }
    }

    /// Takes tokens for so many events of a source with this limit of its own, if it has one; 0: no limit. A batch larger than a second's worth is let through when the bucket is full, and
    /// leaves a debt.
    ///
    /// # Errors
    /// [`IngestError::RateLimited`], with the time until it would be let through.
    pub fn take(
        &self,
        source: SourceId,
        own_per_second: Option<u32>,
        events: usize,
        now: Instant,
    ) -> Result<(), IngestError> {
        let per_second = own_per_second.unwrap_or(self.default_per_second);
        if per_second == 0 {
            return Ok(());
        }
        let rate = f64::from(per_second);
        let wanted = (events as f64).min(rate);
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bucket = buckets.entry(source).or_insert(Bucket { tokens: rate, filled_at: now });
        let passed = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(rate);
        bucket.filled_at = now;
        if bucket.tokens < wanted {
            let wait = ((wanted - bucket.tokens) / rate).clamp(0.001, 300.0);
            return Err(IngestError::RateLimited { retry_after: Duration::from_secs_f64(wait) });
        }
        bucket.tokens -= events as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_over_its_rate_waits_and_another_does_not() {
        let limit = RateLimit::new(100);
        let start = Instant::now();
        assert!(limit.take(SourceId(1), None, 90, start).is_ok());
        let refused = limit.take(SourceId(1), None, 20, start).unwrap_err();
        assert!(
            matches!(refused, IngestError::RateLimited { retry_after } if retry_after == Duration::from_millis(100))
        );
        assert!(limit.take(SourceId(2), None, 20, start).is_ok());
        assert!(limit.take(SourceId(1), None, 20, start + Duration::from_millis(101)).is_ok());
    }

    #[test]
    fn a_batch_above_a_seconds_worth_is_let_through_once_and_paid_for() {
        let limit = RateLimit::new(100);
        let start = Instant::now();
        assert!(limit.take(SourceId(1), None, 250, start).is_ok());
        assert!(limit.take(SourceId(1), None, 1, start + Duration::from_secs(1)).is_err());
        assert!(limit.take(SourceId(1), None, 1, start + Duration::from_secs(2)).is_ok());
        assert!(RateLimit::new(0).take(SourceId(1), None, 1_000_000, start).is_ok());
    }

    #[test]
    fn what_a_source_says_goes_before_what_the_installation_says_and_holds_at_once() {
        let limit = RateLimit::new(100);
        let start = Instant::now();
        assert!(limit.take(SourceId(1), Some(10), 10, start).is_ok());
        assert!(limit.take(SourceId(1), Some(10), 1, start).is_err());
        assert!(limit.take(SourceId(1), Some(0), 1_000, start).is_ok(), "no limit any more");
        assert!(limit.take(SourceId(1), None, 50, start + Duration::from_millis(500)).is_ok());
        let unlimited = RateLimit::new(0);
        assert!(unlimited.take(SourceId(1), Some(10), 10, start).is_ok());
        let refused = unlimited.take(SourceId(1), Some(10), 5, start).unwrap_err();
        assert!(
            matches!(refused, IngestError::RateLimited { retry_after } if retry_after == Duration::from_millis(500))
        );
    }
}
