//! Columns of numbers out of texts, `.npy` and HDF5 files.

use super::image;
use std::path::Path;

/// Reads a text of numbers: one row a line, columns apart by blanks, commas or semicolons.
///
/// Lines that begin with `#` do not count, nor a first line that names the columns.
/// # Errors
/// A text that names file and line: what is no number, and rows of another length.
pub(super) fn read(path: &Path) -> Result<Vec<Vec<f64>>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("'{}' cannot be read: {e}", path.display()))?;
    parse(&text).map_err(|text| format!("'{}', {text}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Vec<f64>>, String> {
    let mut rows: Vec<Vec<f64>> = Vec::new();
    let mut first = true;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || c == ',' || c == ';')
            .filter(|w| !w.is_empty())
            .collect();
        let row: Result<Vec<f64>, &str> =
            words.iter().map(|w| w.parse::<f64>().map_err(|_| *w)).collect();
        match row {
            Ok(row) => {
                if let Some(before) = rows.last().filter(|r| r.len() != row.len()) {
                    return Err(format!(
                        "line {number}: {} columns, the lines before have {}",
                        row.len(),
                        before.len()
                    ));
                }
                rows.push(row);
            }
            // Names of columns.
            Err(_) if first && words.iter().all(|w| w.parse::<f64>().is_err()) => {}
            Err(word) => return Err(format!("line {number}: '{word}' is not a number")),
        }
        first = false;
    }
    Ok(rows)
}

/// Reads one column: of a text, of a `.npy`, or of the dataset `key` of an HDF5 file.
///
/// A `.npy` or dataset of one dimension is a column itself; of two dimensions, `column` counts along the
/// last axis.
/// # Errors
/// A text that names the file, and the column that is not there.
pub(super) fn column(path: &Path, key: Option<&str>, column: usize) -> Result<Vec<f64>, String> {
    let missing = |there: usize| {
        format!("'{}' has {there} columns; there is no column {column}", path.display())
    };
    let array = match image::read(path, key) {
        Ok(array) => array,
        // A text is none of the formats of images.
        Err(_) if key.is_none() && is_text(path) => {
            let rows = read(path)?;
            let pick = |row: &Vec<f64>| row.get(column).copied().ok_or_else(|| missing(row.len()));
            return rows.iter().map(pick).collect();
        }
        Err(text) => return Err(text),
    };
    let items = array.to_f64();
    let shape: Vec<usize> = array.shape.iter().copied().filter(|&e| e != 1).collect();
    match shape[..] {
        [] | [_] => Ok(items),
        [_, columns] if column < columns => {
            Ok(items.into_iter().skip(column).step_by(columns).collect())
        }
        [_, columns] => Err(missing(columns)),
        _ => Err(format!("'{}' has shape {:?}; columns are needed", path.display(), array.shape)),
    }
}

/// Tells whether a file begins like a text.
fn is_text(path: &Path) -> bool {
    use std::io::Read;
    let mut start = Vec::new();
    let read = std::fs::File::open(path).map(|file| file.take(512).read_to_end(&mut start));
    matches!(read, Ok(Ok(_))) && !start.contains(&0) && !start.starts_with(b"{")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_apart_by_blanks_or_commas() {
        let rows = parse("# from the shutter\ny, x\n1, 2\n\n3.5;-4e-6\n5\t6\n").unwrap();
        assert_eq!(rows, [[1.0, 2.0], [3.5, -4e-6], [5.0, 6.0]]);
        assert!(parse("1 2\n3 x\n").unwrap_err().contains("line 2: 'x'"));
        assert!(parse("1 2\n3\n").unwrap_err().contains("line 2: 1 columns"));
        assert!(parse("1 x\n").unwrap_err().contains("line 1: 'x'"), "no names of columns");
    }

    #[test]
    fn a_column_is_read_from_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("i0.txt");
        std::fs::write(&text, "1 10\n2 20\n").unwrap();
        assert_eq!(column(&text, None, 1).unwrap(), [10.0, 20.0]);
        assert!(column(&text, None, 2).unwrap_err().contains("no column 2"));
        let npy = dir.path().join("i0.npy");
        let array = ndarray_npy(&[10.0, 20.0]);
        std::fs::write(&npy, array).unwrap();
        assert_eq!(column(&npy, None, 0).unwrap(), [10.0, 20.0]);
        assert!(column(&dir.path().join("no.txt"), None, 0).unwrap_err().contains("is missing"));
    }

    fn ndarray_npy(items: &[f64]) -> Vec<u8> {
        use npyz::WriterBuilder;
        let mut out = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[items.len() as u64])
            .writer(&mut out)
            .begin_nd()
            .unwrap();
        writer.extend(items.iter().copied()).unwrap();
        writer.finish().unwrap();
        out
    }
}
