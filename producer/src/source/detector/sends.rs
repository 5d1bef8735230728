//! What a detector sends: messages of a made-up series, for rehearsals and tests.

use bytes::Bytes;
use minicbor::Encoder;
use minicbor::data::Tag;
use ptystream_common::codec::{self, CodecError, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use serde_json::json;
use std::convert::Infallible;

/// A series as it is announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its number.
    pub number: u64,
    /// Frames of it.
    pub frames: u64,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Type of the pixels.
    pub dtype: Dtype,
    /// Photon energy, keV.
    pub energy: f64,
    /// From the sample, metres.
    pub distance: f64,
    /// Pixel (height, width), metres.
    pub psize: [f64; 2],
    /// From frame to frame, seconds.
    pub period: f64,
    /// Whether pixels are bitshuffle-LZ4, or as they are.
    pub compressed: bool,
}

/// Protocol of a detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// SIMPLON, version 1.
    Simplon,
    /// stream2.
    Stream2,
}

/// Share of the time from frame to frame during which is exposed.
const EXPOSED: f64 = 0.9;

fn json(value: &serde_json::Value) -> Bytes {
    value.to_string().into()
}

fn map(
    fill: impl FnOnce(&mut Encoder<Vec<u8>>) -> Result<(), minicbor::encode::Error<Infallible>>,
) -> Vec<Bytes> {
    let mut e = Encoder::new(Vec::new());
    let filled =
        e.tag(Tag::new(super::stream2::SELF_DESCRIBED)).map(drop).and_then(|()| fill(&mut e));
    // Memory takes everything.
    debug_assert!(filled.is_ok());
    vec![e.into_writer().into()]
}

impl Series {
    /// Encodes a frame's pixels as they travel.
    ///
    /// # Errors
    /// [`CodecError`] if they cannot be compressed.
    pub fn encode(&self, frame: &Array) -> Result<Bytes, CodecError> {
        if !self.compressed {
            return Ok(frame.data.clone());
        }
        let mut out = Vec::new();
        codec::encode(&[Filter::Bslz4(self.dtype.size() as u8)], &frame.data, &mut out)?;
        Ok(out.into())
    }

    fn times(&self, index: u64) -> [f64; 2] {
        let start = index as f64 * self.period;
        [start, start + EXPOSED * self.period]
    }

    /// Makes the message that begins it.
    pub fn start(&self, how: As) -> Vec<Bytes> {
        let [rows, cols] = self.shape;
        let period = self.period;
        match how {
            As::Simplon => vec![
                json(
                    &json!({"htype": "dheader-1.0", "series": self.number, "header_detail": "basic"}),
                ),
                json(&json!({
                    "nimages": self.frames, "ntrigger": 1, "trigger_mode": "exts",
                    "x_pixels_in_detector": cols, "y_pixels_in_detector": rows,
                    "bit_depth_image": 8 * self.dtype.size(), "photon_energy": 1e3 * self.energy,
                    "x_pixel_size": self.psize[1], "y_pixel_size": self.psize[0],
                    "detector_distance": self.distance, "frame_time": period,
                    "count_time": EXPOSED * period, "compression": "bslz4",
                })),
            ],
            As::Stream2 => map(|e| {
                e.map(11)?.str("type")?.str("start")?;
                e.str("series_id")?.u64(self.number)?.str("number_of_images")?.u64(self.frames)?;
                e.str("image_size_x")?.u64(cols as u64)?.str("image_size_y")?.u64(rows as u64)?;
                e.str("image_dtype")?.str(self.dtype.name())?;
                e.str("incident_energy")?.f64(1e3 * self.energy)?;
                e.str("pixel_size_x")?
                    .f64(self.psize[1])?
                    .str("pixel_size_y")?
                    .f64(self.psize[0])?;
                e.str("detector_translation")?.array(3)?.f64(0.0)?.f64(0.0)?.f64(self.distance)?;
                e.str("frame_time")?.f64(period).map(drop)
            }),
        }
    }

    /// Makes the message of a frame; `pixels` as [`Self::encode`] makes them.
    pub fn image(&self, how: As, index: u64, pixels: &Bytes) -> Vec<Bytes> {
        let [rows, cols] = self.shape;
        let [start, stop] = self.times(index);
        let nanoseconds = |secs: f64| (secs * 1e9).round() as u64;
        match how {
            As::Simplon => {
                let bits = 8 * self.dtype.size();
                let encoding = if self.compressed { format!("bs{bits}-lz4<") } else { "<".into() };
                vec![
                    json(
                        &json!({"htype": "dimage-1.0", "series": self.number, "frame": index, "hash": ""}),
                    ),
                    json(&json!({
                        "htype": "dimage_d-1.0", "shape": [cols, rows], "type": self.dtype.name(),
                        "encoding": encoding, "size": pixels.len(),
                    })),
                    pixels.clone(),
                    json(&json!({
                        "htype": "dconfig-1.0", "start_time": nanoseconds(start),
                        "stop_time": nanoseconds(stop), "real_time": nanoseconds(stop - start),
                    })),
                ]
            }
            As::Stream2 => map(|e| {
                e.map(6)?.str("type")?.str("image")?.str("series_id")?.u64(self.number)?;
                e.str("image_id")?.u64(index)?;
                for (key, secs) in [("start_time", start), ("stop_time", stop)] {
                    e.str(key)?.array(2)?.u64(nanoseconds(secs))?.u64(1_000_000_000)?;
                }
                e.str("data")?.map(1)?.str("threshold_1")?;
                e.tag(Tag::new(super::stream2::MULTI_DIMENSIONAL))?.array(2)?;
                e.array(2)?.u64(rows as u64)?.u64(cols as u64)?;
                e.tag(Tag::new(super::stream2::tag_of(self.dtype)))?;
                if self.compressed {
                    e.tag(Tag::new(super::stream2::COMPRESSED))?.array(3)?.str("bslz4")?;
                    e.u64(self.dtype.size() as u64)?;
                }
                e.bytes(pixels).map(drop)
            }),
        }
    }

    /// Makes the message that ends it.
    pub fn end(&self, how: As) -> Vec<Bytes> {
        match how {
            As::Simplon => vec![json(&json!({"htype": "dseries_end-1.0", "series": self.number}))],
            As::Stream2 => map(|e| {
                e.map(2)?.str("type")?.str("end")?.str("series_id")?.u64(self.number).map(drop)
            }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::arrivals::{Arrival, Shot};
    use super::super::header::Event;
    use super::super::{simplon::Simplon, stream2::Stream2};
    use super::*;
    use ptystream_common::codec::Encoding;

    #[test]
    fn what_is_sent_is_read() {
        let frame = Array::from_items(&[2, 3], &[1u16, 2, 3, 4, 5, 600]);
        for (how, compressed) in
            [(As::Simplon, false), (As::Simplon, true), (As::Stream2, false), (As::Stream2, true)]
        {
            let series = Series {
                number: 5,
                frames: 2,
                shape: [2, 3],
                dtype: Dtype::U16,
                energy: 8.0,
                distance: 2.0,
                psize: [1e-4, 2e-4],
                period: 0.01,
                compressed,
            };
            let pixels = series.encode(&frame).unwrap();
            let all = [series.start(how), series.image(how, 1, &pixels), series.end(how)];
            let (mut one, mut two) = (Simplon::default(), Stream2::new(None));
            let mut feed = |parts: Vec<Bytes>| match how {
                As::Simplon => one.feed(parts),
                As::Stream2 => two.feed(parts),
            };
            let events: Vec<Event> = all.into_iter().flat_map(&mut feed).collect();
            let [
                Event::Start(header),
                Event::Image(1, Arrival::Frame(Shot { frame: raw, exposure, .. })),
                Event::End,
            ] = &events[..]
            else {
                panic!("{events:?}")
            };
            assert_eq!((header.images, header.energy), (Some(2), Some(8.0)));
            assert_eq!((header.distance, header.psize), (Some(2.0), Some([1e-4, 2e-4])));
            let decoded = match &raw.encoding {
                Encoding::Raw => raw.payload.to_vec(),
                Encoding::Filters(filters) => {
                    let mut out = Vec::new();
                    codec::decode(filters, &raw.payload, 12, &mut out).unwrap();
                    out
                }
            };
            assert_eq!(decoded, frame.data);
            let exposure = exposure.unwrap();
            assert!((exposure.start - 0.01).abs() < 1e-9 && (exposure.stop - 0.019).abs() < 1e-9);
        }
    }
}
