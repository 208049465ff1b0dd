//! A quote competition: what is said while it runs, and who wins it.
//!
//! ```text
//!   QuoteRequested ──► PriceEstimate  from each estimator, as soon as it has one or has failed
//!                 └──► WinningPriceEstimate  when somebody had an estimate
//!                 └──► QuoteComputed  always, last
//! ```
//!
//! These are the bodies of the demo's events; the envelope around them is the bus's. Their names and spelling follow the event
//! bus of a real quote service: camelCase, amounts as decimal strings, tokens as addresses. A price estimate fills about 400
//! bytes with its envelope, as the real one does. All own their data, so that an estimator publishes its answer and then hands
//! the same value to the judge.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, Failure, decimal};
use super::wide::mul_div;
use super::{Order, Token};

/// The successful estimate with the most output net of gas; among equals the first by name, so that no clock decides.
pub(crate) fn winner(estimates: &[PriceEstimate]) -> Option<&PriceEstimate> {
    let successful = estimates.iter().filter(|candidate| candidate.net_amount().is_some());
    successful.min_by_key(|candidate| (std::cmp::Reverse(candidate.net_amount()), &candidate.estimator))
}

/// Somebody wants to know a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuoteRequested {
    pub(crate) order_id: u64,
    pub(crate) sell_token: Token,
    pub(crate) buy_token: Token,
    #[serde(with = "decimal")]
    pub(crate) sell_amount: u128,
    /// How many estimators were asked: as many price estimates follow.
    pub(crate) estimators: usize,
}

impl QuoteRequested {
    pub(crate) const NAME: &'static str = "quoteRequested";

    pub(crate) fn new(order: &Order, estimators: usize) -> Self {
        let Order { id, sell, buy, sell_amount } = *order;
        Self { order_id: id, sell_token: sell, buy_token: buy, sell_amount, estimators }
    }
}

/// One estimator's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PriceEstimate {
    pub(crate) order_id: u64,
    pub(crate) estimator: Cow<'static, str>,
    pub(crate) sell_token: Token,
    pub(crate) buy_token: Token,
    #[serde(with = "decimal")]
    pub(crate) sell_amount: u128,
    pub(crate) elapsed_micros: u64,
    pub(crate) result: Outcome,
}

/// A `Result` that JSON spells in the words of this API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Estimate(Estimate),
    Error(Failure),
}

impl PriceEstimate {
    pub(crate) const NAME: &'static str = "priceEstimate";

    pub(crate) fn new(
        order: &Order,
        estimator: &'static str,
        result: Result<Estimate, Failure>,
        elapsed: Duration,
    ) -> Self {
        let Order { id, sell, buy, sell_amount } = *order;
        Self {
            order_id: id,
            estimator: Cow::Borrowed(estimator),
            sell_token: sell,
            buy_token: buy,
            sell_amount,
            elapsed_micros: micros(elapsed),
            result: result.map_or_else(Outcome::Error, Outcome::Estimate),
        }
    }

    /// The estimate, unless the estimator failed.
    pub(crate) fn estimate(&self) -> Option<&Estimate> {
        match &self.result {
            Outcome::Estimate(estimate) => Some(estimate),
            Outcome::Error(_) => None,
        }
    }

    fn net_amount(&self) -> Option<u128> {
        Some(self.estimate()?.net_amount(self.buy_token))
    }
}

/// The answer that won, with what it is worth after gas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WinningPriceEstimate {
    pub(crate) order_id: u64,
    pub(crate) estimator: Cow<'static, str>,
    pub(crate) sell_token: Token,
    pub(crate) buy_token: Token,
    #[serde(with = "decimal")]
    pub(crate) sell_amount: u128,
    #[serde(with = "decimal")]
    pub(crate) net_amount: u128,
    pub(crate) estimate: Estimate,
}

impl WinningPriceEstimate {
    pub(crate) const NAME: &'static str = "winningPriceEstimate";

    /// The event for the [`winner`] of the competition; `None` when all have failed.
    pub(crate) fn of(estimates: &[PriceEstimate]) -> Option<Self> {
        let winner = winner(estimates)?;
        let estimate = winner.estimate()?.clone();
        Some(Self {
            order_id: winner.order_id,
            estimator: winner.estimator.clone(),
            sell_token: winner.sell_token,
            buy_token: winner.buy_token,
            sell_amount: winner.sell_amount,
            net_amount: estimate.net_amount(winner.buy_token),
            estimate,
        })
    }
}

/// The competition is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuoteComputed {
    pub(crate) order_id: u64,
    /// Answers of either kind, and how many of them were errors.
    pub(crate) estimates: usize,
    pub(crate) errors: usize,
    /// Left out when all have failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) winner: Option<Cow<'static, str>>,
    /// How far the worst estimate is below the winner, net of gas, in hundredths of a percent: 0 to 10 000, rounded down.
    pub(crate) spread_bps: u32,
    pub(crate) elapsed_micros: u64,
}

impl QuoteComputed {
    pub(crate) const NAME: &'static str = "quoteComputed";

    /// `elapsed` is from the request to the last answer.
    pub(crate) fn new(order: &Order, estimates: &[PriceEstimate], elapsed: Duration) -> Self {
        Self {
            order_id: order.id,
            estimates: estimates.len(),
            errors: estimates.iter().filter(|answer| answer.estimate().is_none()).count(),
            winner: winner(estimates).map(|winner| winner.estimator.clone()),
            spread_bps: spread_bps(estimates),
            elapsed_micros: micros(elapsed),
        }
    }
}

fn spread_bps(estimates: &[PriceEstimate]) -> u32 {
    let net = estimates.iter().filter_map(PriceEstimate::net_amount);
    let (worst, best) = net.fold((u128::MAX, 0), |(worst, best), net| (worst.min(net), best.max(net)));
    // There is no quotient when nobody won anything, and then there is nothing to spread.
    let bps = mul_div(best.saturating_sub(worst), 10_000, best).unwrap_or(0);
    u32::try_from(bps).unwrap_or(u32::MAX)
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;
    use serde::de::DeserializeOwned;

    use super::super::Pools;
    use super::super::estimate::{Hop, estimators};
    use super::*;

    const ORDER: Order =
        Order { id: 123, sell: Token::WETH, buy: Token::USDC, sell_amount: 1_250_000_000_000_000_000 };

    /// An answer to [`ORDER`] that sends it through one pool.
    fn answer(estimator: &'static str, out_amount: u128, gas: u64) -> PriceEstimate {
        let route = vec![Hop { pool: 3, amount_in: ORDER.sell_amount }];
        let estimate = Estimate { out_amount, gas, route };
        PriceEstimate::new(&ORDER, estimator, Ok(estimate), Duration::from_micros(17))
    }

    fn error(estimator: &'static str) -> PriceEstimate {
        let failure = Failure::LiquiditySourceUnavailable;
        PriceEstimate::new(&ORDER, estimator, Err(failure), Duration::from_micros(17))
    }

    fn name(estimates: &[PriceEstimate]) -> Option<&str> {
        winner(estimates).map(|winner| &*winner.estimator)
    }

    #[track_caller]
    fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &T, written: &str) {
        let json = serde_json::to_string(body).unwrap();
        assert_eq!(json, written);
        assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), body);
    }

    #[test]
    fn the_winner_has_the_most_net_of_gas() {
        // A thousand gas is 0.06 USDC, so 100 000 more gas outweigh 5.9 USDC more output and not 6.1.
        assert_eq!(name(&[answer("a", 100_000_000, 100_000), answer("b", 105_900_000, 200_000)]), Some("a"));
        assert_eq!(name(&[answer("a", 100_000_000, 100_000), answer("b", 106_100_000, 200_000)]), Some("b"));
    }

    #[test]
    fn a_tie_goes_to_the_first_name_in_whatever_order_they_came() {
        let (a, b) = (answer("a", 100_000_000, 0), answer("b", 100_000_000, 0));
        assert_eq!(name(&[a.clone(), b.clone()]), Some("a"));
        assert_eq!(name(&[b, a]), Some("a"));
    }

    #[test]
    fn a_failure_never_wins() {
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[error("a")]), None);
        assert_eq!(name(&[error("a"), answer("b", 1, u64::MAX)]), Some("b"));
        assert_eq!(WinningPriceEstimate::of(&[error("a")]), None);
    }

    #[test]
    fn every_body_is_read_back_as_it_was_written() {
        let estimates =
            [answer("direct", 3_750_000_000, 0), answer("split", 3_600_000_000, 0), error("flaky")];
        let order = r#""sellToken":"0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2","buyToken":"0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48","sellAmount":"1250000000000000000""#;
        let estimate =
            r#"{"outAmount":"3750000000","gas":0,"route":[{"pool":3,"amountIn":"1250000000000000000"}]}"#;
        round_trip(&QuoteRequested::new(&ORDER, 5), &format!(r#"{{"orderId":123,{order},"estimators":5}}"#));
        round_trip(
            &estimates[0],
            &format!(
                r#"{{"orderId":123,"estimator":"direct",{order},"elapsedMicros":17,"result":{{"estimate":{estimate}}}}}"#
            ),
        );
        round_trip(
            &estimates[2],
            &format!(
                r#"{{"orderId":123,"estimator":"flaky",{order},"elapsedMicros":17,"result":{{"error":"liquiditySourceUnavailable"}}}}"#
            ),
        );
        round_trip(
            &WinningPriceEstimate::of(&estimates).unwrap(),
            &format!(
                r#"{{"orderId":123,"estimator":"direct",{order},"netAmount":"3750000000","estimate":{estimate}}}"#
            ),
        );
        round_trip(
            &QuoteComputed::new(&ORDER, &estimates, Duration::from_micros(40)),
            r#"{"orderId":123,"estimates":3,"errors":1,"winner":"direct","spreadBps":400,"elapsedMicros":40}"#,
        );
        round_trip(
            &QuoteComputed::new(&ORDER, &[], Duration::ZERO),
            r#"{"orderId":123,"estimates":0,"errors":0,"spreadBps":0,"elapsedMicros":0}"#,
        );
    }

    #[test]
    fn a_price_estimate_fills_about_400_bytes_with_its_envelope() {
        let body = serde_json::to_string(&answer("two-hop", 3_750_000_000, 110_000)).unwrap();
        let envelope = format!(
            r#"{{"version":"v1","timestamp":"2026-07-06T14:56:50.551377776Z","requestId":"q-000123","body":{body}}}"#
        );
        assert!((390..=440).contains(&envelope.len()), "{} bytes", envelope.len());
    }

    /// Otherwise the demo would show a race that is decided beforehand.
    #[test]
    fn different_estimators_win_in_the_example() {
        let pools = Pools::example(1);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut won = std::collections::BTreeMap::<String, u32>::new();
        for id in 0..2_000 {
            let order = Order::random(id, &mut rng);
            let answers: Vec<_> = estimators(1)
                .iter()
                .map(|one| {
                    PriceEstimate::new(&order, one.name(), one.estimate(&pools, &order), Duration::ZERO)
                })
                .collect();
            *won.entry(name(&answers).unwrap().to_owned()).or_default() += 1;
        }
        for name in ["direct", "flaky", "split", "two-hop"] {
            assert!(won.get(name).is_some_and(|&times| times >= 20), "{name} hardly ever wins: {won:?}");
        }
    }
}
