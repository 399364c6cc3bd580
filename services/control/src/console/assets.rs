//! Style, script and icon, embedded in the binary: nothing is fetched from anywhere else. Their address carries a hash of what
//! they say, so that a browser may keep them for ever and still gets the new ones with a new binary.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("../../assets/console.css");
const SCRIPT: &str = include_str!("../../assets/console.js");
const ICON: &str = include_str!("../../assets/icon.svg");

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for text in [STYLE, SCRIPT, ICON] {
        hash.update(text.as_bytes());
    }
    hex::encode(&hash.finalize()[..8])
});

/// What stands in the assets' address.
#[must_use]
pub fn version() -> &'static str {
    &VERSION
}

/// `GET /assets/{version}/{file}`. An old version gets the newest file, which must then not be kept.
pub async fn serve(Path((asked, file)): Path<(String, String)>) -> Response {
    let (kind, text) = match file.as_str() {
        "console.css" => ("text/css; charset=utf-8", STYLE),
        "console.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let keep = if asked == version() { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, keep)], text).into_response()
}
