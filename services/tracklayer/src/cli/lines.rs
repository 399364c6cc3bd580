//! Lines of a file or of standard input, one at a time, of bounded length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::Context;

/// Longest line: a list of 1,000 events of the largest size that is accepted.
pub const LONGEST: u64 = 64 * 1024 * 1024;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'l> {
    /// A line that is not blank, with its number from 1.
    Line(u64, &'l str),
    /// A line that cannot be read as text, and why.
    Bad(u64, String),
    /// There is none.
    End,
}

/// Lines.
pub struct Lines {
    input: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    longest: u64,
}

impl Lines {
    /// Of a file; `-` for standard input.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let input: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path).with_context(|| format!("could not read {}", path.display()))?;
            Box::new(BufReader::with_capacity(64 * 1024, file))
        };
        Ok(Self::of(input, LONGEST))
    }

    fn of(input: Box<dyn BufRead>, longest: u64) -> Self {
        Self { input, line: Vec::new(), number: 0, longest }
    }

    /// The next line that is not blank.
    ///
    /// # Errors
    /// The input fails.
    pub fn read_next(&mut self) -> anyhow::Result<Next<'_>> {
        loop {
            self.line.clear();
            let read = (&mut self.input).take(self.longest + 1).read_until(b'\n', &mut self.line);
            if read.context("could not read the events")? == 0 {
                return Ok(Next::End);
            }
            self.number += 1;
            let ended = self.line.last() == Some(&b'\n');
            if self.line.len() as u64 - u64::from(ended) > self.longest {
                if !ended {
                    self.input.skip_until(b'\n').context("could not read the events")?;
                }
                self.line = Vec::new();
                let why = format!("the line is longer than {} bytes: split its list", self.longest);
                return Ok(Next::Bad(self.number, why));
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let number = self.number;
        Ok(match std::str::from_utf8(&self.line) {
            Ok(text) => Next::Line(number, text.trim()),
            Err(error) => Next::Bad(number, format!("not UTF-8 at byte {}", error.valid_up_to())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_told_with_its_number_and_the_next_is_read() {
        let text = b"{}\n\n  \n[1,23]\nfar too long\n\xffx\n{1}".to_vec();
        let mut lines = Lines::of(Box::new(io::Cursor::new(text)), 6);
        assert_eq!(lines.read_next().unwrap(), Next::Line(1, "{}"));
        assert_eq!(lines.read_next().unwrap(), Next::Line(4, "[1,23]"), "blank lines are counted and passed");
        let Next::Bad(5, why) = lines.read_next().unwrap() else { panic!("line 5") };
        assert_eq!(why, "the line is longer than 6 bytes: split its list");
        assert_eq!(lines.read_next().unwrap(), Next::Bad(6, "not UTF-8 at byte 0".to_owned()));
        assert_eq!(lines.read_next().unwrap(), Next::Line(7, "{1}"));
        assert_eq!(lines.read_next().unwrap(), Next::End);
    }
}
