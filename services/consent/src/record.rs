//! What recording a batch changes: rows to write, and narrowings to number.
//!
//! Pure: it is given what is stored for every key and works on it, so that the second of two equal items of a batch finds
//! the first. Afterwards the same value is what the decisions of the batch are made with.

use std::collections::{BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use tracklayer_ids::SubjectKey;

use crate::{
    footprint::Footprint,
    policy::Policy,
    signal::{Content, Sections, Signal},
    statement::{Channel, ContentHash, Statement, sections_text},
};

/// A repeat of what already stands moves its time only after this long: an active visitor is not a write for each event. A
/// refusal is kept fresher than a grant, since a late statement between the two times would replace it.
const REPEAT_OF_REFUSAL: SignedDuration = SignedDuration::from_secs(5);
/// The same for a statement that denies nothing.
const REPEAT_OF_GRANT: SignedDuration = SignedDuration::from_secs(60);

/// A statement as stored under one key.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its channel.
    pub channel: Channel,
    /// Its identity within the channel.
    pub hash: ContentHash,
    /// A person was known.
    pub person: bool,
    /// When it was first made: the start of a GPC period.
    pub first_at: Timestamp,
    /// When it was last made: what decides which one is the newest.
    pub last_at: Timestamp,
    /// What it says.
    pub content: Content,
}

/// Everything that is stored for the keys of a batch.
#[derive(Debug, Clone, Default)]
pub struct Known(HashMap<SubjectKey, Vec<Stored>>);

/// What one event says, and for whom.
#[derive(Debug, Clone)]
pub struct Said {
    /// Keys that it is filed under: the event's own.
    pub own: Vec<SubjectKey>,
    /// Every key that a narrowing names: the event's own and what is linked to them.
    pub named: Vec<SubjectKey>,
    /// Which of its own keys stand for a person.
    pub persons: Vec<SubjectKey>,
    /// Never later than its receipt.
    pub at: Timestamp,
    /// Receipt.
    pub received_at: Timestamp,
    /// One per channel.
    pub statements: Vec<Statement>,
    /// Evidence.
    pub message_id: String,
}

/// A row to insert, or to move the times of.
#[derive(Debug, Clone)]
pub struct Row {
    /// Under which key.
    pub subject: SubjectKey,
    /// What.
    pub statement: Statement,
    /// See [`Stored::person`].
    pub person: bool,
    /// See [`Stored::first_at`].
    pub first_at: Timestamp,
    /// See [`Stored::last_at`].
    pub last_at: Timestamp,
    /// In force, and not replaced by a newer one.
    pub current: bool,
    /// Receipt of its event.
    pub received_at: Timestamp,
    /// Its event.
    pub message_id: String,
}

/// Why a narrowing was numbered. The order is that of precedence where an item has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// An explicit denial.
    Withdrawal,
    /// GPC, first seen.
    Gpc,
    /// Something that cannot be read.
    Unreadable,
    /// A category turned off, or refused for the first time.
    Categories,
    /// A string that denies more than the one before.
    String,
    /// Another policy.
    Policy,
    /// Two profiles became one.
    Merge,
    /// One profile became two.
    Split,
    /// A subject was erased.
    Erasure,
}

/// A narrowing to number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narrowing {
    /// Who is named; nobody: everybody.
    pub subjects: Vec<SubjectKey>,
    /// Why.
    pub cause: Cause,
    /// Evidence.
    pub message_id: String,
}

/// A stored statement that a newer one replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replaced {
    /// Under which key.
    pub subject: SubjectKey,
    /// In which channel.
    pub channel: Channel,
    /// Which.
    pub hash: ContentHash,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// Rows, at most one for each (key, channel, content).
    pub rows: Vec<Row>,
    /// Stored statements that are in force no longer, none of which is among the rows.
    pub replaced: Vec<Replaced>,
    /// Narrowings, in the order of the items.
    pub narrowings: Vec<Narrowing>,
}

impl Cause {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Withdrawal => "withdrawal",
            Self::Gpc => "gpc",
            Self::Unreadable => "unreadable",
            Self::Categories => "categories",
            Self::String => "string",
            Self::Policy => "policy",
            Self::Merge => "merge",
            Self::Split => "split",
            Self::Erasure => "erasure",
        }
    }

    fn of(content: &Content) -> Self {
        match content {
            Content::Explicit(_) => Self::Withdrawal,
            Content::Gpc(_) => Self::Gpc,
            Content::Categories(_) => Self::Categories,
            Content::ObjectUnreadable | Content::UsPrivacy(Err(_)) | Content::ConsentMode(Err(_)) => {
                Self::Unreadable
            }
            Content::Tcf(reading) if reading.is_err() => Self::Unreadable,
            Content::Gpp(reading, _) if reading.is_err() => Self::Unreadable,
            Content::Tcf(_) | Content::Gpp(..) | Content::UsPrivacy(Ok(_)) | Content::ConsentMode(Ok(_)) => {
                Self::String
            }
        }
    }
}

impl Said {
    /// Whether a person is among its own keys.
    #[must_use]
    pub fn is_of_person(&self) -> bool {
        !self.persons.is_empty()
    }
}

impl Changes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.narrowings.is_empty() && self.replaced.is_empty()
    }
}

impl Known {
    /// Adds what was read.
    pub fn insert(&mut self, subject: SubjectKey, stored: Stored) {
        self.0.entry(subject).or_default().push(stored);
    }

    /// What is stored under a key.
    #[must_use]
    pub fn of(&self, subject: SubjectKey) -> &[Stored] {
        self.0.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// As signals of a decision. What is stored was made before now, whatever another machine's clock says.
    pub fn signals(&self, subject: SubjectKey, now: Timestamp) -> impl Iterator<Item = Signal> {
        self.of(subject).iter().map(move |stored| Signal {
            subject,
            person: stored.person,
            at: if stored.channel == Channel::Gpc { stored.first_at } else { stored.last_at }.min(now),
            own: false,
            content: stored.content.clone(),
        })
    }

    /// Takes a batch in and says what it changes.
    pub fn record(&mut self, policy: &Policy, batch: &[Said]) -> Changes {
        let mut rows: HashMap<(SubjectKey, Channel, ContentHash), Row> = HashMap::new();
        let mut narrowings = Vec::new();
        for said in batch {
            let mut cause: Option<Cause> = None;
            for statement in &said.statements {
                for subject in &said.own {
                    let taken = self.take_in(policy, *subject, statement, said);
                    let Some(Effect { narrows, writes }) = taken else { continue };
                    if writes {
                        add(&mut rows, Row::new(*subject, statement, said, said.at));
                    }
                    if narrows {
                        let this = Cause::of(&statement.content);
                        cause = Some(cause.map_or(this, |known| known.min(this)));
                    }
                }
            }
            for (subject, since, statement) in self.gpc_of_devices(said) {
                let stored = self.0.entry(subject).or_default();
                let Some(Effect { narrows, .. }) = take_in_gpc(stored, &statement, said, since) else {
                    continue;
                };
                add(&mut rows, Row::new(subject, &statement, said, since));
                if narrows {
                    cause = Some(cause.map_or(Cause::Gpc, |known| known.min(Cause::Gpc)));
                }
            }
            if let Some(cause) = cause {
                let message_id = said.message_id.clone();
                narrowings.push(Narrowing { subjects: said.named.clone(), cause, message_id });
            }
        }
        let replaced = self.replaced(&mut rows);
        let mut rows: Vec<Row> = rows.into_values().collect();
        // One order for all writers, and for tests.
        rows.sort_by_key(|row| (row.subject, row.statement.channel, row.statement.hash));
        Changes { rows, replaced, narrowings }
    }

    /// Takes one statement in under one key; `None`: it changes nothing.
    fn take_in(
        &mut self,
        policy: &Policy,
        subject: SubjectKey,
        statement: &Statement,
        said: &Said,
    ) -> Option<Effect> {
        match (statement.channel, Together::of(statement.channel)) {
            (Channel::Gpc, _) => take_in_gpc(self.0.entry(subject).or_default(), statement, said, said.at),
            (_, None) => take_in_act(self.0.entry(subject).or_default(), statement, said),
            (_, Some(together)) => self.take_in_replacing(policy, subject, statement, said, together),
        }
    }

    /// The newest of the channel stands ([`Standing`]). It may narrow what holds under its own key, and what holds for all
    /// keys that are named together: there it replaces what another device was told.
    fn take_in_replacing(
        &mut self,
        policy: &Policy,
        subject: SubjectKey,
        statement: &Statement,
        said: &Said,
        together: Together,
    ) -> Option<Effect> {
        let is_same = |known: &Stored| known.channel == statement.channel && known.hash == statement.hash;
        let (alone, named) = (std::slice::from_ref(&subject), said.named.as_slice());
        let footprint = Footprint::of(policy, said.at, &statement.content);
        let standing = Standing::of(self.of(subject).iter(), together);
        let mut last_said = standing.readable;
        if let Some(same) = self.of(subject).iter().find(|known| is_same(known)) {
            let fresh_for = if footprint.denies() { REPEAT_OF_REFUSAL } else { REPEAT_OF_GRANT };
            let is_fresh = standing.holds(same) && said.at.duration_since(same.last_at) < fresh_for;
            if said.at == same.last_at {
                // Ingest recorded it before identity was asked: what it does beside the linked keys shows only now.
                let narrows = named.len() > said.own.len()
                    && (self.narrows_beside_others(policy, statement, said, together)
                        || self.stands_again(&footprint, said, None));
                return narrows.then_some(Effect { narrows, writes: false });
            }
            if said.at < same.last_at
                || (is_fresh && !self.stands_again(&footprint, said, Some(same.last_at)))
            {
                return None;
            }
            last_said = Some(same.last_at);
        }
        let before = [alone, named].map(|keys| self.footprint(policy, keys, together, |_| true));
        let stands_again = last_said.is_some() && self.stands_again(&footprint, said, last_said);
        let stored = self.0.entry(subject).or_default();
        match stored.iter_mut().find(|known| is_same(known)) {
            Some(same) => {
                same.last_at = said.at;
                same.person |= said.is_of_person();
            }
            None => stored.push(new_stored(statement, said, said.at)),
        }
        let after = [alone, named].map(|keys| self.footprint(policy, keys, together, |_| true));
        let narrows = stands_again || after.iter().zip(&before).any(|(after, before)| after.narrows(before));
        Some(Effect { narrows, writes: true })
    }

    /// Whether the keys that are named together would be decided about more widely without this very statement.
    fn narrows_beside_others(
        &self,
        policy: &Policy,
        statement: &Statement,
        said: &Said,
        together: Together,
    ) -> bool {
        let is_other = |known: &Stored| {
            known.channel != statement.channel || known.hash != statement.hash || known.last_at != said.at
        };
        let with = self.footprint(policy, &said.named, together, |_| true);
        with.narrows(&self.footprint(policy, &said.named, together, is_other))
    }

    /// R7: a denial that is repeated after a grant which had lifted it stands again, though it says nothing new.
    fn stands_again(&self, footprint: &Footprint, said: &Said, since: Option<Timestamp>) -> bool {
        let is_grant = |known: &Stored| matches!(&known.content, Content::Explicit(choice) if !choice.granted.is_empty());
        footprint.denies()
            && said.named.iter().flat_map(|key| self.of(*key)).any(|known| {
                is_grant(known) && since.is_none_or(|since| since < known.last_at) && known.last_at <= said.at
            })
    }

    /// What the statements of a channel that stand under any of the keys come to.
    fn footprint(
        &self,
        policy: &Policy,
        keys: &[SubjectKey],
        together: Together,
        counts: impl Fn(&Stored) -> bool,
    ) -> Footprint {
        let all = || keys.iter().flat_map(|key| self.of(*key)).filter(|known| counts(known));
        let standing = Standing::of(all(), together);
        all()
            .filter(|known| Together::of(known.channel) == Some(together) && standing.holds(known))
            .map(|known| Footprint::of(policy, known.last_at, &known.content))
            .reduce(|all, one| all.and(&one))
            .unwrap_or_default()
    }

    /// Of the keys whose rows change: marks which rows are in force, and lists what else is no longer.
    fn replaced(&self, rows: &mut HashMap<(SubjectKey, Channel, ContentHash), Row>) -> Vec<Replaced> {
        let subjects: BTreeSet<SubjectKey> = rows.keys().map(|(subject, _, _)| *subject).collect();
        let mut replaced = Vec::new();
        for subject in subjects {
            let stored = self.of(subject);
            for together in Together::ALL {
                let standing = Standing::of(stored.iter(), together);
                for known in stored.iter().filter(|known| Together::of(known.channel) == Some(together)) {
                    let stands = standing.holds(known);
                    match rows.get_mut(&(subject, known.channel, known.hash)) {
                        Some(row) => row.current = stands,
                        None if stands => {}
                        None => replaced.push(Replaced { subject, channel: known.channel, hash: known.hash }),
                    }
                }
            }
        }
        replaced
    }
}

/// R4: a person who is known at an event of a device whose GPC is on is bound by it from that device's first observation
/// on, whether this event repeats the signal or not.
impl Known {
    fn gpc_of_devices(&self, said: &Said) -> Vec<(SubjectKey, Timestamp, Statement)> {
        let mut found = Vec::new();
        if said.persons.is_empty() {
            return found;
        }
        for device in said.own.iter().filter(|key| !said.persons.contains(key)) {
            for stored in self.of(*device).iter().filter(|stored| stored.channel == Channel::Gpc) {
                let statement = Statement {
                    channel: Channel::Gpc,
                    hash: stored.hash,
                    text: sections_text(stored.content.gpc_sections()).into(),
                    content: stored.content.clone(),
                    provenance: "device".into(),
                };
                found.extend(said.persons.iter().map(|person| (*person, stored.first_at, statement.clone())));
            }
        }
        found
    }
}

fn add(rows: &mut HashMap<(SubjectKey, Channel, ContentHash), Row>, row: Row) {
    let key = (row.subject, row.statement.channel, row.statement.hash);
    rows.entry(key).and_modify(|known| known.merge(&row)).or_insert(row);
}

impl Row {
    fn new(subject: SubjectKey, statement: &Statement, said: &Said, at: Timestamp) -> Self {
        Self {
            subject,
            statement: statement.clone(),
            person: said.is_of_person(),
            first_at: at,
            last_at: at,
            current: true,
            received_at: said.received_at,
            message_id: said.message_id.clone(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
        self.person |= other.person;
    }
}

/// What a statement does under one key.
struct Effect {
    narrows: bool,
    writes: bool,
}

/// Channels of which only the newest statement stands, as [`crate::facts`] reads them: an object that could not be parsed
/// stands where the categories would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    Categories,
    Tcf,
    Gpp,
    UsPrivacy,
    ConsentMode,
}

impl Together {
    const ALL: [Self; 5] = [Self::Categories, Self::Tcf, Self::Gpp, Self::UsPrivacy, Self::ConsentMode];

    fn of(channel: Channel) -> Option<Self> {
        match channel {
            Channel::Gpc | Channel::Explicit => None,
            Channel::Categories | Channel::ObjectUnreadable => Some(Self::Categories),
            Channel::Tcf => Some(Self::Tcf),
            Channel::Gpp => Some(Self::Gpp),
            Channel::UsPrivacy => Some(Self::UsPrivacy),
            Channel::ConsentMode => Some(Self::ConsentMode),
        }
    }
}

/// Which statements of a channel stand: the newest that can be read, and the newest that cannot if nothing readable is newer.
/// What cannot be read replaces nothing that could be: it may deny less than that did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    readable: Option<Timestamp>,
    unreadable: Option<Timestamp>,
}

impl Standing {
    fn of<'a>(stored: impl Iterator<Item = &'a Stored>, together: Together) -> Self {
        let mut standing = Self::default();
        for known in stored.filter(|known| Together::of(known.channel) == Some(together)) {
            let newest =
                if known.content.is_unreadable() { &mut standing.unreadable } else { &mut standing.readable };
            *newest = (*newest).max(Some(known.last_at));
        }
        standing
    }

    /// Whether a statement of the channel stands.
    fn holds(&self, known: &Stored) -> bool {
        if known.content.is_unreadable() {
            Some(known.last_at) == self.unreadable && self.unreadable >= self.readable
        } else {
            Some(known.last_at) == self.readable
        }
    }
}

fn new_stored(statement: &Statement, said: &Said, at: Timestamp) -> Stored {
    Stored {
        channel: statement.channel,
        hash: statement.hash,
        person: said.is_of_person(),
        first_at: at,
        last_at: at,
        content: statement.content.clone(),
    }
}

/// Sticky: new where no earlier signal covers its sections; an earlier time moves the start.
fn take_in_gpc(
    stored: &mut Vec<Stored>,
    statement: &Statement,
    said: &Said,
    at: Timestamp,
) -> Option<Effect> {
    let sections = statement.content.gpc_sections();
    let covers = |known: &Stored| match known.content {
        Content::Gpc(theirs) => theirs.covers(sections),
        _ => false,
    };
    if stored.iter().any(|known| covers(known) && known.first_at <= at) {
        return None;
    }
    let narrows = !stored.iter().any(covers);
    match stored.iter_mut().find(|known| known.channel == Channel::Gpc && known.hash == statement.hash) {
        Some(same) => same.first_at = same.first_at.min(at),
        None => stored.push(new_stored(statement, said, at)),
    }
    Some(Effect { narrows: narrows && sections != Sections::NONE, writes: true })
}

/// Each act counts by itself: new unless it is the very same.
fn take_in_act(stored: &mut Vec<Stored>, statement: &Statement, said: &Said) -> Option<Effect> {
    if stored.iter().any(|known| known.channel == Channel::Explicit && known.hash == statement.hash) {
        return None;
    }
    let Content::Explicit(choice) = &statement.content else { return None };
    let narrows = !choice.denied.is_empty();
    stored.push(new_stored(statement, said, said.at));
    Some(Effect { narrows, writes: true })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::statement::{Captured, Decoder};

    const DEVICE: SubjectKey = SubjectKey([1; 16]);
    const PERSON: SubjectKey = SubjectKey([2; 16]);

    fn decoder() -> Decoder {
        Decoder::new(Arc::new(Policy::compiled_in().unwrap()), 1 << 20)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn said(decoder: &Decoder, own: &[SubjectKey], second: i64, captured: &Captured) -> Said {
        Said {
            own: own.to_vec(),
            named: own.to_vec(),
            persons: own.iter().filter(|key| **key == PERSON).copied().collect(),
            at: at(second),
            received_at: at(second),
            statements: decoder.statements(captured, at(second)),
            message_id: format!("m-{second}"),
        }
    }

    fn gpc() -> Captured {
        Captured { gpc: Some("sec_gpc_header".to_owned()), ..Captured::default() }
    }

    fn advertising(allowed: bool) -> Captured {
        let categories = Some(vec![("Advertising".to_owned(), allowed)]);
        Captured { categories, interaction: true, ..Captured::default() }
    }

    fn causes(changes: &Changes) -> Vec<Cause> {
        changes.narrowings.iter().map(|narrowing| narrowing.cause).collect()
    }

    #[test]
    fn gpc_narrows_once_for_each_subject_it_is_first_seen_for() {
        let decoder = decoder();
        let mut known = Known::default();
        let mut record = |said: Said| known.record(decoder.policy(), &[said]);
        let first = record(said(&decoder, &[DEVICE], 0, &gpc()));
        assert_eq!((causes(&first), first.rows.len()), (vec![Cause::Gpc], 1));
        assert!(record(said(&decoder, &[DEVICE], 9, &gpc())).is_empty());
        // The person is new, the device is not: one narrowing that names both.
        let person = record(said(&decoder, &[DEVICE, PERSON], 10, &gpc()));
        assert_eq!((causes(&person), person.rows.len()), (vec![Cause::Gpc], 1));
        assert_eq!(person.narrowings[0].subjects, [DEVICE, PERSON]);
        // An earlier observation that arrives late moves the start and narrows nothing.
        let earlier = record(said(&decoder, &[DEVICE], -5, &gpc()));
        assert_eq!((causes(&earlier), earlier.rows[0].first_at), (vec![], at(-5)));
    }

    #[test]
    fn a_person_is_bound_by_the_gpc_of_a_device_that_they_are_known_on() {
        let decoder = decoder();
        let mut known = Known::default();
        let mut record = |said: Said| known.record(decoder.policy(), &[said]);
        record(said(&decoder, &[DEVICE], 0, &gpc()));
        // An event of both that says nothing itself, such as one from a server.
        let linked = record(said(&decoder, &[DEVICE, PERSON], 9, &Captured::default()));
        assert_eq!(causes(&linked), [Cause::Gpc]);
        assert_eq!((linked.rows.len(), linked.rows[0].subject, linked.rows[0].first_at), (1, PERSON, at(0)));
        assert!(record(said(&decoder, &[DEVICE, PERSON], 10, &Captured::default())).is_empty());
        // Not the other way round: somebody else may sit at another device.
        let other = SubjectKey([3; 16]);
        assert!(record(said(&decoder, &[other, PERSON], 11, &Captured::default())).is_empty());
    }

    #[test]
    fn the_second_of_two_equal_items_of_a_batch_changes_nothing() {
        let decoder = decoder();
        let item = said(&decoder, &[DEVICE], 0, &advertising(false));
        let changes = Known::default().record(decoder.policy(), &[item.clone(), item]);
        assert_eq!((causes(&changes), changes.rows.len()), (vec![Cause::Categories], 1));
    }

    #[test]
    fn a_category_turned_off_narrows_again_after_it_was_on() {
        let decoder = decoder();
        let mut known = Known::default();
        let mut record = |second, allowed| {
            known.record(decoder.policy(), &[said(&decoder, &[DEVICE], second, &advertising(allowed))])
        };
        assert_eq!(causes(&record(0, false)), [Cause::Categories]);
        assert_eq!(causes(&record(1, true)), []);
        assert_eq!(causes(&record(2, false)), [Cause::Categories]);
        // A repeat: nothing at once, the time alone after a while.
        assert!(record(3, false).is_empty());
        let repeat = record(60, false);
        assert_eq!((causes(&repeat), repeat.rows.len()), (vec![], 1));
    }

    #[test]
    fn a_late_refusal_older_than_what_stands_is_kept_and_narrows_nothing() {
        let decoder = decoder();
        let mut known = Known::default();
        let mut record = |second, allowed| {
            known.record(decoder.policy(), &[said(&decoder, &[DEVICE], second, &advertising(allowed))])
        };
        record(10, true);
        let late = record(5, false);
        assert_eq!((causes(&late), late.rows[0].current), (vec![], false));
        // At the same time as what stands, the refusal counts.
        let tie = record(10, false);
        assert_eq!((causes(&tie), tie.rows[0].current), (vec![Cause::Categories], true));
    }

    #[test]
    fn an_explicit_denial_is_a_withdrawal_and_the_same_act_counts_once() {
        use crate::{purpose::Purposes, signal::ExplicitChoice};
        let decoder = decoder();
        let choice = ExplicitChoice { denied: Purposes::ADS, ..ExplicitChoice::default() };
        let captured =
            Captured { explicit: Some((choice, "privacy_center".to_owned())), ..advertising(false) };
        let mut known = Known::default();
        let first = known.record(decoder.policy(), &[said(&decoder, &[PERSON], 0, &captured)]);
        assert_eq!((causes(&first), first.rows.len()), (vec![Cause::Withdrawal], 2));
        assert!(known.record(decoder.policy(), &[said(&decoder, &[PERSON], 0, &captured)]).is_empty());
        let again = known.record(decoder.policy(), &[said(&decoder, &[PERSON], 1, &captured)]);
        assert_eq!(causes(&again), [Cause::Withdrawal]);
    }

    #[test]
    fn what_cannot_be_read_narrows() {
        let decoder = decoder();
        let captured =
            Captured { unreadable: true, gpp_string: "DBABLA~~".to_owned(), ..Captured::default() };
        let changes = Known::default().record(decoder.policy(), &[said(&decoder, &[DEVICE], 0, &captured)]);
        assert_eq!((causes(&changes), changes.rows.len()), (vec![Cause::Unreadable], 2));
    }
}
