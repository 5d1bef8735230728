//! Messages of a detector, stream2 (CBOR), one after the other.
#![no_main]
mod parts;

use libfuzzer_sys::fuzz_target;
use ptystream_common::codec::{self, Encoding};
use ptystream_producer::source::detector::arrivals::Arrival;
use ptystream_producer::source::detector::header::Event;
use ptystream_producer::source::detector::stream2::Stream2;

fuzz_target!(|data: &[u8]| {
    let mut reader = Stream2::new(None);
    for message in parts::parts(data) {
        for event in reader.feed(vec![message]) {
            if let Event::Image(_, Arrival::Frame(shot)) = event
                && let Encoding::Filters(filters) = &shot.frame.encoding
                && shot.frame.form.bytes() < 1 << 24
            {
                let _ = codec::decode(filters, &shot.frame.payload, shot.frame.form.bytes(), &mut Vec::new());
            }
        }
    }
});
