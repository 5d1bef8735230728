//! Our own messages.
#![no_main]
mod parts;

use libfuzzer_sys::fuzz_target;
use ptystream_common::wire;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = wire::decode(parts::parts(data)) {
        // What was read can be sent, and is the same then.
        let again = wire::decode(wire::encode(&message).unwrap()).unwrap();
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
});
