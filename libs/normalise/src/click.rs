//! Click ids: from a page's address to the wire without a changed byte.
//!
//! Lower-cased or cut ids are the commonest reason for `UNPARSEABLE_GCLID`; a macro that nobody replaced
//! (`__CLICKID__`, `{gclid}`) is the commonest junk.

use std::borrow::Cow;

use url::form_urlencoded;

use crate::Reason;
use crate::rule::Form;
use crate::text;

/// The value of a parameter in the query of `url`, percent-decoded once, case kept; `None` if it is missing or
/// empty. What stands behind `#` is no query. Takes relative addresses too.
pub fn from_url<'u>(url: &'u str, parameter: &str) -> Option<Cow<'u, str>> {
    let address = url.split('#').next()?;
    let (_, query) = address.split_once('?')?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, value)| name == parameter && !value.is_empty())
        .map(|(_, value)| value)
}

/// Tells whether a text is a placeholder of an ad server that was never replaced by an id.
///
/// Source: TikTok's `__CLICKID__` (Events API notes, 2026-08); Google's and others' braces are of the same kind.
pub fn is_macro(id: &str) -> bool {
    let fenced = |open: &str, close: &str| {
        id.len() > open.len() + close.len() && id.starts_with(open) && id.ends_with(close)
    };
    fenced("__", "__")
        || fenced("{", "}")
        || fenced("${", "}")
        || fenced("%%", "%%")
        || fenced("[", "]")
        || fenced("<", ">")
}

/// A click id in the form of the wire: itself.
pub(crate) fn form(text: &str) -> Form {
    if is_macro(text) {
        return Err(Reason::UnreplacedMacro);
    }
    if text::is_placeholder(text) {
        return Err(Reason::Placeholder);
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Reason::WhiteSpace);
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_decoded_once_and_keeps_its_case() {
        assert_eq!(from_url("https://a.example/?gclid=Aa%2Dz&x=1", "gclid").as_deref(), Some("Aa-z"));
        assert_eq!(from_url("/p?x=%2525&gclid=A", "x").as_deref(), Some("%25"));
        assert_eq!(from_url("https://a.example/#?gclid=A", "gclid"), None);
        assert_eq!(from_url("https://a.example/?gclid=", "gclid"), None);
        assert_eq!(from_url("https://a.example/?Gclid=A", "gclid"), None);
    }

    #[test]
    fn a_macro_is_no_id() {
        for id in ["__CLICKID__", "{gclid}", "${CLICK}", "{{ttclid}}", "%%ID%%"] {
            assert_eq!(form(id), Err(Reason::UnreplacedMacro), "{id}");
        }
        assert_eq!(form("E.C.P.CukBAbCdEfGh_-0"), Ok("E.C.P.CukBAbCdEfGh_-0".into()));
        assert_eq!(form("__"), Ok("__".into()));
        assert_eq!(form("a b"), Err(Reason::WhiteSpace));
    }
}
