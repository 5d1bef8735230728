//! A text of columns that grows, a line a point; what stands behind `#` does not count.

use super::Event;
use super::columns::missing;

/// No line is longer.
const LONGEST: usize = 1 << 16;

/// Reads what has been added.
#[derive(Debug)]
pub struct Lines {
    /// Which columns, from 0 on.
    columns: Vec<usize>,
    rest: Vec<u8>,
    line: u64,
}

impl Lines {
    /// Makes a reader of these columns, from 0 on.
    pub fn new(columns: Vec<usize>) -> Self {
        Self { columns, rest: Vec::new(), line: 0 }
    }

    /// Tells what bytes mean; a line counts once its end is there.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.last() != Some(&b'\n') {
                if self.rest.len() > LONGEST {
                    self.rest.clear();
                    events.push(Event::Unknown("a line is longer than 64 KiB".into()));
                }
                break;
            }
            self.line += 1;
            let line = std::mem::take(&mut self.rest);
            match self.row(&line) {
                Ok(Some(row)) => rows.push(row),
                Ok(None) => {}
                Err(text) => events.push(Event::Lacking(format!("line {}: {text}", self.line))),
            }
        }
        if !rows.is_empty() {
            events.push(Event::samples(rows, None));
        }
        events
    }

    fn row(&self, line: &[u8]) -> Result<Option<Vec<f64>>, String> {
        let line = std::str::from_utf8(line).map_err(|_| "it is no text")?;
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> =
            line.split([' ', '\t', ',', ';', '\r', '\n']).filter(|w| !w.is_empty()).collect();
        if words.is_empty() {
            return Ok(None);
        }
        let number = |&column: &usize| -> Result<f64, String> {
            let word = words.get(column).ok_or_else(|| {
                let there: Vec<String> = (0..words.len()).map(|n| n.to_string()).collect();
                missing(&column.to_string(), &there)
            })?;
            word.parse().map_err(|_| format!("'{word}' in column {column} is no number"))
        };
        self.columns.iter().map(number).collect::<Result<Vec<_>, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_come_in_pieces() {
        let mut reader = Lines::new(vec![2, 0]);
        assert_eq!(reader.feed(b"# x t y\n1.5 9 2"), vec![]);
        assert_eq!(
            reader.feed(b".25\n3, 9, 4 # note\n\n5 9"),
            vec![Event::samples(vec![vec![2.25, 1.5], vec![4.0, 3.0]], None)]
        );
        let events = reader.feed(b"\n7 8 word\n");
        let texts =
            ["line 5: there is no '2'; there are 0, 1", "line 6: 'word' in column 2 is no number"];
        assert_eq!(events, texts.map(|t| Event::Lacking(t.into())));
        assert!(matches!(reader.feed(&[b'x'; LONGEST + 1])[..], [Event::Unknown(_)]));
    }
}
