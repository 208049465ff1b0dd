//! `jetring top`: a running process, live, as its metrics endpoint shows it.
//!
//! ```text
//!   endpoint ──scrape, each interval──► Reading ──► History (what changed between two) ──► view, on the terminal
//! ```
//!
//! It needs what a scraper of Prometheus needs, a URL, and shows what one looks at first: whether events get through, how many wait and
//! for how long, what is lost, and whether the ledger balances. A process that does not answer, or starts again, is waited for.

mod history;
mod reading;
mod view;

use crate::interrupt::{Flag, interrupt};
use crate::scrape::Scrape;
use crate::{Failure, Outcome, Result, args};
use history::History;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind};
use reading::Reading;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long a key may wait to be heard.
const KEY_POLL: Duration = Duration::from_millis(50);

/// A process that does not answer is asked for so long.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(runtime: &Runtime, args: &args::Top, json: bool) -> Result<Outcome> {
    if json {
        return Err(Failure::Usage(
            "--json: top draws; jetring stats --json prints the same figures".to_owned(),
        ));
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::Usage("top needs a terminal; jetring stats prints the figures once".to_owned()));
    }
    let interrupted = interrupt(runtime)?;
    let mut terminal = ratatui::init();
    let shown = show(runtime, args, &mut terminal, &interrupted);
    ratatui::restore();
    shown.map(|()| Outcome::Well)
}

/// Draws until the user has enough.
fn show(
    runtime: &Runtime,
    args: &args::Top,
    terminal: &mut DefaultTerminal,
    interrupted: &Flag,
) -> Result<()> {
    let interval = Duration::from_secs(args.interval);
    let mut history = History::default();
    loop {
        let asked_at = Instant::now();
        history.add(asked_at, runtime.block_on(read(args)));
        loop {
            terminal.draw(|frame| view::draw(frame, &args.target, &history)).map_err(Failure::run)?;
            if interrupted.is_set() || is_quit_asked(KEY_POLL)? {
                return Ok(());
            }
            if asked_at.elapsed() >= interval {
                break;
            }
        }
    }
}

async fn read(args: &args::Top) -> Result<Reading, String> {
    let scrape = tokio::time::timeout(PATIENCE, Scrape::of(&args.target)).await;
    match scrape {
        Ok(Ok(scrape)) => Reading::of(&scrape),
        Ok(Err(Failure::Run(problem) | Failure::Config(problem) | Failure::Usage(problem))) => Err(problem),
        Err(_) => Err(format!("{}: no answer in {} s", args.target, PATIENCE.as_secs())),
    }
}

/// Whether the user has asked to end within this time. Every other event is passed over; a new size is drawn anyway.
fn is_quit_asked(patience: Duration) -> Result<bool> {
    if !event::poll(patience).map_err(Failure::run)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read().map_err(Failure::run)? else { return Ok(false) };
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(event::KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    Ok(key.kind == KeyEventKind::Press && (is_interrupt || is_quit))
}
