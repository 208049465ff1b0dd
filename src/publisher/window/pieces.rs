//! Frames that were cut, and their pieces.

use super::{Entry, Message, PARTS, State, Window};

impl Window {
    /// The message of this number; or, if it was cut, the piece that has this one of its events, and which of the piece's it is.
    pub(super) fn holder(&mut self, number: u64, index: usize) -> Option<(&mut Entry, usize)> {
        let from = self.entries.partition_point(|entry| entry.number < number);
        let from_there = self.aside.from(number).chain(self.entries.range_mut(from..));
        let mut parts = from_there.take_while(|entry| entry.number / PARTS == number / PARTS);
        parts.find_map(|entry| {
            if entry.number == number {
                return Some((entry, index));
            }
            let &(_, before) = entry.cut_from.iter().find(|(whole, _)| *whole == number)?;
            let index = index.checked_sub(before).filter(|&index| index < entry.message.events())?;
            Some((entry, index))
        })
    }

    /// Puts pieces in the place of a frame that waits or is parked, if there are several; else it is known to be indivisible. What was tried
    /// with the frame was tried with them: it is not stored, and neither are they; what came too late to overtake it has not overtaken them.
    /// Returns their numbers.
    pub(crate) fn replace(&mut self, number: u64, pieces: Vec<Message>) -> Vec<u64> {
        let Some(next) = self.next_part(number) else { return Vec::new() };
        let step = (next - number - 1) / pieces.len().max(1) as u64;
        if step == 0 || pieces.len() < 2 {
            self.entry(number).into_iter().for_each(|entry| entry.is_indivisible = true);
            return Vec::new();
        }
        let at = self.index(number);
        let Some(whole) = at.map_or_else(|| self.aside.remove(number), |at| self.entries.remove(at)) else {
            return Vec::new();
        };
        let others = pieces.len() - 1;
        debug_assert!(matches!(whole.state, State::Waiting | State::Parked));
        self.parked += if whole.state == State::Parked { others } else { 0 };
        if whole.number < self.tried_end {
            self.tried_end = self.tried_end.max(number + 1 + others as u64 * step + 1);
        }
        let mut before = 0;
        let entries = pieces.into_iter().zip(0_u64..).map(|(message, index)| {
            let skipped = whole.cut_from.iter().map(|&(number, skipped)| (number, skipped + before));
            let cut_from = skipped.chain([(number, before)]).collect();
            before += message.events();
            let number = number + 1 + index * step;
            Entry { number, message, is_too_large: false, cut_from, refused: None, ..whole.clone() }
        });
        let entries: Vec<Entry> = entries.collect();
        let numbers = entries.iter().map(|entry| entry.number).collect();
        match at {
            Some(at) => self.insert_pieces(at, &whole, entries),
            None => entries.into_iter().for_each(|entry| self.aside.put(entry)),
        }
        numbers
    }

    fn insert_pieces(&mut self, at: usize, whole: &Entry, pieces: Vec<Entry>) {
        let bytes = |entry: &Entry| entry.message.packed.as_ref().map_or(0, |packed| packed.bytes());
        let others = pieces.len() - 1;
        self.waiting += if whole.state == State::Waiting { others } else { 0 };
        self.frame_bytes -= bytes(whole);
        self.pieces -= usize::from(whole.is_piece());
        for (piece, at) in pieces.into_iter().zip(at..) {
            self.frame_bytes += bytes(&piece);
            self.pieces += 1;
            self.entries.insert(at, piece);
        }
        for cursor in [&mut self.cursor, &mut self.sent_cursor, &mut self.event_cursor] {
            if *cursor > at {
                *cursor += others;
            }
        }
    }

    /// The number behind those that the pieces of this one may have.
    fn next_part(&mut self, number: u64) -> Option<u64> {
        self.get(number)?;
        let end = (number / PARTS + 1) * PARTS;
        let next = match self.index(number) {
            Some(at) => self.entries.get(at + 1).map(|entry| entry.number),
            None => {
                let aside = self.aside.from(number + 1).next().map(|entry| entry.number);
                aside.or_else(|| self.entries.front().map(|entry| entry.number))
            }
        };
        Some(next.map_or(end, |next| next.min(end)))
    }
}
