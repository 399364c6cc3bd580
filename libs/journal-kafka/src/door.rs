//! Whether the brokers let this process in.
//!
//! A broker that refuses a password or whose certificate is not believed looks, to whoever asks the cluster something, like one
//! that is away: the answer is late, and the library tells the reason elsewhere, to the client whose connection it was. What any
//! client of a journal hears is kept here, and stands in the error of whoever waited in vain.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::KafkaFailure;

/// How long a refusal explains what fails. The library repeats the same one after 30 seconds (librdkafka 2.12.1,
/// `rd_kafka_broker_set_error`; 2026-11).
const LASTS: Duration = Duration::from_secs(60);

const BY_PASSWORD: &str = "see kafka_user, kafka_password and kafka_sasl_mechanism, whether the cluster knows the user, and kafka_security_protocol";
const BY_CERTIFICATE: &str = "see kafka_ca, by which the brokers' certificates are judged, whether these have the names that \
                              kafka_brokers has, and kafka_certificate where brokers ask for one";
const BY_PROTOCOL: &str =
    "see kafka_security_protocol, and which of the brokers' listeners kafka_brokers names";

/// What the clients of a journal know of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Door {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a broker has ever answered.
    was_inside: bool,
    refused: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    at: Instant,
    why: String,
    advice: &'static str,
}

impl Door {
    /// Takes note of what the library says to a client.
    pub(crate) fn hear(&self, error: &KafkaError, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let advice = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => BY_PASSWORD,
            Some(RDKafkaErrorCode::SSL) => BY_CERTIFICATE,
            Some(RDKafkaErrorCode::BrokerTransportFailure) if !state.was_inside => match reason {
                told if told.contains("SSL alert") => BY_CERTIFICATE,
                guess if guess.contains("PLAINTEXT broker listener") => BY_PROTOCOL,
                _ => return,
            },
            // A TLS alert, taken for the length of an answer.
            _ if !state.was_inside && reason.contains("Invalid response size") => BY_PROTOCOL,
            _ => return,
        };
        state.refused = Some(Refusal { at: Instant::now(), why: reason.to_owned(), advice });
    }

    /// Takes note of what the library writes into its log about a connection that failed. A listener that wants TLS or SASL cuts one
    /// that brings neither, without a word. Brokers that go and come cut them, too: it says something only of settings with which
    /// nobody was ever let in.
    pub(crate) fn hear_of_a_cut(&self, told: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What a broker has said in words goes before.
        let is_news = |refusal: &Refusal| refusal.advice == BY_PROTOCOL || refusal.at.elapsed() >= LASTS;
        let is_news = state.refused.as_ref().is_none_or(is_news);
        if is_news && !state.was_inside && told.contains("Disconnected") {
            state.refused = Some(Refusal { at: Instant::now(), why: told.to_owned(), advice: BY_PROTOCOL });
        }
    }

    /// A broker has answered.
    pub(crate) fn opened(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.was_inside = true;
        state.refused = None;
    }

    /// The failure, or, where it is only that nobody answered, why nobody does.
    pub(crate) fn explain(&self, failure: KafkaFailure) -> KafkaFailure {
        if !failure.is_silence() {
            return failure;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &state.refused {
            Some(refusal) if refusal.at.elapsed() < LASTS => {
                KafkaFailure::NotLetIn { why: refusal.why.clone(), advice: refusal.advice }
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: RDKafkaErrorCode = RDKafkaErrorCode::OperationTimedOut;

    fn said(door: &Door, failure: KafkaFailure) -> String {
        door.explain(failure).to_string()
    }

    #[test]
    fn whoever_waits_in_vain_hears_why_another_client_was_refused() {
        let door = Door::default();
        assert!(!said(&door, LATE.into()).contains("kafka_password"));
        door.hear(&KafkaError::Global(RDKafkaErrorCode::Authentication), "unknown user");
        for failure in [
            KafkaFailure::Refused(LATE),
            KafkaFailure::Silent(Duration::from_secs(5)),
            KafkaFailure::Client(KafkaError::AdminOp(LATE)),
            KafkaFailure::Client(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure)),
            KafkaFailure::Client(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)),
        ] {
            let said = said(&door, failure);
            assert!(said.contains("unknown user") && said.contains("kafka_password"), "{said}");
        }
        let other = said(&door, KafkaFailure::NoTopic("t".to_owned()));
        assert_eq!(other, "topic t is not there");
        door.opened();
        assert!(!said(&door, LATE.into()).contains("unknown user"), "it is let in now");
    }

    #[test]
    fn a_broker_that_goes_away_is_no_reason_to_doubt_the_settings() {
        let cut = "1/bootstrap: Disconnected (after 3ms in state UP)";
        let door = Door::default();
        door.hear_of_a_cut("1/bootstrap: Connect to ipv4#127.0.0.1:9092 failed: Connection refused");
        assert!(!said(&door, LATE.into()).contains("kafka_security_protocol"), "it is away");
        door.hear_of_a_cut(cut);
        assert!(said(&door, LATE.into()).contains("kafka_security_protocol"));
        door.hear(&KafkaError::Global(RDKafkaErrorCode::SSL), "certificate verify failed");
        door.hear_of_a_cut(cut);
        assert!(
            said(&door, LATE.into()).contains("kafka_ca"),
            "what is said in words is not forgotten for a cut"
        );
        door.opened();
        door.hear_of_a_cut(cut);
        assert!(!said(&door, LATE.into()).contains("kafka_security_protocol"));
    }
}
