//! E-mail addresses.
//!
//! All platforms: trim, lower case; no punycode, since no platform publishes one. Google alone rewrites addresses of
//! Gmail. An address that is none is left out: mending it by guess would hash some other person's.

use crate::Reason;
use crate::rule::Form;
use crate::{Platform, text};

/// Domains for which Google drops dots and the part from the first plus sign. Exactly these two: sub-domains and
/// Workspace domains keep both, and googlemail.com is not rewritten to gmail.com.
/// Source: Google, Data Manager API, "Format user data"; 2026-11.
const GMAIL: [&str; 2] = ["gmail.com", "googlemail.com"];

/// The address in the platform's form. `text` is tidy.
///
/// Sources: Meta, "Customer Information Parameters" (2026-01): trim and lower case, dots and suffix stay. TikTok,
/// Events API 2.0 (2026-08): the same. Inner white space: Meta's and Google's pages speak of the ends only, and
/// Google's own helper library raises.
pub(crate) fn form(platform: Platform, text: &str) -> Form {
    let address = text::lower(text);
    let Some((local, domain)) = address.split_once('@') else { return Err(Reason::NoAt) };
    check(local, domain)?;
    match platform {
        Platform::Google | Platform::Ga4 if GMAIL.contains(&domain) => without_gmail_suffix(local, domain),
        Platform::Google | Platform::Ga4 | Platform::Meta | Platform::Tiktok => Ok(address),
    }
}

/// Whether a text may be an address that Google rewrites.
pub(crate) fn is_of_gmail(text: &str) -> bool {
    let text = text::tidy(text);
    let domain = text.rsplit_once('@').map_or("", |(_, domain)| domain);
    !domain.is_ascii() || GMAIL.iter().any(|gmail| domain.eq_ignore_ascii_case(gmail))
}

fn check(local: &str, domain: &str) -> Result<(), Reason> {
    if domain.contains('@') {
        return Err(Reason::SeveralAts);
    }
    if local.is_empty() {
        return Err(Reason::EmptyLocalPart);
    }
    if domain.is_empty() {
        return Err(Reason::EmptyDomain);
    }
    let is_plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b',' | b';');
    let of_no_address =
        |c: char| matches!(c, '<' | '>' | ',' | ';') || c.is_control() || text::is_invisible(c);
    for part in [local, domain] {
        if part.bytes().all(is_plain) {
            continue;
        }
        if part.contains(char::is_whitespace) {
            return Err(Reason::WhiteSpace);
        }
        if part.contains(of_no_address) {
            return Err(Reason::NotAnAddressAlone);
        }
    }
    let domain = domain.as_bytes();
    if !domain.contains(&b'.') {
        return Err(Reason::NoDotInDomain);
    }
    if domain.starts_with(b".") || domain.ends_with(b".") || domain.windows(2).any(|pair| pair == b"..") {
        return Err(Reason::EmptyLabel);
    }
    Ok(())
}

fn without_gmail_suffix(local: &str, domain: &str) -> Form {
    let mut kept = local.split('+').next().unwrap_or_default().replace('.', "");
    if kept.is_empty() {
        return Err(Reason::EmptyLocalPart);
    }
    kept.push('@');
    kept.push_str(domain);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_google_rewrites_gmail() {
        let address = "Jane.Doe+x@Gmail.com";
        assert_eq!(form(Platform::Google, address), Ok("janedoe@gmail.com".into()));
        assert_eq!(form(Platform::Ga4, address), Ok("janedoe@gmail.com".into()));
        assert_eq!(form(Platform::Meta, address), Ok("jane.doe+x@gmail.com".into()));
        assert_eq!(form(Platform::Google, "jane.doe@mail.gmail.com"), Ok("jane.doe@mail.gmail.com".into()));
    }

    #[test]
    fn what_is_no_single_address_is_left_out() {
        for (text, why) in [
            ("john", Reason::NoAt),
            ("a@b@c.de", Reason::SeveralAts),
            ("@b.de", Reason::EmptyLocalPart),
            ("a@", Reason::EmptyDomain),
            ("a b@c.de", Reason::WhiteSpace),
            ("Ann<a@b.de>", Reason::NotAnAddressAlone),
            ("a@b.de,c", Reason::NotAnAddressAlone),
            ("root@localhost", Reason::NoDotInDomain),
            ("a@b..de", Reason::EmptyLabel),
            ("a@b.de.", Reason::EmptyLabel),
        ] {
            assert_eq!(form(Platform::Meta, text), Err(why), "{text}");
        }
    }
}
