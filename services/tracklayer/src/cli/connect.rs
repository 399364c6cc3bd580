//! Where the services are and which key opens them: options, else environment, else what `tracklayer dev` wrote.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tracklayer_ids::Secret;
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::control::v1::{ListWorkspacesRequest, Workspace};
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_proto::ingest::v1::ingest_service_client::IngestServiceClient;
use tracklayer_rpc::Channel;

use super::Output;

/// Options of every command that talks to the services.
#[derive(Debug, Clone, Args)]
pub struct AccessOptions {
    /// Address of control's gRPC, `http://host:port`.
    #[arg(long, env = "TRACKLAYER_CONTROL", global = true)]
    pub control: Option<String>,
    /// Address of delivery's gRPC.
    #[arg(long, env = "TRACKLAYER_DELIVERY", global = true)]
    pub delivery: Option<String>,
    /// Address of ingest's gRPC.
    #[arg(long, env = "TRACKLAYER_INGEST", global = true)]
    pub ingest: Option<String>,
    /// Admin key.
    #[arg(long, env = "TRACKLAYER_ADMIN_KEY", hide_env_values = true, global = true)]
    pub admin_key: Option<String>,
    /// Workspace, by name or number; not needed where the key sees only one.
    #[arg(long, env = "TRACKLAYER_WORKSPACE", global = true)]
    pub workspace: Option<String>,
    /// Data folder of a running `tracklayer dev`, whose addresses and key are used where none are given.
    #[arg(long, env = "TRACKLAYER_DATA_DIR", default_value = ".tracklayer", global = true)]
    pub data_dir: PathBuf,
    /// Table for people, JSON for programs.
    #[arg(long, value_enum, default_value_t = Output::Table, global = true)]
    pub output: Output,
}

/// What a running `tracklayer dev` tells the command line, in `dev.json` of its data folder (readable by its owner only).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DevAddresses {
    /// Ingest's Segment-compatible HTTP.
    pub ingest_http: String,
    /// Ingest's gRPC.
    pub ingest: String,
    /// Identity's gRPC.
    pub identity: String,
    /// Consent's gRPC.
    pub consent: String,
    /// Delivery's gRPC.
    pub delivery: String,
    /// Control's gRPC.
    pub control: String,
    /// The web console.
    pub console: String,
    /// The ad platforms' sandbox.
    pub sandbox: String,
    /// Metrics and health, per service.
    pub ops: std::collections::BTreeMap<String, String>,
    /// PostgreSQL.
    pub database_url: String,
    /// Redis.
    pub redis_url: String,
    /// Key of the installation.
    pub admin_key: String,
    /// The sample workspace.
    pub workspace_id: i64,
    /// Write keys of its sources, by name.
    pub write_keys: std::collections::BTreeMap<String, String>,
}

impl DevAddresses {
    /// The file in a data folder.
    #[must_use]
    pub fn path(data_dir: &std::path::Path) -> PathBuf {
        data_dir.join("dev.json")
    }

    /// Reads it; none if nothing runs there.
    #[must_use]
    pub fn read(data_dir: &std::path::Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(data_dir)).ok()?).ok()
    }
}

/// Addresses and key, settled.
#[derive(Debug, Clone)]
pub struct Access {
    control: Option<String>,
    delivery: Option<String>,
    ingest: Option<String>,
    key: Secret<String>,
    workspace: Option<String>,
    /// How to print.
    pub output: Output,
}

impl Access {
    /// From options, environment and a running `dev`.
    ///
    /// # Errors
    /// There is no admin key.
    pub fn new(options: &AccessOptions) -> anyhow::Result<Self> {
        let dev = DevAddresses::read(&options.data_dir);
        let pick = |given: &Option<String>, found: fn(&DevAddresses) -> &String| {
            // What a stopped `dev` leaves behind is its key and no address.
            given.clone().or_else(|| dev.as_ref().map(found).filter(|known| !known.is_empty()).cloned())
        };
        let key = pick(&options.admin_key, |d| &d.admin_key).context(
            "no admin key: give --admin-key or TRACKLAYER_ADMIN_KEY, or start `tracklayer dev` in this folder",
        )?;
        Ok(Self {
            control: pick(&options.control, |d| &d.control),
            delivery: pick(&options.delivery, |d| &d.delivery),
            ingest: pick(&options.ingest, |d| &d.ingest),
            key: Secret::new(key),
            workspace: options.workspace.clone(),
            output: options.output,
        })
    }

    fn channel(&self, address: Option<&String>, option: &str) -> anyhow::Result<Channel> {
        let address = address.with_context(|| {
            format!("no address: give --{option}, or start `tracklayer dev` in this folder")
        })?;
        Ok(tracklayer_rpc::connect_lazy(address, self.key.clone())?)
    }

    /// To control.
    ///
    /// # Errors
    /// No address.
    pub fn control_channel(&self) -> anyhow::Result<Channel> {
        self.channel(self.control.as_ref(), "control")
    }

    /// To delivery.
    ///
    /// # Errors
    /// No address.
    pub fn delivery_channel(&self) -> anyhow::Result<Channel> {
        self.channel(self.delivery.as_ref(), "delivery")
    }

    /// To ingest.
    ///
    /// # Errors
    /// No address.
    pub fn ingest_channel(&self) -> anyhow::Result<Channel> {
        self.channel(self.ingest.as_ref(), "ingest")
    }

    /// Control.
    ///
    /// # Errors
    /// No address.
    pub fn control(&self) -> anyhow::Result<ControlServiceClient<Channel>> {
        Ok(ControlServiceClient::new(self.control_channel()?))
    }

    /// Delivery.
    ///
    /// # Errors
    /// No address.
    pub fn delivery(&self) -> anyhow::Result<DeliveryServiceClient<Channel>> {
        let channel = self.delivery_channel()?;
        Ok(DeliveryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
    }

    /// Ingest, for what an admin key opens.
    ///
    /// # Errors
    /// No address.
    pub fn ingest(&self) -> anyhow::Result<IngestServiceClient<Channel>> {
        let channel = self.ingest_channel()?;
        Ok(IngestServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024))
    }

    /// The workspace that is meant.
    ///
    /// # Errors
    /// None or several could be, or it does not exist.
    pub async fn workspace(&self) -> anyhow::Result<Workspace> {
        let seen = self.control()?.list_workspaces(ListWorkspacesRequest {}).await?.into_inner().workspaces;
        match &self.workspace {
            Some(wanted) => seen
                .into_iter()
                .find(|w| w.name == *wanted || w.workspace_id.to_string() == *wanted)
                .with_context(|| format!("no workspace `{wanted}` that this key sees")),
            None => match <[Workspace; 1]>::try_from(seen) {
                Ok([only]) => Ok(only),
                Err(seen) if seen.is_empty() => {
                    bail!("there is no workspace yet: `tracklayer workspaces create NAME`")
                }
                Err(seen) => {
                    let names: Vec<&str> = seen.iter().map(|w| w.name.as_str()).collect();
                    bail!("which workspace? give --workspace, one of: {}", names.join(", "))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dev_that_has_stopped_has_no_address() {
        let folder = std::env::temp_dir().join(format!("tracklayer-stopped-dev-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let kept = DevAddresses { admin_key: "tla_kept".to_owned(), ..DevAddresses::default() };
        std::fs::write(DevAddresses::path(&folder), serde_json::to_vec(&kept).unwrap()).unwrap();
        let options = AccessOptions {
            control: None,
            delivery: Some("http://127.0.0.1:7004".to_owned()),
            ingest: None,
            admin_key: None,
            workspace: None,
            data_dir: folder.clone(),
            output: Output::Table,
        };
        let access = Access::new(&options).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let refused = access.control().unwrap_err().to_string();
        assert_eq!(refused, "no address: give --control, or start `tracklayer dev` in this folder");
    }
}
