//! The key by which stored secrets are encrypted: AES-256-GCM with a random nonce for each value. The
//! place of a value is authenticated with it, so that no file can stand in for another.

use std::fmt;
use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Length of a key in bytes.
const KEY_BYTES: usize = 32;
/// How an encrypted value begins. A value has no NUL, so no plain value begins like this.
const MAGIC: &[u8] = b"\0trainer secret 1\0";

/// A key for stored secrets.
#[derive(Clone)]
pub struct StoreKey(Arc<LessSafeKey>);

/// A text that cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a key of 32 bytes in base64 or as 64 hexadecimal digits; `openssl rand -base64 32` makes one"
)]
pub struct NoKey;

/// Why a stored value cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "it is encrypted, and no key is configured; set TRAINER_SECRETS_KEY or TRAINER_SECRETS_KEY_FILE"
    )]
    NeedsKey,
    #[error(
        "it cannot be decrypted: it was encrypted with another key than that of TRAINER_SECRETS_KEY \
         or TRAINER_SECRETS_KEY_FILE, or its file was changed or moved"
    )]
    WrongKey,
}

impl StoreKey {
    /// Reads a key from a setting.
    ///
    /// # Errors
    ///
    /// If the text is not a key. The error does not contain it.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let text = text.trim();
        let bytes = match text.len() {
            64 => from_hex(text),
            _ => BASE64_STANDARD.decode(text).ok(),
        };
        let bytes = bytes
            .filter(|bytes| bytes.len() == KEY_BYTES)
            .ok_or(NoKey)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| NoKey)?;
        Ok(Self(Arc::new(LessSafeKey::new(key))))
    }

    /// A value, encrypted for a place.
    pub(super) fn seal(&self, place: &str, value: &[u8]) -> io::Result<Vec<u8>> {
        let failed = |_| io::Error::other("the value cannot be encrypted");
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(failed)?;
        let mut sealed = value.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let place = Aad::from(place.as_bytes());
        let key = &self.0;
        key.seal_in_place_append_tag(unique, place, &mut sealed)
            .map_err(failed)?;
        Ok([MAGIC, &nonce, &sealed].concat())
    }

    fn unseal(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut value = sealed.to_vec();
        let place = Aad::from(place.as_bytes());
        let opened = self.0.open_in_place(nonce, place, &mut value).ok()?;
        Some(opened.to_vec())
    }
}

/// The value in a file: encrypted, or plain if it was stored without a key.
///
/// # Errors
///
/// If it is encrypted and the key is missing or another one.
pub(super) fn open(
    key: Option<&StoreKey>,
    place: &str,
    content: Vec<u8>,
) -> Result<Vec<u8>, Unreadable> {
    match (content.strip_prefix(MAGIC), key) {
        (None, _) => Ok(content),
        (Some(_), None) => Err(Unreadable::NeedsKey),
        (Some(sealed), Some(key)) => key.unseal(place, sealed).ok_or(Unreadable::WrongKey),
    }
}

/// Whether the content of a file is encrypted.
pub(super) fn is_sealed(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoreKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> StoreKey {
        StoreKey::parse(&BASE64_STANDARD.encode([byte; KEY_BYTES])).unwrap()
    }

    #[test]
    fn a_value_opens_only_with_its_key_at_its_place_and_unchanged() {
        let sealed = key(1).seal("a/hub/token", b"hunter2").unwrap();
        let opened = |key: &StoreKey, place, sealed: &[u8]| open(Some(key), place, sealed.to_vec());
        assert_eq!(opened(&key(1), "a/hub/token", &sealed).unwrap(), b"hunter2");
        for (key, place) in [(key(2), "a/hub/token"), (key(1), "b/hub/token")] {
            assert_eq!(opened(&key, place, &sealed), Err(Unreadable::WrongKey));
        }
        assert_eq!(
            open(None, "a/hub/token", sealed.clone()),
            Err(Unreadable::NeedsKey)
        );
        for index in MAGIC.len()..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(
                opened(&key(1), "a/hub/token", &changed),
                Err(Unreadable::WrongKey)
            );
        }
        for length in MAGIC.len()..sealed.len() {
            let cut = opened(&key(1), "a/hub/token", &sealed[..length]);
            assert_eq!(cut, Err(Unreadable::WrongKey));
        }
        // The same value twice gives different files.
        assert_ne!(key(1).seal("a/hub/token", b"hunter2").unwrap(), sealed);
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
    }

    #[test]
    fn a_key_has_32_bytes_in_base64_or_hexadecimal() {
        for text in [
            BASE64_STANDARD.encode([7; 32]),
            "07".repeat(32),
            format!(" {}\n", "aB".repeat(32)),
        ] {
            assert!(StoreKey::parse(&text).is_ok(), "{text}");
        }
        for text in [
            "",
            "password",
            &"07".repeat(31),
            &"zz".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(StoreKey::parse(text).err(), Some(NoKey), "{text}");
        }
    }
}
