//! gRPC: parse, call the firewall, answer. No rules in here.

use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use tonic::{Request, Response, Status};
use tracklayer_ids::{ConnectionId, SubjectKey, WorkspaceId};
use tracklayer_proto::{
    consent::v1::{
        DecideItem, DecideRequest, DecideResponse, DestinationQuery, ExplainRequest, ExplainResponse,
        ExplicitChoice, ItemDecision, NarrowRequest, NarrowResponse, NarrowingEntry, Outcome as PbOutcome,
        Place, ReadNarrowingRequest, ReadNarrowingResponse, RecordItem, RecordRequest, RecordResponse,
        Subject, SubjectLevel, consent_service_server::ConsentService,
    },
    event::v1::{ConnectionDecision, ConsentSignals},
};

use crate::{
    decide::Query,
    error::ConsentError,
    firewall::{Answer, Decided, Destination, Firewall, Item, SubjectRef},
    kind::Kind,
    metrics,
    policy::UNKNOWN,
    purpose::{Purpose, Purposes},
    reason::{Outcome, Reason},
    record::Cause,
    signal,
    statement::Captured,
};

/// Items of a batch.
const MAX_ITEMS: usize = 2_500;
/// Connections that ask at once.
const MAX_DESTINATIONS: usize = 1_000;
/// Keys of one item: its own and those that identity links, of which there are at most 1,000.
const MAX_SUBJECTS: usize = 1_100;
/// Candidate places of one item.
const MAX_PLACES: usize = 16;
/// Bytes of an id that is only evidence.
const MAX_EVIDENCE_BYTES: usize = 400;
/// Entries of the narrowing log in one answer.
const MAX_ENTRIES: u32 = 10_000;
/// Keys that one narrowing may name.
const MAX_NAMED: usize = 10_000;

/// The service.
#[derive(Debug, Clone)]
pub struct ConsentGrpc {
    firewall: Firewall,
}

impl ConsentGrpc {
    /// Over the firewall.
    #[must_use]
    pub fn new(firewall: Firewall) -> Self {
        Self { firewall }
    }
}

#[tonic::async_trait]
impl ConsentService for ConsentGrpc {
    #[tracing::instrument(skip_all, fields(workspace = request.get_ref().workspace_id, items = request.get_ref().items.len()))]
    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        let began = Instant::now();
        let request = request.into_inner();
        let count = request.items.len();
        let answer = self.record_batch(request).await.map_err(|error| tracklayer_rpc::status(&error))?;
        metrics::answered("record", count, began.elapsed());
        Ok(Response::new(answer))
    }

    #[tracing::instrument(skip_all, fields(workspace = request.get_ref().workspace_id, items = request.get_ref().items.len()))]
    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let began = Instant::now();
        let request = request.into_inner();
        let count = request.items.len();
        let answer = self.decide_batch(request).await.map_err(|error| tracklayer_rpc::status(&error))?;
        metrics::answered("decide", count, began.elapsed());
        Ok(Response::new(answer))
    }

    async fn read_narrowing(
        &self,
        request: Request<ReadNarrowingRequest>,
    ) -> Result<Response<ReadNarrowingResponse>, Status> {
        let answer =
            self.read_log(request.into_inner()).await.map_err(|error| tracklayer_rpc::status(&error))?;
        Ok(Response::new(answer))
    }

    #[tracing::instrument(skip_all, fields(workspace = request.get_ref().workspace_id))]
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let answer =
            self.explain_one(request.into_inner()).await.map_err(|error| tracklayer_rpc::status(&error))?;
        Ok(Response::new(answer))
    }

    #[tracing::instrument(skip_all, fields(workspace = request.get_ref().workspace_id))]
    async fn narrow(&self, request: Request<NarrowRequest>) -> Result<Response<NarrowResponse>, Status> {
        let answer =
            self.name_subjects(request.into_inner()).await.map_err(|error| tracklayer_rpc::status(&error))?;
        Ok(Response::new(answer))
    }
}

impl ConsentGrpc {
    async fn record_batch(&self, request: RecordRequest) -> Result<RecordResponse, ConsentError> {
        let workspace = workspace(request.workspace_id)?;
        check_count("items", request.items.len(), MAX_ITEMS)?;
        let now = now();
        let parsed = request.items.into_iter().enumerate();
        let items: Vec<Item> = parsed.map(|(i, item)| record_item(now, i, item)).collect::<Result<_, _>>()?;
        let recorded = self.firewall.record(workspace, &items).await?;
        Ok(RecordResponse {
            narrowing_seq: recorded.narrowing_seq,
            narrowed: u32::try_from(recorded.narrowed).unwrap_or(u32::MAX),
        })
    }

    async fn decide_batch(&self, request: DecideRequest) -> Result<DecideResponse, ConsentError> {
        let began = SystemTime::now();
        let workspace = workspace(request.workspace_id)?;
        check_count("items", request.items.len(), MAX_ITEMS)?;
        if request.destinations.len() > MAX_DESTINATIONS {
            return Err(ConsentError::field("destinations", "there may be at most 1,000"));
        }
        let destinations: Vec<Destination> = request.destinations.iter().map(destination).collect();
        let now = now();
        let traces: Vec<String> = request.items.iter().map(|item| item.traceparent.clone()).collect();
        let parsed = request.items.into_iter().enumerate();
        let items: Vec<Item> = parsed
            .map(|(i, item)| decide_item(now, &format!("items[{i}]"), item))
            .collect::<Result<_, _>>()?;
        let decided = self.firewall.decide(workspace, now, &items, &destinations, request.record).await?;
        record_spans(&traces, &decided, began);
        Ok(DecideResponse {
            decisions: decided
                .answers
                .into_iter()
                .map(|answers| ItemDecision {
                    destinations: answers
                        .into_iter()
                        .zip(&destinations)
                        .map(|(answer, destination)| self.connection_decision(destination.connection, answer))
                        .collect(),
                })
                .collect(),
            narrowing_seq: decided.narrowing_seq,
        })
    }

    async fn read_log(&self, request: ReadNarrowingRequest) -> Result<ReadNarrowingResponse, ConsentError> {
        let workspace = workspace(request.workspace_id)?;
        let limit = if request.limit == 0 { MAX_ENTRIES } else { request.limit.min(MAX_ENTRIES) };
        let (entries, newest_seq) = self.firewall.read_narrowing(workspace, request.after_seq, limit).await?;
        let entries = entries
            .into_iter()
            .map(|entry| NarrowingEntry {
                seq: entry.seq,
                subject_keys: entry.subjects.iter().map(|key| key.0.to_vec()).collect(),
                cause: entry.cause,
                recorded_at: Some(prost_types::Timestamp {
                    seconds: entry.recorded_at.as_second(),
                    nanos: entry.recorded_at.subsec_nanosecond(),
                }),
            })
            .collect();
        Ok(ReadNarrowingResponse { entries, newest_seq })
    }

    async fn explain_one(&self, request: ExplainRequest) -> Result<ExplainResponse, ConsentError> {
        let workspace = workspace(request.workspace_id)?;
        let item = request.item.ok_or_else(|| ConsentError::field("item", "it is missing"))?;
        let query = request.destination.ok_or_else(|| ConsentError::field("destination", "it is missing"))?;
        let now = now();
        let (item, destination) = (decide_item(now, "item", item)?, destination(&query));
        let explained = self.firewall.explain(workspace, now, &item, &destination).await?;
        let answer = Answer {
            outcome: explained.outcome,
            reason: explained.reason,
            place: explained.place,
            denied: explained.denied,
        };
        Ok(ExplainResponse {
            decision: Some(self.connection_decision(destination.connection, answer)),
            reasons: explained.reasons.into_iter().map(str::to_owned).collect(),
            steps: explained.steps,
        })
    }

    async fn name_subjects(&self, request: NarrowRequest) -> Result<NarrowResponse, ConsentError> {
        let workspace = workspace(request.workspace_id)?;
        check_count("subject_keys", request.subject_keys.len(), MAX_NAMED)?;
        let cause = [Cause::Merge, Cause::Split, Cause::Erasure]
            .into_iter()
            .find(|cause| cause.name() == request.cause)
            .ok_or_else(|| ConsentError::field("cause", "it must be merge, split or erasure"))?;
        let keys = request.subject_keys.iter().enumerate();
        let subjects =
            keys.map(|(i, bytes)| key(bytes, || format!("subject_keys[{i}]"))).collect::<Result<_, _>>()?;
        let evidence = evidence(request.evidence, || "evidence".to_owned())?;
        let narrowing_seq = self.firewall.name(workspace, subjects, cause, evidence).await?;
        Ok(NarrowResponse { narrowing_seq })
    }

    fn connection_decision(&self, connection: ConnectionId, answer: Answer) -> ConnectionDecision {
        ConnectionDecision {
            connection_id: connection.0,
            outcome: u32::from(answer.outcome.number()),
            reason: answer.reason.map_or_else(String::new, |reason| reason.name().to_owned()),
            place: answer.place,
            policy_version: self.firewall.policy().version().to_owned(),
            denied_purposes: answer.denied.names(),
            // Whoever asked knows which change of the connection it asked for.
            connection_revision: 0,
        }
    }
}

/// The database keeps microseconds: what is compared with it has no more.
fn now() -> Timestamp {
    to_microseconds(Timestamp::now())
}

fn to_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Nothing was said about consent before this: a clock that stands at zero.
fn earliest() -> Timestamp {
    Timestamp::from_second(946_684_800).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn workspace(id: i64) -> Result<WorkspaceId, ConsentError> {
    if id > 0 { Ok(WorkspaceId(id)) } else { Err(ConsentError::field("workspace_id", "it is missing")) }
}

fn check_count(field: &'static str, count: usize, most: usize) -> Result<(), ConsentError> {
    if count == 0 {
        return Err(ConsentError::field(field, "there must be at least one"));
    }
    if count > most {
        return Err(ConsentError::field(field, "there are more than a batch may have"));
    }
    Ok(())
}

fn key(bytes: &[u8], field: impl FnOnce() -> String) -> Result<SubjectKey, ConsentError> {
    SubjectKey::from_slice(bytes).ok_or_else(|| ConsentError::field(field(), "it must have 16 bytes"))
}

fn evidence(text: String, field: impl FnOnce() -> String) -> Result<String, ConsentError> {
    if text.len() > MAX_EVIDENCE_BYTES || text.contains('\0') {
        return Err(ConsentError::field(field(), "it must have at most 400 bytes and no NUL"));
    }
    Ok(text)
}

fn record_item(now: Timestamp, index: usize, item: RecordItem) -> Result<Item, ConsentError> {
    let path = format!("items[{index}]");
    let explicit = item.explicit.map(|choice| explicit(&path, choice)).transpose()?;
    let mut parsed = decide_item(
        now,
        &path,
        DecideItem {
            subjects: item.subjects,
            signals: item.signals,
            captured_at: item.captured_at,
            received_at: item.received_at,
            places: item.places,
            message_id: item.message_id,
            ..DecideItem::default()
        },
    )?;
    parsed.captured.explicit = explicit;
    Ok(parsed)
}

fn explicit(path: &str, choice: ExplicitChoice) -> Result<(signal::ExplicitChoice, String), ConsentError> {
    let purposes = |field: &str, names: &[String]| -> Result<Purposes, ConsentError> {
        let parsed = names.iter().enumerate().map(|(i, name)| {
            Purpose::parse(name).ok_or_else(|| {
                ConsentError::field(format!("{path}.explicit.{field}[{i}]"), "it is not a purpose")
            })
        });
        parsed.collect()
    };
    let parsed = signal::ExplicitChoice {
        granted: purposes("granted", &choice.granted)?,
        denied: purposes("denied", &choice.denied)?,
        two_step: choice.two_step,
        conflict_acknowledged: choice.conflict_acknowledged,
    };
    if parsed.granted.is_empty() && parsed.denied.is_empty() {
        return Err(ConsentError::field(format!("{path}.explicit"), "it grants and denies nothing"));
    }
    if choice.provenance.is_empty() || choice.provenance.len() > 64 {
        return Err(ConsentError::field(format!("{path}.explicit.provenance"), "it must have 1 to 64 bytes"));
    }
    Ok((parsed, choice.provenance))
}

fn decide_item(now: Timestamp, path: &str, item: DecideItem) -> Result<Item, ConsentError> {
    if item.subjects.len() > MAX_SUBJECTS {
        return Err(ConsentError::field(format!("{path}.subjects"), "there may be at most 1,100"));
    }
    if item.places.len() > MAX_PLACES {
        return Err(ConsentError::field(format!("{path}.places"), "there may be at most 16"));
    }
    let subjects = item.subjects.iter().enumerate();
    let subjects = subjects
        .map(|(i, s)| subject(s, || format!("{path}.subjects[{i}].key")))
        .collect::<Result<_, _>>()?;
    let received_at = item.received_at.as_ref().and_then(timestamp).unwrap_or(now).min(now).max(earliest());
    let captured_at = item.captured_at.as_ref().and_then(timestamp).unwrap_or(received_at);
    let signals = item.signals.unwrap_or_default();
    let places = places(&item.places, &signals.place);
    Ok(Item {
        subjects,
        captured: captured(signals),
        at: captured_at.clamp(earliest(), received_at),
        received_at,
        places,
        message_id: evidence(item.message_id, || format!("{path}.message_id"))?,
        person_known: item.person_known,
        suppressed: item.suppressed,
    })
}

fn subject(subject: &Subject, field: impl FnOnce() -> String) -> Result<SubjectRef, ConsentError> {
    Ok(SubjectRef {
        key: key(&subject.key, field)?,
        person: subject.level == SubjectLevel::Person as i32,
        linked: subject.linked,
    })
}

fn timestamp(at: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(at.seconds, at.nanos).ok().map(to_microseconds)
}

/// Where a place may come from and be relied on. Everything else is a guess: from an ip, or by a way that is not known here.
const RELIABLE: [&str; 5] = ["event", "source_default", "declared", "billing", "shipping"];

/// The candidates as given, else the address of the event's own. Where every one of them is a guess, unknown counts as well: a
/// guess never makes the regime laxer.
fn places(places: &[Place], of_event: &str) -> Vec<String> {
    let mut codes: Vec<String> = places.iter().map(|place| place.code.clone()).collect();
    if !places.is_empty() && places.iter().all(|place| !RELIABLE.contains(&place.provenance.as_str())) {
        codes.push(UNKNOWN.to_owned());
    }
    if codes.is_empty() && !of_event.is_empty() {
        codes.push(of_event.to_owned());
    }
    codes
}

fn captured(signals: ConsentSignals) -> Captured {
    let gpc_provenance = signals.gpc_provenance;
    let categories = signals.categories.into_iter().map(|category| (category.category, category.allowed));
    Captured {
        gpc: signals
            .gpc
            .then(|| if gpc_provenance.is_empty() { "unknown".to_owned() } else { gpc_provenance }),
        categories: signals.has_categories.then(|| categories.collect()),
        interaction: signals.interaction,
        tc_string: signals.tc_string,
        gpp_string: signals.gpp_string,
        gpp_sid: signals.gpp_sid,
        us_privacy: signals.us_privacy,
        gcd: signals.gcd,
        unreadable: signals.unreadable,
        explicit: None,
    }
}

fn destination(query: &DestinationQuery) -> Destination {
    let extra: Vec<Option<Purpose>> = query.extra_purposes.iter().map(|name| Purpose::parse(name)).collect();
    Destination {
        connection: ConnectionId(query.connection_id),
        query: Query {
            kind: Kind::parse(&query.kind),
            unknown_purpose: extra.contains(&None),
            extra: extra.into_iter().flatten().collect(),
            cap: match PbOutcome::try_from(query.mode_cap) {
                Ok(PbOutcome::Unspecified | PbOutcome::Allow) => Outcome::Allow,
                Ok(PbOutcome::AllowRestricted) => Outcome::AllowRestricted,
                // An outcome of a newer caller can only be narrower.
                Ok(PbOutcome::Deny) | Err(_) => Outcome::Deny,
            },
        },
    }
}

/// A span for each event whose trace is recorded.
fn record_spans(traces: &[String], decided: &Decided, began: SystemTime) {
    let ended = SystemTime::now();
    for (trace, answers) in traces.iter().zip(&decided.answers) {
        if trace.is_empty() {
            continue;
        }
        let denied = answers.iter().filter(|answer| answer.outcome == Outcome::Deny).count();
        let mut reasons: Vec<&str> =
            answers.iter().filter_map(|answer| answer.reason.map(Reason::name)).collect();
        reasons.sort_unstable();
        reasons.dedup();
        let attributes = [
            ("consent.destinations", answers.len().to_string()),
            ("consent.denied", denied.to_string()),
            ("consent.reasons", reasons.join(",")),
            ("consent.place", answers.first().map_or_else(String::new, |answer| answer.place.clone())),
            ("consent.narrowing_seq", decided.narrowing_seq.to_string()),
        ];
        // A leaf: nobody hangs a span under it.
        let _ = tracklayer_telemetry::event_span("consent.decide", trace, began, ended, &attributes);
    }
}
