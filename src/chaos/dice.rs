//! Numbers that follow from a seed, the same on every machine and in every version.

/// A generator after Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Makes the generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number from `low` to `high`, both included.
    pub fn from(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Draws one of `items`.
    ///
    /// # Panics
    /// If there are none: that is a fault of the caller.
    pub fn one<T: Copy>(&mut self, items: &[T]) -> T {
        assert!(!items.is_empty(), "something to draw from");
        items[self.from(0, items.len() as u64 - 1) as usize]
    }

    /// Draws true in `percent` of all cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.from(1, 100) <= percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_everywhere() {
        let mut dice = Dice::new(7);
        let drawn: Vec<u64> = (0..4).map(|_| dice.from(0, 999)).collect();
        assert_eq!(drawn, [487, 804, 346, 203]);
        assert!((0..1000).map(|_| dice.from(3, 5)).all(|n| (3..=5).contains(&n)));
    }
}
