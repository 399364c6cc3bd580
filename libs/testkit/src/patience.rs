//! Waiting for something that happens soon, with a limit and a message that says what was waited for.

use std::time::{Duration, Instant};

/// After this the test has failed. Generous: machines that build and test at once are slow.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` gives something, and gives that.
///
/// # Panics
/// After 30 s, naming `what`.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_seen(what, async || look().await.ok_or("nothing")).await
}

/// As [`eventually`], for looks that can say what they saw instead.
///
/// # Panics
/// After 30 s, naming `what` and what was seen last.
pub async fn eventually_seen<T, S: std::fmt::Display>(
    what: &str,
    look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    within(LIMIT, what, look).await
}

pub(crate) async fn within<T, S: std::fmt::Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "for four; last seen: 3 of 4")]
    async fn patience_ends_with_what_was_seen() {
        within(Duration::from_millis(30), "four", async || Err::<(), _>("3 of 4")).await;
    }

    #[tokio::test]
    async fn looks_go_on_until_there_is_something() {
        let mut looks = 0;
        let found = eventually("the third look", async || {
            looks += 1;
            (looks == 3).then_some("here")
        })
        .await;
        assert_eq!(found, "here");
    }
}
