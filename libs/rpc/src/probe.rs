//! Whether a service answers and which version it is, by the health service that every server has.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::Channel;

/// In every answer of a server.
const VERSION_HEADER: &str = "x-tracklayer-version";
/// How long a service may take to say that it lives.
const PATIENCE: Duration = Duration::from_secs(5);

/// The version of this program, which all of its services share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Asks a replica of a service whether it serves. Answers its version; empty: it does not say.
///
/// # Errors
/// It does not answer in time, or is about to end.
pub async fn probe(channel: Channel) -> Result<String, Status> {
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(PATIENCE);
    let answer = HealthClient::new(channel).check(request).await?;
    let version = answer.metadata().get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    let version = version.unwrap_or_default().to_owned();
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(version),
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            Err(Status::unavailable("it answers, and does not serve: it is about to end"))
        }
    }
}

/// Puts the version into every answer.
pub(crate) fn with_version() -> SetResponseHeaderLayer<HeaderValue> {
    let (name, version) = (HeaderName::from_static(VERSION_HEADER), HeaderValue::from_static(VERSION));
    SetResponseHeaderLayer::overriding(name, version)
}
