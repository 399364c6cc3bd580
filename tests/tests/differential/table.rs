//! Tables on standard output; run with `--nocapture` to see them.

/// Prints a table with a title, each column as wide as its widest cell.
pub fn print(title: &str, head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |", padded.join(" | "))
    };
    println!("\n{title}\n{}", line(&mut head.iter().copied()));
    println!("{}", line(&mut widths.iter().map(|_| "---")));
    for row in rows {
        println!("{}", line(&mut row.iter().map(String::as_str)));
    }
}

/// A number from the environment, or the usual one.
///
/// # Panics
/// It is there and no number.
pub fn number_from<T: std::str::FromStr>(variable: &str, usual: T) -> T {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => usual,
    }
}
