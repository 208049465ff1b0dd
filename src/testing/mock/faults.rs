//! Troubles that a test orders, each for a certain message.
//!
//! They are counted in messages and not in time, so a test is the same in each run. What counts is each message that a client publishes to
//! a subject of a stream, the reports of a bus (its first message is `_bus.started`) and the words about a batch among them.

use super::errors::ApiError;
use std::collections::VecDeque;
use std::time::Duration;

/// What goes wrong with one message.
///
/// | fault | stored | answered | connection |
/// | --- | --- | --- | --- |
/// | [`AckLate`](Self::AckLate) | yes | after a time | |
/// | [`AckLost`](Self::AckLost) | yes | no | |
/// | [`AckDoubled`](Self::AckDoubled) | yes | twice | |
/// | [`MessageLost`](Self::MessageLost) | no | no | |
/// | [`NoResponders`](Self::NoResponders) | no | status 503 | |
/// | [`Refused`](Self::Refused) | no | with an error | |
/// | [`Denied`](Self::Denied) | no | by `-ERR` | |
/// | [`CutBefore`](Self::CutBefore) | no | no | ended |
/// | [`CutAfter`](Self::CutAfter) | yes | no | ended |
/// | [`CutInAck`](Self::CutInAck) | yes | half | ended |
/// | [`Freeze`](Self::Freeze) | yes | after a thaw | stands still, as all others |
/// | [`Restart`](Self::Restart) | no | no | ended, as all others |
///
/// In a batch the answer to a message may be none; then there is nothing that could be late or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The message is stored, and the answer comes so much later; those to later messages overtake it. After [`Duration::MAX`] it
    /// never comes.
    AckLate(Duration),
    /// The message is stored, and the answer never comes.
    AckLost,
    /// The message is stored, and the answer comes twice.
    AckDoubled,
    /// The message is swallowed, as by a change of leader: neither stored nor answered.
    MessageLost,
    /// Nobody listens: the status 503, as without a stream or without its leader.
    NoResponders,
    /// The stream refuses it with an error, such as [`ApiError::STREAM_FULL`].
    Refused(ApiError),
    /// The server does not permit it, and says so without saying which message it means: `-ERR 'Permissions Violation for Publish to …'`.
    Denied,
    /// The connection ends before the message is looked at.
    CutBefore,
    /// The message is stored, and the connection ends before the answer.
    CutAfter,
    /// The message is stored, and the connection ends in the middle of the answer.
    CutInAck,
    /// The server stands still, as under SIGSTOP: the message is stored, and from then on nothing is read or said on any connection
    /// until [`MockServer::thaw`](super::MockServer::thaw).
    Freeze,
    /// The server restarts before it looks at the message: all connections end, batches and consumers are forgotten.
    Restart,
}

impl Fault {
    pub(super) fn is_stored(&self) -> bool {
        match self {
            Self::AckLate(_)
            | Self::AckLost
            | Self::AckDoubled
            | Self::CutAfter
            | Self::CutInAck
            | Self::Freeze => true,
            Self::MessageLost
            | Self::NoResponders
            | Self::Refused(_)
            | Self::Denied
            | Self::CutBefore
            | Self::Restart => false,
        }
    }
}

/// Which message meets which fault, in order.
///
/// ```
/// use jetring::testing::{ApiError, Fault, Script};
///
/// let script = Script::new().pass(10).times(3, Fault::Refused(ApiError::TOO_MANY_REQUESTS)).pass(5).fault(Fault::CutInAck);
/// # drop(script);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "`MockServer::play` plays it"]
pub struct Script {
    steps: VecDeque<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    fault: Option<Fault>,
    /// Messages that meet it; all that will come if there is no number.
    left: Option<u64>,
}

impl Script {
    /// A script in which nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing happens to the next so many messages.
    pub fn pass(self, messages: u64) -> Self {
        self.then(None, Some(messages))
    }

    /// The next message meets this.
    pub fn fault(self, fault: Fault) -> Self {
        self.times(1, fault)
    }

    /// So many messages meet this, one behind the other.
    pub fn times(self, messages: u64, fault: Fault) -> Self {
        self.then(Some(fault), Some(messages))
    }

    /// All further messages meet this, until another script is played.
    pub fn for_ever(self, fault: Fault) -> Self {
        self.then(Some(fault), None)
    }

    fn then(mut self, fault: Option<Fault>, left: Option<u64>) -> Self {
        self.steps.push_back(Step { fault, left });
        self
    }

    /// What the next message meets.
    pub(super) fn next(&mut self) -> Option<Fault> {
        while let Some(step) = self.steps.front_mut() {
            match &mut step.left {
                Some(0) => drop(self.steps.pop_front()),
                Some(left) => {
                    *left -= 1;
                    return step.fault.clone();
                }
                None => return step.fault.clone(),
            }
        }
        None
    }

    /// Whether each step has met its messages.
    pub(super) fn is_over(&self) -> bool {
        self.steps.iter().all(|step| step.left == Some(0))
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_played_in_its_order() {
        let mut script = Script::new().pass(2).fault(Fault::AckLost).pass(0).times(2, Fault::Denied);
        let played: Vec<_> = (0..6).map(|_| script.next()).collect();
        let [none, lost, denied] = [None, Some(Fault::AckLost), Some(Fault::Denied)];
        assert_eq!(played, [none.clone(), none.clone(), lost, denied.clone(), denied, none]);
        assert!(script.is_over());
    }

    #[test]
    fn what_is_for_ever_does_not_end() {
        let mut script = Script::new().pass(1).for_ever(Fault::AckLost);
        assert_eq!(script.next(), None);
        assert!((0..1000).all(|_| script.next() == Some(Fault::AckLost)) && !script.is_over());
    }
}
