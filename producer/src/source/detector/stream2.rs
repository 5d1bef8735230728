//! Dectris stream2: one CBOR map a message.
//!
//! # Source
//! Dectris, "stream V2"; typed arrays as in RFC 8746: tag 40 `[[rows, cols], typed]`, typed by tags 64 to
//! 86, whose content is bytes or tag 56500 `[algorithm, item size, bytes]`. Unknown keys are skipped.

use super::arrivals::{Arrival, Shot};
use super::header::{Event, Header};
use bytes::Bytes;
use minicbor::data::{Tag, Type};
use minicbor::decode::{Decoder, Error};
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, RawFrame};
use ptystream_common::source::Exposure;
use ptystream_common::value::Value;

pub(super) const SELF_DESCRIBED: u64 = 55799;
pub(super) const MULTI_DIMENSIONAL: u64 = 40;
pub(super) const COMPRESSED: u64 = 56500;
/// No frame has more bytes.
const MOST: usize = 1 << 32;
/// Deepest nesting of user_data.
const DEEPEST: usize = 16;

/// Reads messages; of frames, one channel.
#[derive(Debug)]
pub struct Stream2 {
    /// Which channel; `None`: the first.
    channel: Option<String>,
    series: Option<u64>,
}

/// An array as it stands in a message.
struct Typed {
    form: FrameForm,
    encoding: Encoding,
    payload: Bytes,
}

/// Returns the pixel type of a tag of RFC 8746, little-endian.
fn pixel_type(tag: u64) -> Option<Dtype> {
    Some(match tag {
        64 | 68 => Dtype::U8,
        69 => Dtype::U16,
        70 => Dtype::U32,
        72 => Dtype::I8,
        77 => Dtype::I16,
        78 => Dtype::I32,
        79 => Dtype::I64,
        85 => Dtype::F32,
        86 => Dtype::F64,
        _ => return None,
    })
}

/// Returns the tag of RFC 8746 of a type, little-endian.
pub(super) fn tag_of(dtype: Dtype) -> u64 {
    (64..=86).find(|tag| pixel_type(*tag) == Some(dtype)).unwrap_or(64)
}

fn named_type(name: &str) -> Option<Dtype> {
    Dtype::from_name(name).filter(|d| *d != Dtype::Bool)
}

fn other(text: &str) -> Error {
    Error::message(text.to_owned())
}

/// A number of any kind.
fn number(d: &mut Decoder<'_>) -> Result<f64, Error> {
    match d.datatype()? {
        Type::F16 | Type::F32 | Type::F64 => d.f64(),
        Type::Null | Type::Undefined => d.skip().map(|()| f64::NAN),
        _ => d.int().map(|n| i128::from(n) as f64),
    }
}

fn positive(value: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0).then_some(value)
}

/// Reads what the user had sent with an image: maps, lists, numbers and texts, others as nothing.
fn value(d: &mut Decoder<'_>, depth: usize) -> Result<Value, Error> {
    if depth == 0 {
        return Err(other("user_data is nested too deeply"));
    }
    Ok(match d.datatype()? {
        Type::Bool => Value::Bool(d.bool()?),
        Type::F16 | Type::F32 | Type::F64 => Value::Float(d.f64()?),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::I8
        | Type::I16
        | Type::I32
        | Type::I64
        | Type::Int => Value::Float(number(d)?),
        Type::String => Value::Str(d.str()?.to_owned()),
        Type::Map | Type::MapIndef => {
            let mut map = Vec::new();
            entries(d, |key, d| {
                map.push((key.to_owned(), value(d, depth - 1)?));
                Ok(())
            })?;
            Value::Map(map)
        }
        Type::Array => {
            let count = d.array()?.unwrap_or_default();
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(value(d, depth - 1)?);
            }
            Value::List(items)
        }
        _ => {
            d.skip()?;
            Value::None
        }
    })
}

/// Calls `each` with every key of a map; it reads or skips the value.
fn entries<'b>(
    d: &mut Decoder<'b>,
    mut each: impl FnMut(&'b str, &mut Decoder<'b>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = d.map()?;
    loop {
        match &mut left {
            Some(0) => return Ok(()),
            Some(n) => *n -= 1,
            None if d.datatype()? == Type::Break => return d.skip(),
            None => {}
        }
        let key = d.str()?;
        each(key, d)?;
    }
}

/// Reads `[num, den]` as seconds.
fn ratio(d: &mut Decoder<'_>) -> Result<f64, Error> {
    d.array()?;
    let (num, den) = (number(d)?, number(d)?);
    Ok(num / den)
}

/// Reads an array; `message`: the bytes that `d` reads, to share them.
fn typed(d: &mut Decoder<'_>, message: &Bytes) -> Result<Typed, Error> {
    if d.tag()? != Tag::new(MULTI_DIMENSIONAL) {
        return Err(other("an array is not of tag 40"));
    }
    if d.array()? != Some(2) || d.array()? != Some(2) {
        return Err(other("an array is not [[rows, cols], items]"));
    }
    let mut extent = || -> Result<usize, Error> {
        usize::try_from(d.u64()?).map_err(|_| other("an array is too large"))
    };
    let shape = [extent()?, extent()?];
    let tag = d.tag()?.as_u64();
    let dtype =
        pixel_type(tag).ok_or_else(|| other(&format!("items of tag {tag} are not known")))?;
    let bytes = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(dtype.size()));
    let bytes = bytes.filter(|n| *n <= MOST).ok_or_else(|| other("an array is too large"))?;
    let form = FrameForm { dtype, shape };
    if d.datatype()? != Type::Tag {
        let payload = message.slice_ref(d.bytes()?);
        if payload.len() != bytes {
            let text = format!("{} bytes of items came, {bytes} are needed", payload.len());
            return Err(other(&text));
        }
        return Ok(Typed { form, encoding: Encoding::Raw, payload });
    }
    if d.tag()? != Tag::new(COMPRESSED) || d.array()? != Some(3) {
        return Err(other("compressed items are not [algorithm, item size, bytes]"));
    }
    let algorithm = d.str()?;
    let item = d.u64()?;
    let filter = match (algorithm, u8::try_from(item)) {
        ("bslz4", Ok(item @ (1 | 2 | 4 | 8))) => Filter::Bslz4(item),
        ("lz4", _) => Filter::Lz4,
        _ => return Err(other(&format!("compression '{algorithm}' of {item} bytes is not known"))),
    };
    let payload = message.slice_ref(d.bytes()?);
    // Both begin with the length of what they decode to.
    let said = payload.get(..8).map(|h| h.iter().fold(0u64, |n, &b| n << 8 | u64::from(b)));
    if said != Some(bytes as u64) {
        return Err(other(&format!(
            "the head of the compressed items says {} bytes, the array has {bytes}",
            said.map_or_else(|| "no".into(), |n| n.to_string())
        )));
    }
    Ok(Typed { form, encoding: Encoding::Filters(vec![filter]), payload })
}

/// Reads an array that is not compressed, as it is; `None` for anything else.
fn plain(d: &mut Decoder<'_>, message: &Bytes) -> Result<Option<Array>, Error> {
    let start = d.position();
    match typed(d, message) {
        Ok(Typed { form, encoding: Encoding::Raw, payload }) => {
            Ok(Array::from_bytes(form.dtype, &form.shape, payload))
        }
        Ok(Typed { form, encoding: Encoding::Filters(filters), payload }) => {
            let mut out = Vec::new();
            let decoded =
                ptystream_common::codec::decode(&filters, &payload, form.bytes(), &mut out);
            decoded.map_err(|e| other(&e.to_string()))?;
            Ok(Array::from_bytes(form.dtype, &form.shape, out.into()))
        }
        // One simulator sends text instead.
        Err(error) => {
            tracing::warn!("an array of the stream's start is not understood: {error}");
            d.set_position(start);
            d.skip()?;
            Ok(None)
        }
    }
}

impl Stream2 {
    /// Makes a reader of one channel; `None`: the first of each message.
    pub fn new(channel: Option<String>) -> Self {
        Self { channel, series: None }
    }

    /// Tells what a message means. It has one part; one simulator sends several messages as the
    /// parts of one now and then.
    pub fn feed(&mut self, parts: Vec<Bytes>) -> Vec<Event> {
        if parts.is_empty() {
            return vec![Event::Unknown("a message has no parts".into())];
        }
        let one = |part: &Bytes| {
            self.message(part)
                .unwrap_or_else(|error| vec![Event::Unknown(format!("it is no stream2: {error}"))])
        };
        parts.iter().flat_map(one).collect()
    }

    fn message(&mut self, message: &Bytes) -> Result<Vec<Event>, Error> {
        let mut d = Decoder::new(message);
        if d.datatype()? == Type::Tag && d.tag()? != Tag::new(SELF_DESCRIBED) {
            return Err(other("it begins with another tag"));
        }
        let begin = d.position();
        let (mut kind, mut series) = ("", None);
        entries(&mut d, |key, d| match key {
            "type" => d.str().map(|text| kind = text),
            "series_id" => d.u64().map(|n| series = Some(n)),
            _ => d.skip(),
        })?;
        d.set_position(begin);
        let series = series.ok_or_else(|| other("series_id is missing"))?;
        match kind {
            "start" => {
                self.series = Some(series);
                let mut header = self.start(&mut d, message)?;
                header.series = series;
                Ok(vec![Event::Start(Box::new(header))])
            }
            _ if self.series != Some(series) => Ok(vec![Event::OtherSeries]),
            "image" => self.image(&mut d, message).map(|event| vec![event]),
            "end" => Ok(vec![Event::End]),
            other => Ok(vec![Event::Unknown(format!("type '{other}' is not known"))]),
        }
    }

    /// Tells whether a channel is the one that is read, `nth` of a map.
    fn is_wanted(&self, name: &str, nth: usize) -> bool {
        self.channel.as_deref().map_or(nth == 0, |wanted| wanted == name)
    }

    /// Reads the array of the channel in a map.
    fn of_channel<'b, T>(
        &self,
        d: &mut Decoder<'b>,
        mut read: impl FnMut(&mut Decoder<'b>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let (mut found, mut nth) = (None, 0);
        entries(d, |name, d| {
            if self.is_wanted(name, nth) && found.is_none() {
                found = Some(read(d)?);
            } else {
                d.skip()?;
            }
            nth += 1;
            Ok(())
        })?;
        Ok(found)
    }

    fn start<'b>(&self, d: &mut Decoder<'b>, message: &'b Bytes) -> Result<Header, Error> {
        let mut header = Header::default();
        let (mut rows, mut cols, mut x, mut y) = (None, None, None, None);
        let extent = |d: &mut Decoder<'_>| Ok::<_, Error>(usize::try_from(d.u64()?).ok());
        entries(d, |key, d| {
            match key {
                "number_of_images" => header.images = Some(d.u64()?),
                "image_size_x" => cols = extent(d)?,
                "image_size_y" => rows = extent(d)?,
                "image_dtype" => header.dtype = named_type(d.str()?),
                "incident_energy" => header.energy = positive(number(d)?).map(|ev| ev / 1e3),
                "pixel_size_x" => x = positive(number(d)?),
                "pixel_size_y" => y = positive(number(d)?),
                "detector_translation" => {
                    let n = d.array()?.unwrap_or_default();
                    let all = (0..n).map(|_| number(d)).collect::<Result<Vec<_>, _>>()?;
                    header.distance = all.get(2).and_then(|z| positive(z.abs()));
                }
                "pixel_mask" => {
                    header.mask = self.of_channel(d, |d| plain(d, message))?.flatten();
                }
                "flatfield" => {
                    header.flatfield = self.of_channel(d, |d| plain(d, message))?.flatten();
                }
                "flatfield_enabled" => header.flatfield_applied = d.bool()?,
                _ => d.skip()?,
            }
            Ok(())
        })?;
        header.shape = rows.zip(cols).map(|(rows, cols)| [rows, cols]);
        header.psize = y.zip(x).map(|(y, x)| [y, x]);
        Ok(header)
    }

    fn image<'b>(&self, d: &mut Decoder<'b>, message: &'b Bytes) -> Result<Event, Error> {
        let (mut index, mut start, mut stop, mut arrival) = (None, None, None, None);
        let mut metadata = None;
        let begin = d.position();
        entries(d, |key, d| match key {
            "image_id" => d.u64().map(|n| index = Some(n)),
            "start_time" => ratio(d).map(|t| start = Some(t)),
            "stop_time" => ratio(d).map(|t| stop = Some(t)),
            "user_data" => value(d, DEEPEST).map(|v| metadata = Some(v)),
            _ => d.skip(),
        })?;
        d.set_position(begin);
        let index = index.ok_or_else(|| other("image_id is missing"))?;
        let read = entries(d, |key, d| match key {
            "data" => self.of_channel(d, |d| typed(d, message)).map(|found| arrival = found),
            _ => d.skip(),
        });
        let exposure = start.zip(stop).map(|(start, stop)| Exposure { start, stop });
        let arrival = match (read, arrival) {
            (Err(error), _) => Arrival::Damaged(error.to_string()),
            (Ok(()), Some(Typed { form, encoding, payload })) => {
                let frame = RawFrame::new(form, encoding, payload);
                Arrival::Frame(Shot { exposure, metadata, ..Shot::plain(frame) })
            }
            (Ok(()), None) => Arrival::Damaged(match &self.channel {
                Some(name) => format!("it has no channel '{name}'"),
                None => "it has no channel".into(),
            }),
        };
        Ok(Event::Image(index, arrival))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicbor::Encoder;
    use proptest::prelude::*;

    type Writer = Encoder<Vec<u8>>;

    fn message(fill: impl FnOnce(&mut Writer)) -> Vec<Bytes> {
        let mut e = Encoder::new(Vec::new());
        e.tag(Tag::new(SELF_DESCRIBED)).expect("a tag");
        fill(&mut e);
        vec![e.into_writer().into()]
    }

    fn array(e: &mut Writer, items: &[u8]) {
        let done = e
            .tag(Tag::new(MULTI_DIMENSIONAL))
            .and_then(|e| e.array(2))
            .and_then(|e| e.array(2))
            .and_then(|e| e.u8(2))
            .and_then(|e| e.u8(3))
            .and_then(|e| e.tag(Tag::new(69)))
            .and_then(|e| e.bytes(items));
        done.expect("an array");
    }

    fn start() -> Vec<Bytes> {
        message(|e| {
            let done = e
                .begin_map()
                .and_then(|e| e.str("type")?.str("start"))
                .and_then(|e| e.str("series_id")?.u8(7))
                .and_then(|e| e.str("number_of_images")?.u8(9))
                .and_then(|e| e.str("image_size_x")?.u8(3))
                .and_then(|e| e.str("image_size_y")?.u8(2))
                .and_then(|e| e.str("image_dtype")?.str("uint16"))
                .and_then(|e| e.str("incident_energy")?.f64(8000.0))
                .and_then(|e| e.str("pixel_size_x")?.f64(7.5e-5))
                .and_then(|e| e.str("pixel_size_y")?.f64(7.4e-5))
                .and_then(|e| e.str("detector_translation")?.array(3))
                .and_then(|e| e.u8(0)?.u8(0)?.f64(0.25))
                .and_then(|e| e.str("user_data")?.map(1))
                .and_then(|e| e.str("deep")?.array(2)?.u8(1)?.null())
                .and_then(|e| e.str("pixel_mask")?.map(1)?.str("threshold_1"));
            done.expect("a start");
            array(e, &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            e.end().expect("the end of the map");
        })
    }

    fn image(index: u8, channels: &[&str], items: &[u8]) -> Vec<Bytes> {
        message(|e| {
            let done = e
                .map(5)
                .and_then(|e| e.str("type")?.str("image"))
                .and_then(|e| e.str("series_id")?.u8(7))
                .and_then(|e| e.str("image_id")?.u8(index))
                .and_then(|e| e.str("start_time")?.array(2)?.u32(500)?.u32(1000))
                .and_then(|e| e.str("data")?.map(channels.len() as u64));
            done.expect("an image");
            for (n, name) in (0u8..).zip(channels) {
                e.str(name).expect("a name");
                let items: Vec<u8> = items.iter().map(|v| v + n).collect();
                array(e, &items);
            }
        })
    }

    #[test]
    fn a_series_is_read_with_its_header() {
        let mut reader = Stream2::new(None);
        assert_eq!(reader.feed(image(0, &["a"], &[0; 12])), [Event::OtherSeries]);
        let events = reader.feed(start());
        let [Event::Start(header)] = &events[..] else { panic!("{events:?}") };
        assert_eq!((header.series, header.images), (7, Some(9)));
        assert_eq!(header.form(), Some(FrameForm { dtype: Dtype::U16, shape: [2, 3] }));
        assert_eq!((header.energy, header.distance), (Some(8.0), Some(0.25)));
        assert_eq!(header.psize, Some([7.4e-5, 7.5e-5]));
        assert_eq!(header.mask, Some(Array::from_items(&[2, 3], &[0u16, 1, 0, 0, 0, 0])));
        let pixels = |reader: &mut Stream2, channels: &[&str]| match &reader
            .feed(image(3, channels, &[1; 12]))[..]
        {
            [Event::Image(3, Arrival::Frame(Shot { frame, .. }))] => Ok(frame.payload.to_vec()),
            [Event::Image(3, Arrival::Damaged(text))] => Err(text.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(pixels(&mut reader, &["a", "b"]), Ok(vec![1; 12]));
        let mut second = Stream2::new(Some("b".into()));
        second.feed(start());
        assert_eq!(pixels(&mut second, &["a", "b"]), Ok(vec![2; 12]));
        assert_eq!(pixels(&mut second, &["a"]), Err("it has no channel 'b'".into()));
    }

    #[test]
    fn several_messages_as_the_parts_of_one_are_read_one_after_the_other() {
        let parts = [start(), image(0, &["a"], &[1; 12]), image(1, &["a"], &[2; 12])].concat();
        let events = Stream2::new(None).feed(parts);
        assert!(
            matches!(events[..], [Event::Start(_), Event::Image(0, _), Event::Image(1, _)]),
            "{events:?}"
        );
    }

    #[test]
    fn what_is_damaged_is_named() {
        let mut reader = Stream2::new(None);
        reader.feed(start());
        let events = reader.feed(image(0, &["a"], &[0; 11]));
        let [Event::Image(0, Arrival::Damaged(text))] = &events[..] else { panic!("{events:?}") };
        assert!(text.contains("11 bytes of items came, 12 are needed"), "{text}");
        assert!(matches!(&reader.feed(vec![Bytes::from_static(b"\xa1")])[..], [Event::Unknown(_)]));
        assert!(matches!(&reader.feed(vec![])[..], [Event::Unknown(_)]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            at in 0usize..300,
            which in 0usize..3,
        ) {
            let mut reader = Stream2::new(None);
            reader.feed(start());
            let mut whole = match which {
                0 => Vec::new(),
                1 => start()[0].to_vec(),
                _ => image(0, &["a"], &[0; 12])[0].to_vec(),
            };
            let at = at.min(whole.len());
            whole.splice(at.., bytes);
            let _ = reader.feed(vec![whole.into()]);
        }
    }
}
