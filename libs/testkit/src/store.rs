//! A private Redis per call.

use tracklayer_local::{LocalRedis, RedisOptions};

/// A Redis server of one test: empty at first, gone with this value.
#[derive(Debug)]
pub struct TestRedis {
    /// `redis://127.0.0.1:port`.
    pub url: String,
    /// The server, for tests that stop it.
    pub server: LocalRedis,
}

/// Starts a Redis server of its own, without persistence.
///
/// # Panics
/// If Redis is not installed or does not start; the message says what to do.
pub async fn redis() -> TestRedis {
    let dir = crate::new_folder("redis");
    let started = LocalRedis::start(RedisOptions {
        dir,
        port: None,
        appendonly: false,
        persistent: false,
        environment: Vec::new(),
    })
    .await;
    let server = started.unwrap_or_else(|error| panic!("{error}"));
    TestRedis { url: server.url(), server }
}
