//! Random keys: write keys and admin keys.

use aes_gcm::aead::Generate as _;
use tracklayer_ids::Secret;

use crate::SecretError;

/// A new key of 256 random bits from the operating system: the prefix, which tells people what they hold, and 64 hexadecimal
/// digits.
///
/// # Errors
/// The operating system gives no random numbers.
pub fn generate_key(prefix: &str) -> Result<Secret<String>, SecretError> {
    let bytes = <[u8; 32]>::try_generate().map_err(|_| SecretError::NoRandomness)?;
    Ok(Secret::new(format!("{prefix}{}", hex::encode(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_are_never_the_same_and_carry_their_prefix() {
        let one = generate_key("wk_").unwrap();
        let two = generate_key("wk_").unwrap();
        assert_ne!(one, two);
        assert!(one.expose().starts_with("wk_"));
        assert_eq!(one.expose().len(), 3 + 64);
    }
}
