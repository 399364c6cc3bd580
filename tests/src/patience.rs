//! Waiting for something that happens soon, with a limit and a message that says what was seen last.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// After this a test has failed. Generous: two cores run five services, two stores and a browser at once.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks. A look is often a whole process (the command line).
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until `look` gives something, and gives that.
///
/// # Panics
/// After [`LIMIT`], naming `what` and what was seen last.
pub async fn eventually<T, S: Display>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    eventually_within(LIMIT, what, look).await
}

/// As [`eventually`], with a limit of its own.
///
/// # Panics
/// After `limit`, naming `what` and what was seen last.
pub async fn eventually_within<T, S: Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {seen:#}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
