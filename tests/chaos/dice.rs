//! Dice whose seed is in the message of a failed test.

use std::time::SystemTime;

use super::scene::scale;

/// A small generator (xorshift): enough to choose moments.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that are close to one another must not begin alike.
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..4 {
            dice.below(2);
        }
        dice
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }
}

/// The seed of a run: from the environment, else from the clock. Printed, so that it can be had
/// again.
pub(crate) fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = scale("PATCHDROP_CHAOS_SEED", u64::from(now.subsec_nanos()) | 1);
    println!("PATCHDROP_CHAOS_SEED={seed}");
    seed
}
