//! The two journals, each over a store of its own kind that a test may kill.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;
use tracklayer_ids::{Partition, Position, Secret, SourceId, WorkspaceId};
use tracklayer_journal::{
    Block, BlockBuilder, Journal, LayoutStore, Most, Place, PostgresJournal, ReceivedBlock,
};
use tracklayer_journal_kafka::topics::{Stage as Topic, topic};
use tracklayer_journal_kafka::{KafkaJournal, KafkaSettings, encode_record};
use tracklayer_local::{LocalPostgres, PgOptions};
use tracklayer_testkit::{TestDatabase, TestKafka};

pub const WORKSPACE: WorkspaceId = WorkspaceId(7);

/// A journal and what stands behind it.
pub trait Stage {
    /// A handle as another process has it, which knows nothing yet.
    fn journal(&self) -> Arc<dyn Journal>;
    /// Puts a block there as it is, without a look at it.
    async fn put(&self, partition: u32, block: &Block);
    /// Ends the store at once (`kill -9`).
    async fn kill(&mut self);
    /// Starts it on what it has.
    async fn start_again(&mut self);
}

pub struct PostgresStage {
    pool: PgPool,
    /// Shared with other tests.
    database: Option<TestDatabase>,
    /// Of this test alone.
    server: Option<LocalPostgres>,
    folder: std::path::PathBuf,
    port: Option<u16>,
}

pub struct KafkaStage {
    shared: Option<Arc<TestKafka>>,
    own: Option<TestKafka>,
    settings: KafkaSettings,
    /// Of layouts.
    database: TestDatabase,
}

impl PostgresStage {
    pub async fn shared() -> Self {
        let database = migrated().await;
        let pool = database.pool.clone();
        PostgresJournal::new(pool.clone()).ensure_partitions(2).await.unwrap();
        Self { pool, database: Some(database), server: None, folder: std::path::PathBuf::new(), port: None }
    }

    /// With fsync on: what a killed server has acknowledged is what this is about.
    pub async fn own() -> Self {
        let folder =
            std::env::temp_dir().join(format!("tracklayer-contract-{}", uuid::Uuid::new_v4().simple()));
        let server = postgres(&folder, None).await;
        let pool = tracklayer_postgres::connect(&Secret::new(server.tcp_url().to_owned()), 8).await.unwrap();
        tracklayer_postgres::migrate(&pool, "journal", &tracklayer_journal::MIGRATOR).await.unwrap();
        let port = Some(server.port());
        Self { pool, database: None, server: Some(server), folder, port }
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes a standby that has everything up to now and hears of nothing more.
    pub fn make_standby(&self) {
        let server = self.server.as_ref().expect("a server of its own");
        let (standby, data) = (self.standby(), self.standby().join("data"));
        std::fs::create_dir(&standby).unwrap();
        // Beside the server's own program.
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).unwrap();
        let program = std::path::Path::new(command.split('\0').next().unwrap());
        let copied = std::process::Command::new(program.with_file_name("pg_basebackup"))
            .args(["-d", server.tcp_url(), "-X", "stream", "-c", "fast", "--no-sync", "-D"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(copied.success(), "{copied}");
        std::fs::write(data.join("standby.signal"), "").unwrap();
        // Its roles have the passwords that they had.
        std::fs::copy(self.folder.join("password"), standby.join("password")).unwrap();
        let owner = format!("--reference={}", self.folder.join("data").display());
        let given = std::process::Command::new("chown").args(["-R", &owner]).arg(&data).status().unwrap();
        assert!(given.success(), "{given}");
    }

    /// Ends the server at once and promotes the standby in its place, under its address.
    pub async fn promote(&mut self) {
        self.kill().await;
        let standby = self.standby();
        std::fs::remove_dir_all(std::mem::replace(&mut self.folder, standby)).unwrap();
        self.start_again().await;
        let server = self.server.as_ref().expect("it was started");
        self.pool = tracklayer_postgres::connect(&Secret::new(server.tcp_url().to_owned()), 8).await.unwrap();
        let promoted: bool = sqlx::query_scalar("select pg_promote()").fetch_one(&self.pool).await.unwrap();
        assert!(promoted);
    }

    fn standby(&self) -> std::path::PathBuf {
        self.folder.with_extension("standby")
    }
}

pub async fn migrated() -> TestDatabase {
    tracklayer_testkit::database(&[("journal", &tracklayer_journal::MIGRATOR)]).await
}

async fn postgres(folder: &std::path::Path, port: Option<u16>) -> LocalPostgres {
    let options = PgOptions {
        data_dir: folder.to_owned(),
        port,
        persistent: true,
        settings: Vec::new(),
        environment: Vec::new(),
    };
    LocalPostgres::start(options).await.unwrap()
}

impl Drop for PostgresStage {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            signal_kill(server.pid());
            drop(server);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        drop(self.database.take());
    }
}

fn signal_kill(pid: u32) {
    std::process::Command::new("/bin/kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap();
}

impl Stage for PostgresStage {
    fn journal(&self) -> Arc<dyn Journal> {
        PostgresJournal::new(self.pool.clone()).into()
    }

    async fn put(&self, partition: u32, block: &Block) {
        let journal = PostgresJournal::new(self.pool.clone());
        tracklayer_testkit::append(&journal, WORKSPACE, Partition(partition), block).await.unwrap();
    }

    async fn kill(&mut self) {
        let server = self.server.take().expect("a server of its own");
        signal_kill(server.pid());
        server.stop().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.server = Some(postgres(&self.folder, self.port).await);
    }
}

impl KafkaStage {
    pub async fn shared() -> Option<Self> {
        let shared = tracklayer_testkit::kafka().await?;
        let settings = settings(&shared);
        Some(Self { shared: Some(shared), own: None, settings, database: migrated().await })
    }

    pub async fn own() -> Option<Self> {
        let own = tracklayer_testkit::own_kafka().await?;
        let settings = settings(&own);
        Some(Self { shared: None, own: Some(own), settings, database: migrated().await })
    }

    pub fn topic(&self) -> String {
        topic(&self.settings.prefix, WORKSPACE, Topic::Received)
    }

    /// A client's settings.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.settings.brokers).set("message.max.bytes", "33000000");
        config
    }
}

/// Topics of one test, on the one broker that there is.
fn settings(broker: &TestKafka) -> KafkaSettings {
    let prefix = format!("t-{}", uuid::Uuid::new_v4().simple());
    KafkaSettings { prefix, replication: 1, ..KafkaSettings::new(broker.brokers()) }
}

impl Stage for KafkaStage {
    fn journal(&self) -> Arc<dyn Journal> {
        let _ = &self.shared;
        let layouts = LayoutStore::new(self.database.pool.clone());
        Arc::new(KafkaJournal::new(self.settings.clone(), layouts).unwrap())
    }

    async fn put(&self, partition: u32, block: &Block) {
        let producer: FutureProducer = self.client().create().unwrap();
        let (topic, bytes) = (self.topic(), encode_record(block));
        let record: FutureRecord<'_, (), [u8]> =
            FutureRecord::to(&topic).partition(partition.cast_signed()).payload(&bytes);
        producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();
    }

    async fn kill(&mut self) {
        self.own.as_mut().expect("a broker of its own").kill();
    }

    async fn start_again(&mut self) {
        self.own.as_mut().expect("a broker of its own").start_again().await;
    }
}

/// A block of these events.
pub fn block<T: AsRef<[u8]>>(events: impl IntoIterator<Item = T>) -> Block {
    let mut builder = BlockBuilder::default();
    events.into_iter().for_each(|event| builder.push(SourceId(1), 1, event.as_ref()));
    builder.finish().unwrap()
}

/// Appends a block of events that are called `<name>-<n>`.
pub async fn append(journal: &Arc<dyn Journal>, partition: u32, name: &str, events: usize) {
    let block = block((0..events).map(|n| format!("{name}-{n}")));
    tracklayer_testkit::append(journal.as_ref(), WORKSPACE, Partition(partition), &block).await.unwrap();
}

pub fn beginning(partition: u32) -> Place {
    Position::new(1, partition, 0).into()
}

/// Reads until so many events have come, or it is clear that fewer are there.
pub async fn read(journal: &Arc<dyn Journal>, from: Place, events: usize) -> (Vec<ReceivedBlock>, Place) {
    let (mut blocks, mut place, mut got) = (Vec::new(), from, 0);
    tracklayer_testkit::eventually_seen("the events to be read", async || {
        let more = journal
            .read(WORKSPACE, place, Most::events(1_000))
            .await
            .map_err(|error| format!("{error:?}"))?;
        if let Some(last) = more.last() {
            let read = last.end().0 - place.at.offset.0;
            got += usize::try_from(read).unwrap();
            place = place.after(&more, read);
            blocks.extend(more);
        }
        if got >= events { Ok(()) } else { Err(format!("{got} of {events} events")) }
    })
    .await;
    (blocks, place)
}

/// The events of blocks, with their positions.
pub fn events(blocks: &[ReceivedBlock]) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    for block in blocks {
        let events = block.events().unwrap();
        all.extend(
            (block.first.offset.0..).zip(events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap())),
        );
    }
    all
}
