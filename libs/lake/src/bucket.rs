//! Files in an S3-compatible bucket: one PUT each, which is there whole or not at all.
//!
//! The lane decides when something is tried again, so nothing is here; and what a server says is handed on as it came, which
//! `object_store` would put into a text. Only the connection's own key is ever used: without one, `object_store` would ask the
//! machine for its.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpService,
};
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore as _, ObjectStoreExt as _, PutOptions, PutPayload, RetryConfig};
use tracklayer_destination::Answer;
use tracklayer_destination::warehouse::target::Bucket;
use tracklayer_outbound::Clients;

use crate::store::{Refused, WriteError, beginning};

/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A part of a bucket.
#[derive(Debug)]
pub struct BucketStore {
    bucket: Bucket,
    client: reqwest::Client,
}

/// One pair of clients for all buckets of the process, so that connections are kept.
static CLIENTS: LazyLock<Result<Clients, String>> =
    LazyLock::new(|| Clients::new().map_err(|error| chain(&error)));

impl BucketStore {
    pub(crate) fn open(bucket: &Bucket, allow_private: bool) -> Result<Self, Refused> {
        let host = bucket.endpoint.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
        if bucket.endpoint.is_some() && host.is_none() {
            return Err(Refused("`endpoint` is no address: mend it".to_owned()));
        }
        let clients = CLIENTS.as_ref().map_err(|why| Refused(why.clone()))?;
        let private = |_| {
            Refused(
                "`endpoint` is a private address: the operator of the installation has to set `allow_private_addresses`"
                    .to_owned(),
            )
        };
        let client = clients.to(host.as_ref(), allow_private).map_err(private)?.clone();
        Ok(Self { bucket: bucket.clone(), client })
    }

    pub(crate) async fn write(&self, folder: &str, name: &str, content: Bytes) -> Result<Answer, WriteError> {
        let not_written = |error: object_store::Error| WriteError::NotWritten(error.to_string());
        let heard = Heard::default();
        let store = self.store(&heard).map_err(not_written)?;
        let path = self.path(folder, name)?;
        let written = store.put_opts(&path, PutPayload::from_bytes(content), PutOptions::default()).await;
        match (written, heard.take()) {
            (Ok(_), _) => Ok(Answer::new(200, "")),
            (Err(_), Some(heard)) => heard,
            // It did not come to a request.
            (Err(error), None) => Err(not_written(error)),
        }
    }

    pub(crate) async fn read(&self, folder: &str, name: &str, most: usize) -> Result<Answer, WriteError> {
        let not_read = |error: object_store::Error| WriteError::Unknown(error.to_string());
        let heard = Heard::default();
        let store = self.store(&heard).map_err(not_read)?;
        let path = self.path(folder, name)?;
        let read = async {
            let found = store.get_opts(&path, GetOptions::default()).await?;
            beginning(found, most).await
        };
        match (read.await, heard.take()) {
            (Ok(content), _) => Ok(Answer::new(200, content)),
            (Err(_), Some(Ok(answer))) if answer.status >= 300 => Ok(answer),
            (Err(_), Some(Err(why))) => Err(why),
            // A good answer whose content did not come whole.
            (Err(error), Some(Ok(_)) | None) => Err(not_read(error)),
        }
    }

    pub(crate) async fn remove(&self, folder: &str, name: &str) -> Result<Answer, WriteError> {
        let not_removed = |error: object_store::Error| WriteError::Unknown(error.to_string());
        let heard = Heard::default();
        let store = self.store(&heard).map_err(not_removed)?;
        let removed = store.delete(&self.path(folder, name)?).await;
        match (removed, heard.take()) {
            (Ok(()), _) => Ok(Answer::new(200, "")),
            (Err(_), Some(heard)) => heard,
            (Err(error), None) => Err(not_removed(error)),
        }
    }

    fn path(&self, folder: &str, name: &str) -> Result<Path, WriteError> {
        let parts = [self.bucket.prefix.as_str(), folder, name];
        let path = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Path::parse(path).map_err(|error| WriteError::NotWritten(error.to_string()))
    }

    fn store(&self, heard: &Heard) -> object_store::Result<AmazonS3> {
        let bucket = &self.bucket;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_region(&bucket.region)
            .with_access_key_id(&bucket.access_key_id)
            .with_secret_access_key(bucket.secret_access_key.expose())
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_allow_http(true)
            // One DELETE for one object: not every server has the other way.
            .with_disable_bulk_delete(true)
            .with_http_connector(Connector { client: self.client.clone(), heard: heard.clone() });
        if let Some(token) = &bucket.session_token {
            builder = builder.with_token(token.expose());
        }
        if let Some(endpoint) = &bucket.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        builder.build()
    }
}

/// What the server said to the one request.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Option<Result<Answer, WriteError>>>>);

impl Heard {
    fn put(&self, said: Result<Answer, WriteError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    fn take(&self) -> Option<Result<Answer, WriteError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The client of one request.
#[derive(Debug)]
struct Connector {
    client: reqwest::Client,
    heard: Heard,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Listening { client: self.client.clone(), heard: self.heard.clone() }))
    }
}

#[derive(Debug)]
struct Listening {
    client: reqwest::Client,
    heard: Heard,
}

#[async_trait]
impl HttpService for Listening {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = HttpService::call(&self.client, request).await.inspect_err(|error| {
            let why = chain(error);
            // What is not surely unwritten may be there.
            self.heard.put(Err(match error.kind() {
                HttpErrorKind::Connect => WriteError::NotWritten(why),
                _ => WriteError::Unknown(why),
            }));
        })?;
        let status = response.status();
        if status.is_success() {
            // It is there, also where the answer lacks what the client wants to read in it.
            self.heard.put(Ok(Answer::new(status.as_u16(), "")));
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let mut frames = body.bytes_stream();
        let mut short = Vec::new();
        // No more than is looked at: a server may answer without an end.
        while short.len() < MAX_ANSWER_BYTES
            && let Some(Ok(frame)) = frames.next().await
        {
            short.extend_from_slice(&frame[..frame.len().min(MAX_ANSWER_BYTES - short.len())]);
        }
        let answer =
            Answer { status: parts.status.as_u16(), headers: parts.headers.clone(), body: short.clone() };
        self.heard.put(Ok(answer));
        Ok(HttpResponse::from_parts(parts, Bytes::from(short).into()))
    }
}

/// An error and its causes. The address of a PUT carries no secret.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}
