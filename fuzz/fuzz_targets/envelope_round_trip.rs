//! An envelope is read back as it was written, is what `serde_json` prints, and means the same to another JSON reader.
//!
//! The bytes of the input are also read as a message, since those come from the network: any answer will do but a panic.
//!
//! Bodies are JSON of all kinds. Fractions are eighths of 32-bit integers: every reader must get those exactly, while the
//! last bit of others depends on the reader (`serde_json` is exact with its feature `float_roundtrip` only), and bodies are
//! passed on as text anyway.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use arbitrary::{Arbitrary, Result, Unstructured};
use jetring::__internals::write_envelope;
use jetring::envelope::Envelope;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Deep enough to nest, and far from the limit of any reader.
const DEPTH_MAX: usize = 6;

#[derive(Arbitrary, Debug)]
struct Input {
    nanos: u64,
    request_id: Option<String>,
    seq: Option<u64>,
    sample: u32,
    producer: (u64, u8),
    #[arbitrary(with = |bytes: &mut Unstructured<'_>| body(bytes, DEPTH_MAX))]
    body: Value,
}

fuzz_target!(|bytes: &[u8]| {
    any_message_is_read_or_refused(bytes);
    if let Ok(input) = Input::arbitrary(&mut Unstructured::new(bytes)) {
        is_read_back_as_written(&input);
    }
});

fn any_message_is_read_or_refused(message: &[u8]) {
    match Envelope::parse(message) {
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
        Ok(envelope) => {
            // What was accepted can be sent on and means the same then.
            let again = serde_json::to_vec(&envelope).unwrap();
            let again = Envelope::parse(&again).unwrap();
            assert_eq!((&again.timestamp, &again.request_id), (&envelope.timestamp, &envelope.request_id));
            assert_eq!((again.stamp(), again.body.get()), (envelope.stamp(), envelope.body.get()));
            assert_eq!((again.sampled_rate, again.weight()), (envelope.sampled_rate, envelope.weight()));
        }
    }
}

fn is_read_back_as_written(input: &Input) {
    let (process, ring) = input.producer;
    let producer = format!("{process:016x}.{ring}");
    let stamp = input.seq.map(|seq| (producer.as_str(), seq));
    let body = serde_json::to_string(&input.body).unwrap();
    let mut message = Vec::new();
    write_envelope(input.nanos, input.request_id.as_deref(), stamp, input.sample, body.as_bytes(), &mut message);

    let envelope = Envelope::parse(&message).unwrap();
    assert_eq!(envelope.request_id, input.request_id.as_deref().map(Into::into));
    assert_eq!((envelope.stamp(), envelope.body.get()), (stamp, body.as_str()));
    assert_eq!(envelope.sampled_rate, Some(input.sample.into()).filter(|&sample: &u64| sample > 1));
    assert_eq!(nanos_of(&envelope.timestamp), u128::from(input.nanos));
    assert_eq!(serde_json::to_vec(&envelope).unwrap(), message);

    let by_serde: Value = serde_json::from_slice(&message).unwrap();
    assert_eq!(by_serde["body"], input.body);
    let by_simd: Value = simd_json::serde::from_slice(&mut message).unwrap();
    assert_eq!(by_simd, by_serde);
}

/// Nanoseconds since 1970 of `2026-07-06T14:56:50.551377776Z`, by counting days the dull way.
fn nanos_of(timestamp: &str) -> u128 {
    let digits = |range: std::ops::Range<usize>| timestamp[range].parse::<u64>().unwrap();
    let (year, month, day) = (digits(0..4), digits(5..7), digits(8..10));
    let is_leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_before = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum::<u64>()
        + months[..month as usize - 1].iter().sum::<u64>();
    let seconds =
        (days_before + day - 1) * 86_400 + digits(11..13) * 3600 + digits(14..16) * 60 + digits(17..19);
    let fraction = timestamp[19..].strip_suffix('Z').unwrap().trim_start_matches('.');
    let nanos: u64 = format!("{fraction:0<9}").parse().unwrap();
    u128::from(seconds) * 1_000_000_000 + u128::from(nanos)
}

/// A JSON value that all readers agree on.
fn body(bytes: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let kinds = if depth == 0 { 6 } else { 8 };
    Ok(match bytes.int_in_range(0..=kinds - 1)? {
        0 => Value::Null,
        1 => bool::arbitrary(bytes)?.into(),
        2 => i64::arbitrary(bytes)?.into(),
        3 => u64::arbitrary(bytes)?.into(),
        4 => (f64::from(i32::arbitrary(bytes)?) / 8.0).into(),
        5 => String::arbitrary(bytes)?.into(),
        6 => (0..bytes.int_in_range(0..=4)?)
            .map(|_| body(bytes, depth - 1))
            .collect::<Result<Vec<_>>>()?
            .into(),
        _ => {
            let members = (0..bytes.int_in_range(0..=4)?)
                .map(|_| Ok((String::arbitrary(bytes)?, body(bytes, depth - 1)?)))
                .collect::<Result<serde_json::Map<_, _>>>()?;
            members.into()
        }
    })
}
