//! `delivery.v1.VerifyConnection`: the acceptance checks that a connection's kind declares, made at its platform with what a lane has:
//! the same builders, tokens, client and quota. What is sent counts as no conversion, by the request that the kind names for it. Nothing
//! here knows the journal, the ledger or the claims, and nothing is told to a circuit: a verification changes what no lane does.
//!
//! It is bounded: in time as a whole and for each request, one at a time for a connection and a few for a process.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracklayer_destination::verify::Expected;
use tracklayer_destination::{
    Answer, Aspect, Check, Destination, FileTarget, HoldKind, HttpRequest, Item, NoTest, PixelAnswer,
    Refusal, RefusalCode, Sample, TestAnswer, Way,
};
use tracklayer_ids::{ConnectionId, Secret};
use tracklayer_lake::{Rules, Store, WriteError};
use uuid::Uuid;

use crate::connections::{Connections, OpenConnection};
use crate::http::{SendError, Sender};
use crate::oauth::Tokens;
use crate::quota::Quota;

/// Longest that a verification takes. A caller waits for thirty seconds at most.
const WHOLE: Duration = Duration::from_secs(25);
/// Longest that one request of it takes.
const ONE: Duration = Duration::from_secs(8);
/// Longest that one step of a file takes, and how many there are after the look at the place: what is written has time to be removed.
const FILE: Duration = Duration::from_secs(5);
const FILE_STEPS: u32 = 3;
/// Verifications of a process at the same time.
const AT_ONCE: usize = 4;
/// Letters of a verification's own name.
const RUN_LETTERS: usize = 12;
/// Where the test file of a warehouse is, beside the folders that readers look at: they leave out what begins with `_`.
const FOLDER: &str = "_verify";

const NOT_LET_IN: &str = "not made: the check of the credentials has not passed";
const NO_ANSWER: &str = "not made: the platform gave no answer before";
const TIME_IS_OVER: &str = "not made: 25 seconds were over";
const LATER: &str = "verify again later";
/// And after a day that is used up.
const ANOTHER_DAY: &str = "verify again when there is room, or raise the connection's limit of a day where the platform allows more";

/// Verifies connections. Cheap to clone.
#[derive(Clone)]
pub struct Verifier {
    connections: Connections,
    sender: Sender,
    tokens: Tokens,
    quota: Quota,
    files: Rules,
    busy: Arc<Mutex<HashSet<ConnectionId>>>,
    slots: Arc<Semaphore>,
}

/// Why nothing is verified now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// One at a time.
    #[error("the connection is being verified already: wait for that")]
    AlreadyVerifying,
    /// A few at a time.
    #[error("{AT_ONCE} connections are being verified here already: try again in a few seconds")]
    TooMany,
}

/// What somebody has said beside the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The platform's code for test events; none: that of the settings.
    pub test_code: Option<String>,
    /// What test events are called.
    pub event_name: String,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not so.
    Failed,
    /// There is nothing to look at, or the platform tells nobody.
    Untold,
    /// Not made.
    NotMade,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which check.
    pub check: &'static str,
    /// What it is about.
    pub aspect: Aspect,
    /// What was looked at.
    pub looked_at: String,
    /// How it went, and what there is to say.
    pub told: Told,
}

/// How a check went, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How.
    pub outcome: Outcome,
    /// What the platform said, or what was found here.
    pub said: String,
    /// What to do; empty: nothing.
    pub advice: String,
}

impl Told {
    fn new(outcome: Outcome, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome, said: said.into(), advice: advice.into() }
    }

    fn passed(said: impl Into<String>) -> Self {
        Self::new(Outcome::Passed, said, "")
    }

    fn failed(said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Outcome::Failed, said, advice)
    }

    fn not_made(why: &str) -> Self {
        Self::new(Outcome::NotMade, why, "")
    }
}

impl Verifier {
    /// With what lanes have, so that a verification is as they are.
    #[must_use]
    pub fn new(connections: Connections, sender: Sender, tokens: Tokens, quota: Quota, files: Rules) -> Self {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        Self { connections, sender, tokens, quota, files, busy: Arc::default(), slots }
    }

    /// The connections that it knows.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Makes every check of an open connection.
    ///
    /// # Errors
    /// It, or too many others, are being verified.
    pub async fn verify(
        &self,
        connection: &OpenConnection,
        destination: &dyn Destination,
        asked: &Asked,
    ) -> Result<Vec<Found>, VerifyError> {
        let _turn = self.take_turn(connection.id)?;
        let mut run = Uuid::new_v4().simple().to_string();
        run.truncate(RUN_LETTERS);
        let sample = Sample { now: Timestamp::now(), run, event_name: asked.event_name.clone() };
        let mut round = Round {
            verifier: self,
            connection,
            destination,
            asked,
            sample: &sample,
            until: Instant::now() + WHOLE,
            shut: None,
        };
        let mut found = Vec::new();
        for check in destination.checks(&sample) {
            round.make(check, &mut found).await;
        }
        let good = found.iter().all(|found| matches!(found.told.outcome, Outcome::Passed | Outcome::Untold));
        metrics::counter!(
            "tracklayer_delivery_verifications_total",
            "kind" => destination.kind().as_str(), "result" => if good { "passed" } else { "failed" },
        )
        .increment(1);
        Ok(found)
    }

    fn take_turn(&self, connection: ConnectionId) -> Result<Turn, VerifyError> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| VerifyError::TooMany)?;
        if !self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(connection) {
            return Err(VerifyError::AlreadyVerifying);
        }
        Ok(Turn { busy: Arc::clone(&self.busy), connection, _slot: slot })
    }
}

/// A verification under way; over when this is dropped, also where the caller has gone.
struct Turn {
    busy: Arc<Mutex<HashSet<ConnectionId>>>,
    connection: ConnectionId,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.connection);
    }
}

/// One verification.
struct Round<'a> {
    verifier: &'a Verifier,
    connection: &'a OpenConnection,
    destination: &'a dyn Destination,
    asked: &'a Asked,
    sample: &'a Sample,
    until: Instant,
    /// Why nothing is sent any more.
    shut: Option<&'static str>,
}

impl Round<'_> {
    async fn make(&mut self, check: Check, found: &mut Vec<Found>) {
        let told = match &check.way {
            Way::Untold { instead } => Told::new(Outcome::Untold, *instead, ""),
            Way::Build { event, expected } => match self.built(event, expected) {
                Ok(_) => Told::passed("built as expected; nothing was sent"),
                Err(told) => told,
            },
            Way::Refuse { event, code } => self.refused(event, *code),
            Way::Show { event, expected } => match self.built(event, expected) {
                Ok(item) => self.shown(&item).await,
                Err(told) => told,
            },
            Way::Ask => self.pixel().await,
            Way::File => {
                found.extend(self.file(&check).await);
                return;
            }
        };
        let let_in = matches!(told.outcome, Outcome::Passed | Outcome::Untold);
        if check.aspect == Aspect::Credentials && !let_in {
            self.shut = Some(NOT_LET_IN);
        }
        found.push(Found { check: check.name, aspect: check.aspect, looked_at: check.looks_at, told });
    }

    /// The event as a lane would build it, looked at.
    fn built(&self, event: &serde_json::Value, expected: &[Expected]) -> Result<Item, Told> {
        let item = self.build(event)?.map_err(|refusal| {
            let advice = "`tracklayer connections try` and `preview` show what the document makes of an event; --event names another one, \
                          where this one is not mapped";
            Told::failed(format!("refused here, unsent: {}", told_refusal(&refusal)), advice)
        })?;
        let body = item.body.to_value();
        let differences: Vec<String> = expected.iter().filter_map(|one| one.difference(&body)).collect();
        if differences.is_empty() {
            return Ok(item);
        }
        let advice = "not sent: look at field_map, constants, fields and value_from of the connection and its workspace";
        Err(Told::failed(format!("built, and not as expected: {}", differences.join("; ")), advice))
    }

    fn refused(&self, event: &serde_json::Value, code: RefusalCode) -> Told {
        match self.build(event) {
            Ok(Err(refusal)) if refusal.code == code => {
                Told::passed(format!("refused here, unsent: {}", told_refusal(&refusal)))
            }
            Ok(Err(refusal)) => Told::failed(
                format!("refused here for another reason: {}", told_refusal(&refusal)),
                "mend that first: `tracklayer connections try` and `preview` show what the document makes of an event",
            ),
            Ok(Ok(_)) => Told::failed(
                "it would have been sent, and one such event fails a whole request at some platforms",
                "look at fields and field_map of the connection: something gives events another time",
            ),
            Err(told) => told,
        }
    }

    fn build(&self, event: &serde_json::Value) -> Result<Result<Item, Refusal>, Told> {
        let deliverable = self.sample.deliverable(event).map_err(|rejection| {
            let said =
                format!("ingest would not take the test event: {}: {}", rejection.field, rejection.reason);
            Told::failed(said, "choose another --event")
        })?;
        Ok(self.destination.build(&deliverable, self.sample.now))
    }

    /// What the platform says of the item.
    async fn shown(&mut self, item: &Item) -> Told {
        if let Some(why) = self.shut {
            return Told::not_made(why);
        }
        let mut is_renewed = false;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(told) => return told,
            };
            let code = self.asked.test_code.as_deref();
            let request = match self.destination.test_request(&[item], token.as_ref(), code) {
                Ok(request) => request,
                Err(NoTest(why)) => return Told::failed("nothing was sent", why),
            };
            let answer = match self.send(&request).await {
                Ok(answer) => answer,
                Err(told) => return told,
            };
            // As a lane does: a token that is not accepted any more is renewed, once.
            if let Some(used) = token.as_ref().filter(|_| answer.status == 401 && !is_renewed) {
                self.verifier.tokens.forget(self.connection.id, self.connection.revision, used).await;
                is_renewed = true;
                continue;
            }
            return self.read(&answer, &[item]);
        }
    }

    /// What the platform says of a pixel's event ids.
    async fn pixel(&mut self) -> Told {
        if let Some(why) = self.shut {
            return Told::not_made(why);
        }
        let Some(request) = self.destination.pixel_request() else {
            return Told::new(Outcome::Untold, "the platform does not say", "");
        };
        let answer = match self.send(&request).await {
            Ok(answer) => answer,
            Err(told) => return told,
        };
        match self.destination.read_pixel(&answer) {
            PixelAnswer::Shared(said) => Told::passed(said),
            PixelAnswer::Apart { said, advice } => Told::failed(said, advice),
            PixelAnswer::Untold(why) => Told::new(Outcome::Untold, why, ""),
        }
    }

    fn read(&self, answer: &Answer, sent: &[&Item]) -> Told {
        match self.destination.read_test(answer, sent) {
            TestAnswer::Taken { note: None } => Told::passed(format!("taken (HTTP {})", answer.status)),
            TestAnswer::Taken { note: Some(note) } => {
                Told::passed(format!("taken (HTTP {}): {note}", answer.status))
            }
            TestAnswer::Refused { code, detail, kind } => {
                let said = if detail.is_empty() { code } else { format!("{code}: {detail}") };
                Told::failed(said, advice(kind))
            }
        }
    }

    async fn token(&self) -> Result<Option<Secret<String>>, Told> {
        let Some(settings) = self.destination.oauth() else { return Ok(None) };
        let asked = self.verifier.tokens.get(self.connection.id, self.connection.revision, settings);
        match timeout_at(self.until, asked).await {
            Ok(Ok(token)) => Ok(Some(token)),
            Ok(Err(error)) => Err(Told::failed(error.to_string(), token_advice(error.kind()))),
            Err(_) => Err(Told::new(Outcome::NotMade, TIME_IS_OVER, LATER)),
        }
    }

    /// Sends one request, within the connection's quota and what is left of the time.
    async fn send(&mut self, request: &HttpRequest) -> Result<Answer, Told> {
        let limits = self.destination.limits();
        let admitted = self.verifier.quota.admit(self.connection.id, limits);
        let _admission = match timeout_at(self.until, admitted).await {
            Ok(Ok(admission)) => admission,
            Ok(Err(used_up)) => {
                return Err(Told::new(Outcome::NotMade, format!("not made: {used_up}"), ANOTHER_DAY));
            }
            Err(_) => {
                let said = "not made: within 25 seconds the connection's quota had no room beside its lanes";
                return Err(Told::new(Outcome::NotMade, said, LATER));
            }
        };
        let Some(longest) = self.longest(limits.timeout) else {
            return Err(Told::new(Outcome::NotMade, TIME_IS_OVER, LATER));
        };
        match self.verifier.sender.send(request, longest).await {
            Ok(answer) => {
                if let Some(usage) = self.destination.usage(&answer) {
                    self.verifier.quota.heed(self.connection.id, usage);
                }
                Ok(answer)
            }
            Err(SendError::NotSent(why)) => {
                self.shut = Some(NO_ANSWER);
                let advice = "look at the connection's address, its name in DNS, and the way out of delivery's machines";
                Err(Told::failed(format!("it could not be sent: {why}"), advice))
            }
            Err(SendError::Unknown(why)) => {
                self.shut = Some(NO_ANSWER);
                Err(Told::failed(format!("no whole answer within {} s: {why}", longest.as_secs()), LATER))
            }
        }
    }

    /// How long a request may take now; none: the time is over.
    fn longest(&self, timeout: Duration) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(ONE).min(timeout))
    }

    /// How long a step of a file may take now.
    fn file_step(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).min(FILE)
    }

    /// Writes a file where the connection's files go, reads it again and removes it.
    async fn file(&self, check: &Check) -> [Found; 3] {
        let [written, read, removed] = match self.destination.files() {
            Some(target) => self.tried_file(target).await,
            None => [0; 3].map(|_| Told::not_made("not made: this kind of connection has no files")),
        };
        let row = |name, looked_at: &str, told| Found {
            check: name,
            aspect: check.aspect,
            looked_at: looked_at.to_owned(),
            told,
        };
        [
            row(check.name, &check.looks_at, written),
            row("read_back", "what was written is what is read", read),
            row("removal", "nothing is left of it", removed),
        ]
    }

    async fn tried_file(&self, target: &FileTarget) -> [Told; 3] {
        let unmade = || Told::not_made("not made: nothing was written");
        let name = format!("tracklayer-verify-{}.txt", self.sample.run);
        let content = Bytes::from(format!("tracklayer verify {}\n", self.sample.run));
        let begin = self.until.checked_sub(FILE * FILE_STEPS).unwrap_or(self.until);
        let store = match timeout_at(begin, Store::open(&target.place, &self.verifier.files)).await {
            Ok(Ok(store)) => store,
            Ok(Err(refused)) => {
                return [
                    Told::failed(refused.to_string(), "mend that, then verify again"),
                    unmade(),
                    unmade(),
                ];
            }
            Err(_) => {
                let said = "not made: the place could not be opened in the time that there is";
                return [0; 3].map(|_| Told::new(Outcome::NotMade, said, LATER));
            }
        };
        let admitted = self.verifier.quota.admit(self.connection.id, self.destination.limits());
        let Ok(Ok(_admission)) = timeout_at(begin, admitted).await else {
            let said = "not made: the connection's lanes left no room to write in the time that there is";
            return [0; 3].map(|_| Told::new(Outcome::NotMade, said, LATER));
        };
        let url = format!("{}{name}", target.url_of(FOLDER));
        let left_over = || format!("{url} may be left: remove it; readers of the files leave it out");

        let written = store.write(FOLDER, &name, content.clone(), self.file_step()).await;
        let (written, may_be_there) = match written {
            Ok(answer) => {
                let told = self.read(&answer, &[]);
                let is_there = told.outcome == Outcome::Passed;
                (told, is_there)
            }
            Err(WriteError::NotWritten(why)) => (Told::failed(why, advice(Some(HoldKind::Transient))), false),
            Err(WriteError::Unknown(why)) => (Told::failed(why, advice(Some(HoldKind::Transient))), true),
        };
        if !may_be_there {
            return [written, unmade(), unmade()];
        }
        let read = match store.read(FOLDER, &name, content.len(), self.file_step()).await {
            _ if written.outcome != Outcome::Passed => unmade(),
            Ok(answer) if answer.status == 200 && answer.body == content => {
                Told::passed(format!("{} bytes, the same", content.len()))
            }
            Ok(answer) if answer.status == 200 => Told::failed(
                format!("{} bytes were written, and others are read", content.len()),
                "look at what stands between delivery and the files: something changes or caches them",
            ),
            Ok(answer) if is_denied(&answer) => Told::new(
                Outcome::Untold,
                "the key may write and not read, which is all that a lane needs",
                "",
            ),
            Ok(answer) => self.read(&answer, &[]),
            Err(error) => Told::failed(error.to_string(), LATER),
        };
        let removed = match store.remove(FOLDER, &name, self.file_step()).await {
            Ok(answer) if (200..=299).contains(&answer.status) => Told::passed("removed"),
            Ok(answer) if is_denied(&answer) => {
                let said = "the key may write and not remove, which is all that a lane needs";
                Told::new(Outcome::Untold, said, left_over())
            }
            Ok(answer) => Told { advice: left_over(), ..self.read(&answer, &[]) },
            Err(error) => Told::failed(error.to_string(), left_over()),
        };
        [written, read, removed]
    }
}

fn is_denied(answer: &Answer) -> bool {
    matches!(answer.status, 401 | 403)
}

fn told_refusal(refusal: &Refusal) -> String {
    match &refusal.field {
        Some(field) => format!("{} ({field}): {}", refusal.code, refusal.reason),
        None => format!("{}: {}", refusal.code, refusal.reason),
    }
}

/// What to do where a platform refuses.
fn advice(kind: Option<HoldKind>) -> &'static str {
    match kind {
        Some(HoldKind::Auth) => {
            "give the connection a credential that is valid and may send to this account, then verify again"
        }
        Some(HoldKind::Configuration) => {
            "mend the ids and addresses in the connection's settings: the platform knows nothing there"
        }
        Some(HoldKind::Throttled) => "the platform asks to wait: verify again in some minutes",
        Some(HoldKind::Transient) => "the platform, or the way to it, is in trouble: verify again later",
        None => "mend what the platform names; `tracklayer preview` shows the request that a lane would send",
    }
}

/// The same where there was no access token.
fn token_advice(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Auth => {
            "connect the account anew: client_id, client_secret and refresh_token have to belong together and be valid"
        }
        HoldKind::Configuration => "mend oauth.token_url: nobody there takes refresh tokens",
        HoldKind::Throttled => advice(Some(kind)),
        HoldKind::Transient => "look at oauth.token_url and the way there, and verify again",
    }
}
