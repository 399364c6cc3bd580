//! Who is signed in. A session is a signed cookie that names an admin key by its id: nothing is kept on the server, every
//! replica reads it, and deleting the key's row ends it. Forms carry a token that only this console can have made for this
//! browser, so that no other site can post them.

use std::time::{Duration, SystemTime};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, header};
use sha2::Sha256;
use tracklayer_ids::MasterKey;

/// How long a sign-in lasts.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Cookie of a signed-in browser.
pub const SESSION_COOKIE: &str = "tracklayer_session";
/// Cookie of a browser that looks at the sign-in form.
pub const VISIT_COOKIE: &str = "tracklayer_visit";

/// Signs cookies and form tokens; the same on every replica.
#[derive(Clone)]
pub struct CookieKey([u8; 32]);

/// A session whose signature is right and whose time is not over. Whether its key still exists is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The admin key that opened it.
    pub admin_key_id: i64,
    /// When it ends, seconds since the Unix epoch.
    pub ends_at: u64,
    /// What makes it this one.
    pub nonce: String,
}

impl CookieKey {
    /// Derived from the master key.
    #[must_use]
    pub fn of(master_key: &MasterKey) -> Self {
        Self(mac(&master_key.secrets(), &["console-cookies"]).finalize().into_bytes().into())
    }

    /// The cookie of a session.
    #[must_use]
    pub fn write_session(&self, session: &Session) -> String {
        let text = format!("{}.{}.{}", session.admin_key_id, session.ends_at, session.nonce);
        let signature = self.sign("session", &text);
        format!("{text}.{signature}")
    }

    /// The session of a cookie, if it was written here and is not over.
    #[must_use]
    pub fn read_session(&self, cookie: &str, now: SystemTime) -> Option<Session> {
        let (text, signature) = cookie.rsplit_once('.')?;
        if !self.is_signed("session", text, signature) {
            return None;
        }
        let mut parts = text.splitn(3, '.');
        let session = Session {
            admin_key_id: parts.next()?.parse().ok()?,
            ends_at: parts.next()?.parse().ok()?,
            nonce: parts.next()?.to_owned(),
        };
        (unix_seconds(now) < session.ends_at).then_some(session)
    }

    /// The token that a form must bring back; `browser` is the nonce of the session or of the visit.
    #[must_use]
    pub fn form_token(&self, browser: &str) -> String {
        self.sign("form", browser)
    }

    /// Whether a form's token was made for this browser.
    #[must_use]
    pub fn is_form_token(&self, browser: &str, token: &str) -> bool {
        !browser.is_empty() && self.is_signed("form", browser, token)
    }

    fn sign(&self, purpose: &str, text: &str) -> String {
        hex::encode(mac(&self.0, &[purpose, text]).finalize().into_bytes())
    }

    fn is_signed(&self, purpose: &str, text: &str, signature: &str) -> bool {
        // Compares in constant time.
        hex::decode(signature)
            .is_ok_and(|signature| mac(&self.0, &[purpose, text]).verify_slice(&signature).is_ok())
    }
}

impl Session {
    /// A session that begins now.
    #[must_use]
    pub fn begin(admin_key_id: i64, nonce: String, now: SystemTime) -> Self {
        Self { admin_key_id, ends_at: unix_seconds(now) + LIFETIME.as_secs(), nonce }
    }
}

impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(***)")
    }
}

/// A cookie of the request.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The `Set-Cookie` line: not for scripts, not for requests from other sites. An empty value with no time ends the cookie.
#[must_use]
pub fn set_cookie(name: &str, value: &str, lifetime: Duration, https_only: bool) -> String {
    let secure = if https_only { "; Secure" } else { "" };
    format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lifetime.as_secs())
}

fn mac(key: &[u8; 32], parts: &[&str]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("every length is a valid key length for HMAC");
    for part in parts {
        mac.update(part.as_bytes());
        mac.update(b"\x1f");
    }
    mac
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> CookieKey {
        CookieKey::of(&MasterKey::new([7; 32]))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_session_is_read_back_until_it_ends() {
        let session = Session::begin(3, "n-1".to_owned(), at(1_000));
        let cookie = key().write_session(&session);
        assert_eq!(key().read_session(&cookie, at(1_000)), Some(session));
        assert_eq!(key().read_session(&cookie, at(1_000 + LIFETIME.as_secs())), None);
    }

    #[test]
    fn a_session_of_another_key_id_cannot_be_made_up() {
        let cookie = key().write_session(&Session::begin(3, "n-1".to_owned(), at(1_000)));
        let forged = cookie.replacen("3.", "1.", 1);
        assert_eq!(key().read_session(&forged, at(1_000)), None);
        let elsewhere = CookieKey::of(&MasterKey::new([8; 32]));
        assert_eq!(elsewhere.read_session(&cookie, at(1_000)), None);
        for rubbish in ["", ".", "3.99999999999.n", "3.99999999999.n.00", "..."] {
            assert_eq!(key().read_session(rubbish, at(1_000)), None, "{rubbish}");
        }
    }

    #[test]
    fn a_form_token_is_of_one_browser_and_is_no_session() {
        let token = key().form_token("n-1");
        assert!(key().is_form_token("n-1", &token));
        assert!(!key().is_form_token("n-2", &token));
        assert!(!key().is_form_token("", &key().form_token("")));
        let session = key().write_session(&Session::begin(3, "n-1".to_owned(), at(1_000)));
        let (text, signature) = session.rsplit_once('.').unwrap();
        assert!(!key().is_form_token(text, signature));
    }

    #[test]
    fn a_cookie_is_found_among_others_and_not_by_the_end_of_its_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; not_tracklayer_visit=2".parse().unwrap());
        headers.append(header::COOKIE, "tracklayer_visit=3".parse().unwrap());
        assert_eq!(cookie(&headers, VISIT_COOKIE), Some("3"));
        assert_eq!(cookie(&headers, SESSION_COOKIE), None);
    }

    #[test]
    fn a_cookie_is_hidden_from_scripts_and_other_sites() {
        let line = set_cookie("a", "b", Duration::from_secs(60), true);
        assert_eq!(line, "a=b; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure");
    }
}
