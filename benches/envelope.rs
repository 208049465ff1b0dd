//! The envelope, written and read, beside what one would use instead.
//!
//! | group | ours | beside it |
//! | --- | --- | --- |
//! | `encode_…` | `write_envelope` into a buffer that is used again, as the worker does | a derived `Serialize` with a chrono timestamp, into a new vector and into a buffer that is used again |
//! | `decode` | `Envelope::parse`, which borrows and leaves the body as text | a `serde_json::Value`, and a `simd_json` value, which destroys its input and so pays for a copy |
//!
//! The body is JSON already when the envelope is written, for all of them. Before it is measured, each contender is held
//! against the others: the same bytes, the same members.

use chrono::{DateTime, Utc};
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement};
use jetring::__internals::write_envelope;
use jetring::envelope::Envelope;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use simd_json::prelude::{ValueAsScalar, ValueObjectAccess};
use std::hint::black_box;
use std::time::Duration;

criterion_group!(benches, encode, decode);
criterion_main!(benches);

const NANOS: u64 = 1_783_349_810_551_377_776;
const PRODUCER: &str = "00f1e2d3c4b5a697.0";
const REQUEST_ID: &str = "5f0c1d8e-7a43-4b9e-9a51-0c4c6a2f1b77";

/// A price estimate, 300 bytes or so.
const BODY: &str = concat!(
    r#"{"quoteId":"9b2f6f0e-3f0d-4a68-8a0a-6d1c2f1b7e55","estimator":"uniswap-v3","#,
    r#""sellToken":"0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2","buyToken":"0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48","#,
    r#""sellAmount":"1500000000000000000","buyAmount":"5124880311","gas":187432,"kind":"sell","priceImpact":0.0125,"#,
    r#""verified":true,"elapsedMicros":18211}"#
);

/// What an envelope has besides its timestamp and its body.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    request_id: Option<&'static str>,
    stamp: Option<(&'static str, u64)>,
}

const CASES: [Case; 3] = [
    Case { name: "encode_bare", request_id: None, stamp: None },
    Case { name: "encode_stamped", request_id: None, stamp: Some((PRODUCER, 123_456_789)) },
    Case {
        name: "encode_stamped_with_request_id",
        request_id: Some(REQUEST_ID),
        stamp: Some((PRODUCER, 123_456_789)),
    },
];

/// The envelope as an application would declare it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Derived<'a> {
    version: &'a str,
    timestamp: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    body: &'a RawValue,
}

impl Case {
    fn write(self, out: &mut Vec<u8>) {
        out.clear();
        write_envelope(
            black_box(NANOS),
            black_box(self.request_id),
            black_box(self.stamp),
            1,
            BODY.as_bytes(),
            out,
        );
    }

    fn derived(self, body: &RawValue) -> Derived<'_> {
        Derived {
            version: "v1",
            timestamp: DateTime::from_timestamp_nanos(black_box(NANOS as i64)),
            request_id: black_box(self.request_id),
            producer: black_box(self.stamp.map(|(producer, _)| producer)),
            seq: black_box(self.stamp.map(|(_, seq)| seq)),
            body,
        }
    }
}

fn encode(criterion: &mut Criterion) {
    let body: &RawValue = serde_json::from_str(BODY).expect("the body is JSON");
    for case in CASES {
        let mut out = Vec::new();
        case.write(&mut out);
        assert_eq!(out, to_vec(&case.derived(body)), "{}", case.name);

        let mut group = group(criterion, case.name, out.len());
        group.bench_function("jetring", |bencher| {
            bencher.iter(|| {
                case.write(&mut out);
                black_box(out.len())
            });
        });
        group.bench_function("serde_json_to_vec", |bencher| {
            bencher.iter(|| to_vec(&case.derived(body)));
        });
        group.bench_function("serde_json_into_used_buffer", |bencher| {
            bencher.iter(|| {
                out.clear();
                serde_json::to_writer(&mut out, &case.derived(body)).expect("a vector takes all");
                black_box(out.len())
            });
        });
    }
}

fn to_vec(envelope: &Derived<'_>) -> Vec<u8> {
    serde_json::to_vec(envelope).expect("an envelope has nothing that JSON cannot hold")
}

fn decode(criterion: &mut Criterion) {
    let mut message = Vec::new();
    CASES[2].write(&mut message);
    assert_all_read_the_same(&message);

    let mut group = group(criterion, "decode", message.len());
    group.bench_function("jetring", |bencher| {
        bencher.iter(|| Envelope::parse(black_box(&message)).expect("it was read before").seq);
    });
    group.bench_function("serde_json_value", |bencher| {
        bencher.iter(|| serde_json::from_slice::<Value>(black_box(&message)).expect("it was read before"));
    });
    let mut scratch = Vec::new();
    group.bench_function("simd_json_borrowed_value", |bencher| {
        bencher.iter(|| {
            scratch.clear();
            scratch.extend_from_slice(black_box(&message));
            black_box(simd_json::to_borrowed_value(&mut scratch).expect("it was read before"));
        });
    });
}

fn assert_all_read_the_same(message: &[u8]) {
    let ours = Envelope::parse(message).expect("it is an envelope");
    let value: Value = serde_json::from_slice(message).expect("it is JSON");
    assert_eq!((ours.stamp(), ours.request_id.as_deref()), (CASES[2].stamp, CASES[2].request_id));
    assert_eq!((value["producer"].as_str(), value["seq"].as_u64()), (ours.producer.as_deref(), ours.seq));
    assert_eq!(value["timestamp"], *ours.timestamp);
    assert_eq!(value["body"], serde_json::from_str::<Value>(ours.body.get()).expect("the body is JSON"));

    let mut scratch = message.to_vec();
    let simd = simd_json::to_borrowed_value(&mut scratch).expect("it is JSON");
    let text = |member: &str| simd.get(member).and_then(|value| value.as_str());
    assert_eq!(
        (text("producer"), simd.get("seq").and_then(|seq| seq.as_u64())),
        (ours.producer.as_deref(), ours.seq)
    );
    assert_eq!(serde_json::to_value(&simd).expect("it is JSON"), value);
}

/// Short runs: these numbers are read side by side, and not held against a limit.
fn group<'a>(
    criterion: &'a mut Criterion,
    name: &str,
    message_bytes: usize,
) -> BenchmarkGroup<'a, measurement::WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(message_bytes as u64));
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}
