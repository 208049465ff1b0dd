//! What happens to many messages costs as much for each as it does for one. [`Pipeline::check`](crate::publisher::pipeline::Pipeline::check),
//! at each step of every test here and of the simulator, holds that nothing need be looked for in the window.

use super::rig::{Rig, Script, WINDOW};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::pipeline::{Fate, Notice, StreamState};

#[test]
fn a_thousand_events_that_a_stream_with_thousands_of_subjects_does_not_take_are_told_of_in_one_short_line() {
    for mode in [Mode::Async, Mode::Auto] {
        let mut rig = Rig::new(mode);
        let StreamState::Found(mut info) = rig.server.info() else { unreachable!("it is there") };
        info.subjects = (0..2000).map(|number| format!("event.1.number-{number}.>")).collect();
        rig.connect(StreamState::Found(info));
        for _ in 0..1000 / WINDOW {
            for name in 0..WINDOW {
                rig.offer_to(&format!("event.1.elsewhere-{name}"));
            }
            assert!(rig.send(|_| Script::Store).is_empty());
        }
        let events = rig.offered;
        let notices: Vec<_> = rig.pipeline.drain_notices().collect();
        let told = notices.iter().filter_map(|notice| match notice {
            Notice::Refused { reason: Reason::NoStream, events, text } => Some((*events, text.len())),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert!(matches!(told[..], [(told, length)] if told == events && length < 1000), "{told:?}");
        rig.collect();
        assert_eq!(rig.count(|fate| fate == Fate::Dropped(Reason::NoStream)) as u64, events);
    }
}

#[test]
fn a_denial_that_is_over_leaves_nothing_behind() {
    let mut rig = Rig::connected(Mode::Async);
    rig.warm_up();
    rig.offer_to("event.1.denied");
    rig.send(|_| Script::Deny);
    rig.deliver();
    let route = rig.route(&"event.1.denied".into());
    assert!(route.denial.get().is_some());
    rig.pass(std::time::Duration::from_secs(1));
    rig.offer_to("event.1.denied");
    rig.send(|_| Script::Store);
    rig.deliver();
    assert!(route.denial.get().is_none() && route.sent.borrow().is_empty());
}
