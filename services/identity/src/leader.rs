//! The leader of a profile: the member whose key is the profile's.
//!
//! A function of the member set alone, so the canonical key is equal on every replay, node and region.

use crate::identifier::ValueMac;
use crate::policy::{TypeIndex, Types};

/// The strongest of `members`: lowest priority number, then lowest hash. `None` only for nobody.
pub fn leader<T>(
    types: &Types,
    members: impl IntoIterator<Item = T>,
    identity: impl Fn(&T) -> (TypeIndex, ValueMac),
) -> Option<T> {
    members.into_iter().min_by_key(|member| {
        let (type_index, mac) = identity(member);
        types.strength(type_index, mac)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::Policy;

    #[test]
    fn priority_decides_before_the_hash() {
        let mut types = Types::new(Arc::new(Policy::default()));
        let (user, email) = (types.intern("user_id"), types.intern("email"));
        let members = [(email, ValueMac([0; 32])), (user, ValueMac([9; 32])), (user, ValueMac([5; 32]))];
        assert_eq!(leader(&types, members, |m| *m), Some((user, ValueMac([5; 32]))));
        assert_eq!(leader(&types, [] as [(TypeIndex, ValueMac); 0], |m| *m), None);
    }
}
