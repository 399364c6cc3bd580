//! The pages, with a delivery that answers what it is told to.

use std::sync::{Arc, Mutex};

use prost_types::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracklayer_control::{SeedOptions, Seeded, seed_northline};
use tracklayer_proto::delivery::v1::delivery_service_server::{DeliveryService, DeliveryServiceServer};
use tracklayer_proto::delivery::v1::{
    self as pb, BalanceLedgerRequest, BalanceLedgerResponse, ConnectionStats, DeliveryStory, EventStory,
    GetStatsRequest, GetStatsResponse, ListDeadLettersRequest, ListDeadLettersResponse, Position,
    PreviewRequest, PreviewResponse, ShowEventRequest, ShowEventResponse, SourceCount, SourceStateCount,
};

use crate::console::{Browser, encoded};
use crate::harness::{Control, master_key, start, start_with, webhook};

/// What the other side of the console's calls says.
#[derive(Clone, Default)]
struct Answers {
    stats: Arc<Mutex<GetStatsResponse>>,
    twins: Arc<Mutex<Option<pb::GetTwinsResponse>>>,
    event: Arc<Mutex<Option<ShowEventResponse>>>,
}

#[tonic::async_trait]
impl DeliveryService for Answers {
    async fn get_stats(
        &self,
        request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        assert_eq!(tracklayer_rpc::bearer(request.metadata()), Some(master_key().service_token()));
        Ok(Response::new(self.stats.lock().unwrap().clone()))
    }

    async fn show_event(&self, _: Request<ShowEventRequest>) -> Result<Response<ShowEventResponse>, Status> {
        self.event
            .lock()
            .unwrap()
            .clone()
            .map(Response::new)
            .ok_or_else(|| Status::not_found("never accepted"))
    }

    async fn preview(&self, _: Request<PreviewRequest>) -> Result<Response<PreviewResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn balance_ledger(
        &self,
        _: Request<BalanceLedgerRequest>,
    ) -> Result<Response<BalanceLedgerResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn list_dead_letters(
        &self,
        _: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn close_dead_letters(
        &self,
        _: Request<pb::CloseDeadLettersRequest>,
    ) -> Result<Response<pb::CloseDeadLettersResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn inspect_journal(
        &self,
        _: Request<pb::InspectJournalRequest>,
    ) -> Result<Response<pb::InspectJournalResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn verify_journal(
        &self,
        _: Request<pb::VerifyJournalRequest>,
    ) -> Result<Response<pb::VerifyJournalResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_journal_lag(
        &self,
        _: Request<pb::GetJournalLagRequest>,
    ) -> Result<Response<pb::GetJournalLagResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn read_journal(
        &self,
        _: Request<pb::ReadJournalRequest>,
    ) -> Result<Response<pb::ReadJournalResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_order_states(
        &self,
        _: Request<pb::GetOrderStatesRequest>,
    ) -> Result<Response<pb::GetOrderStatesResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn list_ingest_requests(
        &self,
        _: Request<pb::ListIngestRequestsRequest>,
    ) -> Result<Response<pb::ListIngestRequestsResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn verify_connection(
        &self,
        _: Request<pb::VerifyConnectionRequest>,
    ) -> Result<Response<pb::VerifyConnectionResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_journal_retention(
        &self,
        _: Request<pb::GetJournalRetentionRequest>,
    ) -> Result<Response<pb::GetJournalRetentionResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn examine(&self, _: Request<pb::ExamineRequest>) -> Result<Response<pb::ExamineResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn freeze_golden(
        &self,
        _: Request<pb::FreezeGoldenRequest>,
    ) -> Result<Response<pb::FreezeGoldenResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn report_drift(
        &self,
        _: Request<pb::ReportDriftRequest>,
    ) -> Result<Response<pb::ReportDriftResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn accept_drift(
        &self,
        _: Request<pb::AcceptDriftRequest>,
    ) -> Result<Response<pb::AcceptDriftResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn forget_golden(
        &self,
        _: Request<pb::ForgetGoldenRequest>,
    ) -> Result<Response<pb::ForgetGoldenResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_match_quality(
        &self,
        _: Request<pb::GetMatchQualityRequest>,
    ) -> Result<Response<pb::GetMatchQualityResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_twins(
        &self,
        _: Request<pb::GetTwinsRequest>,
    ) -> Result<Response<pb::GetTwinsResponse>, Status> {
        let twins = self.twins.lock().unwrap().clone();
        twins.map(Response::new).ok_or_else(|| Status::unimplemented("it is of an earlier version"))
    }

    async fn forecast_release(
        &self,
        _: Request<pb::ForecastReleaseRequest>,
    ) -> Result<Response<pb::ForecastReleaseResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn plan_replay(
        &self,
        _: Request<pb::PlanReplayRequest>,
    ) -> Result<Response<pb::PlanReplayResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn start_replay(
        &self,
        _: Request<pb::StartReplayRequest>,
    ) -> Result<Response<pb::StartReplayResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn get_replay(
        &self,
        _: Request<pb::GetReplayRequest>,
    ) -> Result<Response<pb::GetReplayResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn list_replays(
        &self,
        _: Request<pb::ListReplaysRequest>,
    ) -> Result<Response<pb::ListReplaysResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn cancel_replay(
        &self,
        _: Request<pb::CancelReplayRequest>,
    ) -> Result<Response<pb::CancelReplayResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn skip_block(
        &self,
        _: Request<pb::SkipBlockRequest>,
    ) -> Result<Response<pb::SkipBlockResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }

    async fn give_up_unread(
        &self,
        _: Request<pb::GiveUpUnreadRequest>,
    ) -> Result<Response<pb::GiveUpUnreadResponse>, Status> {
        Err(Status::unimplemented("not asked by the console"))
    }
}

struct Setup {
    control: Control,
    answers: Answers,
    seeded: Seeded,
    browser: Browser,
    _delivery: tokio_util::sync::DropGuard,
}

async fn setup() -> Setup {
    let answers = Answers::default();
    let listener = tracklayer_testkit::listener().await;
    let address = format!("http://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let server = tracklayer_rpc::GrpcServer::new("delivery").add(DeliveryServiceServer::new(answers.clone()));
    tokio::spawn(server.serve(listener, shutdown.clone()));
    let control = start_with(&address).await;
    let (seeded, browser) = signed_in(&control).await;
    Setup { control, answers, seeded, browser, _delivery: shutdown.drop_guard() }
}

async fn signed_in(control: &Control) -> (Seeded, Browser) {
    let mut own_worth = webhook("s", "a");
    own_worth["value_from"] = serde_json::json!(["total"]);
    let options = SeedOptions {
        connections: vec![("crm-hook".to_owned(), own_worth), ("partner-hook".to_owned(), webhook("s", "a"))],
        ..SeedOptions::default()
    };
    let seeded = seed_northline(&control.database.pool, &master_key(), &options).await.unwrap();
    let mut browser = Browser::new(&control.replica.http);
    browser.sign_in(&control.key, "").await;
    (seeded, browser)
}

fn count(source: i64, state: &str, reason: &str, count: u64) -> SourceStateCount {
    SourceStateCount { source_id: source, state: state.to_owned(), reason: reason.to_owned(), count }
}

fn busy_day(seeded: &Seeded) -> GetStatsResponse {
    let source = |at: usize| seeded.sources[at].source_id.0;
    let counts = vec![
        count(source(0), "delivered", "", 12_345),
        count(source(1), "delivered", "", 55),
        count(source(1), "blocked", "no_consent", 900),
        count(source(0), "blocked", "gpc", 1_100),
        count(source(2), "duplicate", "", 800),
        count(source(2), "dead", "missing_value", 3),
    ];
    GetStatsResponse {
        sources: vec![
            SourceCount { source_id: source(0), accepted: 13_450 },
            SourceCount { source_id: source(1), accepted: 955 },
        ],
        connections: vec![ConnectionStats {
            connection_id: seeded.connections[0].connection_id.0,
            counts,
            p50_ms: 180,
            p95_ms: 950,
            p99_ms: 2_400,
            requests: 40,
            waiting: 7,
            health: "throttled: 429 from the receiver".to_owned(),
        }],
    }
}

#[tokio::test]
async fn the_live_page_shows_every_count_with_its_reason() {
    let mut setup = setup().await;
    *setup.answers.stats.lock().unwrap() = busy_day(&setup.seeded);
    let page = setup.browser.get("/w/northline/live").await.text().await.unwrap();
    for expected in [
        "14,405", // accepted by both sources
        "12,400", // delivered
        "2,000",  // blocked
        "180 ms",
        "950 ms",
        "2.4 s",
        "The browser sends Global Privacy Control",
        "<code>gpc</code>",
        "A purchase without a value",
        "The platform asks for fewer requests (429 from the receiver)",
        "A purchase is worth its <code>total</code> here",
        "12,400 delivered, 2,000 blocked, 800 duplicate, 7 waiting, 3 dead",
        "Place unknown (strictest rules)",
    ] {
        assert!(page.contains(expected), "no `{expected}` in {page}");
    }
    // A destination that delivery has not heard of yet shows dashes, not zeros.
    let second = page.split("partner-hook").nth(1).unwrap();
    assert!(second.split("</tr>").next().unwrap().contains("–"));
}

#[tokio::test]
async fn the_live_page_says_what_only_one_of_two_sources_has_sent() {
    let mut setup = setup().await;
    let page = setup.browser.get("/w/northline/live").await.text().await.unwrap();
    assert!(!page.contains("id=\"twins\""), "where delivery counts none there is no such table: {page}");
    let (web, server) = (setup.seeded.sources[0].source_id.0, setup.seeded.sources[2].source_id.0);
    let sent = |source_id, events| pb::SourceTwins { source_id, events, ..pb::SourceTwins::default() };
    let pair = |first_source_id, second_source_id, by_message_id, by_order| pb::TwinPair {
        first_source_id,
        second_source_id,
        by_message_id,
        by_order,
    };
    *setup.answers.twins.lock().unwrap() = Some(pb::GetTwinsResponse {
        sources: vec![sent(web, 820), sent(server, 1_000)],
        pairs: vec![pair(web, server, 750, 10), pair(server, web, 40, 0)],
        ..pb::GetTwinsResponse::default()
    });
    let page = setup.browser.get("/w/northline/live").await.text().await.unwrap();
    // 800 of both; the seed makes the web's source before the server's.
    let alone = "web-us 20 (2.4 %), shop-server 200 (20.0 %)";
    for expected in ["web-us and shop-server", ">800<", "web-us 760, shop-server 40", alone] {
        assert!(page.contains(expected), "no `{expected}` in {page}");
    }
    let json: Value =
        serde_json::from_slice(&setup.browser.get("/w/northline/live.json").await.bytes().await.unwrap())
            .unwrap();
    let twins = serde_json::json!([{
        "a": "web-us", "b": "shop-server", "a_first": 760, "b_first": 40, "a_without_b": 20, "b_without_a": 200
    }]);
    assert_eq!(json["twins"], twins);
}

#[tokio::test]
async fn the_json_carries_the_same_numbers_and_the_page_to_show() {
    let mut setup = setup().await;
    *setup.answers.stats.lock().unwrap() = busy_day(&setup.seeded);
    let json: Value =
        serde_json::from_slice(&setup.browser.get("/w/northline/live.json").await.bytes().await.unwrap())
            .unwrap();
    assert_eq!(json["workspace"], "northline");
    assert_eq!(json["problem"], Value::Null);
    assert_eq!(json["sources"][0]["accepted"], 13_450);
    let numbers = &json["destinations"][0]["numbers"];
    assert_eq!(numbers["states"]["delivered"], 12_400);
    assert_eq!(numbers["states"]["waiting"], 7);
    assert_eq!(
        numbers["reasons"][0],
        serde_json::json!({"state": "blocked", "reason": "gpc", "count": 1_100})
    );
    assert_eq!(numbers["latencies_ms"], serde_json::json!([180, 950, 2_400]));
    assert_eq!(json["destinations"][1]["numbers"], Value::Null);
    assert!(json["html"].as_str().unwrap().contains("12,400"));
    assert!(!json.to_string().contains("enc:v1:"), "no document in it");
}

#[tokio::test]
async fn a_workspace_without_events_sources_or_destinations_says_so() {
    let mut setup = setup().await;
    let page = setup.browser.get("/w/northline/live").await.text().await.unwrap();
    assert!(page.contains("No events yet."), "{page}");
    setup.control.workspace("empty").await;
    let page = setup.browser.get("/w/empty/live").await.text().await.unwrap();
    assert!(page.contains("No destination is connected yet") && page.contains("No source yet"), "{page}");
}

#[tokio::test]
async fn with_delivery_away_the_pages_say_so_and_show_what_they_have() {
    let control = start().await;
    let (_, mut browser) = signed_in(&control).await;
    let answer = browser.get("/w/northline/live").await;
    assert_eq!(answer.status(), 200);
    let page = answer.text().await.unwrap();
    assert!(page.contains("Delivery cannot be reached") && page.contains("web-us"), "{page}");
    for claim in ["No events yet", "Nothing was blocked"] {
        assert!(!page.contains(claim), "nobody knows that: {claim}");
    }
    let json: Value =
        serde_json::from_slice(&browser.get("/w/northline/live.json").await.bytes().await.unwrap()).unwrap();
    assert_eq!(json["sources"][0]["accepted"], Value::Null);
    let page = browser.get("/w/northline/event?message_id=m-1").await.text().await.unwrap();
    assert!(page.contains("Delivery cannot be reached"), "{page}");
}

fn story(seeded: &Seeded) -> ShowEventResponse {
    let position = |offset| Some(Position { generation: 1, partition: 2, offset });
    let at = |seconds: i64, nanos| Some(Timestamp { seconds: 1_763_992_800 + seconds, nanos });
    let delivery =
        |at: usize, state: &str, reason: &str, consent: &str, attempts, detail: &str| DeliveryStory {
            connection_id: seeded.connections[at].connection_id.0,
            state: state.to_owned(),
            reason: reason.to_owned(),
            consent: consent.to_owned(),
            attempts,
            latency_ms: 412,
            detail: detail.to_owned(),
            at: Some(Timestamp { seconds: 1_763_992_801, nanos: 0 }),
            replays: Vec::new(),
        };
    ShowEventResponse {
        occurrences: vec![
            EventStory {
                position: position(17),
                event_json:
                    r#"{"type":"track","name":"Order <b>Completed</b>","user_id":"cus… (12 characters)"}"#
                        .into(),
                source_id: seeded.sources[0].source_id.0,
                received_at: at(0, 0),
                duplicate_of: None,
                reused_id: true,
                canonical_key: "0af1".repeat(8),
                resolved: true,
                deliveries: vec![
                    delivery(0, "delivered", "", "allow (US-CA)", 2, ""),
                    delivery(1, "blocked", "gpc", "deny: gpc (US-CA)", 0, "<script>alert(1)</script>"),
                ],
            },
            EventStory {
                position: position(41),
                event_json: r#"{"type":"track","name":"Order <b>Completed</b>"}"#.into(),
                source_id: seeded.sources[2].source_id.0,
                received_at: at(1, 250_000_000),
                duplicate_of: position(17),
                reused_id: false,
                canonical_key: String::new(),
                resolved: true,
                deliveries: vec![delivery(0, "duplicate", "", "", 0, "of 1/2/17")],
            },
        ],
    }
}

#[tokio::test]
async fn the_story_names_both_twins_the_decision_and_every_outcome() {
    let mut setup = setup().await;
    *setup.answers.event.lock().unwrap() = Some(story(&setup.seeded));
    let page = setup.browser.get("/w/northline/event?message_id=m-1").await.text().await.unwrap();
    for expected in [
        "Received 2 times: first from web-us, then from shop-server.",
        "Delivered to crm-hook.",
        "Blocked by consent for partner-hook.",
        "This one counts",
        "Twin",
        "1.2 s after the first",
        "duplicate of 1/2/17",
        "Allowed",
        "Denied",
        "The browser sends Global Privacy Control",
        "412 ms",
        "2025-11-24 14:00:00.000 UTC",
    ] {
        assert!(page.contains(expected), "no `{expected}` in {page}");
    }
    assert_eq!(page.matches("message id used before").count(), 1, "of the one of which it is so: {page}");
}

#[tokio::test]
async fn nothing_that_an_event_or_a_visitor_says_becomes_markup() {
    let mut setup = setup().await;
    *setup.answers.event.lock().unwrap() = Some(story(&setup.seeded));
    let hostile = "\"><script>alert(1)</script>";
    let page = setup.browser.get(&format!("/w/northline/event?message_id={}", encoded(hostile))).await;
    let page = page.text().await.unwrap();
    assert!(!page.contains("<script>") && !page.contains("<b>Completed"), "{page}");
    assert!(page.contains("&#60;script&#62;") || page.contains("&lt;script&gt;"), "{page}");
}

#[tokio::test]
async fn an_unknown_and_an_impossible_message_id_are_told_apart() {
    let mut setup = setup().await;
    let page = setup.browser.get("/w/northline/event?message_id=m-404").await.text().await.unwrap();
    assert!(page.contains("Never accepted."), "{page}");
    let long = "x".repeat(100);
    let page =
        setup.browser.get(&format!("/w/northline/event?message_id={long}")).await.text().await.unwrap();
    assert!(page.contains("This cannot be a message id."), "{page}");
    let page = setup.browser.get("/w/northline/event").await.text().await.unwrap();
    assert!(page.contains("Every event carries an id"), "{page}");
}
