//! Known limits: what no client can survive, and what ours does not survive yet.
//!
//! A check is never weakened. Instead a world in which a promise cannot be kept is not drawn, here and by name, with the reason. When
//! a limit falls, its function goes.

use super::plan::{Kind, Plan};

pub(super) fn respect(plan: &mut Plan) {
    lost_streams_with_ghosts(plan);
    removed_messages(plan);
    looks_that_overtake(plan);
}

/// A server that has lost what it had stored, or a stream that was made again, takes a late copy of it for new, and stores it behind what
/// came after.
fn lost_streams_with_ghosts(plan: &mut Plan) {
    if plan.has(Kind::PowerLoss) || plan.has(Kind::Delete) {
        plan.world.ghost_max = 0;
    }
}

/// A fault of the pipeline: where messages were removed from the stream, what is not found there is sent again, also if a later event
/// of its producer is known to be stored. And a limit of every client: what was stored and removed, a server that has
/// started again knows no more, neither by its id nor by reading.
fn removed_messages(plan: &mut Plan) {
    plan.leave_out(&[Kind::Trim]);
}

/// A fault of the pipeline: what the leader has taken and not yet brought to a quorum is not in the stream when that is looked at, and is
/// taken for not stored.
fn looks_that_overtake(plan: &mut Plan) {
    plan.world.looks_overtake = false;
}
