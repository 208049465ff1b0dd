//! The async engine.

use super::rig::{ACK_TIMEOUT, BUSY, FULL, NO_STREAM, Rig, Script, TOO_LARGE, message, token};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::patience::SPAN_MIN;
use crate::publisher::pipeline::{Fate, LinkAction, StreamInfo, StreamState};
use crate::publisher::reply::Reply;
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::route::Route;
use crate::publisher::window::{Message, Origin};
use proptest::prelude::*;
use std::rc::Rc;
use std::time::Duration;

fn connected() -> Rig {
    Rig::connected(Mode::Async)
}

/// A rig whose window is open, and whose server answers at once.
fn warm() -> Rig {
    let mut rig = connected();
    rig.warm_up();
    rig
}

fn found() -> StreamState {
    taking("event.1.>")
}

fn elsewhere() -> StreamState {
    taking("elsewhere.>")
}

fn taking(subject: &str) -> StreamState {
    StreamState::Found(StreamInfo { subjects: vec![subject.to_owned()], ..StreamInfo::default() })
}

#[test]
fn everything_is_acked_and_stored_in_order_when_nothing_is_wrong() {
    let mut rig = connected();
    rig.offer(50);
    rig.settle();
    rig.check();
    assert_eq!(rig.server.stored().len(), 50);
    assert_eq!(rig.fates().values().filter(|fate| **fate == Fate::Acked { duplicate: false }).count(), 50);
}

#[test]
fn nothing_is_sent_before_the_stream_was_looked_for_and_then_one_message_first() {
    let mut rig = Rig::new(Mode::Async);
    rig.offer(10);
    assert!(rig.send(|_| Script::Store).is_empty());
    assert_eq!(rig.link(), Some(LinkAction::Connect));
    rig.greet();
    assert!(rig.send(|_| Script::Store).is_empty());
    assert_eq!(rig.link(), Some(LinkAction::LookUpStream));
    rig.pipeline.handle_stream(rig.now, found());
    assert_eq!(rig.send(|_| Script::Store), [1]);
    rig.deliver();
    assert_eq!(rig.send(|_| Script::Store), [2, 3]);
}

#[test]
fn the_window_takes_no_more_than_its_limits() {
    let mut rig = Rig::new(Mode::Async);
    assert_eq!(rig.pipeline.room(), 64);
    rig.offer(64);
    assert_eq!(rig.pipeline.room(), 0);
    rig.connect(found());
    rig.settle();
    assert_eq!(rig.pipeline.room(), 64);
    rig.push(message(Origin::Ring(0), 65, "event.1.a"), 1 << 20);
    assert_eq!(rig.pipeline.room(), 0);
}

#[test]
fn after_a_disconnect_all_unanswered_messages_are_sent_again_in_order_and_stored_once() {
    let mut rig = connected();
    rig.offer(40);
    // Let the window open.
    for _ in 0..3 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    let sent = rig.send(|seq| if seq < 12 { Script::StoreSilently } else { Script::Swallow });
    assert!(sent.contains(&11) && sent.contains(&12));
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!((rig.acked(), rig.server.stored().len()), (40, 40));
    assert_eq!(rig.reads, 1, "which of them were stored is read from the stream");
}

#[test]
fn reconnects_are_spread_and_their_delay_grows_to_seconds() {
    let mut rig = Rig::new(Mode::Async);
    let mut delays = Vec::new();
    for _ in 0..12 {
        assert_eq!(rig.link(), Some(LinkAction::Connect));
        rig.disconnect();
        let delay = rig.pipeline.next_deadline().unwrap() - rig.now;
        delays.push(delay);
        assert_eq!(rig.link(), None, "not before its time");
        rig.pass(delay);
    }
    assert!(delays[0] < Duration::from_millis(50));
    let longest = delays.iter().max().unwrap();
    assert!((Duration::from_millis(700)..=Duration::from_secs(1)).contains(longest), "{longest:?}");
}

#[test]
fn an_attempt_to_connect_that_took_its_time_is_followed_by_the_next_at_once() {
    let mut rig = Rig::new(Mode::Async);
    for _ in 0..12 {
        assert_eq!(rig.link(), Some(LinkAction::Connect));
        rig.pass(Duration::from_secs(2));
        rig.disconnect();
    }
}

#[test]
fn a_silent_server_is_left_after_the_ack_timeout() {
    let mut rig = connected();
    rig.offer(1);
    rig.send(|_| Script::Swallow);
    rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
    assert_eq!(rig.link(), None);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.link(), Some(LinkAction::Disconnect));
    rig.disconnect();
    rig.settle();
    assert_eq!((rig.acked(), rig.connects), (1, 2));
}

#[test]
fn what_a_change_of_leader_has_swallowed_is_found_out_as_soon_as_the_server_is_silent_for_longer_than_usual()
{
    let mut rig = warm();
    let start = rig.now;
    rig.offer(10);
    let last = rig.offered;
    rig.send(|seq| if seq == last { Script::Lose } else { Script::StoreSilently });
    rig.deliver();
    rig.pass(SPAN_MIN);
    assert_eq!(rig.link(), None, "a moment for answers that are late");
    rig.settle();
    rig.check();
    assert_eq!((rig.acked() as u64, rig.connects, rig.reads), (last, 1, 1));
    assert!(rig.now - start < Duration::from_secs(2), "{:?}", rig.now - start);
}

#[test]
fn a_server_that_is_slow_all_the_time_is_waited_for() {
    let mut rig = connected();
    for _ in 0..20 {
        rig.offer(1);
        rig.send(|_| Script::Store);
        rig.pass(Duration::from_secs(3));
        assert_eq!(rig.link(), None);
        rig.deliver();
        rig.collect();
    }
    rig.check();
    assert_eq!((rig.acked(), rig.connects, rig.reads), (20, 1, 0));
}

#[test]
fn answers_that_go_on_coming_are_waited_for_however_late_they_are() {
    let mut rig = warm();
    rig.offer(20);
    rig.send(|_| Script::Store);
    for _ in 0..20 {
        rig.pass(SPAN_MIN / 4);
        rig.deliver_one();
    }
    rig.check();
    assert_eq!((rig.acked() as u64, rig.connects, rig.reads), (rig.offered, 1, 0));
}

#[test]
fn a_connection_in_which_an_answer_is_overdue_and_then_nothing_comes_is_left() {
    let mut rig = connected();
    rig.offer(4);
    for _ in 0..2 {
        rig.send(|seq| if seq == 2 { Script::Lose } else { Script::Store });
        // Something is heard at last when the first answer is overdue.
        rig.pass(ACK_TIMEOUT - Duration::from_secs(1));
        rig.deliver();
    }
    let heard_at = rig.now;
    while rig.link() != Some(LinkAction::Disconnect) {
        rig.pipeline.handle_stream(rig.now, StreamState::Unknown);
        rig.pass(Duration::from_millis(100));
    }
    assert_eq!(rig.now - heard_at, ACK_TIMEOUT);
}

#[test]
fn a_server_that_does_not_answer_the_question_either_is_left_after_the_ack_timeout() {
    for look in [true, false] {
        let mut rig = warm();
        rig.offer(5);
        rig.send(|_| Script::Swallow);
        let mut left_after = Duration::ZERO;
        while rig.link() != Some(LinkAction::Disconnect) {
            if look {
                // The sink gives up after a while.
                rig.pipeline.handle_stream(rig.now, StreamState::Unknown);
            }
            rig.send(|_| Script::Swallow);
            rig.pass(Duration::from_millis(50));
            left_after += Duration::from_millis(50);
        }
        assert_eq!(left_after, ACK_TIMEOUT);
        rig.disconnect();
        rig.settle();
        rig.check();
        assert_eq!((rig.acked() as u64, rig.connects), (rig.offered, 2));
    }
}

#[test]
fn a_lost_answer_alone_does_not_end_the_connection() {
    let mut rig = connected();
    rig.offer(10);
    for _ in 0..2 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    rig.send(|seq| if seq == 4 { Script::StoreSilently } else { Script::Store });
    rig.pass(Duration::from_secs(1));
    rig.deliver();
    rig.settle();
    rig.check();
    assert_eq!((rig.acked(), rig.connects), (10, 1));
    assert_eq!(rig.reads, 1, "whether it was stored is read from the stream");
}

#[test]
fn an_answer_to_an_earlier_attempt_counts_if_it_says_stored_and_not_if_it_refuses() {
    let mut rig = connected();
    rig.offer(2);
    rig.send(|_| Script::Store);
    rig.deliver();
    rig.send(|_| Script::StoreSilently);
    let early = token(1, 1);
    rig.pipeline.handle_reply(rig.now, token(0, 1), Reply::Unintelligible(String::new()));
    rig.pass(ACK_TIMEOUT);
    assert_eq!(rig.link(), Some(LinkAction::Disconnect));
    rig.disconnect();
    rig.pass(Duration::from_secs(1));
    rig.connect(found());
    rig.pass_deadline();
    rig.obey();
    assert_eq!(rig.send(|_| Script::Swallow), [2]);
    let refusal = Reply::Refused { verdict: Verdict::Final(Reason::Rejected), text: String::new() };
    rig.pipeline.handle_reply(rig.now, early, refusal);
    rig.collect();
    assert_eq!(rig.outcomes.len(), 1);
    rig.pipeline.handle_reply(rig.now, early, Reply::Stored { sequence: 2, duplicate: false });
    rig.collect();
    assert_eq!(rig.acked(), 2);
    // And the answer to the second attempt, late, finds nobody.
    rig.pipeline.handle_reply(rig.now, token(1, 2), Reply::Stored { sequence: 2, duplicate: true });
    rig.collect();
    rig.check();
}

#[test]
fn a_permanent_refusal_drops_that_event_and_the_others_go_on() {
    let mut rig = connected();
    rig.offer(5);
    for _ in 0..3 {
        rig.send(|seq| if seq == 2 { TOO_LARGE } else { Script::Store });
        rig.deliver();
    }
    rig.check();
    assert_eq!(rig.fates()[&2], Fate::Dropped(Reason::TooLarge));
    assert_eq!(rig.acked(), 4);
}

#[test]
fn a_full_stream_is_tried_again_at_growing_intervals_and_heals() {
    let mut rig = connected();
    rig.offer(5);
    let mut tries = 0;
    let start = rig.now;
    while rig.now < start + Duration::from_secs(60) {
        tries += rig.send(|_| FULL).len();
        rig.deliver();
        let deadline = rig.pipeline.next_deadline().unwrap();
        rig.pass(deadline - rig.now);
    }
    assert!(tries < 150, "{tries} tries in a minute is a spin");
    assert_eq!(rig.outcomes.len(), 0);
    rig.settle();
    rig.check();
    assert_eq!(rig.acked(), 5);
}

#[test]
fn an_event_that_was_refused_while_a_later_one_was_stored_is_dropped_and_not_put_behind() {
    let mut rig = connected();
    rig.offer(20);
    for _ in 0..3 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    let sent = rig.send(|seq| if seq % 2 == 0 { BUSY } else { Script::Store });
    let last = *sent.last().unwrap();
    rig.deliver();
    rig.settle();
    rig.check();
    for seq in sent {
        let overtaken = seq % 2 == 0 && seq < last;
        assert_eq!(rig.fates()[&seq] == Fate::Dropped(Reason::Rejected), overtaken, "{seq}");
    }
}

/// As the simulator has found it: the later one arrives through the connection that was left, before the second copy of the first.
#[test]
fn an_event_that_was_refused_while_a_later_one_was_on_its_way_is_dropped_when_the_connection_ends() {
    for (refusal, reason) in [(BUSY, Reason::Rejected), (NO_STREAM, Reason::NoStream)] {
        for is_silent_first in [false, true] {
            let mut rig = warm();
            rig.offer(2);
            let (first, second) = (rig.offered - 1, rig.offered);
            assert_eq!(rig.send(|seq| if seq == first { refusal } else { Script::Swallow }), [first, second]);
            rig.deliver();
            if is_silent_first {
                rig.pass_deadline();
            }
            rig.reconnect();
            rig.let_ghosts_arrive(1);
            rig.settle();
            rig.check();
            assert_eq!(rig.fates()[&first], Fate::Dropped(reason));
            assert_eq!(rig.fates()[&second], Fate::Acked { duplicate: true });
        }
    }
}

#[test]
fn a_missing_stream_is_waited_for_without_sending_anything() {
    let mut rig = Rig::new(Mode::Async);
    rig.offer(3);
    rig.connect(StreamState::Missing);
    for _ in 0..20 {
        assert!(rig.send(|_| Script::Store).is_empty());
        let deadline = rig.pipeline.next_deadline().unwrap();
        rig.pass(deadline - rig.now);
        assert_eq!(rig.link(), Some(LinkAction::LookUpStream));
        rig.pipeline.handle_stream(rig.now, StreamState::Missing);
    }
    rig.settle();
    assert_eq!(rig.acked(), 3);
}

#[test]
fn a_subject_that_the_stream_does_not_cover_is_dropped_and_does_not_hold_up_the_others() {
    let mut rig = connected();
    rig.push(message(Origin::Ring(0), 1, "elsewhere.a"), 2);
    rig.offered = 1;
    rig.offer(3);
    rig.send(|_| NO_STREAM);
    rig.deliver();
    rig.settle();
    rig.check();
    assert_eq!(rig.fates()[&1], Fate::Dropped(Reason::NoStream));
    assert_eq!(rig.acked(), 3);
}

#[test]
fn many_different_subjects_that_the_stream_does_not_take_cost_one_look_at_it_and_no_wait_each() {
    let mut rig = connected();
    let start = rig.now;
    for seq in 1..=50 {
        rig.push(message(Origin::Ring(0), seq, &format!("elsewhere.{seq}")), 2);
    }
    rig.offered = 50;
    rig.offer(5);
    rig.settle();
    rig.check();
    assert_eq!(rig.count(|fate| fate == Fate::Dropped(Reason::NoStream)), 50);
    assert_eq!(rig.acked(), 5);
    assert!(rig.now - start < Duration::from_secs(1), "the others waited for {:?}", rig.now - start);
}

#[test]
fn a_subject_that_the_stream_took_is_judged_anew_after_the_next_look_at_it() {
    let mut rig = connected();
    let route = Route::new("a", "event.1.a");
    let message = |seq| Message {
        origin: Origin::Ring(0),
        seq,
        route: Rc::clone(&route),
        offered: 0,
        packed: None,
        sequence: None,
        trace: None,
    };
    rig.offered = 2;
    rig.push(message(1), 2);
    rig.send(|_| Script::Store);
    rig.deliver();
    rig.disconnect();
    rig.pass(Duration::from_secs(1));
    rig.connect(elsewhere());
    rig.push(message(2), 2);
    rig.send(|_| panic!("the stream does not take it any more"));
    rig.collect();
    rig.check();
    assert_eq!(rig.fates()[&1], Fate::Acked { duplicate: false });
    assert_eq!(rig.fates()[&2], Fate::Dropped(Reason::NoStream));
}

#[test]
fn no_responders_on_a_covered_subject_is_a_leader_election_and_passes() {
    let mut rig = connected();
    rig.offer(3);
    rig.send(|_| NO_STREAM);
    rig.deliver();
    rig.settle();
    rig.check();
    assert_eq!(rig.acked(), 3);
}

#[test]
fn a_denied_subject_is_dropped_at_once_and_tried_again_after_a_while() {
    let mut rig = connected();
    rig.offer(2);
    rig.send(|_| Script::Swallow);
    let route = rig.route(&"event.1.a".into());
    rig.pipeline.handle_denied(rig.now, &route);
    rig.pass(Duration::from_millis(500));
    rig.send(|_| panic!("the denial is fresh"));
    rig.collect();
    assert_eq!(rig.count(|fate| fate == Fate::Dropped(Reason::Permission)), 2);
    rig.pass(Duration::from_millis(1500));
    rig.offer(1);
    rig.settle();
    rig.check();
    assert_eq!((rig.acked(), rig.connects), (1, 1));
}

#[test]
fn a_message_above_the_servers_limit_is_found_before_it_is_sent() {
    let mut rig = connected();
    rig.push(message(Origin::Ring(0), 1, "event.1.a"), 1 << 20);
    rig.offered = 1;
    rig.offer(1);
    assert_eq!(rig.send(|_| Script::Store), [2]);
    rig.deliver();
    assert_eq!(rig.fates()[&1], Fate::Dropped(Reason::TooLarge));
}

#[test]
fn giving_up_tells_what_never_left_from_what_may_be_stored() {
    let mut rig = connected();
    rig.offer(3);
    rig.send(|_| Script::StoreSilently);
    rig.pipeline.give_up(rig.now);
    rig.collect();
    rig.check();
    assert_eq!(rig.fates()[&1], Fate::Indeterminate);
    assert_eq!(rig.fates()[&2], Fate::Dropped(Reason::Expired));
    assert!(rig.pipeline.is_empty());
}

#[test]
fn giving_up_leaves_the_reports_which_say_what_was_lost() {
    let mut rig = connected();
    rig.offer(3);
    rig.push(message(Origin::Bus, 1, "event.1._bus.gap"), 2);
    rig.send(|_| Script::Swallow);
    rig.pipeline.give_up(rig.now);
    rig.collect();
    assert_eq!((rig.outcomes.len(), rig.pipeline.open_events()), (3, 0));
    assert_eq!(rig.send(|_| Script::Store), [1], "the report is sent now");
    rig.deliver();
    assert!(rig.pipeline.is_empty());
}

#[test]
fn answers_to_what_was_sent_before_a_trouble_do_not_open_the_window_again() {
    let mut rig = connected();
    rig.offer(60);
    for _ in 0..4 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    let sent = rig.send(|seq| if seq == 16 { BUSY } else { Script::Store });
    assert_eq!(sent.len(), 16);
    rig.deliver();
    let deadline = rig.pipeline.next_deadline().unwrap();
    rig.pass(deadline - rig.now);
    assert_eq!(rig.send(|_| Script::Store).len(), 1);
}

#[test]
fn giving_up_names_what_had_held_the_events_back() {
    for (stream, refusal, reason) in
        [(StreamState::Missing, None, Reason::NoStream), (found(), Some(Cause::StreamFull), Reason::Rejected)]
    {
        let mut rig = Rig::new(Mode::Async);
        rig.offer(3);
        rig.connect(stream);
        if let Some(cause) = refusal {
            rig.send(|_| Script::Refuse(Verdict::Retry(cause)));
            rig.deliver();
        }
        rig.pipeline.give_up(rig.now);
        rig.collect();
        rig.check();
        assert_eq!(rig.count(|fate| fate == Fate::Dropped(reason)), 3, "{:?}", rig.fates());
    }
}

#[test]
fn a_second_disconnect_during_recovery_loses_and_doubles_nothing() {
    let mut rig = connected();
    rig.offer(30);
    for _ in 0..3 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    rig.send(|_| Script::StoreSilently);
    rig.disconnect();
    rig.pass(Duration::from_secs(1));
    rig.connect(found());
    rig.send(|_| Script::StoreSilently);
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!(rig.acked(), 30);
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u64),
    Send(Vec<u8>),
    Deliver(usize),
    Pass(u64),
    Disconnect,
    Stream(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..10u64).prop_map(Step::Offer),
        5 => proptest::collection::vec(0..20u8, 1..8).prop_map(Step::Send),
        5 => (0..20usize).prop_map(Step::Deliver),
        3 => (1..6000u64).prop_map(Step::Pass),
        1 => Just(Step::Disconnect),
        1 => any::<bool>().prop_map(Step::Stream),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Faults first, then a server that works: everything is accounted for, in order, once.
    #[test]
    fn whatever_happens_the_law_holds_and_order_is_kept(steps in proptest::collection::vec(step(), 1..80), give_up: bool) {
        let mut rig = Rig::new(Mode::Async);
        for step in steps {
            match step {
                Step::Offer(events) => rig.offer(events.min(rig.pipeline.room() as u64)),
                Step::Send(dice) => {
                    let mut dice = dice.into_iter().cycle();
                    let mut cut = false;
                    rig.send(|_| match dice.next().unwrap() {
                        _ if cut => Script::Swallow,
                        0 => { cut = true; Script::Swallow }
                        1 | 2 => Script::StoreSilently,
                        3 => FULL,
                        4 => BUSY,
                        5 => NO_STREAM,
                        6 => Script::Refuse(Verdict::Final(Reason::Rejected)),
                        // Lost out of the middle, as a change of the leader can do.
                        7 => Script::Lose,
                        8 => Script::Deny,
                        _ => Script::Store,
                    });
                    if cut {
                        rig.disconnect();
                    }
                }
                Step::Deliver(replies) => {
                    for _ in 0..replies {
                        rig.deliver_one();
                    }
                }
                Step::Pass(millis) => rig.pass(Duration::from_millis(millis)),
                Step::Disconnect => rig.disconnect(),
                Step::Stream(missing) => {
                    let state = if missing { StreamState::Missing } else { rig.server.info() };
                    rig.pipeline.handle_stream(rig.now, state);
                }
            }
            match rig.link() {
                Some(LinkAction::LookUpStream) | None => {}
                Some(action) => rig.obey_one(action),
            }
            rig.collect();
            rig.check();
        }
        if give_up {
            rig.pipeline.give_up(rig.now);
            rig.collect();
        } else {
            let info = rig.server.info();
            rig.pipeline.handle_stream(rig.now, info);
            rig.settle();
        }
        rig.check();
        prop_assert!(rig.pipeline.is_empty());
    }
}
