//! What the packer asks of the pipeline: takes a frame, and says whether it is worth closing one.

use super::{Link, Pipeline};
use crate::publisher::batch::Stage;
use crate::publisher::window::Message;

impl Pipeline {
    /// Takes a packed frame.
    pub(crate) fn push_packed(&mut self, message: Message) {
        self.window.push_packed(message);
    }

    /// Whether a message that is pushed now would be sent at once.
    pub(crate) fn is_hungry(&self) -> bool {
        // While a batch is being started or ended, nothing is sent.
        self.link == Link::Flowing
            && self.batch.as_ref().is_none_or(|batch| batch.stage() == Stage::Open)
            && !self.window.has_waiting()
            && self.window.outstanding() < self.congestion.window()
    }

    /// Whether no answer is waited for.
    pub(crate) fn is_idle(&self) -> bool {
        self.window.outstanding() == 0
    }
}
