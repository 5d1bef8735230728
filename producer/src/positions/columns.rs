//! Which numbers are taken from each message.

use super::fields::{find, numbers, paths};
use ptystream_common::value::Value;

/// Names shown at most where one is not found.
const SHOWN: usize = 40;

/// The columns that are wanted, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    names: Vec<String>,
}

impl Columns {
    /// Wants these.
    pub fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Returns their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the place of a column, which is wanted from now on.
    pub fn want(&mut self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// Takes a message's rows; a single number beside arrays belongs to each row.
    ///
    /// # Errors
    /// Which column is not there, and what is; which have other lengths.
    pub fn of(&self, message: &Value) -> Result<Vec<Vec<f64>>, String> {
        let mut columns = Vec::with_capacity(self.names.len());
        for name in &self.names {
            let found = find(message, name).and_then(numbers);
            columns.push(found.ok_or_else(|| missing(name, &paths(message)))?);
        }
        let rows = columns.iter().map(Vec::len).filter(|n| *n != 1).max();
        let rows = rows.unwrap_or(1);
        if let Some(at) = columns.iter().position(|c| c.len() != 1 && c.len() != rows) {
            let (name, n) = (&self.names[at], columns[at].len());
            return Err(format!("'{name}' has {n} values, others have {rows}"));
        }
        let value = |column: &Vec<f64>, row: usize| column[if column.len() == 1 { 0 } else { row }];
        Ok((0..rows).map(|row| columns.iter().map(|c| value(c, row)).collect()).collect())
    }
}

/// Says that a column is not there, and which are.
pub(super) fn missing(name: &str, there: &[String]) -> String {
    let mut shown = there.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if there.len() > SHOWN {
        shown.push_str(", ...");
    }
    match there.is_empty() {
        true => format!("there is no '{name}', nor any other number"),
        false => format!("there is no '{name}'; there are {shown}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_of_one_length() {
        let json = r#"{"x": [1, 2], "y": [3, 4], "i0": 9, "z": [1, 2, 3], "empty": []}"#;
        let message = Value::from(serde_json::from_str::<serde_json::Value>(json).unwrap());
        let rows =
            |names: &[&str]| Columns::new(names.iter().map(|n| (*n).into()).collect()).of(&message);
        assert_eq!(rows(&["y", "x", "i0"]), Ok(vec![vec![3.0, 1.0, 9.0], vec![4.0, 2.0, 9.0]]));
        assert_eq!(rows(&["i0"]), Ok(vec![vec![9.0]]));
        assert_eq!(rows(&["empty", "i0"]), Ok(vec![]));
        assert_eq!(rows(&["x", "z"]), Err("'x' has 2 values, others have 3".into()));
        let error = rows(&["q"]).unwrap_err();
        assert!(
            error.starts_with("there is no 'q'; there are ") && error.contains("i0"),
            "{error}"
        );
    }
}
