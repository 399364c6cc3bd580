//! What an operator reads. A changed snapshot is a changed promise.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use tracklayer_config::{
    ByteSize, HumanDuration, LoadRequest, Problem, load, load_checked, show, unknown_sections,
};
use tracklayer_ids::Secret;

const DEFAULTS: &str = r#"
listen = "0.0.0.0:7401"
claim_ttl = "7d"
in_flight = 1024
mode = "live"
brokers = []

[journal]
linger = "4ms"
block = "1MiB"
"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    listen: std::net::SocketAddr,
    claim_ttl: HumanDuration,
    in_flight: u32,
    mode: Mode,
    brokers: Vec<std::net::SocketAddr>,
    database_url: Secret<String>,
    public_url: Option<String>,
    journal: Journal,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    linger: HumanDuration,
    block: ByteSize,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Live,
    Shadow,
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Runs with a file of this content, whose path reads `tracklayer.toml` in what is returned.
fn with_file(content: &str, run: impl FnOnce(&Path) -> String) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracklayer.toml");
    std::fs::write(&path, content).unwrap();
    run(&path).replace(folder.path().to_str().unwrap(), "").replace("/tracklayer.toml", "tracklayer.toml")
}

fn request<'a>(file: Option<&'a Path>, environment: &'a BTreeMap<String, String>) -> LoadRequest<'a> {
    LoadRequest { defaults: DEFAULTS, file, environment, section: "ingest" }
}

#[test]
fn later_layers_win_and_text_becomes_what_the_field_wants() {
    let environment = environment(&[
        ("TRACKLAYER_INGEST__IN_FLIGHT", "7"),
        ("TRACKLAYER_INGEST__BROKERS", "127.0.0.1:1, 127.0.0.1:2"),
        ("TRACKLAYER_INGEST__JOURNAL__LINGER", "9ms"),
        ("TRACKLAYER_INGEST__PUBLIC_URL", ""),
        ("TRACKLAYER_COMMON__DATABASE_URL", "postgres://common"),
        ("TRACKLAYER_COMMON__UNKNOWN_TO_INGEST", "1"),
        ("TRACKLAYER_CONSENT__IN_FLIGHT", "99"),
    ]);
    with_file("[ingest]\nmode = 'shadow'\nin_flight = 3\n[ingest.journal]\nblock = 4096\n", |file| {
        let config: Config = load(request(Some(file), &environment)).unwrap();
        assert_eq!(config.listen.port(), 7401);
        assert_eq!(config.claim_ttl, HumanDuration::seconds(604_800));
        assert_eq!((config.in_flight, config.mode), (7, Mode::Shadow));
        assert_eq!(config.brokers.len(), 2);
        assert_eq!(config.database_url.expose(), "postgres://common");
        assert_eq!(config.public_url, None);
        assert_eq!(config.journal.linger, HumanDuration::milliseconds(9));
        assert_eq!(config.journal.block, ByteSize(4096));
        String::new()
    });
}

#[test]
fn every_problem_is_told_at_once() {
    let environment = environment(&[
        ("TRACKLAYER_INGEST__IN_FLIGHT", "many"),
        ("TRACKLAYER_INGEST__JOURNAL__LINGRE", "9ms"),
        ("TRACKLAYER_INGEST__BROKERS", "127.0.0.1:1,nowhere"),
    ]);
    let file = r#"
[common]
only_for_others = true

[ingest]
listen = "nowhere"
claim_ttl = 7
mode = "both"

[ingest.journal]
block = "1 mebi"
surprise = 1
"#;
    let told =
        with_file(file, |file| load::<Config>(request(Some(file), &environment)).unwrap_err().to_string());
    insta::assert_snapshot!(told);
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_place() {
    let told = with_file("[ingest]\nlisten = \n", |file| {
        load::<Config>(request(Some(file), &BTreeMap::new())).unwrap_err().to_string()
    });
    insta::assert_snapshot!(told);
}

#[test]
fn a_secret_may_come_from_a_file_of_its_own_and_is_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "postgres://u:hush@h/d\n").unwrap();
    let named = environment(&[("TRACKLAYER_COMMON__DATABASE_URL_FILE", path.to_str().unwrap())]);
    let config: Config = load(request(None, &named)).unwrap();
    assert_eq!(config.database_url.expose(), "postgres://u:hush@h/d");
    let shown = show::<Config>(request(None, &named)).unwrap();
    assert!(!shown.contains("hush"), "{shown}");

    let nowhere = environment(&[("TRACKLAYER_INGEST__DATABASE_URL_FILE", "/nowhere/url")]);
    insta::assert_snapshot!(load::<Config>(request(None, &nowhere)).unwrap_err().to_string());
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let environment = environment(&[("TRACKLAYER_INGEST__DATABASE_URL", "postgres://u:hush@h/d")]);
    let shown = with_file("[ingest]\nin_flight = 3\n", |file| {
        show::<Config>(request(Some(file), &environment)).unwrap()
    });
    insta::assert_snapshot!(shown);
}

#[test]
fn a_judgement_is_told_with_value_and_origin_and_a_warning_does_not_stop() {
    let environment = environment(&[
        ("TRACKLAYER_INGEST__DATABASE_URL", "postgres://h/d"),
        ("TRACKLAYER_INGEST__IN_FLIGHT", "0"),
    ]);
    let refuse = |config: &Config| {
        assert_eq!(config.in_flight, 0);
        vec![
            Problem::new("in_flight", "is too small", "1 to 100000", "leave it out for 1024"),
            Problem::from("claim_ttl is shorter than the longest client retry".to_owned()),
        ]
    };
    let told = load_checked(request(None, &environment), refuse).unwrap_err().to_string();
    insta::assert_snapshot!(told);

    let warn = |_: &Config| vec![Problem::risky("in_flight", "sheds everything", "raise it")];
    let loaded = load_checked(request(None, &environment), warn).unwrap();
    assert_eq!(loaded.config.in_flight, 0);
    assert_eq!(loaded.warnings[0].origin.as_deref(), Some("environment TRACKLAYER_INGEST__IN_FLIGHT"));
}

#[test]
fn a_slip_in_the_name_of_a_section_is_told() {
    let environment = environment(&[("TRACKLAYER_CONSETN__LISTEN", "x"), ("TRACKLAYER_LOG", "debug")]);
    let known = ["ingest", "consent", "telemetry"];
    let told = with_file("[common]\n[ingset]\n", |file| {
        unknown_sections(Some(file), &environment, &known).unwrap_err().to_string()
    });
    insta::assert_snapshot!(told);
    assert!(unknown_sections(None, &BTreeMap::from([("PATH".to_owned(), String::new())]), &known).is_ok());
}

#[test]
fn opentelemetrys_own_variable_is_understood() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Telemetry {
        otlp_endpoint: String,
    }
    let environment = environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://jaeger:4317")]);
    let request = LoadRequest {
        defaults: "otlp_endpoint = ''",
        file: None,
        environment: &environment,
        section: "telemetry",
    };
    assert_eq!(load::<Telemetry>(request).unwrap().otlp_endpoint, "http://jaeger:4317");
}
