#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sns_properties::goaway(data));
