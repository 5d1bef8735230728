//! Items of numpy's arrays as numbers.

/// Type of numpy's items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Items {
    kind: u8,
    size: usize,
    big_endian: bool,
}

impl Items {
    /// Reads numpy's code, such as `f8`; `None` for items that are no numbers.
    pub(super) fn of(code: &str) -> Option<Self> {
        let code = code.trim_start_matches(['<', '=', '|', '>']);
        let (kind, size) = code.split_at_checked(1)?;
        let kind = *kind.as_bytes().first()?;
        let size = size.parse().ok()?;
        let fits = match kind {
            b'f' => matches!(size, 4 | 8),
            b'i' | b'u' => matches!(size, 1 | 2 | 4 | 8),
            b'b' => size == 1,
            _ => false,
        };
        fits.then_some(Self { kind, size, big_endian: false })
    }

    /// Returns the same in the other byte order, or not.
    pub(super) fn ordered(self, big_endian: bool) -> Self {
        Self { big_endian, ..self }
    }

    /// Reads items; `None` if they are not whole.
    pub(super) fn numbers(self, bytes: &[u8]) -> Option<Vec<f64>> {
        if !bytes.len().is_multiple_of(self.size) {
            return None;
        }
        let number = |item: &[u8]| {
            let mut le = [0u8; 8];
            for (at, byte) in item.iter().enumerate() {
                le[if self.big_endian { self.size - 1 - at } else { at }] = *byte;
            }
            let whole = u64::from_le_bytes(le);
            let shift = 64 - 8 * self.size as u32;
            match (self.kind, self.size) {
                (b'f', 4) => f64::from(f32::from_bits(whole as u32)),
                (b'f', _) => f64::from_bits(whole),
                (b'i', _) => ((whole << shift) as i64 >> shift) as f64,
                _ => whole as f64,
            }
        };
        Some(bytes.chunks_exact(self.size).map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_all_sizes_and_orders_are_numbers() {
        let read = |code: &str, big_endian, bytes: &[u8]| {
            Items::of(code).and_then(|items| items.ordered(big_endian).numbers(bytes))
        };
        assert_eq!(read("<f8", false, &1.5f64.to_le_bytes()), Some(vec![1.5]));
        assert_eq!(read(">f4", true, &1.5f32.to_be_bytes()), Some(vec![1.5]));
        assert_eq!(read("i2", true, &(-3i16).to_be_bytes()), Some(vec![-3.0]));
        assert_eq!(read("i8", false, &(-3i64).to_le_bytes()), Some(vec![-3.0]));
        assert_eq!(read("|u1", false, &[255, 1]), Some(vec![255.0, 1.0]));
        assert_eq!(read("b1", false, &[1, 0]), Some(vec![1.0, 0.0]));
        assert_eq!(read("u4", false, &[0; 5]), None);
        assert_eq!(
            (Items::of("O8"), Items::of("U3"), Items::of("f2"), Items::of("")),
            (None, None, None, None)
        );
    }
}
