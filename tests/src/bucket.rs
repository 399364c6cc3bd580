//! An S3-compatible server as a child process, in memory: whoever kills it loses what it holds.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::child::Child;
use crate::clients::Client;
use crate::eventually;
use crate::servers::free_port;

/// A running server with one bucket.
pub struct BucketServer {
    endpoint: String,
    // Ended when it is dropped.
    _server: Child,
}

impl BucketServer {
    /// Starts it, with its log in `logs`, and makes the bucket.
    ///
    /// # Errors
    /// It could not be started.
    pub async fn start(client: &Client, logs: &Path, bucket: &str) -> anyhow::Result<Self> {
        let port = free_port()?;
        let (program, script) = client.command();
        let arguments = [script.display().to_string(), "serve".to_owned(), port.to_string()];
        let log = logs.join("bucket.log");
        let server = Child::start("an S3-compatible server", program, &arguments, &[], &log, None)?;
        let endpoint = format!("http://127.0.0.1:{port}");
        eventually("the S3-compatible server to answer", async || {
            let made = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await;
            let made = made.with_context(|| server.log_tail())?;
            ensure!(made.status().is_success(), "{}", made.status());
            anyhow::Ok(())
        })
        .await;
        Ok(Self { endpoint, _server: server })
    }

    /// `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
