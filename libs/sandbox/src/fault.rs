//! Faults that a person or a test puts on a platform, and for how long.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::platform::Platform;

/// What goes wrong. In JSON: `"html_body"`, `{"status":{"code":500}}`, `{"slow":{"ms":250}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// This HTTP status; nothing is processed.
    Status {
        /// The status.
        code: u16,
        /// The body; absent: empty.
        #[serde(default)]
        body: Option<String>,
    },
    /// 429, with `Retry-After` if given; nothing is processed. The body is the platform's own.
    TooManyRequests {
        /// Seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// The request is processed and the answer comes late. It goes together with another fault.
    Slow(#[serde(with = "millis")] Duration),
    /// Nothing is processed and nothing answered, until the client goes away.
    Stall,
    /// The connection is reset (RST) before the body is read.
    ResetBeforeReading,
    /// The request is processed and the connection reset (RST) instead of an answer.
    ResetAfterAccepting,
    /// The connection is closed before the body is read.
    HangUpBeforeReading,
    /// The request is processed and the connection closed without an answer.
    HangUpAfterAccepting,
    /// The request is processed; the answer breaks off in the middle.
    TruncatedAnswer,
    /// 502 with a page of HTML, as gateways send it; nothing is processed.
    HtmlBody,
    /// 200 with a page of HTML, as captive portals and broken gateways send it; nothing is processed.
    Page,
    /// The request is processed, and the answer says that it is HTML although it is what it always is.
    WrongContentType,
    /// The token has expired: Meta 190/463, TikTok 40102, Google 401 (all issued tokens are void), the token
    /// endpoint `invalid_grant`; nothing is processed.
    ExpiredToken,
    /// Throttled the platform's own way: Meta 400 with code 4 and `X-App-Usage`, TikTok 200 with 40100,
    /// Google 429 with `quotaErrorDetails` and a delay of 1 s; nothing is processed.
    ThrottleInBody,
    /// A passing error the platform's own way: Meta code 2, TikTok 50002, Google 503; nothing is processed.
    TransientInBody,
    /// The request is processed, and yet the answer is a passing error (TikTok 50002, others 500).
    ErrorAfterAccepting,
    /// These items are not processed. Google Ads: `code` is `family.CODE`, default
    /// `internalError.INTERNAL_ERROR`; TikTok answers 20001; Meta a smaller `events_received`; Data Manager
    /// and GA4 say nothing until later.
    PartialFailure {
        /// Places in the request, from 0.
        indexes: Vec<usize>,
        /// The platform's code.
        #[serde(default)]
        code: Option<String>,
    },
    /// Some items are not processed, of which some would be taken the next time and some never. Google Ads: each with an error of its
    /// own; TikTok 20001 with a row for each; the others answer as to [`Fault::PartialFailure`].
    MixedFailure {
        /// Places in the request, from 0, of what would be taken the next time.
        transient: Vec<usize>,
        /// Places of what never is.
        permanent: Vec<usize>,
    },
    /// One event is never taken: the one in whose JSON this text stands. As each platform does it: Meta, Data Manager and TikTok refuse
    /// the whole request, the webhook's receiver its own, the Ads API the item; GA4 says nothing.
    BadEvent {
        /// The text.
        containing: String,
        /// Whether Meta and TikTok say which it is. Data Manager always does.
        named: bool,
    },
    /// The answer says that so much of the limit is used. It goes together with another fault. Meta only.
    NearLimit {
        /// Percent.
        percent: u32,
    },
    /// Refused with the platform's code: Meta `4`, `17`, `613`, `80004` with usage headers, …; TikTok
    /// `40050`, …; Google Ads `quotaError.RESOURCE_EXHAUSTED`, …; nothing is processed.
    Refuse {
        /// The platform's code.
        code: String,
        /// Meta's subcode.
        #[serde(default)]
        subcode: Option<u64>,
    },
    /// Error texts for people come in another language. It goes together with another fault. Meta only.
    LocalisedTexts,
}

impl Fault {
    /// Whether it changes how an answer is given and leaves what is answered to others.
    const fn is_beside(&self) -> bool {
        matches!(self, Self::Slow(_) | Self::LocalisedTexts | Self::NearLimit { .. })
    }

    /// Short name, for the list of requests.
    pub(crate) fn name(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            Ok(serde_json::Value::Object(object)) => object.keys().next().cloned().unwrap_or_default(),
            _ => String::new(),
        }
    }
}

mod millis {
    use super::{Deserialize, Duration, Serialize};
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Millis {
        ms: u64,
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Millis { ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Millis::deserialize(deserializer).map(|millis| Duration::from_millis(millis.ms))
    }
}

/// How long a fault lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For so many requests.
    Times(u32),
    /// For so long, by the machine's clock.
    For(Duration),
    /// Until it is cleared.
    Always,
}

/// The faults of all platforms.
#[derive(Default)]
pub(crate) struct Faults(Mutex<BTreeMap<Platform, Vec<Active>>>);

struct Active {
    fault: Fault,
    left: Left,
}

enum Left {
    Times(u32),
    Until(Instant),
    Always,
}

/// The faults put on one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) delay: Duration,
    pub(crate) localised: bool,
    pub(crate) used_percent: Option<u32>,
    pub(crate) fault: Option<Fault>,
}

impl Put {
    /// Names of the faults, for the list of requests.
    pub(crate) fn names(&self) -> Option<String> {
        let mut names = Vec::new();
        if !self.delay.is_zero() {
            names.push("slow".to_owned());
        }
        if self.localised {
            names.push("localised_texts".to_owned());
        }
        if self.used_percent.is_some() {
            names.push("near_limit".to_owned());
        }
        names.extend(self.fault.as_ref().map(Fault::name));
        (!names.is_empty()).then(|| names.join(","))
    }
}

impl Faults {
    /// Adds a fault behind those that are there.
    pub(crate) fn inject(&self, platform: Platform, fault: Fault, how: How, now: Instant) {
        let left = match how {
            How::Times(times) => Left::Times(times),
            How::For(time) => Left::Until(now + time),
            How::Always => Left::Always,
        };
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry(platform).or_default().push(Active { fault, left });
    }

    /// Removes the faults of a platform.
    pub(crate) fn clear(&self, platform: Platform) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&platform);
    }

    /// What is put on the next request: every fault that goes beside others, and the first of the rest.
    pub(crate) fn take(&self, platform: Platform, now: Instant) -> Put {
        let mut put = Put::default();
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(active) = faults.get_mut(&platform) else { return put };
        active.retain(|active| match active.left {
            Left::Times(times) => times > 0,
            Left::Until(end) => now < end,
            Left::Always => true,
        });
        for active in active.iter_mut() {
            if !active.fault.is_beside() && put.fault.is_some() {
                continue;
            }
            if let Left::Times(times) = &mut active.left {
                *times -= 1;
            }
            match &active.fault {
                Fault::Slow(delay) => put.delay += *delay,
                Fault::LocalisedTexts => put.localised = true,
                Fault::NearLimit { percent } => put.used_percent = Some(*percent),
                fault => put.fault = Some(fault.clone()),
            }
        }
        put
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_as_many_requests_as_it_was_given() {
        let faults = Faults::default();
        faults.inject(Platform::Meta, Fault::HtmlBody, How::Times(2), Instant::now());
        assert_eq!(faults.take(Platform::TikTok, Instant::now()), Put::default());
        assert_eq!(faults.take(Platform::Meta, Instant::now()).fault, Some(Fault::HtmlBody));
        assert_eq!(faults.take(Platform::Meta, Instant::now()).fault, Some(Fault::HtmlBody));
        assert_eq!(faults.take(Platform::Meta, Instant::now()), Put::default());
    }

    #[test]
    fn a_fault_lasts_as_long_as_it_was_given() {
        let (faults, start) = (Faults::default(), Instant::now());
        faults.inject(Platform::Meta, Fault::HtmlBody, How::For(Duration::from_secs(10)), start);
        assert!(faults.take(Platform::Meta, start + Duration::from_secs(9)).fault.is_some());
        assert!(faults.take(Platform::Meta, start + Duration::from_secs(10)).fault.is_none());
    }

    #[test]
    fn faults_wait_for_one_another_and_slowness_goes_beside() {
        let faults = Faults::default();
        faults.inject(Platform::Meta, Fault::HtmlBody, How::Times(1), Instant::now());
        faults.inject(Platform::Meta, Fault::Slow(Duration::from_millis(5)), How::Always, Instant::now());
        faults.inject(Platform::Meta, Fault::ExpiredToken, How::Times(1), Instant::now());
        let put = faults.take(Platform::Meta, Instant::now());
        assert_eq!((put.delay.as_millis(), put.fault), (5, Some(Fault::HtmlBody)));
        let put = faults.take(Platform::Meta, Instant::now());
        assert_eq!((put.delay.as_millis(), put.fault), (5, Some(Fault::ExpiredToken)));
        faults.clear(Platform::Meta);
        assert_eq!(faults.take(Platform::Meta, Instant::now()), Put::default());
    }

    #[test]
    fn the_json_form_of_every_fault_is_read_back() {
        for (fault, json) in [
            (Fault::HtmlBody, r#""html_body""#),
            (Fault::Slow(Duration::from_millis(250)), r#"{"slow":{"ms":250}}"#),
            (Fault::Status { code: 500, body: None }, r#"{"status":{"code":500}}"#),
            (Fault::TooManyRequests { retry_after: Some(2) }, r#"{"too_many_requests":{"retry_after":2}}"#),
            (Fault::NearLimit { percent: 80 }, r#"{"near_limit":{"percent":80}}"#),
            (
                Fault::BadEvent { containing: "m-1".to_owned(), named: true },
                r#"{"bad_event":{"containing":"m-1","named":true}}"#,
            ),
        ] {
            assert_eq!(serde_json::from_str::<Fault>(json).unwrap(), fault);
            let written = serde_json::to_string(&fault).unwrap();
            assert_eq!(serde_json::from_str::<Fault>(&written).unwrap(), fault);
        }
        assert!(serde_json::from_str::<Fault>(r#"{"slow":{"sec":1}}"#).is_err());
    }
}
