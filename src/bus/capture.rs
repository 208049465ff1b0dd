//! A bus whose messages stay in the process; see [`testing::Capture`](crate::testing::Capture).

use super::{Bus, StartError, handle};
use crate::config::Config;
use crate::testing::Store;
use std::sync::Arc;

impl Bus {
    pub(crate) fn start_capturing(config: Config, store: &Arc<Store>) -> Result<Self, StartError> {
        let (bus, posts) = Self::prepare(config)?;
        for post in posts {
            handle::spawn_capturing_worker(post, Arc::clone(store))?;
        }
        Ok(bus)
    }
}
