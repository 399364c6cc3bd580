//! Reads digits out of a telephone number as a person or a form wrote it.

use crate::Reason;
use crate::text;

/// What marks the extension that follows a number; E.164 has none, so it is cut off.
const EXTENSION_MARKS: [&str; 9] =
    ["extension", "extn", "ext", "x", "durchwahl", "dw", "poste", "anexo", "доб"];
/// Longest extension; more digits are another number.
const MOST_EXTENSION_DIGITS: usize = 7;

/// The digits of a number, in ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Written {
    /// All digits up to an extension.
    pub digits: String,
    /// A plus sign stands before the first digit.
    pub has_plus: bool,
    /// Index in `digits` of a zero that stands alone in brackets: "+44 (0)20" means "44 20, and 0 20 at home".
    bracketed_zero: Option<usize>,
}

impl Written {
    /// Where the bracketed zero stands once `skipped` digits are taken off the front.
    pub(super) fn zero_before(&self, skipped: usize) -> Option<usize> {
        self.bracketed_zero.and_then(|at| at.checked_sub(skipped))
    }
}

/// Reads a number. Letters before it are a label ("tel: +1 650 …"), letters behind it an extension; inside it they
/// are no number ("1-800-FLOWERS" is dialled by the letters of a keypad that nobody has standardised).
pub(super) fn read(text: &str) -> Result<Written, Reason> {
    let mut written = Written { digits: String::with_capacity(text.len()), ..Written::default() };
    let mut before = [' ', ' '];
    for (at, c) in text.char_indices() {
        let has_begun = written.has_plus || !written.digits.is_empty();
        if let Some(digit) = text::decimal_digit(c) {
            written.digits.push(char::from(b'0' + digit));
        } else {
            match c {
                '@' | '*' => return Err(Reason::NotANumber),
                '+' | '\u{ff0b}' if written.digits.is_empty() => written.has_plus = true,
                '+' | '\u{ff0b}' => return Err(Reason::PlusInside),
                ')' | '\u{ff09}' if is_zero_in_bracket(before) => {
                    written.bracketed_zero.get_or_insert(written.digits.len() - 1);
                }
                ';' | ',' if has_begun => break,
                '#' if has_begun => {
                    check_extension(&text[at + 1..])?;
                    break;
                }
                c if c.is_alphanumeric() && has_begun => {
                    check_extension(after_mark(&text[at..]).ok_or(Reason::LettersInside)?)?;
                    break;
                }
                _ => {}
            }
        }
        before = [before[1], c];
    }
    if written.digits.is_empty() { Err(Reason::NoDigits) } else { Ok(written) }
}

fn is_zero_in_bracket(before: [char; 2]) -> bool {
    matches!(before[0], '(' | '\u{ff08}') && text::decimal_digit(before[1]) == Some(0)
}

/// What follows the mark of an extension.
fn after_mark(rest: &str) -> Option<&str> {
    let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let mark = text::lower(&rest[..letters]);
    EXTENSION_MARKS.contains(&mark.as_str()).then(|| &rest[letters..])
}

fn check_extension(rest: &str) -> Result<(), Reason> {
    let digits = rest.chars().filter(|c| text::decimal_digit(*c).is_some()).count();
    let is_extension = (1..=MOST_EXTENSION_DIGITS).contains(&digits)
        && rest.chars().all(|c| text::decimal_digit(c).is_some() || !c.is_alphanumeric());
    if is_extension { Ok(()) } else { Err(Reason::LettersInside) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(text: &str) -> String {
        read(text)
            .map(|written| format!("{}{}", if written.has_plus { "+" } else { "" }, written.digits))
            .unwrap()
    }

    #[test]
    fn digits_are_read_in_every_dress() {
        for (text, read) in [
            ("tel: +1 (650) 555-1212", "+16505551212"),
            ("(+44) 20/7946.0018", "+442079460018"),
            ("\u{ff0b}\u{ff11}\u{ff16}", "+16"),
            ("+\u{669}\u{661} 98", "+9198"),
            ("+1 800 555 0102 ext. 5", "+18005550102"),
            ("+1 800 555 0102x5", "+18005550102"),
            ("+1 800 555 0102 #5", "+18005550102"),
            ("tel:+1-800-555-0102;ext=5", "+18005550102"),
            ("+7 912 345 доб. 12", "+7912345"),
        ] {
            assert_eq!(digits(text), read, "{text}");
        }
    }

    #[test]
    fn what_is_no_single_number_is_refused() {
        for (text, why) in [
            ("unknown", Reason::NoDigits),
            (" +A BCD ", Reason::LettersInside),
            ("1-800-FLOWERS", Reason::LettersInside),
            ("650 555 1212 ext. 12345678", Reason::LettersInside),
            ("650 555 1212 or 13", Reason::LettersInside),
            ("a1@b.example", Reason::NotANumber),
            ("1@b.example", Reason::NotANumber),
            ("44+20", Reason::PlusInside),
            ("*67 650", Reason::NotANumber),
            ("()", Reason::NoDigits),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_zero_alone_in_brackets_is_remembered() {
        assert_eq!(read("+44 (0)20").unwrap().zero_before(0), Some(2));
        assert_eq!(read("0044 (0)20").unwrap().zero_before(2), Some(2));
        assert_eq!(read("+44 (020) 7").unwrap().zero_before(0), None);
        assert_eq!(read("(0)20").unwrap().zero_before(2), None);
    }
}
