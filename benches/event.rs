//! The events that the guards publish.

use serde::Serialize;

/// A price estimate, 414 bytes as a bare v1 envelope with one hop.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PriceEstimate<'a> {
    pub(crate) order_id: u64,
    estimator: &'static str,
    sell_token: &'static str,
    buy_token: &'static str,
    sell_amount: &'static str,
    out_amount: &'static str,
    gas: u64,
    route: &'a [Hop],
    elapsed_micros: f64,
    verified: bool,
    error: Option<&'static str>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hop {
    pool: u32,
    amount_in: &'static str,
}

pub(crate) const HOP: Hop = Hop { pool: 17, amount_in: "1250000000000000000" };

pub(crate) fn estimate(route: &[Hop]) -> PriceEstimate<'_> {
    PriceEstimate {
        order_id: 123_456_789,
        estimator: "two-hop",
        sell_token: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
        buy_token: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        sell_amount: "1250000000000000000",
        out_amount: "42675123450000000000",
        gas: 186_000,
        route,
        elapsed_micros: 23.75,
        verified: true,
        error: None,
    }
}

/// Bytes of a bare v1 envelope around this body.
pub(crate) fn envelope_len(body: &impl Serialize) -> usize {
    const AROUND: &str = r#"{"version":"v1","timestamp":"2026-07-06T14:56:50.123456789Z","body":}"#;
    AROUND.len() + serde_json::to_vec(body).expect("the bodies here are valid").len()
}
