//! Records of a fixed width, sorted by the hash that each begins with: what a run of the index holds.
//!
//! The index is a log-structured merge tree in tiers. A commit writes what it has as one run; [`FANOUT`] runs of a level become
//! one of the next. Records never change: of an order that was sold twice the newer record counts, a message_id has one for
//! each of its positions.

use rust_decimal::Decimal;
use tracklayer_ids::{ConnectionId, Generation, Offset};

/// Runs of a level that are merged into one of the next.
pub const FANOUT: usize = 16;
/// Most records of a segment: a run is stored in rows of so many.
pub const SEGMENT: usize = 4_096;
/// Most records of a run that is made by merging, so that no merge takes minutes. What is larger is left as it is.
pub const MAX_RECORDS: i64 = 16_000_000;
/// Most runs that are merged at once: a segment of each is in memory.
const MAX_SOURCES: usize = 4 * FANOUT;

const HASH: usize = 8;
/// No amount: no decimal has as many digits behind the point.
const NO_AMOUNT: u8 = u8::MAX;

/// What the records of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// [`MessageAt`], all of a hash.
    Messages,
    /// [`SoldOrder`], the newest of a hash.
    Orders,
}

impl Content {
    /// The runs of a connection hold its orders; those of no connection, message_ids.
    #[must_use]
    pub const fn of(connection: ConnectionId) -> Self {
        if connection.0 == 0 { Self::Messages } else { Self::Orders }
    }

    /// Bytes of a record.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Messages => MessageAt::WIDTH,
            Self::Orders => SoldOrder::WIDTH,
        }
    }

    const fn newest_only(self) -> bool {
        match self {
            Self::Messages => MessageAt::NEWEST_ONLY,
            Self::Orders => SoldOrder::NEWEST_ONLY,
        }
    }
}

/// A record of a run.
pub trait Record: Copy {
    /// Its bytes.
    const WIDTH: usize;
    /// Whether the newest of a hash replaces those before it.
    const NEWEST_ONLY: bool;

    /// What it is sorted by.
    fn hash(&self) -> i64;

    /// Writes what stands behind the hash.
    fn write_rest(&self, to: &mut Vec<u8>);

    /// Reads a record; none: these are not its bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// Where an event stands that carries a message_id; the partition is the run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageAt {
    /// Of the message_id.
    pub hash: i64,
    /// The generation.
    pub generation: Generation,
    /// The offset.
    pub offset: Offset,
}

impl Record for MessageAt {
    const WIDTH: usize = HASH + 4 + 8;
    const NEWEST_ONLY: bool = false;

    fn hash(&self) -> i64 {
        self.hash
    }

    fn write_rest(&self, to: &mut Vec<u8>) {
        to.extend(self.generation.0.to_be_bytes());
        to.extend(self.offset.0.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (hash, rest) = split_hash(bytes)?;
        let (generation, rest) = rest.split_first_chunk()?;
        let generation = Generation(u32::from_be_bytes(*generation));
        Some(Self { hash, generation, offset: Offset(u64::from_be_bytes(*rest.first_chunk()?)) })
    }
}

/// An order as it was sold at a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoldOrder {
    /// Of the order's id.
    pub hash: i64,
    /// What was sent as its value.
    pub value: Option<Amount>,
    /// What the customer paid.
    pub total: Option<Amount>,
    /// ISO 4217.
    pub currency: Option<[u8; 3]>,
    /// When, microseconds since the Unix epoch.
    pub at: i64,
}

/// An amount of at most 18 digits or so: a decimal with more has no place in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    digits: i64,
    scale: u8,
}

impl Amount {
    /// None: it has too many digits.
    #[must_use]
    pub fn of(amount: Decimal) -> Option<Self> {
        let (digits, scale) = (i64::try_from(amount.mantissa()).ok()?, u8::try_from(amount.scale()).ok()?);
        Some(Self { digits, scale })
    }

    /// As it was.
    #[must_use]
    pub fn decimal(self) -> Decimal {
        Decimal::new(self.digits, u32::from(self.scale))
    }
}

impl Record for SoldOrder {
    const WIDTH: usize = HASH + 2 * 9 + 3 + 8;
    const NEWEST_ONLY: bool = true;

    fn hash(&self) -> i64 {
        self.hash
    }

    fn write_rest(&self, to: &mut Vec<u8>) {
        for amount in [self.value, self.total] {
            let Amount { digits, scale } = amount.unwrap_or(Amount { digits: 0, scale: NO_AMOUNT });
            to.extend(digits.to_be_bytes());
            to.push(scale);
        }
        to.extend(self.currency.unwrap_or_default());
        to.extend(self.at.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (hash, rest) = split_hash(bytes)?;
        let (value, rest) = split_amount(rest)?;
        let (total, rest) = split_amount(rest)?;
        let (currency, rest) = rest.split_first_chunk::<3>()?;
        let at = i64::from_be_bytes(*rest.first_chunk()?);
        Some(Self { hash, value, total, currency: (*currency != [0; 3]).then_some(*currency), at })
    }
}

fn split_amount(bytes: &[u8]) -> Option<(Option<Amount>, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk()?;
    let (&scale, rest) = rest.split_first()?;
    let amount = Amount { digits: i64::from_be_bytes(*digits), scale };
    // What a decimal cannot have is not what was written.
    if scale != NO_AMOUNT && u32::from(scale) > Decimal::MAX_SCALE {
        return None;
    }
    Some(((scale != NO_AMOUNT).then_some(amount), rest))
}

fn split_hash(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (hash, rest) = bytes.split_first_chunk()?;
    Some((i64::from_be_bytes(*hash), rest))
}

/// The hash of a record's bytes.
#[must_use]
pub fn hash_of(record: &[u8]) -> i64 {
    split_hash(record).map_or(0, |(hash, _)| hash)
}

/// The bytes of a run: sorted, those of one hash in the order in which they came, or the last of them.
#[must_use]
pub fn body<R: Record>(mut records: Vec<R>) -> Vec<u8> {
    records.sort_by_key(Record::hash);
    let mut body = Vec::with_capacity(records.len() * R::WIDTH);
    for (n, record) in records.iter().enumerate() {
        if R::NEWEST_ONLY && records.get(n + 1).is_some_and(|next| next.hash() == record.hash()) {
            continue;
        }
        body.extend(record.hash().to_be_bytes());
        record.write_rest(&mut body);
    }
    body
}

/// The records of a hash in a part of a run, and whether there can be no more of them before or behind that part. `whole`:
/// the part begins where the run does, and ends where it does.
#[must_use]
pub fn of_hash(part: &[u8], width: usize, hash: i64, whole: (bool, bool)) -> (&[u8], bool) {
    let count = part.len() / width;
    let at = |n: usize| hash_of(&part[n * width..]);
    let first_where = |holds: &dyn Fn(i64) -> bool| {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if holds(at(middle)) { high = middle } else { low = middle + 1 }
        }
        low
    };
    let (first, behind) = (first_where(&|h| h >= hash), first_where(&|h| h > hash));
    let sure = (first > 0 || whole.0) && (behind < count || whole.1);
    (&part[first * width..behind * width], sure)
}

/// Which runs of a level become one, of all of them with their records, oldest first: neighbours, or an older record would come to
/// count as newer than one of a run between them. None: there are too few.
#[must_use]
pub fn to_merge(runs: &[(i64, i64)]) -> Option<&[(i64, i64)]> {
    if runs.iter().filter(|(_, records)| *records <= MAX_RECORDS / 2).count() < FANOUT {
        return None;
    }
    (0..runs.len()).find_map(|first| {
        let mut sum = 0;
        let fitting = runs[first..].iter().take(MAX_SOURCES).take_while(|(_, records)| {
            sum += records;
            sum <= MAX_RECORDS
        });
        let count = fitting.count();
        (count > 1).then(|| &runs[first..first + count])
    })
}

/// Several sorted runs read as one, from the oldest to the newest of a hash.
#[derive(Debug)]
pub struct Merge {
    width: usize,
    newest_only: bool,
    /// From the oldest run to the newest.
    sources: Vec<Source>,
}

/// What is read of a run, and how far it is taken.
#[derive(Debug, Clone, Default)]
struct Source {
    bytes: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// What a step of a merge came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A segment is full, or all sources are at their end.
    Done,
    /// Before it goes on, that source has to be filled again, or said to be at its end.
    Empty(usize),
}

impl Merge {
    /// Over so many sources, all of them empty still.
    #[must_use]
    pub fn new(content: Content, sources: usize) -> Self {
        let (width, newest_only) = (content.width(), content.newest_only());
        Self { width, newest_only, sources: vec![Source::default(); sources] }
    }

    /// More of a source; none: it has ended.
    pub fn fill(&mut self, source: usize, bytes: Option<Vec<u8>>) {
        let ended = bytes.is_none();
        self.sources[source] = Source { bytes: bytes.unwrap_or_default(), taken: 0, ended };
    }

    /// Takes records into a segment until it is full or a source runs out.
    pub fn step(&mut self, segment: &mut Vec<u8>) -> Step {
        while segment.len() < SEGMENT * self.width {
            let mut least: Option<(i64, usize)> = None;
            let mut newest = 0;
            for (place, source) in self.sources.iter().enumerate() {
                match source.bytes.get(source.taken..).filter(|rest| rest.len() >= self.width).map(hash_of) {
                    Some(hash) if least.is_none_or(|(other, _)| hash < other) => {
                        least = Some((hash, place));
                        newest = place;
                    }
                    Some(hash) if least.is_some_and(|(other, _)| hash == other) => newest = place,
                    Some(_) => {}
                    None if source.ended => {}
                    None => return Step::Empty(place),
                }
            }
            let Some((_, oldest)) = least else { break };
            let source = &mut self.sources[oldest];
            let record = &source.bytes[source.taken..source.taken + self.width];
            source.taken += self.width;
            if !self.newest_only || oldest == newest {
                segment.extend_from_slice(record);
            }
        }
        Step::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(hash: i64, offset: u64) -> MessageAt {
        MessageAt { hash, generation: Generation(3), offset: Offset(offset) }
    }

    fn order(hash: i64, value: &str) -> SoldOrder {
        let value = Amount::of(value.parse().unwrap());
        SoldOrder { hash, value, total: None, currency: Some(*b"EUR"), at: -7 }
    }

    fn read<R: Record>(bytes: &[u8]) -> Vec<R> {
        bytes.chunks(R::WIDTH).map(|record| R::read(record).unwrap()).collect()
    }

    /// The whole of a merge whose sources come in parts of so many records.
    fn merged(content: Content, runs: &[Vec<u8>], part: usize) -> Vec<Vec<u8>> {
        let mut rest: Vec<_> = runs.iter().map(|run| run.chunks(part * content.width())).collect();
        let mut merge = Merge::new(content, runs.len());
        let (mut segments, mut segment) = (Vec::new(), Vec::new());
        loop {
            match merge.step(&mut segment) {
                Step::Empty(source) => merge.fill(source, rest[source].next().map(<[u8]>::to_vec)),
                Step::Done if segment.is_empty() => return segments,
                Step::Done => segments.push(std::mem::take(&mut segment)),
            }
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let messages = vec![message(i64::MIN, 0), message(-1, u64::MAX), message(i64::MAX, 7)];
        assert_eq!(read::<MessageAt>(&body(messages.clone())), messages);
        let nothing = SoldOrder { hash: 4, value: None, total: None, currency: None, at: 0 };
        let orders = vec![order(-9, "-0.01"), order(3, "9007199254740993.25"), nothing];
        assert_eq!(read::<SoldOrder>(&body(orders.clone())), orders);
        assert_eq!(orders[1].value.unwrap().decimal().to_string(), "9007199254740993.25");
        assert_eq!(Amount::of(Decimal::MAX), None, "it goes into a row");
        assert_eq!(MessageAt::read(&[0; 19]), None);
        let mut bad = body(vec![order(1, "2")]);
        bad[16] = 29;
        assert_eq!(SoldOrder::read(&bad), None, "no decimal has 29 digits behind the point");
    }

    #[test]
    fn a_run_is_sorted_and_has_the_last_of_an_order() {
        let messages = body(vec![message(5, 1), message(-5, 2), message(5, 3)]);
        assert_eq!(read::<MessageAt>(&messages), [message(-5, 2), message(5, 1), message(5, 3)]);
        let orders = body(vec![order(5, "1"), order(-5, "2"), order(5, "3")]);
        assert_eq!(read::<SoldOrder>(&orders), [order(-5, "2"), order(5, "3")]);
    }

    #[test]
    fn what_was_merged_has_everything_of_all_runs_once_however_they_are_read() {
        let runs: Vec<Vec<MessageAt>> = (0..5u64)
            .map(|run| {
                (0..3_000u64).map(|n| message((n * 7_919 % 4_001) as i64 - 2_000, run * 10_000 + n)).collect()
            })
            .collect();
        let mut all: Vec<MessageAt> = runs.iter().flatten().copied().collect();
        all.sort_by_key(|m| m.hash);
        let bodies: Vec<Vec<u8>> = runs.into_iter().map(body).collect();
        for part in [1, 7, 5_000] {
            let segments = merged(Content::Messages, &bodies, part);
            let most = segments.iter().map(|s| s.len() / MessageAt::WIDTH).max();
            assert_eq!((segments.len(), most), (15_000usize.div_ceil(SEGMENT), Some(SEGMENT)));
            assert_eq!(read::<MessageAt>(&segments.concat()), all, "in parts of {part}");
        }
    }

    #[test]
    fn of_an_order_the_newest_run_counts() {
        let runs = [
            body(vec![order(1, "10"), order(2, "10"), order(4, "10")]),
            body(vec![order(2, "20"), order(3, "20")]),
            body(vec![order(2, "30"), order(4, "30")]),
        ];
        for part in [1, 2, 9] {
            let segments = merged(Content::Orders, &runs, part);
            let expected = [order(1, "10"), order(2, "30"), order(3, "20"), order(4, "30")];
            assert_eq!(read::<SoldOrder>(&segments.concat()), expected, "in parts of {part}");
        }
    }

    #[test]
    fn neighbours_are_merged_and_no_more_of_them_than_fit_into_a_run() {
        let runs = |sizes: &[i64]| (1..).zip(sizes.iter().copied()).collect::<Vec<(i64, i64)>>();
        let merged = |sizes: &[i64]| {
            to_merge(&runs(sizes)).map(|chosen| chosen.iter().map(|(run, _)| *run).collect::<Vec<_>>())
        };
        assert_eq!(merged(&[1; FANOUT - 1]), None);
        assert_eq!(merged(&[1; FANOUT]), Some((1..=FANOUT as i64).collect()));
        assert_eq!(merged(&[1; 99]).unwrap().len(), MAX_SOURCES, "after a while without merges");
        let full = MAX_RECORDS * 3 / 4;
        assert_eq!(merged(&[full; 99]), None, "they stay");
        let beside = |before: &[i64]| merged(&[before, &[1; FANOUT]].concat());
        assert_eq!(beside(&[MAX_RECORDS; 3]).unwrap(), (4..4 + FANOUT as i64).collect::<Vec<_>>());
        assert_eq!(
            beside(&[1, MAX_RECORDS, MAX_RECORDS]).unwrap()[0],
            4,
            "one that is alone between others stays"
        );
        let third = MAX_RECORDS / 3;
        assert_eq!(merged(&[third; FANOUT]), Some(vec![1, 2, 3]));
    }

    #[test]
    fn what_stands_at_the_edge_of_a_part_may_go_on_behind_it() {
        let run = body(vec![message(1, 0), message(2, 1), message(2, 2), message(3, 3)]);
        let width = MessageAt::WIDTH;
        let found = |part: std::ops::Range<usize>, hash, whole| {
            let (found, sure) = of_hash(&run[part.start * width..part.end * width], width, hash, whole);
            (found.len() / width, sure)
        };
        assert_eq!(found(0..4, 2, (true, true)), (2, true));
        assert_eq!(found(0..4, 9, (true, true)), (0, true), "behind the end there is nothing");
        assert_eq!(found(0..2, 2, (true, false)), (1, false), "cut in the middle of them");
        assert_eq!(found(2..4, 2, (false, true)), (1, false));
        assert_eq!(found(2..4, 1, (false, true)), (0, false), "it would stand before the part");
        assert_eq!(found(0..2, 3, (true, false)), (0, false), "it would stand behind the part");
        assert_eq!(found(0..3, 1, (true, false)), (1, true));
    }
}
