//! A private Kafka broker, from the jars on Maven Central (`tests/kafka/start`).
//!
//! Where a machine has no Java or no Maven the test says `SKIPPED` and why on standard error, past the test runner's capture,
//! and gets none. Where both are there and the broker does not start, that is a failure.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::patience::within;

/// How long a broker may take to answer: Java starts slowly on a machine that builds meanwhile.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The script's word for a machine that lacks what it needs.
const MISSING: i32 = 3;

/// A broker of one node. Ended at once when it is dropped or when this process ends; its data are removed.
#[derive(Debug)]
pub struct TestKafka {
    port: u16,
    controller_port: u16,
    /// Of those who say who they are: SASL, SASL inside of TLS, TLS.
    secured: Option<[u16; 3]>,
    folder: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    script: Child,
    /// When it closes the script takes this process for gone, and removes the data. Waiting for a child closes what it still has.
    pipe: Option<ChildStdin>,
    broker: u32,
}

/// The broker that all tests of this process share; they use topics of their own. None, said aloud, where that cannot be had.
///
/// # Panics
/// It does not start, though Java and Maven are there.
pub async fn kafka() -> Option<Arc<TestKafka>> {
    static SHARED: OnceCell<Option<Arc<TestKafka>>> = OnceCell::const_new();
    let shared = SHARED.get_or_init(async || TestKafka::start(None).await.map(Arc::new)).await.clone();
    if shared.is_none() {
        // Each test that is skipped says so itself.
        say_skipped("there is no Kafka, see above");
    }
    shared
}

/// A broker for a test that kills it. None, said aloud, where that cannot be had.
///
/// # Panics
/// It does not start, though Java and Maven are there.
pub async fn own_kafka() -> Option<TestKafka> {
    TestKafka::start(None).await
}

/// A broker that listens for those who say who they are, too: see `tests/kafka/start --secured`. All tests of this process share it.
/// None, said aloud, where that cannot be had.
///
/// # Panics
/// It does not start, though Java, Maven and openssl are there.
pub async fn secured_kafka() -> Option<Arc<TestKafka>> {
    static SHARED: OnceCell<Option<Arc<TestKafka>>> = OnceCell::const_new();
    let ports = [free_port(), free_port(), free_port()];
    let shared = SHARED.get_or_init(async || TestKafka::start(Some(ports)).await.map(Arc::new)).await.clone();
    if shared.is_none() {
        say_skipped("there is no Kafka, see above");
    }
    shared
}

fn say_skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Straight to the stream: the test runner captures what passes through `eprintln!`.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

impl TestKafka {
    async fn start(secured: Option<[u16; 3]>) -> Option<Self> {
        let (port, controller_port) = (free_port(), free_port());
        let folder = crate::new_folder("kafka");
        let mut new = Self { port, controller_port, secured, folder, running: None };
        if let Err(why) = new.spawn() {
            say_skipped(&format!("no Kafka: {why}"));
            return None;
        }
        new.answers().await;
        Some(new)
    }

    /// Where it answers, `host:port`.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it asks for user name and password, without TLS.
    ///
    /// # Panics
    /// It is not [`secured_kafka`]'s.
    #[must_use]
    pub fn sasl_brokers(&self) -> String {
        self.secured_brokers(0)
    }

    /// Where it asks for user name and password inside of TLS.
    ///
    /// # Panics
    /// It is not [`secured_kafka`]'s.
    #[must_use]
    pub fn sasl_ssl_brokers(&self) -> String {
        self.secured_brokers(1)
    }

    /// Where it asks for a certificate.
    ///
    /// # Panics
    /// It is not [`secured_kafka`]'s.
    #[must_use]
    pub fn ssl_brokers(&self) -> String {
        self.secured_brokers(2)
    }

    fn secured_brokers(&self, index: usize) -> String {
        let ports = self.secured.expect("a broker of `secured_kafka`");
        format!("127.0.0.1:{}", ports[index])
    }

    /// A file of those that clients need for TLS: `ca.pem`, `client.pem`, `client.key`, `stranger.pem`.
    ///
    /// # Panics
    /// There is no such file.
    #[must_use]
    pub fn pem(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join("tls").join(file)).expect("a file that the script has made")
    }

    /// Its log, over all its lives.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// Ends it at once (`kill -9`).
    ///
    /// # Panics
    /// It does not go.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        signal("KILL", running.broker);
        running.script.wait().expect("the script ends with its broker");
        drop(running.pipe);
    }

    /// Makes it stand still (SIGSTOP), as a paused machine does.
    pub fn pause(&self) {
        self.running.iter().for_each(|running| signal("STOP", running.broker));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.running.iter().for_each(|running| signal("CONT", running.broker));
    }

    /// Starts it on its data and port, unless it runs, and waits until it answers.
    ///
    /// # Panics
    /// It does not start.
    pub async fn start_again(&mut self) {
        if self.running.is_none() {
            self.spawn().expect("what was there before is there");
        }
        self.answers().await;
    }

    /// Starts the script; the error says what the machine lacks.
    fn spawn(&mut self) -> Result<(), String> {
        let secured = self.secured.map(|[sasl, sasl_ssl, ssl]| format!("{sasl},{sasl_ssl},{ssl}"));
        let mut script = Command::new(script())
            .args(secured.iter().flat_map(|ports| ["--secured", ports.as_str()]))
            .arg(&self.folder)
            .args([self.port.to_string(), self.controller_port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/kafka/start can be run");
        let mut first = String::new();
        let mut out = BufReader::new(script.stdout.take().expect("the script has an output"));
        out.read_line(&mut first).expect("the script can be read");
        let errors = script.stderr.take();
        let Some(broker) = first.trim().strip_prefix("started ").and_then(|pid| pid.parse().ok()) else {
            let mut said = String::new();
            let _ = errors.map(|mut errors| errors.read_to_string(&mut said));
            let code = script.wait().ok().and_then(|status| status.code());
            assert_eq!(code, Some(MISSING), "the broker did not start: {said}");
            return Err(said.trim().to_owned());
        };
        let log = self.log();
        if let Some(errors) = errors {
            // A full pipe would stop the broker.
            std::thread::spawn(move || {
                let file = std::fs::File::options().create(true).append(true).open(log);
                let _ = file.map(|mut file| std::io::copy(&mut { errors }, &mut file));
            });
        }
        let pipe = script.stdin.take();
        self.running = Some(Running { script, pipe, broker });
        Ok(())
    }

    async fn answers(&mut self) {
        let log = self.log();
        let ports: Vec<u16> = std::iter::once(self.port).chain(self.secured.into_iter().flatten()).collect();
        within(START_LIMIT, "the broker to answer", async || {
            if let Some(running) = &mut self.running
                && let Ok(Some(status)) = running.script.try_wait()
            {
                panic!("the broker ended with {status}: {}", tail(&log));
            }
            let connect = |port: &u16| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).map(drop);
            match ports.iter().try_for_each(connect) {
                Ok(()) => Ok(()),
                Err(refused) => Err(Silent { refused, log: log.clone() }),
            }
        })
        .await;
    }
}

impl Drop for TestKafka {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A broker that does not answer yet, with what it has said meanwhile.
struct Silent {
    refused: std::io::Error,
    log: PathBuf,
}

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; its log ends:\n{}", self.refused, tail(&self.log))
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Above the folder in which cargo runs a test, which is its crate's.
fn script() -> PathBuf {
    let here = std::env::current_dir().expect("there is a current folder");
    let found =
        here.ancestors().map(|folder| folder.join("tests/kafka/start")).find(|script| script.is_file());
    found.unwrap_or_else(|| panic!("no tests/kafka/start above {}", here.display()))
}

fn signal(signal: &str, pid: u32) {
    let sent =
        Command::new("/bin/kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
    sent.expect("/bin/kill can be run");
}

/// A port below those that outgoing connections get, so that none of these sits on it while the broker is away.
fn free_port() -> u16 {
    let free = (0..1_000).map(|_| 20_000 + uuid::Uuid::new_v4().as_u128() as u16 % 12_000);
    let mut free = free.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    free.next().expect("a free port of 20000 to 31999")
}
