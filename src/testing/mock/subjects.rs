//! Who has subscribed to what.

use super::message::Delivery;
use crate::subject::covers;
use std::collections::BTreeSet;

/// Subscriptions of all connections together; the real server has no limit by default.
const SUBSCRIPTIONS_MAX: usize = 16_384;

/// Whether messages can be published to it: tokens, none of them empty or a wildcard.
pub(super) fn is_literal(subject: &str) -> bool {
    is_pattern(subject) && subject.split('.').all(|token| token != "*" && token != ">")
}

/// Whether it can be subscribed to: tokens, none of them empty, with `>` at the end only.
pub(super) fn is_pattern(subject: &str) -> bool {
    let has_space = subject.contains(|c: char| c.is_ascii_whitespace());
    let mut tokens = subject.split('.').peekable();
    let mut is_sound = !has_space;
    while let Some(token) = tokens.next() {
        is_sound &= !token.is_empty() && (token != ">" || tokens.peek().is_none());
    }
    is_sound
}

/// Whether there is a subject that both patterns cover.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

#[derive(Debug)]
struct Subscription {
    connection: u64,
    sid: String,
    pattern: String,
    queue: Option<String>,
    delivered: u64,
    /// It ends with so many messages.
    max: Option<u64>,
}

impl Subscription {
    fn is_over(&self) -> bool {
        self.max.is_some_and(|max| self.delivered >= max)
    }
}

/// The subscriptions of all connections.
#[derive(Debug, Default)]
pub(super) struct Router {
    subscriptions: Vec<Subscription>,
    /// Whose turn it is in the next queue group.
    turn: usize,
}

impl Router {
    /// Returns whether it is taken.
    pub(super) fn subscribe(
        &mut self,
        connection: u64,
        sid: String,
        pattern: String,
        queue: Option<String>,
    ) -> bool {
        let is_known = |known: &Subscription| known.connection == connection && known.sid == sid;
        if self.subscriptions.iter().any(is_known) {
            return true;
        }
        let has_room = self.subscriptions.len() < SUBSCRIPTIONS_MAX;
        if has_room {
            self.subscriptions.push(Subscription {
                connection,
                sid,
                pattern,
                queue,
                delivered: 0,
                max: None,
            });
        }
        has_room
    }

    /// Ends a subscription, or lets it end with its `max`th message, counted from its beginning.
    pub(super) fn unsubscribe(&mut self, connection: u64, sid: &str, max: Option<u64>) {
        self.subscriptions.retain_mut(|known| {
            if known.connection != connection || known.sid != sid {
                return true;
            }
            known.max = max.or(Some(0));
            !known.is_over()
        });
    }

    pub(super) fn forget(&mut self, connection: u64) {
        self.subscriptions.retain(|known| known.connection != connection);
    }

    pub(super) fn has_interest(&self, subject: &str) -> bool {
        self.subscriptions.iter().any(|known| covers(&known.pattern, subject))
    }

    /// The subscriptions that get it: connection and sid. `without` is a connection that does not want to hear itself.
    pub(super) fn route(&mut self, delivery: &Delivery, without: Option<u64>) -> Vec<(u64, String)> {
        let matching =
            |known: &Subscription| Some(known.connection) != without && covers(&known.pattern, &delivery.to);
        let matching: Vec<usize> =
            (0..self.subscriptions.len()).filter(|&at| matching(&self.subscriptions[at])).collect();
        let groups: BTreeSet<String> =
            matching.iter().filter_map(|&at| self.subscriptions[at].queue.clone()).collect();
        let mut chosen: Vec<usize> =
            matching.iter().copied().filter(|&at| self.subscriptions[at].queue.is_none()).collect();
        for group in groups {
            let is_member = |at: &&usize| self.subscriptions[**at].queue.as_ref() == Some(&group);
            let members: Vec<usize> = matching.iter().filter(is_member).copied().collect();
            chosen.push(members[self.turn % members.len()]);
            self.turn = self.turn.wrapping_add(1);
        }
        let routed = chosen.iter().map(|&at| {
            let known = &mut self.subscriptions[at];
            known.delivered += 1;
            (known.connection, known.sid.clone())
        });
        let routed = routed.collect();
        self.subscriptions.retain(|known| !known.is_over());
        routed
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    fn routed(router: &mut Router, subject: &str) -> Vec<String> {
        let sids = router.route(&Delivery::answer(subject, ""), None).into_iter().map(|(_, sid)| sid);
        sids.collect()
    }

    fn subscribe(router: &mut Router, sid: &str, pattern: &str, queue: Option<&str>) {
        assert!(router.subscribe(1, sid.to_owned(), pattern.to_owned(), queue.map(str::to_owned)));
    }

    #[test]
    fn subjects_and_patterns_are_told_apart() {
        for (text, literal, pattern) in [
            ("a", true, true),
            ("a.b-c_d.$X", true, true),
            ("a.*", false, true),
            ("a.>", false, true),
            ("*.a*", false, true),
            ("", false, false),
            ("a..b", false, false),
            (".a", false, false),
            ("a.", false, false),
            ("a.>.b", false, false),
            ("a b", false, false),
        ] {
            assert_eq!((is_literal(text), is_pattern(text)), (literal, pattern), "{text:?}");
        }
    }

    #[test]
    fn patterns_overlap_if_a_subject_is_in_both() {
        for (one, other, both) in [
            ("event.1.>", "event.*.x", true),
            ("event.1.>", "event.1", false),
            ("a.*", "*.b", true),
            ("a.*", "b.*", false),
            (">", "a", true),
            ("a", "a.b", false),
        ] {
            assert_eq!((overlap(one, other), overlap(other, one)), (both, both), "{one} and {other}");
        }
    }

    #[test]
    fn a_subscription_ends_with_its_last_message() {
        let mut router = Router::default();
        subscribe(&mut router, "1", "a.*", None);
        subscribe(&mut router, "2", "a.>", None);
        assert_eq!(routed(&mut router, "a.b"), ["1", "2"]);
        router.unsubscribe(1, "1", Some(2));
        router.unsubscribe(1, "2", Some(1));
        assert_eq!(routed(&mut router, "a.b"), ["1"]);
        assert_eq!(routed(&mut router, "a.b"), [""; 0]);
        assert!(!router.has_interest("a.b"));
    }

    #[test]
    fn one_member_of_a_queue_group_gets_a_message_in_turn() {
        let mut router = Router::default();
        subscribe(&mut router, "1", "q", Some("g"));
        subscribe(&mut router, "2", "q", Some("g"));
        subscribe(&mut router, "3", "q", None);
        let all: Vec<_> = (0..4).map(|_| routed(&mut router, "q")).collect();
        assert_eq!(all, [["3", "1"], ["3", "2"], ["3", "1"], ["3", "2"]]);
    }
}
