//! Tables for people, JSON for programs.

use serde_json::Value;

/// How a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON document.
    Json,
}

/// Prints rows: as JSON the whole document, as a table these columns.
pub fn print_rows(output: Output, document: &Value, head: &[&str], rows: &[Vec<String>]) {
    match output {
        Output::Json => println!("{document:#}"),
        Output::Table if rows.is_empty() => println!("none"),
        Output::Table => print!("{}", table(head, rows)),
    }
}

/// Per cent; none of nothing.
#[must_use]
pub fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Columns as wide as their widest cell; numbers to the right.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let numeric = |column: usize| {
        rows.iter().all(|row| {
            row.get(column).is_none_or(|cell| cell.chars().all(|c| c.is_ascii_digit() || "-,. ".contains(c)))
        })
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            let last = column + 1 == cells.len();
            match (numeric(column), last) {
                (true, _) => text.push_str(&format!("{pad}{cell}")),
                (false, true) => text.push_str(cell),
                (false, false) => text.push_str(&format!("{cell}{pad}")),
            }
            if !last {
                text.push_str("  ");
            }
        }
        text.push('\n');
        text
    };
    let mut text = line(head.to_vec());
    text.push_str(&format!("{}\n", "-".repeat(widths.iter().sum::<usize>() + 2 * (head.len().max(1) - 1))));
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// What went wrong, from the command down to its cause: of what a service answered, its words and its code.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let told = |cause: &(dyn std::error::Error + 'static)| match cause.downcast_ref::<tonic::Status>() {
        Some(status) => format!("{} ({:?})", status.message(), status.code()),
        None => cause.to_string(),
    };
    error.chain().map(told).collect::<Vec<_>>().join(": ")
}

/// An instant for people and programs: RFC 3339, UTC, milliseconds.
#[must_use]
pub fn time(stamp: Option<&prost_types::Timestamp>) -> String {
    stamp
        .and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
        .map(|t| format!("{t:.3}"))
        .unwrap_or_default()
}

/// A number of bytes for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    let unit = units[power as usize];
    if power == 0 {
        format!("{bytes} {unit}")
    } else {
        format!("{:.1} {unit}", bytes as f64 / 1024f64.powi(power.cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_service() {
        let refused = anyhow::Error::new(tonic::Status::unauthenticated("the write key is not known"));
        assert_eq!(told(&refused), "the write key is not known (Unauthenticated)");
        assert_eq!(
            told(&refused.context("could not send")),
            "could not send: the write key is not known (Unauthenticated)"
        );
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_is_next_below() {
        let told = [0, 1_023, 1_024, 1_600 * 1_024, 64 << 30, 5 << 50].map(size);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.6 MiB", "64.0 GiB", "5120.0 TiB"]);
    }

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = vec![vec!["meta".into(), "7".into()], vec!["tiktok".into(), "1234".into()]];
        assert_eq!(
            table(&["name", "count"], &rows),
            "name    count\n-------------\nmeta        7\ntiktok   1234\n"
        );
    }
}
