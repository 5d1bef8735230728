//! What a PandA sends over its data port (TCP 8888).
//!
//! ```text
//! us ──▶  XML FRAMED SCALED\n                 (or RAW, or XML ASCII SCALED)
//! OK\n
//! <header> … </header>\n\n                    fields: name, type, capture, scale, offset, units; missed
//! BIN | u32 length, these eight bytes included | rows        (framed; repeated)
//!  1 2.5 3\n                                                  (ASCII; repeated)
//! END 1500 Disarmed\n
//! ```
//!
//! Raw values are `value * scale + offset`; a raw mean is a sum over `PCAP.SAMPLES` clock ticks.
//!
//! # Source
//! PandABlocks-server, "Data capture": header, framing, reasons of the end.

use super::columns::missing;
use super::{Ending, Event};

/// No frame is longer.
const LONGEST: usize = 64 << 20;
/// No header is longer; it is looked through again with each piece.
const LONGEST_HEADER: usize = 1 << 20;
const SAMPLES: &str = "PCAP.SAMPLES";

/// What is asked for: values as `float64` where they have a scale, rows in frames.
pub const REQUEST: &[u8] = b"XML FRAMED SCALED\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    U32,
    I32,
    U64,
    I64,
    F64,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "uint32" => Self::U32,
            "int32" => Self::I32,
            "uint64" => Self::U64,
            "int64" => Self::I64,
            "double" => Self::F64,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        if matches!(self, Self::U32 | Self::I32) { 4 } else { 8 }
    }

    fn number(self, at: &[u8]) -> f64 {
        let mut le = [0; 8];
        le[..self.size()].copy_from_slice(&at[..self.size()]);
        let whole = u64::from_le_bytes(le);
        match self {
            Self::U32 => f64::from(whole as u32),
            Self::I32 => f64::from(whole as u32 as i32),
            Self::U64 => whole as f64,
            Self::I64 => whole as i64 as f64,
            Self::F64 => f64::from_bits(whole),
        }
    }
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    capture: String,
    kind: Kind,
    at: usize,
    scale: f64,
    offset: f64,
}

#[derive(Debug)]
struct Table {
    fields: Vec<Field>,
    row: usize,
    ascii: bool,
    raw: bool,
    /// Which fields are wanted.
    wanted: Vec<usize>,
    samples: Option<usize>,
}

/// Reads the bytes of the connection.
#[derive(Debug)]
pub struct Panda {
    names: Vec<String>,
    buffer: Vec<u8>,
    table: Option<Table>,
    came: u64,
    lost: bool,
}

/// Finds the field of a name such as `INENC1.VAL`, `INENC1.VAL.Mean` or `INENC1.VAL_Mean`.
fn find(fields: &[Field], name: &str) -> Result<usize, String> {
    let full = |f: &Field, mark: char| format!("{}{mark}{}", f.name, f.capture);
    if let Some(at) = fields.iter().position(|f| full(f, '.') == name || full(f, '_') == name) {
        return Ok(at);
    }
    let short: Vec<usize> = (0..fields.len()).filter(|at| fields[*at].name == name).collect();
    let all: Vec<String> = fields.iter().map(|f| full(f, '.')).collect();
    match short[..] {
        [one] => Ok(one),
        [] => Err(missing(name, &all)),
        _ => Err(format!("'{name}' is captured in several ways; {}", missing(name, &all))),
    }
}

fn table(header: &str, names: &[String]) -> Result<Table, String> {
    let xml =
        roxmltree::Document::parse(header).map_err(|e| format!("its header is no XML: {e}"))?;
    let data = xml.descendants().find(|n| n.has_tag_name("data"));
    let data = data.ok_or("its header has no <data>")?;
    let (mut fields, mut row) = (Vec::new(), 0);
    for node in xml.descendants().filter(|n| n.has_tag_name("field")) {
        let text = |key: &str| node.attribute(key).unwrap_or_default();
        let number = |key: &str, default| {
            node.attribute(key).and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        let kind = Kind::of(text("type"));
        let kind =
            kind.ok_or_else(|| format!("fields of type '{}' are not known", text("type")))?;
        fields.push(Field {
            name: text("name").to_owned(),
            capture: text("capture").to_owned(),
            kind,
            at: row,
            scale: number("scale", 1.0),
            offset: number("offset", 0.0),
        });
        row += kind.size();
    }
    let ascii = match data.attribute("format") {
        Some("ASCII") => true,
        Some("Framed") => false,
        other => return Err(format!("format {other:?} is not read; Framed or ASCII is")),
    };
    if let Some(said) = data.attribute("sample_bytes").and_then(|v| v.parse::<usize>().ok())
        && said != row
    {
        return Err(format!("a sample has {said} bytes, its fields {row}"));
    }
    let wanted = names.iter().map(|n| find(&fields, n)).collect::<Result<Vec<_>, _>>()?;
    let raw = data.attribute("process") != Some("Scaled");
    let samples = fields.iter().position(|f| f.name == SAMPLES);
    let mean = |at: &&usize| fields[**at].capture == "Mean";
    if let Some(at) = wanted.iter().find(mean).filter(|_| raw && samples.is_none()) {
        let name = &fields[*at].name;
        return Err(format!("the raw mean of '{name}' needs {SAMPLES}, which is not captured"));
    }
    Ok(Table { fields, row, ascii, raw, wanted, samples })
}

impl Table {
    /// Takes the wanted values of a row; `value`: the number of a field as it was sent.
    fn take(&self, value: impl Fn(&Field, usize) -> f64) -> Vec<f64> {
        let one = |&at: &usize| {
            let field = &self.fields[at];
            let mut number = value(field, at);
            if self.raw {
                if field.capture == "Mean"
                    && let Some(samples) = self.samples
                {
                    number /= value(&self.fields[samples], samples);
                }
                number = number * field.scale + field.offset;
            }
            number
        };
        self.wanted.iter().map(one).collect()
    }
}

impl Panda {
    /// Makes a reader of these fields.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, buffer: Vec::new(), table: None, came: 0, lost: false }
    }

    /// Makes one for another connection.
    pub fn anew(&self) -> Self {
        Self::new(self.names.clone())
    }

    /// Tells what bytes mean.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        if self.lost {
            return events;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            match self.step(&buffer[at..], &mut events) {
                Ok(0) if buffer.len() - at > LONGEST => {
                    self.lost = true;
                    events.push(Event::Unknown("what it sends has no end".into()));
                    return events;
                }
                Ok(0) => {
                    buffer.drain(..at);
                    self.buffer = buffer;
                    return events;
                }
                Ok(n) => at += n,
                Err(event) => {
                    // Nothing behind it can be told apart.
                    self.lost = true;
                    events.push(event);
                    return events;
                }
            }
        }
    }

    /// Reads one thing; tells how many bytes it had, 0: it is not whole.
    fn step(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<usize, Event> {
        let line = || bytes.iter().position(|b| *b == b'\n').map(|n| n + 1);
        if bytes.is_empty() {
            return Ok(0);
        }
        let Some(table) = &self.table else {
            return self.begin(bytes, events);
        };
        if bytes.starts_with(b"END ") {
            let Some(end) = line() else { return Ok(0) };
            let text = String::from_utf8_lossy(&bytes[4..end]).trim().to_owned();
            let (count, reason) = text.split_once(' ').unwrap_or((&text, ""));
            if let Ok(count) = count.parse::<u64>()
                && count > self.came
            {
                events.push(Event::Lost(count - self.came));
            }
            events.push(Event::End(match reason {
                "Ok" | "Disarmed" => Ending::Finished,
                other => Ending::Interrupted(format!("the PandA: {other}")),
            }));
            (self.table, self.came) = (None, 0);
            return Ok(end);
        }
        if table.ascii {
            let Some(end) = line() else { return Ok(0) };
            let text = String::from_utf8_lossy(&bytes[..end]);
            let values: Vec<f64> = text.split_whitespace().map_while(|w| w.parse().ok()).collect();
            if values.len() != table.fields.len() {
                let text =
                    format!("a line has {} numbers, not {}", values.len(), table.fields.len());
                return Err(Event::Unknown(text));
            }
            events.push(Event::samples(vec![table.take(|_, at| values[at])], None));
            self.came += 1;
            return Ok(end);
        }
        let Some(head) = bytes.get(..8) else { return Ok(0) };
        if &head[..4] != b"BIN " {
            return Err(Event::Unknown("a frame does not begin with 'BIN '".into()));
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if !(8..=LONGEST).contains(&length) || !(length - 8).is_multiple_of(table.row.max(1)) {
            let text = format!("a frame of {length} bytes does not hold samples of {}", table.row);
            return Err(Event::Unknown(text));
        }
        let Some(frame) = bytes.get(8..length) else { return Ok(0) };
        let rows: Vec<Vec<f64>> = frame
            .chunks_exact(table.row.max(1))
            .map(|row| table.take(|field, _| field.kind.number(&row[field.at..])))
            .collect();
        self.came += rows.len() as u64;
        events.push(Event::samples(rows, None));
        Ok(length)
    }

    fn begin(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<usize, Event> {
        if b"<header>".starts_with(&bytes[..bytes.len().min(8)]) {
            const END: &[u8] = b"</header>\n\n";
            let found = bytes.windows(END.len()).position(|w| w == END);
            let Some(end) = found.map(|n| n + END.len()) else {
                return match bytes.len() > LONGEST_HEADER {
                    true => Err(Event::Unknown("its header has no end".into())),
                    false => Ok(0),
                };
            };
            let header = String::from_utf8_lossy(&bytes[..end]);
            self.table = Some(table(&header, &self.names).map_err(Event::Lacking)?);
            events.push(Event::Begin);
            let missed = header.split("missed=\"").nth(1).and_then(|t| t.split('"').next());
            match missed.and_then(|n| n.parse().ok()) {
                None | Some(0) => {}
                Some(n) => events.push(Event::Lost(n)),
            }
            return Ok(end);
        }
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Ok(0) };
        match String::from_utf8_lossy(&bytes[..end]).trim() {
            "OK" | "" => Ok(end + 1),
            other => Err(Event::Unknown(format!("the PandA answers '{other}'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(process: &str, format: &str, bytes: usize) -> String {
        format!(
            "OK\n<header>\n<data missed=\"0\" process=\"{process}\" format=\"{format}\" \
             sample_bytes=\"{bytes}\" />\n<fields>\n\
             <field name=\"PCAP.BITS2\" type=\"uint32\" capture=\"Value\" />\n\
             <field name=\"PCAP.SAMPLES\" type=\"uint32\" capture=\"Value\" />\n\
             <field name=\"X.VAL\" type=\"{}\" capture=\"Mean\" scale=\"0.5\" offset=\"10\" units=\"mm\" />\n\
             </fields>\n</header>\n\n",
            if process == "Raw" { "int64" } else { "double" }
        )
    }

    fn frame(rows: &[u8]) -> Vec<u8> {
        let mut out = b"BIN ".to_vec();
        out.extend_from_slice(&(rows.len() as u32 + 8).to_le_bytes());
        out.extend_from_slice(rows);
        out
    }

    fn scaled() -> Vec<u8> {
        let mut row = [7u32, 100].map(u32::to_le_bytes).concat();
        row.extend_from_slice(&2.5f64.to_le_bytes());
        let mut all = header("Scaled", "Framed", 16).into_bytes();
        all.extend(frame(&[row.clone(), row].concat()));
        all.extend_from_slice(b"END 3 Disarmed\n");
        all
    }

    fn read(bytes: &[u8], piece: usize) -> Vec<Event> {
        let mut reader = Panda::new(vec!["X.VAL.Mean".into(), "PCAP.BITS2".into()]);
        bytes.chunks(piece).flat_map(|piece| reader.feed(piece)).collect()
    }

    #[test]
    fn framed_scaled_rows_come_in_pieces() {
        let row = vec![2.5, 7.0];
        let expected = vec![
            Event::Begin,
            Event::samples(vec![row.clone(), row], None),
            Event::Lost(1),
            Event::End(Ending::Finished),
        ];
        assert_eq!(read(&scaled(), 1000), expected);
        assert_eq!(read(&scaled(), 3), expected);
    }

    #[test]
    fn raw_means_are_sums_over_samples() {
        let mut row = [7u32, 100].map(u32::to_le_bytes).concat();
        row.extend_from_slice(&(-400i64).to_le_bytes());
        let mut all = header("Raw", "Framed", 16).into_bytes();
        all.extend(frame(&row));
        let got = read(&all, 7);
        assert_eq!(got, [Event::Begin, Event::samples(vec![vec![8.0, 7.0]], None)]);
    }

    #[test]
    fn lines_of_text_are_read() {
        let mut all = header("Scaled", "ASCII", 16).into_bytes();
        all.extend_from_slice(b" 7 100 2.5\n 8 100 -3e-2\nEND 2 Data overrun\n");
        let rows = [vec![2.5, 7.0], vec![-0.03, 8.0]].map(|row| Event::samples(vec![row], None));
        let end = Event::End(Ending::Interrupted("the PandA: Data overrun".into()));
        assert_eq!(read(&all, 5), [vec![Event::Begin], rows.to_vec(), vec![end]].concat());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut reader = Panda::new(vec!["Y".into()]);
        let events = reader.feed(&scaled());
        let [Event::Lacking(text)] = &events[..] else { panic!("{events:?}") };
        assert!(text.contains("'Y'") && text.contains("X.VAL.Mean"), "{text}");
        assert_eq!(read(b"ERR no\n", 10), [Event::Unknown("the PandA answers 'ERR no'".into())]);
        let endless = [b"<header>".to_vec(), vec![b' '; LONGEST_HEADER]].concat();
        assert!(matches!(read(&endless, 1 << 16)[..], [Event::Unknown(_)]));
        let mut odd = header("Scaled", "Framed", 16).into_bytes();
        odd.extend(frame(&[0; 17]));
        assert!(matches!(read(&odd, 1000)[..], [Event::Begin, Event::Unknown(_)]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut at in 0usize..600, byte in any::<u8>(), piece in 1usize..40) {
            let mut bytes = scaled();
            at %= bytes.len();
            bytes[at] = byte;
            drop(read(&bytes, piece));
        }
    }
}
