//! A message or a subject that is refused while others are taken.

use super::rig::{Answer, Rig, Script, WINDOW, message};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::outgoing::Address;
use crate::publisher::pipeline::{Fate, StreamInfo, StreamState};
use crate::publisher::reply::{BatchReply, Reply};
use crate::publisher::retry::{Cause, ERRORS, Verdict, judge};
use crate::publisher::window::Origin;
use std::time::Duration;

/// A subject that takes nothing for a while, another one, and one that always takes everything.
const FULL: &str = "event.1.full";
const SECOND: &str = "event.1.second";
const OTHER: &str = "event.1.other";

const MODES: [Mode; 2] = [Mode::Async, Mode::Auto];

/// What a parked subject may hold of the window.
const SHARE: usize = WINDOW / 4;

const SUBJECT_FULL: Verdict = Verdict::Park(Cause::StreamFull);

/// Each subject has a producer of its own, so none can overtake another's events.
fn offer(rig: &mut Rig, subject: &str) -> u64 {
    let ring = match subject {
        FULL => 1,
        SECOND => 2,
        _ => 0,
    };
    rig.offered += 1;
    rig.push(message(Origin::Ring(ring), rig.offered, subject), 16);
    rig.offered
}

fn warm(mode: Mode, refused: &[(&'static str, Verdict)]) -> Rig {
    let mut rig = Rig::connected(mode);
    rig.warm_up();
    rig.server.refuses = refused.iter().map(|&(subject, verdict)| (subject.into(), verdict)).collect();
    rig
}

/// Offers so many events to the other subject, one by one, and lets each be delivered. Returns the longest that one took.
#[track_caller]
fn deliver_others(rig: &mut Rig, events: usize) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..events {
        let (start, other) = (rig.now, offer(rig, OTHER));
        until_acked(rig, other);
        longest = longest.max(rig.now - start);
        // A moment in which nothing is offered.
        rig.pass(Duration::from_millis(5));
    }
    longest
}

#[track_caller]
fn until_acked(rig: &mut Rig, number: u64) {
    for _ in 0..1000 {
        rig.obey();
        let rests = rig.send_all(|_| Script::Store).is_empty() && rig.answers.is_empty();
        rig.deliver();
        if rig.fates().contains_key(&number) {
            assert!(matches!(rig.fates()[&number], Fate::Acked { .. }), "{:?}", rig.fates()[&number]);
            return;
        }
        if rests {
            rig.pass_deadline();
        }
    }
    panic!("{number} is held up: {:?}", rig.pipeline);
}

#[track_caller]
fn assert_fate(rig: &Rig, number: u64, fate: Fate) {
    assert_eq!(rig.fates().get(&number), Some(&fate), "{number}");
}

#[test]
fn a_subject_that_is_full_holds_nobody_up_however_long_and_goes_on_in_order_when_it_has_room() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, SUBJECT_FULL)]);
        let parked: Vec<u64> = (0..5).map(|_| offer(&mut rig, FULL)).collect();
        let longest = deliver_others(&mut rig, 20 * WINDOW);
        assert!(longest < Duration::from_millis(10), "{mode:?}: an event took {longest:?}");
        assert_eq!(rig.pipeline.open_events(), parked.len(), "{mode:?}");
        rig.server.refuses.clear();
        let healed_at = rig.now;
        rig.settle();
        rig.check();
        assert!(parked.iter().all(|seq| matches!(rig.fates()[seq], Fate::Acked { .. })), "{mode:?}");
        assert!(rig.now - healed_at < Duration::from_secs(2), "{mode:?}: {:?}", rig.now - healed_at);
    }
}

#[test]
fn a_subject_that_stays_full_costs_a_message_now_and_then() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, SUBJECT_FULL)]);
        (0..5).for_each(|_| _ = offer(&mut rig, FULL));
        let (start, mut tries) = (rig.now, 0);
        while rig.now < start + Duration::from_secs(60) {
            rig.obey();
            tries += rig.send_all(|_| Script::Store).iter().filter(|sent| sent.seq().is_some()).count();
            rig.deliver();
            rig.pass_deadline();
        }
        assert!((20..200).contains(&tries), "{mode:?}: {tries} tries in a minute");
    }
}

#[test]
fn a_report_of_the_bus_that_is_refused_holds_no_event_up() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, SUBJECT_FULL)]);
        rig.push(message(Origin::Bus, 1, FULL), 16);
        rig.push(message(Origin::Bus, 2, FULL), 16);
        deliver_others(&mut rig, 20 * WINDOW);
        assert!(rig.pipeline.is_at_rest() && !rig.pipeline.is_empty(), "{mode:?}: the reports wait");
        rig.server.refuses.clear();
        rig.settle();
        let reports = rig.server.stored().into_iter().filter(|(producer, _)| *producer == u64::MAX);
        assert_eq!(reports.map(|(_, seq)| seq).collect::<Vec<_>>(), [1, 2], "{mode:?}");
    }
}

#[test]
fn what_waits_is_dropped_when_a_later_event_of_its_producer_is_stored() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, SUBJECT_FULL)]);
        let full = [(); 3].map(|()| rig.offer_to(FULL));
        let other = rig.offer_to(OTHER);
        let behind = rig.offer_to(FULL);
        until_acked(&mut rig, other);
        for seq in full {
            assert_fate(&rig, seq, Fate::Dropped(Reason::Rejected));
        }
        assert!(!rig.fates().contains_key(&behind), "{mode:?}: nothing has overtaken it");
        rig.server.refuses.clear();
        rig.settle();
        rig.check();
        assert_fate(&rig, behind, Fate::Acked { duplicate: false });
    }
}

#[test]
fn what_waits_takes_no_more_than_its_share_of_the_window() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, SUBJECT_FULL)]);
        for _ in 0..3 * WINDOW {
            offer(&mut rig, FULL);
            let other = offer(&mut rig, OTHER);
            until_acked(&mut rig, other);
        }
        rig.check();
        assert_eq!(rig.pipeline.open_events(), SHARE, "{mode:?}");
        let dropped = rig.count(|fate| fate == Fate::Dropped(Reason::Rejected));
        assert_eq!(dropped, 3 * WINDOW - SHARE, "{mode:?}");
    }
}

#[test]
fn an_unknown_error_concerns_one_subject_until_another_one_gets_it_too() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, Verdict::Unknown)]);
        (0..2 * SHARE as u64).for_each(|_| _ = offer(&mut rig, FULL));
        let rests = |rig: &mut Rig| {
            rig.send(|_| Script::Store);
            rig.deliver();
            rig.obey();
        };
        (0..4).for_each(|_| rests(&mut rig));
        rig.check();
        assert_eq!(
            rig.pipeline.open_events(),
            2 * SHARE,
            "{mode:?}: nothing says yet that it is not the stream"
        );
        let longest = deliver_others(&mut rig, WINDOW);
        assert!(longest < Duration::from_millis(10), "{mode:?}: {longest:?}");
        assert_eq!(rig.pipeline.open_events(), SHARE, "{mode:?}: now it does");
    }
}

#[test]
fn events_of_a_healthy_subject_pass_two_others_with_unknown_errors_that_never_heal() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, Verdict::Unknown), (SECOND, Verdict::Unknown)]);
        for _ in 0..5 {
            offer(&mut rig, FULL);
            offer(&mut rig, SECOND);
        }
        let longest = deliver_others(&mut rig, 20 * WINDOW);
        assert!(longest < Duration::from_secs(2), "{mode:?}: {longest:?}");
        rig.server.refuses.clear();
        rig.settle();
        rig.check();
        assert_eq!(rig.acked() as u64, rig.offered, "{mode:?}");
    }
}

#[test]
fn a_subject_that_nobody_answers_though_the_stream_takes_it_holds_the_others_up_for_some_looks_only() {
    for mode in MODES {
        let mut rig = warm(mode, &[(FULL, Verdict::Retry(Cause::NoStream))]);
        let unheard = offer(&mut rig, FULL);
        let longest = deliver_others(&mut rig, 5);
        assert!(longest < Duration::from_secs(3), "{mode:?}: {longest:?}");
        let longest = deliver_others(&mut rig, 2 * WINDOW);
        assert!(longest < Duration::from_millis(10), "{mode:?}: {longest:?}");
        rig.server.refuses.clear();
        rig.settle();
        rig.check();
        assert_fate(&rig, unheard, Fate::Acked { duplicate: false });
    }
}

#[test]
fn an_event_larger_than_the_whole_stream_is_dropped_and_not_waited_for() {
    for mode in MODES {
        let mut rig = Rig::connected(mode);
        let StreamState::Found(info) = rig.server.info() else { unreachable!() };
        rig.disconnect();
        rig.pass(Duration::from_secs(1));
        rig.connect(StreamState::Found(StreamInfo { bytes_max: Some(1000), ..info }));
        rig.server.refuses = [(FULL.into(), Verdict::Retry(Cause::StreamFull))].into();
        rig.offered += 1;
        let large = rig.offered;
        rig.push(message(Origin::Ring(1), large, FULL), 990);
        rig.send(|_| Script::Store);
        rig.deliver();
        assert_fate(&rig, large, Fate::Dropped(Reason::TooLarge));
        deliver_others(&mut rig, 5);
    }
}

#[test]
fn what_is_tried_is_looked_for_where_it_may_be_though_others_were_stored_meanwhile() {
    let mut rig = warm(Mode::Async, &[(FULL, SUBJECT_FULL)]);
    let parked = offer(&mut rig, FULL);
    deliver_others(&mut rig, 3);
    rig.server.refuses.clear();
    // It is tried and stored, the answer is lost, and others are stored behind it.
    while rig.send_all(|_| Script::StoreSilently).is_empty() {
        rig.pass_deadline();
    }
    let others: Vec<u64> = (0..5).map(|_| offer(&mut rig, OTHER)).collect();
    rig.send(|_| Script::Store);
    rig.deliver();
    assert!(others.iter().all(|seq| rig.fates().contains_key(seq)));
    // With another one in doubt, the stream is read.
    let other = offer(&mut rig, OTHER);
    rig.send(|_| Script::StoreSilently);
    rig.server.forget_ids();
    rig.reconnect();
    rig.settle();
    rig.check();
    for seq in [parked, other] {
        assert_fate(&rig, seq, Fate::Acked { duplicate: false });
    }
    assert_eq!(rig.reads, 1);
}

#[test]
fn each_error_of_the_server_holds_up_those_that_it_concerns_and_nobody_else() {
    for &(code, err_code, text, expected) in ERRORS {
        for mode in MODES {
            let what = format!("{mode:?}: {err_code} {text}");
            let verdict = judge(code, err_code, text);
            assert_eq!(verdict, expected, "{what}");
            let mut rig = warm(mode, &[]);
            let refused = offer(&mut rig, FULL);
            // The JSON as it comes, for the message that it is about.
            let sent = rig.send_all(|_| Script::Lose);
            let error = format!(r#"{{"code":{code},"err_code":{err_code},"description":"{text}"}}"#);
            let payload = format!(r#"{{"error":{error},"stream":"main","seq":0}}"#);
            rig.answers.push_back(match sent[0].address {
                Address::Single(token) => Answer::Single(token, Reply::parse(payload.as_bytes(), "main")),
                Address::Batch(token) => Answer::Batch(token, BatchReply::parse(payload.as_bytes(), "main")),
            });
            rig.server.refuses = [(FULL.into(), verdict)].into();
            rig.deliver();
            let other = offer(&mut rig, OTHER);
            match verdict {
                Verdict::Final(reason) => {
                    assert_fate(&rig, refused, Fate::Dropped(reason));
                    until_acked(&mut rig, other);
                }
                Verdict::Park(_) | Verdict::Unknown => {
                    until_acked(&mut rig, other);
                    assert!(!rig.fates().contains_key(&refused), "{what}");
                }
                Verdict::Retry(_) => {
                    rig.send(|_| panic!("{what}: everything waits"));
                }
            }
            rig.server.refuses.clear();
            rig.settle();
            rig.check();
            assert_eq!(
                rig.acked() as u64 + u64::from(matches!(verdict, Verdict::Final(_))),
                rig.offered,
                "{what}"
            );
        }
    }
}

#[test]
fn a_refused_message_ends_a_batch_and_the_next_one_begins_without_its_subject() {
    let mut rig = warm(Mode::Auto, &[]);
    offer(&mut rig, OTHER);
    let full = offer(&mut rig, FULL);
    let others: Vec<u64> = (0..5).map(|_| offer(&mut rig, OTHER)).collect();
    rig.send(|_| Script::Store);
    rig.deliver();
    rig.server.refuses = [(FULL.into(), SUBJECT_FULL)].into();
    let start = rig.now;
    for _ in 0..6 {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    rig.check();
    assert!(others.iter().all(|seq| matches!(rig.fates().get(seq), Some(Fate::Acked { .. }))));
    assert!(!rig.fates().contains_key(&full));
    assert_eq!(rig.now, start, "nobody waits");
}
