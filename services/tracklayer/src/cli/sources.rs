//! `tracklayer sources`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use tracklayer_proto::control::v1::{
    CreateSourceRequest, ListSourcesRequest, SetSourceDedupRequest, SetSourceRateRequest,
    SetSourceWebhookRequest, Source,
};

use super::Access;
use super::names::Names;
use super::output::print_rows;

/// Sources and their write keys.
#[derive(Debug, Subcommand)]
pub enum Sources {
    /// List the workspace's.
    List,
    /// Make one; its write key is shown only now.
    Create {
        /// 1 to 63 characters: a-z, 0-9, hyphen.
        name: String,
        /// browser, server or mobile.
        #[arg(long)]
        channel: String,
        /// Place of events that do not say: US-CA, DE. Without one, an event's place is unknown, the strictest.
        #[arg(long, default_value = "")]
        default_place: String,
        /// Which identifier type its userId is. With --webhook, shopify_customer_id, unless its settings take no userId.
        #[arg(long, default_value = "")]
        user_id_type: String,
        /// How long a first occurrence is remembered, seconds: 60 to 7776000. 7 days without it.
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        dedup_ttl_seconds: u32,
        /// Count each order, cancellation and refund once, whatever its message_ids. All sources that report the same orders
        /// have to say so.
        #[arg(long)]
        dedup_by_order_id: bool,
        /// Events a second that it may send to each replica of ingest, 0: no limit. Without it, what the installation says.
        #[arg(long)]
        max_events_per_second: Option<u32>,
        /// A write key to keep from another system.
        #[arg(long, default_value = "")]
        write_key: String,
        /// A file with which webhooks it takes, JSON: {"kind":"shopify","webhook_secret":"…"}. Its channel is then server, and the
        /// webhooks' address is /v1/webhooks/shopify/ and the write key at ingest.
        #[arg(long)]
        webhook: Option<PathBuf>,
    },
    /// Say which webhooks a source takes, or replace their secret.
    #[command(group(clap::ArgGroup::new("webhooks").required(true)))]
    SetWebhook {
        /// The source, by name or number.
        source: String,
        /// A file with the settings, JSON; a secret that stays as it is may be "***".
        #[arg(long, group = "webhooks")]
        settings: Option<PathBuf>,
        /// The source takes no webhooks any more; its secrets are deleted.
        #[arg(long, group = "webhooks")]
        none: bool,
        /// Go on believing the secret saved until now beside the new one: while Shopify changes over, an hour.
        #[arg(long, requires = "settings", conflicts_with = "none")]
        keep_previous_secret: bool,
    },
    /// Say how a source's events are deduplicated from now on; what was claimed before keeps its time.
    #[command(group(clap::ArgGroup::new("dedup").required(true).multiple(true)))]
    SetDedup {
        /// The source, by name or number.
        source: String,
        /// How long a first occurrence is remembered, seconds: 60 to 7776000; 0: 7 days.
        #[arg(long, group = "dedup")]
        dedup_ttl_seconds: Option<u32>,
        /// Count each order, cancellation and refund once, whatever its message_ids; `=false`: go by the message_id alone. All
        /// sources that report the same orders have to say the same.
        #[arg(long, group = "dedup", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        dedup_by_order_id: Option<bool>,
    },
    /// Say how much a source may send; what is above is told to come back.
    #[command(group(clap::ArgGroup::new("rate").required(true)))]
    SetRate {
        /// The source, by name or number.
        source: String,
        /// Events a second at each replica of ingest, 0: no limit. The last batch that a second's events allow passes whole.
        #[arg(long, group = "rate")]
        max_events_per_second: Option<u32>,
        /// No rate of its own: what the installation says.
        #[arg(long, group = "rate")]
        as_installation: bool,
    },
}

/// Runs it.
///
/// # Errors
/// What the service answered.
pub async fn run(access: &Access, command: Sources) -> anyhow::Result<()> {
    let workspace_id = access.workspace().await?.workspace_id;
    match command {
        Sources::List => {
            let sources = access
                .control()?
                .list_sources(ListSourcesRequest { workspace_id })
                .await?
                .into_inner()
                .sources;
            let document = sources
                .iter()
                .map(|s| {
                    json!({
                        "source_id": s.source_id, "name": s.name, "channel": s.channel,
                        "default_place": s.default_place, "enabled": s.enabled, "write_key_hint": s.write_key_hint,
                        "dedup_ttl_seconds": s.dedup_ttl_seconds, "dedup_by_order_id": s.dedup_by_order_id,
                        "max_events_per_second": s.max_events_per_second,
                        "webhook": serde_json::from_str::<serde_json::Value>(&s.webhook_json).ok(),
                    })
                })
                .collect();
            let rows: Vec<Vec<String>> = sources
                .into_iter()
                .map(|s| {
                    let rate = rate_of(&s);
                    vec![
                        s.source_id.to_string(),
                        s.name,
                        s.channel,
                        s.default_place,
                        keys_of(s.dedup_by_order_id).to_owned(),
                        rate,
                        format!("{}…", s.write_key_hint),
                    ]
                })
                .collect();
            let titles = ["id", "name", "channel", "place", "counted once by", "most events/s", "write key"];
            print_rows(access.output, &document, &titles, &rows);
        }
        Sources::Create {
            name,
            channel,
            default_place,
            user_id_type,
            dedup_ttl_seconds,
            dedup_by_order_id,
            max_events_per_second,
            write_key,
            webhook,
        } => {
            let webhook_json = webhook.as_deref().map(read_settings).transpose()?.unwrap_or_default();
            let request = CreateSourceRequest {
                workspace_id,
                name,
                channel,
                default_place,
                user_id_type: user_id_type_of(user_id_type, &webhook_json),
                dedup_ttl_seconds,
                dedup_by_order_id,
                max_events_per_second,
                write_key,
                webhook_json,
                ..CreateSourceRequest::default()
            };
            let made = access.control()?.create_source(request).await?.into_inner();
            let source = made.source.unwrap_or_default();
            let document =
                json!({ "source_id": source.source_id, "name": source.name, "write_key": made.write_key });
            let row = vec![source.source_id.to_string(), source.name, made.write_key];
            print_rows(access.output, &document, &["id", "name", "write key (shown only now)"], &[row]);
        }
        Sources::SetWebhook { source, settings, none: _, keep_previous_secret } => {
            let names = Names::read(access, workspace_id).await?;
            let source_id =
                names.source_called(&source).with_context(|| format!("there is no source `{source}`"))?;
            let webhook_json = settings.as_deref().map(read_settings).transpose()?.unwrap_or_default();
            let request =
                SetSourceWebhookRequest { workspace_id, source_id, webhook_json, keep_previous_secret };
            let source =
                access.control()?.set_source_webhook(request).await?.into_inner().source.unwrap_or_default();
            let webhook = serde_json::from_str::<serde_json::Value>(&source.webhook_json).ok();
            let document = json!({ "source_id": source.source_id, "name": source.name, "webhook": webhook });
            let takes = if source.webhook_json.is_empty() { "none".to_owned() } else { source.webhook_json };
            let row = vec![source.source_id.to_string(), source.name, takes];
            print_rows(access.output, &document, &["id", "name", "webhooks"], &[row]);
        }
        Sources::SetDedup { source, dedup_ttl_seconds, dedup_by_order_id } => {
            let names = Names::read(access, workspace_id).await?;
            let source_id =
                names.source_called(&source).with_context(|| format!("there is no source `{source}`"))?;
            let request =
                SetSourceDedupRequest { workspace_id, source_id, dedup_ttl_seconds, dedup_by_order_id };
            let source =
                access.control()?.set_source_dedup(request).await?.into_inner().source.unwrap_or_default();
            let document = json!({
                "source_id": source.source_id, "name": source.name,
                "dedup_ttl_seconds": source.dedup_ttl_seconds, "dedup_by_order_id": source.dedup_by_order_id,
            });
            let row = vec![
                source.source_id.to_string(),
                source.name,
                keys_of(source.dedup_by_order_id).to_owned(),
                format!("{} s", source.dedup_ttl_seconds),
            ];
            print_rows(
                access.output,
                &document,
                &["id", "name", "counted once by", "remembered for"],
                &[row],
            );
        }
        Sources::SetRate { source, max_events_per_second, as_installation: _ } => {
            let names = Names::read(access, workspace_id).await?;
            let source_id =
                names.source_called(&source).with_context(|| format!("there is no source `{source}`"))?;
            let request = SetSourceRateRequest { workspace_id, source_id, max_events_per_second };
            let source =
                access.control()?.set_source_rate(request).await?.into_inner().source.unwrap_or_default();
            let document = json!({
                "source_id": source.source_id, "name": source.name, "max_events_per_second": source.max_events_per_second,
            });
            let row = vec![source.source_id.to_string(), source.name.clone(), rate_of(&source)];
            print_rows(access.output, &document, &["id", "name", "most events/s"], &[row]);
        }
    }
    Ok(())
}

fn read_settings(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
    // Nothing at all would mean: no webhooks any more.
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty", path.display());
    Ok(text)
}

/// What was said, else the type of Shopify's customer ids where the webhooks' settings take these for user ids. Settings that cannot be
/// read are for control to refuse.
fn user_id_type_of(said: String, webhook_json: &str) -> String {
    let settings: Option<serde_json::Value> = serde_json::from_str(webhook_json).ok();
    match settings {
        Some(settings) if said.is_empty() && settings["user_id_from"] != "none" => {
            "shopify_customer_id".to_owned()
        }
        _ => said,
    }
}

/// By what a source's events are counted once.
fn keys_of(dedup_by_order_id: bool) -> &'static str {
    if dedup_by_order_id { "message_id, order" } else { "message_id" }
}

fn rate_of(source: &Source) -> String {
    match source.max_events_per_second {
        None => "the installation's".to_owned(),
        Some(0) => "no limit".to_owned(),
        Some(rate) => rate.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        sources: Sources,
    }

    #[test]
    fn webhooks_are_taken_away_only_by_saying_so() {
        let parse =
            |words: &[&str]| Line::try_parse_from([&["sources", "set-webhook", "shop"], words].concat());
        assert!(parse(&[]).is_err(), "a forgotten --settings would delete the secrets");
        assert!(parse(&["--none", "--settings", "shopify.json"]).is_err());
        assert!(parse(&["--none", "--keep-previous-secret"]).is_err());
        let settings_of = |words: &[&str]| match parse(words).map(|line| line.sources) {
            Ok(Sources::SetWebhook { settings, none, .. }) => (settings.is_some(), none),
            _ => panic!("{words:?}"),
        };
        assert_eq!(settings_of(&["--none"]), (false, true));
        assert_eq!(settings_of(&["--settings", "shopify.json", "--keep-previous-secret"]), (true, false));
    }

    #[test]
    fn what_is_not_said_of_dedup_stays_and_nothing_said_is_refused() {
        let parse = |words: &[&str]| Line::try_parse_from([&["sources", "set-dedup"], words].concat());
        let said = |words: &[&str]| match parse(words).map(|line| line.sources) {
            Ok(Sources::SetDedup { source, dedup_ttl_seconds, dedup_by_order_id }) => {
                assert_eq!(source, "shop", "{words:?}");
                (dedup_ttl_seconds, dedup_by_order_id)
            }
            _ => panic!("{words:?}"),
        };
        assert_eq!(said(&["shop", "--dedup-ttl-seconds", "3600"]), (Some(3_600), None));
        assert_eq!(said(&["--dedup-by-order-id", "shop"]), (None, Some(true)), "the name is no value of it");
        assert_eq!(said(&["shop", "--dedup-by-order-id=false"]), (None, Some(false)));
        assert_eq!(said(&["shop", "--dedup-by-order-id", "--dedup-ttl-seconds=60"]), (Some(60), Some(true)));
        assert!(parse(&["shop"]).is_err());
        assert!(parse(&["shop", "--dedup-by-order-id=maybe"]).is_err());
    }

    #[test]
    fn a_shops_user_ids_are_its_customers_unless_something_else_is_said() {
        let of = |said: &str, settings: &str| user_id_type_of(said.to_owned(), settings);
        assert_eq!(of("", r#"{"kind":"shopify"}"#), "shopify_customer_id");
        assert_eq!(of("", r#"{"kind":"shopify","user_id_from":"customer_id"}"#), "shopify_customer_id");
        assert_eq!(of("", r#"{"kind":"shopify","user_id_from":"none"}"#), "");
        assert_eq!(of("crm_id", r#"{"kind":"shopify"}"#), "crm_id");
        assert_eq!(of("", ""), "", "a source without webhooks");
    }
}
