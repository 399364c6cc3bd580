//! Settings of ingest.

use serde::Deserialize;
use tracklayer_config::ByteSize;
use tracklayer_ids::{MasterKey, Secret};
use tracklayer_journal::Kind;
use tracklayer_journal_kafka::{Access, KafkaSettings, SaslMechanism, SecurityProtocol};

/// Everything that ingest can be told at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PostgreSQL, `postgres://user:password@host/database`. The primary.
    pub database_url: Secret<String>,
    /// Where events are kept until they are delivered, `postgres` or `kafka`; the same for ingest and delivery.
    #[serde(default)]
    pub journal: Kind,
    /// Brokers to begin with, `host:port,host:port`. Only for `kafka`.
    #[serde(default)]
    pub kafka_brokers: String,
    /// What the names of this installation's topics begin with. Only for `kafka`.
    #[serde(default = "default_kafka_prefix")]
    pub kafka_prefix: String,
    /// Replicas of each topic that is made, 1 to 9. Only for `kafka`.
    #[serde(default = "default_kafka_replication")]
    pub kafka_replication: u32,
    /// How connections to Kafka are made: `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    #[serde(default)]
    pub kafka_security_protocol: SecurityProtocol,
    /// Certificates of the authorities by which the brokers' are judged, PEM; empty: those that the system trusts. Only with TLS.
    #[serde(default)]
    pub kafka_ca: String,
    /// This installation's certificate for brokers that ask for one, with what stands between it and its authority, PEM. Only with
    /// TLS.
    #[serde(default)]
    pub kafka_certificate: String,
    /// The key of `kafka_certificate`, PEM, without a passphrase.
    #[serde(default)]
    pub kafka_certificate_key: Secret<String>,
    /// How user name and password are shown: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. Only with SASL.
    #[serde(default)]
    pub kafka_sasl_mechanism: SaslMechanism,
    /// The user's name. Only with SASL.
    #[serde(default)]
    pub kafka_user: String,
    /// The user's password. Only with SASL.
    #[serde(default)]
    pub kafka_password: Secret<String>,
    /// Most of `received` that somebody, resolve or a lane, may have still to read, of whatever day; while a day is late (it ended
    /// over an hour ago and is not read to its end), most that `received` may take, read or not: a size such as "64GiB"; 0: no
    /// limit. Above it senders are told to come back until it is a tenth less. What is kept for claims does not count. Only for
    /// `postgres`.
    #[serde(default = "default_journal_budget")]
    pub journal_budget: ByteSize,
    /// Most that `received` may take of the disk, read or not: a size such as "500GiB", not below `journal_budget`; 0: no limit.
    /// Above it senders are told to come back until it is a tenth less, which may be when the day is over. Only for `postgres`.
    #[serde(default)]
    pub journal_limit: ByteSize,
    /// Redis, `redis://host:port`, for the look at claims. Absent: no look, repeats are stored and found later.
    #[serde(default)]
    pub redis_url: Option<Secret<String>>,
    /// Where control answers, `http://host:port`.
    pub control_address: String,
    /// Where consent answers, `http://host:port`.
    pub consent_address: String,
    /// The installation's master key; filled in from its file.
    #[serde(skip, default = "no_key")]
    pub master_key: MasterKey,
    /// Connections to PostgreSQL, 2 to 200.
    #[serde(default = "default_database_connections")]
    pub database_connections: u32,
    /// Shards of the journal's appends, 1 to 64; each has up to two under way, so at most half of `database_connections`.
    #[serde(default = "default_append_shards")]
    pub append_shards: u32,
    /// Longest wait for more events under load before an append, milliseconds, 0 to 100.
    #[serde(default = "default_max_linger_ms")]
    pub max_linger_ms: u64,
    /// Most bytes that may wait for the journal, of which no workspace gets all; above it senders are told to come back. At least
    /// 1,000,000.
    #[serde(default = "default_max_waiting_bytes")]
    pub max_waiting_bytes: u64,
    /// Most memory of requests being read and worked on, which is reckoned as three times their bodies; above it senders are told to come
    /// back. At least 4,000,000.
    #[serde(default = "default_max_in_flight_bytes")]
    pub max_in_flight_bytes: u64,
    /// Most requests being worked on at the same time, 1 to 1,000,000.
    #[serde(default = "default_max_in_flight_requests")]
    pub max_in_flight_requests: u32,
    /// Batches of one gRPC stream that may wait for their acks; above it the server stops reading. 1 to 1,024.
    #[serde(default = "default_stream_window")]
    pub stream_window: u32,
    /// gRPC connections at the same time, 1 to 100,000; more wait. What is sent on one and not read yet takes up to 1 MiB of memory,
    /// beside `max_in_flight_bytes`.
    #[serde(default = "default_max_grpc_connections")]
    pub max_grpc_connections: u32,
    /// Events a second that one source may send to one replica where the source does not say; 0: no limit.
    #[serde(default)]
    pub max_events_per_second_per_source: u32,
    /// Longest time to read one request's body, milliseconds, at least 1; then the sender is told to come back.
    #[serde(default = "default_body_timeout_ms")]
    pub body_timeout_ms: u64,
    /// Longest look at the dedup store, milliseconds, 1 to 100. What is not known by then is stored.
    #[serde(default = "default_look_timeout_ms")]
    pub look_timeout_ms: u64,
    /// Longest wait for the consent log, milliseconds, at least 1; then the sender is told to come back.
    #[serde(default = "default_consent_timeout_ms")]
    pub consent_timeout_ms: u64,
    /// How long a recorded signal is not recorded again for the same person and device, seconds, 0 to 3,600.
    #[serde(default = "default_narrowing_cache_seconds")]
    pub narrowing_cache_seconds: u64,
    /// Rejected events kept per source and hour; more are only counted.
    #[serde(default = "default_rejected_per_hour")]
    pub rejected_per_source_and_hour: u32,
    /// How long rejected events are kept, hours.
    #[serde(default = "default_rejected_hours")]
    pub rejected_retention_hours: u32,
    /// How long what a refund needs to know of its order (ids, place, total) is kept after the order's last webhook, days, 1 to 3,650.
    /// The oldest adjustment that an ad platform takes is 55 days old (Google Ads, conversion adjustments; 2026-11).
    #[serde(default = "default_known_order_days")]
    pub known_order_days: u32,
    /// Share of events that are traced where the sender does not say, 0 to 1.
    #[serde(default = "default_trace_ratio")]
    pub trace_sample_ratio: f64,
    /// Proxies in front that append to `X-Forwarded-For`; the person's address is that many entries from its end. 0: nobody is
    /// in front, and the header is not believed.
    #[serde(default)]
    pub trusted_proxies: u32,
    /// `http` or `https` for the address that analytics.js is told to send to. Absent: `X-Forwarded-Proto` where a trusted
    /// proxy is in front, else `http`.
    #[serde(default)]
    pub public_protocol: Option<String>,
}

fn no_key() -> MasterKey {
    MasterKey::new([0; 32])
}
fn default_journal_budget() -> ByteSize {
    ByteSize(64 << 30)
}
fn default_kafka_prefix() -> String {
    KafkaSettings::new("").prefix
}
fn default_kafka_replication() -> u32 {
    KafkaSettings::new("").replication
}
fn default_database_connections() -> u32 {
    12
}
fn default_append_shards() -> u32 {
    4
}
fn default_max_linger_ms() -> u64 {
    2
}
fn default_max_waiting_bytes() -> u64 {
    48 * 1024 * 1024
}
fn default_max_in_flight_bytes() -> u64 {
    64 * 1024 * 1024
}
fn default_max_in_flight_requests() -> u32 {
    8_192
}
fn default_max_grpc_connections() -> u32 {
    512
}
fn default_stream_window() -> u32 {
    32
}
fn default_body_timeout_ms() -> u64 {
    30_000
}
fn default_look_timeout_ms() -> u64 {
    3
}
fn default_consent_timeout_ms() -> u64 {
    2_000
}
fn default_narrowing_cache_seconds() -> u64 {
    60
}
fn default_rejected_per_hour() -> u32 {
    1_000
}
fn default_rejected_hours() -> u32 {
    168
}
fn default_known_order_days() -> u32 {
    180
}
fn default_trace_ratio() -> f64 {
    0.01
}

impl Config {
    /// The defaults, and what has none.
    #[must_use]
    pub fn new(
        database_url: Secret<String>,
        control_address: String,
        consent_address: String,
        master_key: MasterKey,
    ) -> Self {
        Self {
            database_url,
            journal: Kind::default(),
            kafka_brokers: String::new(),
            kafka_prefix: default_kafka_prefix(),
            kafka_replication: default_kafka_replication(),
            kafka_security_protocol: SecurityProtocol::default(),
            kafka_ca: String::new(),
            kafka_certificate: String::new(),
            kafka_certificate_key: Secret::default(),
            kafka_sasl_mechanism: SaslMechanism::default(),
            kafka_user: String::new(),
            kafka_password: Secret::default(),
            journal_budget: default_journal_budget(),
            journal_limit: ByteSize::default(),
            redis_url: None,
            control_address,
            consent_address,
            master_key,
            database_connections: default_database_connections(),
            append_shards: default_append_shards(),
            max_linger_ms: default_max_linger_ms(),
            max_waiting_bytes: default_max_waiting_bytes(),
            max_in_flight_bytes: default_max_in_flight_bytes(),
            max_in_flight_requests: default_max_in_flight_requests(),
            stream_window: default_stream_window(),
            max_grpc_connections: default_max_grpc_connections(),
            max_events_per_second_per_source: 0,
            body_timeout_ms: default_body_timeout_ms(),
            look_timeout_ms: default_look_timeout_ms(),
            consent_timeout_ms: default_consent_timeout_ms(),
            narrowing_cache_seconds: default_narrowing_cache_seconds(),
            rejected_per_source_and_hour: default_rejected_per_hour(),
            rejected_retention_hours: default_rejected_hours(),
            known_order_days: default_known_order_days(),
            trace_sample_ratio: default_trace_ratio(),
            trusted_proxies: 0,
            public_protocol: None,
        }
    }

    /// Where the Kafka cluster is, if there is one.
    #[must_use]
    pub fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.kafka_brokers.clone(),
            prefix: self.kafka_prefix.clone(),
            replication: self.kafka_replication,
            access: Access {
                protocol: self.kafka_security_protocol,
                ca: self.kafka_ca.clone(),
                certificate: self.kafka_certificate.clone(),
                certificate_key: self.kafka_certificate_key.clone(),
                mechanism: self.kafka_sasl_mechanism,
                user: self.kafka_user.clone(),
                password: self.kafka_password.clone(),
            },
        }
    }

    /// What is wrong with the settings, each with what is allowed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = match self.journal {
            Kind::Postgres => Vec::new(),
            Kind::Kafka => self.kafka().problems(),
        };
        let mut check = |fine: bool, problem: String| {
            if !fine {
                problems.push(problem);
            }
        };
        let connections = self.database_connections;
        check(
            (2..=200).contains(&connections),
            format!("database_connections is {connections}, allowed are 2 to 200"),
        );
        let shards = self.append_shards;
        check(
            (1..=64).contains(&shards) && 2 * shards <= connections,
            format!(
                "append_shards is {shards}, allowed are 1 to 64 and at most half of database_connections ({connections})"
            ),
        );
        let linger = self.max_linger_ms;
        check(linger <= 100, format!("max_linger_ms is {linger}, allowed are 0 to 100"));
        let (budget, limit) = (self.journal_budget, self.journal_limit);
        check(
            limit.get() == 0 || limit.get() >= budget.get(),
            format!("journal_limit is {limit}, allowed are 0 and from journal_budget ({budget}) on"),
        );
        let waiting = self.max_waiting_bytes;
        check(waiting >= 1_000_000, format!("max_waiting_bytes is {waiting}, allowed are 1000000 and more"));
        let in_flight = self.max_in_flight_bytes;
        check(
            in_flight >= 4_000_000,
            format!("max_in_flight_bytes is {in_flight}, allowed are 4000000 and more"),
        );
        let requests = self.max_in_flight_requests;
        check(
            (1..=1_000_000).contains(&requests),
            format!("max_in_flight_requests is {requests}, allowed are 1 to 1000000"),
        );
        let window = self.stream_window;
        check((1..=1_024).contains(&window), format!("stream_window is {window}, allowed are 1 to 1024"));
        let grpc = self.max_grpc_connections;
        check(
            (1..=100_000).contains(&grpc),
            format!("max_grpc_connections is {grpc}, allowed are 1 to 100000"),
        );
        let body = self.body_timeout_ms;
        check(body >= 1, format!("body_timeout_ms is {body}, allowed are 1 and more"));
        let consent = self.consent_timeout_ms;
        check(consent >= 1, format!("consent_timeout_ms is {consent}, allowed are 1 and more"));
        let look = self.look_timeout_ms;
        check((1..=100).contains(&look), format!("look_timeout_ms is {look}, allowed are 1 to 100"));
        let cache = self.narrowing_cache_seconds;
        check(cache <= 3_600, format!("narrowing_cache_seconds is {cache}, allowed are 0 to 3600"));
        let days = self.known_order_days;
        check((1..=3_650).contains(&days), format!("known_order_days is {days}, allowed are 1 to 3650"));
        let ratio = self.trace_sample_ratio;
        check((0.0..=1.0).contains(&ratio), format!("trace_sample_ratio is {ratio}, allowed are 0 to 1"));
        let protocol = self.public_protocol.as_deref();
        check(
            matches!(protocol, None | Some("http" | "https")),
            format!("public_protocol is {}, allowed are http and https", protocol.unwrap_or_default()),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(Secret::new("postgres://x".into()), "http://c".into(), "http://d".into(), no_key())
    }

    #[test]
    fn the_defaults_are_good_and_every_bad_value_is_named() {
        assert_eq!(config().problems(), Vec::<String>::new());
        let bad = Config {
            database_connections: 1,
            append_shards: 65,
            max_linger_ms: 101,
            journal_limit: ByteSize(1),
            max_waiting_bytes: 1,
            max_in_flight_bytes: 1,
            max_in_flight_requests: 0,
            stream_window: 0,
            max_grpc_connections: 0,
            body_timeout_ms: 0,
            consent_timeout_ms: 0,
            look_timeout_ms: 0,
            narrowing_cache_seconds: 9_999,
            known_order_days: 0,
            trace_sample_ratio: f64::NAN,
            public_protocol: Some("ftp".into()),
            journal: Kind::Kafka,
            kafka_replication: 0,
            ..config()
        };
        assert_eq!(bad.problems().len(), 18, "{:?}", bad.problems());
    }

    #[test]
    fn an_unknown_setting_is_an_error_and_few_are_required() {
        let minimal =
            r#"{"database_url":"postgres://x","control_address":"http://c","consent_address":"http://d"}"#;
        let read: Config = serde_json::from_str(minimal).unwrap();
        assert_eq!(read.look_timeout_ms, 3);
        let unknown = minimal.replacen('{', r#"{"databse_url":"x","#, 1);
        assert!(serde_json::from_str::<Config>(&unknown).is_err());
    }
}
