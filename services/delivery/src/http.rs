//! The one HTTP client of all lanes: what goes to the real platform and what goes to a sandbox differ in the address only.

use std::time::Duration;

use tracklayer_destination::{Answer, HttpRequest};
use tracklayer_outbound::{ClientError, Clients, Private};

/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// What became of a request on the wire.
#[derive(Debug)]
pub enum SendError {
    /// Nothing was written: the platform surely has not seen it.
    NotSent(String),
    /// Written at least in part, and no whole answer came: the outcome is unknown.
    Unknown(String),
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    clients: Clients,
    allow_private: bool,
}

impl Sender {
    /// `allow_private`: whether requests may go to private addresses (an operator's word, never a workspace's).
    ///
    /// # Errors
    /// The TLS set-up is not usable.
    pub fn new(allow_private: bool) -> Result<Self, ClientError> {
        Ok(Self { clients: Clients::new()?, allow_private })
    }

    /// Sends a request. Every kind of connection lets a workspace choose the address (a receiver's, `base_url`, `token_url`):
    /// private ones are refused.
    ///
    /// # Errors
    /// See [`SendError`]: only `NotSent` is a certain failure.
    pub async fn send(&self, request: &HttpRequest, timeout: Duration) -> Result<Answer, SendError> {
        let url =
            url::Url::parse(&request.url).map_err(|e| SendError::NotSent(format!("no address: {e}")))?;
        let client = self.clients.to(Some(&url), self.allow_private).map_err(|Private| {
            SendError::NotSent("private addresses have to be allowed by an operator".to_owned())
        })?;
        run(client, request, timeout).await
    }
}

async fn run(
    client: &reqwest::Client,
    request: &HttpRequest,
    timeout: Duration,
) -> Result<Answer, SendError> {
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).unwrap_or(reqwest::Method::POST);
    let mut builder = client.request(method, request.full_url()).timeout(timeout).body(request.body.clone());
    for (name, value) in &request.headers {
        builder = builder.header(name.as_str(), value.expose());
    }
    let response = builder.send().await.map_err(|error| {
        let connecting = error.is_connect() || error.is_builder();
        // The address may carry a token: only the kind of failure is told.
        let text = crate::resolve::error_chain(&error.without_url());
        if connecting { SendError::NotSent(text) } else { SendError::Unknown(text) }
    })?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    // An answer may quote its request: nobody behind this line has to think of that.
    let body = request.without_secrets(read_body(response).await?);
    Ok(Answer { status, headers, body })
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, SendError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_ANSWER_BYTES - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return Ok(body);
                }
            }
            Ok(None) => return Ok(body),
            Err(error) => return Err(SendError::Unknown(crate::resolve::error_chain(&error.without_url()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a request to a listener of this machine, under that host, was answered.
    async fn reaches(sender: &Sender, host: &str) -> bool {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = tokio::io::AsyncReadExt::read(&mut connection, &mut request).await.unwrap();
            assert!(read > 0, "it connected and asked nothing");
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut connection, answer).await.unwrap();
        });
        let request = HttpRequest::get(format!("http://{host}:{port}/"));
        let sent = sender.send(&request, Duration::from_secs(5)).await;
        answering.abort();
        match sent {
            Ok(answer) => answer.status == 204,
            Err(SendError::NotSent(_)) => false,
            Err(SendError::Unknown(why)) => panic!("it was written: {why}"),
        }
    }

    #[tokio::test]
    async fn an_answer_that_quotes_its_request_comes_without_the_secrets() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let read = tokio::io::AsyncReadExt::read(&mut connection, &mut request).await.unwrap();
            let head = format!("HTTP/1.1 400 Bad\r\nconnection: close\r\ncontent-length: {read}\r\n\r\n");
            let answer = [head.as_bytes(), &request[..read]].concat();
            tokio::io::AsyncWriteExt::write_all(&mut connection, &answer).await.unwrap();
        });
        let token = tracklayer_ids::Secret::new("EAABtoken".to_owned());
        let mut request = HttpRequest::get(url).secret_header("authorization", "Bearer ", &token);
        request.secret_query.push(("proof", tracklayer_ids::Secret::new("s3cret/proof".to_owned())));
        let answer = Sender::new(true).unwrap().send(&request, Duration::from_secs(5)).await.unwrap();
        let told = String::from_utf8(answer.body).unwrap();
        assert!(told.contains("Bearer ***") && told.contains("/events?proof=*** "), "{told}");
        assert!(!told.contains("EAABtoken") && !told.contains("s3cret"), "{told}");
    }

    #[tokio::test]
    async fn no_address_that_a_workspace_chose_leads_into_the_private_network() {
        let guarded = Sender::new(false).unwrap();
        let allowed = Sender::new(true).unwrap();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433"] {
            assert!(!reaches(&guarded, host).await, "{host}");
        }
        assert!(reaches(&allowed, "127.0.0.1").await, "an operator may allow it");
    }
}
