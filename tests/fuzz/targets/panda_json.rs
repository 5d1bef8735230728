//! A PandA's positions as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_producer::positions::columns::Columns;
use ptystream_producer::positions::panda_json::PandaJson;

fuzz_target!(|data: &[u8]| {
    let mut reader = PandaJson::new(Columns::new(vec!["energy".into(), "inttime".into()]));
    let _ = (reader.feed(br#"{"message_type": "series-start"}"#), reader.feed(data));
});
