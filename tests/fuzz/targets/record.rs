//! Records of the spool.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ptystream_producer::retain::record::{self, RECORD_HEADER};

fuzz_target!(|data: &[u8]| {
    let _ = record::read_segment_header(data);
    if let Ok(head) = record::head(data) {
        let body = data.get(RECORD_HEADER..).unwrap_or_default();
        let _ = record::frame(head, Bytes::copy_from_slice(body));
    }
});
