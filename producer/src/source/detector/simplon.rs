//! Dectris SIMPLON stream, version 1: multipart messages of JSON and blobs.
//!
//! # Source
//! Dectris, "SIMPLON API", stream interface. The header's parts come as one message or as one each; JSON may
//! end in a line feed; truth values may be 0 and 1; `shape` is [x, y].

use super::arrivals::{Arrival, Shot};
use super::header::{Event, Header};
use bytes::{BufMut, Bytes, BytesMut};
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, RawFrame};
use ptystream_common::source::Exposure;
use ptystream_common::value::Value;
use serde_json::Value as Json;

/// Bytes of the head of bitshuffled data: length of what they decode to, and of a block.
const BSLZ4_HEAD: usize = 12;
/// No frame has more bytes.
const MOST: usize = 1 << 32;

/// A blob that follows its description.
#[derive(Debug)]
enum Blob {
    Mask(Vec<usize>),
    Flatfield(Vec<usize>),
    Other,
}

/// Reads messages.
#[derive(Debug, Default)]
pub struct Simplon {
    /// The series that is read.
    series: Option<u64>,
    header: Header,
    /// The beginning is being read, and has not been handed on.
    beginning: bool,
    /// The configuration is still to come.
    configures: bool,
    blob: Option<Blob>,
    /// Whether mask, flatfield and count-rate table are still to come.
    blobs_left: u8,
}

fn htype(json: &Json) -> &str {
    json["htype"].as_str().unwrap_or_default()
}

fn is_image(htype: &str) -> bool {
    htype.starts_with("dimage-") || htype.starts_with("image-")
}

/// Tells whether a part is the first of a message.
fn begins_another(part: &[u8]) -> bool {
    let kind = |json: &Json| {
        let kind = htype(json);
        is_image(kind) || kind.contains("header-") || kind.contains("series_end")
    };
    serde_json::from_slice::<Json>(part).is_ok_and(|json| kind(&json))
}

fn truth(json: &Json) -> bool {
    json.as_bool().unwrap_or_else(|| json.as_f64().is_some_and(|n| n != 0.0))
}

fn positive(json: &Json) -> Option<f64> {
    json.as_f64().filter(|v| v.is_finite() && *v > 0.0)
}

/// Reads [x, y] as rows and columns.
fn extent(json: &Json) -> Option<[usize; 2]> {
    let [x, y] = json.as_array()?.as_slice() else { return None };
    let n = |v: &Json| v.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    Some([n(y)?, n(x)?])
}

fn pixel_type(name: &str) -> Option<Dtype> {
    match name {
        "uint8" => Some(Dtype::U8),
        "uint16" => Some(Dtype::U16),
        "uint32" => Some(Dtype::U32),
        "int32" => Some(Dtype::I32),
        "float32" => Some(Dtype::F32),
        _ => None,
    }
}

impl Simplon {
    /// Tells what a message means; often it is nothing yet, and one simulator sends several at once.
    pub fn feed(&mut self, parts: Vec<Bytes>) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = &parts[..];
        while let Some((part, others)) = rest.split_first() {
            if let Some(blob) = self.blob.take() {
                self.take_blob(&blob, part.clone());
                rest = others;
            } else {
                match serde_json::from_slice::<Json>(part) {
                    Ok(json) if is_image(htype(&json)) => {
                        self.begun(&mut events);
                        // Description and blob; times and an appendix, as far as they are there.
                        let more = rest.iter().skip(3).take(2);
                        let count = 3 + more.take_while(|part| !begins_another(part)).count();
                        let (image, others) = rest.split_at(count.min(rest.len()));
                        events.push(self.image(json, image));
                        rest = others;
                        continue;
                    }
                    Ok(json) => self.describe(&json, &mut events),
                    Err(error) => events.push(Event::Unknown(format!("it is no JSON: {error}"))),
                }
                rest = others;
            }
            if self.beginning && !self.configures && self.blob.is_none() && self.blobs_left == 0 {
                self.begun(&mut events);
            }
        }
        events
    }

    /// Hands the beginning on, if it has not been.
    fn begun(&mut self, events: &mut Vec<Event>) {
        if std::mem::take(&mut self.beginning) {
            (self.configures, self.blobs_left) = (false, 0);
            events.push(Event::Start(Box::new(self.header.clone())));
        }
    }

    fn describe(&mut self, json: &Json, events: &mut Vec<Event>) {
        match htype(json) {
            kind if kind.starts_with("dheader-") || kind.starts_with("header-") => {
                let series = json["series"].as_u64().unwrap_or_default();
                let detail = json["header_detail"].as_str().unwrap_or("none");
                self.header = Header { series, ..Header::default() };
                self.series = Some(series);
                self.beginning = true;
                self.configures = detail != "none";
                self.blobs_left = if detail == "all" { 3 } else { 0 };
            }
            kind if kind.contains("series_end") => {
                self.begun(events);
                events.push(match self.series {
                    Some(series) if json["series"].as_u64() == Some(series) => Event::End,
                    _ => Event::OtherSeries,
                });
            }
            kind if kind.contains("flatfield-") => {
                self.blob = Some(Blob::Flatfield(shape_of(json)));
            }
            kind if kind.contains("pixelmask-") => self.blob = Some(Blob::Mask(shape_of(json))),
            kind if kind.contains("countrate_table-") => self.blob = Some(Blob::Other),
            "" if self.configures => {
                self.configure(json);
                self.configures = false;
            }
            // An appendix of the user's own.
            "" => {}
            other => events.push(Event::Unknown(format!("htype '{other}' is not known"))),
        }
    }

    fn configure(&mut self, json: &Json) {
        let header = &mut self.header;
        let count = |key: &str| json[key].as_u64();
        let (images, triggers) = (count("nimages"), count("ntrigger"));
        header.images = match json["trigger_mode"].as_str() {
            Some("exte" | "inte") => triggers,
            _ => images.map(|n| n.saturating_mul(triggers.unwrap_or(1).max(1))),
        };
        header.shape = extent(&Json::from(vec![
            json["x_pixels_in_detector"].clone(),
            json["y_pixels_in_detector"].clone(),
        ]));
        header.dtype = match count("bit_depth_image") {
            Some(8) => Some(Dtype::U8),
            Some(16) => Some(Dtype::U16),
            Some(32) => Some(Dtype::U32),
            _ => None,
        };
        header.energy = positive(&json["photon_energy"]).map(|ev| ev / 1e3);
        header.distance = positive(&json["detector_distance"]);
        let pixel = |key: &str| positive(&json[key]);
        header.psize = pixel("y_pixel_size").zip(pixel("x_pixel_size")).map(|(y, x)| [y, x]);
        header.flatfield_applied = truth(&json["flatfield_correction_applied"]);
    }

    fn take_blob(&mut self, blob: &Blob, part: Bytes) {
        self.blobs_left = self.blobs_left.saturating_sub(1);
        let array = |shape: &[usize], dtype: Dtype| match *shape {
            // [x, y], as everywhere.
            [x, y] => Array::from_bytes(dtype, &[y, x], part.clone()),
            _ => None,
        };
        match blob {
            Blob::Mask(shape) => self.header.mask = array(shape, Dtype::U32),
            Blob::Flatfield(shape) => self.header.flatfield = array(shape, Dtype::F32),
            Blob::Other => {}
        }
    }

    fn image(&self, first: Json, parts: &[Bytes]) -> Event {
        let Some(index) = first["frame"].as_u64() else {
            return Event::Unknown("an image has no number (`frame`)".into());
        };
        match (self.series, first["series"].as_u64()) {
            (Some(own), Some(series)) if own == series => {}
            _ => return Event::OtherSeries,
        }
        let arrival = match pixels(parts) {
            Ok(frame) => Arrival::Frame(Shot {
                exposure: exposure(parts),
                metadata: parts.get(4).and_then(|part| metadata(part)),
                ..Shot::plain(frame)
            }),
            Err(text) => Arrival::Damaged(text),
        };
        Event::Image(index, arrival)
    }
}

fn shape_of(json: &Json) -> Vec<usize> {
    let items = json["shape"].as_array().cloned().unwrap_or_default();
    items.iter().filter_map(|n| usize::try_from(n.as_u64()?).ok()).collect()
}

/// Reads the times of the fourth part, nanoseconds since the start of the series.
fn exposure(parts: &[Bytes]) -> Option<Exposure> {
    let times: Json = serde_json::from_slice(parts.get(3)?).ok()?;
    let seconds = |key: &str| times[key].as_f64().map(|ns| ns * 1e-9);
    Some(Exposure { start: seconds("start_time")?, stop: seconds("stop_time")? })
}

/// Reads the appendix that the user had sent with each image, where it is JSON.
fn metadata(part: &[u8]) -> Option<Value> {
    serde_json::from_slice::<Json>(part).ok().map(Value::from)
}

/// Reads description and blob of an image: pixels as the detector sent them.
fn pixels(parts: &[Bytes]) -> Result<RawFrame, String> {
    let [_, description, blob, ..] = parts else {
        return Err(format!("its message has {} parts; 3 are needed at least", parts.len()));
    };
    let json: Json = serde_json::from_slice(description)
        .map_err(|e| format!("its description is no JSON: {e}"))?;
    let name = json["type"].as_str().unwrap_or_default();
    let dtype = pixel_type(name).ok_or_else(|| format!("pixels of type '{name}' are not known"))?;
    let shape = extent(&json["shape"]).ok_or("its shape is not [x, y]")?;
    let form = FrameForm { dtype, shape };
    let bytes = shape[0].checked_mul(shape[1]).and_then(|n| n.checked_mul(dtype.size()));
    let bytes = bytes.filter(|n| *n <= MOST).ok_or("its shape is too large")?;
    let encoding = json["encoding"].as_str().unwrap_or("<");
    let (payload, encoding) = decoded_by(encoding, blob, bytes)?;
    Ok(RawFrame::new(form, encoding, payload))
}

/// Finds how a blob that decodes to `bytes` is encoded: `[bs<BIT>][[-]lz4][<|>]`.
fn decoded_by(encoding: &str, blob: &Bytes, bytes: usize) -> Result<(Bytes, Encoding), String> {
    let unknown = || format!("encoding '{encoding}' is not known");
    let little = encoding.strip_suffix('<').unwrap_or(encoding);
    if little.ends_with('>') {
        return Err(format!("encoding '{encoding}' is big-endian, which no detector sends"));
    }
    if little.is_empty() {
        return match blob.len() == bytes {
            true => Ok((blob.clone(), Encoding::Raw)),
            false => Err(format!("{} bytes of pixels came, {bytes} are needed", blob.len())),
        };
    }
    if little == "lz4" {
        return Ok((framed(blob, bytes)?, Encoding::Filters(vec![Filter::Lz4])));
    }
    let bits = little.strip_prefix("bs").and_then(|rest| rest.strip_suffix("lz4"));
    let bits = bits.ok_or_else(unknown)?.trim_end_matches('-');
    let item = match bits {
        "8" => 1,
        "16" => 2,
        "32" => 4,
        _ => return Err(unknown()),
    };
    let head = blob.get(..BSLZ4_HEAD).ok_or("its bitshuffled pixels are truncated")?;
    let said = head[..8].iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
    if said != bytes as u64 {
        return Err(format!(
            "the head of its bitshuffled pixels says {said} bytes, the frame has {bytes}"
        ));
    }
    Ok((blob.clone(), Encoding::Filters(vec![Filter::Bslz4(item)])))
}

/// Puts the head of HDF5's LZ4 filter in front of a bare block: length of all, of a block, and of the
/// compressed block.
fn framed(block: &Bytes, bytes: usize) -> Result<Bytes, String> {
    let too_large = |_| "its pixels are too many for one LZ4 block".to_owned();
    let (all, compressed) =
        (u32::try_from(bytes).map_err(too_large)?, u32::try_from(block.len()).map_err(too_large)?);
    let mut out = BytesMut::with_capacity(16 + block.len());
    out.put_u64(u64::from(all));
    out.put_u32(all);
    out.put_u32(compressed);
    out.put_slice(block);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptystream_common::codec;

    fn json(text: &str) -> Bytes {
        Bytes::from(format!("{text}\n"))
    }

    fn image(series: u64, frame: u64, encoding: &str, blob: Vec<u8>) -> Vec<Bytes> {
        vec![
            json(&format!(
                r#"{{"htype":"dimage-1.0","series":{series},"frame":{frame},"hash":"x"}}"#
            )),
            json(&format!(
                r#"{{"htype":"dimage_d-1.0","shape":[3,2],"type":"uint16","encoding":"{encoding}","size":12}}"#
            )),
            blob.into(),
            json(r#"{"htype":"dconfig-1.0","start_time":1000000000,"stop_time":1500000000}"#),
        ]
    }

    const CONFIG: &str = r#"{"nimages":5,"ntrigger":2,"trigger_mode":"exts","x_pixels_in_detector":3,
        "y_pixels_in_detector":2,"bit_depth_image":16,"photon_energy":12000.0,"x_pixel_size":7.5e-5,
        "y_pixel_size":7.4e-5,"detector_distance":1.5,"flatfield_correction_applied":1}"#;

    fn start(detail: &str) -> Bytes {
        json(&format!(r#"{{"htype":"dheader-1.0","series":4,"header_detail":"{detail}"}}"#))
    }

    #[test]
    fn several_messages_may_come_as_one() {
        let all = [
            vec![start("basic"), json(CONFIG)],
            image(4, 0, "<", vec![1; 12]),
            [image(4, 1, "<", vec![2; 12]), vec![json(r#"{"x":1.5}"#)]].concat(),
            image(4, 2, "<", vec![3; 12])[..3].to_vec(),
            vec![json(r#"{"htype":"dseries_end-1.0","series":4}"#)],
        ];
        let mut reader = Simplon::default();
        let apart: Vec<Event> = all.iter().flat_map(|parts| reader.feed(parts.clone())).collect();
        assert_eq!(Simplon::default().feed(all.concat()), apart);
        let frames = apart.iter().filter(|e| matches!(e, Event::Image(_, Arrival::Frame(_))));
        assert_eq!((frames.count(), apart.len()), (3, 5));
    }

    #[test]
    fn a_header_comes_as_one_message_or_as_several() {
        let mask: Vec<u8> = (0..6u32).flat_map(|v| (v % 2).to_le_bytes()).collect();
        let flat: Vec<u8> = (0..6).flat_map(|v| (1.0 + v as f32).to_le_bytes()).collect();
        let all = vec![
            start("all"),
            json(CONFIG),
            json(r#"{"htype":"flatfield-1.0","shape":[3,2],"type":"float32"}"#),
            flat.into(),
            json(r#"{"htype":"dpixelmask-1.0","shape":[3,2],"type":"uint32"}"#),
            mask.into(),
            json(r#"{"htype":"dcountrate_table-1.0","shape":[2,1],"type":"float32"}"#),
            Bytes::from_static(&[0; 8]),
        ];
        let together = Simplon::default().feed(all.clone());
        let mut reader = Simplon::default();
        let apart: Vec<Event> = all.into_iter().flat_map(|part| reader.feed(vec![part])).collect();
        assert_eq!(together, apart);
        let [Event::Start(header)] = &together[..] else { panic!("{together:?}") };
        assert_eq!((header.series, header.images), (4, Some(10)));
        assert_eq!(header.form(), Some(FrameForm { dtype: Dtype::U16, shape: [2, 3] }));
        assert_eq!((header.energy, header.distance), (Some(12.0), Some(1.5)));
        assert_eq!(header.psize, Some([7.4e-5, 7.5e-5]));
        assert_eq!(header.mask, Some(Array::from_items(&[2, 3], &[0u32, 1, 0, 1, 0, 1])));
        assert!(header.flatfield_applied && header.flatfield.is_some());
    }

    #[test]
    fn images_of_other_series_and_stray_ends_are_told_apart() {
        let mut reader = Simplon::default();
        let end = |series: u64| {
            vec![json(&format!(r#"{{"htype":"dseries_end-1.0","series":{series}}}"#))]
        };
        assert_eq!(reader.feed(end(3)), [Event::OtherSeries]);
        assert_eq!(reader.feed(image(3, 0, "<", vec![0; 12])), [Event::OtherSeries]);
        assert!(matches!(reader.feed(vec![start("none")])[..], [Event::Start(_)]));
        assert_eq!(reader.feed(image(3, 9, "<", vec![0; 12])), [Event::OtherSeries]);
        let events = reader.feed(image(4, 9, "<", vec![5; 12]));
        let [Event::Image(9, Arrival::Frame(Shot { frame, exposure, .. }))] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((frame.form.shape, frame.payload.len()), ([2, 3], 12));
        assert_eq!(*exposure, Some(Exposure { start: 1.0, stop: 1.5 }));
        assert_eq!(reader.feed(end(4)), [Event::End]);
    }

    #[test]
    fn each_encoding_is_found_and_bad_ones_are_named() {
        let mut reader = Simplon::default();
        reader.feed(vec![start("none")]);
        let pixels: Vec<u8> = (1..=12).collect();
        let encoded = |filters: &[Filter]| {
            let mut out = Vec::new();
            codec::encode(filters, &pixels, &mut out).expect("it can be encoded");
            out
        };
        let lz4 = encoded(&[Filter::Lz4])[16..].to_vec();
        let cases = [
            ("<", pixels.clone()),
            ("lz4<", lz4),
            ("bs16-lz4<", encoded(&[Filter::Bslz4(2)])),
            ("bs8lz4<", encoded(&[Filter::Bslz4(1)])),
            ("bs32-lz4<", encoded(&[Filter::Bslz4(4)])),
        ];
        for (encoding, blob) in cases {
            let events = reader.feed(image(4, 0, encoding, blob));
            let [Event::Image(0, Arrival::Frame(Shot { frame, .. }))] = &events[..] else {
                panic!("{encoding}: {events:?}")
            };
            let mut out = Vec::new();
            match &frame.encoding {
                Encoding::Raw => out = frame.payload.to_vec(),
                Encoding::Filters(filters) => {
                    codec::decode(filters, &frame.payload, 12, &mut out).expect(encoding);
                }
            }
            assert_eq!(out, pixels, "{encoding}");
        }
        for (encoding, blob, words) in [
            ("<", vec![0; 11], "11 bytes of pixels came"),
            ("bs16-lz4<", vec![0; 30], "says 0 bytes, the frame has 12"),
            ("bs16-lz4<", vec![0; 5], "truncated"),
            (">", vec![0; 12], "big-endian"),
            ("jpeg", vec![0; 12], "'jpeg' is not known"),
        ] {
            let events = reader.feed(image(4, 0, encoding, blob));
            let [Event::Image(0, Arrival::Damaged(text))] = &events[..] else {
                panic!("{events:?}")
            };
            assert!(text.contains(words), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_messages_make_it_panic(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
            kind in 0usize..6,
        ) {
            let heads = ["", r#"{"htype":"dimage-1.0","series":4,"frame":1}"#,
                r#"{"htype":"dpixelmask-1.0","shape":[9999999999999,2]}"#,
                r#"{"htype":"dheader-1.0","series":4,"header_detail":"all"}"#, CONFIG, "[1,2]"];
            let mut reader = Simplon::default();
            reader.feed(vec![start("none")]);
            let all = [json(heads[kind])].into_iter().chain(parts.into_iter().map(Bytes::from));
            let _ = reader.feed(all.collect());
        }
    }
}
