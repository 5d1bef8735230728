//! Pickles of positions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_producer::positions::columns::Columns;
use ptystream_producer::positions::contrast::Contrast;
use ptystream_producer::positions::pickle;

fuzz_target!(|data: &[u8]| {
    if let Ok(tree) = pickle::read(data) {
        let _ = (tree.paths(), tree.at("pseudo.x"), tree.numbers());
    }
    let _ = Contrast::new(Columns::new(vec!["sx".into(), "pseudo.y".into()])).feed(data);
});
