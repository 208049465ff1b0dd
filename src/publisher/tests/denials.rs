//! Subjects that we may not publish to. The server names the subject of a message that it has denied, and not the message.

use super::rig::{ACK_TIMEOUT, Answer, Rig, Script, TOO_LARGE};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, Op};
use crate::publisher::pipeline::Fate;
use crate::publisher::reply::BatchReply;
use crate::publisher::retry::Verdict;
use std::time::Duration;

/// A subject that is about to be denied, and one that never is.
const TAKEN: &str = "event.1.taken";
const OTHER: &str = "event.1.other";

const GRACE: Duration = Duration::from_millis(500);

const ACKED: Fate = Fate::Acked { duplicate: false };
const DENIED: Fate = Fate::Dropped(Reason::Permission);

fn warm(mode: Mode) -> Rig {
    let mut rig = Rig::connected(mode);
    rig.warm_up();
    rig
}

/// Sends one event to the subject for each script, and delivers what the server says. Returns their numbers.
fn sent_to_taken<const N: usize>(rig: &mut Rig, scripts: [Script; N]) -> [u64; N] {
    let seqs = scripts.map(|_| rig.offer_to(TAKEN));
    let sent = rig.send(|seq| scripts[(seq - seqs[0]) as usize]);
    assert_eq!(sent, seqs);
    rig.deliver();
    seqs
}

#[track_caller]
fn assert_fates<const N: usize>(rig: &Rig, seqs: [u64; N], fates: [Fate; N]) {
    rig.check();
    let known = rig.fates();
    assert_eq!(seqs.map(|seq| known.get(&seq).copied()), fates.map(Some));
}

#[test]
fn as_many_denials_as_messages_are_an_answer_to_each() {
    let mut rig = warm(Mode::Async);
    let start = rig.now;
    let seqs = sent_to_taken(&mut rig, [Script::Deny; 20]);
    assert_fates(&rig, seqs, [DENIED; 20]);
    let other = rig.offer_to(OTHER);
    assert_eq!(rig.send(|_| Script::Store), [other], "it waits for nothing");
    rig.deliver();
    assert_fates(&rig, [other], [ACKED]);
    assert_eq!((rig.reads, rig.now), (0, start));
}

#[test]
fn an_answer_that_a_denial_has_overtaken_is_waited_for() {
    let mut rig = warm(Mode::Async);
    let start = rig.now;
    let seqs = [(); 4].map(|()| rig.offer_to(TAKEN));
    rig.send(|seq| if seq < seqs[2] { Script::Store } else { Script::Deny });
    rig.answers.rotate_left(2);
    rig.deliver();
    assert_fates(&rig, seqs, [ACKED, ACKED, DENIED, DENIED]);
    assert_eq!((rig.reads, rig.now), (0, start));
}

#[test]
fn an_event_whose_answer_was_lost_before_its_subject_was_denied_is_found_in_the_stream() {
    let mut rig = warm(Mode::Async);
    let seqs = sent_to_taken(&mut rig, [Script::StoreSilently, Script::Deny, Script::Deny]);
    let other = rig.offer_to(OTHER);
    assert_eq!(rig.send(|_| Script::Store), [other], "the others go on until the time is over");
    rig.deliver();
    rig.pass(GRACE);
    rig.settle();
    assert_fates(&rig, seqs, [ACKED, DENIED, DENIED]);
    assert_fates(&rig, [other], [ACKED]);
    assert_eq!((rig.reads, rig.connects), (1, 1));
}

#[test]
fn what_a_change_of_leader_has_stored_without_a_word_is_told_from_what_it_has_lost_and_from_what_is_denied() {
    let mut rig = warm(Mode::Async);
    let scripts = [Script::Store, Script::StoreSilently, Script::Lose, Script::Deny];
    let seqs = sent_to_taken(&mut rig, scripts);
    rig.pass(GRACE);
    rig.settle();
    assert_fates(&rig, seqs, [ACKED, ACKED, DENIED, DENIED]);
    assert_eq!((rig.reads, rig.connects), (1, 1));
}

#[test]
fn what_could_still_arrive_through_a_connection_that_was_cut_is_sent_again_though_its_subject_was_denied() {
    for (answer, fates) in [(Script::Store, [ACKED, ACKED]), (Script::Deny, [Fate::Indeterminate, DENIED])] {
        let mut rig = warm(Mode::Async);
        // One of two was denied, so nobody can tell that the other did not stay behind in the old connection.
        let seqs = sent_to_taken(&mut rig, [Script::StoreSilently, Script::Deny]);
        let never_sent = rig.offer_to(TAKEN);
        rig.reconnect();
        while rig.send(|_| answer) != [seqs[1]] {
            rig.obey();
            rig.deliver();
            rig.pass_deadline();
        }
        rig.deliver();
        rig.settle();
        assert_fates(&rig, [seqs[0], seqs[1], never_sent], [ACKED, fates[0], fates[1]]);
        assert_eq!(rig.connects, 2);
        rig.check();
    }
}

#[test]
fn a_single_event_in_doubt_whose_subject_is_denied_is_looked_for_since_its_id_would_not_be_looked_at() {
    let mut rig = warm(Mode::Async);
    let denied = sent_to_taken(&mut rig, [Script::Deny]);
    rig.pass(Duration::from_secs(1));
    let [probe] = sent_to_taken(&mut rig, [Script::StoreSilently]);
    rig.reconnect();
    rig.settle();
    assert_fates(&rig, [denied[0], probe], [DENIED, ACKED]);
    assert_eq!((rig.reads, rig.connects), (1, 2));
}

#[test]
fn an_event_that_is_denied_when_it_is_sent_again_may_have_been_stored_before() {
    for mode in [Mode::Async, Mode::Auto] {
        for is_stored in [true, false] {
            let mut rig = warm(mode);
            let [seq] =
                sent_to_taken(&mut rig, [if is_stored { Script::StoreSilently } else { Script::Lose }]);
            // The server does speak, of something else.
            rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
            rig.speak();
            rig.pass(Duration::from_millis(1));
            assert!(!rig.fates().contains_key(&seq));
            while rig.send(|_| Script::Deny).is_empty() {
                rig.pass_deadline();
                rig.obey();
            }
            rig.deliver();
            rig.settle();
            assert_fates(&rig, [seq], [if is_stored { ACKED } else { DENIED }]);
            // What is not stored is not there to be read: the stream ends where it did.
            assert_eq!((rig.reads, rig.connects), (usize::from(is_stored), 1), "{mode:?}");
        }
    }
}

#[test]
fn denials_of_a_burst_that_the_client_has_forgotten_are_made_up_for_by_the_stream() {
    let mut rig = warm(Mode::Async);
    let seqs = [(); 10].map(|()| rig.offer_to(TAKEN));
    rig.send(|_| Script::Deny);
    rig.answers.truncate(3);
    rig.deliver();
    rig.pass(GRACE - Duration::from_millis(1));
    assert!(!rig.fates().contains_key(&seqs[0]), "any seven of them may be stored");
    rig.pass(Duration::from_millis(1));
    rig.settle();
    assert_fates(&rig, seqs, [DENIED; 10]);
    assert_eq!(rig.connects, 1);
}

#[test]
fn a_denial_that_could_be_of_an_earlier_attempt_is_not_held_against_another_event() {
    let mut rig = warm(Mode::Async);
    let [first] = sent_to_taken(&mut rig, [Script::Lose]);
    rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
    rig.speak();
    rig.pass(Duration::from_millis(1));
    // It is sent again, and only now the first attempt is denied. The second is stored, and its answer is late.
    while rig.send(|_| Script::Store).is_empty() {
        rig.pass_deadline();
        rig.obey();
    }
    rig.answers.push_front(Answer::Denied(TAKEN.into()));
    assert!(rig.deliver_one() && !rig.fates().contains_key(&first));
    rig.deliver();
    assert_fates(&rig, [first], [ACKED]);
    assert_eq!((rig.reads, rig.connects), (0, 1));
}

#[test]
fn where_the_stream_cannot_be_read_what_may_have_been_denied_is_indeterminate_and_the_others_go_on() {
    let mut rig = warm(Mode::Async);
    rig.server.hides_messages = true;
    let seqs = sent_to_taken(&mut rig, [Script::StoreSilently, Script::Deny]);
    let other = rig.offer_to(OTHER);
    rig.pass(GRACE);
    rig.settle();
    assert_fates(&rig, seqs, [Fate::Indeterminate; 2]);
    assert_fates(&rig, [other], [ACKED]);
}

#[test]
fn a_subject_that_stays_denied_costs_one_message_a_second_and_holds_nobody_up() {
    let mut rig = warm(Mode::Async);
    let (others, start, mut tries) = (rig.acked(), rig.now, 0);
    for turn in 0..100 {
        // Two at once, of which the second does not wait to see what becomes of the first.
        let seqs = [rig.offer_to(TAKEN), rig.offer_to(TAKEN)];
        let other = rig.offer_to(OTHER);
        let sent = rig.send_all(|sent| if sent.subject == TAKEN { Script::Deny } else { Script::Store });
        tries += sent.iter().filter(|sent| sent.subject == TAKEN).count();
        assert!(sent.iter().any(|sent| sent.seq() == Some(other)), "held up in turn {turn}");
        rig.deliver();
        assert_fates(&rig, seqs, [DENIED; 2]);
        rig.pass(Duration::from_millis(100));
    }
    assert_eq!((rig.acked() - others, rig.reads, rig.connects), (100, 0, 1));
    // Nothing was known before the first.
    assert_eq!((tries, rig.now - start), (1 + 10, Duration::from_secs(10)));
}

#[test]
fn a_message_that_is_taken_again_ends_the_denial_at_once() {
    for mode in [Mode::Async, Mode::Auto] {
        for script in [Script::Store, TOO_LARGE] {
            let mut rig = warm(mode);
            sent_to_taken(&mut rig, [Script::Deny]);
            rig.pass(Duration::from_secs(1));
            sent_to_taken(&mut rig, [script]);
            let [next] = sent_to_taken(&mut rig, [Script::Store]);
            assert_fates(&rig, [next], [ACKED]);
        }
    }
}

#[test]
fn the_end_of_a_batch_goes_another_way_when_the_subject_of_its_first_event_is_denied() {
    let mut rig = warm(Mode::Auto);
    let start = rig.now;
    let first = rig.offer_to(TAKEN);
    let denied = [(); 3].map(|()| rig.offer_to(TAKEN));
    rig.pipeline.expect_more(true);
    assert_eq!(rig.send(|_| Script::Store), [first]);
    rig.deliver();
    assert_eq!(rig.send(|_| Script::Deny), denied);
    let other = rig.offer_to(OTHER);
    rig.deliver();
    let end = rig.send_all(|_| Script::Store);
    assert_eq!((end[0].op(), &*end[0].subject), (Some(Op::End), OTHER.as_bytes()));
    rig.deliver();
    rig.pipeline.expect_more(false);
    rig.send(|_| Script::Store);
    rig.deliver();
    assert_fates(&rig, denied, [DENIED; 3]);
    assert_fates(&rig, [first, other], [ACKED; 2]);
    assert_eq!((rig.reads, rig.connects, rig.now), (0, 1, start));
}

#[test]
fn an_end_of_a_batch_that_is_denied_is_sent_again_another_way_as_soon_as_there_is_one() {
    let mut rig = warm(Mode::Auto);
    let first = rig.offer_to(TAKEN);
    let lost = rig.offer_to(TAKEN);
    assert_eq!(rig.send(|_| Script::Store), [first]);
    rig.deliver();
    assert_eq!(rig.send(|_| Script::Lose), [lost]);
    rig.pass(ACK_TIMEOUT - Duration::from_millis(1));
    rig.speak();
    rig.pass(Duration::from_millis(1));
    let end = rig.send_all(|_| Script::Deny);
    assert_eq!((end[0].op(), &*end[0].subject), (Some(Op::End), TAKEN.as_bytes()));
    let other = rig.offer_to(OTHER);
    rig.deliver();
    let end = rig.send_all(|_| Script::Store);
    assert_eq!((end[0].op(), &*end[0].subject), (Some(Op::End), OTHER.as_bytes()));
    rig.deliver();
    rig.settle();
    assert_fates(&rig, [first, lost, other], [ACKED, DENIED, ACKED]);
    assert_eq!((rig.reads, rig.connects), (0, 1));
}

#[test]
fn a_batch_whose_end_is_denied_too_is_looked_for_in_the_stream_at_once() {
    let mut rig = warm(Mode::Auto);
    let start = rig.now;
    let seqs = [(); 4].map(|()| rig.offer_to(TAKEN));
    assert_eq!(rig.send(|_| Script::Store), [seqs[0]]);
    rig.deliver();
    // The end is denied like the last of its messages.
    rig.send(|seq| if seq == seqs[1] { Script::StoreSilently } else { Script::Deny });
    rig.deliver();
    rig.send(|_| Script::Deny);
    rig.deliver();
    rig.settle();
    assert_fates(&rig, seqs, [ACKED, ACKED, DENIED, DENIED]);
    assert_eq!((rig.reads, rig.connects), (1, 1));
    assert!(rig.now - start < Duration::from_secs(1), "{:?}", rig.now - start);
}

#[test]
fn a_denial_out_of_a_batch_that_the_server_has_ended_is_not_held_against_the_next_start() {
    let mut rig = warm(Mode::Auto);
    let first = rig.offer_to(OTHER);
    let refused = rig.offer_to(OTHER);
    let seq = rig.offer_to(TAKEN);
    rig.send(|_| Script::Store);
    rig.deliver();
    let sent = rig.send_all(|_| Script::Lose);
    let Address::Batch(token) = sent[0].address else { panic!("{sent:?}") };
    let verdict = Verdict::Final(Reason::TooLarge);
    rig.answers.push_back(Answer::Batch(token, BatchReply::Refused { seq: 2, verdict, text: String::new() }));
    let sequence = rig.server.messages.len() as u64;
    rig.answers.push_back(Answer::Batch(token, BatchReply::Ended { count: 1, sequence }));
    rig.deliver();
    // Only now the server reads what is left of that batch.
    assert_eq!(rig.send(|_| Script::Store), [seq]);
    rig.answers.push_front(Answer::Denied(TAKEN.into()));
    rig.deliver();
    rig.settle();
    assert_fates(&rig, [first, refused, seq], [ACKED, Fate::Dropped(Reason::TooLarge), ACKED]);
}
