//! Meta's error answers. Codes and subcodes are stable, texts for people come in the user's language.
//!
//! Source: Meta, Graph API, "Handling errors"; texts as seen in public issues (facebook-nodejs-business-sdk
//! 258, facebook-java-business-sdk 421); 2026-11.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::answer::Answer;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) kind: &'static str,
    pub(crate) code: i64,
    pub(crate) subcode: Option<u64>,
    pub(crate) transient: bool,
    pub(crate) title: Option<&'static str>,
    pub(crate) text: Option<String>,
}

#[derive(Serialize)]
struct Wire<'a> {
    error: WireError<'a>,
}

#[derive(Serialize)]
struct WireError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_subcode: Option<u64>,
    is_transient: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_user_title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_user_msg: Option<&'a str>,
    fbtrace_id: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            kind: "OAuthException",
            code,
            subcode: None,
            transient: false,
            title: None,
            text: None,
        }
    }

    /// Code 100 with a subcode of the Conversions API.
    pub(crate) fn event(subcode: u64, title: &'static str, text: impl Into<String>) -> Self {
        Self {
            subcode: Some(subcode),
            title: Some(title),
            text: Some(text.into()),
            ..Self::new(400, 100, "Invalid parameter")
        }
    }

    /// Code 100 without one.
    pub(crate) fn parameter(message: impl Into<String>) -> Self {
        Self::new(400, 100, message)
    }

    pub(crate) fn token() -> Self {
        Self::new(401, 190, "Invalid OAuth access token - Cannot parse access token")
    }

    pub(crate) fn unknown_path(path: &str) -> Self {
        Self::new(400, 2500, format!("Unknown path components: {path}"))
    }

    pub(crate) fn dataset(dataset: &str) -> Self {
        Self {
            kind: "GraphMethodException",
            subcode: Some(33),
            ..Self::new(
                400,
                100,
                format!(
                    "Unsupported post request. Object with ID '{dataset}' does not exist, cannot be loaded due to \
                     missing permissions, or does not support this operation. Please read the Graph API documentation \
                     at https://developers.facebook.com/docs/graph-api"
                ),
            )
        }
    }

    pub(crate) fn proof_missing() -> Self {
        Self {
            kind: "GraphMethodException",
            ..Self::new(400, 100, "API calls from the server require an appsecret_proof argument")
        }
    }

    pub(crate) fn proof_wrong() -> Self {
        Self {
            kind: "GraphMethodException",
            ..Self::new(400, 100, "Invalid appsecret_proof provided in the API argument")
        }
    }

    /// The answer; with texts for people in French, if so told.
    pub(crate) fn answer(&self, localised: bool) -> Answer {
        let title = self.title.map(|title| if localised { in_french(title) } else { title });
        let text = match &self.text {
            Some(_) if localised => Some("Un ou plusieurs paramètres de votre requête ne sont pas valides."),
            text => text.as_deref(),
        };
        let error = WireError {
            message: &self.message,
            kind: self.kind,
            code: self.code,
            error_subcode: self.subcode,
            is_transient: self.transient,
            error_user_title: title,
            error_user_msg: text,
            fbtrace_id: trace_id(),
        };
        Answer::json(self.status, &Wire { error })
    }
}

fn in_french(title: &str) -> &'static str {
    match title {
        "Event Timestamp Too Old" => "Horodatage de l’évènement trop ancien",
        "User Parameter Not Hashed" => "Paramètre utilisateur non haché",
        "Missing Value for Purchase Event" => "Valeur manquante pour l’évènement d’achat",
        "Missing Currency for Purchase Event" => "Devise manquante pour l’évènement d’achat",
        _ => "Erreur de paramètre de l’API côté serveur",
    }
}

/// `A` and 22 characters of base64url.
pub(crate) fn trace_id() -> String {
    let mut bytes = [0; 16];
    bytes.fill_with(|| fastrand::u8(..));
    format!("A{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_has_metas_form() {
        let id = trace_id();
        assert!(id.starts_with('A') && id.len() == 23, "{id}");
    }
}
