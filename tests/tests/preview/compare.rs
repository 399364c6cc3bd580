//! A request that was recorded beside the one that was previewed: not a byte may differ.

use std::collections::{BTreeMap, HashMap, VecDeque};

use jiff::Timestamp;
use tracklayer_destination::preview::{Answer, ConsentChoice, OfConnection, Orders, Run, Terms};
use tracklayer_destination::{Destination, HttpRequest, RefusalCode, WorkspaceDefaults};
use tracklayer_tests::{Recorded, Recorder};

use crate::connections::Tried;
use crate::told::{Ran, Refused, Told, ToldRequest};

/// Headers that the HTTP client adds, and no destination sets: whose connection it is, how long the body is, which answers the
/// client reads. They are no part of what is built.
const OF_THE_CLIENT: [&str; 5] = ["host", "content-length", "accept", "accept-encoding", "user-agent"];
/// Ties the request to the trace of its events: made anew by each attempt of the sender, not by a destination.
const OF_THE_TRACE: [&str; 2] = ["traceparent", "tracestate"];
/// What a preview that knows no secret cannot show: credentials, and what is signed with one.
const MASKED: &str = "***";

/// Requests of a connection by their bodies, each with those of the same body in the order in which they came.
pub type ByBody = HashMap<Vec<u8>, VecDeque<Recorded>>;

pub fn recorded_of(tried: &Tried, recorder: &Recorder) -> ByBody {
    let mut by_body = ByBody::new();
    // Meta is asked for its match quality beside.
    let sent = recorder.requests().into_iter().filter(|request| request.method != "GET");
    for request in sent.filter(|request| is_under(&request.url, &tried.base)) {
        by_body.entry(request.body.to_vec()).or_default().push_back(request);
    }
    by_body
}

fn is_under(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// The command's word for a request against what was sent: everything but what is masked, and the time of a signature.
pub fn check_as_printed(told: &ToldRequest<'_>, sent: &Recorded) {
    assert_eq!(told.method, sent.method.as_str());
    let shown = told.url.split(MASKED).collect::<Vec<_>>();
    match shown.as_slice() {
        [whole] => assert_eq!(*whole, sent.url),
        // A secret at the end of the address.
        [before, ""] => assert!(sent.url.starts_with(before), "{}", told.url),
        _ => panic!("{}", told.url),
    }
    assert_eq!(told.body.get().as_bytes(), &*sent.body);
    for (name, value) in told.headers.iter().filter(|(name, _)| *name != "webhook-timestamp") {
        let sent = sent.headers.get(name).unwrap_or_else(|| panic!("{name} was not sent"));
        match value.strip_suffix(MASKED) {
            Some(before) => assert!(sent.to_str().unwrap().starts_with(before), "{name}"),
            None => assert_eq!(value.as_bytes(), sent.as_bytes(), "{name}"),
        }
    }
}

/// The whole request, secrets and signature included, against what was sent. Only the access token of a token endpoint, which
/// is another one each time, is left out.
pub fn check_to_the_byte(tried: &Tried, built: &HttpRequest, sent: &Recorded) {
    assert_eq!(built.method, sent.method.as_str());
    assert_eq!(built.full_url(), sent.url);
    assert_eq!(built.body, &*sent.body);
    for (name, value) in &built.headers {
        if name == "authorization" && tried.has_oauth() {
            continue;
        }
        let sent = sent.headers.get(name).unwrap_or_else(|| panic!("{name} was not sent"));
        assert_eq!(value.expose().as_bytes(), sent.as_bytes(), "{name}");
    }
    for name in sent.headers.keys().map(|name| name.as_str()) {
        let is_built = built.headers.iter().any(|(built, _)| built == name);
        assert!(
            is_built || OF_THE_CLIENT.contains(&name) || OF_THE_TRACE.contains(&name),
            "{name} was sent and not built"
        );
    }
}

/// The time that a recorded request says it was signed at.
pub fn signed_at(sent: &Recorded) -> Option<Timestamp> {
    let seconds = sent.headers.get("webhook-timestamp")?.to_str().ok()?.parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// The connection with its secrets.
pub fn opened(tried: &Tried) -> Box<dyn Destination> {
    tracklayer_destination::open(&tried.document, &WorkspaceDefaults::default()).unwrap()
}

/// A preview of it, by what resolve was told for it, with orders as the events before have left them.
pub fn run_of<'d>(tried: &Tried, destination: &'d dyn Destination) -> Run<'d> {
    let of = OfConnection { id: tried.id, revision: Some(tried.revision) };
    let terms = Terms {
        of_connection: Some(of),
        orders: Orders::OfEvents,
        ..Terms::at(Timestamp::now(), ConsentChoice::Deny)
    };
    Run::new(destination, terms)
}

/// The one request of a line.
pub fn only_request(run: &mut Run<'_>, line: &str) -> HttpRequest {
    let read = run.read(1, line);
    let mut answers: Vec<Answer> = run.take(read);
    assert_eq!(answers.len(), 1);
    let mut answer = answers.remove(0);
    assert!(answer.refused.is_empty(), "{:?}", answer.refused);
    assert_eq!(answer.requests.len(), 1, "events of one request make one");
    answer.requests.remove(0).request
}

/// Events of some runs that are in no request, by the ledger's state and reason.
pub fn kept_back(runs: &[Ran]) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for line in runs.iter().flat_map(|run| &run.lines) {
        for refused in serde_json::from_str::<Told<'_>>(line).unwrap().refused {
            *counts.entry(in_the_ledger(&refused)).or_default() += 1;
        }
    }
    counts
}

fn in_the_ledger(refused: &Refused) -> (String, String) {
    let code = refused.code.as_str();
    if let Some(known) = RefusalCode::ALL.iter().find(|known| known.as_str() == code) {
        return (known.fate().as_str().to_owned(), code.to_owned());
    }
    match code {
        "duplicate" => ("duplicate".to_owned(), String::new()),
        "consent_denied" => ("blocked".to_owned(), refused.reason.clone()),
        "poisoned" => ("dead".to_owned(), code.to_owned()),
        _ => ("filtered".to_owned(), code.to_owned()),
    }
}
