//! A database per test.
//!
//! The one trick: migrations run once per process, in a template; each test gets a copy, which takes milliseconds.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, migrate::Migrator};
use tokio::sync::OnceCell;
use tracklayer_ids::Secret;
use tracklayer_local::{LocalPostgres, PgOptions};
use tracklayer_postgres::Limits;

/// One server per test process, never dropped: it ends with the process.
static SERVER: OnceCell<LocalPostgres> = OnceCell::const_new();
static TEMPLATES: Mutex<Vec<(TemplateKey, Arc<OnceCell<String>>)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Which migrations: schema and address of the (static) migrator.
type TemplateKey = Vec<(&'static str, usize)>;

/// The database of one test; dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    /// A pool of up to 16 connections.
    pub pool: PgPool,
    /// Its address, for code under test that connects by itself.
    pub url: String,
    name: String,
    /// Of a database that has a server of its own.
    own: Option<LocalPostgres>,
}

impl TestDatabase {
    /// Its address as services take it.
    #[must_use]
    pub fn secret_url(&self) -> Secret<String> {
        Secret::new(self.url.clone())
    }
}

/// A new database with these migrations applied, each in its schema, in this order.
///
/// # Panics
/// If PostgreSQL is not installed or does not start, or a migration fails; the message says what to do.
pub async fn database(migrations: &[(&'static str, &'static Migrator)]) -> TestDatabase {
    let server = SERVER.get_or_init(start).await;
    let key =
        migrations.iter().map(|(schema, migrator)| (*schema, std::ptr::from_ref(*migrator).addr())).collect();
    let cell = template_cell(key);
    let template = cell.get_or_init(|| make_template(server, migrations)).await;

    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    run(server, format!("create database {name} template {template}")).await;
    let url = server.url_of(&name);
    TestDatabase { pool: pool(&url).await, url, name, own: None }
}

/// The same on a server of its own, for what depends on who else is under way on the server: other tests hold transactions open.
///
/// # Panics
/// As [`database`].
pub async fn database_alone(migrations: &[(&'static str, &'static Migrator)]) -> TestDatabase {
    let server = start().await;
    let name = make_template(&server, migrations).await;
    let url = server.url_of(&name);
    TestDatabase { pool: pool(&url).await, url, name, own: Some(server) }
}

async fn start() -> LocalPostgres {
    // Nobody wants these data after a crash, so nothing waits for the disk.
    let settings = [
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("autovacuum", "off"),
        ("max_connections", "300"),
        ("shared_buffers", "64MB"),
        ("max_wal_size", "512MB"),
    ];
    let options = PgOptions {
        data_dir: crate::new_folder("postgres"),
        port: None,
        persistent: false,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        environment: Vec::new(),
    };
    LocalPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

fn template_cell(key: TemplateKey) -> Arc<OnceCell<String>> {
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cell)) = templates.iter().find(|(known, _)| *known == key) {
        return Arc::clone(cell);
    }
    let cell = Arc::new(OnceCell::new());
    templates.push((key, Arc::clone(&cell)));
    cell
}

async fn make_template(server: &LocalPostgres, migrations: &[(&'static str, &'static Migrator)]) -> String {
    let name = format!("template_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    run(server, format!("create database {name}")).await;
    let pool = pool(&server.url_of(&name)).await;
    for (schema, migrator) in migrations {
        if let Err(error) = tracklayer_postgres::migrate(&pool, schema, migrator).await {
            panic!("{}", chain(&error));
        }
    }
    // A template with a session in it cannot be copied.
    pool.close().await;
    name
}

async fn pool(url: &str) -> PgPool {
    let limits =
        Limits { acquire_timeout: std::time::Duration::from_secs(30), ..Limits::new(16).named("test") };
    let connected = tracklayer_postgres::connect_with(&Secret::new(url.to_owned()), limits).await;
    connected.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Runs one statement on the server, on a connection of its own: pools belong to the runtime of the test that made them.
async fn run(server: &LocalPostgres, statement: String) {
    let outcome = execute(server.url(), statement.clone()).await;
    outcome.unwrap_or_else(|error| panic!("could not `{statement}`: {error}"));
}

async fn execute(url: &str, statement: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    // The statement is made here, of names made here.
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
    connection.close().await
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.own.is_some() {
            return;
        }
        let Some(server) = SERVER.get() else { return };
        let (url, statement) = (server.url().to_owned(), format!("drop database {} with (force)", self.name));
        // Dropping a value cannot wait, and the test's runtime may be ending: a thread with a runtime of its own. Should the
        // process end first, the whole server goes with it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let _ = runtime.block_on(execute(&url, statement));
            }
        });
    }
}
