//! What an answer to a file means. A folder answers in the same words: `libs/lake` puts the operating system's errors into them.
//!
//! Codes of S3. Source: Amazon S3 API Reference, "Error responses", list of error codes; 2026-11.

use super::target::Place;
use crate::outcome::{Answer, HoldKind, ItemOutcome};

/// Nothing is ever wrong with a single event here: whatever is refused holds the lane, and its events wait in the journal.
pub(super) fn read(answer: &Answer, place: &Place) -> ItemOutcome {
    if (200..=299).contains(&answer.status) {
        return ItemOutcome::DELIVERED;
    }
    let code = code_of(answer).unwrap_or_else(|| format!("HTTP_{}", answer.status));
    let (kind, what_to_do) = match place {
        Place::Folder { .. } => of_folder(answer.status),
        Place::Bucket(_) => of_bucket(answer.status, &code),
    };
    ItemOutcome::hold(kind, answer.retry_after(), code, what_to_do)
}

fn of_folder(status: u16) -> (HoldKind, &'static str) {
    match status {
        403 => (
            HoldKind::Configuration,
            "delivery may not write into the folder: let its user write there, on every machine that runs delivery",
        ),
        404 => (
            HoldKind::Configuration,
            "the folder is not there: mount it below delivery's `warehouse_root`, on every machine that runs delivery",
        ),
        507 => (
            HoldKind::Transient,
            "the folder's disk is full: make room; what waits is kept in the journal meanwhile",
        ),
        429 => (HoldKind::Throttled, "the folder asks to wait"),
        _ => (HoldKind::Transient, "the folder cannot be written to at the moment"),
    }
}

fn of_bucket(status: u16, code: &str) -> (HoldKind, &'static str) {
    match code {
        "NoSuchBucket" => {
            return (
                HoldKind::Configuration,
                "there is no such bucket: make it, or mend `url` and `endpoint`",
            );
        }
        "AccessDenied" | "AllAccessDisabled" => {
            return (
                HoldKind::Auth,
                "the key may not write there: grant it s3:PutObject on the bucket and prefix",
            );
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" => {
            return (
                HoldKind::Auth,
                "the key is not accepted: set `access_key_id` and `secret_access_key` anew",
            );
        }
        "RequestTimeTooSkewed" => {
            return (
                HoldKind::Transient,
                "this machine's clock differs too much from the server's: set it right",
            );
        }
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            return (HoldKind::Configuration, "the bucket is in another region: mend `region` or `endpoint`");
        }
        "SlowDown" => {
            return (HoldKind::Throttled, "the bucket asks to write slower");
        }
        "QuotaExceeded" | "XMinioStorageFull" => {
            return (
                HoldKind::Transient,
                "the bucket is full: make room; what waits is kept in the journal meanwhile",
            );
        }
        _ => {}
    }
    match status {
        429 => (HoldKind::Throttled, "the bucket asks to write slower"),
        408 | 500.. => (HoldKind::Transient, "the bucket's server is in trouble"),
        401 | 403 => (
            HoldKind::Auth,
            "the key is not accepted: look at its rights, `access_key_id` and `secret_access_key`",
        ),
        300..=399 => (HoldKind::Configuration, "the bucket is somewhere else: mend `region` or `endpoint`"),
        404 => {
            (HoldKind::Configuration, "nobody knows the bucket at this address: mend `url` and `endpoint`")
        }
        _ => (
            HoldKind::Configuration,
            "the bucket's server refuses the file: look at `endpoint`, `region` and the bucket's rules",
        ),
    }
}

/// `<Code>NoSuchBucket</Code>` of the answer, if it looks like one.
fn code_of(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = (1..=64).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}
