//! Keeps the common case away from the database: most files follow none that went wrong, and each
//! of them asks.

use std::sync::atomic::{AtomicU64, Ordering};

/// 128 KB: with 100,000 digests in it, one in sixty that are not gets through.
const BITS: usize = 1 << 20;

/// A Bloom filter of digests, which are random bits already.
#[derive(Debug)]
pub(super) struct Sieve {
    words: Vec<AtomicU64>,
}

impl Sieve {
    pub(super) fn new() -> Self {
        Self { words: (0..BITS / 64).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn insert(&self, digest: &[u8; 32]) {
        for bit in bits(digest) {
            self.words[bit / 64].fetch_or(1 << (bit % 64), Ordering::Relaxed);
        }
    }

    /// `false` only if this digest was never inserted.
    pub(super) fn may_hold(&self, digest: &[u8; 32]) -> bool {
        bits(digest).all(|bit| self.words[bit / 64].load(Ordering::Relaxed) & 1 << (bit % 64) != 0)
    }
}

fn bits(digest: &[u8; 32]) -> impl Iterator<Item = usize> {
    let (quads, _) = digest.as_chunks::<4>();
    quads.iter().take(4).map(|quad| u32::from_le_bytes(*quad) as usize % BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(number.to_le_bytes()).into()
    }

    #[test]
    fn what_was_inserted_is_never_denied_and_little_else_gets_through() {
        let sieve = Sieve::new();
        (0..10_000).for_each(|number| sieve.insert(&digest(number)));
        assert!((0..10_000).all(|number| sieve.may_hold(&digest(number))));
        let through = (10_000..20_000).filter(|number| sieve.may_hold(&digest(*number))).count();
        assert!(through < 100, "{through} of 10,000 got through");
    }
}
