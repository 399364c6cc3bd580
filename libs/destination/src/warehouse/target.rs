//! Where files go and how large they become: the settings, read.

use std::path::PathBuf;
use std::time::Duration;

use tracklayer_ids::Secret;

use super::settings::Settings;
use crate::document::SettingsError;

/// Where files go, and when one is full.
#[derive(Debug, Clone)]
pub struct FileTarget {
    /// Where.
    pub place: Place,
    /// Most rows of a file, and most events of one write.
    pub rows_per_file: usize,
    /// Most bytes of events of one write.
    pub bytes_per_file: usize,
    /// How long the oldest event waits for others.
    pub age: Duration,
}

/// A folder or a part of a bucket.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder of the machine that delivery runs on.
    Folder {
        /// Absolute, without `.` and `..`.
        path: PathBuf,
    },
    /// A part of an S3-compatible bucket.
    Bucket(Bucket),
}

/// A part of an S3-compatible bucket, and the key to it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What the names of objects begin with, without slashes at the ends; may be empty.
    pub prefix: String,
    /// Address of the server; none: Amazon's.
    pub endpoint: Option<String>,
    /// The region.
    pub region: String,
    /// Name of the key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Secret<String>,
    /// Of a temporary key.
    pub session_token: Option<Secret<String>>,
}

impl FileTarget {
    /// Reads the settings; what no schema can say is checked here.
    pub(super) fn of(settings: &Settings, errors: &mut Vec<SettingsError>) -> Option<Self> {
        Some(Self {
            place: Place::of(settings, errors)?,
            rows_per_file: settings.rows_per_file as usize,
            bytes_per_file: settings.megabytes_per_file as usize * 1_000_000,
            age: Duration::from_secs(u64::from(settings.seconds_per_file)),
        })
    }

    /// Where the files of that folder go, for people.
    #[must_use]
    pub fn url_of(&self, folder: &str) -> String {
        let mut url = match &self.place {
            Place::Folder { path } => format!("file://{}", path.display()),
            Place::Bucket(Bucket { name, prefix, .. }) if prefix.is_empty() => format!("s3://{name}"),
            Place::Bucket(Bucket { name, prefix, .. }) => format!("s3://{name}/{prefix}"),
        };
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            url.push('/');
            url.push_str(part);
        }
        url.push('/');
        url
    }
}

impl Place {
    fn of(settings: &Settings, errors: &mut Vec<SettingsError>) -> Option<Self> {
        let before = errors.len();
        let (is_bucket, rest) = match settings.url.strip_prefix("s3://") {
            Some(rest) => (true, rest),
            None => (false, settings.url.strip_prefix("file://")?),
        };
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| part.bytes().all(|byte| byte == b'.')) {
            errors.push(SettingsError::new("settings.url", "must have no `.` or `..` in it"));
        }
        let needed = [
            ("access_key_id", settings.access_key_id.is_some(), true),
            ("secret_access_key", settings.secret_access_key.is_some(), true),
            ("session_token", settings.session_token.is_some(), false),
            ("endpoint", settings.endpoint.is_some(), false),
            ("region", settings.region.is_some(), false),
        ];
        for (name, is_there, is_required) in needed {
            if is_bucket && is_required && !is_there {
                let why = "is required for s3://: no key of the machine is ever used in its place";
                errors.push(SettingsError::new(format!("settings.{name}"), why));
            } else if !is_bucket && is_there {
                errors.push(SettingsError::new(format!("settings.{name}"), "is for s3:// only"));
            }
        }
        if !is_bucket && parts.is_empty() {
            errors.push(SettingsError::new("settings.url", "must name a folder, file:///exports/events"));
        }
        if errors.len() > before {
            return None;
        }
        if !is_bucket {
            return Some(Self::Folder { path: std::iter::once("/").chain(parts).collect() });
        }
        let (name, prefix) = parts.split_first()?;
        Some(Self::Bucket(Bucket {
            name: (*name).to_owned(),
            prefix: prefix.join("/"),
            endpoint: settings.endpoint.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            region: settings.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
            access_key_id: settings.access_key_id.clone()?,
            secret_access_key: settings.secret_access_key.clone()?,
            session_token: settings.session_token.clone(),
        }))
    }

    /// Names the place: two settings with the same name write the same files. Holds no secret.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Folder { path } => format!("file://{}", path.display()),
            Self::Bucket(bucket) => {
                let server = bucket.endpoint.as_deref().unwrap_or(&bucket.region);
                format!("s3://{}/{} at {server}", bucket.name, bucket.prefix)
            }
        }
    }
}
