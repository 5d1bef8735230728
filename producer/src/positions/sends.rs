//! What instruments of positions send: made-up series, for rehearsals and tests.

use bytes::Bytes;

/// Protocol of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Pickled dicts of a contrast: `status`, `sy`, `sx` in micrometres, `index`.
    Contrast,
    /// A PandA's data port: `Y.VAL.Value`, `X.VAL.Value` in micrometres, `INDEX.OUT.Value`.
    Panda,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Makes a pickled dict (protocol 2) of a status and numbers.
fn pickled(status: &str, numbers: &[(&str, f64)]) -> Bytes {
    let mut out = b"\x80\x02}(".to_vec();
    for (name, value) in numbers {
        text(&mut out, name);
        out.push(b'G');
        out.extend_from_slice(&value.to_be_bytes());
    }
    text(&mut out, "status");
    text(&mut out, status);
    out.extend_from_slice(b"u.");
    out.into()
}

/// What is sent before the first point.
pub fn start(how: As) -> Bytes {
    match how {
        As::Contrast => pickled("started", &[]),
        As::Panda => {
            let field = |name: &str| {
                format!(
                    "<field name=\"{name}\" type=\"double\" capture=\"Value\" scale=\"1\" offset=\"0\" units=\"\" />\n"
                )
            };
            let fields = ["Y.VAL", "X.VAL", "INDEX.OUT"].map(field).concat();
            format!(
                "OK\n<header>\n<data missed=\"0\" process=\"Scaled\" format=\"Framed\" sample_bytes=\"24\" />\n\
                 <fields>\n{fields}</fields>\n</header>\n\n"
            )
            .into()
        }
    }
}

/// The point of a frame, (y, x) in metres.
pub fn point(how: As, index: u64, [y, x]: [f64; 2]) -> Bytes {
    let (y, x, index) = (1e6 * y, 1e6 * x, index as f64);
    match how {
        As::Contrast => pickled("running", &[("sy", y), ("sx", x), ("index", index)]),
        As::Panda => {
            let mut out = b"BIN ".to_vec();
            out.extend_from_slice(&32u32.to_le_bytes());
            out.extend([y, x, index].iter().flat_map(|v| v.to_le_bytes()));
            out.into()
        }
    }
}

/// What is sent after the last of so many points.
pub fn end(how: As, points: u64) -> Bytes {
    match how {
        As::Contrast => pickled("finished", &[]),
        As::Panda => format!("END {points} Disarmed\n").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::Columns;
    use super::super::contrast::Contrast;
    use super::super::panda::Panda;
    use super::super::{Ending, Event};
    use super::*;

    #[test]
    fn what_is_sent_is_read() {
        let at = [1e-6, -2e-6];
        let rows = vec![vec![1e6 * at[0], 1e6 * at[1], 7.0]];
        let expected = [Event::Begin, Event::samples(rows, None), Event::End(Ending::Finished)];
        let names = |names: [&str; 3]| names.map(String::from).to_vec();
        let mut contrast = Contrast::new(Columns::new(names(["sy", "sx", "index"])));
        let sent = |how| [start(how), point(how, 7, at), end(how, 1)];
        let read: Vec<Event> = sent(As::Contrast).iter().filter_map(|m| contrast.feed(m)).collect();
        assert_eq!(read, expected);
        let mut panda = Panda::new(names(["Y.VAL", "X.VAL.Value", "INDEX.OUT"]));
        let read: Vec<Event> = sent(As::Panda).iter().flat_map(|m| panda.feed(m)).collect();
        assert_eq!(read, expected);
    }
}
