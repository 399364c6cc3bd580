//! Words for people: what the closed lists of the platform (states, reasons, kinds, decisions) are called on a page. The code
//! stays beside the words, so that what marketing reads and what engineering searches for is the same thing. A code that is
//! not in here yet is shown as it is.

/// What became of an event at a destination: the states of the ledger, in the order in which a page shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The platform took it.
    Delivered,
    /// Built and checked, not sent.
    Shadowed,
    /// Consent.
    Blocked,
    /// Another occurrence counts.
    Duplicate,
    /// Not wanted there.
    Filtered,
    /// Waits for a retry, or behind one.
    Held,
    /// Not looked at yet.
    Waiting,
    /// Will not be delivered unless a person acts.
    Dead,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Shadowed,
        Self::Blocked,
        Self::Duplicate,
        Self::Filtered,
        Self::Held,
        Self::Waiting,
        Self::Dead,
    ];

    /// The word of ledger and metrics; also the page's class.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Shadowed => "shadowed",
            Self::Blocked => "blocked",
            Self::Duplicate => "duplicate",
            Self::Filtered => "filtered",
            Self::Held => "held",
            Self::Waiting => "waiting",
            Self::Dead => "dead",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The word as a heading.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Shadowed => "Shadowed",
            Self::Blocked => "Blocked",
            Self::Duplicate => "Duplicate",
            Self::Filtered => "Filtered",
            Self::Held => "Held",
            Self::Waiting => "Waiting",
            Self::Dead => "Dead",
        }
    }

    /// One sentence for who does not know the word.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Delivered => "The platform took it.",
            Self::Shadowed => "Built and checked, but not sent: the connection is in shadow mode.",
            Self::Blocked => "Consent does not allow it.",
            Self::Duplicate => "The same event had arrived before; only the first one counts.",
            Self::Filtered => "This destination does not want such events.",
            Self::Held => {
                "Will be tried again, waits behind one that will, or for the end of a pause or freeze."
            }
            Self::Waiting => "Received, not yet its turn.",
            Self::Dead => "Will not be delivered unless somebody acts.",
        }
    }
}

/// What a kind of connection is called.
#[must_use]
pub fn kind(code: &str) -> &str {
    match code {
        "meta_capi" => "Meta Conversions API",
        "google_data_manager" => "Google Data Manager",
        "google_ads" => "Google Ads API",
        "ga4_mp" => "Google Analytics 4",
        "tiktok_events" => "TikTok Events API",
        "webhook" => "Webhook",
        "warehouse" => "Warehouse",
        other => other,
    }
}

/// What a mode means.
#[must_use]
pub fn mode(code: &str) -> &str {
    match code {
        "live" => "Live",
        "shadow" => "Shadow",
        "off" => "Off",
        other => other,
    }
}

/// What a channel is called.
#[must_use]
pub fn channel(code: &str) -> &str {
    match code {
        "browser" => "Browser",
        "server" => "Server",
        "mobile" => "App",
        other => other,
    }
}

/// What a source's default place means.
#[must_use]
pub fn place(code: &str) -> &str {
    if code.is_empty() { "Place unknown (strictest rules)" } else { code }
}

/// What a reason of the closed lists means.
#[must_use]
pub fn reason(code: &str) -> &str {
    match code {
        // consent
        "erased" => "The person's data was erased",
        "policy_denied" => "The workspace's policy denies it",
        "minor" => "The person may be a minor",
        "gpc" => "The browser sends Global Privacy Control",
        "withdrawn" => "Consent was withdrawn",
        "opted_out" => "The person opted out",
        "gpp_no_notice" => "No notice was given (GPP)",
        "signal_unreadable" => "A consent signal could not be read",
        "tcf_invalid" => "The TCF string is not valid",
        "tcf_restricted" => "The publisher restricts it (TCF)",
        "tcf_vendor" => "No consent for this vendor (TCF)",
        "tcf_purpose" => "No consent for this purpose (TCF)",
        "expired" => "The consent has expired",
        "no_consent" => "No consent was given",
        "connection_narrowed" => "The connection itself asks for less",
        "restriction_not_expressible" => "The platform cannot state the restriction",
        "no_decision" => "Consent had no decision",
        // not wanted
        "mode_off" => "The connection is off",
        "filter" => "The connection's filter leaves it out",
        "expression_failed" => "An expression of the connection fails at it",
        "integrations" => "The event turned this destination off",
        "unmapped" => "The event is mapped to nothing",
        "test_order" => "A test order",
        "event_type" => "The platform has no use for such calls",
        "consent_event" => "A consent event, which is never sent",
        // refused before sending
        "event_too_old" => "Older than the platform takes",
        "event_in_future" => "Later than now",
        "event_not_mapped" => "The connection has no mapping for it",
        "event_not_supported" => "The platform has nothing for it",
        "event_name_reserved" => "The platform keeps the name for itself",
        "missing_value" => "A purchase without a value",
        "missing_currency" => "A purchase without a currency",
        "missing_client_user_agent" => "No user agent",
        "no_client_id" => "No client id",
        "no_match_key" => "Nothing to match a person by",
        "order_id_contains_pii" => "The order id looks like personal data",
        "invalid_payload" => "It would break a rule of the platform",
        "order_not_sent" => "A change of an order that was not sent",
        "nothing_left" => "Everything of the order came back before",
        "order_adjusted" => "Its order was changed since: told again, this would undo or repeat that",
        "order_changed_since" => {
            "A newer change of the order has it in it, or it would undo one that was told"
        }
        "order_unchanged" => "The order is worth what the platform was told before",
        "no_new_value" => "An updated order that says no amount: what it is worth by now is not told",
        "value_without_refunds" => "A new value of an order from before a refund: say what it is worth now",
        "nothing_to_update" => "A new value of an order that the platform has not, or changes no more",
        // while sending
        "delivered_before" => "The platform had it already",
        "unconfirmed" => "Accepted, not yet confirmed by the platform",
        "retry" => "Will be tried again",
        "other_currency" => "Told in another currency than its order: nothing is taken off here",
        "amount_open" => "Told without an amount: nothing is taken off here",
        "order_unknown" => "Waits for the order that it changes",
        "replay" => "A replay has taken it to send it again",
        "before_start" => "Accepted before the connection began",
        "behind" => "Waits behind an earlier event of the same visitor",
        "frozen" => "A freeze window holds it",
        "paused" => "An operator has paused the connection",
        "quota" => "Waits for quota",
        "consent_unknown" => "Consent could not be asked",
        "outcome_unknown" => "It may have arrived; nobody can tell",
        "retries_exhausted" => "The platform kept asking to try later",
        "rejected_by_platform" => "The platform refused it",
        "poisoned" => "It cannot be read",
        "retention" => "Deleted unread by an operator",
        "lost" => "Its block of the journal cannot be read, and was skipped",
        other => other,
    }
}

/// What consent said for one destination, from "allow (US-CA)", "restricted: gpc (US-CA)", "deny: no_consent (DE)".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Allowed, Allowed with restrictions, Denied; or the text as it came.
    pub verdict: String,
    /// Why, in words; empty if there is nothing to say.
    pub why: String,
    /// By which place's rules; empty if it was not said.
    pub place: String,
}

/// Reads a decision.
#[must_use]
pub fn decision(text: &str) -> Decision {
    let (rest, place) = match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
        Some((rest, place)) => (rest, place),
        None => (text, ""),
    };
    let (verdict, why) = rest.split_once(": ").unwrap_or((rest, ""));
    let verdict = match verdict {
        "allow" => "Allowed",
        "restricted" => "Allowed with restrictions",
        "deny" => "Denied",
        other => other,
    };
    Decision { verdict: verdict.to_owned(), why: reason(why).to_owned(), place: place.to_owned() }
}

/// What a lane's health means: "open", or the kind of hold with its detail behind a colon.
#[must_use]
pub fn health(text: &str) -> String {
    let (code, detail) = text.split_once(": ").unwrap_or((text, ""));
    let words = match code {
        "throttled" => "The platform asks for fewer requests",
        "transient" => "The platform is in trouble; trying again",
        "auth" => "The credential does not work: somebody must act",
        "configuration" => "A setting is wrong: somebody must act",
        "database" => "The database does not answer",
        "consent_unknown" => "Consent could not be asked; nothing is sent",
        "waiting" => "Getting ready",
        "paused" => "Paused: nothing is sent",
        "frozen" => "Frozen: nothing is sent",
        "releasing" => "Catching up after a hold",
        other => other,
    };
    if detail.is_empty() { words.to_owned() } else { format!("{words} ({detail})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_whatever_it_says() {
        let cases = [
            ("allow (US-CA)", ("Allowed", "", "US-CA")),
            (
                "restricted: gpc (US-CA)",
                ("Allowed with restrictions", "The browser sends Global Privacy Control", "US-CA"),
            ),
            ("deny: no_consent (DE)", ("Denied", "No consent was given", "DE")),
            ("deny: something_new (DE)", ("Denied", "something_new", "DE")),
            ("", ("", "", "")),
        ];
        for (text, (verdict, why, place)) in cases {
            let expected = Decision { verdict: verdict.into(), why: why.into(), place: place.into() };
            assert_eq!(decision(text), expected, "{text}");
        }
    }

    #[test]
    fn what_an_operator_holds_has_words() {
        assert_eq!(
            health("paused: by operator `ann`: audit"),
            "Paused: nothing is sent (by operator `ann`: audit)"
        );
        for kind in ["paused", "frozen", "releasing"] {
            assert_ne!(health(kind), kind);
        }
        for code in ["paused", "frozen"] {
            assert_ne!(reason(code), code);
        }
    }

    #[test]
    fn every_state_is_found_by_its_word() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("lost"), None);
    }

    #[test]
    fn every_refusal_of_the_destinations_has_words() {
        for code in tracklayer_destination::RefusalCode::ALL {
            assert_ne!(reason(code.as_str()), code.as_str());
        }
    }
}
