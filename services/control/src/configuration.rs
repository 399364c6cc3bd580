//! The whole configuration as the other services follow it, and the feed that keeps the newest one at hand.
//!
//! The one trick: the version in the table is the truth and is looked at every two seconds; a notification of PostgreSQL only
//! hurries the look. A lost notification, a pooler that knows none, a change by another replica: none of them is missed.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::ControlError;
use crate::hold::Freeze;
use crate::metrics;
use crate::scope::KeyHash;
use crate::source::Source;
use crate::store::Store;
use crate::workspace::Workspace;

/// Longest time that a change stays unseen while notifications do not arrive.
const POLL: Duration = Duration::from_secs(2);
/// The channel of `0005_config_version.sql`.
const CHANNEL: &str = "tracklayer_control_config";

/// Everything, as of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// Rises with each change.
    pub version: u64,
    /// Ascending by id.
    pub workspaces: Vec<WorkspaceConfiguration>,
}

/// A workspace and all that hangs on it.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceConfiguration {
    /// Itself.
    pub workspace: Workspace,
    /// Ascending by id.
    pub sources: Vec<Source>,
    /// Ascending by id, secrets sealed.
    pub connections: Vec<Connection>,
    /// Windows of its calendar that are not removed, ascending by id.
    pub freezes: Vec<Freeze>,
    /// Keys that may see it.
    pub admin_keys: Vec<KeyHash>,
}

/// The newest configuration; none before the database answered for the first time.
pub type Feed = watch::Receiver<Option<Arc<Configuration>>>;

impl WorkspaceConfiguration {
    /// A workspace on which nothing hangs yet.
    #[must_use]
    pub fn of(workspace: Workspace) -> Self {
        Self {
            workspace,
            sources: Vec::new(),
            connections: Vec::new(),
            freezes: Vec::new(),
            admin_keys: Vec::new(),
        }
    }
}

/// Follows the configuration until `shutdown`. The database may be away: the last configuration stays.
pub async fn follow(
    store: Store,
    feed: watch::Sender<Option<Arc<Configuration>>>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut listener = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                if listener.is_none() {
                    listener = listen(&store).await;
                }
            }
            heard = hear(&mut listener) => if !heard { listener = None },
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            refreshed = refresh(&store, &feed) => if let Err(error) = refreshed {
                tracing::warn!(error = &error as &dyn std::error::Error, "configuration could not be read, the last one stays");
            }
        }
    }
}

/// Reads the configuration if its version is another than the feed's.
async fn refresh(
    store: &Store,
    feed: &watch::Sender<Option<Arc<Configuration>>>,
) -> Result<(), ControlError> {
    let known = feed.borrow().as_ref().map(|configuration| configuration.version);
    if known == Some(store.version().await?) {
        return Ok(());
    }
    let configuration = store.configuration().await?;
    metrics::config_version(configuration.version);
    feed.send_replace(Some(Arc::new(configuration)));
    Ok(())
}

async fn listen(store: &Store) -> Option<PgListener> {
    let mut listener = PgListener::connect_with(store.pool()).await.ok()?;
    listener.listen(CHANNEL).await.ok()?;
    Some(listener)
}

/// Waits for a notification; false once the connection is lost. Without a listener it waits for ever.
async fn hear(listener: &mut Option<PgListener>) -> bool {
    match listener {
        Some(listener) => matches!(listener.try_recv().await, Ok(Some(_))),
        None => std::future::pending().await,
    }
}
