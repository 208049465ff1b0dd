//! Reads a stream back and proves that it holds what was published: every event once, and those of each thread in order.

use super::plan::Cell;
use crate::event::{Checker, NAME, PRODUCERS_MAX};
use crate::peer::ours;
use anyhow::{Result, ensure};
use jetring::reader::{From, Reader};

/// Fails if an event is missing, double, or out of order.
pub(crate) fn check(url: &str, cell: &Cell) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let config = ours::config(url, cell.size)?;
    let subject = format!("event.1.{NAME}");
    let mut expected = Expected::new(cell);
    runtime.block_on(async {
        let mut reader = Reader::open(&config, &subject, From::All, false).await?;
        while let Some(received) = reader.next().await? {
            for event in &received.unpack()? {
                expected.see(event)?;
            }
        }
        anyhow::Ok(())
    })?;
    expected.end(cell)
}

/// What is to come next.
#[derive(Debug)]
struct Expected {
    checker: Checker,
    /// By thread.
    next: Vec<u64>,
}

impl Expected {
    fn new(cell: &Cell) -> Self {
        Self { checker: Checker::new(cell.size, true), next: vec![0; PRODUCERS_MAX] }
    }

    fn see(&mut self, event: &[u8]) -> Result<()> {
        let place =
            self.checker.read(event).and_then(|(thread, number)| Some((self.next.get_mut(thread)?, number)));
        let Some((next, number)) = place else {
            anyhow::bail!("not an event of ours: {:?}", String::from_utf8_lossy(event))
        };
        ensure!(number == *next, "event {number} stands where {next} should");
        *next += 1;
        Ok(())
    }

    fn end(&self, cell: &Cell) -> Result<()> {
        let each = (cell.warm_up + cell.events) / cell.threads;
        let wanted = (0..PRODUCERS_MAX as u64).map(|thread| if thread < cell.threads { each } else { 0 });
        ensure!(wanted.eq(self.next.iter().copied()), "the threads' events in the stream: {:?}", self.next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::e2e::plan;
    use crate::event::{Encode, Fill};

    fn cell() -> Cell {
        let cell = plan::cells().into_iter().find(|cell| cell.threads == 2).unwrap();
        Cell { events: 4, warm_up: 2, ..cell }
    }

    #[test]
    fn all_events_in_order_are_accepted() {
        let mut expected = Expected::new(&cell());
        let (mut one, mut other) = (Encode::new(cell().size, 0), Encode::new(cell().size, 1));
        for event in
            [one.to_vec(0), one.to_vec(1), other.to_vec(0), other.to_vec(1), one.to_vec(2), other.to_vec(2)]
        {
            assert!(expected.end(&cell()).is_err());
            expected.see(&event).unwrap();
        }
        expected.end(&cell()).unwrap();
    }

    #[test]
    fn a_missing_a_double_and_a_foreign_event_are_found() {
        let mut one = Encode::new(cell().size, 0);
        for events in [vec![one.to_vec(1)], vec![one.to_vec(0), one.to_vec(0)], vec![b"{}".to_vec()]] {
            let mut expected = Expected::new(&cell());
            assert!(events.iter().try_for_each(|event| expected.see(event)).is_err());
        }
    }
}
