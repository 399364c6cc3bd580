//! One request, from its headers to its answer: take the faults that lie on the platform, read, let the
//! platform answer, write down what happened, and only then be slow or hang up. The platform's work has no
//! `await` in it: a request that was read whole is processed whole, even if the client goes away meanwhile,
//! as it is at the platforms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;

use crate::answer::Answer;
use crate::fault::{Fault, Faults, Put};
use crate::google::Google;
use crate::options::Options;
use crate::platform::Platform;
use crate::serve::{CutShort, hang_up, reset};
use crate::store::{Book, NewRequest, Requests, Totals};
use crate::webhook::Secrets;
use crate::{SandboxError, admin, ga4, google, meta, tiktok, webhook};

/// The largest body read; above it 413, whoever is asked.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// Bodies kept per platform unless all are.
const KEPT_BODIES: usize = 10_000;

/// Everything behind the port.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) faults: Faults,
    pub(crate) requests: Requests,
    pub(crate) google: Google,
    pub(crate) webhook_secrets: Secrets,
    books: [Book; Platform::ALL.len()],
}

impl World {
    pub(crate) fn new(options: Options) -> Result<Self, SandboxError> {
        let bodies = if options.keep_bodies { usize::MAX } else { KEPT_BODIES };
        Ok(Self {
            faults: Faults::default(),
            requests: Requests::new(options.keep_requests),
            google: Google::new(&options.google),
            webhook_secrets: Secrets::new(&options.webhook)?,
            books: Platform::ALL.map(|_| Book::new(bodies)),
            options,
        })
    }

    /// The platform's book.
    pub(crate) fn book(&self, platform: Platform) -> &Book {
        &self.books[platform as usize]
    }

    /// The totals of all platforms.
    pub(crate) fn totals(&self) -> BTreeMap<Platform, Totals> {
        Platform::ALL
            .into_iter()
            .map(|platform| (platform, self.book(platform).open().totals.clone()))
            .collect()
    }
}

/// A request as a platform sees it.
pub(crate) struct Inbound<'a> {
    pub(crate) method: &'a Method,
    /// The platform's own path.
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Bytes,
    pub(crate) now: Timestamp,
    /// The fault that the platform itself has to act out.
    pub(crate) fault: Option<&'a Fault>,
    pub(crate) localised: bool,
}

impl Inbound<'_> {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The bearer token.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let value = self.header("authorization")?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// A parameter of the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// Whether the item at that place is not to be processed.
    pub(crate) fn failing(&self, place: usize) -> bool {
        match self.fault {
            Some(Fault::PartialFailure { indexes, .. }) => indexes.contains(&place),
            Some(Fault::MixedFailure { transient, permanent }) => {
                transient.contains(&place) || permanent.contains(&place)
            }
            _ => false,
        }
    }

    /// Whether the item at that place is never to be processed, of those that are not.
    pub(crate) fn failing_for_good(&self, place: usize) -> bool {
        matches!(self.fault, Some(Fault::MixedFailure { permanent, .. }) if permanent.contains(&place))
    }

    /// Whether this is the one event that is refused, and whether it is to be named.
    pub(crate) fn is_bad(&self, text: &str) -> Option<bool> {
        match self.fault {
            Some(Fault::BadEvent { containing, named }) if text.contains(containing.as_str()) => Some(*named),
            _ => None,
        }
    }
}

/// Answers one request without a connection: what the platform itself says, no fault put on it.
pub(crate) fn ask(world: &World, request: &http::Request<Bytes>) -> http::Response<Bytes> {
    let Some((platform, path)) = Platform::of_path(request.uri().path()) else {
        return respond(Answer::text(404, "Not Found"));
    };
    let inbound = Inbound {
        method: request.method(),
        path,
        query: request.uri().query().unwrap_or(""),
        headers: request.headers(),
        body: request.body(),
        now: world.options.clock.now(),
        fault: None,
        localised: false,
    };
    let answer =
        if request.body().len() > MAX_BODY { Answer::empty(413) } else { answer(world, platform, &inbound) };
    note(world, platform, &Put::default(), Some(&answer));
    respond(answer)
}

fn respond(answer: Answer) -> http::Response<Bytes> {
    let body = answer.body.clone();
    answer.response(None).map(|_| body)
}

/// All routes.
pub(crate) fn router(world: Arc<World>) -> Router {
    admin::router().fallback(exchange).with_state(world)
}

async fn exchange(State(world): State<Arc<World>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some((platform, path)) = Platform::of_path(parts.uri.path()) else {
        return Answer::text(404, "Not Found").response(None);
    };
    let put = world.faults.take(platform, Instant::now());
    let log = |body: &[u8], answer: Option<&Answer>| {
        world.requests.push(&NewRequest {
            platform,
            at_ms: world.options.clock.now().as_millisecond(),
            method: parts.method.as_str(),
            path: parts.uri.path_and_query().map_or("", |path| path.as_str()),
            headers: &parts.headers,
            body,
            status: answer.map(|answer| answer.status),
            answer: answer.map_or(&[], |answer| &answer.body),
            fault: put.names(),
        });
    };
    match put.fault {
        Some(Fault::HangUpBeforeReading | Fault::ResetBeforeReading) => {
            note(&world, platform, &put, None);
            log(&[], None);
            return if put.fault == Some(Fault::ResetBeforeReading) { reset() } else { hang_up() };
        }
        Some(Fault::Stall) => {
            note(&world, platform, &put, None);
            log(&[], None);
            // Dropped when the client goes away, or with the server.
            return std::future::pending().await;
        }
        _ => {}
    }
    let body = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => body,
        Err(_) => {
            // Too large, or the client went away in the middle; the latter does not see the answer.
            let answer = Answer::empty(413);
            note(&world, platform, &put, Some(&answer));
            log(&[], Some(&answer));
            return answer.response(None);
        }
    };
    let inbound = Inbound {
        method: &parts.method,
        path,
        query: parts.uri.query().unwrap_or(""),
        headers: &parts.headers,
        body: &body,
        now: world.options.clock.now(),
        fault: put.fault.as_ref(),
        localised: put.localised,
    };
    let mut answer = answer(&world, platform, &inbound);
    if let (Platform::Meta, Some(percent)) = (platform, put.used_percent) {
        answer = meta::fault::near_limit(&inbound, percent, answer);
    }
    if put.fault == Some(Fault::WrongContentType) {
        answer.content_type = "text/html; charset=utf-8";
    }
    let cut = matches!(put.fault, Some(Fault::HangUpAfterAccepting | Fault::ResetAfterAccepting));
    note(&world, platform, &put, (!cut).then_some(&answer));
    log(&body, (!cut).then_some(&answer));
    if !put.delay.is_zero() {
        tokio::time::sleep(put.delay).await;
    }
    match put.fault {
        Some(Fault::HangUpAfterAccepting) => hang_up(),
        Some(Fault::ResetAfterAccepting) => reset(),
        Some(Fault::TruncatedAnswer) => {
            let half = Body::new(CutShort::half(&answer.body));
            answer.response(Some(half))
        }
        _ => answer.response(None),
    }
}

fn answer(world: &World, platform: Platform, inbound: &Inbound<'_>) -> Answer {
    if let Some(instead) =
        inbound.fault.and_then(|fault| instead_of_processing(world, platform, fault, inbound))
    {
        return instead;
    }
    let answer = match platform {
        Platform::Meta => meta::answer(world, inbound),
        Platform::MetaQuality => meta::quality::answer(world, inbound),
        Platform::GoogleToken => google::token(world, inbound),
        Platform::GoogleAds => google::ads(world, inbound),
        Platform::DataManager => google::data_manager(world, inbound),
        Platform::Ga4 => ga4::answer(world, inbound),
        Platform::TikTok => tiktok::answer(world, inbound),
        Platform::Webhook => webhook::answer(world, inbound),
    };
    match inbound.fault {
        Some(Fault::ErrorAfterAccepting) => transient(platform, inbound, 500),
        _ => answer,
    }
}

/// The answer of a fault that keeps the request from being processed.
fn instead_of_processing(
    world: &World,
    platform: Platform,
    fault: &Fault,
    inbound: &Inbound<'_>,
) -> Option<Answer> {
    Some(match fault {
        Fault::Status { code, body } => {
            let body = body.clone().unwrap_or_default();
            let mut answer = Answer::text(*code, body);
            if answer.body.starts_with(b"{") {
                answer.content_type = "application/json";
            } else if answer.body.starts_with(b"<") {
                answer.content_type = "text/html";
            }
            answer.refused()
        }
        Fault::TooManyRequests { retry_after } => {
            let answer = match platform {
                Platform::Meta | Platform::MetaQuality => {
                    Answer { status: 429, ..meta::fault::throttled(inbound) }
                }
                Platform::GoogleAds | Platform::DataManager | Platform::GoogleToken => {
                    google::fault::exhausted()
                }
                Platform::TikTok | Platform::Ga4 | Platform::Webhook => Answer::empty(429),
            };
            match retry_after {
                Some(seconds) => answer.header("retry-after", seconds.to_string()),
                None => answer,
            }
        }
        Fault::HtmlBody => Answer::html(502, "502 Bad Gateway"),
        Fault::Page => Answer::html(200, "Welcome to this network").refused(),
        Fault::ExpiredToken => match platform {
            Platform::Meta | Platform::MetaQuality => meta::fault::expired(inbound),
            Platform::TikTok => tiktok::refuse(40102, "Access token has expired.", inbound.now),
            Platform::GoogleToken => google::fault::invalid_grant(),
            Platform::GoogleAds | Platform::DataManager => {
                world.google.tokens.revoke_issued();
                google::fault::expired()
            }
            Platform::Ga4 | Platform::Webhook => Answer::empty(401),
        },
        Fault::ThrottleInBody => match platform {
            Platform::Meta | Platform::MetaQuality => meta::fault::throttled(inbound),
            Platform::TikTok => {
                tiktok::refuse(40100, "Too many requests. Please retry in some time.", inbound.now)
            }
            Platform::GoogleAds => google::fault::quota(inbound.path),
            Platform::DataManager | Platform::GoogleToken => google::fault::exhausted(),
            Platform::Ga4 | Platform::Webhook => Answer::empty(429),
        },
        Fault::TransientInBody => transient(platform, inbound, 503),
        Fault::Refuse { code, subcode } => match platform {
            Platform::Meta | Platform::MetaQuality => meta::fault::refuse(inbound, code, *subcode),
            Platform::TikTok => {
                tiktok::refuse(code.parse().unwrap_or(40000), "Refused, as told.", inbound.now)
            }
            Platform::GoogleAds => google::fault::refuse(inbound.path, code),
            Platform::DataManager => google::fault::refuse_data_manager(code),
            Platform::GoogleToken => google::fault::refuse_token(code),
            Platform::Ga4 | Platform::Webhook => Answer::empty(code.parse().unwrap_or(400)),
        },
        Fault::Slow(_)
        | Fault::LocalisedTexts
        | Fault::NearLimit { .. }
        | Fault::Stall
        | Fault::ResetBeforeReading
        | Fault::ResetAfterAccepting
        | Fault::HangUpBeforeReading
        | Fault::HangUpAfterAccepting
        | Fault::TruncatedAnswer
        | Fault::WrongContentType
        | Fault::ErrorAfterAccepting
        | Fault::BadEvent { .. }
        | Fault::MixedFailure { .. }
        | Fault::PartialFailure { .. } => return None,
    })
}

fn transient(platform: Platform, inbound: &Inbound<'_>, status: u16) -> Answer {
    match platform {
        Platform::Meta | Platform::MetaQuality => meta::fault::transient(inbound, status),
        Platform::TikTok => tiktok::refuse(50002, "Service timeout.", inbound.now),
        Platform::GoogleAds | Platform::DataManager | Platform::GoogleToken => {
            google::fault::transient(status)
        }
        Platform::Ga4 | Platform::Webhook => Answer::empty(status),
    }
}

/// Writes the request into the totals.
fn note(world: &World, platform: Platform, put: &Put, answer: Option<&Answer>) {
    let totals = &mut world.book(platform).open().totals;
    totals.requests += 1;
    totals.faulted_requests += u64::from(put.names().is_some());
    match answer {
        None => totals.hung_up += 1,
        Some(answer) => {
            totals.refused_requests += u64::from(answer.refused);
            *totals.by_status.entry(answer.status).or_default() += 1;
        }
    }
}
