//! What a spool holds in memory depends on what is open, and not on what once was; and what it counts as spooled is what the policy says.

use super::*;

#[test]
fn however_much_was_deleted_to_make_room_takes_no_memory() {
    let mut rig = Rig::new();
    rig.push(1);
    let Rig { overflow, pipeline, now, .. } = &mut rig;
    overflow.activate(*now, pipeline);
    let posts = rig.posts();
    let mut end = rig.write(posts, 1);
    for _ in 0..1000 {
        rig.add(50);
        let posts = rig.posts();
        end = rig.write(posts, end);
        let mut losses = Losses::default();
        losses.events = 50;
        rig.hear(Told::Evicted { to: end, losses });
    }
    // Somebody has deleted far more than was ever there.
    rig.hear(Told::Evicted { to: 1 << 50, losses: Losses::default() });
    let items: usize = rig.overflow.pages.iter().map(Page::items).sum();
    assert_eq!((rig.overflow.pages.len(), items), (1, 1));
    assert!(rig.overflow.next().is_none());
    assert_eq!((rig.overflow.pages.len(), rig.overflow.handed.remembered()), (0, 1));
    assert_eq!(rig.counts(), (0, 0, 1));
    rig.send();
    assert_eq!((rig.counts(), rig.overflow.handed.remembered()), ((0, 0, 1 << 50), 0));
}

#[test]
fn what_is_known_of_another_process_is_forgotten_when_its_records_are_handed_out() {
    let mut rig = Rig::closed();
    rig.open(Sent { confirmed: 1, mark: 4, floor: 7, stream: 8, ..Sent::default() }, 6);
    let stored = [(1, 0), (3, 0)].into();
    rig.overflow.learn(Findings { stored, ..Findings::default() });
    rig.hear(Told::Page(page(PAST, 1..3, Some(1))));
    rig.hand_out();
    assert!(!rig.overflow.findings.as_ref().unwrap().is_empty());
    rig.hear(Told::Page(page(PAST, 3..6, Some(3))));
    rig.hand_out();
    assert!(rig.overflow.findings.as_ref().unwrap().is_empty());
}

#[test]
fn what_is_not_on_the_disk_counts_as_in_flight_if_the_policy_wants_it_there() {
    let mut rig = Rig::new();
    let Rig { overflow, pipeline, now, .. } = &mut rig;
    overflow.activate(*now, pipeline);
    rig.add(5);
    let posts = rig.posts();
    let end = rig.write(posts, 1);
    assert_eq!(rig.counts(), (0, 5, 1));
    rig.hear(Told::Unsynced);
    rig.add(3);
    let posts = rig.posts();
    rig.write(posts, end);
    assert_eq!(rig.counts(), (3, 5, 1));
    rig.hear(Told::Page(page(OURS, 1..8, Some(1))));
    rig.hand_out();
    assert_eq!(rig.counts(), (1, 0, 1), "seven of eight are in the window");
    rig.hear(Told::Synced);
    assert_eq!(rig.counts(), (0, 1, 1));
}

#[test]
fn a_disk_that_refuses_to_sync_is_told_and_so_is_that_it_has_synced_in_the_end() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    kept.hear();
    // The segment has room for one more of them.
    kept.append(0..1);
    assert!(matches!(kept.hear(), Told::Written { .. }));
    memory.refuse_syncs(true);
    kept.append(1..2);
    assert!(matches!(kept.hear(), Told::Unsynced));
    assert!(matches!(kept.hear(), Told::Written { sequences, .. } if sequences == (2..3)));
    kept.append(2..5);
    memory.refuse_syncs(false);
    let told: Vec<_> = (0..2).map(|_| kept.hear()).collect();
    let is_written = |told: &Told| matches!(told, Told::Written { sequences, .. } if *sequences == (3..6));
    assert!(told.iter().any(is_written), "{told:?}");
    assert!(told.iter().any(|told| matches!(told, Told::Synced)), "{told:?}");
}
