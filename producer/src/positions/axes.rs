//! Units, sign and order of the axes of positions.

/// How two numbers of an instrument become (y, x) in metres.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axes {
    /// Metres of one unit.
    pub unit: f64,
    /// Whether (slow, fast) change their signs.
    pub flip: [bool; 2],
    /// Whether the slow axis is x.
    pub swap: bool,
}

impl Default for Axes {
    fn default() -> Self {
        Self { unit: 1.0, flip: [false; 2], swap: false }
    }
}

impl Axes {
    /// Returns the metres of a unit's name.
    pub fn unit_of(name: &str) -> Option<f64> {
        Some(match name {
            "m" => 1.0,
            "mm" => 1e-3,
            "um" | "µm" | "μm" => 1e-6,
            "nm" => 1e-9,
            _ => return None,
        })
    }

    /// Makes (y, x) of (slow, fast).
    pub fn place(&self, [slow, fast]: [f64; 2]) -> [f64; 2] {
        let signed = |value: f64, flip| if flip { -value } else { value } * self.unit;
        let (slow, fast) = (signed(slow, self.flip[0]), signed(fast, self.flip[1]));
        if self.swap { [fast, slow] } else { [slow, fast] }
    }
}

#[cfg(test)]
mod tests {
    use super::Axes;

    #[test]
    fn signs_belong_to_the_instruments_axes() {
        let axes = Axes { unit: 1e-6, flip: [true, false], swap: true };
        assert_eq!(axes.place([2.0, 3.0]), [3e-6, -2e-6]);
        assert_eq!(Axes::default().place([2.0, 3.0]), [2.0, 3.0]);
    }
}
