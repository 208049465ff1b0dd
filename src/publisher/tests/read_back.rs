//! Reading the stream back.

use super::rig::{FULL, Rig, Script};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::pipeline::{Fate, LinkAction, READ_PAGE};
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
    rig.pass_deadline();
    rig.obey();
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
    rig.pass_deadline();
    rig.obey();
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
fn a_stream_that_cannot_be_read_is_asked_three_times_and_then_ids_must_do() {
    let mut rig =
        in_doubt(Mode::Async, 8, |index| if index < 4 { Script::StoreSilently } else { Script::Lose });
    rig.server.hides_messages = true;
    rig.disconnect();
    rig.settle();
    rig.check();
    assert_eq!((rig.reads, rig.acked() as u64), (3, rig.offered));
}

#[test]
fn a_forgotten_batch_in_a_stream_that_cannot_be_read_is_indeterminate_and_the_others_go_on() {
    let mut rig = in_doubt(Mode::Auto, 10, |_| Script::StoreSilently);
    rig.server.hides_messages = true;
    rig.server.restart();
    rig.disconnect();
    rig.offer(5);
    rig.settle();
    rig.check();
    // The first of the batch bears an id, by which the server recognises it.
    assert_eq!((rig.reads, rig.indeterminate()), (3, 9));
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
