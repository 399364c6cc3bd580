//! Acceptance checks that Google's two upload APIs share: both take `validateOnly`, by which Google judges an upload and counts nothing.

use crate::verify::Vector;

/// Where the age limit is published.
pub const AGE_SOURCE: &str = "Google Ads Help, \"About conversion windows\"; 2026-11";

/// Where an upload has hashes.
#[derive(Debug, Clone, Copy)]
pub struct HashedAt {
    /// Of the first identifier, if it is an e-mail address.
    pub email: &'static str,
    /// Of the first identifier, if it is a phone number.
    pub phone: &'static str,
}

/// Google's published examples at these places.
#[must_use]
pub const fn vectors(at: HashedAt) -> [Vector; 2] {
    const SOURCE: &str = "googleads/data-manager-python, tests/formatter_test.py; 2026-11";
    [
        Vector {
            at: at.email,
            of: "email",
            input: "Jefferson.Loves.hiking@gmail.com",
            sha256: "515d2f967f73864e76937ab2b897210a86fd286016903b1b08c3da07c75f513e",
            source: SOURCE,
        },
        Vector {
            at: at.phone,
            of: "phone",
            input: "+1 800-555-0100",
            sha256: "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30",
            source: SOURCE,
        },
    ]
}
