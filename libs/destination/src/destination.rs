//! The trait that every kind of connection implements, and the limits that a lane must know.

use std::time::Duration;

use jiff::Timestamp;
use tracklayer_ids::Secret;

use crate::deliverable::Deliverable;
use crate::document::{ConsentCap, Kind, Mode};
use crate::outcome::{Answer, Item, ItemOutcome, Refusal, Skip};
use crate::quality::{EventQuality, KeyCounts, KeySet};
use crate::quota_key::QuotaKey;
use crate::request::HttpRequest;
use crate::trial::Trial;
use crate::verify::{self, Check, NoTest, PixelAnswer, Sample, TestAnswer};
use crate::warehouse::FileTarget;

/// What a platform allows. Constants with their sources stand in the destination's `mod.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events of a request.
    pub max_events: usize,
    /// Most bytes of a body.
    pub max_body_bytes: usize,
    /// How long the platform recognises a repeated event id; none: it never does, and an unknown outcome is dead as
    /// `outcome_unknown`.
    pub dedup_window: Option<Duration>,
    /// Most requests a minute of whoever they are counted for, see `whose`; none: no published limit.
    pub requests_per_minute: Option<u32>,
    /// Most requests within any 24 hours, likewise; none: no published limit.
    pub requests_per_day: Option<u32>,
    /// For whom the platform counts the requests of a minute and of a day: connections with the same key share them. None: for the
    /// connection alone.
    pub whose: Option<QuotaKey>,
    /// Most requests of a connection at the same time.
    pub max_concurrent: usize,
    /// How long a request may take before its outcome is unknown.
    pub timeout: Duration,
}

/// How long nothing is sent where a platform says that there is too much and names no time: at first, then twice as long each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The first.
    pub first: Duration,
    /// None is longer.
    pub longest: Duration,
}

impl Pauses {
    /// Those of platforms that publish none. Ours.
    pub const USUAL: Self = Self { first: Duration::from_secs(1), longest: Duration::from_secs(300) };
}

/// How much of its limit on requests a platform says is used, beside an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of the limit that is nearest, percent. It may be above 100.
    pub percent: u32,
}

/// What the consent firewall is asked for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentQuery {
    /// The kind's name: fixes the floor of purposes.
    pub kind: &'static str,
    /// Purposes that the connection declares beyond the floor.
    pub extra_purposes: Vec<String>,
    /// The most that the connection wants.
    pub cap: Option<ConsentCap>,
}

/// How to get an access token from a refresh token.
#[derive(Debug, Clone)]
pub struct OAuthSettings {
    /// Where.
    pub token_url: String,
    /// The application.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret<String>,
    /// The user's grant.
    pub refresh_token: Secret<String>,
    /// What the token must be good for.
    pub scope: &'static str,
}

/// The order whose state an event needs before it is built, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderNeed {
    /// The event changes the order: it is built from what is left of it, and waits for it where it was not sent.
    Changes(String),
    /// The event sells the order, and the platform takes its value in place of the one that stands there: what it
    /// was told since an earlier sale would be undone. Only what the order was changed by matters, not whether it
    /// was sold.
    Overwrites(String),
}

impl OrderNeed {
    /// The order.
    #[must_use]
    pub fn order_id(&self) -> &str {
        match self {
            Self::Changes(order_id) | Self::Overwrites(order_id) => order_id,
        }
    }
}

/// One connection, opened: knows how to build, assemble and read. Every method is pure and may be called any number of
/// times with the same result.
pub trait Destination: Send + Sync {
    /// The kind of connection.
    fn kind(&self) -> Kind;

    /// Off, shadow or live.
    fn mode(&self) -> Mode;

    /// The platform's limits.
    fn limits(&self) -> &Limits;

    /// How long nothing is sent where the platform says that there is too much and names no time.
    fn pauses(&self) -> Pauses {
        Pauses::USUAL
    }

    /// The oldest this event may be, from its time to our request; none: no limit. An older one fails its whole request at
    /// some platforms, so it is told apart before batching.
    fn max_event_age(&self, event: &Deliverable) -> Option<Duration>;

    /// What to ask the consent firewall.
    fn consent_query(&self) -> ConsentQuery;

    /// The order that the event changes, which is built from what is left of it; none: it changes none.
    fn order_key(&self, event: &Deliverable) -> Option<String> {
        let _ = event;
        None
    }

    /// The order whose state the lane must look up and put into the deliverable before `build`; none: no order
    /// matters.
    fn order_need(&self, event: &Deliverable) -> Option<OrderNeed> {
        self.order_key(event).map(OrderNeed::Changes)
    }

    /// The order whose sale says whom a change of it is about, since the change has no identifier of its own that may be sent; none:
    /// it has one, or the platform needs none. Whether that of the sale may be used, consent has to be asked.
    fn borrows_from(&self, event: &Deliverable) -> Option<String> {
        let _ = event;
        None
    }

    /// Whether the connection wants the event at all.
    ///
    /// # Errors
    /// It does not: the ledger's state is *filtered*.
    fn wants(&self, event: &Deliverable) -> Result<(), Skip>;

    /// Builds the event's part of a request. The caller has asked consent: a denied event must never come here, and is
    /// refused if it does.
    ///
    /// # Errors
    /// The event can never be sent as it is (or no longer, at this `now`).
    fn build(&self, event: &Deliverable, now: Timestamp) -> Result<Item, Refusal>;

    /// Puts items of one group into one request. `access_token` is the one that [`Destination::oauth`] led to.
    fn assemble(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> HttpRequest;

    /// Where access tokens come from, for kinds that need them.
    fn oauth(&self) -> Option<&OAuthSettings> {
        None
    }

    /// Reads an answer: one outcome per item that was sent, in the order of `sent`.
    fn classify(&self, answer: &Answer, sent: &[&Item]) -> Vec<ItemOutcome>;

    /// Where files go, for a kind that writes files instead of sending requests: its lane gathers events for them, and what
    /// [`Destination::assemble`] makes is for a preview alone.
    fn files(&self) -> Option<&FileTarget> {
        None
    }

    /// What the platform says of its limits beside an answer, a good one, too. None: it says nothing, or says it only by refusing.
    fn usage(&self, answer: &Answer) -> Option<Usage> {
        let _ = answer;
        None
    }

    /// The request by which the platform tries items of one group: it says what it thinks of them and counts nothing. None
    /// where it has no such thing; a test code that makes an event show up and count all the same is none.
    fn trial(&self, items: &[&Item], access_token: Option<&Secret<String>>) -> Option<HttpRequest> {
        let _ = (items, access_token);
        None
    }

    /// Reads the answer to [`Destination::trial`].
    fn read_trial(&self, answer: &Answer) -> Trial {
        let code = format!("HTTP_{}", answer.status);
        Trial::Unanswered { code, detail: "this kind of connection has no trial".to_owned() }
    }

    /// The request by which the platform tells later what became of a request that it took, named by the id that
    /// [`crate::data_manager::request_id`] finds in the note of a delivered item. None: it told at once.
    fn status_request(&self, request_id: &str, access_token: &Secret<String>) -> Option<HttpRequest> {
        let _ = (request_id, access_token);
        None
    }

    /// What `connections verify` looks at: at least one check of each [`verify::Aspect`], the one of the credentials first. Whatever is
    /// behind that goes by it: where the platform does not let the connection in, nothing else is sent.
    fn checks(&self, sample: &Sample) -> Vec<Check>;

    /// The request that shows items of one group to the platform as a test: nothing of it counts as a conversion. `test_code` is the
    /// platform's code for test events, where somebody has said one. As [`Destination::trial`] has it, unless the platform has another
    /// way.
    ///
    /// # Errors
    /// There is no such request, with what to do.
    fn test_request(
        &self,
        items: &[&Item],
        access_token: Option<&Secret<String>>,
        test_code: Option<&str>,
    ) -> Result<HttpRequest, NoTest> {
        let _ = test_code;
        self.trial(items, access_token).ok_or(NoTest("this kind of connection has no tests"))
    }

    /// Reads the answer to [`Destination::test_request`].
    fn read_test(&self, answer: &Answer, sent: &[&Item]) -> TestAnswer {
        let _ = sent;
        verify::of_trial(self.read_trial(answer), answer)
    }

    /// The request by which the platform says whether a pixel in the browser sends it the same event ids; none: it does not say.
    fn pixel_request(&self) -> Option<HttpRequest> {
        None
    }

    /// Reads the answer to [`Destination::pixel_request`].
    fn read_pixel(&self, answer: &Answer) -> PixelAnswer {
        let _ = answer;
        PixelAnswer::Untold("this kind of platform says nothing about a pixel".to_owned())
    }

    /// What the platform can match a person by; empty: it matches nobody.
    fn match_keys(&self) -> KeySet {
        KeySet::NONE
    }

    /// An estimate of the platform's own score of how well it can match such events, 0 to 10; none: it has no such score, or nothing is
    /// known about what makes it up.
    fn estimated_quality(&self, counts: &KeyCounts) -> Option<f64> {
        let _ = counts;
        None
    }

    /// The request by which the platform says how well it matches what it was sent; none: it does not say.
    fn quality_request(&self) -> Option<HttpRequest> {
        None
    }

    /// Reads the answer to [`Destination::quality_request`].
    ///
    /// # Errors
    /// Why there is no figure, for people: what the platform refused, and what to do.
    fn read_quality(&self, answer: &Answer) -> Result<Vec<EventQuality>, String> {
        let _ = answer;
        Err("this kind of connection says nothing about match quality".to_owned())
    }
}
