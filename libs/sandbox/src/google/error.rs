//! The forms of Google's errors: the status envelope, `GoogleAdsFailure`, and the field violations of JSON
//! that does not fit.

use serde_json::{Value, json};

use crate::answer::Answer;
use crate::json::{Body, Json};
use crate::shape::{Dialect, Message, Misfit, Step, What, dotted_path, misfits};

/// Newest version of the Ads API; names the type of errors where the request names no good one.
pub(super) const NEWEST: u32 = 26;

/// Findings listed in one answer.
const MAX_VIOLATIONS: usize = 20;

/// An error of the Ads API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AdsError {
    pub(super) family: Box<str>,
    pub(super) code: Box<str>,
    pub(super) message: String,
    pub(super) trigger: Option<String>,
    pub(super) path: Vec<Step>,
    pub(super) details: Option<Box<Value>>,
}

impl AdsError {
    pub(super) fn new(family: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            family: family.into(),
            code: code.into(),
            message: message.into(),
            trigger: None,
            path: Vec::new(),
            details: None,
        }
    }

    /// At a field of the request.
    pub(super) fn at(mut self, path: &[Step]) -> Self {
        self.path = path.to_vec();
        self
    }

    /// With the value that triggered it.
    pub(super) fn by(mut self, trigger: &str) -> Self {
        self.trigger = Some(trigger.to_owned());
        self
    }

    /// The message and the place.
    pub(super) fn sentence(&self) -> String {
        if self.path.is_empty() {
            self.message.clone()
        } else {
            format!("{}, at {}", self.message, dotted_path(&self.path))
        }
    }

    fn wire(&self) -> Value {
        let mut error = json!({ "errorCode": { &*self.family: self.code }, "message": self.message });
        if let Some(trigger) = &self.trigger {
            error["trigger"] = json!({ "stringValue": trigger });
        }
        if !self.path.is_empty() {
            error["location"] = json!({ "fieldPathElements": path_elements(&self.path) });
        }
        if let Some(details) = &self.details {
            error["details"] = Value::clone(details);
        }
        error
    }
}

fn path_elements(path: &[Step]) -> Vec<Value> {
    let mut elements: Vec<Value> = Vec::new();
    for step in path {
        match step {
            Step::Field(name) => elements.push(json!({ "fieldName": crate::json::snake_case(name) })),
            Step::Index(index) => {
                if let Some(last) = elements.last_mut() {
                    last["index"] = json!(index);
                }
            }
        }
    }
    elements
}

/// The `GoogleAdsFailure` that holds these errors.
pub(super) fn failure(version: u32, errors: &[AdsError]) -> Value {
    json!({
        "@type": format!("type.googleapis.com/google.ads.googleads.v{version}.errors.GoogleAdsFailure"),
        "errors": errors.iter().map(AdsError::wire).collect::<Vec<_>>(),
        "requestId": request_id(),
    })
}

/// A request id as the Ads API writes it.
fn request_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(22).collect()
}

/// The envelope of every Google error.
pub(super) fn status(code: u16, name: &str, message: &str, details: &[Value]) -> Answer {
    let mut error = json!({ "code": code, "message": message, "status": name });
    if !details.is_empty() {
        error["details"] = json!(details);
    }
    Answer::json(code, &json!({ "error": error }))
}

/// A request that the Ads API refuses as a whole.
pub(super) fn refused(code: u16, version: u32, error: AdsError) -> Answer {
    let (name, message) = match code {
        401 => ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
        403 => ("PERMISSION_DENIED", "The caller does not have permission"),
        429 => ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
        500 => ("INTERNAL", "Internal error encountered."),
        503 => ("UNAVAILABLE", "The service is currently unavailable."),
        _ => ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    };
    status(code, name, message, &[failure(version, &[error])])
}

/// 401, with the reason where Google gives one.
pub(super) fn unauthenticated(reason: Option<&str>) -> Answer {
    let message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other \
                   valid authentication credential. See \
                   https://developers.google.com/identity/sign-in/web/devconsole-project.";
    let details: Vec<Value> = reason
        .map(|reason| {
            json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "googleapis.com",
            })
        })
        .into_iter()
        .collect();
    status(401, "UNAUTHENTICATED", message, &details)
}

/// 403: the token is good, but not for this.
pub(super) fn scope_insufficient(scope: &str) -> Answer {
    let service = if scope.ends_with("datamanager") {
        "datamanager.googleapis.com"
    } else {
        "googleads.googleapis.com"
    };
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "domain": "googleapis.com",
        "metadata": { "service": service },
    });
    status(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.", &[info])
}

/// Reads a body against its table. What does not fit is answered with every finding, and nothing is
/// processed.
pub(super) fn read<'a>(body: &'a [u8], message: &'static Message) -> Result<Body<'a>, Answer> {
    let body = match Body::read(body) {
        Some(body) => body,
        None => match serde_json::from_slice::<Json<'a>>(body) {
            Ok(Json::Object(object)) => Body::without_texts(object),
            Ok(_) => return Err(unreadable("Invalid JSON payload received. Expected an object.")),
            Err(_) => return Err(unreadable("Invalid JSON payload received. Unexpected token.")),
        },
    };
    let found = misfits(message, &body.object, Dialect::Proto, &[], MAX_VIOLATIONS);
    if found.is_empty() {
        return Ok(body);
    }
    let violations: Vec<(String, String)> = found.iter().map(violation).collect();
    let text = violations.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let violations: Vec<Value> = violations
        .iter()
        .map(|(field, text)| {
            if field.is_empty() {
                json!({ "description": text })
            } else {
                json!({ "field": field, "description": text })
            }
        })
        .collect();
    Err(bad_request(&text, &violations))
}

fn unreadable(text: &str) -> Answer {
    bad_request(text, &[json!({ "description": text })])
}

fn bad_request(text: &str, violations: &[Value]) -> Answer {
    let detail =
        json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations });
    status(400, "INVALID_ARGUMENT", text, &[detail])
}

fn violation(misfit: &Misfit) -> (String, String) {
    let path = dotted_path(&misfit.path);
    let place = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
    let text = match &misfit.what {
        What::Unknown(key) => {
            format!("Invalid JSON payload received. Unknown name \"{key}\"{place}: Cannot find field.")
        }
        What::Missing => format!("Missing field{place}."),
        What::Wrong { expected, shown } => format!("Invalid value{place} ({expected}), {shown}"),
    };
    (path, text)
}
