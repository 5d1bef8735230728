//! A text of columns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_producer::positions::lines::Lines;

fuzz_target!(|data: &[u8]| {
    let _ = Lines::new(vec![0, 2]).feed(data);
});
