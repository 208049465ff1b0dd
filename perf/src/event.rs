//! The events that are published, and how a consumer knows which one it has got.
//!
//! The usual event is a price estimate of 414 bytes as a bare v1 envelope, the one of `benches/publish.rs`. Larger ones are price
//! estimates over more pools, so they cost more encoding and not only more copying; the small one is a quote.
//!
//! Each event says who published it and the how-manieth it is: a consumer that looks can tell whether everything came, in
//! order. The number has nine digits and the producer two, always, so that all events of a size are equally long and the
//! place of both can be counted from the end of the message.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::hint::black_box;

/// The name under which all events are published.
pub(crate) const NAME: &str = "priceEstimate";

/// Producers that two digits can tell apart.
pub(crate) const PRODUCERS_MAX: usize = 90;

const FIRST_NUMBER: u64 = 100_000_000;
const FIRST_POOL: u32 = 10;

/// How large an event is, as an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    B128,
    B414,
    B4096,
    /// A little less than 64 KiB.
    K64,
}

impl Size {
    #[cfg(test)]
    const ALL: [Self; 4] = [Self::B128, Self::B414, Self::B4096, Self::K64];

    /// Bytes of the envelope as JSON.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::B128 => 128,
            Self::B414 => 414,
            Self::B4096 => 4096,
            Self::K64 => 65_000,
        }
    }

    /// Pools of an estimate, and digits that its amount has besides to meet the size.
    fn shape(self) -> (usize, usize) {
        match self {
            Self::B128 | Self::B414 => (1, 10),
            Self::B4096 => (83, 2),
            Self::K64 => (1436, 21),
        }
    }
}

/// What is published.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Quote(Quote),
    Estimate(Estimate),
}

/// A small event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quote {
    order_id: u64,
    pool: u32,
    out: &'static str,
}

/// A price estimate.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Estimate {
    order_id: u64,
    estimator: &'static str,
    sell_token: &'static str,
    buy_token: &'static str,
    sell_amount: &'static str,
    out_amount: String,
    gas: u64,
    route: Vec<Hop>,
    elapsed_micros: f64,
    verified: bool,
    error: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hop {
    pool: u32,
    amount_in: &'static str,
}

impl Body {
    pub(crate) fn new(size: Size, producer: usize) -> Self {
        assert!(producer < PRODUCERS_MAX, "two digits tell {PRODUCERS_MAX} producers apart");
        let pool = FIRST_POOL + producer as u32;
        if size == Size::B128 {
            return Self::Quote(Quote { order_id: FIRST_NUMBER, pool, out: "4267512345000000000" });
        }
        let (hops, digits) = size.shape();
        Self::Estimate(Estimate {
            order_id: FIRST_NUMBER,
            estimator: "two-hop",
            sell_token: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
            buy_token: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
            sell_amount: "1250000000000000000",
            out_amount: format!("4267512345{}", "0".repeat(digits)),
            gas: 186_000,
            route: vec![Hop { pool, amount_in: "1250000000000000000" }; hops],
            elapsed_micros: 23.75,
            verified: true,
            error: None,
        })
    }

    #[inline]
    pub(crate) fn set_number(&mut self, number: u64) {
        match self {
            Self::Quote(quote) => quote.order_id = FIRST_NUMBER + number,
            Self::Estimate(estimate) => estimate.order_id = FIRST_NUMBER + number,
        }
    }
}

impl Serialize for Body {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Quote(quote) => quote.serialize(serializer),
            Self::Estimate(estimate) => estimate.serialize(serializer),
        }
    }
}

/// The v1 envelope as the original event bus built it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope<'a, T> {
    version: &'static str,
    timestamp: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    body: &'a T,
}

impl<'a, T> Envelope<'a, T> {
    pub(crate) fn now(body: &'a T) -> Self {
        Self { version: "v1", timestamp: Utc::now(), request_id: None, body }
    }
}

/// How the messages of a queue come about.
pub(crate) trait Fill: Send + 'static {
    /// Encodes and stamps each event, instead of carrying bytes that are ready.
    const ENCODES: bool;

    fn new(size: Size, producer: usize) -> Self;

    /// Appends a message.
    fn append(&mut self, number: u64, out: &mut Vec<u8>);

    fn to_vec(&mut self, number: u64) -> Vec<u8>;

    fn to_bytes(&mut self, number: u64) -> Bytes;

    /// Lends a message, which lies in `scratch` if it had to be made.
    fn lend<R>(&mut self, number: u64, scratch: &mut Vec<u8>, to: impl FnOnce(&[u8]) -> R) -> R;
}

/// Bytes that somebody has encoded before: a copy is all there is to do.
#[derive(Debug)]
pub(crate) struct Ready {
    message: Vec<u8>,
}

impl Ready {
    /// Writes the number into the message. Eight bytes, so that the queue is measured and not this.
    #[inline]
    fn numbered(&mut self, number: u64) -> &[u8] {
        self.message[..8].copy_from_slice(&number.to_le_bytes());
        black_box(&self.message)
    }
}

impl Fill for Ready {
    const ENCODES: bool = false;

    fn new(size: Size, producer: usize) -> Self {
        let mut message = vec![b'x'; size.bytes()];
        message[8..16].copy_from_slice(&(producer as u64).to_le_bytes());
        Self { message }
    }

    #[inline]
    fn append(&mut self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.numbered(number));
    }

    #[inline]
    fn to_vec(&mut self, number: u64) -> Vec<u8> {
        self.numbered(number).to_vec()
    }

    #[inline]
    fn to_bytes(&mut self, number: u64) -> Bytes {
        Bytes::copy_from_slice(self.numbered(number))
    }

    #[inline]
    fn lend<R>(&mut self, number: u64, _: &mut Vec<u8>, to: impl FnOnce(&[u8]) -> R) -> R {
        to(self.numbered(number))
    }
}

/// The whole job: each event is stamped with the time and encoded by `serde_json`, into a vector that is large enough.
#[derive(Debug)]
pub(crate) struct Encode {
    body: Body,
    bytes: usize,
}

impl Fill for Encode {
    const ENCODES: bool = true;

    fn new(size: Size, producer: usize) -> Self {
        Self { body: Body::new(size, producer), bytes: size.bytes() }
    }

    #[inline]
    fn append(&mut self, number: u64, out: &mut Vec<u8>) {
        self.body.set_number(number);
        let envelope = Envelope::now(black_box(&self.body));
        serde_json::to_writer(out, &envelope).expect("an event is plain data, and a vector takes all");
    }

    #[inline]
    fn to_vec(&mut self, number: u64) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.bytes);
        self.append(number, &mut message);
        message
    }

    #[inline]
    fn to_bytes(&mut self, number: u64) -> Bytes {
        self.to_vec(number).into()
    }

    #[inline]
    fn lend<R>(&mut self, number: u64, scratch: &mut Vec<u8>, to: impl FnOnce(&[u8]) -> R) -> R {
        scratch.clear();
        self.append(number, scratch);
        to(scratch)
    }
}

/// Looks at what comes out: from whom, and whether in order.
#[derive(Debug)]
pub(crate) struct Checker {
    /// Distance from the end of a message to its number and its producer; `None` where they are its first words.
    places: Option<(usize, usize)>,
    /// By producer, the least number that may come next.
    next: Vec<u64>,
    disordered: u64,
}

impl Checker {
    pub(crate) fn new(size: Size, is_json: bool) -> Self {
        let places = is_json.then(|| {
            let text = serde_json::to_string(&Envelope::now(&Body::new(size, 0)));
            let text = text.expect("an event is plain data");
            let place = |name: &str| {
                text.len() - text.find(name).expect("every event has a number and a producer") - name.len()
            };
            (place("\"orderId\":"), place("\"pool\":"))
        });
        Self { places, next: vec![0; PRODUCERS_MAX], disordered: 0 }
    }

    #[inline]
    pub(crate) fn look_at(&mut self, message: &[u8]) {
        let Some((producer, number)) = self.read(message) else {
            self.disordered += 1;
            return;
        };
        match self.next.get_mut(producer) {
            Some(next) if number >= *next => *next = number + 1,
            _ => self.disordered += 1,
        }
    }

    /// Messages that were not in the order of their producer, or not messages of ours.
    pub(crate) fn disordered(&self) -> u64 {
        self.disordered
    }

    /// Whose event it is and which.
    #[inline]
    pub(crate) fn read(&self, message: &[u8]) -> Option<(usize, u64)> {
        let Some((number, producer)) = self.places else {
            let (number, rest) = message.split_first_chunk()?;
            let producer = u64::from_le_bytes(*rest.first_chunk()?);
            return Some((producer as usize, u64::from_le_bytes(*number)));
        };
        let digits = |place: usize, digits: usize| {
            let start = message.len().checked_sub(place)?;
            let text = message.get(start..start + digits)?;
            Some(text.iter().fold(0, |value, digit| value * 10 + u64::from(digit.wrapping_sub(b'0'))))
        };
        let producer = digits(producer, 2)?.checked_sub(FIRST_POOL.into())?;
        Some((producer as usize, digits(number, 9)?.checked_sub(FIRST_NUMBER)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Trailing zeros of a timestamp are not printed, so one in a thousand is shorter.
    fn length(size: Size) -> usize {
        (0..5).map(|_| Encode::new(size, 7).to_vec(0).len()).max().unwrap()
    }

    #[test]
    fn events_are_as_large_as_they_say() {
        for size in Size::ALL {
            let off = length(size).abs_diff(size.bytes());
            assert!(off <= size.bytes() / 500, "{size:?}: {}", length(size));
            assert_eq!(Ready::new(size, 0).to_vec(1).len(), size.bytes());
        }
        assert!(Size::K64.bytes() < 64 << 10);
    }

    #[test]
    fn a_consumer_knows_whose_event_it_has_and_which() {
        fn check<F: Fill>(size: Size) {
            let mut checker = Checker::new(size, F::ENCODES);
            let (mut one, mut other) = (F::new(size, 0), F::new(size, 63));
            for number in 0..3 {
                assert_eq!(checker.read(&one.to_vec(number)), Some((0, number)));
                checker.look_at(&one.to_bytes(number));
                checker.look_at(&other.to_vec(10 * number));
            }
            assert_eq!(checker.disordered(), 0);
            checker.look_at(&one.to_vec(1));
            checker.look_at(b"short");
            assert_eq!(checker.disordered(), 2, "{size:?}");
        }
        for size in Size::ALL {
            check::<Ready>(size);
            check::<Encode>(size);
        }
    }
}
