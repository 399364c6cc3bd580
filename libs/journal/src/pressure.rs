//! Whether the processor is short, and how much large work pauses for it.
//!
//! A thread that wants to sleep for a few milliseconds and sleeps longer has waited for a core, as small work does at each of its
//! steps. While that is so, large work pauses after each of its steps for a multiple of what the step took: more and more until
//! there is a core when one is needed, then less. It sees whatever else keeps the cores busy for large work, too: a database or a
//! service on the same machine has less to do as soon as less is asked of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(4);
/// Looks of a verdict.
const LOOKS: u32 = 25;
/// A core is short where it is waited for so long, on average of a verdict's looks.
const SHORT: Duration = Duration::from_micros(150);
/// Most of a step's time that is paused for after it: large work has a tenth at least, however short the cores are.
const MOST: f32 = 9.0;
/// Longest pause after one step.
const LONGEST: Duration = Duration::from_millis(100);

/// How much of each step's time is paused for after it.
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicU32);

impl Pressure {
    /// The pause after a step that took so long.
    pub(crate) fn pause(&self, step: Duration) -> Duration {
        step.mul_f32(self.share()).min(LONGEST)
    }

    /// Looks until there is a verdict, and follows it.
    pub(crate) fn look(&self) {
        let mut late = Duration::ZERO;
        for _ in 0..LOOKS {
            let begun = Instant::now();
            std::thread::sleep(LOOK);
            late += begun.elapsed().saturating_sub(LOOK);
        }
        self.set(next(self.share(), late / LOOKS));
    }

    /// Nobody waits any more.
    pub(crate) fn ease(&self) {
        self.set(0.0);
    }

    /// How many times a step's time is paused for after it.
    pub(crate) fn share(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, share: f32) {
        self.0.store(share.to_bits(), Ordering::Relaxed);
    }
}

/// What follows a verdict: quickly more, slowly less.
fn next(share: f32, late: Duration) -> f32 {
    if late > SHORT { (share + 0.25) * 1.5 } else { share * 0.9 - 0.05 }.clamp(0.0, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_TIME: Duration = Duration::from_micros(80);
    const LATE: Duration = Duration::from_millis(2);

    #[test]
    fn large_work_pauses_more_while_cores_are_short_and_less_afterwards() {
        let verdicts = [LATE, LATE, LATE, IN_TIME, IN_TIME, LATE];
        let shares: Vec<f32> = verdicts
            .iter()
            .scan(0.0, |share, late| {
                *share = next(*share, *late);
                Some(*share)
            })
            .collect();
        assert!(shares[..3].is_sorted() && shares[0] > 0.0, "{shares:?}");
        assert!(shares[3] < shares[2] && shares[4] < shares[3] && shares[5] > shares[4], "{shares:?}");
        let later = |late| (0..100).fold(2.0, |share, _| next(share, late));
        assert_eq!((later(LATE), later(IN_TIME)), (MOST, 0.0));
    }

    #[test]
    fn a_pause_is_a_multiple_of_the_step_and_has_an_end() {
        let pressure = Pressure::default();
        assert_eq!(pressure.pause(Duration::from_secs(1)), Duration::ZERO);
        pressure.set(2.0);
        assert_eq!(pressure.pause(Duration::from_millis(3)), Duration::from_millis(6));
        assert_eq!(pressure.pause(Duration::from_secs(1)), LONGEST);
        pressure.ease();
        assert_eq!(pressure.pause(Duration::from_secs(1)), Duration::ZERO);
    }
}
