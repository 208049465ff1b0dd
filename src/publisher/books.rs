//! The books: each event that has met its fate is moved from *in flight* to its last account.

use super::packer::Event;
use super::pipeline::{Fate, Outcome};
use super::stamp::Stamper;
use super::window::Origin;
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
    match (&message.packed, message.origin) {
        (Some(packed), _) => {
            for &event in &packed.events {
                book_event(accounts, stamper, latencies, wall, outcome, event);
            }
        }
        (None, Origin::Ring(ring)) => {
            let event = Event { ring, seq: message.seq, offered: message.offered };
            book_event(accounts, stamper, latencies, wall, outcome, event);
        }
        (None, Origin::Bus) => {}
    }
}

#[inline]
fn book_event(
    accounts: &mut Accounts,
    stamper: &mut Stamper,
    latencies: &mut Latencies,
    wall: Timestamp,
    outcome: &Outcome,
    Event { ring, seq, offered }: Event,
) {
    let name = &outcome.message.route.name;
    match outcome.fate {
        Fate::Acked { .. } => {
            accounts.acked += 1;
            latencies.add(outcome.ack_latency, wall.0.saturating_sub(offered));
        }
        Fate::Dropped(reason) => {
            accounts.dropped.add(reason, 1);
            stamper.lost(ring, seq, name, reason);
        }
        Fate::Indeterminate => {
            accounts.indeterminate += 1;
            stamper.indeterminate(ring, seq, name);
        }
    }
}
