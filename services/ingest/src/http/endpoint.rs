//! Paths. Short and long names are the same everywhere; a trailing or doubled slash changes nothing.

use http::Method;
use tracklayer_event::segment::event_type_of;
use tracklayer_proto::event::v1::EventType;

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/v1/batch`, `/v1/b`, `/v1/import`, `/beacon/v1/batch`.
    Batch,
    /// `/v1/track`, `/v1/t` and so on.
    Single(EventType),
    /// `/v1/m`: what analytics.js measures about itself.
    Metrics,
    /// `/v1/pixel/track`, `/pixel/v1/page` and so on.
    Pixel(EventType),
    /// `/v1/projects/<write key>/settings`.
    Settings(String),
    /// `/v1/webhooks/shopify/<write key>`.
    Shopify(String),
    /// `/.well-known/gpc.json`.
    GpcSupport,
}

impl Endpoint {
    /// The endpoint of a path, if it is one.
    pub(super) fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["v1", "batch" | "b" | "import"] | ["beacon", "v1", "batch"] => Some(Self::Batch),
            ["v1", "m"] => Some(Self::Metrics),
            ["v1", call] => call_of(call).map(Self::Single),
            ["v1", "pixel", call] | ["pixel", "v1", call] => call_of(call).map(Self::Pixel),
            ["v1", "projects", write_key, "settings"] => Some(Self::Settings(decoded(write_key))),
            ["v1", "webhooks", "shopify", write_key] => Some(Self::Shopify(decoded(write_key))),
            [".well-known", "gpc.json"] => Some(Self::GpcSupport),
            _ => None,
        }
    }

    /// The method that it takes.
    pub(super) const fn method(&self) -> Method {
        match self {
            Self::Batch | Self::Single(_) | Self::Metrics | Self::Shopify(_) => Method::POST,
            Self::Pixel(_) | Self::Settings(_) | Self::GpcSupport => Method::GET,
        }
    }
}

fn call_of(name: &str) -> Option<EventType> {
    match name {
        "t" => Some(EventType::Track),
        "i" => Some(EventType::Identify),
        "p" => Some(EventType::Page),
        "s" => Some(EventType::Screen),
        "g" => Some(EventType::Group),
        "a" => Some(EventType::Alias),
        long => event_type_of(long),
    }
}

fn decoded(part: &str) -> String {
    // A plus sign is itself in a path.
    let part = part.replace('+', "%2B");
    let pair = format!("k={part}");
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_names_and_stray_slashes_are_the_same() {
        for path in ["/v1/batch", "/v1/batch/", "//v1/batch", "/v1/b", "/v1/import", "/beacon/v1/batch"] {
            assert_eq!(Endpoint::of(path), Some(Endpoint::Batch), "{path}");
        }
        let calls = [
            (EventType::Track, ["t", "track"]),
            (EventType::Identify, ["i", "identify"]),
            (EventType::Page, ["p", "page"]),
            (EventType::Screen, ["s", "screen"]),
            (EventType::Group, ["g", "group"]),
            (EventType::Alias, ["a", "alias"]),
        ];
        for (call, names) in calls {
            for name in names {
                assert_eq!(Endpoint::of(&format!("/v1/{name}")), Some(Endpoint::Single(call)));
                assert_eq!(Endpoint::of(&format!("/v1/pixel/{name}/")), Some(Endpoint::Pixel(call)));
            }
        }
        assert_eq!(Endpoint::of("/v1/m"), Some(Endpoint::Metrics));
        assert_eq!(Endpoint::of("/v1/projects/a%20b+c/settings"), Some(Endpoint::Settings("a b+c".into())));
        assert_eq!(Endpoint::of("/v1/webhooks/shopify/wk_1/"), Some(Endpoint::Shopify("wk_1".into())));
        for path in [
            "/v1/webhooks/shopify",
            "/v1/webhooks/other/wk_1",
            "/",
            "/v1",
            "/v2/batch",
            "/v1/unknown",
            "/v1/batch/x",
            "/v1/projects/k",
        ] {
            assert_eq!(Endpoint::of(path), None, "{path}");
        }
    }
}
