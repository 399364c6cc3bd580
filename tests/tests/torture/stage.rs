//! The installation that seeds play on: servers, sandbox, two processes each of ingest and delivery and one each of the other
//! roles, and a proxy in every link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, bail};
use tokio::sync::Mutex;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::{Journal, Kind, PostgresJournal};
use tracklayer_journal_kafka::KafkaSettings;
use tracklayer_proto::control::v1::control_service_client::ControlServiceClient;
use tracklayer_proto::delivery::v1::delivery_service_client::DeliveryServiceClient;
use tracklayer_rpc::Channel;
use tracklayer_sandbox::SandboxClient;
use tracklayer_testkit::TestKafka;
use tracklayer_tests::servers::{Postgres, Redis};
use tracklayer_tests::{Clock, Fleet, Options, Platform, Proxy, Replica, Role, Running};

use crate::plan::{LEASE, LINKS, Link};

/// Everything that runs.
pub struct Stage {
    // In the order of dropping: services, proxies, servers, sandbox and folder, broker.
    pub fleet: Fleet,
    proxies: BTreeMap<(Link, Link), Proxy>,
    pub postgres: Mutex<Postgres>,
    pub redis: Mutex<Redis>,
    platform: Running,
    /// Kafka, if it is the journal.
    pub broker: Option<Mutex<TestKafka>>,
    broker_log: Option<PathBuf>,
    service_token: String,
    /// To look with, past every proxy.
    pub pool: sqlx::PgPool,
    pub journal: Arc<dyn Journal>,
    /// Why there is no disk that can be filled; none if there is one.
    pub no_disk: Option<String>,
    /// The clock of everything; or why it cannot be set.
    pub clock: Result<Clock, String>,
}

impl Stage {
    /// Starts everything; returns when every process wants traffic.
    pub async fn start() -> anyhow::Result<Self> {
        let broker = match std::env::var("TORTURE_JOURNAL").as_deref() {
            Ok("kafka") => Some(tracklayer_testkit::own_kafka().await.context("there is no Kafka")?),
            Ok("" | "postgres") | Err(_) => None,
            Ok(other) => bail!("no journal `{other}`: postgres or kafka"),
        };
        let kafka = broker
            .as_ref()
            .map(|broker| KafkaSettings { replication: 1, ..KafkaSettings::new(broker.brokers()) });
        let clock = match &broker {
            // Its client waits until times of day, by a clock that would be days ahead of the kernel's.
            Some(_) => Err("over Kafka no clock is set".to_owned()),
            None => Clock::start().map_err(|error| format!("{error:#}")),
        };
        let variables = clock.as_ref().map(Clock::variables).unwrap_or_default();
        let (postgres, redis) =
            (Postgres::start(variables.clone()).await?, Redis::start(variables.clone()).await?);
        let options = Options {
            database_url: Some(postgres.url().to_owned()),
            redis_url: Some(format!("redis://{}", redis.address())),
            variables: variables.clone(),
            ..Options::default()
        };
        let platform = Platform::without_services(options).await?;
        let master_key = platform.data_dir().join("master.key");
        let service_token = MasterKey::read(&master_key)?.service_token();

        let previous = std::env::var_os("TORTURE_PREVIOUS").map(PathBuf::from);
        let mut replicas = Vec::new();
        for (role, count) in [
            (Role::Control, 1),
            (Role::Identity, 1),
            (Role::Consent, 1),
            (Role::Delivery, 2),
            (Role::Ingest, 2),
        ] {
            for number in 1..=count {
                // The previous release beside this one, in the middle of a rolling update.
                let binary = previous.clone().filter(|_| number == 2);
                replicas.push(Replica { binary, ..Replica::new(role, number)? });
            }
        }
        let grpc_of = |name: &str| {
            let found = replicas.iter().find(|replica| replica.name == name);
            found.map(|replica| replica.grpc).with_context(|| format!("no replica {name}"))
        };
        let mut proxies = BTreeMap::new();
        for (process, server) in LINKS {
            let target = match server {
                "postgres" => postgres.address(),
                "redis" => redis.address(),
                "sandbox" => platform.addresses().sandbox.trim_start_matches("http://").parse()?,
                other => grpc_of(&format!("{other}-1"))?,
            };
            proxies.insert((process, server), Proxy::start(target).await?);
        }
        let control = format!("http://{}", grpc_of("control-1")?);
        let direct: BTreeMap<&str, SocketAddr> = [
            ("postgres", postgres.address()),
            ("redis", redis.address()),
            ("identity", grpc_of("identity-1")?),
            ("consent", grpc_of("consent-1")?),
            ("delivery", grpc_of("delivery-1")?),
        ]
        .into();
        for replica in &mut replicas {
            let to = |server: &str| -> SocketAddr {
                let link = proxies.iter().find(|((from, to), _)| *from == replica.name && *to == server);
                link.map_or(direct[server], |(_, proxy)| proxy.address())
            };
            let common = [
                ("DATABASE_URL", postgres.url_through(to("postgres"))),
                ("REDIS_URL", format!("redis://{}", to("redis"))),
                ("CONTROL_ADDRESS", control.clone()),
                ("IDENTITY_ADDRESS", format!("http://{}", to("identity"))),
                ("CONSENT_ADDRESS", format!("http://{}", to("consent"))),
                ("DELIVERY_ADDRESS", format!("http://{}", to("delivery"))),
                ("LEASE_MS", LEASE.as_millis().to_string()),
                ("TRACE_SAMPLE_RATIO", "0".to_owned()),
                ("ALLOW_PRIVATE_ADDRESSES", "true".to_owned()),
            ];
            replica.environment =
                common.into_iter().map(|(key, value)| (format!("TRACKLAYER_COMMON__{key}"), value)).collect();
            replica.environment.extend(variables.iter().cloned());
            if let Some(kafka) = &kafka {
                let settings = [
                    ("JOURNAL", "kafka".to_owned()),
                    ("KAFKA_BROKERS", kafka.brokers.clone()),
                    ("KAFKA_PREFIX", kafka.prefix.clone()),
                    ("KAFKA_REPLICATION", kafka.replication.to_string()),
                ];
                let settings = settings.map(|(key, value)| (format!("TRACKLAYER_COMMON__{key}"), value));
                replica.environment.extend(settings);
            }
            let key_file = master_key.display().to_string();
            replica.environment.push(("TRACKLAYER_PROCESS__MASTER_KEY_FILE".to_owned(), key_file));
            replica.environment.push(("TRACKLAYER_LOG".to_owned(), "info".to_owned()));
        }
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2).connect_lazy(postgres.url())?;
        let fleet = Fleet::start(platform.binary(), platform.data_dir(), replicas).await?;
        fleet.ready().await;
        let journal = match kafka {
            Some(kafka) => tracklayer_journal_kafka::open(Kind::Kafka, kafka, pool.clone())?,
            None => PostgresJournal::new(pool.clone()).into(),
        };
        let broker_log = broker.as_ref().map(TestKafka::log);
        let broker = broker.map(Mutex::new);
        let no_disk = postgres.no_disk().map(str::to_owned);
        let (postgres, redis) = (Mutex::new(postgres), Mutex::new(redis));
        Ok(Self {
            fleet,
            proxies,
            postgres,
            redis,
            platform,
            broker,
            broker_log,
            service_token,
            pool,
            journal,
            no_disk,
            clock,
        })
    }

    /// The logs of all processes and of the broker.
    pub fn logs(&self) -> impl Iterator<Item = &Path> {
        self.fleet.members().iter().map(|member| member.log()).chain(self.broker_log.as_deref())
    }

    /// The time on the clock of everything.
    pub fn now(&self) -> SystemTime {
        self.clock.as_ref().map_or_else(|_| SystemTime::now(), Clock::now)
    }

    /// The proxy of a link.
    pub fn proxy(&self, link: (Link, Link)) -> &Proxy {
        &self.proxies[&link]
    }

    /// The ad platforms' side, past the proxy.
    pub fn sandbox(&self) -> SandboxClient {
        self.platform.sandbox()
    }

    /// Where deliveries find the sandbox: through the proxy.
    pub fn sandbox_url(&self) -> String {
        format!("http://{}", self.proxy(("delivery", "sandbox")).address())
    }

    pub fn control(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel("control-1", &self.platform.addresses().admin_key))
    }

    pub fn delivery(&self) -> DeliveryServiceClient<Channel> {
        // The service token: delivery remembers for a while which workspaces an admin key opens.
        let channel = self.channel("delivery-1", &self.service_token);
        DeliveryServiceClient::new(channel).max_decoding_message_size(64 * 1024 * 1024)
    }

    fn channel(&self, member: &str, key: &str) -> Channel {
        let address = self.fleet.member(member).replica().grpc_url();
        tracklayer_rpc::connect_lazy(&address, Secret::new(key.to_owned())).expect("an address")
    }
}
