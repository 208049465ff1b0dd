//! Event names, and the subjects that belong to them.
//!
//! A route is made once for a name and shared by all messages of that name, by a count that is not atomic: messages never leave the
//! worker's thread. As long as a message is open there is no other route to its subject. So what the pipeline must know of a subject
//! stands in the route, and nothing is searched for by subject.
//!
//! Applications have a handful of names and use them over and over. So a small table without collision handling stands in
//! front of the map: its hash looks at the ends of the name only, and a name that it does not find, or finds taken by another one,
//! costs a look into the map, whose keyed hash nobody can force to collide.

use super::pipeline::Denial;
use crate::report;
use crate::subject::{Subjects, is_sendable};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// Where the events of one name go.
#[derive(Debug)]
pub(crate) struct Route {
    /// The event's name, for counts of loss.
    pub(crate) name: Arc<str>,
    pub(crate) subject: Bytes,
    /// The look at the stream that this subject was last held against, and whether the stream takes it.
    pub(super) coverage: Cell<(u64, bool)>,
    /// The messages to this subject that are sent and not answered, by their numbers in the window, which keeps this.
    pub(super) sent: RefCell<VecDeque<u64>>,
    /// What is known of it, if publishing to this subject was denied.
    pub(super) denial: Cell<Option<Denial>>,
    /// Where the open frame of this subject is, if it is there at all; see `Packer`.
    pub(super) open_at: Cell<usize>,
}

impl Route {
    /// Whether its messages are reports of a bus about itself.
    pub(crate) fn is_of_the_bus(&self) -> bool {
        // Where its subject is not below our prefix, the name is all of the subject.
        self.name.starts_with(report::PREFIX) || self.name.contains("._bus.")
    }

    pub(crate) fn new(name: &str, subject: impl Into<Bytes>) -> Rc<Self> {
        Rc::new(Self {
            name: Arc::from(name),
            subject: subject.into(),
            coverage: Cell::new((0, false)),
            sent: RefCell::default(),
            denial: Cell::new(None),
            open_at: Cell::new(0),
        })
    }
}

/// Names whose route is kept ready. When there are more, those that no message has are forgotten.
const ROUTES_MAX: usize = 4096;

/// Names that are found without the map: several times as many as an application has, so that two of them seldom share a
/// slot. A power of two.
const RECENT: usize = 64;

/// The routes of one bus.
pub(crate) struct Routes {
    subjects: Subjects,
    all: Table,
    /// Of subjects that are not ours, by the subject.
    strange: Table,
    recent: [Option<Rc<Route>>; RECENT],
}

impl Routes {
    pub(crate) fn new(subjects: Subjects) -> Self {
        Self { subjects, all: Table::new(), strange: Table::new(), recent: [const { None }; RECENT] }
    }

    /// The route of a name; `None` if it is no text, which would be a bug of ours.
    #[inline]
    pub(crate) fn of(&mut self, name: &[u8]) -> Option<Rc<Route>> {
        let slot = slot(name);
        match &self.recent[slot] {
            Some(route) if route.name.as_bytes() == name => Some(Rc::clone(route)),
            _ => self.look_up(slot, std::str::from_utf8(name).ok()?),
        }
    }

    /// The route of a subject that comes out of a spool; none if no message could be sent to it. Its name is what is behind our prefix, or all of it.
    pub(crate) fn of_subject(&mut self, subject: &[u8]) -> Option<Rc<Route>> {
        // What lies in a directory may have been written by others.
        let subject = std::str::from_utf8(subject).ok().filter(|subject| is_sendable(subject))?;
        if let Some(name) = self.subjects.name_of(subject) {
            return self.of(name.as_bytes());
        }
        Some(self.strange.get(subject, || Route::new(subject, subject.to_owned())))
    }

    #[cold]
    fn look_up(&mut self, slot: usize, name: &str) -> Option<Rc<Route>> {
        let Self { subjects, all, .. } = self;
        let route = all.get(name, || Route::new(name, subjects.subject(name)));
        self.recent[slot] = Some(Rc::clone(&route));
        Some(route)
    }
}

/// Routes by name or subject.
struct Table {
    routes: HashMap<Box<str>, Rc<Route>>,
    /// With so many it is full.
    max: usize,
}

impl Table {
    fn new() -> Self {
        Self { routes: HashMap::new(), max: ROUTES_MAX }
    }

    /// The route with this key; the one that `make` makes if it has none.
    fn get(&mut self, key: &str, make: impl FnOnce() -> Rc<Route>) -> Rc<Route> {
        if let Some(route) = self.routes.get(key) {
            return Rc::clone(route);
        }
        if self.routes.len() >= self.max {
            self.routes.retain(|_, route| Rc::strong_count(route) > 1);
            // Else each further one would look at all that are in use.
            self.max = ROUTES_MAX.max(2 * self.routes.len());
        }
        let route = make();
        self.routes.insert(key.into(), Rc::clone(&route));
        route
    }
}

#[inline]
fn slot(name: &[u8]) -> usize {
    let ends = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first).rotate_left(29) ^ u64::from_le_bytes(*last),
        _ => name.iter().fold(0, |ends, &byte| ends << 8 | u64::from(byte)),
    };
    // Fibonacci hashing (Knuth, volume 3, section 6.4): the high bits depend on all of the factor's.
    let hash = (ends ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (u64::BITS - RECENT.trailing_zeros())) as usize
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn routes() -> Routes {
        Routes::new(Subjects::new(&crate::subject::Prefix::default(), 1))
    }

    #[test]
    fn a_name_has_its_own_route_however_many_share_its_slot() {
        let mut routes = routes();
        // The middle of a long name is not hashed, so all of these have the same slot.
        let names: Vec<String> = (0..10).map(|i| format!("a-longer-{i}-name-ends")).collect();
        assert!(names.iter().all(|name| slot(name.as_bytes()) == slot(names[0].as_bytes())));
        for name in names.iter().chain(&names).map(String::as_str).chain(["", "a", "ab", "abcdefg"]) {
            let route = routes.of(name.as_bytes()).unwrap();
            assert_eq!((&*route.name, &*route.subject), (name, format!("event.1.{name}").as_bytes()));
            assert!(Rc::ptr_eq(&route, &routes.of(name.as_bytes()).unwrap()), "it is made once");
        }
    }

    #[test]
    fn more_names_than_are_kept_are_still_routed_and_do_not_pile_up() {
        let mut routes = routes();
        for number in 0..ROUTES_MAX * 2 + 1 {
            let name = number.to_string();
            assert_eq!(*routes.of(name.as_bytes()).unwrap().name, *name);
        }
        assert!(routes.all.routes.len() <= ROUTES_MAX);
    }

    #[test]
    fn a_route_stays_the_only_one_of_its_subject_as_long_as_a_message_has_it() {
        let mut routes = routes();
        let subject = |number: usize| match number % 2 {
            0 => format!("event.1.{number}"),
            _ => format!("elsewhere.{number}"),
        };
        let held: Vec<_> = (0..3 * ROUTES_MAX)
            .map(|number| routes.of_subject(subject(number).as_bytes()).unwrap())
            .collect();
        for (number, route) in held.iter().enumerate() {
            assert!(Rc::ptr_eq(route, &routes.of_subject(subject(number).as_bytes()).unwrap()), "{number}");
        }
    }

    #[test]
    fn the_names_of_one_application_are_spread() {
        let names =
            ["priceEstimate", "quoteRequested", "winningPriceEstimate", "quoteComputed", "a", "b", "c"];
        let slots: std::collections::HashSet<_> = names.iter().map(|name| slot(name.as_bytes())).collect();
        assert!(slots.len() >= names.len() - 1, "{slots:?}");
    }
}
