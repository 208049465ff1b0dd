//! The books: each event that has met its fate is moved from *in flight* to its last account.

use super::packer::Event;
use super::pipeline::{Fate, Outcome};
use super::stamp::Stamper;
use crate::clock::Timestamp;
use crate::ledger::Accounts;
use crate::metrics::Latencies;

/// Moves the events of a message from in flight to their last account. Reports of the bus stand in no account.
pub(super) fn book(
    accounts: &mut Accounts,
    stamper: &mut Stamper,
    latencies: &mut Latencies,
    wall: Timestamp,
    outcome: &Outcome,
) {
    let message = &outcome.message;
    match &message.packed {
        Some(packed) => {
            for &event in &packed.events {
                book_event(accounts, stamper, latencies, wall, outcome, event);
            }
        }
        None if message.is_report() => {}
        None => book_event(accounts, stamper, latencies, wall, outcome, Event::of(message)),
    }
}

#[inline]
fn book_event(
    accounts: &mut Accounts,
    stamper: &mut Stamper,
    latencies: &mut Latencies,
    wall: Timestamp,
    outcome: &Outcome,
    Event { origin, seq, offered, sequence }: Event,
) {
    let name = &outcome.message.route.name;
    if outcome.is_given_up && sequence.is_some() {
        // It is in the spool, and stays there, and stands in the account of what is there.
        return;
    }
    match outcome.fate {
        Fate::Acked { .. } => {
            accounts.acked += 1;
            latencies.add(outcome.ack_latency, wall.0.saturating_sub(offered));
        }
        Fate::Dropped(reason) => {
            accounts.dropped.add(reason, 1);
            stamper.lost(origin, seq, name, reason);
        }
        Fate::Indeterminate => {
            accounts.indeterminate += 1;
            stamper.indeterminate(origin, seq, name);
        }
    }
}
