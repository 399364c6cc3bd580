//! Counts by state, as a row of cells and as a bar.

use serde::Serialize;
use serde::ser::SerializeMap as _;

use super::format;
use super::words::State;

/// Width of a bar's drawing.
const BAR_WIDTH: u64 = 1_000;
/// Least width of a part that is there at all, so that one dead event in a million is seen.
const LEAST_WIDTH: u64 = 6;

/// Events by state; in JSON an object with every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateCounts([u64; State::ALL.len()]);

/// A part of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Which state.
    pub state: State,
    /// Where it begins, of [`BAR_WIDTH`].
    pub x: u64,
    /// How wide it is.
    pub width: u64,
}

/// A count in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Which state.
    pub state: State,
    /// How many, or a dash.
    pub text: String,
    /// Whether there is nothing to look at.
    pub is_empty: bool,
}

impl Cell {
    /// A dash for each state.
    #[must_use]
    pub fn unknown() -> Vec<Self> {
        State::ALL.map(|state| Self { state, text: "–".to_owned(), is_empty: true }).to_vec()
    }
}

impl StateCounts {
    /// Events in a state.
    #[must_use]
    pub fn get(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// A cell for each state.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let cell = |(state, count)| Cell { state, text: format::count(count), is_empty: count == 0 };
        self.all().into_iter().map(cell).collect()
    }

    /// A cell for each state that is there.
    #[must_use]
    pub fn present_cells(&self) -> Vec<Cell> {
        self.cells().into_iter().filter(|cell| !cell.is_empty).collect()
    }

    /// Events in any state.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every state with its events, in the order of the page.
    #[must_use]
    pub fn all(&self) -> Vec<(State, u64)> {
        State::ALL.iter().map(|state| (*state, self.get(*state))).collect()
    }

    /// Only what is there.
    fn present(&self) -> Vec<(State, u64)> {
        self.all().into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// The parts of a bar: as wide as their share, but never too thin to be seen.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        let present = self.present();
        let total = u128::from(self.total().max(1));
        let room = BAR_WIDTH - LEAST_WIDTH * present.len() as u64;
        let mut x = 0;
        let mut before: u128 = 0;
        let mut segments: Vec<Segment> = Vec::with_capacity(present.len());
        for (state, count) in present {
            let from = before * u128::from(room) / total;
            before += u128::from(count);
            let to = before * u128::from(room) / total;
            let width = LEAST_WIDTH + u64::try_from(to - from).unwrap_or(0);
            segments.push(Segment { state, x, width });
            x += width;
        }
        segments
    }

    /// The bar in words, for who cannot see it.
    #[must_use]
    pub fn in_words(&self) -> String {
        let parts = self.present();
        if parts.is_empty() {
            return "no events yet".to_owned();
        }
        let parts: Vec<String> = parts
            .iter()
            .map(|(state, count)| format!("{} {}", format::count(*count), state.as_str()))
            .collect();
        parts.join(", ")
    }

    /// Adds events to a state.
    pub fn add(&mut self, state: State, count: u64) {
        self.0[state as usize] += count;
    }
}

impl Serialize for StateCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (state, count) in self.all() {
            map.serialize_entry(state.as_str(), &count)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dead_event_in_a_million_is_seen_and_the_bar_is_never_overfull() {
        let mut states = StateCounts::default();
        states.add(State::Delivered, 999_999);
        states.add(State::Dead, 1);
        let segments = states.segments();
        assert_eq!(segments.len(), 2);
        assert!(segments[1].width >= LEAST_WIDTH);
        assert_eq!(segments[1].x + segments[1].width, BAR_WIDTH);
        assert_eq!(states.in_words(), "999,999 delivered, 1 dead");
        assert!(StateCounts::default().segments().is_empty());
    }

    #[test]
    fn in_json_every_state_is_there_even_if_it_is_zero() {
        let json = serde_json::to_value(StateCounts::default()).unwrap();
        assert_eq!(json.as_object().unwrap().len(), State::ALL.len());
        assert_eq!(json["dead"], 0);
    }
}
