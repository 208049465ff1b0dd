//! The market of the demo: tokens, pools, and the orders that are priced over them.
//!
//! ```text
//!   Pools::example(seed) ──┐
//!                          ├──► estimate.rs: five estimators race ──► competition.rs: winner, event bodies
//!   Order::random(id, rng) ┘
//! ```
//!
//! A pool holds reserves of two tokens and keeps their product from falling (`x * y = k`). Whoever sells `a` into a pool with
//! the reserves `x` and `y` and the fee `f` receives `y * a * (1 - f) / (x + a * (1 - f))`.
//!
//! Everything is exact integer arithmetic over `u128` with 256 bits in between (`wide.rs`). Each rounding is in favour of the
//! pool, hence a trade never lowers `k`, whatever the amount. Amounts are in a token's smallest unit.
//!
//! Nothing here reads a clock, starts a thread or knows of the bus. The same seed gives the same market on any machine, for the
//! generator is a named one and not whatever is standard today. The prices are fixed and only plausible.

pub(crate) mod competition;
pub(crate) mod estimate;
mod wide;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use wide::{mul_div, mul_div_up};

/// One of the tokens of the market, an index into its table of tokens. In JSON it is the token's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token(u8);

impl Token {
    pub(crate) const WETH: Self = Self(0);
    pub(crate) const USDC: Self = Self(1);
    pub(crate) const USDT: Self = Self(2);
    pub(crate) const WBTC: Self = Self(3);
    pub(crate) const DAI: Self = Self(4);
    pub(crate) const LINK: Self = Self(5);
    pub(crate) const UNI: Self = Self(6);
    pub(crate) const COW: Self = Self(7);

    /// Every token, the most traded first.
    pub(crate) const ALL: [Self; 8] =
        [Self::WETH, Self::USDC, Self::USDT, Self::WBTC, Self::DAI, Self::LINK, Self::UNI, Self::COW];

    /// The ticker, such as `WETH`.
    pub(crate) fn symbol(self) -> &'static str {
        self.listing().symbol
    }

    /// The contract's address on Ethereum: `0x` and 40 lower-case hex digits.
    pub(crate) fn address(self) -> &'static str {
        self.listing().address
    }

    /// What `gas` costs when it is paid in this token. A fixed rate, so that a competition can be judged again later.
    pub(crate) fn gas_cost(self, gas: u64) -> u128 {
        self.worth(u128::from(gas).saturating_mul(MICRO_DOLLARS_PER_GAS))
    }

    /// The amount of this token that is worth so many millionths of a dollar, rounded down.
    fn worth(self, micro_dollars: u128) -> u128 {
        let Listing { decimals, micro_dollars: price, .. } = *self.listing();
        micro_dollars.saturating_mul(10_u128.pow(decimals)) / price
    }

    fn listing(self) -> &'static Listing {
        &LISTINGS[usize::from(self.0)]
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.address())
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let address = String::deserialize(deserializer)?;
        let known = Self::ALL.into_iter().find(|token| token.address() == address);
        known.ok_or_else(|| de::Error::custom(format_args!("{address} is not a token of the demo's market")))
    }
}

/// A constant-product pool of two tokens.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    token0: Token,
    token1: Token,
    reserve0: u128,
    reserve1: u128,
    /// The reserves divided by `1 - fee` and rounded up, hence never below the reserves.
    depth0: u128,
    depth1: u128,
}

impl Pool {
    /// # Panics
    /// When the tokens are the same, a reserve is zero, the fee takes everything, or a reserve divided by `1 - fee` does not
    /// fit: such a pool has no price.
    pub(crate) fn new(token0: Token, token1: Token, reserve0: u128, reserve1: u128, fee_ppm: u32) -> Self {
        assert!(token0 != token1, "a pool is between two tokens, not {} and itself", token0.symbol());
        assert!(reserve0 > 0 && reserve1 > 0, "an empty pool has no price");
        assert!(fee_ppm < PPM, "a fee of {fee_ppm} ppm leaves nothing to trade");
        let depth = |reserve| {
            mul_div_up(reserve, u128::from(PPM), u128::from(PPM - fee_ppm))
                .expect("a reserve divided by 1 - fee fits")
        };
        Self { token0, token1, reserve0, reserve1, depth0: depth(reserve0), depth1: depth(reserve1) }
    }

    /// What the pool gives for `amount_in` of `sell`: less than its reserve, rounded down.
    ///
    /// `None` when `sell` is not one of its tokens, or when the pool could not hold the amount.
    ///
    /// With the depth, the formula on top becomes `y * a / (depth + a)`: one product that fits 256 bits, and one division.
    /// Charging the fee on the amount instead would round by whole units of the token that is sold, which is dear when that
    /// token has 6 decimals and the other has 18.
    pub(crate) fn amount_out(&self, sell: Token, amount_in: u128) -> Option<u128> {
        let (depth, reserve_out) = self.sides(sell)?;
        mul_div(reserve_out, amount_in, depth.checked_add(amount_in)?)
    }

    /// The largest amount of `sell` for which [`Self::amount_out`] answers; 0 for a foreign token.
    pub(crate) fn room(&self, sell: Token) -> u128 {
        self.sides(sell).map_or(0, |(depth, _)| u128::MAX - depth)
    }

    /// The depth of the side that takes `sell`, and the reserve of the other side.
    fn sides(&self, sell: Token) -> Option<(u128, u128)> {
        match sell {
            token if token == self.token0 => Some((self.depth0, self.reserve1)),
            token if token == self.token1 => Some((self.depth1, self.reserve0)),
            _ => None,
        }
    }

    fn joins(&self, one: Token, other: Token) -> bool {
        (self.token0, self.token1) == (one, other) || (self.token0, self.token1) == (other, one)
    }
}

/// The table of pools. A pool is known by its place in it.
#[derive(Clone, Debug)]
pub(crate) struct Pools(Vec<Pool>);

impl Pools {
    /// A market of 24 pools: deep main pairs with several pools each, and thin odd pairs.
    ///
    /// The seed moves the depth of every pool by up to 30 % and its price by up to 0.3 %. That is more than the cheapest fees, so
    /// a detour over a third token is sometimes the better way.
    pub(crate) fn example(seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let pools = EXAMPLE.iter().map(|&(token0, token1, thousand_dollars, fee_ppm)| {
            let depth = u128::from(thousand_dollars) * 1_000 * rng.random_range(700_000..=1_300_000);
            let price_ppm = rng.random_range(997_000..=1_003_000);
            let reserve1 = token1.worth(depth) / u128::from(PPM) * price_ppm;
            Pool::new(token0, token1, token0.worth(depth), reserve1, fee_ppm)
        });
        Self(pools.collect())
    }

    /// The pools which join the two tokens, each with its place in the table.
    pub(crate) fn between(&self, one: Token, other: Token) -> impl Iterator<Item = (usize, &Pool)> {
        self.0.iter().enumerate().filter(move |(_, pool)| pool.joins(one, other))
    }
}

/// The wish to sell exactly `sell_amount` of one token for as much as possible of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) sell: Token,
    pub(crate) buy: Token,
    pub(crate) sell_amount: u128,
}

impl Order {
    /// An order as the market sees them: mostly in the main tokens, mostly small, worth 100 to some 3 million dollars.
    ///
    /// The lesser of two draws favours the head of [`Token::ALL`]. Doubling a random number of times spreads the values evenly
    /// over the orders of magnitude.
    pub(crate) fn random(id: u64, rng: &mut impl Rng) -> Self {
        let sell = rng.random_range(0..Token::ALL.len()).min(rng.random_range(0..Token::ALL.len()));
        let others = Token::ALL.len() - 1;
        let step = 1 + rng.random_range(0..others).min(rng.random_range(0..others));
        let (sell, buy) = (Token::ALL[sell], Token::ALL[(sell + step) % Token::ALL.len()]);
        let micro_dollars = rng.random_range(100_000_000..200_000_000_u128) << rng.random_range(0..15_u32);
        Self { id, sell, buy, sell_amount: sell.worth(micro_dollars) }
    }

    /// The id by which the events of one competition belong together, such as `q-000123`.
    pub(crate) fn request_id(&self) -> String {
        format!("q-{:06}", self.id)
    }
}

/// Parts in a million: the unit of fees.
const PPM: u32 = 1_000_000;

/// Gas at 20 gwei, with ether at 3 000 dollars.
const MICRO_DOLLARS_PER_GAS: u128 = 60;

#[derive(Debug)]
struct Listing {
    symbol: &'static str,
    address: &'static str,
    decimals: u32,
    /// The price of one whole token.
    micro_dollars: u128,
}

/// In the order of [`Token::ALL`].
#[rustfmt::skip]
static LISTINGS: [Listing; Token::ALL.len()] = [
    Listing { symbol: "WETH", address: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2", decimals: 18, micro_dollars: 3_000_000_000 },
    Listing { symbol: "USDC", address: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", decimals: 6, micro_dollars: 1_000_000 },
    Listing { symbol: "USDT", address: "0xdac17f958d2ee523a2206206994597c13d831ec7", decimals: 6, micro_dollars: 1_000_000 },
    Listing { symbol: "WBTC", address: "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599", decimals: 8, micro_dollars: 90_000_000_000 },
    Listing { symbol: "DAI", address: "0x6b175474e89094c44da98b954eedeac495271d0f", decimals: 18, micro_dollars: 1_000_000 },
    Listing { symbol: "LINK", address: "0x514910771af9ca656af840dff83e8264ecf986ca", decimals: 18, micro_dollars: 15_000_000 },
    Listing { symbol: "UNI", address: "0x1f9840a85d5af5bf1d1762f925bdaddc4201f984", decimals: 18, micro_dollars: 8_000_000 },
    Listing { symbol: "COW", address: "0xdef1ca1fb7fbcdc777520aa7f396b4e015f497ab", decimals: 18, micro_dollars: 300_000 },
];

/// Two tokens, thousands of dollars on each side, and the fee in ppm. Every token has a pool with WETH, so that every order
/// has a route of at most two hops.
const EXAMPLE: [(Token, Token, u64, u32); 24] = [
    (Token::WETH, Token::USDC, 120_000, 500),
    (Token::WETH, Token::USDC, 80_000, 3_000),
    (Token::WETH, Token::USDC, 4_000, 10_000),
    (Token::WETH, Token::USDT, 70_000, 500),
    (Token::WETH, Token::USDT, 60_000, 3_000),
    (Token::WETH, Token::DAI, 15_000, 500),
    (Token::WETH, Token::DAI, 12_000, 3_000),
    (Token::WBTC, Token::WETH, 90_000, 500),
    (Token::WBTC, Token::WETH, 60_000, 3_000),
    (Token::WBTC, Token::USDC, 25_000, 500),
    (Token::WBTC, Token::USDC, 18_000, 3_000),
    (Token::WBTC, Token::USDT, 12_000, 3_000),
    (Token::USDC, Token::USDT, 50_000, 100),
    (Token::USDC, Token::USDT, 8_000, 500),
    (Token::USDC, Token::DAI, 40_000, 100),
    (Token::USDT, Token::DAI, 6_000, 100),
    (Token::LINK, Token::WETH, 9_000, 3_000),
    (Token::LINK, Token::WETH, 1_200, 10_000),
    (Token::LINK, Token::USDC, 700, 3_000),
    (Token::UNI, Token::WETH, 7_000, 3_000),
    (Token::UNI, Token::WETH, 900, 10_000),
    (Token::UNI, Token::USDT, 250, 3_000),
    (Token::COW, Token::WETH, 2_000, 3_000),
    (Token::COW, Token::USDC, 60, 10_000),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::wide::multiply;
    use super::*;

    /// Any number of bits is as likely as any other, so that both tiny and huge amounts are tried.
    pub(crate) fn amount() -> impl Strategy<Value = u128> {
        (any::<u128>(), 0..128_u32).prop_map(|(bits, shift)| bits >> shift)
    }

    /// Any pool at all: reserves up to what the fee leaves room for.
    pub(crate) fn pool() -> impl Strategy<Value = Pool> {
        (amount(), amount(), 0..PPM).prop_map(|(x, y, fee_ppm)| {
            let reserve = |depth| mul_div(depth, u128::from(PPM - fee_ppm), u128::from(PPM)).unwrap().max(1);
            Pool::new(Token::WETH, Token::USDC, reserve(x), reserve(y), fee_ppm)
        })
    }

    proptest! {
        #[test]
        fn a_trade_neither_empties_the_pool_nor_lowers_k(pool in pool(), amount_in in amount(), flip: bool) {
            let (sell, x, y) = match flip {
                false => (Token::WETH, pool.reserve0, pool.reserve1),
                true => (Token::USDC, pool.reserve1, pool.reserve0),
            };
            if let Some(out) = pool.amount_out(sell, amount_in) {
                prop_assert!(out < y);
                prop_assert!(multiply(x + amount_in, y - out) >= multiply(x, y));
            }
        }

        #[test]
        fn more_in_is_never_less_out(pool in pool(), one in amount(), other in amount()) {
            let (less, more) = (one.min(other), one.max(other));
            if let Some(out) = pool.amount_out(Token::WETH, more) {
                prop_assert!(pool.amount_out(Token::WETH, less).unwrap() <= out);
            }
        }

        #[test]
        fn a_pool_answers_exactly_where_it_has_room(pool in pool(), amount_in in amount()) {
            let answers = pool.amount_out(Token::WETH, amount_in).is_some();
            prop_assert_eq!(answers, amount_in <= pool.room(Token::WETH));
        }

        /// The textbook formula with the fee on the amount, in numbers small enough for it, is the dull oracle.
        #[test]
        fn the_output_is_the_textbook_formula_rounded_down(
            x in 1..1_u128 << 40, y in 1..1_u128 << 40, fee_ppm in 0..PPM, amount_in in 0..1_u128 << 40
        ) {
            let pool = Pool::new(Token::WETH, Token::USDC, x, y, fee_ppm);
            let net = amount_in * u128::from(PPM - fee_ppm);
            let exact = y * net / (x * u128::from(PPM) + net);
            let out = pool.amount_out(Token::WETH, amount_in).unwrap();
            prop_assert!(out <= exact);
            prop_assert!(exact - out <= 1 + exact / x, "{out} is too far below {exact}");
        }
    }

    #[test]
    fn a_pool_refuses_a_foreign_token_and_an_amount_it_cannot_hold() {
        let pool = Pool::new(Token::WETH, Token::USDC, 1_000, 1_000, 3_000);
        assert_eq!(pool.amount_out(Token::DAI, 1), None);
        assert_eq!(pool.room(Token::DAI), 0);
        assert_eq!(pool.amount_out(Token::WETH, u128::MAX), None);
        assert_eq!(pool.amount_out(Token::WETH, 0), Some(0));
    }

    #[test]
    fn the_example_depends_on_nothing_but_the_seed() {
        let print = |seed| format!("{:?}", Pools::example(seed));
        assert_eq!(print(7), print(7));
        assert_ne!(print(7), print(8));
    }

    #[test]
    fn every_token_has_a_pool_with_weth_and_a_plausible_price() {
        let pools = Pools::example(1);
        for token in Token::ALL.into_iter().skip(1) {
            let out = pools
                .between(Token::WETH, token)
                .filter_map(|(_, pool)| pool.amount_out(Token::WETH, Token::WETH.worth(100_000_000)));
            let best = out.max().unwrap();
            let fair = token.worth(100_000_000);
            assert!(
                best > fair * 98 / 100 && best < fair * 101 / 100,
                "{}: {best} for {fair}",
                token.symbol()
            );
        }
    }

    #[test]
    fn a_token_is_read_back_from_its_address_and_no_other_text() {
        for (place, token) in Token::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(token.0), place);
            let digits = token.address().strip_prefix("0x").unwrap();
            assert!(
                digits.len() == 40 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            );
            let json = serde_json::to_string(&token).unwrap();
            assert_eq!(serde_json::from_str::<Token>(&json).unwrap(), token);
        }
        assert!(serde_json::from_str::<Token>("\"0x00\"").is_err());
    }

    #[test]
    fn random_orders_are_between_two_tokens_and_follow_the_seed() {
        let orders = |seed| {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            (0..1_000).map(|id| Order::random(id, &mut rng)).collect::<Vec<_>>()
        };
        assert!(orders(1).iter().all(|order| order.sell != order.buy && order.sell_amount > 0));
        assert_eq!(orders(1), orders(1));
        assert_ne!(orders(1), orders(2));
        assert_eq!(orders(1)[123].request_id(), "q-000123");
    }
}
