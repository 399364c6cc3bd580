//! The web console: pages for people, served by the binary alone. What a page shows is put together by pure functions
//! ([`live`], [`event`]) from the configuration and delivery's answers; [`pages`] only asks and renders. Templates escape
//! everything; the policy sent with each answer lets a browser run and load nothing but our own files.
//!
//! Modules in reading order: [`pages`], [`sign_in`], [`session`], [`delivery`], [`live`], [`twins`], [`event`], [`counts`], [`words`],
//! [`format`], [`assets`].

mod assets;
pub mod counts;
pub mod delivery;
pub mod event;
pub mod format;
pub mod live;
mod pages;
pub mod session;
mod sign_in;
pub mod twins;
pub mod words;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use http::{HeaderValue, header};

use self::delivery::Delivery;
use self::session::CookieKey;
use crate::admin::Admin;

/// Largest form: a key of 68 characters and an address.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// Nothing from elsewhere, no inline script or style, no frame around it, no form to elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What the pages work with.
#[derive(Debug, Clone)]
pub struct Console {
    /// The administration.
    pub admin: Admin,
    /// Delivery.
    pub delivery: Delivery,
    /// Signs cookies.
    pub cookies: CookieKey,
    /// Whether cookies are only for HTTPS.
    pub https_only: bool,
}

/// Whom a page answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Also who is not signed in: nothing of any workspace is in it.
    Everybody,
    /// Who is signed in; what it shows depends on the key.
    SignedIn,
    /// Whose key sees the workspace that `{workspace}` in the path names; everybody else is told that there is no such page.
    Workspace,
}

type Pages = Vec<(&'static str, Audience, MethodRouter<Arc<Console>>)>;

/// Every page. There is no other way to add one, and a test tries each with another workspace's key.
fn pages() -> Pages {
    use Audience::{Everybody, SignedIn, Workspace};
    vec![
        ("/", SignedIn, get(pages::home)),
        ("/login", Everybody, get(sign_in::form).post(sign_in::sign_in)),
        ("/logout", Everybody, post(sign_in::sign_out)),
        ("/w/{workspace}/live", Workspace, get(pages::live)),
        ("/w/{workspace}/live.json", Workspace, get(pages::live_json)),
        ("/w/{workspace}/event", Workspace, get(pages::event)),
        ("/assets/{version}/{file}", Everybody, get(assets::serve)),
    ]
}

/// Path of every page, and whom it answers.
#[must_use]
pub fn audiences() -> Vec<(&'static str, Audience)> {
    pages().into_iter().map(|(path, audience, _)| (path, audience)).collect()
}

/// The console's routes.
pub fn router(console: Console) -> Router {
    pages()
        .into_iter()
        .fold(Router::new(), |router, (path, _, page)| router.route(path, page))
        .fallback(pages::nothing_here)
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn(with_safe_headers))
        .with_state(Arc::new(console))
}

async fn with_safe_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    // Pages show what is now, and only to who is signed in.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
