//! Contrast, the control system of MAX IV: one pickled dict a message, over PUB.
//!
//! | `status` | what it is |
//! |---|---|
//! | `heartbeat` | nothing; comes before, between and after |
//! | `started` | the beginning, with a snapshot of all motors |
//! | `running`, or none at all | positions under the names of motors: one point, or arrays, a line |
//! | `finished`, `interrupted` | the end |

use super::columns::Columns;
use super::pickle;
use super::{Ending, Event};
use ptystream_common::value::Value;

/// Reads messages.
#[derive(Debug)]
pub struct Contrast {
    columns: Columns,
    begun: bool,
}

impl Contrast {
    /// Makes a reader of these columns.
    pub fn new(columns: Columns) -> Self {
        Self { columns, begun: false }
    }

    /// Tells what a message means.
    pub fn feed(&mut self, message: &[u8]) -> Option<Event> {
        let message = match pickle::read(message) {
            Ok(message) => message,
            Err(error) => return Some(Event::Unknown(error.to_string())),
        };
        let status = message.get("status").and_then(Value::as_str).unwrap_or("running");
        match status {
            "heartbeat" => None,
            "started" => {
                self.begun = true;
                Some(Event::Begin)
            }
            "running" => {
                let begun =
                    std::mem::replace(&mut self.begun, true) || message.get("status").is_none();
                Some(match self.columns.of(&message) {
                    Ok(rows) => Event::Samples { rows, first: None, begun },
                    Err(text) => Event::Lacking(text),
                })
            }
            // Of a scan that nobody has listened to.
            "finished" | "interrupted" if !self.begun => None,
            "finished" => Some(Event::End(Ending::Finished)),
            "interrupted" => Some(Event::End(Ending::Interrupted("contrast: interrupted".into()))),
            other => Some(Event::Unknown(format!("status '{other}' is not known"))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dict(status: Option<&str>, x: f64) -> Vec<u8> {
        let mut out = b"\x80\x02}(".to_vec();
        let mut text = |t: &str| {
            out.push(b'X');
            out.extend_from_slice(&(t.len() as u32).to_le_bytes());
            out.extend_from_slice(t.as_bytes());
        };
        if let Some(status) = status {
            text("status");
            text(status);
        }
        text("x");
        out.push(b'G');
        out.extend_from_slice(&x.to_be_bytes());
        out.extend_from_slice(b"u.");
        out
    }

    #[test]
    fn a_scan_begins_runs_and_ends() {
        let mut reader = Contrast::new(Columns::new(vec!["x".into()]));
        assert_eq!(reader.feed(&dict(Some("finished"), 0.0)), None, "of the scan before");
        let late = Event::Samples { rows: vec![vec![0.5]], first: None, begun: false };
        assert_eq!(reader.feed(&dict(Some("running"), 0.5)), Some(late));
        assert_eq!(reader.feed(&dict(Some("heartbeat"), 0.0)), None);
        assert_eq!(reader.feed(&dict(Some("started"), 0.0)), Some(Event::Begin));
        let one = Some(Event::samples(vec![vec![1.5]], None));
        assert_eq!(reader.feed(&dict(Some("running"), 1.5)), one);
        assert_eq!(reader.feed(&dict(Some("finished"), 0.0)), Some(Event::End(Ending::Finished)));
        // A sender that has no status at all.
        let mut plain = Contrast::new(Columns::new(vec!["x".into()]));
        assert_eq!(plain.feed(&dict(None, 1.5)), one);
        assert!(matches!(plain.feed(b"cos\nsystem\n."), Some(Event::Unknown(_))));
    }
}
