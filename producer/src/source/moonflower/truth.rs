//! The simulated probe, object and positions as `.npy` files.
//!
//! | file | content |
//! |---|---|
//! | `<stem>_probe.npy` | `[rows, cols]` complex128 |
//! | `<stem>_object.npy` | complex128; its pixel `extent // 2` lies at position (0, 0) |
//! | `<stem>_positions.npy` | `[n, 2]` float64, (y, x) in metres |

use super::optics::Optics;
use ptystream_common::source::SourceError;
use rustfft::num_complex::Complex64;
use std::path::{Path, PathBuf};

/// Largest object that is written, in pixels per axis.
const LIMIT: usize = 16384;

/// Writes the three files.
///
/// # Errors
/// [`SourceError::Input`] naming the file that cannot be written, or the object's extent if the
/// scan is too wide.
pub(super) fn write(
    stem: &Path,
    optics: &Optics,
    positions: &[[f64; 2]],
) -> Result<(), SourceError> {
    let shape = [0, 1].map(|axis| {
        let reach = positions.iter().map(|p| p[axis].abs()).fold(0.0, f64::max);
        optics.shape()[axis] + 2 * (reach / optics.pixel()[axis]).ceil() as usize + 2
    });
    if shape.iter().any(|&e| e > LIMIT) {
        return Err(SourceError::input(format!(
            "data.truth: the object of this scan is {shape:?} pixels, more than {LIMIT}; take fewer frames or a lower data.density"
        )));
    }
    let complex =
        |values: &[Complex64]| -> Vec<f64> { values.iter().flat_map(|v| [v.re, v.im]).collect() };
    let object = optics.object([0.0, 0.0], shape);
    let places: Vec<f64> = positions.iter().flatten().copied().collect();
    put(&named(stem, "probe"), "<c16", optics.shape(), &complex(optics.probe()))?;
    put(&named(stem, "object"), "<c16", shape, &complex(&object))?;
    put(&named(stem, "positions"), "<f8", [positions.len(), 2], &places)
}

fn named(stem: &Path, what: &str) -> PathBuf {
    let stem = match stem.extension() {
        Some(e) if e == "npy" || e == "npz" => stem.with_extension(""),
        _ => stem.to_owned(),
    };
    let mut name = stem.into_os_string();
    name.push(format!("_{what}.npy"));
    name.into()
}

/// Writes a file of format version 1.0.
///
/// # Source
/// numpy, NEP 1: magic, version, header length, a Python dict padded to 64 bytes, the items.
fn put(path: &Path, descr: &str, shape: [usize; 2], items: &[f64]) -> Result<(), SourceError> {
    let [rows, cols] = shape;
    let dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((padded as u16).to_le_bytes());
    out.extend(format!("{dict:<width$}\n", width = padded - 1).bytes());
    out.extend(items.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(path, out).map_err(|source| SourceError::Input {
        text: format!("data.truth: '{}' cannot be written", path.display()),
        source: Some(Box::new(source)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::source::npy::NpyReader;

    #[test]
    fn the_written_object_holds_what_the_frames_saw() {
        let dir = tempfile::tempdir().unwrap();
        let optics = Optics::new([16, 24], 7.2, 7.19, [0.000172; 2], 10.0, 0);
        let [dy, dx] = optics.pixel();
        let positions = [[0.0, 0.0], [4.0 * dy, -6.0 * dx]];
        write(&dir.path().join("truth.npz"), &optics, &positions).unwrap();
        let places = NpyReader::default().read(&dir.path().join("truth_positions.npy")).unwrap();
        assert_eq!(places.to_f64(), positions.concat());

        let bytes = std::fs::read(dir.path().join("truth_object.npy")).unwrap();
        let head = npyz::NpyHeader::from_reader(&bytes[..]).unwrap();
        let (rows, cols) = (head.shape()[0] as usize, head.shape()[1] as usize);
        assert_eq!(head.dtype().descr(), "'<c16'");
        let data = &bytes[bytes.len() - rows * cols * 16..];
        let seen = optics.object(positions[1], [16, 24]);
        for (r, c) in [(0, 0), (8, 12), (15, 23)] {
            let (row, col) = (rows / 2 + 4 + r - 8, cols / 2 - 6 + c - 12);
            let at = (row * cols + col) * 16;
            let re = f64::from_le_bytes(data[at..at + 8].try_into().unwrap());
            assert!((re - seen[r * 24 + c].re).abs() < 1e-9);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let optics = Optics::new([16, 16], 7.2, 7.19, [0.000172; 2], 10.0, 0);
        let text =
            write(Path::new("no/such/folder/t"), &optics, &[[0.0; 2]]).unwrap_err().to_string();
        assert!(text.contains("no/such/folder/t_probe.npy"), "{text}");
    }
}
