//! Meta's click id (`fbc`) and browser id (`fbp`): `fb.{index}.{milliseconds}.{payload}`, perhaps with an appendix.
//!
//! One malformed `fbc` makes Meta refuse its whole request (2804001), so what does not fit is left out; and without
//! a click there is none, it is never invented.
//!
//! Sources: Meta, Conversions API, "fbp and fbc Parameters" (2026-02) and "Parameter Builder Library" (2026-06); the
//! index of a registrable domain and the accepted appendices as facebook/capi-param-builder nodejs 1.2.1 has them.

use std::borrow::Cow;

use crate::click;
use crate::digest::is_meta_appendix;

/// The index when a server builds an `fbc` and saves no cookie.
const INDEX_WITHOUT_COOKIE: usize = 1;

/// What is known about a click when an event is built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Click<'a> {
    /// The `_fbc` cookie.
    pub cookie: Option<&'a str>,
    /// The click id, if it was kept apart from the address.
    pub fbclid: Option<&'a str>,
    /// Address of the page.
    pub page_url: Option<&'a str>,
    /// Address of the page before; used if it is of the same site.
    pub referrer: Option<&'a str>,
    /// Domain of the cookie that is saved with the id; `None` where none is saved.
    pub cookie_domain: Option<&'a str>,
    /// When the click id was first seen, in milliseconds since 1970.
    pub first_seen_ms: i64,
}

impl Click<'_> {
    /// The `fbc` to send. The cookie stays as it is while its click is the newest known one; another `fbclid` makes
    /// a new value. A broken cookie counts as none.
    pub fn fbc(&self) -> Option<String> {
        let fbclid = self.newest_fbclid();
        let cookie = self.cookie.map(str::trim).filter(|cookie| valid_fbc(cookie));
        match (cookie, fbclid) {
            (Some(cookie), Some(fbclid)) if payload(cookie) != Some(&*fbclid) => {
                build(&fbclid, self.first_seen_ms, self.cookie_domain).or_else(|| Some(cookie.to_owned()))
            }
            (Some(cookie), _) => Some(cookie.to_owned()),
            (None, Some(fbclid)) => build(&fbclid, self.first_seen_ms, self.cookie_domain),
            (None, None) => None,
        }
    }

    fn newest_fbclid(&self) -> Option<Cow<'_, str>> {
        let of_page = self.page_url.and_then(from_url);
        let of_referrer = || {
            let (page, referrer) = (self.page_url?, self.referrer?);
            if is_same_site(page, referrer) { from_url(referrer) } else { None }
        };
        let kept = || self.fbclid.map(str::trim).filter(|id| !id.is_empty()).map(Cow::Borrowed);
        of_page.or_else(of_referrer).or_else(kept)
    }
}

/// The click id in a page's address, decoded once, case kept.
pub fn from_url(url: &str) -> Option<Cow<'_, str>> {
    click::from_url(url, "fbclid")
}

/// The `fbc` of a cookie and a click id: see [`Click::fbc`]. Without a cookie domain.
pub fn prefer(cookie: Option<&str>, fbclid: Option<&str>, first_seen_ms: i64) -> Option<String> {
    Click { cookie, fbclid, first_seen_ms, ..Click::default() }.fbc()
}

/// Builds an `fbc`; `None` if the click id could not stand in one. `first_seen_ms` is in milliseconds, although
/// event_time is in seconds. The index is the number of dots in the cookie's domain (example.com 1, example.co.uk 2,
/// hosts without a name 0).
pub fn build(fbclid: &str, first_seen_ms: i64, cookie_domain: Option<&str>) -> Option<String> {
    let index = cookie_domain.map_or(INDEX_WITHOUT_COOKIE, dots);
    let fbc = format!("fb.{index}.{first_seen_ms}.{fbclid}");
    (!click::is_macro(fbclid) && valid_fbc(&fbc)).then_some(fbc)
}

fn dots(domain: &str) -> usize {
    let domain = domain.trim_matches('.');
    let is_address = domain.parse::<std::net::IpAddr>().is_ok();
    if is_address { 0 } else { domain.matches('.').count() }
}

/// Tells whether Meta would take this `fbc`.
pub fn valid_fbc(fbc: &str) -> bool {
    let mut parts = fbc.split('.');
    let is_number =
        |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    let starts_well = parts.next() == Some("fb") && is_number(parts.next()) && is_number(parts.next());
    let has_payload = parts.next().is_some_and(is_payload);
    let ends_well = parts.next().is_none_or(is_meta_appendix) && parts.next().is_none();
    starts_well && has_payload && ends_well
}

/// Tells whether Meta would take this `fbp`. The form is that of `fbc`; it is never hashed.
pub fn valid_fbp(fbp: &str) -> bool {
    valid_fbc(fbp)
}

fn is_payload(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// The fourth segment: the click id.
fn payload(fbc: &str) -> Option<&str> {
    fbc.split('.').nth(3)
}

/// Tells whether two addresses are of one site: the same host, or one is a sub-domain of the other.
fn is_same_site(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (host(one), host(other)) else { return false };
    let is_below = |sub: &str, domain: &str| {
        domain.contains('.')
            && sub.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    one == other || is_below(&one, &other) || is_below(&other, &one)
}

fn host(address: &str) -> Option<String> {
    url::Url::parse(address).ok()?.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_id_that_cannot_stand_in_an_fbc_is_left_out() {
        for fbclid in ["", "a.b", "a b", "{{fbclid}}", "__FBCLID__"] {
            assert_eq!(build(fbclid, 1, None), None, "{fbclid}");
        }
        assert_eq!(build("Ab_-", -1, None), None);
    }

    #[test]
    fn a_bad_new_click_id_does_not_lose_a_good_cookie() {
        let cookie = "fb.1.1700000000000.AbC";
        assert_eq!(prefer(Some(cookie), Some("a.b"), 1).as_deref(), Some(cookie));
    }

    #[test]
    fn a_foreign_referrer_gives_no_click() {
        let of = |referrer| Click {
            page_url: Some("https://shop.example/p"),
            referrer: Some(referrer),
            first_seen_ms: 7,
            ..Click::default()
        };
        assert_eq!(of("https://www.shop.example/?fbclid=A").fbc().as_deref(), Some("fb.1.7.A"));
        assert_eq!(of("https://other.example/?fbclid=A").fbc(), None);
        assert_eq!(of("https://notshop.example/?fbclid=A").fbc(), None);
    }

    #[test]
    fn the_index_counts_the_dots_of_the_cookies_domain() {
        for (domain, fbc) in [
            ("com", "fb.0.1.A"),
            (".example.com", "fb.1.1.A"),
            ("www.example.com", "fb.2.1.A"),
            ("127.0.0.1", "fb.0.1.A"),
        ] {
            assert_eq!(build("A", 1, Some(domain)).as_deref(), Some(fbc), "{domain}");
        }
    }
}
