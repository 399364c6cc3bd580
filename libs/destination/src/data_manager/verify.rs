//! Acceptance checks at the Data Manager API, by `validateOnly`. Its verdict about events comes half an hour after a request that is
//! processed; of these none is.

use super::DataManager;
use crate::google::verify::{AGE_SOURCE, HashedAt, vectors};
use crate::verify::{Check, Sample, Shown, credentials, currencies, event_age, hashing};

/// The checks.
pub fn checks(data_manager: &DataManager, sample: &Sample) -> Vec<Check> {
    let at = HashedAt {
        email: "/userData/userIdentifiers/0/emailAddress",
        phone: "/userData/userIdentifiers/0/phoneNumber",
    };
    let mut checks =
        vec![credentials(sample, "the token may upload to the account and its conversion action")];
    checks.extend(currencies(sample, "/conversionValue", "/currency", Shown::ToPlatform));
    checks.extend(event_age(data_manager, sample, AGE_SOURCE, Shown::ToPlatform));
    checks.extend(hashing(sample, &vectors(at)));
    checks
}
