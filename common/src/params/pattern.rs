//! Scan points by a formula: `positions_theory = { pattern = "snake", points = [20, 30], step = 1e-6 }`.
//!
//! | pattern | points | step |
//! |---|---|---|
//! | `raster` | [rows, columns], row by row, each from the left | [y, x], or one for both, metres |
//! | `snake` | the same, every other row from the right | the same |
//! | `round` | how many, on rings around the centre; ring k has 6 k | between rings, metres |
//! | `spiral` | how many, along Fermat's spiral | between turns, metres |
//!
//! `center = [y, x]` (metres) is the middle, (0, 0) where it is not given.

use crate::value::Value;
use std::f64::consts::TAU;

/// No scan has more points.
const MOST: usize = 100_000_000;

const NAMES: [&str; 4] = ["raster", "snake", "round", "spiral"];
const KEYS: [&str; 4] = ["pattern", "points", "step", "center"];

fn pair(value: &Value) -> Option<[f64; 2]> {
    let number = |v: &Value| v.as_f64().filter(|v| v.is_finite());
    match value {
        Value::List(items) => match &items[..] {
            [y, x] => Some([number(y)?, number(x)?]),
            _ => None,
        },
        single => number(single).map(|v| [v, v]),
    }
}

fn counts(value: &Value) -> Option<Vec<usize>> {
    let count = |v: &Value| v.as_i64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    match value {
        Value::List(items) => items.iter().map(count).collect(),
        single => count(single).map(|n| vec![n]),
    }
}

/// Returns the points (y, x) of a pattern, metres.
///
/// # Errors
/// What is missing or wrong, and the cure.
pub(super) fn points(entries: &[(String, Value)]) -> Result<Vec<[f64; 2]>, String> {
    let get = |key: &str| entries.iter().find(|(k, _)| k == key).map(|(_, v)| v);
    if let Some((key, _)) = entries.iter().find(|(key, _)| !KEYS.contains(&key.as_str())) {
        return Err(format!("a pattern has no '{key}'; it has {}", KEYS.join(", ")));
    }
    let name = get("pattern").and_then(Value::as_str).unwrap_or_default();
    if !NAMES.contains(&name) {
        return Err(format!("pattern '{name}' is not known; {}", NAMES.join(", ")));
    }
    let step = get("step").and_then(pair).filter(|s| s.iter().all(|v| *v != 0.0));
    let step = step.ok_or("a pattern needs step, in metres: a number, or [y, x]")?;
    let center = match get("center").filter(|v| !v.is_none()) {
        None => [0.0; 2],
        Some(given) => pair(given).ok_or("center is not [y, x] in metres")?,
    };
    let given = get("points").and_then(counts);
    let grid = matches!(name, "raster" | "snake");
    let extent = match given.as_deref() {
        Some(&[rows, columns]) if grid => [rows, columns],
        Some(&[count]) if !grid => [1, count],
        _ if grid => return Err("this pattern needs points = [rows, columns]".into()),
        _ => return Err("this pattern needs points, a number".into()),
    };
    let [rows, columns] = extent;
    if rows.checked_mul(columns).is_none_or(|n| n > MOST) {
        return Err(format!("{rows} x {columns} points are too many"));
    }
    let middle = |n: usize| (n as f64 - 1.0) / 2.0;
    let placed = |[y, x]: [f64; 2]| [center[0] + y * step[0], center[1] + x * step[1]];
    Ok(match name {
        "round" => {
            let rings = (1u32..).flat_map(|ring| {
                (0..6 * ring).map(move |k| {
                    let angle = TAU * f64::from(k) / f64::from(6 * ring);
                    [f64::from(ring) * angle.sin(), f64::from(ring) * angle.cos()]
                })
            });
            std::iter::once([0.0; 2]).chain(rings).take(columns).map(placed).collect()
        }
        "spiral" => (0..columns)
            .map(|i| {
                // Turns are a step apart, and so are points along it.
                let angle = (2.0 * TAU * i as f64).sqrt();
                placed([angle / TAU * angle.sin(), angle / TAU * angle.cos()])
            })
            .collect(),
        _ => (0..rows * columns)
            .map(|i| {
                let (row, column) = (i / columns, i % columns);
                let back = name == "snake" && row % 2 == 1;
                let column = if back { columns - 1 - column } else { column };
                placed([row as f64 - middle(rows), column as f64 - middle(columns)])
            })
            .collect(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<Vec<[f64; 2]>, String> {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        let Value::Map(entries) = Value::from(json) else { panic!("{text}") };
        points(&entries)
    }

    #[test]
    fn grids_run_along_x_first_and_snakes_turn() {
        let raster = made(r#"{"pattern": "raster", "points": [2, 3], "step": [2, 1]}"#).unwrap();
        assert_eq!(raster, [[-1., -1.], [-1., 0.], [-1., 1.], [1., -1.], [1., 0.], [1., 1.]]);
        let snake =
            made(r#"{"pattern": "snake", "points": [2, 3], "step": 1, "center": [0.5, 1]}"#)
                .unwrap();
        assert_eq!(snake, [[0., 0.], [0., 1.], [0., 2.], [1., 2.], [1., 1.], [1., 0.]]);
    }

    #[test]
    fn neighbours_on_rings_and_spirals_are_a_step_apart() {
        for pattern in ["round", "spiral"] {
            let text = format!(r#"{{"pattern": "{pattern}", "points": 300, "step": 2e-6}}"#);
            let all = made(&text).unwrap();
            assert_eq!((all.len(), all[0]), (300, [0.0; 2]));
            for (i, a) in all.iter().enumerate().skip(20) {
                let near = |b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
                let others = all.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, b)| near(b));
                let nearest = others.fold(f64::INFINITY, f64::min);
                assert!((1e-6..2.2e-6).contains(&nearest), "{pattern} {i}: {nearest}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            (r#"{"pattern": "snail", "points": 3, "step": 1}"#, "'snail' is not known; raster"),
            (r#"{"pattern": "raster", "points": 3, "step": 1}"#, "[rows, columns]"),
            (r#"{"pattern": "round", "points": [3, 3], "step": 1}"#, "points, a number"),
            (r#"{"pattern": "round", "points": 3}"#, "step, in metres"),
            (r#"{"pattern": "round", "points": 3, "step": 1, "centre": [0, 0]}"#, "no 'centre'"),
            (r#"{"pattern": "raster", "points": [100000, 100000], "step": 1}"#, "too many"),
        ] {
            let error = made(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
