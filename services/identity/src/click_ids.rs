//! The newest click id and browser id of each kind: a register per kind, where the later sighting wins.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// How long a sighting of the same value is not worth a write.
const COARSE: SignedDuration = SignedDuration::from_hours(1);
/// Longest value that is kept.
const MAX_BYTES: usize = 2_048;

/// What gave the id. The numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ClickKind {
    /// Meta, from the landing page's query.
    Fbclid = 1,
    /// Meta, cookie of the click.
    Fbc = 2,
    /// Meta, cookie of the browser.
    Fbp = 3,
    /// Google.
    Gclid = 4,
    /// Google, app campaigns on iOS.
    Gbraid = 5,
    /// Google, web on iOS.
    Wbraid = 6,
    /// TikTok.
    Ttclid = 7,
    /// TikTok, cookie of the browser.
    Ttp = 8,
    /// GA4, cookie of the browser.
    GaClientId = 9,
}

/// All kinds.
pub const KINDS: [ClickKind; 9] = [
    ClickKind::Fbclid,
    ClickKind::Fbc,
    ClickKind::Fbp,
    ClickKind::Gclid,
    ClickKind::Gbraid,
    ClickKind::Wbraid,
    ClickKind::Ttclid,
    ClickKind::Ttp,
    ClickKind::GaClientId,
];

impl ClickKind {
    /// From the stored number.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        KINDS.into_iter().find(|kind| *kind as i16 == number)
    }

    /// Whether it names a click, not just a browser.
    #[must_use]
    pub fn is_click(self) -> bool {
        !matches!(self, Self::Fbp | Self::Ttp | Self::GaClientId)
    }
}

/// A value and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The id.
    pub value: String,
    /// First sight of this value.
    pub first_seen: Timestamp,
    /// Latest sight, exact to an hour.
    pub last_seen: Timestamp,
}

impl Sighting {
    /// Whether taking the other in would change nothing.
    fn covers(&self, other: &Self) -> bool {
        if self.value == other.value {
            self.first_seen <= other.first_seen && self.last_seen >= other.last_seen
        } else {
            (self.last_seen, &self.value) > (other.last_seen, &other.value)
        }
    }

    /// The later of both, or both as one.
    fn take(&mut self, other: &Self) {
        if self.value == other.value {
            self.first_seen = self.first_seen.min(other.first_seen);
            self.last_seen = self.last_seen.max(other.last_seen);
        } else if !self.covers(other) {
            self.clone_from(other);
        }
    }
}

/// At most one sighting of each kind. A pointer wide, and shared until it changes: most identifiers have none, and those of one
/// person the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clicks(Option<Arc<Vec<(ClickKind, Sighting)>>>);

impl Clicks {
    /// What is known of a kind.
    #[must_use]
    pub fn get(&self, kind: ClickKind) -> Option<&Sighting> {
        let place = self.place(kind).ok()?;
        self.seen().get(place).map(|(_, seen)| seen)
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen().is_empty()
    }

    /// What is known, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (ClickKind, &Sighting)> {
        self.seen().iter().map(|(kind, seen)| (*kind, seen))
    }

    /// Notes a value seen at `at`. Empty and overlong values are no sightings, nor is what no table can hold.
    pub fn see(&mut self, kind: ClickKind, value: &str, at: Timestamp) {
        if !value.is_empty() && value.len() <= MAX_BYTES && !value.contains('\0') {
            self.add(kind, &Sighting { value: value.to_owned(), first_seen: at, last_seen: at });
        }
    }

    /// Takes one sighting in: the later one stays, two of the same value become one. Order makes no difference to the
    /// value that stays.
    pub fn add(&mut self, kind: ClickKind, seen: &Sighting) {
        let place = self.place(kind);
        if place.is_ok_and(|place| self.seen().get(place).is_some_and(|(_, known)| known.covers(seen))) {
            return;
        }
        let list = Arc::make_mut(self.0.get_or_insert_default());
        match place {
            Ok(place) => list[place].1.take(seen),
            Err(place) => list.insert(place, (kind, seen.clone())),
        }
    }

    /// Takes all sightings of another in.
    pub fn merge(&mut self, other: &Self) {
        match (&self.0, &other.0) {
            (None, _) => self.0.clone_from(&other.0),
            (Some(own), Some(theirs)) if !Arc::ptr_eq(own, theirs) => {
                other.iter().for_each(|(kind, seen)| self.add(kind, seen));
            }
            _ => {}
        }
    }

    /// What it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.seen().iter().map(|(_, seen)| size_of::<(ClickKind, Sighting)>() + seen.value.len()).sum()
    }

    fn seen(&self) -> &[(ClickKind, Sighting)] {
        self.0.as_ref().map_or(&[], |list| list.as_slice())
    }

    /// Where a kind stands, or would.
    fn place(&self, kind: ClickKind) -> Result<usize, usize> {
        self.seen().binary_search_by_key(&kind, |(kind, _)| *kind)
    }

    /// What of `seen` is worth writing over what is known: another value, an earlier first sight, or a sight so much later
    /// that it matters to which value is the newest.
    pub fn worth_writing<'a>(&self, seen: &'a Self) -> impl Iterator<Item = (ClickKind, &'a Sighting)> {
        seen.iter().filter(|(kind, sighting)| match self.get(*kind) {
            None => true,
            Some(known) if known.value == sighting.value => {
                sighting.first_seen < known.first_seen
                    || sighting.last_seen.duration_since(known.last_seen) > COARSE
            }
            Some(known) => (sighting.last_seen, &sighting.value) > (known.last_seen, &known.value),
        })
    }

    /// When the click was first seen: Meta's where there is one, since its `fbc` carries the time, else the newest click's.
    #[must_use]
    pub fn first_seen(&self) -> Option<Timestamp> {
        let metas = self.get(ClickKind::Fbclid).map(|seen| seen.first_seen);
        metas.or_else(|| {
            let clicks = self.iter().filter(|(kind, _)| kind.is_click());
            clicks.max_by_key(|(_, seen)| seen.last_seen).map(|(_, seen)| seen.first_seen)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + minute * 60).unwrap()
    }

    fn seen(kind: ClickKind, sightings: &[(&str, i64)]) -> Clicks {
        let mut clicks = Clicks::default();
        for (value, minute) in sightings {
            clicks.see(kind, value, at(*minute));
        }
        clicks
    }

    #[test]
    fn the_newest_value_stays_in_any_order_and_knows_its_first_sight() {
        let forth = seen(ClickKind::Gclid, &[("old", 1), ("new", 5), ("new", 9)]);
        let back = seen(ClickKind::Gclid, &[("new", 9), ("new", 5), ("old", 1)]);
        assert_eq!(forth, back);
        let newest = forth.get(ClickKind::Gclid).unwrap();
        assert_eq!((newest.value.as_str(), newest.first_seen, newest.last_seen), ("new", at(5), at(9)));
    }

    #[test]
    fn what_is_shared_is_not_changed_for_others() {
        let one = seen(ClickKind::Gclid, &[("old", 1)]);
        let mut two = Clicks::default();
        two.merge(&one);
        assert_eq!(one, two);
        two.merge(&seen(ClickKind::Fbp, &[("fb.1.2.3", 2)]));
        two.merge(&seen(ClickKind::Gclid, &[("new", 2)]));
        assert_eq!(one, seen(ClickKind::Gclid, &[("old", 1)]));
        let kinds: Vec<_> = two.iter().map(|(kind, seen)| (kind, seen.value.as_str())).collect();
        assert_eq!(kinds, [(ClickKind::Fbp, "fb.1.2.3"), (ClickKind::Gclid, "new")]);
    }

    #[test]
    fn a_repeat_within_the_hour_is_not_written() {
        let known = seen(ClickKind::Fbp, &[("fb.1.2.3", 0)]);
        let count = |sightings: &[(&str, i64)]| known.worth_writing(&seen(ClickKind::Fbp, sightings)).count();
        assert_eq!(count(&[("fb.1.2.3", 59)]), 0);
        assert_eq!(count(&[("fb.1.2.3", 61)]), 1);
        assert_eq!(count(&[("fb.1.2.3", -1)]), 1);
        assert_eq!(count(&[("fb.1.9.9", 1)]), 1);
        assert_eq!(count(&[("fb.1.9.9", -1)]), 0);
    }

    #[test]
    fn the_time_of_the_click_is_metas_where_there_is_one() {
        let mut clicks = seen(ClickKind::Gclid, &[("g", 9)]);
        clicks.see(ClickKind::Fbp, "fb.1.2.3", at(20));
        assert_eq!(clicks.first_seen(), Some(at(9)));
        clicks.see(ClickKind::Fbclid, "f", at(3));
        assert_eq!(clicks.first_seen(), Some(at(3)));
        assert_eq!(Clicks::default().first_seen(), None);
    }
}
