//! The hash chain over the batches of a branch: equal ids with different content are detected, never merged (G1, G2, I04).

use std::fmt;

use bytes::Bytes;

/// Value after a batch: the first 16 bytes of BLAKE3 over (length of the envelope, envelope, events). The envelope holds
/// the value before the batch, so one value names a whole branch.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainValue(pub [u8; 16]);

impl ChainValue {
    /// Before the first batch of a run.
    pub const NONE: Self = Self([0; 16]);

    /// Value after the batch with these bytes.
    #[must_use]
    pub fn of_batch(envelope: &[u8], events: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(envelope.len() as u64).to_le_bytes());
        hasher.update(envelope);
        hasher.update(events);
        let mut value = [0; 16];
        value.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(value)
    }

    /// From stored bytes; empty is [`ChainValue::NONE`], any other length than 16 is none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            0 => Some(Self::NONE),
            _ => bytes.try_into().ok().map(Self),
        }
    }

    /// As stored.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        if self == Self::NONE { Bytes::new() } else { Bytes::copy_from_slice(&self.0) }
    }
}

impl fmt::Display for ChainValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
