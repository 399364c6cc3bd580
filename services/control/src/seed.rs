//! What stands in an installation before anybody did anything: its first admin key, and for `tracklayer dev` the sample
//! workspace "northline".

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::PgPool;
use tracklayer_ids::{ConnectionId, MasterKey, Secret, SourceId, WorkspaceId};

use crate::admin::Admin;
use crate::error::ControlError;
use crate::name::{Label, Name};
use crate::scope::{ADMIN_KEY_PREFIX, KeyHash, Scope};
use crate::source::{Channel, NewSource, parse_dedup_ttl, parse_user_id_type, parse_write_key};
use crate::store::Store;
use crate::workspace::NewWorkspace;

/// Name of the sample workspace.
pub const NORTHLINE: &str = "northline";

/// (name, channel, default place, type of its userId). California and Germany, so that both regimes of consent are seen;
/// wholesale has no place and is treated by the strictest. Shop, app and portal number their people each for itself.
const SOURCES: [(&str, Channel, &str, &str); 6] = [
    ("web-us", Channel::Browser, "US-CA", "user_id"),
    ("web-de", Channel::Browser, "DE", "user_id"),
    ("shop-server", Channel::Server, "US-CA", "user_id"),
    ("shop-server-de", Channel::Server, "DE", "user_id"),
    ("subscriptions", Channel::Server, "DE", "app_user_id"),
    ("wholesale", Channel::Server, "", "wholesale_user_id"),
];

/// What the caller decides about the sample workspace.
#[derive(Debug, Clone, Default)]
pub struct SeedOptions {
    /// (name, document in clear) of each connection.
    pub connections: Vec<(String, Value)>,
    /// Write keys by source name, instead of the documented [`dev_write_key`].
    pub write_keys: BTreeMap<String, String>,
}

/// The sample workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Seeded {
    /// Its id.
    pub workspace_id: WorkspaceId,
    /// Its sources, in the order of making.
    pub sources: Vec<SeededSource>,
    /// Its connections, in the order of [`SeedOptions::connections`].
    pub connections: Vec<SeededConnection>,
}

/// A source of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeededSource {
    /// Its id.
    pub source_id: SourceId,
    /// Its name.
    pub name: String,
    /// Its write key; of a source that was there before: what the key would be.
    pub write_key: String,
}

/// A connection of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeededConnection {
    /// Its id.
    pub connection_id: ConnectionId,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// off, shadow, live.
    pub mode: String,
}

/// The write key of a sample source on a developer's machine: `wk_northline_web_us` for `web-us`. Documented, hence worth
/// nothing: for `tracklayer dev` and tests only.
#[must_use]
pub fn dev_write_key(source: &str) -> String {
    format!("wk_northline_{}", source.replace('-', "_"))
}

/// Makes the installation's first admin key and returns it, to be shown once; none if there is one already. Replicas that
/// start together make one.
///
/// # Errors
/// The database; the operating system gives no random numbers.
pub async fn ensure_first_admin_key(pool: &PgPool) -> Result<Option<String>, ControlError> {
    let key = tracklayer_secrets::generate_key(ADMIN_KEY_PREFIX)?;
    let label = Label::parse("first key")?;
    let made = Store::new(pool.clone()).insert_first_admin_key(KeyHash::of(&key), &label).await?;
    Ok(made.then(|| key.into_inner()))
}

/// Makes one more admin key of the installation, for who holds the database but has lost every key.
///
/// # Errors
/// [`ControlError::Invalid`] for the label; the database.
pub async fn recover_admin_key(pool: &PgPool, label: &str) -> Result<Secret<String>, ControlError> {
    let key = tracklayer_secrets::generate_key(ADMIN_KEY_PREFIX)?;
    let label = Label::parse(label)?;
    Store::new(pool.clone()).insert_admin_key(Scope::Installation, KeyHash::of(&key), &label).await?;
    Ok(key)
}

/// Makes the sample workspace, its sources and the caller's connections, or what is missing of them. A connection that is
/// there gets the caller's document (addresses of the sandbox change with each start). Safe to repeat.
///
/// # Errors
/// A connection's document is not valid, a write key is taken by another workspace, the database.
pub async fn seed_northline(
    pool: &PgPool,
    master_key: &MasterKey,
    options: &SeedOptions,
) -> Result<Seeded, ControlError> {
    let store = Store::new(pool.clone());
    let admin = Admin::new(store.clone(), master_key.clone());
    let workspace_id = match store.workspace_named(NORTHLINE).await? {
        Some(there) => there.id,
        None => admin.create_workspace(Scope::Installation, &northline()?).await?.id,
    };
    let mut seeded = Seeded { workspace_id, sources: Vec::new(), connections: Vec::new() };
    let there = store.sources(workspace_id).await?;
    for (name, channel, place, user_id_type) in SOURCES {
        let write_key = options.write_keys.get(name).cloned().unwrap_or_else(|| dev_write_key(name));
        let source_id = match there.iter().find(|source| source.name == name) {
            Some(source) => source.id,
            None => {
                let new = sample_source(workspace_id, name, (channel, place, user_id_type), &write_key)?;
                admin.create_source(Scope::Installation, &new).await?.0.id
            }
        };
        seeded.sources.push(SeededSource { source_id, name: name.to_owned(), write_key });
    }
    for (name, document) in &options.connections {
        let name = Name::parse("name", name)?;
        let saved = admin.put_connection(Scope::Installation, workspace_id, &name, document.clone()).await?;
        seeded.connections.push(SeededConnection {
            connection_id: saved.id,
            name: saved.name,
            kind: saved.kind,
            mode: saved.mode,
        });
    }
    Ok(seeded)
}

fn northline() -> Result<NewWorkspace, ControlError> {
    let value_from = ["revenue", "total", "value"].map(str::to_owned).to_vec();
    NewWorkspace::parse(NORTHLINE, 4, value_from, "")
}

fn sample_source(
    workspace: WorkspaceId,
    name: &str,
    (channel, place, user_id_type): (Channel, &str, &str),
    write_key: &str,
) -> Result<NewSource, ControlError> {
    Ok(NewSource {
        workspace,
        name: Name::parse("name", name)?,
        channel,
        default_place: place.to_owned(),
        user_id_type: parse_user_id_type(user_id_type)?,
        dedup_ttl_seconds: parse_dedup_ttl(0)?,
        banner_writes_defaults: false,
        dedup_by_order_id: false,
        max_events_per_second: None,
        write_key: parse_write_key(write_key)?,
        webhook: None,
    })
}
