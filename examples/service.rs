//! A quote service that tells what it does: each request publishes events, and a stop loses none of them.
//!
//! ```text
//!   GET /quote?sell=WETH&buy=USDC&amount=1000   ──►  quoteRequested, quoteComputed   ──► bus ──► NATS
//!   GET /metrics                                ◄──  the ledger of the bus, for Prometheus
//!   SIGTERM  ──►  no more requests  ──►  close the bus, within its deadline  ──►  the balance
//! ```
//!
//! ```sh
//! nats-server --jetstream &
//! export JETRING_EVENT_BUS__CHAIN_ID=1
//! cargo run --features cli -- tap --create-stream &
//! cargo run --example service
//! curl -H 'X-Request-Id: q-17' 'http://127.0.0.1:8080/quote?sell=WETH&buy=USDC&amount=1000'
//! ```
//!
//! The bus is configured by a file, whose name is the first argument, and by the environment. The service itself has one variable,
//! `LISTEN`. Exit status: 0 if every event was acknowledged, 1 if not, or if the service could not be started.

use std::convert::Infallible;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Json, Router};
use jetring::{Bus, Config, Event};
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests that are being answered when the service is asked to end may take.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = match std::env::args().nth(1) {
        Some(path) => Config::load(path)?,
        None => Config::layered(None, Config::environment()?, [])?,
    };
    let deadline = config.shutdown.timeout;
    // Does not wait for the server: the service answers requests also while NATS is away.
    let bus = Bus::start(config)?;
    let metrics = Registry::new();
    bus.register(&metrics)?;

    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(listen).await?;
    eprintln!("listening at http://{}", listener.local_addr()?);
    serve(listener, routes(Service { bus: bus.clone(), metrics })).await?;

    // All requests are answered, or have had their time. What they have published is delivered, or counted, by the deadline.
    let report = bus.close_async(deadline).await;
    eprintln!("{}", serde_json::to_string(&report)?);
    let delivered = report.stats.acked == report.stats.offered;
    Ok(if delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Answers requests until the service is asked to end.
async fn serve(listener: TcpListener, routes: Router) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = tokio::sync::watch::channel(());
    let stopped = |mut stopping: tokio::sync::watch::Receiver<()>| async move {
        let _ = stopping.changed().await;
    };
    let out_of_patience = stopped(stopping.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send(())
    });
    tokio::select! {
        served = axum::serve(listener, routes).with_graceful_shutdown(stopped(stopping)) => served,
        // A client that does not read its answer shall not keep us from closing the bus.
        () = async { out_of_patience.await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

/// What the handlers share.
struct Service {
    bus: Bus,
    metrics: Registry,
}

fn routes(service: Service) -> Router {
    Router::new().route("/quote", get(quote)).route("/metrics", get(metrics)).with_state(Arc::new(service))
}

// ---- events -------------------------------------------------------------------------------------------------------------

/// Somebody wants to know what `amount` of one token is worth in another.
#[derive(Serialize)]
struct QuoteRequested<'a> {
    sell: &'a str,
    buy: &'a str,
    amount: u64,
}

impl Event for QuoteRequested<'_> {
    const SUBJECT: &'static str = "quoteRequested";
}

/// The answer. No amount means that no pool trades the pair.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QuoteComputed {
    out_amount: Option<u64>,
    elapsed_micros: u64,
}

impl Event for QuoteComputed {
    const SUBJECT: &'static str = "quoteComputed";
}

// ---- requests -----------------------------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct Wanted {
    sell: String,
    buy: String,
    amount: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Quoted {
    out_amount: u64,
}

async fn quote(
    State(service): State<Arc<Service>>,
    RequestId(id): RequestId,
    Query(Wanted { sell, buy, amount }): Query<Wanted>,
) -> Result<Json<Quoted>, StatusCode> {
    // All that is published in here carries the request's id. Nothing is awaited in it, since a scope belongs to a thread.
    let out_amount = jetring::request_scope(id, || {
        let started = std::time::Instant::now();
        service.bus.publish_event(&QuoteRequested { sell: &sell, buy: &buy, amount });
        let out_amount = out_amount(&sell, &buy, amount);
        let elapsed_micros = started.elapsed().as_micros() as u64;
        service.bus.publish_event(&QuoteComputed { out_amount, elapsed_micros });
        out_amount
    });
    out_amount.map(|out_amount| Json(Quoted { out_amount })).ok_or(StatusCode::NOT_FOUND)
}

async fn metrics(State(service): State<Arc<Service>>) -> Result<String, StatusCode> {
    let families = service.metrics.gather();
    TextEncoder::new().encode_to_string(&families).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

/// The id that the caller gave in `X-Request-Id`, or one of ours.
struct RequestId(String);

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Self(given.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned)))
    }
}

// ---- prices -------------------------------------------------------------------------------------------------------------

/// What a token pair's pool holds, in the tokens' smallest units.
const POOLS: [(&str, u64, &str, u64); 2] =
    [("WETH", 4_000_000, "USDC", 12_000_000_000), ("DAI", 9_000_000_000, "USDC", 9_001_000_000)];

/// The other side of a trade against a pool whose two amounts have a constant product.
fn out_amount(sell: &str, buy: &str, amount: u64) -> Option<u64> {
    let (into, out_of) = POOLS.iter().find_map(|&(one, of_one, other, of_other)| match (sell, buy) {
        pair if pair == (one, other) => Some((of_one, of_other)),
        pair if pair == (other, one) => Some((of_other, of_one)),
        _ => None,
    })?;
    u64::try_from(u128::from(out_of) * u128::from(amount) / (u128::from(into) + u128::from(amount))).ok()
}
