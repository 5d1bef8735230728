//! `ptystream peek`: one prepared package of a scan, in the manner of ptypy's `verbose.report`.

use crate::auto::{Auto, AutoScan, Item, Package};
use crate::config::Config;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::Array;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_common::value::Value;
use std::fmt::Write;

/// Frames of the iterable that are shown.
const SHOWN: usize = 2;
/// Items of a list that are shown at its beginning.
const ITEMS: usize = 5;
/// Width of a name with its indentation.
const WIDTH: usize = 22;

/// Prepares the first `frames` frames and describes what came out; writes no file.
///
/// # Errors
/// What is wrong with the scan, or with one of these frames; and where none can be had.
pub fn peek(
    config: &Config,
    registry: &Registry,
    shutdown: &Shutdown,
    frames: usize,
) -> Result<String, Failure> {
    let mut scan = AutoScan::open_until(config, registry, shutdown)?;
    let package = match scan.auto(frames)? {
        Auto::Chunk(package) => package,
        Auto::Wait => {
            let text = "no frames can be had yet: fewer have come than data.min_frames, or than the \
                        first chunk has, over which the centre is found";
            return Err(Failure::new(Kind::Input, text));
        }
        Auto::EndOfScan => return Err(Failure::new(Kind::Input, "the scan has no frames")),
    };
    let mut text = describe(&package);
    for warning in scan.warnings() {
        let _ = writeln!(text, "warning: {warning}");
    }
    Ok(text)
}

struct Tree(String);

impl Tree {
    fn line(&mut self, depth: usize, name: &str, what: &str) {
        let name = format!("{}* {name}", "  ".repeat(depth));
        let _ = writeln!(self.0, "{name:<WIDTH$} : {what}");
    }
}

fn describe(package: &Package) -> String {
    let mut tree = Tree(String::new());
    tree.line(0, "package", "dict(3)");
    tree.line(1, "common", &format!("dict({})", package.common.len()));
    for (name, value) in &package.common {
        tree.line(2, name, &plain(value));
    }
    let chunk = &package.chunk;
    tree.line(1, "chunk", "dict(6)");
    tree.line(2, "indices", &list(&chunk.indices));
    tree.line(2, "indices_node", &list(&chunk.indices_node));
    tree.line(2, "num", &chunk.num.to_string());
    tree.line(2, "data", &array(&chunk.data));
    tree.line(2, "weights", &array(&chunk.weights));
    let positions = match &chunk.positions {
        None => "None".to_owned(),
        Some(all) => {
            let flat: Vec<f64> = all.iter().flatten().copied().collect();
            array(&Array::from_items(&[all.len(), 2], &flat))
        }
    };
    tree.line(2, "positions", &positions);
    tree.line(1, "iterable", &format!("list({})", chunk.indices.len()));
    for (row, item) in package.iterable().enumerate().take(SHOWN) {
        let Item { index, data, position, mask } = item;
        tree.line(2, &row.to_string(), "dict(4)");
        tree.line(3, "index", &index.to_string());
        tree.line(3, "data", &array(&data));
        let position = position.map_or("None".to_owned(), |[y, x]| format!("[{y:e}, {x:e}]"));
        tree.line(3, "position", &position);
        tree.line(3, "mask", &array(&mask));
    }
    if chunk.indices.len() > SHOWN {
        tree.line(2, "...", "");
    }
    tree.0
}

/// Describes an array by its extent, type and values.
fn array(array: &Array) -> String {
    let extent: Vec<String> = array.shape.iter().map(ToString::to_string).collect();
    let items = array.to_f64();
    let mut text = format!("[{} {} array]", extent.join("x"), array.dtype.name());
    if !items.is_empty() {
        let least = items.iter().copied().fold(f64::INFINITY, f64::min);
        let most = items.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = items.iter().sum::<f64>() / items.len() as f64;
        let _ = write!(text, " min {}, mean {}, max {}", short(least), short(mean), short(most));
    }
    text
}

/// Writes a number in six digits at most.
fn short(value: f64) -> String {
    match value.abs() {
        v if v == 0.0 || (1e-3..1e7).contains(&v) => {
            format!("{:.6}", value).trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.6e}"),
    }
}

fn list(items: &[u64]) -> String {
    let text = |items: &[u64]| items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match items.len() {
        n if n <= 2 * ITEMS => format!("[list = [{}]]", text(items)),
        n => format!("[list = [{}, ..., {}]], {n} items", text(&items[..ITEMS]), items[n - 1]),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Array(a) => {
            let items: Vec<String> = a.items.iter().map(|v| short(*v)).collect();
            format!("[array = [{}]]", items.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auto::Chunk;

    #[test]
    fn a_package_is_described_as_a_tree() {
        let data = Array::from_items(&[3, 1, 2], &[1u16, 2, 3, 4, 5, 6]);
        let weights = Array::from_items(&[3, 1, 2], &[1.0f64; 6]);
        let package = Package {
            common: vec![("energy".into(), Value::Float(6.2))],
            chunk: Chunk {
                indices: vec![0, 1, 2],
                indices_node: vec![0, 1, 2],
                num: 0,
                data,
                weights,
                positions: Some(vec![[1e-6, 2e-6]; 3]),
            },
        };
        let text = describe(&package);
        for line in [
            "    * energy           : 6.2",
            "    * indices          : [list = [0, 1, 2]]",
            "    * data             : [3x1x2 uint16 array] min 1, mean 3.5, max 6",
            "  * iterable           : list(3)",
            "      * position       : [1e-6, 2e-6]",
            "      * mask           : [1x2 float64 array] min 1, mean 1, max 1",
        ] {
            assert!(text.lines().any(|l| l == line), "'{line}' is not in\n{text}");
        }
    }
}
