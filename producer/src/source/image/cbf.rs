//! Crystallographic binary files as Dectris detectors write them: one image, byte-offset compressed.
//!
//! # Source
//! "miniCBF" as Dectris documents it: a MIME-like header after `--CIF-BINARY-FORMAT-SECTION--`, the bytes
//! `0C 1A 04 D5`, then differences of 1, 2, 4 or 8 bytes (`x-CBF_BYTE_OFFSET` of CBFlib's manual). Comments
//! `# Detector_distance 0.16 m`, `# Pixel_size 172e-6 m x 172e-6 m`, `# Wavelength 1.0332 A`.

use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::source::Recorded;
use std::path::Path;

const START: &[u8] = b"\x0c\x1a\x04\xd5";
/// keV times ångström of a photon.
const HC_KEV_ANGSTROM: f64 = 12.398_419_843_320_026;

/// What a file holds.
#[derive(Debug)]
pub struct Cbf {
    /// The image, `(rows, cols)`.
    pub image: Array,
    /// Geometry in its comments.
    pub recorded: Recorded,
}

/// Reads a file.
///
/// # Errors
/// A text that names the file, and the field in it.
pub fn read(path: &Path) -> Result<Cbf, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("'{shown}' cannot be read: {e}"))?;
    let (head, image) =
        parse(&bytes).map_err(|text| format!("'{shown}' cannot be read as CBF: {text}"))?;
    Ok(Cbf { image, recorded: recorded(&head, &shown.to_string()) })
}

fn parse(bytes: &[u8]) -> Result<(String, Array), String> {
    let at = bytes.windows(START.len()).position(|w| w == START);
    let at = at.ok_or("there is no binary section (bytes 0C 1A 04 D5)")?;
    let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
    let data = &bytes[at + START.len()..];
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let number = |name: &str| -> Result<usize, String> {
        let text = field(name).ok_or_else(|| format!("{name} is missing"))?;
        text.parse().map_err(|_| format!("{name}: {text} is no number"))
    };
    if !head.to_lowercase().contains("x-cbf_byte_offset") {
        return Err(
            "its compression is not x-CBF_BYTE_OFFSET, the only one that is supported".into()
        );
    }
    let element = field("X-Binary-Element-Type").unwrap_or_default().to_lowercase();
    let dtype = match element.trim_matches('"') {
        "signed 32-bit integer" | "" => Dtype::I32,
        "unsigned 32-bit integer" => Dtype::U32,
        "signed 16-bit integer" => Dtype::I16,
        "unsigned 16-bit integer" => Dtype::U16,
        "unsigned 8-bit integer" => Dtype::U8,
        other => return Err(format!("X-Binary-Element-Type: {other} is not supported")),
    };
    let shape =
        [number("X-Binary-Size-Second-Dimension")?, number("X-Binary-Size-Fastest-Dimension")?];
    let pixels = shape[0].checked_mul(shape[1]).filter(|n| *n > 0).ok_or("it has no pixels")?;
    let size = number("X-Binary-Size")?;
    let there = data.len();
    if there < size {
        return Err(format!(
            "it is truncated: X-Binary-Size is {size}, {there} bytes are there; copy the file again"
        ));
    }
    // Each pixel takes a byte at least: what is not there cannot be promised.
    if pixels > size {
        return Err(format!("{size} bytes are too few for {pixels} pixels; copy the file again"));
    }
    let values = decode(&data[..size], pixels)?;
    macro_rules! as_type {
        ($t:ty) => {{
            let fit = |v: &i64| {
                <$t>::try_from(*v).map_err(|_| format!("a value of {v} does not fit {dtype}"))
            };
            Array::from_items(&shape, &values.iter().map(fit).collect::<Result<Vec<$t>, _>>()?)
        }};
    }
    let image = match dtype {
        Dtype::U32 => as_type!(u32),
        Dtype::I16 => as_type!(i16),
        Dtype::U16 => as_type!(u16),
        Dtype::U8 => as_type!(u8),
        _ => as_type!(i32),
    };
    Ok((head, image))
}

/// Undoes the byte-offset compression.
fn decode(bytes: &[u8], pixels: usize) -> Result<Vec<i64>, String> {
    let mut values = Vec::with_capacity(pixels);
    let (mut at, mut value) = (0, 0i64);
    let mut take = |n: usize| -> Result<&[u8], String> {
        let slice = bytes.get(at..at + n);
        at += n;
        slice.ok_or_else(|| "the compressed pixels end too early; copy the file again".to_owned())
    };
    macro_rules! int {
        ($t:ty, $n:literal) => {
            <$t>::from_le_bytes(take($n)?.try_into().map_err(|_| "a slice of another length")?)
        };
    }
    while values.len() < pixels {
        let mut delta = i64::from(int!(i8, 1));
        if delta == i64::from(i8::MIN) {
            delta = i64::from(int!(i16, 2));
            if delta == i64::from(i16::MIN) {
                delta = i64::from(int!(i32, 4));
                if delta == i64::from(i32::MIN) {
                    delta = int!(i64, 8);
                }
            }
        }
        value = value.wrapping_add(delta);
        values.push(value);
    }
    Ok(values)
}

/// Reads the geometry in the comments.
fn recorded(head: &str, path: &str) -> Recorded {
    let mut recorded = Recorded::default();
    for line in head.lines().filter_map(|line| line.trim().strip_prefix('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |i: usize| {
            words.get(i).and_then(|w| w.parse::<f64>().ok()).filter(|v| *v > 0.0 && v.is_finite())
        };
        let origin = || format!("'{}' in '{path}'", line.trim());
        match (words.first().map(|w| w.trim_end_matches(':')), value(1), words.get(2)) {
            (Some("Detector_distance"), Some(v), Some(&"m")) => {
                recorded.distance = Some((v, origin()));
            }
            (Some("Wavelength"), Some(v), Some(&"A")) => {
                recorded.energy = Some((HC_KEV_ANGSTROM / v, origin()));
            }
            (Some("Pixel_size"), Some(x), Some(&"m")) => {
                // x (fast) before y (slow).
                let y = value(4).unwrap_or(x);
                recorded.psize = Some(([y, x], origin()));
            }
            _ => {}
        }
    }
    recorded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compress(values: &[i32]) -> Vec<u8> {
        let (mut out, mut before) = (Vec::new(), 0i64);
        for &value in values {
            let delta = i64::from(value) - before;
            before = i64::from(value);
            if let Some(small) = i8::try_from(delta).ok().filter(|d| *d != i8::MIN) {
                out.extend(small.to_le_bytes());
                continue;
            }
            out.push(0x80);
            if let Some(middle) = i16::try_from(delta).ok().filter(|d| *d != i16::MIN) {
                out.extend(middle.to_le_bytes());
                continue;
            }
            out.extend(i16::MIN.to_le_bytes());
            match i32::try_from(delta).ok().filter(|d| *d != i32::MIN) {
                Some(big) => out.extend(big.to_le_bytes()),
                None => {
                    out.extend(i32::MIN.to_le_bytes());
                    out.extend(delta.to_le_bytes());
                }
            }
        }
        out
    }

    fn cbf(values: &[i32], shape: [usize; 2], comments: &str) -> Vec<u8> {
        let data = compress(values);
        let head = format!(
            "###CBF: VERSION 1.5\r\n{comments}\r\n--CIF-BINARY-FORMAT-SECTION--\r\n\
             Content-Type: application/octet-stream;\r\n     conversions=\"x-CBF_BYTE_OFFSET\"\r\n\
             X-Binary-Size: {}\r\nX-Binary-Element-Type: \"signed 32-bit integer\"\r\n\
             X-Binary-Size-Fastest-Dimension: {}\r\nX-Binary-Size-Second-Dimension: {}\r\n\r\n",
            data.len(),
            shape[1],
            shape[0]
        );
        [head.as_bytes(), START, &data, b"\r\n--CIF-BINARY-FORMAT-SECTION----\r\n"].concat()
    }

    #[test]
    fn geometry_is_read_from_the_comments() {
        let comments = "# Pixel_size 172e-6 m x 75e-6 m\r\n# Detector_distance 0.16050 m\r\n\
                        # Wavelength 1.0 A\r\n# Silicon sensor, thickness 0.000320 m";
        let (head, image) = parse(&cbf(&[1, 2, 3], [1, 3], comments)).unwrap();
        assert_eq!(image, Array::from_items(&[1, 3], &[1i32, 2, 3]));
        let found = recorded(&head, "a.cbf");
        assert_eq!(found.psize.unwrap().0, [75e-6, 172e-6]);
        assert_eq!(found.distance.unwrap().0, 0.1605);
        assert!((found.energy.unwrap().0 - 12.3984).abs() < 1e-4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let whole = cbf(&[5; 12], [3, 4], "");
        let cut = |n: usize| parse(&whole[..whole.len() - n]).unwrap_err();
        assert!(cut(40).contains("truncated"), "{}", cut(40));
        assert!(parse(b"###CBF").unwrap_err().contains("no binary section"));
        let text = String::from_utf8_lossy(&whole).replace("BYTE_OFFSET", "PACKED");
        let packed = [text.split('\u{fffd}').next().unwrap().as_bytes(), START].concat();
        assert!(parse(&packed).unwrap_err().contains("x-CBF_BYTE_OFFSET"));
        let many = cbf(&[5; 12], [3000, 4000], "");
        assert!(parse(&many).unwrap_err().contains("too few"));
    }

    proptest! {
        #[test]
        fn values_come_back(values in prop::collection::vec(any::<i32>(), 1..80)) {
            let (_, image) = parse(&cbf(&values, [1, values.len()], "")).unwrap();
            prop_assert_eq!(image, Array::from_items(&[1, values.len()], &values));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0usize..400) {
            let mut all = cbf(&[1, -2, 300, 70_000], [2, 2], "");
            let at = n.min(all.len());
            all.splice(at.., bytes);
            if let Ok((_, image)) = parse(&all) {
                prop_assert!(!image.is_empty());
            }
        }
    }
}
