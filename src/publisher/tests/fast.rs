//! The fast engine.

use super::rig::{ACK_TIMEOUT, Answer, BUSY, FULL, NO_STREAM, Rig, Script, Sent, TOO_LARGE, WINDOW, message};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::engine::Engine;
use crate::publisher::outgoing::{Address, Op};
use crate::publisher::patience::SPAN_MIN;
use crate::publisher::pipeline::{Fate, LinkAction, StreamState};
use crate::publisher::reply::BatchReply;
use crate::publisher::retry::Verdict;
use crate::publisher::window::Origin;
use proptest::prelude::*;
use std::time::Duration;

fn connected() -> Rig {
    Rig::connected(Mode::Auto)
}

/// A rig whose window is open.
fn warm() -> Rig {
    let mut rig = connected();
    rig.warm_up();
    rig
}

/// A batch that was begun and granted, with so many more events waiting behind its first.
fn granted(events: u64) -> Rig {
    let mut rig = warm();
    rig.offer(events + 1);
    assert_eq!(ops(&rig.send_all(|_| Script::Store)), [Op::Start]);
    rig.deliver();
    rig
}

fn ops(sent: &[Sent]) -> Vec<Op> {
    sent.iter().filter_map(Sent::op).collect()
}

fn places(sent: &[Sent]) -> Vec<u64> {
    let place = |sent: &Sent| match sent.address {
        Address::Batch(token) => token.seq,
        Address::Single(token) => panic!("{token:?} is not of a batch"),
    };
    sent.iter().map(place).collect()
}

/// Everything that was offered is delivered, once and in order.
#[track_caller]
fn assert_all_delivered(rig: &mut Rig) {
    rig.settle();
    rig.check();
    assert_eq!((rig.acked(), rig.server.stored().len()), (rig.offered as usize, rig.offered as usize));
}

#[test]
fn an_event_that_comes_alone_is_a_batch_of_its_own_and_costs_one_round_trip() {
    let mut rig = warm();
    for _ in 0..3 {
        rig.offer(1);
        let sent = rig.send_all(|_| Script::Store);
        assert_eq!((ops(&sent), places(&sent)), (vec![Op::Commit], vec![1]));
        assert!(sent[0].id.is_some(), "it could arrive late and make a batch");
        rig.deliver();
        assert!(rig.pipeline.is_empty());
    }
    assert_eq!(rig.pipeline.engine(), Some(Engine::Fast));
}

#[test]
fn nothing_follows_the_start_of_a_batch_before_it_is_granted_and_then_no_id_is_needed() {
    let mut rig = warm();
    rig.offer(10);
    let start = rig.send_all(|_| Script::Store);
    assert_eq!((ops(&start), places(&start)), (vec![Op::Start], vec![1]));
    assert!(start[0].id.is_some());
    assert!(rig.send_all(|_| Script::Store).is_empty());
    rig.deliver();
    let rest = rig.send_all(|_| Script::Store);
    assert_eq!(places(&rest), (2..=10).collect::<Vec<_>>());
    assert_eq!(ops(&rest), [[Op::Append; 8].as_slice(), &[Op::Commit]].concat());
    assert!(rest.iter().all(|sent| sent.id.is_none()));
    rig.deliver();
    assert!(rig.pipeline.is_empty());
    rig.check();
}

#[test]
fn a_batch_goes_on_as_long_as_there_is_more_and_never_beyond_the_window() {
    let mut rig = granted(WINDOW as u64 - 1);
    let before = rig.offered;
    let mut batches = 0;
    rig.pipeline.expect_more(true);
    for _ in 0..100 {
        let sent = rig.send_all(|_| Script::Store);
        batches += ops(&sent).iter().filter(|op| matches!(op, Op::Commit | Op::End)).count();
        rig.deliver();
        rig.offer(rig.pipeline.room() as u64);
        assert!(rig.pipeline.open_events() <= WINDOW);
    }
    assert!(rig.offered - before > 100 * WINDOW as u64 / 4, "only {} in 100 turns", rig.offered - before);
    assert_eq!(batches, 0, "although more was waiting");
    rig.pipeline.expect_more(false);
    assert_all_delivered(&mut rig);
}

#[test]
fn a_small_window_is_emptied_by_a_commit_since_no_acknowledgement_would_come() {
    let mut rig = connected();
    rig.offer(20);
    let mut sizes = Vec::new();
    while !rig.pipeline.is_empty() {
        let sent = rig.send(|_| Script::Store).len();
        rig.deliver();
        sizes.push(sent);
    }
    // One alone; then the start of two, and the second as commit; and so on.
    assert_eq!(sizes, [1, 1, 1, 1, 3, 1, 7, 1, 4]);
    rig.check();
}

#[test]
fn after_a_disconnect_the_end_of_the_batch_tells_what_is_stored_and_the_rest_is_sent_again() {
    for stored in 0..10 {
        let mut rig = granted(10);
        let first = rig.offered - 9;
        rig.send(|seq| if seq < first + stored { Script::StoreSilently } else { Script::Swallow });
        rig.reconnect();
        let end = rig.send_all(|_| Script::Store);
        assert_eq!(
            (ops(&end), places(&end)),
            (vec![Op::End], vec![12]),
            "nothing else is sent before its answer"
        );
        rig.deliver();
        assert_eq!(rig.send(|_| Script::Store).first(), (stored < 10).then_some(&(first + stored)));
        rig.deliver();
        assert_all_delivered(&mut rig);
        assert_eq!(rig.reads, 0);
    }
}

#[test]
fn what_was_on_its_way_in_a_connection_that_is_gone_is_kept_out_whenever_it_arrives() {
    for (arrives_before_the_end, has_started) in [(true, true), (false, true), (true, false), (false, false)]
    {
        let mut rig = if has_started { granted(10) } else { warm() };
        if !has_started {
            rig.offer(11);
        }
        rig.send(|_| Script::Swallow);
        assert!(!rig.ghosts.is_empty());
        rig.reconnect();
        if arrives_before_the_end {
            rig.let_ghosts_arrive(3);
        }
        rig.send(|_| Script::Store);
        rig.deliver();
        rig.let_ghosts_arrive(3);
        rig.settle();
        rig.let_ghosts_arrive(usize::MAX);
        assert_all_delivered(&mut rig);
    }
}

#[test]
fn a_batch_that_a_restarted_server_has_forgotten_is_read_back() {
    for stored in 0..=10 {
        let mut rig = granted(10);
        let first = rig.offered - 9;
        rig.send(|seq| if seq < first + stored { Script::StoreSilently } else { Script::Lose });
        rig.server.restart();
        rig.reconnect();
        assert_all_delivered(&mut rig);
        assert_eq!(rig.reads, 1, "{stored}");
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_in_the_stream() {
    let mut rig = granted(10);
    rig.send(|_| Script::StoreSilently);
    rig.reconnect();
    assert_all_delivered(&mut rig);
    assert_eq!(rig.reads, 1, "the server knows the batch no more, since it was complete");
}

#[test]
fn a_commit_that_is_acknowledged_does_not_wait_for_the_lost_word_that_its_batch_has_ended() {
    for is_alone in [true, false] {
        let mut rig = if is_alone { warm() } else { granted(10) };
        if is_alone {
            rig.offer(1);
        }
        let sent = rig.send_all(|_| Script::StoreSilently);
        let Some(Address::Batch(commit)) = sent.last().map(|sent| sent.address) else { panic!("{sent:?}") };
        assert_eq!(commit.op, Op::Commit);
        rig.answers.push_back(Answer::Batch(commit, BatchReply::Ack { seq: commit.seq, messages: 1 }));
        rig.deliver();
        assert!(rig.pipeline.is_empty());
        rig.offer(3);
        assert!(rig.send(|_| Script::Store).is_empty(), "the batch may still be ended");
        rig.pass_deadline();
        rig.speak();
        assert_all_delivered(&mut rig);
        assert_eq!(rig.reads, 0);
    }
}

#[test]
fn an_event_that_was_refused_in_a_batch_is_sent_again_in_another_connection_since_nothing_behind_it_arrives()
{
    let mut rig = granted(10);
    let refused = rig.offered - 5;
    rig.server.room = rig.server.stored().len() + 4;
    rig.send(|seq| if seq <= refused { Script::Store } else { Script::Swallow });
    // The refusal is heard, and the word that the batch has ended is not.
    rig.deliver_one();
    rig.server.room = usize::MAX;
    rig.reconnect();
    rig.let_ghosts_arrive(usize::MAX);
    assert_all_delivered(&mut rig);
}

#[test]
fn numbers_of_a_broken_server_cost_no_more_than_what_was_sent() {
    for answer in [
        r#"{"stream":"other","count":18446744073709551615}"#,
        r#"{"stream":"main","seq":18446744073709551615,"count":18446744073709551615}"#,
        r#"{"type":"ack","seq":18446744073709551615,"msgs":18446744073709551615}"#,
        r#"{"type":"ack","seq":0,"msgs":18446744073709551615}"#,
        r#"{"type":"err","seq":18446744073709551615,"error":{"code":18446744073709551615,"err_code":18446744073709551615}}"#,
    ] {
        let mut rig = granted(10);
        let sent = rig.send_all(|_| Script::StoreSilently);
        let Address::Batch(token) = sent[0].address else { panic!("{sent:?}") };
        rig.answers.push_back(Answer::Batch(token, BatchReply::parse(answer.as_bytes(), "main")));
        rig.deliver();
        rig.reconnect();
        rig.settle();
        assert_eq!(rig.outcomes.len() as u64, rig.offered, "{answer}");
    }
}

#[test]
fn an_event_alone_whose_answer_is_lost_is_sent_again_with_its_id() {
    let mut rig = warm();
    rig.offer(1);
    rig.send(|_| Script::StoreSilently);
    rig.reconnect();
    assert_all_delivered(&mut rig);
    assert_eq!(rig.reads, 0);
}

#[test]
fn a_message_lost_out_of_the_middle_ends_the_batch_and_order_is_kept() {
    let mut rig = granted(10);
    let lost = rig.offered - 5;
    rig.send(|seq| if seq == lost { Script::Lose } else { Script::Store });
    rig.deliver();
    assert_all_delivered(&mut rig);
    assert_eq!((rig.connects, rig.reads), (1, 0));
}

#[test]
fn a_last_message_that_is_lost_is_found_out_after_the_ack_timeout() {
    let mut rig = granted(10);
    let last = rig.offered;
    rig.send(|seq| if seq == last { Script::Lose } else { Script::Store });
    rig.deliver();
    // Somebody is there; only this answer is missing.
    rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
    rig.speak();
    rig.pass(Duration::from_millis(1));
    rig.obey();
    assert_all_delivered(&mut rig);
    assert_eq!(rig.reads, 0);
}

#[test]
fn a_permanent_refusal_in_a_batch_drops_that_event_and_the_others_go_on_at_once() {
    let mut rig = granted(10);
    let (refused, start) = (rig.offered - 5, rig.now);
    rig.send(|seq| if seq == refused { TOO_LARGE } else { Script::Store });
    rig.deliver();
    while !rig.pipeline.is_empty() {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    rig.check();
    assert_eq!(rig.fates()[&refused], Fate::Dropped(Reason::TooLarge));
    assert_eq!((rig.acked() as u64, rig.now), (rig.offered - 1, start));
}

#[test]
fn a_permanent_refusal_of_a_first_event_drops_it_and_the_others_go_on_at_once() {
    for behind in [0, 5] {
        let mut rig = warm();
        rig.offer(1 + behind);
        rig.send(|_| TOO_LARGE);
        rig.deliver();
        while !rig.pipeline.is_empty() {
            rig.send(|_| Script::Store);
            rig.deliver();
        }
        rig.check();
        assert_eq!(
            (rig.acked() as u64, rig.count(|fate| fate == Fate::Dropped(Reason::TooLarge))),
            (rig.offered - 1, 1)
        );
    }
}

#[test]
fn a_stream_that_is_full_in_the_middle_of_a_batch_overtakes_nothing() {
    let mut rig = granted(10);
    rig.server.room = rig.server.stored().len() + 4;
    rig.send(|_| Script::Store);
    rig.deliver();
    let start = rig.now;
    let mut tries = 0;
    while rig.now < start + Duration::from_secs(60) {
        rig.obey();
        tries += rig.send(|_| Script::Store).len();
        rig.deliver();
        rig.pass_deadline();
    }
    assert!(tries < 150, "{tries} tries in a minute is a spin");
    assert_eq!(rig.pipeline.open_events(), 6);
    rig.server.room = usize::MAX;
    assert_all_delivered(&mut rig);
}

#[test]
fn an_overloaded_server_gets_less_at_once() {
    let mut rig = granted(WINDOW as u64 - 1);
    let first = rig.offered - 40;
    rig.send(|seq| if seq >= first { BUSY } else { Script::Store });
    rig.deliver();
    rig.settle();
    rig.check();
    rig.offer(WINDOW as u64);
    let mut most = 0;
    while !rig.pipeline.is_empty() {
        most = most.max(rig.send(|_| Script::Store).len());
        rig.deliver();
    }
    assert!(most <= WINDOW / 2 + 4, "{most} at once");
}

#[test]
fn a_stream_that_takes_no_batches_any_more_gets_its_events_one_by_one_and_none_is_lost() {
    for is_in_mid_batch in [true, false] {
        let mut rig = granted(10);
        if is_in_mid_batch {
            rig.send(|_| Script::StoreSilently);
        }
        rig.server.allows_batches = false;
        rig.send(|_| Script::Store);
        rig.deliver();
        rig.pass(ACK_TIMEOUT);
        rig.settle();
        rig.offer(5);
        assert_all_delivered(&mut rig);
        assert_eq!(rig.pipeline.engine(), Some(Engine::Async));
        rig.server.allows_batches = true;
        rig.reconnect();
        rig.offer(5);
        assert_all_delivered(&mut rig);
        assert_eq!(rig.pipeline.engine(), Some(Engine::Fast));
    }
}

#[test]
fn a_server_that_refuses_batches_against_the_word_of_its_stream_is_not_asked_again() {
    let mut rig = Rig::new(Mode::Auto);
    let says_yes = rig.server.info();
    rig.server.allows_batches = false;
    rig.offer(5);
    rig.connect(says_yes.clone());
    rig.send(|_| Script::Store);
    rig.deliver();
    rig.pass_deadline();
    assert_eq!(rig.link(), Some(LinkAction::LookUpStream));
    rig.pipeline.handle_stream(rig.now, says_yes);
    assert_eq!(rig.pipeline.engine(), Some(Engine::Async));
    assert_all_delivered(&mut rig);
}

#[test]
fn who_insists_on_batches_sends_again_when_a_server_that_refused_them_takes_them() {
    let mut rig = Rig::new(Mode::Fast);
    let says_yes = rig.server.info();
    rig.server.allows_batches = false;
    rig.offer(5);
    rig.connect(says_yes.clone());
    for _ in 0..10 {
        assert_eq!(rig.send(|_| Script::Store), [1], "it tries with one message");
        rig.deliver();
        assert!(rig.send(|_| Script::Store).is_empty(), "and waits before the next try");
        rig.pass_deadline();
        assert_eq!(rig.link(), Some(LinkAction::LookUpStream));
        rig.pipeline.handle_stream(rig.now, says_yes.clone());
    }
    rig.server.allows_batches = true;
    assert_all_delivered(&mut rig);
    assert_eq!((rig.pipeline.engine(), rig.connects), (Some(Engine::Fast), 1));
}

#[test]
fn who_insists_on_batches_waits_until_the_stream_allows_them() {
    let mut rig = Rig::new(Mode::Fast);
    rig.server.allows_batches = false;
    rig.offer(5);
    for _ in 0..10 {
        rig.obey();
        assert!(rig.send(|_| Script::Store).is_empty());
        rig.pass_deadline();
    }
    rig.server.allows_batches = true;
    assert_all_delivered(&mut rig);
    assert_eq!(rig.pipeline.engine(), Some(Engine::Fast));
}

#[test]
fn without_a_look_at_the_stream_events_go_one_by_one() {
    let mut rig = Rig::new(Mode::Auto);
    rig.offer(5);
    rig.connect(StreamState::Unknown);
    assert_eq!(rig.pipeline.engine(), Some(Engine::Async));
    assert_all_delivered(&mut rig);
}

#[test]
fn an_acknowledgement_that_does_not_come_is_asked_for_once() {
    let mut rig = granted(WINDOW as u64 - 1);
    // So much waits that the batch stays open; all acknowledgements are lost.
    rig.pipeline.expect_more(true);
    rig.send(|_| Script::StoreSilently);
    rig.pass(SPAN_MIN / 2);
    let ping = rig.send_all(|_| Script::Store);
    assert_eq!(ops(&ping), [Op::Ping]);
    rig.deliver();
    rig.pass(Duration::from_millis(1));
    assert!(ops(&rig.send_all(|_| Script::Store)).iter().all(|&op| op != Op::Ping));
    rig.pipeline.expect_more(false);
    rig.deliver();
    assert_all_delivered(&mut rig);
    assert_eq!((rig.connects, rig.reads), (1, 0));
}

#[test]
fn a_silent_server_is_left_after_the_ack_timeout() {
    for events in [1, 5] {
        let mut rig = warm();
        rig.offer(events);
        rig.send(|_| Script::Swallow);
        rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
        assert_eq!(rig.link(), None);
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.link(), Some(LinkAction::Disconnect));
        rig.disconnect();
        assert_all_delivered(&mut rig);
        assert_eq!(rig.connects, 2);
    }
}

#[test]
fn an_end_that_nobody_takes_is_sent_again_after_a_look_at_the_stream() {
    let mut rig = granted(10);
    rig.send(|_| Script::Swallow);
    rig.reconnect();
    for _ in 0..5 {
        assert_eq!(ops(&rig.send_all(|_| NO_STREAM)), [Op::End]);
        rig.deliver();
        rig.pass_deadline();
        rig.obey();
    }
    assert_all_delivered(&mut rig);
    assert_eq!(rig.reads, 0);
}

#[test]
fn what_is_sent_again_since_a_new_leader_knows_nothing_of_the_batch_is_counted() {
    let mut rig = granted(10);
    let (first, before) = (rig.offered - 9, rig.retries);
    rig.send(|seq| if seq < first + 4 { Script::StoreSilently } else { Script::Lose });
    rig.server.restart();
    assert_all_delivered(&mut rig);
    assert_eq!((rig.retries - before, rig.connects), (6, 1));
}

#[test]
fn an_end_that_is_never_answered_makes_the_batch_forgotten() {
    let mut rig = granted(10);
    rig.send(|_| Script::StoreSilently);
    rig.reconnect();
    let mut ends = 0;
    while rig.reads == 0 {
        ends += rig.send_all(|_| Script::Lose).len();
        // The server does speak, of something else.
        rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
        rig.speak();
        rig.pass(Duration::from_millis(1));
        rig.obey();
        assert!(ends < 10, "for ever");
    }
    assert_all_delivered(&mut rig);
}

#[test]
fn a_denied_subject_is_dropped_wherever_it_stands_in_a_batch() {
    for denied in [0, 3] {
        let mut rig = warm();
        let first = rig.offered + 1;
        for seq in first..first + 6 {
            let subject = if seq == first + denied { "event.1.denied" } else { "event.1.a" };
            rig.push(message(Origin::Ring(0), seq, subject), 16);
        }
        rig.offered += 6;
        for _ in 0..4 {
            let sent = rig.send(|seq| if seq == first + denied { Script::Lose } else { Script::Store });
            if sent.contains(&(first + denied)) {
                let route = rig.route(&"event.1.denied".into());
                rig.pipeline.handle_denied(rig.now, &route);
            }
            rig.deliver();
        }
        rig.settle();
        rig.check();
        assert_eq!(rig.fates()[&(first + denied)], Fate::Dropped(Reason::Permission));
        assert_eq!((rig.acked() as u64, rig.connects), (rig.offered - 1, 1));
    }
}

#[test]
fn giving_up_in_mid_batch_tells_what_never_left_from_what_may_be_stored_and_leaves_the_reports() {
    let mut rig = granted(10);
    let before = rig.acked();
    rig.send(|_| Script::StoreSilently);
    rig.offer(5);
    rig.push(message(Origin::Bus, 1, "event.1._bus.gap"), 16);
    rig.disconnect();
    rig.pipeline.give_up(rig.now);
    rig.collect();
    assert_eq!((rig.acked(), rig.indeterminate()), (before, 11));
    assert_eq!(rig.count(|fate| fate == Fate::Dropped(Reason::Expired)), 5);
    rig.settle();
    assert_eq!(rig.server.stored().last(), Some(&(u64::MAX, 1)), "the report is sent");
}

#[test]
fn what_is_not_found_and_may_still_arrive_late_is_not_called_dropped() {
    let mut rig = Rig::connected(Mode::Async);
    rig.warm_up();
    let before = rig.acked();
    rig.offer(3);
    rig.send(|_| Script::Swallow);
    // The stream ends where it ended before.
    rig.reconnect();
    rig.pipeline.give_up(rig.now);
    rig.collect();
    rig.let_ghosts_arrive(3);
    rig.check();
    assert_eq!((rig.acked(), rig.indeterminate()), (before, 3));
}

#[test]
fn a_stream_that_was_made_again_gets_what_the_old_one_did_not_acknowledge() {
    let mut rig = granted(10);
    let acked = rig.acked();
    rig.send(|_| Script::Swallow);
    rig.server.messages.clear();
    rig.server.restart();
    rig.server.forget_ids();
    rig.server.created += 1;
    rig.reconnect();
    rig.settle();
    assert_eq!(
        (rig.acked() as u64, rig.server.stored().len() as u64),
        (rig.offered, rig.offered - acked as u64)
    );
    rig.check_order();
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u64),
    Send(Vec<u8>),
    Deliver(usize),
    Pass(u64),
    Obey,
    Disconnect,
    Restart,
    Ghosts(usize),
    AllowBatches(bool),
    Room(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..20u64).prop_map(Step::Offer),
        6 => proptest::collection::vec(0..40u8, 1..20).prop_map(Step::Send),
        6 => (0..20usize).prop_map(Step::Deliver),
        3 => (1..6000u64).prop_map(Step::Pass),
        5 => Just(Step::Obey),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Restart),
        2 => (0..10usize).prop_map(Step::Ghosts),
        1 => any::<bool>().prop_map(Step::AllowBatches),
        1 => (0..30usize).prop_map(Step::Room),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Faults first, then a server that works: everything is accounted for, in order, once.
    #[test]
    fn whatever_happens_the_law_holds_and_order_is_kept(
        steps in proptest::collection::vec(step(), 1..100),
        flow in 1..20u64,
        denies: bool,
        give_up: bool,
    ) {
        let mut rig = Rig::new(Mode::Auto);
        rig.server.flow = flow;
        for step in steps {
            match step {
                Step::Offer(events) => rig.offer(events.min(rig.pipeline.room() as u64)),
                Step::Send(dice) => {
                    let mut dice = dice.into_iter().cycle();
                    let mut cut = false;
                    rig.send_all(|sent| match dice.next().unwrap() {
                        _ if cut => Script::Swallow,
                        0 => { cut = true; Script::Swallow }
                        1 | 2 => Script::StoreSilently,
                        3 => BUSY,
                        4 => NO_STREAM,
                        5 if sent.op() != Some(Op::End) => Script::Refuse(Verdict::Final(Reason::Rejected)),
                        6 => Script::Lose,
                        7 if sent.op().is_none() => FULL,
                        8 if denies => Script::Deny,
                        _ => Script::Store,
                    });
                    if cut {
                        rig.disconnect();
                    }
                }
                Step::Deliver(answers) => (0..answers).for_each(|_| { rig.deliver_one(); }),
                Step::Pass(millis) => rig.pass(Duration::from_millis(millis)),
                Step::Obey => rig.obey(),
                Step::Disconnect => rig.disconnect(),
                Step::Restart => {
                    rig.server.restart();
                    rig.ghosts.clear();
                    rig.disconnect();
                }
                Step::Ghosts(ghosts) => rig.let_ghosts_arrive(ghosts),
                Step::AllowBatches(allows) => rig.server.allows_batches = allows,
                Step::Room(room) => rig.server.room = rig.server.stored().len() + room,
            }
            rig.collect();
            rig.check();
        }
        rig.server.room = usize::MAX;
        if give_up {
            rig.pipeline.give_up(rig.now);
            rig.collect();
        }
        rig.settle();
        rig.let_ghosts_arrive(usize::MAX);
        rig.check();
        prop_assert!(rig.pipeline.is_empty());
        // Only what was in doubt when it was refused for good, or denied, may be stored for all we know.
        prop_assert!(give_up || denies || rig.indeterminate() <= rig.refused_for_good, "the stream can always tell");
    }
}
