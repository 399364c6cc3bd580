//! What was sent for an order at a connection.
//!
//! An order that is sold goes into the index; it gets a row of `delivery.order_sent` of its own once something changes it
//! after that (a refund, a new value), which nearly all orders never see. The row then has what was sold, too, and it counts.

use std::collections::{HashMap, HashSet};

use rust_decimal::Decimal;
use sqlx::PgConnection;
use tracklayer_destination::{OrderEffect, OrderNeed, OrderState};

use super::index::{Found, Index};
use super::match_keys::MatchKeyStore;
use super::{StoreError, attempting};
use crate::lease::{Duty, Lease};
use crate::runs::{Amount, SoldOrder};

/// What was sent for orders.
#[derive(Debug, Clone)]
pub struct OrderStore {
    index: Index,
}

/// A delivered item's effect on an order.
pub type OrderChange = OrderEffect;

/// Hash under which an order is filed.
#[must_use]
pub fn order_hash(order_id: &str) -> i64 {
    xxhash_rust::xxh3::xxh3_64(order_id.as_bytes()).cast_signed()
}

/// Key under which changes of an order wait for it. None is a visitor's: what is of an order waits for nobody else.
#[must_use]
pub fn wait_key(order_id: &str) -> u64 {
    const NO_VISITORS: u64 = 0x6f72_6465_7200_0000;
    xxhash_rust::xxh3::xxh3_64_with_seed(order_id.as_bytes(), NO_VISITORS)
}

fn text(value: Option<Decimal>) -> Option<String> {
    value.map(|v| v.to_string())
}

/// What an effect writes; all effects of one statement are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    /// Into the index, and into the row if there is one.
    Sold,
    /// Into a row: it does not fit into a record, or not everybody reads the index.
    SoldAsRow,
    Restated,
    Refunded,
    RefundedWhole,
}

/// A change on its way into the tables.
struct Filed<'a> {
    hash: i64,
    change: &'a OrderChange,
    /// What a sale puts into the index.
    record: Option<SoldOrder>,
}

impl Filed<'_> {
    fn write(&self) -> Write {
        match self.change {
            OrderEffect::Sold { .. } if self.record.is_some() => Write::Sold,
            OrderEffect::Sold { .. } => Write::SoldAsRow,
            OrderEffect::Restated { .. } => Write::Restated,
            OrderEffect::Refunded { amount: Some(_), .. } => Write::Refunded,
            OrderEffect::Refunded { amount: None, .. } => Write::RefundedWhole,
        }
    }
}

impl Write {
    /// What is worth something else now has its refunds taken off already, from the value and from the total alike. The whole
    /// of an order is what refunds are measured against: the total, or the value where there is none (a total of nothing, paid
    /// with a voucher, is none), and never less than what was refunded before.
    ///
    /// Each takes value, total, currency and time of the sale: its own, or what the index has. A change makes a row of that; where
    /// there is one, the later sale counts: the index has one that the row has not where another partition sold the order while
    /// the row was made. A new value brings the currency that it is in. Of a change that a process of an earlier version told there is
    /// no time of its own: the one that it was told with stands for it. Such a process keeps no time of a new value, and leaves the one
    /// that it finds: it counts only while the order stands as restated.
    const fn statement(self) -> &'static str {
        match self {
            Self::Sold => {
                "update delivery.order_sent o
                 set value = u.v::numeric, total = u.t::numeric, currency = u.c, sold_at = u.at, restated = false,
                     restated_at = null,
                     all_back = o.all_back and o.value is null and o.sold_at is null
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]) as u (h, v, t, c, at)
                 where o.workspace_id = $1 and o.connection_id = $2 and o.order_hash = u.h"
            }
            Self::SoldAsRow => {
                "insert into delivery.order_sent as o
                     (workspace_id, connection_id, order_hash, value, total, currency, sold_at)
                 select $1, $2, u.h, u.v::numeric, u.t::numeric, u.c, u.at
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[]) as u (h, v, t, c, at)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, currency = excluded.currency,
                     sold_at = excluded.sold_at, restated = false, restated_at = null,
                     all_back = o.all_back and o.value is null and o.sold_at is null"
            }
            Self::Restated => {
                "insert into delivery.order_sent as o
                     (workspace_id, connection_id, order_hash, currency, sold_at, adjusted_at, changed_at, value, total,
                      restated, restated_at, all_back)
                 select $1, $2, u.h, coalesce(u.rc, u.c), u.at, u.adj, u.own, u.rv::numeric, u.rt::numeric, true, u.own,
                        coalesce(u.rv::numeric = 0, false)
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
                             $9::timestamptz[], $10::text[], $11::text[], $12::text[])
                     as u (h, v, t, c, at, adj, own, rv, rt, rc)
                 on conflict on constraint order_sent_pkey do update
                 set value = excluded.value, total = excluded.total, refunded = 0,
                     restated = true, all_back = excluded.all_back,
                     restated_at = greatest(o.restated_at, excluded.restated_at),
                     adjusted_at = greatest(o.adjusted_at, excluded.adjusted_at),
                     changed_at = greatest(coalesce(o.changed_at, o.adjusted_at), excluded.changed_at),
                     currency = coalesce(excluded.currency, o.currency),
                     sold_at = greatest(o.sold_at, excluded.sold_at)"
            }
            Self::Refunded => {
                "insert into delivery.order_sent as o
                     (workspace_id, connection_id, order_hash, value, total, currency, sold_at, adjusted_at, changed_at,
                      refunded)
                 select $1, $2, u.h, u.v::numeric, u.t::numeric, u.c, u.at, u.adj, u.own, u.r::numeric
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
                             $9::timestamptz[], $10::text[])
                     as u (h, v, t, c, at, adj, own, r)
                 on conflict on constraint order_sent_pkey do update
                 set (value, total, currency) = (
                         select s.value, s.total, s.currency
                         from (values (excluded.value, excluded.total, excluded.currency, true),
                                      (o.value, o.total, o.currency, false)) as s (value, total, currency, of_index)
                         where s.of_index = delivery.is_later(excluded.sold_at, o.sold_at)),
                     sold_at = greatest(o.sold_at, excluded.sold_at),
                     adjusted_at = greatest(o.adjusted_at, excluded.adjusted_at),
                     changed_at = greatest(coalesce(o.changed_at, o.adjusted_at), excluded.changed_at),
                     refunded = o.refunded + excluded.refunded"
            }
            Self::RefundedWhole => {
                "insert into delivery.order_sent as o
                     (workspace_id, connection_id, order_hash, value, total, currency, sold_at, adjusted_at, changed_at,
                      refunded, all_back)
                 select $1, $2, u.h, u.v::numeric, u.t::numeric, u.c, u.at, u.adj, u.own,
                        greatest(0, case when u.t::numeric > 0 then u.t::numeric else u.v::numeric end), true
                 from unnest($3::bigint[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[],
                             $9::timestamptz[])
                     as u (h, v, t, c, at, adj, own)
                 on conflict on constraint order_sent_pkey do update
                 set (value, total, currency, refunded) = (
                         select s.value, s.total, s.currency,
                                greatest(o.refunded, case when s.total > 0 then s.total else s.value end)
                         from (values (excluded.value, excluded.total, excluded.currency, true),
                                      (o.value, o.total, o.currency, false)) as s (value, total, currency, of_index)
                         where s.of_index = delivery.is_later(excluded.sold_at, o.sold_at)),
                     sold_at = greatest(o.sold_at, excluded.sold_at),
                     adjusted_at = greatest(o.adjusted_at, excluded.adjusted_at),
                     changed_at = greatest(coalesce(o.changed_at, o.adjusted_at), excluded.changed_at),
                     all_back = true"
            }
        }
    }
}

/// Writes what deliveries did to orders; answers whether a run was added. Of orders in `there_before` the platform
/// keeps the sale that it has: ours counts only where no other is known.
///
/// Rows of one connection are shared by its partitions, so that all lanes have to lock them in the same order: ascending,
/// also over several statements. What one statement takes are neighbours in that order of one kind, each order once;
/// nearly always that is everything.
pub(super) async fn apply(
    tx: &mut PgConnection,
    index: &Index,
    lease: &Lease,
    changes: &[OrderChange],
    there_before: &[OrderChange],
) -> Result<bool, StoreError> {
    let by_all = index.is_read_by_all();
    let only_known = not_known(tx, index, lease.duty, changes, there_before).await?;
    let mut filed: Vec<Filed<'_>> = only_known
        .into_iter()
        .chain(changes)
        .map(|change| {
            let hash = order_hash(change.order_id());
            Filed { hash, change, record: record_of(hash, change).filter(|_| by_all) }
        })
        .collect();
    // Changes of one order keep their order.
    filed.sort_by_key(|filed| filed.hash);
    let changed: Vec<i64> =
        filed.iter().filter(|f| !matches!(f.change, OrderEffect::Sold { .. })).map(|f| f.hash).collect();
    // Before the sales of this commit are there: each change sees those that stand before it.
    let mut known = sold_orders(tx, index, lease.duty, &changed).await?;
    let sold: Vec<SoldOrder> = filed.iter().filter_map(|filed| filed.record).collect();
    let grows = !sold.is_empty();
    index.add(tx, lease.duty, sold).await?;
    let together = |a: &Filed<'_>, b: &Filed<'_>| a.hash != b.hash && a.write() == b.write();
    for run in filed.chunk_by(together) {
        write(tx, lease, run, &known).await?;
        known.extend(run.iter().filter_map(|filed| Some((filed.hash, filed.record?))));
    }
    Ok(grows)
}

/// Those sales that the platform had before and of which no other one is known, each order once.
async fn not_known<'c>(
    tx: &mut PgConnection,
    index: &Index,
    duty: Duty,
    changes: &[OrderChange],
    there_before: &'c [OrderChange],
) -> Result<Vec<&'c OrderChange>, StoreError> {
    if there_before.is_empty() {
        return Ok(Vec::new());
    }
    let hash_of = |change: &OrderChange| order_hash(change.order_id());
    let hashes: Vec<i64> = there_before.iter().map(hash_of).collect();
    let mut known: HashSet<i64> = sold_orders(tx, index, duty, &hashes).await?.into_keys().collect();
    let of_rows: Vec<i64> = sqlx::query_scalar(
        "select order_hash from delivery.order_sent
         where workspace_id = $1 and connection_id = $2 and order_hash = any($3)
             and (value is not null or sold_at is not null)",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(&hashes)
    .fetch_all(tx)
    .await
    .map_err(attempting("see which orders were sold"))?;
    known.extend(of_rows);
    let sold_now = changes.iter().filter(|change| matches!(change, OrderEffect::Sold { .. }));
    known.extend(sold_now.map(hash_of));
    Ok(there_before.iter().filter(|change| known.insert(hash_of(change))).collect())
}

/// What goes into the index; none: it does not fit.
fn record_of(hash: i64, change: &OrderChange) -> Option<SoldOrder> {
    let OrderEffect::Sold { value, total, currency, at, .. } = change else { return None };
    let amount = |amount: &Option<Decimal>| match amount {
        Some(amount) => Amount::of(*amount).map(Some),
        None => Some(None),
    };
    let currency = match currency {
        Some(code) => Some(code.as_bytes().try_into().ok()?),
        None => None,
    };
    Some(SoldOrder { hash, value: amount(value)?, total: amount(total)?, currency, at: at.as_microsecond() })
}

/// What the index has of orders. Of one that several partitions have sold, the sale with the latest time counts.
async fn sold_orders(
    connection: &mut PgConnection,
    index: &Index,
    duty: Duty,
    hashes: &[i64],
) -> Result<HashMap<i64, SoldOrder>, StoreError> {
    let found: Vec<Found<SoldOrder>> =
        index.find(connection, (duty.workspace, duty.connection), hashes, |_| true).await?;
    let mut newest: HashMap<i64, HashMap<_, Found<SoldOrder>>> = HashMap::new();
    for found in found {
        let of_partition =
            newest.entry(found.record.hash).or_default().entry(found.partition).or_insert(found);
        if found.run > of_partition.run {
            *of_partition = found;
        }
    }
    let latest = newest.into_iter().filter_map(|(hash, of_partitions)| {
        let latest = of_partitions.into_iter().max_by_key(|(partition, found)| (found.record.at, *partition));
        Some((hash, latest?.1.record))
    });
    Ok(latest.collect())
}

fn currency_of(record: &SoldOrder) -> Option<String> {
    Some(String::from_utf8_lossy(&record.currency?).into_owned())
}

/// Those of them that have a row, locked in their order.
async fn lock_rows(tx: &mut PgConnection, duty: Duty, hashes: &[i64]) -> Result<Vec<i64>, StoreError> {
    sqlx::query_scalar(
        "select order_hash from delivery.order_sent
         where workspace_id = $1 and connection_id = $2 and order_hash = any($3)
             -- Asked once: where nothing is ever refunded there is no row.
             and (select exists (select from delivery.order_sent where workspace_id = $1 and connection_id = $2))
         order by order_hash for update",
    )
    .bind(duty.workspace.0)
    .bind(duty.connection.0)
    .bind(hashes)
    .fetch_all(tx)
    .await
    .map_err(attempting("lock what was sent for orders"))
}

async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    run: &[Filed<'_>],
    known: &HashMap<i64, SoldOrder>,
) -> Result<(), StoreError> {
    let Some(first) = run.first() else { return Ok(()) };
    let kind = first.write();
    let mut run: Vec<&Filed<'_>> = run.iter().collect();
    if kind == Write::Sold {
        let hashes: Vec<i64> = run.iter().map(|filed| filed.hash).collect();
        let locked: HashSet<i64> = lock_rows(tx, lease.duty, &hashes).await?.into_iter().collect();
        run.retain(|filed| locked.contains(&filed.hash));
        if run.is_empty() {
            return Ok(());
        }
    }
    let hashes: Vec<i64> = run.iter().map(|filed| filed.hash).collect();
    let (mut values, mut totals, mut currencies, mut times) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut adjusted, mut changed) = (Vec::new(), Vec::new());
    let (mut new_values, mut new_totals, mut new_currencies) = (Vec::new(), Vec::new(), Vec::new());
    for filed in &run {
        let sale = match filed.change {
            OrderEffect::Sold { value, total, currency, at, .. } => {
                Some((*value, *total, currency.clone(), *at))
            }
            _ => known.get(&filed.hash).map(|sold| {
                let at = jiff::Timestamp::from_microsecond(sold.at).unwrap_or_default();
                let (value, total) = (sold.value.map(Amount::decimal), sold.total.map(Amount::decimal));
                (value, total, currency_of(sold), at)
            }),
        };
        let (value, total, currency, at) = sale
            .map_or((None, None, None, None), |(value, total, currency, at)| {
                (value, total, currency, Some(at))
            });
        values.push(text(value));
        totals.push(text(total));
        currencies.push(currency);
        times.push(at.map(jiff_sqlx::Timestamp::from));
        match filed.change {
            OrderEffect::Restated { value, total, currency, at, changed_at, .. } => {
                adjusted.push(jiff_sqlx::Timestamp::from(*at));
                changed.push(jiff_sqlx::Timestamp::from(*changed_at));
                new_values.push(text(*value));
                new_totals.push(text(*total));
                new_currencies.push(currency.clone());
            }
            OrderEffect::Refunded { amount, at, changed_at, .. } => {
                adjusted.push(jiff_sqlx::Timestamp::from(*at));
                changed.push(jiff_sqlx::Timestamp::from(*changed_at));
                new_values.push(text(*amount));
            }
            OrderEffect::Sold { .. } => {}
        }
    }
    let duty = lease.duty;
    let query = sqlx::query(kind.statement())
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(hashes)
        .bind(values)
        .bind(totals)
        .bind(currencies)
        .bind(times);
    let query = match kind {
        Write::Sold | Write::SoldAsRow => query,
        Write::RefundedWhole => query.bind(adjusted).bind(changed),
        Write::Restated => {
            query.bind(adjusted).bind(changed).bind(new_values).bind(new_totals).bind(new_currencies)
        }
        Write::Refunded => query.bind(adjusted).bind(changed).bind(new_values),
    };
    query.execute(tx).await.map_err(attempting("remember what was sent for orders"))?;
    Ok(())
}

impl OrderStore {
    /// Over the index, and the rows beside it.
    #[must_use]
    pub fn new(index: Index) -> Self {
        Self { index }
    }

    /// What orders were matched by, beside this.
    #[must_use]
    pub fn match_keys(&self) -> MatchKeyStore {
        MatchKeyStore::new(self.index.pool().clone())
    }

    /// The states of orders at a connection, by order id; what is unknown is absent.
    ///
    /// # Errors
    /// The database.
    pub async fn states(
        &self,
        duty: Duty,
        order_ids: &[String],
    ) -> Result<HashMap<String, OrderState>, StoreError> {
        let needs: Vec<OrderNeed> = order_ids.iter().cloned().map(OrderNeed::Changes).collect();
        self.states_for(duty, &needs).await
    }

    /// The states of the orders that events need, by order id; what is unknown is absent. So is an order that is to be
    /// overwritten and has no row, since nothing has changed it: nearly none of all that is sold is looked up in the
    /// index.
    ///
    /// # Errors
    /// The database.
    pub async fn states_for(
        &self,
        duty: Duty,
        needs: &[OrderNeed],
    ) -> Result<HashMap<String, OrderState>, StoreError> {
        type Time = Option<jiff_sqlx::Timestamp>;
        type Row =
            (i64, Option<String>, Option<String>, Option<String>, Time, String, Time, Time, Time, bool, bool);
        let what = attempting("read what was sent for orders");
        let mut by_hash: HashMap<i64, &str> = HashMap::new();
        let mut changing: HashSet<i64> = HashSet::new();
        for need in needs {
            let hash = order_hash(need.order_id());
            by_hash.insert(hash, need.order_id());
            if matches!(need, OrderNeed::Changes(_)) {
                changing.insert(hash);
            }
        }
        let mut hashes: Vec<i64> = by_hash.keys().copied().collect();
        let mut connection = self.index.pool().acquire().await.map_err(&what)?;
        // Rows first: a change that comes in between takes the sale along.
        let rows: Vec<Row> = sqlx::query_as(
            "select order_hash, value::text, total::text, currency, sold_at, refunded::text, adjusted_at,
                    coalesce(changed_at, adjusted_at), case when restated then restated_at end, all_back, restated
             from delivery.order_sent
             where workspace_id = $1 and connection_id = $2 and order_hash = any($3)
                 -- Asked once: where nothing is ever refunded there is no row.
                 and (select exists (select from delivery.order_sent where workspace_id = $1 and connection_id = $2))",
        )
        .bind(duty.workspace.0)
        .bind(duty.connection.0)
        .bind(&hashes)
        .fetch_all(&mut *connection)
        .await
        .map_err(&what)?;
        let decimal = |text: Option<String>| text.and_then(|t| t.parse::<Decimal>().ok());
        let mut states: HashMap<i64, OrderState> = HashMap::new();
        for (
            hash,
            value,
            total,
            currency,
            at,
            refunded,
            adjusted_at,
            changed_at,
            restated_at,
            all_back,
            restated,
        ) in rows
        {
            let state = OrderState {
                value: decimal(value),
                total: decimal(total),
                currency,
                at: at.map(jiff_sqlx::Timestamp::to_jiff),
                // A sum that is no amount any more is beyond all of them: nothing is left of the order.
                refunded: decimal(Some(refunded)).unwrap_or(Decimal::MAX),
                adjusted_at: adjusted_at.map(jiff_sqlx::Timestamp::to_jiff),
                changed_at: changed_at.map(jiff_sqlx::Timestamp::to_jiff),
                restated_at: restated_at.map(jiff_sqlx::Timestamp::to_jiff),
                all_back,
                restated,
                match_key: None,
            };
            states.insert(hash, state);
        }
        hashes.retain(|hash| changing.contains(hash) || states.contains_key(hash));
        for (hash, sold) in sold_orders(&mut connection, &self.index, duty, &hashes).await? {
            let state = states.entry(hash).or_default();
            let at = jiff::Timestamp::from_microsecond(sold.at).ok();
            // A row knows the sale that it was made of. A later one, or the only one, was on its way at that time.
            if at > state.at {
                state.all_back &= !state.is_sold();
                state.value = sold.value.map(Amount::decimal);
                state.total = sold.total.map(Amount::decimal);
                state.currency = currency_of(&sold);
                state.at = at;
                state.restated = false;
                state.restated_at = None;
            }
        }
        let named =
            states.into_iter().filter_map(|(hash, state)| Some(((*by_hash.get(&hash)?).to_owned(), state)));
        Ok(named.collect())
    }
}
