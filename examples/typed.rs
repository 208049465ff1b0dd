//! Typed events: their names and their schemas are part of their types.
//!
//! `cargo run --example typed --features schema` publishes two to nowhere and writes their schemas to a directory, which one commits;
//! `jetring schema check schemas NEW` then tells what the next version breaks.

use jetring::schema::Schemas;
use jetring::{Bus, Config, Event};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// Somebody has asked for a quote.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct QuoteRequested {
    sell_token: String,
    buy_token: String,
    /// In atoms, as a decimal number; JSON's own have too few digits.
    sell_amount: String,
}

impl Event for QuoteRequested {
    const SUBJECT: &'static str = "quoteRequested";
}

/// An estimator has answered.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PriceEstimate {
    estimator: String,
    outcome: Outcome,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    /// What the buyer gets, in atoms.
    OutAmount(String),
    /// There is no way from one token to the other.
    NoRoute,
}

impl Event for PriceEstimate {
    const SUBJECT: &'static str = "priceEstimate";
}

/// All that this program publishes.
fn schemas() -> Schemas {
    Schemas::new().event::<QuoteRequested>().event::<PriceEstimate>()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::start(Config::new("null:", "main", 1)?)?;
    let (sell_token, buy_token) = ("WETH".to_owned(), "USDC".to_owned());
    bus.publish_event(&QuoteRequested {
        sell_token,
        buy_token,
        sell_amount: "1000000000000000000".to_owned(),
    });
    let outcomes = [("direct", Outcome::NoRoute), ("two-hop", Outcome::OutAmount("2718281828".to_owned()))];
    for (estimator, outcome) in outcomes {
        bus.publish_event(&PriceEstimate { estimator: estimator.to_owned(), outcome });
    }
    let report = bus.close(Duration::from_secs(5));
    println!("{} events published", report.stats.acked);

    let directory = std::env::args().nth(1).unwrap_or_else(|| "schemas".to_owned());
    schemas().write_to(&directory)?;
    println!("their schemas are in {directory}/");
    Ok(())
}
