//! Reading the stream back.

use super::rig::{FULL, Rig, Script, token};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::patience::SPAN_MIN;
use crate::publisher::pipeline::{Fate, LinkAction, READ_PAGE, SETTLING, StreamState};
use crate::publisher::reply::Reply;
use std::time::Duration;

/// Longer than the stream knows ids.
const LONG: Duration = Duration::from_secs(3600);

/// A rig with an open window, after so many more events were sent in one connection that is gone.
fn in_doubt(mode: Mode, events: u64, script: impl Fn(u64) -> Script) -> Rig {
    let mut rig = Rig::connected(mode);
    rig.warm_up();
    rig.offer(events);
    let first = rig.offered - events + 1;
    if mode == Mode::Auto {
        rig.send(|_| Script::Store);
        rig.deliver();
    }
    rig.send(|seq| script(seq - first));
    rig
}

#[test]
fn what_an_outage_beyond_the_duplicate_window_has_left_is_found() {
    for mode in [Mode::Async, Mode::Auto] {
        for stored in 1..=8 {
            let mut rig =
                in_doubt(mode, 8, |index| if index < stored { Script::StoreSilently } else { Script::Lose });
            rig.disconnect();
            rig.pass(LONG);
            rig.server.forget_ids();
            rig.server.restart();
            rig.settle();
            rig.check();
            assert_eq!((rig.acked() as u64, rig.server.stored().len() as u64), (rig.offered, rig.offered));
            assert_eq!(rig.reads, 1);
        }
    }
}

#[test]
fn a_single_message_is_read_back_only_if_the_server_may_have_forgotten_its_id() {
    for (outage, reads) in [(Duration::from_secs(1), 0), (LONG, 1)] {
        let mut rig = in_doubt(Mode::Async, 1, |_| Script::StoreSilently);
        rig.disconnect();
        rig.pass(outage);
        if outage == LONG {
            rig.server.forget_ids();
        }
        rig.settle();
        rig.check();
        assert_eq!((rig.acked() as u64, rig.reads), (rig.offered, reads));
    }
}

#[test]
fn a_look_without_an_answer_does_not_make_the_whole_stream_be_read() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 5 { Script::StoreSilently } else { Script::Lose });
    let stored_before = rig.server.stored().len() as u64 - 5;
    rig.disconnect();
    rig.pass_deadline();
    rig.connect(StreamState::Unknown);
    let read = loop {
        match rig.link() {
            Some(LinkAction::Read { from, to }) => break (from, to),
            Some(action) => rig.obey_one(action),
            None => rig.pass_deadline(),
        }
    };
    assert!(read.0 + 1 >= stored_before, "{read:?} of {stored_before} and 5");
}

#[test]
fn what_was_read_once_is_not_read_again() {
    let mut rig = in_doubt(Mode::Async, 8, |_| Script::StoreSilently);
    rig.disconnect();
    rig.settle();
    let stored = rig.server.stored().len() as u64;
    rig.offer(1);
    rig.send(|_| Script::StoreSilently);
    rig.disconnect();
    rig.pass(LONG);
    let from = loop {
        match rig.link() {
            Some(LinkAction::Read { from, .. }) => break from,
            Some(action) => rig.obey_one(action),
            None => rig.pass_deadline(),
        }
    };
    assert_eq!((rig.reads, from), (1, stored + 1));
}

#[test]
fn each_doubt_has_a_first_look_of_its_own() {
    let mut rig = in_doubt(Mode::Async, 2, |_| Script::Lose);
    rig.pass(SPAN_MIN);
    rig.pass_deadline();
    // The first look; the second one is due when all has had time to come into the stream. Meanwhile the answers come.
    rig.obey();
    for number in [rig.offered - 2, rig.offered - 1] {
        let reply = Reply::Stored { sequence: number + 1, duplicate: false };
        rig.pipeline.handle_reply(rig.now, token(number, 1), reply);
    }
    rig.pass(SETTLING);
    rig.obey();
    assert_eq!((rig.pipeline.open_events(), rig.reads), (0, 0));
    rig.warm_up();
    rig.offer(2);
    rig.send(|_| Script::Lose);
    while rig.link().is_none() {
        rig.pass_deadline();
    }
    rig.obey_one(LinkAction::LookUpStream);
    assert_eq!(rig.link(), None, "a second look must tell what is on its way now");
    rig.pass(SETTLING);
    assert_eq!(rig.link(), Some(LinkAction::LookUpStream));
}

#[test]
fn a_refusal_that_was_lost_with_the_connection_is_found_out_and_nothing_is_put_behind() {
    let mut rig = in_doubt(Mode::Async, 8, |index| if index == 3 { FULL } else { Script::StoreSilently });
    let refused = rig.offered - 4;
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!(rig.fates()[&refused], Fate::Dropped(Reason::Rejected));
    assert_eq!(rig.acked() as u64, rig.offered - 1);
}

#[test]
fn a_message_that_a_new_leader_has_lost_out_of_the_middle_is_found_out_and_nothing_is_put_behind() {
    let mut rig = in_doubt(Mode::Async, 8, |index| if index == 3 { Script::Lose } else { Script::Store });
    let lost = rig.offered - 4;
    rig.pass(Duration::from_secs(3));
    rig.deliver();
    rig.settle();
    rig.check();
    assert_eq!(rig.fates()[&lost], Fate::Dropped(Reason::Rejected));
    assert_eq!((rig.acked() as u64, rig.connects), (rig.offered - 1, 1));
}

#[test]
fn what_others_have_written_meanwhile_is_read_over_page_by_page() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 4 { Script::StoreSilently } else { Script::Lose });
    rig.disconnect();
    for _ in 0..3 * READ_PAGE {
        rig.server.messages.push(Some(("another".into(), "theirs".into())));
    }
    rig.recover();
    assert_eq!(rig.reads, 4);
    rig.settle();
    rig.check();
    assert_eq!(rig.acked() as u64, rig.offered);
}

#[test]
fn reading_ends_when_everything_is_found() {
    let mut rig = in_doubt(Mode::Async, 8, |_| Script::StoreSilently);
    rig.disconnect();
    for _ in 0..3 * READ_PAGE {
        rig.server.messages.push(Some(("another".into(), "theirs".into())));
    }
    rig.recover();
    assert_eq!((rig.reads, rig.acked() as u64), (1, rig.offered));
}

#[test]
fn where_messages_were_removed_a_batch_is_known_up_to_the_last_that_is_found() {
    let mut rig =
        in_doubt(Mode::Auto, 10, |index| if index < 6 { Script::StoreSilently } else { Script::Lose });
    let len = rig.server.messages.len();
    // Of the ten, six are stored: a consumer has taken the first three, and the sixth.
    for index in [len - 6, len - 5, len - 4, len - 1] {
        rig.server.messages[index] = None;
    }
    rig.server.restart();
    rig.disconnect();
    let acked = rig.acked() as u64;
    rig.settle();
    assert_eq!(rig.acked() as u64, acked + 5, "what stands before a stored message is stored");
    assert_eq!(rig.indeterminate(), 5, "of the others nobody can tell");
    rig.check_order();
}

#[test]
fn where_messages_were_removed_ids_decide_for_as_long_as_the_server_knows_them() {
    for (outage, indeterminate) in [(Duration::from_secs(1), 0), (LONG, 4)] {
        let mut rig =
            in_doubt(Mode::Async, 8, |index| if index < 6 { Script::StoreSilently } else { Script::Lose });
        let len = rig.server.messages.len();
        rig.server.messages[len - 1] = None;
        rig.server.messages[len - 2] = None;
        rig.disconnect();
        rig.pass(outage);
        rig.settle();
        assert_eq!(rig.indeterminate(), indeterminate);
        assert_eq!(rig.acked() + indeterminate, rig.offered as usize);
        rig.check_order();
    }
}

#[test]
fn a_stream_that_may_not_be_read_is_asked_once_and_then_ids_must_do() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 4 { Script::StoreSilently } else { Script::Lose });
    rig.server.hides_messages = true;
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!((rig.reads, rig.acked() as u64), (1, rig.offered));
}

#[test]
fn a_read_without_an_answer_is_repeated_for_as_long_as_it_takes() {
    for mode in [Mode::Async, Mode::Auto] {
        let mut rig = in_doubt(mode, 8, |index| if index < 4 { Script::StoreSilently } else { Script::Lose });
        rig.server.restart();
        rig.server.reads_lost = 100;
        rig.disconnect();
        rig.pass(LONG);
        rig.settle();
        rig.check();
        assert_eq!((rig.reads, rig.acked() as u64, rig.indeterminate()), (101, rig.offered, 0), "{mode:?}");
    }
}

#[test]
fn a_forgotten_batch_in_a_stream_that_may_not_be_read_is_indeterminate_and_the_others_go_on() {
    let mut rig = in_doubt(Mode::Auto, 10, |_| Script::StoreSilently);
    rig.server.hides_messages = true;
    rig.server.restart();
    rig.disconnect();
    rig.offer(5);
    rig.settle();
    rig.check();
    // The first of the batch bears an id, by which the server recognises it.
    assert_eq!((rig.reads, rig.indeterminate()), (1, 9));
    assert_eq!(rig.acked() as u64, rig.offered - 9);
}

#[test]
fn a_disconnect_while_reading_begins_anew() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 4 { Script::StoreSilently } else { Script::Lose });
    rig.disconnect();
    rig.pass_deadline();
    while let Some(action) = rig.link() {
        if matches!(action, LinkAction::Read { .. }) {
            break;
        }
        rig.obey_one(action);
    }
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!((rig.reads, rig.acked() as u64), (1, rig.offered));
}

#[test]
fn what_only_a_stream_that_is_no_more_could_tell_is_indeterminate_where_a_later_event_was_stored() {
    for was_missing in [false, true] {
        let mut rig =
            in_doubt(Mode::Async, 8, |index| if index == 3 { Script::StoreSilently } else { Script::Store });
        let unheard = rig.offered - 4;
        rig.deliver();
        rig.disconnect();
        make_again(&mut rig, was_missing);
        rig.settle();
        assert_eq!(rig.fates()[&unheard], Fate::Indeterminate);
        assert_eq!(rig.acked() as u64, rig.offered - 1);
        assert!(rig.server.stored().is_empty());
    }
}

#[test]
fn what_is_in_doubt_when_a_stream_is_made_again_is_looked_for_in_the_new_one_from_its_beginning() {
    for (was_missing, mode) in
        [(false, Mode::Async), (true, Mode::Async), (false, Mode::Auto), (true, Mode::Auto)]
    {
        let mut rig = in_doubt(mode, 8, |_| Script::StoreSilently);
        let others = rig.acked() as u64;
        rig.disconnect();
        let late = rig.server.messages[others as usize].clone();
        make_again(&mut rig, was_missing);
        rig.server.messages.push(late);
        rig.settle();
        let stored: Vec<u64> = rig.server.stored().into_iter().map(|(_, seq)| seq).collect();
        assert_eq!(stored, (others + 1..=rig.offered).collect::<Vec<_>>());
        assert_eq!((rig.acked() as u64, rig.reads), (rig.offered, 1));
    }
}

/// Deletes the stream and makes it again; if it `was_missing`, the pipeline sees that it is gone.
fn make_again(rig: &mut Rig, was_missing: bool) {
    rig.server.messages.clear();
    rig.server.forget_ids();
    rig.server.restart();
    rig.server.created += 1;
    if was_missing {
        rig.pass_deadline();
        rig.connect(StreamState::Missing);
    }
}

#[test]
fn after_a_power_failure_reading_begins_where_the_stream_was_cut_off() {
    let mut rig = in_doubt(Mode::Async, 8, |_| Script::Lose);
    rig.disconnect();
    let len = rig.server.messages.len();
    rig.server.messages.truncate(len - 12);
    rig.server.forget_ids();
    rig.settle();
    assert!(rig.server.messages.len() < len, "it has sequences again that it had before");
    rig.offer(4);
    assert_eq!(rig.send(|_| Script::StoreSilently).len(), 4);
    rig.disconnect();
    rig.pass(LONG);
    rig.server.forget_ids();
    rig.settle();
    rig.check_order();
    assert_eq!((rig.acked() as u64, rig.server.stored().len() as u64), (rig.offered, rig.offered - 12));
}

#[test]
fn an_acknowledgement_shows_that_the_stream_was_cut_off_if_no_look_has_shown_it() {
    for unheard in [1, 3] {
        let mut rig = in_doubt(Mode::Async, 0, |_| Script::Store);
        rig.disconnect();
        let len = rig.server.messages.len();
        rig.server.messages.truncate(len - 12);
        rig.server.forget_ids();
        rig.pass_deadline();
        rig.connect(StreamState::Unknown);
        // So many that the stream becomes longer than it was.
        rig.offer(20);
        let first = rig.offered - 19;
        while rig.server.messages.len() < len {
            rig.send(|seq| if seq == first + unheard { Script::StoreSilently } else { Script::Store });
            rig.deliver();
            rig.pass(Duration::from_millis(1));
        }
        rig.disconnect();
        rig.settle();
        assert_eq!((rig.acked() as u64, rig.reads), (rig.offered, 1));
        rig.check_order();
    }
}

#[test]
fn what_cannot_be_decided_is_not_sent_again_behind_a_stored_event_of_its_producer() {
    for is_removed in [true, false] {
        let mut rig = in_doubt(Mode::Async, 8, |index| if index == 3 { Script::Lose } else { Script::Store });
        let lost = rig.offered - 4;
        rig.deliver();
        rig.disconnect();
        // Either the stream has a hole where it could be, or it cannot be read at all.
        let len = rig.server.messages.len();
        rig.server.messages[len - 1] = None;
        rig.server.hides_messages = !is_removed;
        rig.settle();
        assert_eq!(rig.fates()[&lost], Fate::Indeterminate);
        assert_eq!(rig.acked() as u64, rig.offered - 1);
        rig.check_order();
    }
}

#[test]
fn a_stream_that_could_be_looked_at_before_is_waited_for_while_nobody_answers() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 4 { Script::Lose } else { Script::StoreSilently });
    rig.disconnect();
    for _ in 0..100 {
        rig.pass_deadline();
        match rig.link() {
            Some(LinkAction::Connect) => rig.greet(),
            Some(LinkAction::LookUpStream) => rig.pipeline.handle_stream(rig.now, StreamState::Unknown),
            action => panic!("{action:?}"),
        }
        if let Some(LinkAction::LookUpStream) = rig.link() {
            rig.pipeline.handle_stream(rig.now, StreamState::Unknown);
        }
        assert!(rig.send(|_| Script::Store).is_empty(), "it could be stored behind a later one");
    }
    rig.settle();
    rig.check();
    let rejected = rig.count(|fate| fate == Fate::Dropped(Reason::Rejected));
    assert_eq!((rig.acked() as u64, rejected), (rig.offered - 4, 4));
}

#[test]
fn what_the_leader_is_still_bringing_to_a_quorum_is_waited_for_before_the_stream_is_read() {
    let mut rig = in_doubt(Mode::Async, 8, |index| if index == 3 { FULL } else { Script::StoreSilently });
    let refused = rig.offered - 4;
    rig.disconnect();
    // The first look sees nothing of what was sent; it is there a moment later.
    let len = rig.server.messages.len();
    let on_their_way = rig.server.messages.split_off(len - 7);
    rig.pass_deadline();
    rig.obey();
    assert!(rig.send(|_| Script::Store).is_empty());
    rig.server.messages.extend(on_their_way);
    rig.settle();
    rig.check();
    assert_eq!(rig.fates()[&refused], Fate::Dropped(Reason::Rejected));
    assert_eq!((rig.acked() as u64, rig.reads), (rig.offered - 1, 1));
}
