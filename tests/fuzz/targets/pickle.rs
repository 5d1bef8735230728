//! Pickles of positions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_producer::positions::columns::Columns;
use ptystream_producer::positions::contrast::Contrast;
use ptystream_producer::positions::fields::{find, numbers, paths};
use ptystream_producer::positions::pickle;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = pickle::read(data) {
        let _ = (paths(&message), find(&message, "pseudo.x"), numbers(&message));
    }
    let _ = Contrast::new(Columns::new(vec!["sx".into(), "pseudo.y".into()])).feed(data);
});
