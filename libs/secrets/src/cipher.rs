//! One value: AES-256-GCM with a random nonce of 96 bits. A key seals a few hundred settings in its life, far below the 2^32
//! messages up to which random nonces are safe (NIST SP 800-38D, 8.3; read 2025-11).

use aes_gcm::aead::{Aead as _, Generate as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a sealed value starts with. The version names cipher and layout; a later one gets its own.
pub const PREFIX: &str = "enc:v1:";

const NONCE_BYTES: usize = 12;

/// Why a value cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CipherFault {
    /// The operating system gives no random numbers.
    NoRandomness,
    /// The text is not what [`seal`] writes.
    Malformed,
    /// Right form, but not sealed under this key and path, or changed since.
    Refused,
}

/// Encrypts a text for one path.
pub(crate) fn seal(key: &[u8; 32], path: &str, clear: &str) -> Result<String, CipherFault> {
    let nonce = <[u8; NONCE_BYTES]>::try_generate().map_err(|_| CipherFault::NoRandomness)?;
    let sealed = Aes256Gcm::new(&(*key).into())
        .encrypt(&Nonce::from(nonce), Payload { msg: clear.as_bytes(), aad: path.as_bytes() })
        // Only a text of more than 64 GiB is refused here.
        .map_err(|_| CipherFault::Malformed)?;
    let mut bytes = nonce.to_vec();
    bytes.extend_from_slice(&sealed);
    Ok(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

/// Decrypts what [`seal`] made for the same path.
pub(crate) fn open(key: &[u8; 32], path: &str, sealed: &str) -> Result<String, CipherFault> {
    let encoded = sealed.strip_prefix(PREFIX).ok_or(CipherFault::Malformed)?;
    let bytes = STANDARD.decode(encoded).map_err(|_| CipherFault::Malformed)?;
    let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(CipherFault::Malformed)?;
    let clear = Aes256Gcm::new(&(*key).into())
        .decrypt(&Nonce::from(*nonce), Payload { msg: ciphertext, aad: path.as_bytes() })
        .map_err(|_| CipherFault::Refused)?;
    String::from_utf8(clear).map_err(|_| CipherFault::Malformed)
}
