//! Signing in with an admin key, and out again. The key goes through one form and is not kept: the cookie names it by its id.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::Form;
use axum::extract::{FromRequestParts, Query, State};
use axum::response::{AppendHeaders, Html, IntoResponse as _, Redirect, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tracklayer_ids::Secret;

use super::pages::{PageError, render};
use super::session::{LIFETIME, SESSION_COOKIE, Session, VISIT_COOKIE, cookie, set_cookie};
use super::{Console, assets};
use crate::error::ControlError;
use crate::metrics;
use crate::scope::Scope;

/// How long the form may stand open.
const VISIT_LIFETIME: Duration = Duration::from_secs(3600);

/// A request of somebody who is signed in.
#[derive(Debug, Clone)]
pub(super) struct SignedIn {
    /// What the key may see.
    pub scope: Scope,
    /// For the forms of the page.
    pub form_token: String,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    assets: &'static str,
    form_token: String,
    next: &'a str,
    problem: Option<&'static str>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Where {
    #[serde(default)]
    next: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SignInForm {
    admin_key: Secret<String>,
    form_token: String,
    #[serde(default)]
    next: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SignOutForm {
    form_token: String,
}

impl FromRequestParts<Arc<Console>> for SignedIn {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, PageError> {
        let signed_out = || PageError::SignedOut { next: parts.uri.to_string() };
        let session = session_of(console, &parts.headers).ok_or_else(signed_out)?;
        match console.admin.key_of_session(session.admin_key_id).await {
            Ok(key) => Ok(Self { scope: key.scope, form_token: console.cookies.form_token(&session.nonce) }),
            Err(ControlError::UnknownKey) => Err(signed_out()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `GET /login`.
pub(super) async fn form(
    State(console): State<Arc<Console>>,
    Query(query): Query<Where>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    login_page(&console, &headers, &query.next, StatusCode::OK, None)
}

/// `POST /login`.
pub(super) async fn sign_in(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Form(form): Form<SignInForm>,
) -> Result<Response, PageError> {
    let visit = cookie(&headers, VISIT_COOKIE).unwrap_or_default();
    if !is_own_form(&headers) || !console.cookies.is_form_token(visit, &form.form_token) {
        let why = "The form was open for too long, or cookies are off. Please try again.";
        return login_page(&console, &headers, &form.next, StatusCode::FORBIDDEN, Some(why));
    }
    let presented = Secret::new(form.admin_key.expose().trim().to_owned());
    match console.admin.authenticate(Some(&presented)).await {
        Ok(key) => {
            metrics::sign_in(metrics::SignIn::Accepted);
            let session = Session::begin(key.id, new_nonce()?, SystemTime::now());
            let cookie = set_cookie(
                SESSION_COOKIE,
                &console.cookies.write_session(&session),
                LIFETIME,
                is_https(&console, &headers),
            );
            let to = if is_own_page(&form.next) { form.next.as_str() } else { "/" };
            Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to(to)).into_response())
        }
        Err(ControlError::UnknownKey | ControlError::NoKey) => {
            metrics::sign_in(metrics::SignIn::Refused);
            let why = "This admin key is not known.";
            login_page(&console, &headers, &form.next, StatusCode::UNAUTHORIZED, Some(why))
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /logout`.
pub(super) async fn sign_out(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Form(form): Form<SignOutForm>,
) -> Response {
    let ours = session_of(&console, &headers)
        .is_none_or(|session| console.cookies.is_form_token(&session.nonce, &form.form_token));
    if !ours || !is_own_form(&headers) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let cookie = set_cookie(SESSION_COOKIE, "", Duration::ZERO, is_https(&console, &headers));
    (AppendHeaders([(header::SET_COOKIE, cookie)]), Redirect::to("/login")).into_response()
}

fn login_page(
    console: &Console,
    headers: &HeaderMap,
    next: &str,
    status: StatusCode,
    problem: Option<&'static str>,
) -> Result<Response, PageError> {
    let visit = new_nonce()?;
    let page = LoginPage {
        assets: assets::version(),
        form_token: console.cookies.form_token(&visit),
        next: if is_own_page(next) { next } else { "" },
        problem,
    };
    let cookie = set_cookie(VISIT_COOKIE, &visit, VISIT_LIFETIME, is_https(console, headers));
    Ok((status, AppendHeaders([(header::SET_COOKIE, cookie)]), Html(render(&page)?)).into_response())
}

fn session_of(console: &Console, headers: &HeaderMap) -> Option<Session> {
    console.cookies.read_session(cookie(headers, SESSION_COOKIE)?, SystemTime::now())
}

fn new_nonce() -> Result<String, ControlError> {
    Ok(tracklayer_secrets::generate_key("")?.into_inner())
}

/// Whether a browser says that the form stood on a page of ours. Old browsers say nothing; the form's token decides then.
fn is_own_form(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

/// Whether a path may be gone to after signing in: one of the workspaces' pages here, and nowhere else.
fn is_own_page(path: &str) -> bool {
    path.starts_with("/w/") && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
}

fn is_https(console: &Console, headers: &HeaderMap) -> bool {
    console.https_only || headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_is_sent_elsewhere() {
        assert!(is_own_page("/w/northline/event?message_id=m-1"));
        for bad in [
            "",
            "/",
            "//evil.example",
            "https://evil.example",
            "/w/\\evil",
            "/w/a b",
            "/w/a\r\nset-cookie: a=b",
        ] {
            assert!(!is_own_page(bad), "{bad}");
        }
    }
}
