//! The estimators: five ways to price one order over the same pools.
//!
//! | name | looks at | costs |
//! | --- | --- | --- |
//! | `direct` | the best single pool between the two tokens | least |
//! | `flaky` | as `split`, but for some orders its source of liquidity is not to be had | as `split` |
//! | `split` | the two best pools between the two tokens, sharing the order | most, but for the slow one |
//! | `two-hop` | the best single pool, or the best detour over a third token | little |
//! | `two-hop-slow` | as `two-hop`, over and over | as much as it is told to |
//!
//! They are pure: the answer depends on the pools and the order alone, and a route can be replayed pool by pool to give the
//! same amount. So a race of threads over them has varying times but never varying answers.

use std::hint::black_box;

use serde::{Deserialize, Serialize};

use super::{Order, Pool, Pools, Token};

/// The five estimators, in the order of their names.
///
/// `slow_rounds` is how often the slow one does its work; each round is about a microsecond.
pub(crate) fn estimators(slow_rounds: u32) -> [Box<dyn Estimator>; 5] {
    [
        Box::new(Direct),
        Box::new(Flaky { one_in: 8 }),
        Box::new(Split),
        Box::new(TwoHop),
        Box::new(TwoHopSlow { rounds: slow_rounds }),
    ]
}

/// A way to price an order.
pub(crate) trait Estimator: Send + Sync {
    /// Its name in the events. Names differ, for they settle ties.
    fn name(&self) -> &'static str;

    /// What the order would receive. It moves no reserves.
    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure>;
}

/// What an order would receive, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Estimate {
    /// Never zero, in units of the token bought.
    #[serde(with = "decimal")]
    pub(crate) out_amount: u128,
    pub(crate) gas: u64,
    /// One or two hops: one after the other where they go over a third token, side by side where they share the order.
    pub(crate) route: Vec<Hop>,
}

impl Estimate {
    fn new(out_amount: u128, route: Vec<Hop>) -> Result<Self, Failure> {
        if out_amount == 0 {
            return Err(Failure::InsufficientLiquidity);
        }
        Ok(Self { out_amount, gas: GAS_BASE + GAS_PER_HOP * route.len() as u64, route })
    }

    /// The output less the gas, both in the token bought; 0 where the gas costs more than the trade brings.
    pub(crate) fn net_amount(&self, buy: Token) -> u128 {
        self.out_amount.saturating_sub(buy.gas_cost(self.gas))
    }
}

/// One use of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hop {
    /// Its place in [`Pools`].
    pub(crate) pool: usize,
    /// In units of the token that this hop sells.
    #[serde(with = "decimal")]
    pub(crate) amount_in: u128,
}

/// Why there is no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Failure {
    /// No pools that this estimator looks at join the two tokens.
    NoRoute,
    /// There are pools, but they give nothing for the amount, or cannot hold it.
    InsufficientLiquidity,
    /// Where the estimator has its pools from did not answer.
    LiquiditySourceUnavailable,
}

/// The best single pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct;

impl Estimator for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure> {
        let best = best_pool(pools, order.sell, order.buy, order.sell_amount).ok_or(Failure::NoRoute)?;
        Estimate::new(best.out, vec![best.hop])
    }
}

/// The best single pool or the best two in a row, whichever gives more. Gas is for the judge to weigh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoHop;

impl Estimator for TwoHop {
    fn name(&self) -> &'static str {
        "two-hop"
    }

    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure> {
        let direct = best_pool(pools, order.sell, order.buy, order.sell_amount);
        // More into the second pool is never less out of it, so the best first pool is part of the best pair.
        let detours =
            Token::ALL.into_iter().filter(|&via| via != order.sell && via != order.buy).filter_map(|via| {
                let first = best_pool(pools, order.sell, via, order.sell_amount)?;
                let second = best_pool(pools, via, order.buy, first.out)?;
                Some((first, second))
            });
        let detour = detours.max_by_key(|(_, second)| second.out);

        match (direct, detour) {
            (None, None) => Err(Failure::NoRoute),
            (Some(direct), Some((_, second))) if direct.out >= second.out => {
                Estimate::new(direct.out, vec![direct.hop])
            }
            (_, Some((first, second))) => Estimate::new(second.out, vec![first.hop, second.hop]),
            (Some(direct), None) => Estimate::new(direct.out, vec![direct.hop]),
        }
    }
}

/// The order shared by the two best pools between the tokens, so that together they give the most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split;

impl Estimator for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure> {
        let mut ranked: Vec<_> = pools.between(order.sell, order.buy).collect();
        ranked.sort_by_cached_key(|(_, pool)| {
            std::cmp::Reverse(pool.amount_out(order.sell, order.sell_amount))
        });
        let [(first, first_pool), (second, second_pool), ..] = ranked[..] else {
            return Direct.estimate(pools, order);
        };

        let (share, out) = best_split(first_pool, second_pool, order.sell, order.sell_amount)
            .ok_or(Failure::InsufficientLiquidity)?;
        let hops = [
            Hop { pool: first, amount_in: share },
            Hop { pool: second, amount_in: order.sell_amount - share },
        ];
        Estimate::new(out, hops.into_iter().filter(|hop| hop.amount_in > 0).collect())
    }
}

/// Answers as [`TwoHop`], after doing the work `rounds` times: the straggler of the race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoHopSlow {
    /// At least one round is done.
    pub(crate) rounds: u32,
}

impl Estimator for TwoHopSlow {
    fn name(&self) -> &'static str {
        "two-hop-slow"
    }

    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure> {
        for _ in 1..self.rounds {
            // Without the black box the compiler may see that nobody needs these answers.
            let _ = black_box(TwoHop.estimate(black_box(pools), black_box(order)));
        }
        TwoHop.estimate(pools, order)
    }
}

/// Answers as [`Split`], but fails for about one order in `one_in`, always the same ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flaky {
    pub(crate) one_in: u64,
}

impl Estimator for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn estimate(&self, pools: &Pools, order: &Order) -> Result<Estimate, Failure> {
        // Fibonacci hashing: ids follow one another, failures should not come like clockwork.
        let scattered = order.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        if scattered.is_multiple_of(self.one_in) {
            return Err(Failure::LiquiditySourceUnavailable);
        }
        Split.estimate(pools, order)
    }
}

/// An amount as a string of decimal digits, as such APIs write them: a JSON number would lose digits past 2^53.
pub(crate) mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(amount: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a transaction costs before its first hop, and what each hop adds.
const GAS_BASE: u64 = 50_000;
const GAS_PER_HOP: u64 = 60_000;

#[derive(Clone, Copy)]
struct Quoted {
    hop: Hop,
    out: u128,
}

/// The pool between two tokens that gives most; `None` when there is none between them.
fn best_pool(pools: &Pools, sell: Token, buy: Token, amount_in: u128) -> Option<Quoted> {
    let quoted = pools.between(sell, buy).map(|(pool, reserves)| Quoted {
        hop: Hop { pool, amount_in },
        // A pool which cannot hold the amount gives nothing for it.
        out: reserves.amount_out(sell, amount_in).unwrap_or(0),
    });
    quoted.max_by_key(|quoted| quoted.out)
}

/// The first pool's share of `amount` with which both together give the most, and what they give. `None` when the two together
/// cannot hold the amount.
///
/// The output over the share is a concave curve, so a third of the bracket can go in each step: the one beyond the worse of two
/// probes. What the pools round off makes the curve uneven by less than two units, so near its top the search can miss a unit
/// or two; the ends are probed as well, so it is never below either pool alone.
fn best_split(first: &Pool, second: &Pool, sell: Token, amount: u128) -> Option<(u128, u128)> {
    // Between these bounds both pools answer.
    let mut low = amount.saturating_sub(second.room(sell));
    let mut high = amount.min(first.room(sell));
    if low > high {
        return None;
    }
    let probe = |share| {
        let one = first.amount_out(sell, share)?;
        let other = second.amount_out(sell, amount - share)?;
        // Saturating rounds down, as everything here.
        Some((one.saturating_add(other), share))
    };

    let mut best = probe(low)?.max(probe(high)?);
    // A bracket of 128 bits is through after some 220 steps, as each leaves at most two thirds of it.
    while high - low > 2 {
        let third = (high - low) / 3;
        let (left, right) = (probe(low + third)?, probe(high - third)?);
        best = best.max(left).max(right);
        if left.0 <= right.0 {
            low += third;
        }
        if left.0 >= right.0 {
            high -= third;
        }
    }
    best = best.max(probe(low.midpoint(high))?);
    let (out, share) = best;
    Some((share, out))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{amount, pool};
    use super::*;

    fn order() -> impl Strategy<Value = Order> {
        (any::<u64>(), 0..8_usize, 1..8_usize, amount()).prop_map(|(id, sell, step, sell_amount)| Order {
            id,
            sell: Token::ALL[sell],
            buy: Token::ALL[(sell + step) % 8],
            sell_amount,
        })
    }

    /// Trades along the route with a purse, one pool after the other, and returns what is in it at the end.
    fn replay(pools: &Pools, order: &Order, route: &[Hop]) -> u128 {
        let mut purse = [0; 8];
        purse[usize::from(order.sell.0)] = order.sell_amount;
        for hop in route {
            let pool = &pools.0[hop.pool];
            let (sell, buy) = [(pool.token0, pool.token1), (pool.token1, pool.token0)]
                .into_iter()
                .find(|(sell, _)| *sell != order.buy && purse[usize::from(sell.0)] >= hop.amount_in)
                .unwrap();
            purse[usize::from(sell.0)] -= hop.amount_in;
            purse[usize::from(buy.0)] += pool.amount_out(sell, hop.amount_in).unwrap();
        }
        let bought = purse[usize::from(order.buy.0)];
        assert_eq!(purse.iter().filter(|&&amount| amount > 0).count(), 1, "all is sold on");
        bought
    }

    fn out(estimator: &dyn Estimator, pools: &Pools, order: &Order) -> u128 {
        estimator.estimate(pools, order).map_or(0, |estimate| estimate.out_amount)
    }

    proptest! {
        #[test]
        fn every_estimator_answers_every_order_with_a_route_that_gives_that_much(seed: u64, order in order()) {
            let pools = Pools::example(seed);
            for estimator in estimators(2) {
                if let Ok(estimate) = estimator.estimate(&pools, &order) {
                    prop_assert_eq!(replay(&pools, &order, &estimate.route), estimate.out_amount);
                    prop_assert!(estimate.out_amount > 0 && (1..=2).contains(&estimate.route.len()));
                }
            }
        }

        #[test]
        fn two_hops_and_a_split_are_never_below_any_single_pool(seed: u64, order in order()) {
            let pools = Pools::example(seed);
            for (_, pool) in pools.between(order.sell, order.buy) {
                let alone = pool.amount_out(order.sell, order.sell_amount).unwrap_or(0);
                prop_assert!(out(&Direct, &pools, &order) >= alone);
                prop_assert!(out(&TwoHop, &pools, &order) >= alone);
                prop_assert!(out(&Split, &pools, &order) >= alone);
            }
        }

        #[test]
        fn the_slow_one_answers_as_the_quick_one(seed: u64, order in order(), rounds in 0..4_u32) {
            let pools = Pools::example(seed);
            prop_assert_eq!(TwoHopSlow { rounds }.estimate(&pools, &order), TwoHop.estimate(&pools, &order));
        }

        /// Trying every pair of pools is the dull oracle.
        #[test]
        fn two_hops_find_the_best_of_all_pairs(seed: u64, order in order()) {
            let pools = Pools::example(seed);
            let mut best = out(&Direct, &pools, &order);
            for via in Token::ALL.into_iter().filter(|&via| via != order.sell && via != order.buy) {
                for (_, first) in pools.between(order.sell, via) {
                    for (_, second) in pools.between(via, order.buy) {
                        let middle = first.amount_out(order.sell, order.sell_amount);
                        best = best.max(middle.and_then(|amount| second.amount_out(via, amount)).unwrap_or(0));
                    }
                }
            }
            prop_assert_eq!(out(&TwoHop, &pools, &order), best);
        }

        /// Trying every share is the dull oracle.
        #[test]
        fn a_split_is_within_two_units_of_the_best_of_all_shares(
            reserves in prop::array::uniform4(1..100_000_u128), fees in prop::array::uniform2(0..20_000_u32), amount in 0..2_000_u128
        ) {
            let [a, b, c, d] = reserves;
            let first = Pool::new(Token::WETH, Token::USDC, a, b, fees[0]);
            let second = Pool::new(Token::USDC, Token::WETH, d, c, fees[1]);
            let at = |share| {
                first.amount_out(Token::WETH, share).unwrap() + second.amount_out(Token::WETH, amount - share).unwrap()
            };
            let best = (0..=amount).map(at).max().unwrap();
            let (share, out) = best_split(&first, &second, Token::WETH, amount).unwrap();
            prop_assert_eq!(at(share), out);
            prop_assert!(out + 2 >= best, "{} is not close to {}", out, best);
        }

        #[test]
        fn a_split_fits_wherever_the_two_pools_have_room(first in pool(), second in pool(), amount in amount()) {
            let room = first.room(Token::WETH).saturating_add(second.room(Token::WETH));
            prop_assert_eq!(best_split(&first, &second, Token::WETH, amount).is_some(), amount <= room);
        }
    }

    #[test]
    fn pools_of_the_same_kind_share_the_order_evenly() {
        let pool = Pool::new(Token::WETH, Token::USDC, 1 << 80, 1 << 80, 3_000);
        let (share, _) = best_split(&pool, &pool, Token::WETH, 1 << 70).unwrap();
        assert!(share.abs_diff(1 << 69) < 1 << 46, "{share} is not near the middle");
    }

    #[test]
    fn each_failure_has_its_cause() {
        let pools = Pools(vec![Pool::new(Token::WETH, Token::USDC, 1_000_000, 1_000, 3_000)]);
        let order = Order { id: 1, sell: Token::WETH, buy: Token::USDC, sell_amount: 1 };
        let foreign = Order { buy: Token::COW, ..order };
        for estimator in [&Direct as &dyn Estimator, &TwoHop, &Split] {
            assert_eq!(estimator.estimate(&pools, &foreign), Err(Failure::NoRoute));
            assert_eq!(estimator.estimate(&pools, &order), Err(Failure::InsufficientLiquidity));
        }
        assert_eq!(Flaky { one_in: 1 }.estimate(&pools, &order), Err(Failure::LiquiditySourceUnavailable));
    }

    #[test]
    fn the_flaky_one_fails_for_about_one_order_in_so_many() {
        let pools = Pools::example(1);
        let fails = |id| {
            let order = Order { id, sell: Token::COW, buy: Token::WETH, sell_amount: 1 << 60 };
            Flaky { one_in: 8 }.estimate(&pools, &order) == Err(Failure::LiquiditySourceUnavailable)
        };
        let failures = (0..8_000).filter(|&id| fails(id)).count();
        assert!((800..=1_200).contains(&failures), "{failures} of 8000");
    }

    #[test]
    fn an_estimate_is_read_back_as_it_was_written() {
        let estimate = Estimate::new(u128::MAX, vec![Hop { pool: 3, amount_in: 10 }]).unwrap();
        let json = serde_json::to_string(&estimate).unwrap();
        let written = r#"{"outAmount":"340282366920938463463374607431768211455","gas":110000,"route":[{"pool":3,"amountIn":"10"}]}"#;
        assert_eq!(json, written);
        assert_eq!(serde_json::from_str::<Estimate>(&json).unwrap(), estimate);
        assert_eq!(serde_json::to_string(&Failure::NoRoute).unwrap(), "\"noRoute\"");
    }
}
