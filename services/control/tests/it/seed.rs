//! The sample workspace.

use serde_json::json;
use tracklayer_control::{SeedOptions, dev_write_key, seed_northline};
use tracklayer_proto::control::v1::ListSourcesRequest;

use crate::harness::{master_key, start, webhook};

#[tokio::test]
async fn the_sample_workspace_is_made_once_and_its_connections_follow_the_caller() {
    let control = start().await;
    let pool = &control.database.pool;
    let mut options =
        SeedOptions { connections: vec![("hook".to_owned(), webhook("s", "a"))], ..SeedOptions::default() };
    let first = seed_northline(pool, &master_key(), &options).await.unwrap();
    let names: Vec<_> = first.sources.iter().map(|s| (s.name.as_str(), s.write_key.as_str())).collect();
    assert_eq!(
        names,
        [
            ("web-us", "wk_northline_web_us"),
            ("web-de", "wk_northline_web_de"),
            ("shop-server", "wk_northline_shop_server"),
            ("shop-server-de", "wk_northline_shop_server_de"),
            ("subscriptions", "wk_northline_subscriptions"),
            ("wholesale", "wk_northline_wholesale"),
        ]
    );
    assert_eq!(names[0].1, dev_write_key("web-us"));
    assert_eq!(seed_northline(pool, &master_key(), &options).await.unwrap(), first, "again changes nothing");

    options.connections[0].1["settings"]["url"] = json!("http://127.0.0.1:9000/in");
    let moved = seed_northline(pool, &master_key(), &options).await.unwrap();
    assert_eq!(moved.connections[0].connection_id, first.connections[0].connection_id);

    let request = ListSourcesRequest { workspace_id: first.workspace_id.0 };
    let sources = control.admin().list_sources(request).await.unwrap().into_inner().sources;
    let places: Vec<_> = sources.iter().map(|s| (s.channel.as_str(), s.default_place.as_str())).collect();
    assert_eq!(
        places,
        [
            ("browser", "US-CA"),
            ("browser", "DE"),
            ("server", "US-CA"),
            ("server", "DE"),
            ("server", "DE"),
            ("server", "")
        ]
    );
}
