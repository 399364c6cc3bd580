//! What an operator says about one warehouse.

use schemars::JsonSchema;
use serde::Deserialize;
use tracklayer_ids::Secret;

use crate::document::secret_schema;

/// Most megabytes of events that one write may have. In memory they are about eleven times as much: more than this would take what delivery
/// may have for all files (`file_memory_bytes`) by itself on most machines.
pub const MAX_MEGABYTES: u32 = 32;

/// Settings of a `warehouse` connection.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the files go: `s3://bucket/prefix`, or `file:///folder` below the folder that the operator of the installation allows
    /// (delivery's `warehouse_root`).
    #[schemars(regex(pattern = r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|file://)(/[A-Za-z0-9_.=-]+)*/?$"))]
    pub url: String,
    /// Address of an S3-compatible server, `https://host:port`; where there is none, Amazon's of the region. Private addresses are
    /// refused by the lane unless the operator allows them.
    #[serde(default)]
    #[schemars(regex(pattern = r"^https?://[^/?#@\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Region of the bucket. Default: us-east-1.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,64}$"))]
    pub region: Option<String>,
    /// Name of the key that may write into the bucket. Only for `s3://`, where it is required.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[\x21-\x7e]{1,128}$"))]
    pub access_key_id: Option<String>,
    /// The key itself. Only for `s3://`, where it is required.
    #[serde(default)]
    #[schemars(schema_with = "secret_schema")]
    pub secret_access_key: Option<Secret<String>>,
    /// A session token, where the key is a temporary one.
    #[serde(default)]
    #[schemars(schema_with = "secret_schema")]
    pub session_token: Option<Secret<String>>,
    /// Most rows of a file, and most events that are gathered for the files of one write. 1 to 100,000.
    #[serde(default = "rows_per_file")]
    #[schemars(range(min = 1, max = 100_000))]
    pub rows_per_file: u32,
    /// Most megabytes (1,000,000 bytes) of events, before compression, that are gathered for the files of one write; fewer where delivery
    /// has no memory for so many. 1 to 32.
    #[serde(default = "megabytes_per_file")]
    #[schemars(range(min = 1, max = 32))]
    pub megabytes_per_file: u32,
    /// How long the oldest event waits for others until what there is is written, seconds. 1 to 3,600.
    #[serde(default = "seconds_per_file")]
    #[schemars(range(min = 1, max = 3_600))]
    pub seconds_per_file: u32,
}

const fn rows_per_file() -> u32 {
    10_000
}

const fn megabytes_per_file() -> u32 {
    16
}

const fn seconds_per_file() -> u32 {
    60
}
