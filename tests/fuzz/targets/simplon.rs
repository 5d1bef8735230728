//! Messages of a detector, SIMPLON version 1: several of three parts at most, one after the other.
#![no_main]
mod parts;

use libfuzzer_sys::fuzz_target;
use ptystream_common::codec::{self, Encoding};
use ptystream_producer::source::detector::arrivals::Arrival;
use ptystream_producer::source::detector::header::Event;
use ptystream_producer::source::detector::simplon::Simplon;

fuzz_target!(|data: &[u8]| {
    let mut reader = Simplon::default();
    for message in parts::parts(data).chunks(5) {
        for event in reader.feed(message.to_vec()) {
            if let Event::Image(_, Arrival::Frame(shot)) = event
                && let Encoding::Filters(filters) = &shot.frame.encoding
                && shot.frame.form.bytes() < 1 << 24
            {
                let _ = codec::decode(filters, &shot.frame.payload, shot.frame.form.bytes(), &mut Vec::new());
            }
        }
    }
});
