//! Known limits: what no client can survive.
//!
//! A check is never weakened. Instead a world in which a promise cannot be kept is not drawn, here and by name, with the reason. When
//! a limit falls, its function goes.

use super::plan::{Kind, Plan};

pub(super) fn respect(plan: &mut Plan) {
    lost_streams_with_ghosts(plan);
    removed_and_overtaken(plan);
}

/// A server that has lost what it had stored, or a stream that was made again, takes a late copy of it for new, and stores it behind what
/// came after.
fn lost_streams_with_ghosts(plan: &mut Plan) {
    if plan.has(Kind::PowerLoss) || plan.has(Kind::Delete) {
        plan.world.ghost_max = 0;
    }
}

/// Where a message was lost or refused out of the middle, and a later one of its producer stored, not acknowledged and removed before the
/// stream was read, nothing tells that from a connection that ended before both. Both are sent again then, in order: the
/// server knows the later one by its id, and the earlier one is stored behind it. And what was stored and removed, the only replica knows
/// no more once it has started again: neither by its id, as these are read from what is stored, nor by its message.
fn removed_and_overtaken(plan: &mut Plan) {
    let refusals =
        [Kind::Errors, Kind::Full, Kind::Shrink, Kind::Uncover, Kind::Deny, Kind::Off, Kind::Delete];
    let losses = [Kind::Swallow, Kind::Elect, Kind::Restart, Kind::PowerLoss];
    if refusals.into_iter().chain(losses).any(|kind| plan.has(kind)) {
        plan.leave_out(&[Kind::Trim]);
    }
}
