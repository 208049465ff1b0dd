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
    let of_subjects = [Kind::SubjectFull, Kind::SubjectErrors, Kind::SubjectUnheard];
    let losses = [Kind::Swallow, Kind::Elect, Kind::Restart, Kind::PowerLoss];
    if refusals.into_iter().chain(of_subjects).chain(losses).any(|kind| plan.has(kind)) {
        plan.leave_out(&[Kind::Trim]);
    }
}

/// Whether what is still on its way through connections that were left is lost when this ends.
///
/// An event that is sent again and refused for good, while its first copy is still under way, is indeterminate, and its producer goes on. Is
/// its like taken again before that copy has arrived, then it is stored behind later ones: elsewhere the second copy comes first, and
/// its id keeps the late one out. Only waiting for as long as a connection can keep a message would help, which no client knows, and which
/// would hold up everybody for one subject.
pub(super) fn loses_ghosts(ended: Kind) -> bool {
    Plan::is_of_subject(ended) || matches!(ended, Kind::Uncover | Kind::Shrink | Kind::Errors | Kind::Deny)
}

/// Whether nothing more arrives through a connection that was left, if a single message out of it was not taken, and the client
/// could not hear of it.
///
/// A change of leader can swallow one message, or a server that is short of something refuse it, while a later one of its producer is still under way
/// through a connection that the client has left. If this one arrives before the second copy of the first, it is stored in
/// front of it: its id is new to the server at that moment, and how long a connection keeps a message nobody knows. In a batch it cannot happen:
/// nothing of it is stored behind what is missing.
pub(super) const TORN_LEAVE_NO_GHOSTS: bool = true;
