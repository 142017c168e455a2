//! The property `vapid` as a target of libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sns_properties::vapid(data));
