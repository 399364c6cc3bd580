//! A read-only look at the dedup claims: the cheap answer to a client that repeats itself.
//!
//! Only a repeat from the same source and channel, of the same event, with the same signals is a duplicate here; everything
//! else is stored and decided by delivery. So is one whose first sending the journal may have lost since it was claimed: it may be
//! the only one that is left. Whatever goes wrong (Redis away, slow, foreign bytes) means "not known".

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tracklayer_event::commerce::commerce_key;
use tracklayer_ids::{Position, Secret, WorkspaceId};
use tracklayer_journal::Journal;
use tracklayer_journal::claim::{Claim, claim_key, commerce_hash};
use tracklayer_proto::event::v1::Event;

use crate::metrics;

/// Longest look at the journal. Only for what is a repeat by its claim, and storing it again would take longer.
const JOURNAL_TIMEOUT: Duration = Duration::from_millis(100);

/// Looks at claims. Cheap to clone.
#[derive(Clone)]
pub struct Look {
    redis: ConnectionManager,
    timeout: Duration,
    journal: Arc<dyn Journal>,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Look {
    /// Over a Redis that is connected to when it is first needed, and the journal that the claims are of.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(
        url: &Secret<String>,
        timeout: Duration,
        journal: Arc<dyn Journal>,
    ) -> Result<Self, redis::RedisError> {
        let client = redis::Client::open(url.expose().as_str())?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(Duration::from_secs(1)));
        Ok(Self { redis: ConnectionManager::new_lazy_with_config(client, config)?, timeout, journal })
    }

    /// For each event whether it was accepted before, is there, and brings nothing new.
    pub async fn known_repeats(&self, workspace: WorkspaceId, events: &[&Event]) -> Vec<bool> {
        let mut repeats = vec![false; events.len()];
        let (indexes, firsts): (Vec<usize>, Vec<Position>) = self
            .first_sendings(workspace, events)
            .await
            .into_iter()
            .enumerate()
            .filter_map(|(index, first)| Some((index, first?)))
            .unzip();
        if firsts.is_empty() {
            return repeats;
        }
        let asked = self.journal.holds(workspace, &firsts);
        match tokio::time::timeout(JOURNAL_TIMEOUT, asked).await {
            Ok(Ok(held)) => indexes.into_iter().zip(held).for_each(|(index, held)| repeats[index] = held),
            Ok(Err(_)) | Err(_) => metrics::look_failed(),
        }
        repeats
    }

    /// Where the first sending of each stands, if it is the very same event.
    async fn first_sendings(&self, workspace: WorkspaceId, events: &[&Event]) -> Vec<Option<Position>> {
        let mut pipeline = redis::pipe();
        for event in events {
            pipeline.get(claim_key(workspace, &event.message_id));
        }
        let mut redis = self.redis.clone();
        let asked = pipeline.query_async::<Vec<Option<Vec<u8>>>>(&mut redis);
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(claims)) if claims.len() == events.len() => {
                let asked = events.iter().zip(claims);
                asked.map(|(event, claim)| first_sending(workspace, event, claim.as_deref())).collect()
            }
            Ok(_) | Err(_) => {
                metrics::look_failed();
                vec![None; events.len()]
            }
        }
    }
}

/// Where an earlier sending of the very same event stands, if the claim is that of one. A claim that names an order is not, for
/// another order.
fn first_sending(workspace: WorkspaceId, event: &Event, claim: Option<&[u8]>) -> Option<Position> {
    let claim = claim.and_then(Claim::decode)?;
    let of_the_order = claim.commerce.is_none_or(|commerce| {
        commerce_key(event).is_some_and(|key| commerce_hash(workspace, &key) == commerce.hash)
    });
    let is_the_same = Claim { commerce: None, ..claim } == Claim::of(event, claim.position) && of_the_order;
    is_the_same.then_some(claim.position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracklayer_journal::claim::CommerceClaim;
    use tracklayer_proto::event::v1::ConsentSignals;

    fn is_repeat(workspace: WorkspaceId, event: &Event, claim: Option<&[u8]>) -> bool {
        first_sending(workspace, event, claim).is_some()
    }

    #[test]
    fn only_the_very_same_event_is_a_repeat() {
        let event =
            Event { source_id: 7, channel: 1, r#type: 1, name: "Order Completed".into(), ..Event::default() };
        let stored = Claim::of(&event, Position::new(1, 0, 9)).encode();
        assert!(is_repeat(WorkspaceId(1), &event, Some(&stored)));
        let other_source = Event { source_id: 8, ..event.clone() };
        let other_channel = Event { channel: 2, ..event.clone() };
        let other_name = Event { name: "Order Refunded".into(), ..event.clone() };
        let gpc = ConsentSignals { gpc: true, ..ConsentSignals::default() };
        let other_signals = Event { consent: Some(gpc), ..event.clone() };
        for other in [other_source, other_channel, other_name, other_signals] {
            assert!(!is_repeat(WorkspaceId(1), &other, Some(&stored)));
        }
        assert!(!is_repeat(WorkspaceId(1), &event, None));
        assert!(!is_repeat(WorkspaceId(1), &event, Some(b"1")));
    }

    #[test]
    fn an_id_with_another_order_is_no_repeat_where_the_claim_names_an_order() {
        let order = |id: &str| Event {
            message_id: "m-1".into(),
            r#type: 1,
            name: "Order Completed".into(),
            properties_json: format!(r#"{{"order_id":"{id}"}}"#).into(),
            ..Event::default()
        };
        let event = order("A-1");
        let claim = Claim::of(&event, Position::new(1, 0, 9));
        let commerce = Some(CommerceClaim::of(WorkspaceId(1), "order_completed:A-1", "m-1"));
        let named = Claim { commerce, ..claim }.encode();
        assert!(is_repeat(WorkspaceId(1), &event, Some(&named)));
        assert!(!is_repeat(WorkspaceId(1), &order("A-2"), Some(&named)));
        assert!(
            is_repeat(WorkspaceId(1), &order("A-2"), Some(&claim.encode())),
            "its source goes by message_id"
        );
    }
}
