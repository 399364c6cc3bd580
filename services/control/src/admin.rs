//! What an administrator can do, whoever asks: the gRPC service, the console, the seed. Each act gets the caller's scope first
//! and checks it before anything is read.

use jiff::Timestamp;
use tracklayer_ids::{ConnectionId, MasterKey, Secret, SourceId, WorkspaceId};
use tracklayer_journal::Kind;

use crate::connection::{Connection, prepare};
use crate::error::ControlError;
use crate::hold::{Freeze, NewFreeze, Pause, Reason};
use crate::name::{Label, Name};
use crate::scope::{ADMIN_KEY_PREFIX, KeyHash, KnownKey, Scope};
use crate::source::{DedupChange, NewSource, Source};
use crate::store::Store;
use crate::webhook::{WebhookDocument, check_channel};
use crate::workspace::{NewWorkspace, Workspace};

/// What a key of a workspace may not do about its sources.
const SAY_THE_RATE: &str = "say how much a source may send";

/// The administration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admin {
    store: Store,
    master_key: MasterKey,
    journal: Kind,
}

impl Admin {
    /// Over the tables, with the key under which secrets are sealed.
    #[must_use]
    pub fn new(store: Store, master_key: MasterKey) -> Self {
        Self { store, master_key, journal: Kind::Postgres }
    }

    /// Of an installation with that journal.
    #[must_use]
    pub fn beside(self, journal: Kind) -> Self {
        Self { journal, ..self }
    }

    /// Who presents this key.
    ///
    /// # Errors
    /// [`ControlError::NoKey`], [`ControlError::UnknownKey`]; the database, which is never said to be an unknown key.
    pub async fn authenticate(&self, presented: Option<&Secret<String>>) -> Result<KnownKey, ControlError> {
        let hash = KeyHash::of(presented.ok_or(ControlError::NoKey)?);
        // The table is searched by the hash, which says nothing about the key to who measures the time; the comparison
        // afterwards takes the same time for every difference.
        let known = self.store.admin_key_by_hash(hash).await?;
        known.filter(|known| known.sha256 == hash).ok_or(ControlError::UnknownKey)
    }

    /// The key with that id, for a session that it opened.
    ///
    /// # Errors
    /// [`ControlError::UnknownKey`] if it was deleted since; the database.
    pub async fn key_of_session(&self, admin_key_id: i64) -> Result<KnownKey, ControlError> {
        self.store.admin_key_by_id(admin_key_id).await?.ok_or(ControlError::UnknownKey)
    }

    /// What a key is called.
    ///
    /// # Errors
    /// The database.
    pub async fn label_of(&self, key: KnownKey) -> Result<String, ControlError> {
        self.store.admin_key_label(key.id).await
    }

    /// Makes a workspace.
    ///
    /// # Errors
    /// [`ControlError::InstallationOnly`], [`ControlError::NameTaken`], the database.
    pub async fn create_workspace(
        &self,
        scope: Scope,
        new: &NewWorkspace,
    ) -> Result<Workspace, ControlError> {
        scope.check_installation("make a workspace")?;
        self.store.insert_workspace(new).await
    }

    /// Says over how many partitions a workspace's events are spread from now on.
    ///
    /// # Errors
    /// [`ControlError::InstallationOnly`], [`ControlError::PartitionsStay`], [`ControlError::NoWorkspace`], the database.
    pub async fn set_partitions(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        partitions: u32,
    ) -> Result<Workspace, ControlError> {
        // Each of them costs the installation's processes a loop and a lane for each connection.
        scope.check_installation("say how many partitions a workspace has")?;
        if self.journal == Kind::Kafka {
            return Err(ControlError::PartitionsStay);
        }
        self.store.update_partitions(workspace, partitions).await
    }

    /// The workspaces that the caller sees, ascending by id.
    ///
    /// # Errors
    /// The database.
    pub async fn list_workspaces(&self, scope: Scope) -> Result<Vec<Workspace>, ControlError> {
        match scope {
            Scope::Installation => self.store.workspaces().await,
            Scope::Workspace(own) => Ok(self.store.workspace(own).await?.into_iter().collect()),
        }
    }

    /// The workspace of that name, if the caller sees it.
    ///
    /// # Errors
    /// The database.
    pub async fn find_workspace(&self, scope: Scope, name: &str) -> Result<Option<Workspace>, ControlError> {
        let found = self.store.workspace_named(name).await?;
        Ok(found.filter(|workspace| scope.check(workspace.id).is_ok()))
    }

    /// Makes a source and returns it with its write key, which is kept nowhere.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], [`ControlError::NameTaken`],
    /// [`ControlError::WriteKeyTaken`], [`ControlError::InstallationOnly`] if it names a rate, whatever is wrong with its webhooks'
    /// settings, the database.
    pub async fn create_source(
        &self,
        scope: Scope,
        new: &NewSource,
    ) -> Result<(Source, Secret<String>), ControlError> {
        scope.check(new.workspace)?;
        if new.max_events_per_second.is_some() {
            scope.check_installation(SAY_THE_RATE)?;
        }
        let write_key = new.write_key_or_new()?;
        let key = self.master_key.secrets();
        let webhook = new.webhook.clone().map(|webhook| webhook.sealed(&key, None, false)).transpose()?;
        let source = self.store.insert_source(new, &write_key, webhook).await?;
        Ok((source, write_key))
    }

    /// Says how much a source may send.
    ///
    /// # Errors
    /// [`ControlError::InstallationOnly`], [`ControlError::NoSource`], the database.
    pub async fn set_source_rate(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        source: SourceId,
        events_per_second: Option<u32>,
    ) -> Result<Source, ControlError> {
        // The installation's own limit protects it from its workspaces.
        scope.check_installation(SAY_THE_RATE)?;
        self.store.update_source_rate(workspace, source, events_per_second).await
    }

    /// Says how a source's events are deduplicated. The workspace's own to say, as when it makes a source.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoSource`], the database.
    pub async fn set_source_dedup(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        source: SourceId,
        change: DedupChange,
    ) -> Result<Source, ControlError> {
        scope.check(workspace)?;
        self.store.update_source_dedup(workspace, source, change).await
    }

    /// Says which webhooks a source takes; none: no more. With `keep_previous` the secret saved until now stays valid.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoSource`], whatever is wrong with the settings, the database.
    pub async fn set_source_webhook(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        source: SourceId,
        document: Option<WebhookDocument>,
        keep_previous: bool,
    ) -> Result<Source, ControlError> {
        scope.check(workspace)?;
        let key = self.master_key.secrets();
        self.store
            .update_source_webhook(workspace, source, |saved| {
                let Some(document) = document else { return Ok(None) };
                check_channel(saved.channel)?;
                document.sealed(&key, saved.sealed_webhook.as_deref(), keep_previous).map(Some)
            })
            .await
    }

    /// A workspace's sources, ascending by id.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], the database.
    pub async fn list_sources(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
    ) -> Result<Vec<Source>, ControlError> {
        self.check_exists(scope, workspace).await?;
        self.store.sources(workspace).await
    }

    /// Creates or changes the connection of that name. A document that says what is saved already changes nothing.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], whatever is wrong with the document, the database.
    pub async fn put_connection(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        name: &Name,
        document: serde_json::Value,
    ) -> Result<Connection, ControlError> {
        scope.check(workspace)?;
        let key = self.master_key.secrets();
        self.store
            .put_connection(workspace, name, |owner, saved| prepare(&key, document, saved, &owner.defaults()))
            .await
    }

    /// A workspace's connections, ascending by id, secrets sealed.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], the database.
    pub async fn list_connections(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
    ) -> Result<Vec<Connection>, ControlError> {
        self.check_exists(scope, workspace).await?;
        self.store.connections(workspace).await
    }

    /// Stops a connection, in the name of the key. One that is paused stays so, with the reason from before.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], [`ControlError::NoConnection`], the database.
    pub async fn pause_connection(
        &self,
        key: &KnownKey,
        workspace: WorkspaceId,
        connection: ConnectionId,
        reason: &Reason,
    ) -> Result<Connection, ControlError> {
        key.scope.check(workspace)?;
        self.store.insert_pause(workspace, connection, reason, key.id).await
    }

    /// Ends a connection's pause, in the name of the key, and answers it; none if it was not paused.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], [`ControlError::NoConnection`], the database.
    pub async fn resume_connection(
        &self,
        key: &KnownKey,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<(Connection, Option<Pause>), ControlError> {
        key.scope.check(workspace)?;
        self.store.end_pause(workspace, connection, key.id).await
    }

    /// Who paused a connection and why, newest first.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoConnection`], the database.
    pub async fn list_pauses(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        connection: ConnectionId,
    ) -> Result<Vec<Pause>, ControlError> {
        scope.check(workspace)?;
        self.store.pauses(workspace, connection).await
    }

    /// Says how fast a connection sends what has waited for a release.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoConnection`], the database.
    pub async fn set_release_pace(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
        connection: ConnectionId,
        events_per_second: Option<u32>,
    ) -> Result<Connection, ControlError> {
        scope.check(workspace)?;
        self.store.update_release_pace(workspace, connection, events_per_second).await
    }

    /// Adds a window of the calendar, in the name of the key.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], [`ControlError::NoConnection`],
    /// [`ControlError::NeverReleased`], [`ControlError::TooManyFreezes`], the database.
    pub async fn add_freeze(&self, key: &KnownKey, new: &NewFreeze) -> Result<Freeze, ControlError> {
        key.scope.check(new.workspace)?;
        self.store.insert_freeze(new, Timestamp::now(), key.id).await
    }

    /// A workspace's windows, removed and past ones too, ascending by id.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoWorkspace`], the database.
    pub async fn list_freezes(
        &self,
        scope: Scope,
        workspace: WorkspaceId,
    ) -> Result<Vec<Freeze>, ControlError> {
        self.check_exists(scope, workspace).await?;
        self.store.freezes(workspace).await
    }

    /// Removes a window, in the name of the key.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::NoFreeze`], the database.
    pub async fn remove_freeze(
        &self,
        key: &KnownKey,
        workspace: WorkspaceId,
        freeze_id: i64,
    ) -> Result<Freeze, ControlError> {
        key.scope.check(workspace)?;
        self.store.remove_freeze(workspace, freeze_id, key.id).await
    }

    /// Makes an admin key for `of` and returns it; it is kept nowhere.
    ///
    /// # Errors
    /// [`ControlError::OtherWorkspace`], [`ControlError::InstallationOnly`], [`ControlError::NoWorkspace`], the database.
    pub async fn create_admin_key(
        &self,
        scope: Scope,
        of: Scope,
        label: &Label,
    ) -> Result<Secret<String>, ControlError> {
        match of {
            Scope::Installation => scope.check_installation("make a key of the installation")?,
            Scope::Workspace(workspace) => scope.check(workspace)?,
        }
        let key = tracklayer_secrets::generate_key(ADMIN_KEY_PREFIX)?;
        self.store.insert_admin_key(of, KeyHash::of(&key), label).await?;
        Ok(key)
    }

    async fn check_exists(&self, scope: Scope, workspace: WorkspaceId) -> Result<(), ControlError> {
        scope.check(workspace)?;
        match self.store.workspace(workspace).await? {
            Some(_) => Ok(()),
            None => Err(ControlError::NoWorkspace { workspace }),
        }
    }
}
