//! A PandA's positions as JSON over ZeroMQ, as MAX IV publishes them: `message_type` is `series-start`, `data`
//! with arrays under the names of fields and `frame_number`, the number of the first, or `series-end`.

use super::columns::Columns;
use super::fields::numbers;
use super::{Ending, Event};
use ptystream_common::value::Value;

/// Reads messages.
#[derive(Debug)]
pub struct PandaJson {
    columns: Columns,
    begun: bool,
}

impl PandaJson {
    /// Makes a reader of these columns.
    pub fn new(columns: Columns) -> Self {
        Self { columns, begun: false }
    }

    /// Tells what a message means.
    pub fn feed(&mut self, message: &[u8]) -> Option<Event> {
        let message = match serde_json::from_slice::<serde_json::Value>(message) {
            Ok(json) => Value::from(json),
            Err(error) => return Some(Event::Unknown(format!("it is no JSON: {error}"))),
        };
        match message.get("message_type").and_then(Value::as_str) {
            Some("series-start") => {
                self.begun = true;
                Some(Event::Begin)
            }
            Some("data") => {
                let number = message.get("frame_number").and_then(numbers);
                let number = number.and_then(|n| n.first().copied()).filter(|n| *n >= 0.0);
                let first = number.map(|n| n as u64);
                let begun = std::mem::replace(&mut self.begun, true);
                Some(match self.columns.of(&message) {
                    Ok(rows) => Event::Samples { rows, first, begun },
                    Err(text) => Event::Lacking(text),
                })
            }
            Some("series-end") if self.begun => Some(Event::End(Ending::Finished)),
            Some("series-end") => None,
            other => Some(Event::Unknown(format!("message_type {other:?} is not known"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_carry_their_numbers() {
        let mut reader = PandaJson::new(Columns::new(vec!["x".into()]));
        assert_eq!(reader.feed(br#"{"message_type": "series-end"}"#), None);
        assert_eq!(reader.feed(br#"{"message_type": "series-start"}"#), Some(Event::Begin));
        assert_eq!(
            reader.feed(br#"{"message_type": "data", "frame_number": 7, "x": [1.5, 2.5]}"#),
            Some(Event::samples(vec![vec![1.5], vec![2.5]], Some(7)))
        );
        let end = Some(Event::End(Ending::Finished));
        assert_eq!(reader.feed(br#"{"message_type": "series-end"}"#), end);
        assert!(matches!(reader.feed(b"{"), Some(Event::Unknown(_))));
        assert!(matches!(reader.feed(br#"{"message_type": "data"}"#), Some(Event::Lacking(_))));
    }
}
