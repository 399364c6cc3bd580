//! What Google's two upload APIs share: OAuth, identifiers, click ids, orders and the error envelope.

pub mod action;
pub mod customer;
pub mod error;
pub mod oauth;
pub mod order;
pub mod time;
pub mod user;
pub mod verify;

use std::time::Duration;

use crate::destination::Pauses;

/// Oldest conversion that can still follow a click that counts: an action's window is at most 90 days long. What is older ends
/// as `EXPIRED_EVENT` (Ads API), or as `EVENT_TOO_OLD` in a verdict of Data Manager half an hour after it was "accepted", so it
/// is told apart before. Adjustments have a limit of their own. Source: Google Ads Help, "About conversion windows"; 2026-11.
pub const MAX_CONVERSION_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Oldest conversion that can be adjusted. Source: googleads v26 `CONVERSION_EXPIRED`: 54 days (guides say 55); Data Manager adjusts
/// the same conversions; 2026-11.
pub const MAX_ADJUSTMENT_AGE: Duration = Duration::from_secs(54 * 24 * 3600);

/// How long nothing is sent where Google says that there is too much and names no time: most quotas are by the minute, those of a day
/// have [`PAUSE_OF_DAY`]. Source: Google Ads API, "API quotas", "Understand API errors" (exponential backoff from 5 seconds); 2026-11.
pub const PAUSES: Pauses = Pauses { first: Duration::from_secs(5), longest: Duration::from_secs(15 * 60) };

/// How long nothing is sent where Google says that the quota of a day is used up, and names no time: what was used a day ago comes back
/// bit by bit, and asking every quarter of an hour brings it no earlier. Ours.
pub const PAUSE_OF_DAY: Duration = Duration::from_secs(3600);
