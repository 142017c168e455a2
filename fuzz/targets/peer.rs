//! The property `peer` as a target of libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sns_properties::peer(data));
