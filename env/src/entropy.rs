//! Random numbers: for run ids, tokens and jitter. A seeded source gives a simulation the same ones each time.

use std::sync::{Mutex, PoisonError};

/// A source of random numbers.
pub trait Entropy: Send + Sync {
    /// Sixteen random bytes: what an id is made of.
    fn bytes16(&self) -> [u8; 16];

    /// Eight random bytes as a number.
    fn u64(&self) -> u64;
}

const POOL_BYTES: usize = 4096;

/// The operating system's source, read in blocks so that an id costs a copy and not a system call.
pub struct OsEntropy {
    pool: Mutex<Pool>,
}

struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

impl OsEntropy {
    /// Opens the source and proves that it answers.
    ///
    /// # Errors
    /// The system has no entropy to give.
    pub fn new() -> std::io::Result<Self> {
        let mut bytes = [0; POOL_BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self { pool: Mutex::new(Pool { bytes, used: 0 }) })
    }

    fn take<const N: usize>(&self) -> [u8; N] {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.used + N > POOL_BYTES {
            if let Err(error) = getrandom::fill(&mut pool.bytes) {
                // It answered at start. Going on without would mint ids that repeat: worse than a stop.
                tracing::error!(%error, "the system's entropy source failed; stopping");
                std::process::abort();
            }
            pool.used = 0;
        }
        let start = pool.used;
        pool.used += N;
        let mut taken = [0; N];
        taken.copy_from_slice(&pool.bytes[start..start + N]);
        // Bytes that were given out do not stay in memory.
        pool.bytes[start..start + N].fill(0);
        taken
    }
}

impl Entropy for OsEntropy {
    fn bytes16(&self) -> [u8; 16] {
        self.take()
    }

    fn u64(&self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// SplitMix64 from a seed: the same numbers for the same seed, for tests and simulations.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<u64>,
}

impl SeededEntropy {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed) }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Entropy for SeededEntropy {
    fn bytes16(&self) -> [u8; 16] {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&split_mix(&mut state).to_le_bytes());
        bytes[8..].copy_from_slice(&split_mix(&mut state).to_le_bytes());
        bytes
    }

    fn u64(&self) -> u64 {
        split_mix(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let source = SeededEntropy::new(seed);
            (source.u64(), source.bytes16(), source.u64())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn split_mix_gives_the_published_numbers() {
        let source = SeededEntropy::new(1_234_567);
        assert_eq!(source.u64(), 6_457_827_717_110_365_317);
        assert_eq!(source.u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn the_systems_numbers_do_not_repeat_across_refills() {
        let source = OsEntropy::new().unwrap();
        let drawn: BTreeSet<_> = (0..1000).map(|_| source.bytes16()).collect();
        assert_eq!(drawn.len(), 1000);
    }
}
