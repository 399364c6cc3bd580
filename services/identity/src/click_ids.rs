//! The newest click id and browser id of each kind: a register per kind, where the later sighting wins.

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

    fn place(self) -> usize {
        self as usize - 1
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

/// At most one sighting of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clicks([Option<Sighting>; KINDS.len()]);

impl Clicks {
    /// What is known of a kind.
    #[must_use]
    pub fn get(&self, kind: ClickKind) -> Option<&Sighting> {
        self.0[kind.place()].as_ref()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// What is known, by kind.
    pub fn iter(&self) -> impl Iterator<Item = (ClickKind, &Sighting)> {
        KINDS.into_iter().filter_map(|kind| Some((kind, self.get(kind)?)))
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
        let slot = &mut self.0[kind.place()];
        match slot {
            Some(known) if known.value == seen.value => {
                known.first_seen = known.first_seen.min(seen.first_seen);
                known.last_seen = known.last_seen.max(seen.last_seen);
            }
            Some(known) if (known.last_seen, &known.value) > (seen.last_seen, &seen.value) => {}
            _ => *slot = Some(seen.clone()),
        }
    }

    /// Takes all sightings of another in.
    pub fn merge(&mut self, other: &Self) {
        for (kind, seen) in other.iter() {
            self.add(kind, seen);
        }
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
