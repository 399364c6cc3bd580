//! What people call sources and connections; the services answer with numbers.

use std::collections::BTreeMap;

use tracklayer_proto::control::v1::{ListConnectionsRequest, ListSourcesRequest};

use super::Access;

/// The names of a workspace.
#[derive(Debug, Clone, Default)]
pub struct Names {
    sources: BTreeMap<i64, String>,
    connections: BTreeMap<i64, String>,
}

impl Names {
    /// Asks control.
    ///
    /// # Errors
    /// What it answered.
    pub async fn read(access: &Access, workspace_id: i64) -> anyhow::Result<Self> {
        let mut control = access.control()?;
        let sources = control.list_sources(ListSourcesRequest { workspace_id }).await?.into_inner().sources;
        let connections =
            control.list_connections(ListConnectionsRequest { workspace_id }).await?.into_inner().connections;
        Ok(Self {
            sources: sources.into_iter().map(|s| (s.source_id, s.name)).collect(),
            connections: connections.into_iter().map(|c| (c.connection_id, c.name)).collect(),
        })
    }

    /// A source's; its number if it has none any more.
    #[must_use]
    pub fn source(&self, id: i64) -> String {
        self.sources.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// A connection's; its number if it has none any more.
    #[must_use]
    pub fn connection(&self, id: i64) -> String {
        self.connections.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Every connection, ascending by number.
    #[must_use]
    pub fn connections(&self) -> Vec<i64> {
        self.connections.keys().copied().collect()
    }

    /// Whose cursor it is: a connection's, or resolve's, which has number 0.
    #[must_use]
    pub fn reader(&self, id: i64) -> String {
        if id == 0 { "resolve".to_owned() } else { self.connection(id) }
    }

    /// The connection that is called so, by name or number.
    #[must_use]
    pub fn connection_called(&self, wanted: &str) -> Option<i64> {
        called(&self.connections, wanted)
    }

    /// The source that is called so, by name or number.
    #[must_use]
    pub fn source_called(&self, wanted: &str) -> Option<i64> {
        called(&self.sources, wanted)
    }
}

fn called(names: &BTreeMap<i64, String>, wanted: &str) -> Option<i64> {
    let named = names.iter().find(|(_, name)| name.as_str() == wanted);
    named.map(|(id, _)| *id).or_else(|| wanted.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_meant_by_its_name_or_its_number() {
        let connections = [(1, "meta".to_owned()), (2, "7".to_owned())].into();
        let names = Names { connections, ..Names::default() };
        assert_eq!(names.connection_called("meta"), Some(1));
        assert_eq!(names.connection_called("7"), Some(2), "a name comes first");
        assert_eq!(names.connection_called("9"), Some(9), "one that is no longer there");
        assert_eq!(names.connection_called("tiktok"), None);
        assert_eq!((names.connection(1), names.connection(9)), ("meta".to_owned(), "9".to_owned()));
    }
}
