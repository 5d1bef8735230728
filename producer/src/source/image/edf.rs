//! ESRF data format: text headers in braces, each followed by its pixels.
//!
//! # Source
//! The header's keys as fabio's documentation lists them: `Dim_1` (columns), `Dim_2` (rows), `DataType`,
//! `ByteOrder`, `Size` or `EDF_BinarySize`; headers are padded to 512 bytes and end with `}` and a line
//! feed.

use super::items;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use std::collections::BTreeMap;
use std::path::Path;

/// No header is longer.
const LONGEST: usize = 1 << 20;

/// Reads the images of a file.
///
/// # Shapes
/// `(rows, cols)` each.
/// # Errors
/// A text that names the file, and the image or key in it.
pub fn read(path: &Path) -> Result<Vec<Array>, String> {
    let bytes =
        std::fs::read(path).map_err(|e| format!("'{}' cannot be read: {e}", path.display()))?;
    parse(&bytes).map_err(|text| format!("'{}' {text}", path.display()))
}

/// Takes a file apart; what follows the last image and is blank does not count.
fn parse(bytes: &[u8]) -> Result<Vec<Array>, String> {
    let mut images = Vec::new();
    let mut rest = bytes;
    while rest.iter().any(|b| !b.is_ascii_whitespace() && *b != 0) {
        let n = images.len();
        let (header, size) = header(rest).ok_or_else(|| {
            format!("has no EDF header of image {n}: {{ key = value ; … }} is needed")
        })?;
        let (image, used) = image(&header, &rest[size..])
            .map_err(|text| format!("cannot be read as EDF: image {n}: {text}"))?;
        images.push(image);
        rest = &rest[size + used..];
    }
    if images.is_empty() { Err("is empty".into()) } else { Ok(images) }
}

/// Reads a header; returns also how many bytes it takes.
fn header(bytes: &[u8]) -> Option<(BTreeMap<String, String>, usize)> {
    let open = bytes.iter().position(|b| !b.is_ascii_whitespace())?;
    let near = &bytes[..bytes.len().min(LONGEST)];
    if near.get(open) != Some(&b'{') {
        return None;
    }
    let close = near.windows(2).position(|pair| pair == b"}\n").map(|at| (at, 2));
    let (close, width) = close
        .or_else(|| near.windows(3).position(|triple| triple == b"}\r\n").map(|at| (at, 3)))?;
    let text = String::from_utf8_lossy(&near[open + 1..close]).into_owned();
    let pairs = text.split(';').filter_map(|line| line.split_once('='));
    let map = pairs.map(|(k, v)| (k.trim().to_lowercase(), v.trim().to_owned())).collect();
    Some((map, close + width))
}

fn image(header: &BTreeMap<String, String>, bytes: &[u8]) -> Result<(Array, usize), String> {
    let number = |key: &str| -> Result<Option<usize>, String> {
        let Some(text) = header.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("{key} = {text} is no number"))
    };
    let needed = |key: &str| number(key)?.ok_or_else(|| format!("{key} is missing in its header"));
    if let Some(how) = header.get("compression").filter(|c| !c.eq_ignore_ascii_case("none")) {
        return Err(format!("compression {how} is not supported; write it without"));
    }
    let (cols, rows) = (needed("dim_1")?, number("dim_2")?.unwrap_or(1));
    if number("dim_3")?.is_some_and(|n| n > 1) {
        return Err("it has three dimensions; frames are images of two".into());
    }
    let name = header.get("datatype").ok_or("datatype is missing in its header")?;
    let dtype = match name.to_lowercase().as_str() {
        "unsignedbyte" => Dtype::U8,
        "signedbyte" => Dtype::I8,
        "unsignedshort" => Dtype::U16,
        "signedshort" => Dtype::I16,
        "unsignedinteger" | "unsignedlong" => Dtype::U32,
        "signedinteger" | "signedlong" => Dtype::I32,
        "signed64" => Dtype::I64,
        "float" | "floatvalue" | "real" => Dtype::F32,
        "double" | "doublevalue" => Dtype::F64,
        _ => return Err(format!("datatype {name} is no pixel type that is supported")),
    };
    let big = match header.get("byteorder").map(|order| order.to_lowercase()) {
        None => false,
        Some(order) if order == "lowbytefirst" => false,
        Some(order) if order == "highbytefirst" => true,
        Some(order) => {
            return Err(format!("byteorder {order} is neither LowByteFirst nor HighByteFirst"));
        }
    };
    let pixels = rows.checked_mul(cols).and_then(|n| n.checked_mul(dtype.size()));
    let pixels = pixels.filter(|n| *n > 0).ok_or("it has no pixels")?;
    let there = bytes.len();
    let stored = match number("edf_binarysize")? {
        Some(n) => n,
        None => number("size")?.unwrap_or(pixels),
    };
    if stored < pixels || there < pixels {
        let found = stored.min(there);
        return Err(format!(
            "it is truncated: {rows} x {cols} of {dtype} need {pixels} bytes, {found} are there; \
             copy the file again"
        ));
    }
    let data = bytes[..pixels].to_vec();
    let array = items(dtype, &[rows, cols], data, big).ok_or("it is truncated")?;
    Ok((array, stored.min(there)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edf(head: &str, pixels: &[u8]) -> Vec<u8> {
        let mut text = format!("{{\n{head}");
        while (text.len() + 2) % 512 != 0 {
            text.push(' ');
        }
        [text.as_bytes(), b"}\n", pixels].concat()
    }

    #[test]
    fn images_follow_each_other_in_either_byte_order() {
        let little = edf(
            "DataType = UnsignedShort ;\nDim_1 = 3 ;\nDim_2 = 1 ;\nSize = 6 ;\nByteOrder = LowByteFirst ;\n",
            &[1, 0, 2, 0, 0, 1],
        );
        let big = edf(
            "DataType = UnsignedShort ;\nDim_1 = 3 ;\nDim_2 = 1 ;\nByteOrder = HighByteFirst ;\n",
            &[0, 7, 0, 8, 1, 0],
        );
        let both = parse(&[little, big].concat()).unwrap();
        assert_eq!(
            both,
            [
                Array::from_items(&[1, 3], &[1u16, 2, 256]),
                Array::from_items(&[1, 3], &[7u16, 8, 256])
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (b"nothing".to_vec(), "no EDF header of image 0"),
            (edf("Dim_1 = 2 ;\nDim_2 = 2 ;\n", &[0; 8]), "datatype is missing"),
            (edf("DataType = UnsignedShort ;\nDim_1 = two ;\n", &[]), "dim_1 = two"),
            (
                edf("DataType = UnsignedShort ;\nDim_1 = 2 ;\nDim_2 = 2 ;\n", &[0; 6]),
                "need 8 bytes, 6 are there",
            ),
            (edf("DataType = Complex ;\nDim_1 = 2 ;\nDim_2 = 2 ;\n", &[0; 8]), "datatype Complex"),
            (
                edf(
                    "DataType = UnsignedByte ;\nDim_1 = 2 ;\nDim_2 = 2 ;\nCompression = GZIP ;\n",
                    &[0; 4],
                ),
                "compression GZIP",
            ),
        ];
        for (bytes, text) in cases {
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let head = b"{ DataType = UnsignedShort ; Dim_1 = 4 ; Dim_2 = 4 ;";
            let all = if start { [&head[..], &bytes].concat() } else { bytes };
            if let Ok(images) = parse(&all) {
                prop_assert!(!images.is_empty());
            }
        }
    }
}
