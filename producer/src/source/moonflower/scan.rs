//! Patterns of scan points, (y, x) in metres, around (0, 0).

use std::f64::consts::TAU;

/// Returns the first `n` points of concentric rings, `step` apart; ring k has 6 k points.
pub(super) fn round(n: usize, step: f64) -> Vec<[f64; 2]> {
    let rings = (1u32..).flat_map(|ring| {
        let count = 6 * ring;
        (0..count).map(move |k| {
            // Every ring starts a little further on, so that the points form no spokes.
            let angle = TAU * (f64::from(k) / f64::from(count) + 0.382 * f64::from(ring));
            let radius = step * f64::from(ring);
            [radius * angle.sin(), radius * angle.cos()]
        })
    });
    std::iter::once([0.0, 0.0]).chain(rings).take(n).collect()
}

/// Returns `n` points row by row on a square raster of `step`, x being fast.
pub(super) fn raster(n: usize, step: f64) -> Vec<[f64; 2]> {
    let cols = (1..).find(|c| c * c >= n).unwrap_or(1);
    let rows = n.div_ceil(cols);
    let at = |k: usize, extent: usize| (k as f64 - (extent as f64 - 1.0) / 2.0) * step;
    (0..n).map(|i| [at(i / cols, rows), at(i % cols, cols)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_both_patterns_are_a_step_apart() {
        for points in [round(200, 2.0), raster(200, 2.0)] {
            assert_eq!(points.len(), 200);
            for (i, a) in points.iter().enumerate() {
                let nearest = points
                    .iter()
                    .enumerate()
                    .filter(|(j, _)| *j != i)
                    .map(|(_, b)| (a[0] - b[0]).hypot(a[1] - b[1]))
                    .fold(f64::INFINITY, f64::min);
                assert!((1.5..2.5).contains(&nearest), "point {i}: {nearest}");
            }
        }
    }

    #[test]
    fn the_raster_runs_along_x_first() {
        let points = raster(6, 1.0);
        assert_eq!(points[0], [-0.5, -1.0]);
        assert_eq!(points[1], [-0.5, 0.0]);
        assert_eq!(points[3], [0.5, -1.0]);
    }
}
