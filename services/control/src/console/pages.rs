//! The pages: ask the administration and delivery, put the view together, render.

use std::sync::Arc;

use askama::Template;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracklayer_ids::MessageId;
use tracklayer_rpc::{Code, RpcError as _};

use super::event::Search;
use super::live::LiveView;
use super::sign_in::SignedIn;
use super::words::State as EventState;
use super::{Console, assets};
use crate::error::ControlError;
use crate::workspace::Workspace;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// Nobody is signed in.
    #[error("not signed in")]
    SignedOut {
        /// Where to go afterwards.
        next: String,
    },
    /// No such page, or not for this key: the same answer.
    #[error("no such page")]
    NotFound,
    /// The configuration cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A template failed.
    #[error("could not render a page")]
    Render(#[from] askama::Error),
}

/// What stands around every page of a workspace.
struct Frame {
    assets: &'static str,
    workspace: String,
    workspaces: Vec<String>,
    tab: &'static str,
    form_token: String,
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage<'a> {
    frame: Frame,
    view: &'a LiveView,
    states: [EventState; 8],
}

/// The part of the live page that is refreshed.
#[derive(Template)]
#[template(path = "live_body.html")]
struct LiveBody<'a> {
    view: &'a LiveView,
    states: [EventState; 8],
}

#[derive(Template)]
#[template(path = "event.html")]
struct EventPage {
    frame: Frame,
    message_id: String,
    search: Search,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessagePage {
    assets: &'static str,
    title: &'static str,
    text: &'static str,
}

/// The answer of `live.json`: the numbers, and the same as the page shows them.
#[derive(Serialize)]
struct LiveJson<'a> {
    #[serde(flatten)]
    view: &'a LiveView,
    html: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventQuery {
    #[serde(default)]
    message_id: String,
}

/// `GET /`: the first workspace that the key sees.
pub(super) async fn home(State(console): State<Arc<Console>>, who: SignedIn) -> Result<Response, PageError> {
    let workspaces = console.admin.list_workspaces(who.scope).await?;
    match workspaces.first() {
        Some(first) => Ok(Redirect::to(&format!("/w/{}/live", first.name)).into_response()),
        None => Ok(Html(render(&MessagePage {
            assets: assets::version(),
            title: "No workspace yet",
            text: "Make one with the command line or the admin API; its counts are then shown here.",
        })?)
        .into_response()),
    }
}

/// `GET /w/{workspace}/live`.
pub(super) async fn live(
    State(console): State<Arc<Console>>,
    Path(name): Path<String>,
    who: SignedIn,
) -> Result<Html<String>, PageError> {
    let (workspace, frame) = open(&console, &who, &name, "live").await?;
    let view = live_view(&console, &who, &workspace).await?;
    Ok(Html(render(&LivePage { frame, view: &view, states: EventState::ALL })?))
}

/// `GET /w/{workspace}/live.json`.
pub(super) async fn live_json(
    State(console): State<Arc<Console>>,
    Path(name): Path<String>,
    who: Result<SignedIn, PageError>,
) -> Result<Response, PageError> {
    let who = match who {
        Err(PageError::SignedOut { .. }) => {
            return Ok((StatusCode::UNAUTHORIZED, Json(serde_json::json!({"problem": "signed out"})))
                .into_response());
        }
        who => who?,
    };
    let workspace = console.admin.find_workspace(who.scope, &name).await?.ok_or(PageError::NotFound)?;
    let view = live_view(&console, &who, &workspace).await?;
    let html = render(&LiveBody { view: &view, states: EventState::ALL })?;
    Ok(Json(LiveJson { view: &view, html }).into_response())
}

/// `GET /w/{workspace}/event?message_id=`.
pub(super) async fn event(
    State(console): State<Arc<Console>>,
    Path(name): Path<String>,
    Query(query): Query<EventQuery>,
    who: SignedIn,
) -> Result<Html<String>, PageError> {
    let (workspace, frame) = open(&console, &who, &name, "event").await?;
    let message_id = query.message_id.trim().to_owned();
    let search = if message_id.is_empty() {
        Search::Nothing
    } else {
        match MessageId::parse(&message_id) {
            Err(error) => Search::NoMessageId(error.to_string()),
            Ok(id) => {
                let sources = console.admin.list_sources(who.scope, workspace.id).await?;
                let connections = console.admin.list_connections(who.scope, workspace.id).await?;
                Search::of(
                    console.delivery.show_event(workspace.id, id.as_str()).await,
                    &sources,
                    &connections,
                )
            }
        }
    };
    Ok(Html(render(&EventPage { frame, message_id, search })?))
}

/// Every other path.
pub(super) async fn nothing_here() -> PageError {
    PageError::NotFound
}

/// Renders a template.
pub(super) fn render(page: &impl Template) -> Result<String, PageError> {
    Ok(page.render()?)
}

async fn open(
    console: &Console,
    who: &SignedIn,
    name: &str,
    tab: &'static str,
) -> Result<(Workspace, Frame), PageError> {
    let mut workspaces = console.admin.list_workspaces(who.scope).await?;
    let names = workspaces.iter().map(|workspace| workspace.name.clone()).collect();
    let at = workspaces.iter().position(|workspace| workspace.name == name).ok_or(PageError::NotFound)?;
    let workspace = workspaces.swap_remove(at);
    let frame = Frame {
        assets: assets::version(),
        workspace: workspace.name.clone(),
        workspaces: names,
        tab,
        form_token: who.form_token.clone(),
    };
    Ok((workspace, frame))
}

async fn live_view(console: &Console, who: &SignedIn, workspace: &Workspace) -> Result<LiveView, PageError> {
    let sources = console.admin.list_sources(who.scope, workspace.id).await?;
    let connections = console.admin.list_connections(who.scope, workspace.id).await?;
    let (stats, twins) =
        tokio::join!(console.delivery.stats(workspace.id), console.delivery.twins(workspace.id));
    let counted = stats.as_ref().map_err(|no_answer| *no_answer);
    // Why there are no counts is said by the others.
    let twins = twins.unwrap_or_default();
    Ok(LiveView::of(workspace, &sources, &connections, counted, &twins, Timestamp::now()))
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = match &self {
            Self::SignedOut { next } => {
                let next: String = url_encoded(next);
                return Redirect::to(&format!("/login?next={next}")).into_response();
            }
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "Nothing here",
                "There is no such page, or the admin key that you are signed in with may not see it.",
            ),
            Self::Control(error) if error.describe().0 == Code::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "One moment",
                "The configuration cannot be read at the moment. Events go on being accepted and delivered meanwhile.",
            ),
            Self::Control(_) | Self::Render(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "This went wrong",
                "The page could not be made. The log of the control service says why.",
            ),
        };
        if status.is_server_error() {
            tracing::error!(error = &self as &dyn std::error::Error, "console page could not be made");
        }
        let page = MessagePage { assets: assets::version(), title, text }
            .render()
            .unwrap_or_else(|_| text.to_owned());
        (status, Html(page)).into_response()
    }
}

/// As a value of a query: everything but letters, digits and `-._~` escaped (RFC 3986, 2.3).
fn url_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_query_survives_as_a_query_value() {
        assert_eq!(
            url_encoded("/w/a/event?message_id=m-1&x=ü"),
            "%2Fw%2Fa%2Fevent%3Fmessage_id%3Dm-1%26x%3D%C3%BC"
        );
    }
}
