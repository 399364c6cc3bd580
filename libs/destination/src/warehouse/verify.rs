//! Acceptance checks of a warehouse: a small file beside the folders that readers look at is written, read again and removed. What else
//! there is to look at stays here.

use super::Warehouse;
use crate::verify::{Aspect, Check, Sample, Shown, Way, currencies, event_age, untold};

/// The checks.
pub fn checks(warehouse: &Warehouse, sample: &Sample) -> Vec<Check> {
    let looks_at = "a test file is written, read again and removed".to_owned();
    let mut checks =
        vec![Check { name: "credentials", aspect: Aspect::Credentials, looks_at, way: Way::File }];
    checks.extend(currencies(sample, "/properties/revenue", "/properties/currency", Shown::Here));
    checks.extend(event_age(warehouse, sample, "files have none", Shown::Here));
    let instead = "a warehouse of your own gets people as they came: nothing is hashed";
    checks.push(untold("hash_email", Aspect::Hashing, "people are hashed as published", instead));
    checks
}
