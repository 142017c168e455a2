//! The property `config` as a target of libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sns_properties::config(data));
