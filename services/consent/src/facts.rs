//! What a subject's signals amount to before any law is applied: per channel the reading in force, the periods of Global
//! Privacy Control, and per purpose the newest explicit grant and denial.
//!
//! The result depends on the *set* of signals only: not on their order, nor on duplicates. Two readings of one channel with
//! the same time are both in force, and so is what the event itself says: whoever refuses wins.

use jiff::Timestamp;
use tracklayer_ids::SubjectKey;

use crate::{
    policy::Policy,
    purpose::{Purpose, Purposes},
    signal::{CategoryStatement, Content, Sections, Signal},
    strings::{gcd::ConsentMode, gpp::GppString, tcf::TcString, usp::UsPrivacy},
};

/// The readings of one channel that are in force.
#[derive(Debug, Clone)]
pub struct Channel<T> {
    /// Each with its time.
    pub readings: Vec<(Timestamp, T)>,
    /// Time of the newest one that could not be read, if nothing readable is newer or if the event itself carried it.
    pub unreadable: Option<Timestamp>,
}

/// A period of Global Privacy Control, open at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpcPeriod {
    /// On which device, or for which person.
    pub subject: SubjectKey,
    /// First observation.
    pub since: Timestamp,
    /// In which GPP section, or everywhere.
    pub sections: Sections,
}

/// The newest explicit choices about one purpose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Explicit {
    /// Newest denial by a known person.
    pub denied_by_person: Option<Timestamp>,
    /// Newest denial on a device.
    pub denied_on_device: Option<Timestamp>,
    /// Newest grant, in any form.
    pub granted: Grants,
    /// Newest grant in two steps.
    pub granted_in_two_steps: Grants,
}

/// Newest grants of one form.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grants {
    /// By a known person.
    pub by_person: Option<Timestamp>,
    /// By anybody.
    pub by_anybody: Option<Timestamp>,
    /// By a known person who was told about GPC.
    pub knowing_of_gpc: Option<Timestamp>,
    /// Newest that has expired.
    pub expired: Option<Timestamp>,
}

/// Everything that the signals amount to.
#[derive(Debug, Default)]
pub struct Facts<'a> {
    /// Banner categories; an object that could not be parsed is this channel's unreadable.
    pub categories: Channel<CategoryStatement>,
    /// TC strings.
    pub tcf: Channel<&'a TcString>,
    /// GPP strings with the sections that their senders call in force.
    pub gpp: Channel<(&'a GppString, Sections)>,
    /// US privacy strings.
    pub us_privacy: Channel<UsPrivacy>,
    /// Consent mode.
    pub consent_mode: Channel<ConsentMode>,
    /// GPC, earliest for each subject and section.
    pub gpc: Vec<GpcPeriod>,
    /// Explicit choices, by [`Purpose::index`].
    pub explicit: [Explicit; 6],
}

impl<T> Default for Channel<T> {
    fn default() -> Self {
        Self { readings: Vec::new(), unreadable: None }
    }
}

/// Gathers one channel: first everything, then [`Gather::in_force`] drops what is replaced.
struct Gather<T> {
    all: Vec<(Timestamp, bool, T)>,
    newest: Option<Timestamp>,
    unreadable: Option<Timestamp>,
    own_unreadable: Option<Timestamp>,
}

impl<T> Default for Gather<T> {
    fn default() -> Self {
        Self { all: Vec::new(), newest: None, unreadable: None, own_unreadable: None }
    }
}

impl<T> Gather<T> {
    fn readable(&mut self, signal: &Signal, reading: T) {
        self.newest = self.newest.max(Some(signal.at));
        self.all.push((signal.at, signal.own, reading));
    }

    fn unreadable(&mut self, signal: &Signal) {
        self.unreadable = self.unreadable.max(Some(signal.at));
        if signal.own {
            self.own_unreadable = self.own_unreadable.max(Some(signal.at));
        }
    }

    fn in_force(self) -> Channel<T> {
        let newest = self.newest;
        let in_force = self.all.into_iter().filter(|(at, own, _)| *own || Some(*at) == newest);
        // What cannot be read replaces nothing: it denies beside what could be read before it.
        let unreadable = self.unreadable.filter(|at| newest.is_none_or(|newest| *at >= newest));
        Channel {
            readings: in_force.map(|(at, _, reading)| (at, reading)).collect(),
            unreadable: unreadable.max(self.own_unreadable),
        }
    }
}

impl<'a> Facts<'a> {
    /// Gathers the signals whose time has come.
    #[must_use]
    pub fn gather(policy: &Policy, now: Timestamp, signals: &'a [Signal]) -> Self {
        let mut facts = Self::default();
        let mut categories = Gather::default();
        let (mut tcf, mut gpp) = (Gather::default(), Gather::default());
        let (mut us_privacy, mut consent_mode) = (Gather::default(), Gather::default());
        for signal in signals.iter().filter(|signal| signal.at <= now) {
            match &signal.content {
                Content::Gpc(sections) => facts.observe_gpc(signal, *sections),
                Content::Categories(statement) => categories.readable(signal, *statement),
                Content::ObjectUnreadable => categories.unreadable(signal),
                Content::Tcf(reading) => match reading.as_ref() {
                    Ok(tc) => tcf.readable(signal, tc),
                    Err(_) => tcf.unreadable(signal),
                },
                Content::Gpp(reading, sids) => match reading.as_ref() {
                    Ok(string) => {
                        gpp.readable(signal, (string, *sids));
                        facts.observe_gpc(signal, string.gpc_sections(*sids));
                    }
                    Err(_) => gpp.unreadable(signal),
                },
                Content::UsPrivacy(Ok(reading)) => us_privacy.readable(signal, *reading),
                Content::UsPrivacy(Err(_)) => us_privacy.unreadable(signal),
                Content::ConsentMode(Ok(reading)) => consent_mode.readable(signal, *reading),
                Content::ConsentMode(Err(_)) => consent_mode.unreadable(signal),
                Content::Explicit(choice) => {
                    let expired = policy.explicit_has_expired(now.as_second() - signal.at.as_second());
                    let granted = choice.granted.difference(choice.denied);
                    facts.deny_explicitly(signal, choice.denied);
                    for purpose in granted.iter() {
                        let explicit = &mut facts.explicit[purpose.index()];
                        explicit.granted.observe(signal, choice.conflict_acknowledged, expired);
                        if choice.two_step {
                            explicit.granted_in_two_steps.observe(
                                signal,
                                choice.conflict_acknowledged,
                                expired,
                            );
                        }
                    }
                }
            }
        }
        facts.join_gpc();
        facts.categories = categories.in_force();
        facts.tcf = tcf.in_force();
        facts.gpp = gpp.in_force();
        facts.us_privacy = us_privacy.in_force();
        facts.consent_mode = consent_mode.in_force();
        facts
    }

    fn observe_gpc(&mut self, signal: &Signal, sections: Sections) {
        for section in sections.one_by_one() {
            let same = |p: &&mut GpcPeriod| p.subject == signal.subject && p.sections == section;
            match self.gpc.iter_mut().find(same) {
                Some(period) => period.since = period.since.min(signal.at),
                None => {
                    self.gpc.push(GpcPeriod { subject: signal.subject, since: signal.at, sections: section });
                }
            }
        }
    }

    /// R4: inside a GPP section it is the same signal as the browser's own, and no later one where that was on already.
    fn join_gpc(&mut self) {
        let everywhere: Vec<GpcPeriod> =
            self.gpc.iter().filter(|p| p.sections == Sections::EVERYWHERE).copied().collect();
        self.gpc.retain(|p| {
            p.sections == Sections::EVERYWHERE
                || !everywhere.iter().any(|all| all.subject == p.subject && all.since <= p.since)
        });
    }

    fn deny_explicitly(&mut self, signal: &Signal, denied: Purposes) {
        for purpose in denied.iter() {
            let explicit = &mut self.explicit[purpose.index()];
            let newest =
                if signal.person { &mut explicit.denied_by_person } else { &mut explicit.denied_on_device };
            *newest = (*newest).max(Some(signal.at));
        }
    }

    /// Explicit choices about a purpose.
    #[must_use]
    pub fn explicit(&self, purpose: Purpose) -> &Explicit {
        &self.explicit[purpose.index()]
    }
}

impl Grants {
    fn observe(&mut self, signal: &Signal, knowing_of_gpc: bool, expired: bool) {
        let at = Some(signal.at);
        if expired {
            self.expired = self.expired.max(at);
            return;
        }
        self.by_anybody = self.by_anybody.max(at);
        if signal.person {
            self.by_person = self.by_person.max(at);
            if knowing_of_gpc {
                self.knowing_of_gpc = self.knowing_of_gpc.max(at);
            }
        }
    }
}

impl Explicit {
    /// R8: whether a denial stands. A person's own one is lifted by a later explicit grant of that person only; at equal
    /// times the denial wins.
    #[must_use]
    pub fn is_withdrawn(&self, grants: &Grants) -> bool {
        let stands =
            |denial: Option<Timestamp>, grant: Option<Timestamp>| denial.is_some() && denial >= grant;
        stands(self.denied_by_person, grants.by_person) || stands(self.denied_on_device, grants.by_anybody)
    }
}
