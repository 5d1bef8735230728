//! The data port of a PandA, in pieces: what comes in pieces is what comes at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_producer::positions::panda::Panda;

fuzz_target!(|data: &[u8]| {
    let names = || vec!["COUNTER1.OUT.Mean".into(), "PCAP.TS_START".into()];
    let mut reader = Panda::new(names());
    let whole = format!("{:?}", reader.feed(data));
    let mut reader = Panda::new(names());
    let pieces: Vec<_> = data.chunks(7).flat_map(|piece| reader.feed(piece)).collect();
    assert_eq!(format!("{pieces:?}"), whole);
});
