//! The spool of a worker without its thread, and its keeper on a disk in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;

use super::backlog::Backlog;
use super::*;
use crate::clock::Clock;
use crate::config::{Mode, Spool, SpoolFull, SpoolSync};
use crate::publisher::outgoing::Address;
use crate::publisher::packer::{Event, Packed};
use crate::publisher::pipeline::{Fate, Limits, ServerInfo, StreamState};
use crate::publisher::reply::Reply;
use crate::publisher::server::ServerVersion;
use crate::publisher::stamp::Stamper;
use crate::publisher::window::{Origin, Past};
use crate::report::Gap;
use crate::shed::{Catalogue, Shed};
use crate::spool::batch::{Batch, Message as Record, RECORDS_MAX};
use crate::spool::log::Options;
use crate::spool::sent::Sent;
use crate::spool::sent::UNSEEN;
use crate::spool::storage::memory::{Fault, Memory};
use crate::subject::{Prefix, Subjects};
use bytes::Bytes;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

const LOG: LogId = LogId::NONE;

/// A worker's spool, whose keeper is the test.
struct Rig {
    overflow: Overflow,
    orders: std_mpsc::Receiver<Order>,
    pipeline: Pipeline,
    renderer: Renderer,
    accounts: Accounts,
    now: Instant,
    seq: u64,
}

fn unconnected(now: Instant) -> Pipeline {
    let limits = Limits {
        window_events: 100,
        window_bytes: 1 << 20,
        message_bytes_max: 1 << 10,
        ack_timeout: Duration::from_secs(5),
        mode: Mode::Async,
    };
    Pipeline::new(now, limits, names(), 0)
}

fn names() -> ProducerNames {
    ProducerNames::new(0xff, 2)
}

impl Rig {
    /// With an open log that holds nothing.
    fn new() -> Self {
        let mut rig = Self::closed();
        rig.open(Sent { confirmed: 1, mark: 1, ..Sent::default() }, 1);
        rig
    }

    fn closed() -> Self {
        let (orders, received) = std_mpsc::channel();
        let (_, told) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut pipeline = unconnected(now);
        pipeline.poll_link(now);
        pipeline.handle_connected(now, ServerInfo { max_payload: 1 << 20, version: ServerVersion::NONE });
        pipeline.handle_stream(now, StreamState::Unknown);
        let subjects = Subjects::new(&Prefix::default(), 1);
        Self {
            overflow: Overflow::new(orders, told, Identity::new(names())),
            orders: received,
            pipeline,
            renderer: Renderer::new(
                std::sync::Arc::new(Clock::detect()),
                subjects,
                true,
                1 << 10,
                Stamper::new(names(), 2),
            ),
            accounts: Accounts::default(),
            now,
            seq: 0,
        }
    }

    fn hear(&mut self, told: Told) -> Option<Listing> {
        let Self { overflow, pipeline, renderer, accounts, .. } = self;
        overflow.handle(Happening(told), pipeline, renderer, accounts)
    }

    fn open(&mut self, sent: Sent, end: u64) {
        self.hear(Told::Opened { opening: 1, log: LOG, sent, end });
    }

    fn message(&mut self) -> Message {
        self.seq += 1;
        let route = self.renderer.route_of(b"event.1.a").unwrap();
        Message {
            origin: Origin::Ring(0),
            seq: self.seq,
            route,
            offered: 0,
            packed: None,
            sequence: None,
            trace: None,
        }
    }

    /// Puts events into the window.
    fn push(&mut self, events: u64) {
        for _ in 0..events {
            let message = self.message();
            let text = message.seq.to_string();
            let Ok(()) = self.pipeline.push::<Infallible>(|out| {
                out.extend_from_slice(text.as_bytes());
                Ok(message)
            });
        }
    }

    /// Puts one frame with so many events into the window.
    fn push_frame(&mut self, events: u64) {
        let messages: Vec<_> = (0..events).map(|_| self.message()).collect();
        let lines: String = messages.iter().map(|message| format!("{}\n", message.seq)).collect();
        let packed = Packed {
            payload: Bytes::from(lines),
            encoding: None,
            events: messages.iter().map(Event::of).collect(),
        };
        let Some(first) = messages.into_iter().next() else { return };
        self.pipeline.push_packed(Message { packed: Some(Rc::new(packed)), ..first });
    }

    /// Puts events into the spool.
    fn add(&mut self, events: u64) {
        for _ in 0..events {
            let message = self.message();
            let text = message.seq.to_string();
            let added = self.overflow.add(&message, |out| {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            });
            assert_eq!(added, Ok(()));
        }
        self.overflow.hand_over();
    }

    /// The posts that were sent.
    fn posts(&self) -> Vec<Post> {
        let posts = self.orders.try_iter().filter_map(|order| match order {
            Order::Append(post) => Some(post),
            _ => None,
        });
        posts.collect()
    }

    /// Writes the posts to the log, from a sequence on.
    fn write(&mut self, posts: Vec<Post>, mut first: u64) -> u64 {
        for mut post in posts {
            let sequences = first..first + post.batch.len() as u64;
            first = sequences.end;
            post.batch.clear();
            self.hear(Told::Written { post, sequences });
        }
        first
    }

    /// Sends all that waits; each is stored.
    fn send(&mut self) {
        let mut sequence = 0;
        while let Some(sending) = self.pipeline.poll_send(self.now) {
            let Address::Single(token) = sending.address else { panic!("it is the async engine") };
            sequence += 1;
            self.pipeline.handle_reply(self.now, token, Reply::Stored { sequence, duplicate: false });
        }
        self.settle();
    }

    fn settle(&mut self) {
        for outcome in self.pipeline.drain_outcomes() {
            assert!(matches!(outcome.fate, Fate::Acked { .. }));
            self.overflow.settle(&outcome);
        }
    }

    /// Hands out all that there is; returns the numbers.
    fn hand_out(&mut self) -> Vec<u64> {
        let mut seqs = Vec::new();
        while let Some(handout) = self.overflow.next() {
            let event = handout.event(0, handout.record.payload);
            seqs.push(event.seq);
            let route = self.renderer.route_of(handout.record.subject).unwrap();
            let Event { origin, seq, offered, sequence } = event;
            let message = Message { origin, seq, route, offered, packed: None, sequence, trace: None };
            let Ok(()) = self.pipeline.push::<Infallible>(|_| Ok(message));
            self.overflow.pop(1);
        }
        seqs
    }

    fn gaps(&mut self) -> Vec<Gap> {
        let own = self.renderer.stamper.take_gap(0, &Shed::new(), &Catalogue::new());
        own.into_iter().chain(self.renderer.stamper.take_past_gaps()).collect()
    }

    fn counts(&self) -> (u64, u64, u64) {
        (self.overflow.unwritten(), self.overflow.spooled(), self.overflow.handed.confirmed())
    }
}

/// Records of one producer, with these numbers, that stand in the log from `first` on.
fn page(producer: &str, seqs: std::ops::Range<u64>, first: Option<u64>) -> Page {
    let mut page = Page::default();
    for (offset, seq) in (0..).zip(seqs) {
        let headers = format!("Nats-Msg-Id: {producer}-{seq}\r\n");
        let sequence = first.and_then(|first| NonZeroU64::new(first + offset));
        let payload = seq.to_string();
        page.push(
            sequence,
            Record { subject: b"event.1.a", headers: headers.as_bytes(), payload: payload.as_bytes() },
        );
    }
    page
}

const OURS: &str = "00000000000000ff.0";
const PAST: &str = "00000000000000fe.3";

#[test]
fn what_the_window_holds_goes_to_the_log_before_what_comes_after_it_and_is_not_handed_out_again() {
    let mut rig = Rig::new();
    rig.push(3);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    rig.add(2);
    assert_eq!((rig.overflow.unwritten(), rig.overflow.is_settled()), (2, false));
    let posts = rig.posts();
    let payloads: Vec<_> =
        posts.iter().flat_map(|post| post.batch.messages()).map(|record| record.payload.to_vec()).collect();
    assert_eq!(payloads, [b"1", b"2", b"3", b"4", b"5"]);
    assert_eq!(rig.write(posts, 1), 6);
    assert_eq!(rig.counts(), (0, 2, 1));
    rig.hear(Told::Page(page(OURS, 4..6, Some(4))));
    assert_eq!(rig.hand_out(), [4, 5]);
    assert_eq!(rig.counts(), (0, 0, 1));
    rig.send();
    assert_eq!(rig.counts(), (0, 0, 6), "the shadows have met their fate too");
    assert!(rig.overflow.is_active());
    rig.overflow.rest_if_empty();
    assert!(!rig.overflow.is_active());
}

#[test]
fn nothing_is_sent_before_it_is_noted_to_which_stream_but_a_disk_is_not_waited_for_long() {
    let mut rig = Rig::new();
    let may_send = |rig: &mut Rig, later| rig.overflow.may_send(rig.now + later, &rig.pipeline);
    assert!(may_send(&mut rig, Duration::ZERO), "there is nothing of which it would matter");
    rig.push(1);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    assert!(!may_send(&mut rig, Duration::ZERO));
    assert_eq!(rig.overflow.next_deadline(), Some(rig.now + NOTE_PATIENCE));
    assert!(may_send(&mut rig, NOTE_PATIENCE));
    rig.hear(Told::Noted);
    assert!(may_send(&mut rig, Duration::ZERO));
    let notes =
        rig.orders.try_iter().filter(|order| matches!(order, Order::Note(Progress { stream: UNSEEN, .. })));
    assert_eq!(notes.count(), 1);
}

#[test]
fn who_has_seen_no_stream_leaves_what_is_known_of_it_to_the_next() {
    let mut rig = Rig::closed();
    rig.pipeline = unconnected(rig.now);
    rig.open(Sent { confirmed: 5, mark: 9, stream: 77, floor: 4711, ..Sent::default() }, 9);
    rig.push(1);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    rig.overflow.close(rig.now, &rig.pipeline);
    let notes = rig.orders.try_iter().filter_map(|order| match order {
        Order::Note(Progress { stream, floor, .. }) => Some((stream, floor)),
        _ => None,
    });
    assert_eq!(notes.collect::<Vec<_>>(), [(77, 4711); 2]);
}

#[test]
fn what_meets_its_fate_before_its_shadow_is_written_is_confirmed_all_the_same() {
    let mut rig = Rig::new();
    rig.push(2);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    let posts = rig.posts();
    rig.send();
    rig.write(posts, 1);
    assert_eq!(rig.counts(), (0, 0, 3));
}

#[test]
fn a_shadow_that_is_on_its_way_is_not_written_again() {
    let mut rig = Rig::new();
    rig.push(2);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    let first = rig.posts();
    rig.push(1);
    rig.overflow.lay_down(rig.now, &mut rig.pipeline);
    let second = rig.posts();
    let shadows = |posts: &[Post]| posts.iter().map(|post| post.shadows.len()).sum::<usize>();
    assert_eq!((shadows(&first), shadows(&second), rig.overflow.is_settled()), (2, 1, false));
    let next = rig.write(first, 1);
    assert!(!rig.overflow.is_settled());
    rig.write(second, next);
    assert!(rig.overflow.is_settled());
}

#[test]
fn a_frame_of_more_events_than_a_batch_has_room_for_goes_to_the_log_in_several_posts() {
    const EVENTS: u64 = 10_000;
    for refused in [None, Some(0), Some(1)] {
        let mut rig = Rig::new();
        rig.push(1);
        rig.push_frame(EVENTS);
        rig.overflow.activate(rig.now, &mut rig.pipeline);
        let mut posts = rig.posts();
        let records: Vec<_> = posts.iter().map(|post| post.batch.len()).collect();
        assert_eq!(records, [RECORDS_MAX, RECORDS_MAX, 1 + EVENTS as usize - 2 * RECORDS_MAX]);
        let lost = refused.map(|at| posts.remove(at));
        let lost_records = lost.as_ref().map_or(0, |post| post.batch.len() as u64);
        if let Some(post) = lost {
            rig.hear(Told::Refused(post));
        }
        assert!(!rig.overflow.is_settled());
        let end = rig.write(posts, 1);
        assert_eq!((end, rig.overflow.is_settled()), (EVENTS + 2 - lost_records, true));
        // Of the rest nothing is in the log twice.
        rig.overflow.lay_down(rig.now, &mut rig.pipeline);
        let posts = rig.posts();
        assert_eq!(posts.iter().map(|post| post.batch.len() as u64).sum::<u64>(), lost_records);
        let end = rig.write(posts, end);
        assert_eq!((end, rig.overflow.is_settled()), (EVENTS + 2, true));
        rig.send();
        assert_eq!(rig.counts(), (0, 0, EVENTS + 2), "each event has its place");
    }
}

#[test]
fn what_finds_no_room_is_dropped_and_declared() {
    let mut rig = Rig::new();
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    rig.add(3);
    for post in rig.posts() {
        rig.hear(Told::Refused(post));
    }
    assert_eq!((rig.counts(), rig.accounts.dropped.get(Reason::SpoolFull)), ((0, 0, 1), 3));
    let gaps = rig.gaps();
    assert_eq!(
        (gaps.len(), &*gaps[0].producer, gaps[0].first, gaps[0].last, gaps[0].lost),
        (1, OURS, 1, 3, 3)
    );
    assert_eq!((&*gaps[0].counts[0].name, &*gaps[0].counts[0].reason), ("a", "spool_full"));
}

#[test]
fn what_another_process_has_left_counts_as_offered_and_its_losses_are_declared_by_its_name() {
    let mut rig = Rig::closed();
    rig.open(Sent { confirmed: 5, mark: 5, ..Sent::default() }, 15);
    assert_eq!((rig.accounts.recovered, rig.counts()), (10, (0, 10, 5)));
    assert!(!rig.overflow.is_active() && !rig.overflow.holds_own());
    let mut losses = Losses::default();
    for seq in 1..=4 {
        let headers = format!("Nats-Msg-Id: {PAST}-{seq}\r\n");
        losses.add(&Identity::new(names()), b"event.1.a", headers.as_bytes());
    }
    rig.hear(Told::Evicted { to: 9, losses });
    let gaps = rig.gaps();
    assert_eq!(
        (gaps.len(), &*gaps[0].producer, gaps[0].first, gaps[0].last, gaps[0].lost),
        (1, PAST, 1, 4, 4)
    );
    let mut page = page(PAST, 5..9, Some(9));
    page.missing = 2;
    page.pass_to(15);
    rig.hear(Told::Page(page));
    assert_eq!(rig.hand_out(), [5, 6, 7, 8]);
    rig.send();
    assert_eq!((rig.counts(), rig.accounts.dropped.get(Reason::SpoolFull)), ((0, 0, 15), 6));
}

#[test]
fn what_may_have_been_sent_is_not_read_before_it_is_known() {
    let mut rig = Rig::closed();
    rig.open(Sent { confirmed: 1, mark: 3, stream: 9, ..Sent::default() }, 5);
    rig.overflow.ask(true);
    assert!(matches!(rig.orders.try_iter().collect::<Vec<_>>()[..], [Order::List]));
    let doubt = |sequence, seq| {
        let origin = Origin::Past(Past::parse(PAST).unwrap());
        inquiry::Doubt::new(sequence, 0, (origin, seq), [b"event.1.a"; 2], b"")
    };
    let doubts = vec![doubt(1, 1), doubt(2, 2)];
    let listing = rig.hear(Told::Listed(Listing { doubts, is_whole: true, ..Listing::default() }));
    assert!(listing.is_some());
    let stored = [(1, 0)].into_iter().collect();
    let until = rig.now + Duration::from_secs(1);
    rig.overflow.learn(Findings { stored, rest: inquiry::Unfound::Known { until }, ..Findings::default() });
    rig.overflow.ask(true);
    assert_eq!(rig.orders.try_iter().count(), PAGES_AHEAD);
    rig.hear(Told::Page(page(PAST, 1..4, Some(1))));
    let first = rig.overflow.next().unwrap();
    assert_eq!(first.known(rig.now, 0), Known::Stored);
    rig.overflow.pop(0);
    let second = rig.overflow.next().unwrap();
    assert_eq!(second.known(rig.now, 0), Known::Doubtful { until: Some(until) });
    assert_eq!(second.known(until, 0), Known::Undecided, "the server may have forgotten its id");
    rig.overflow.pop(1);
    let third = rig.overflow.next().unwrap();
    assert_eq!(third.known(until, 0), Known::Open, "nobody has handed it out");
}

#[test]
fn when_the_log_is_gone_what_is_in_memory_goes_on_and_the_rest_is_counted() {
    let mut rig = Rig::new();
    rig.push(2);
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    rig.add(6);
    let posts = rig.posts();
    rig.write(posts, 1);
    rig.hear(Told::Page(page(OURS, 3..5, Some(3))));
    rig.hear(Told::Gone);
    assert_eq!((rig.counts(), rig.accounts.dropped.get(Reason::SpoolFull)), ((2, 0, 0), 4));
    rig.open(Sent { confirmed: 1, mark: 1, ..Sent::default() }, 1);
    assert_eq!(rig.hand_out(), [3, 4]);
    rig.send();
    assert_eq!((rig.counts(), rig.pipeline.open_events()), ((0, 0, 1), 0));
}

#[test]
fn what_the_disk_refuses_is_asked_for_when_nothing_is_before_it_and_is_dropped_at_the_end() {
    let mut rig = Rig::new();
    rig.overflow.activate(rig.now, &mut rig.pipeline);
    rig.add(2);
    let returns = |rig: &Rig| rig.orders.try_iter().filter(|order| matches!(order, Order::Return)).count();
    rig.overflow.ask(false);
    assert_eq!(returns(&rig), 0, "it is safer where it is while the server takes nothing");
    rig.overflow.ask(true);
    rig.overflow.ask(true);
    assert_eq!(returns(&rig), 1);
    rig.hear(Told::Returned(page(OURS, 1..3, None)));
    assert_eq!(rig.overflow.unwritten(), 2);
    let Rig { overflow, renderer, accounts, .. } = &mut rig;
    overflow.drop_returned(Reason::Expired, renderer, accounts);
    assert_eq!((rig.counts(), rig.accounts.dropped.get(Reason::Expired)), ((0, 0, 1), 2));
    assert_eq!(rig.gaps()[0].lost, 2);
}

// ---- the keeper, on a disk in memory -----------------------------------------------------------------------------------------

/// A keeper with its thread.
struct Kept {
    orders: std_mpsc::Sender<Order>,
    told: mpsc::UnboundedReceiver<Told>,
}

impl Kept {
    fn start(memory: &Memory, when_full: SpoolFull, max_bytes: u64) -> Self {
        let spool = Spool { sync: SpoolSync::EveryBatch, when_full, ..Spool::default() };
        let mut place = Place::new("memory".into(), &spool, Arc::default());
        // As the keeper would open it, which makes room itself.
        place.options = Options::tiny(max_bytes, SpoolFull::DropNewest);
        let tended = place.open_in(Arc::new(memory.clone())).unwrap();
        place.options.when_full = when_full;
        let (orders, received) = std_mpsc::channel();
        let (tell, told) = mpsc::unbounded_channel();
        let mut keeper = Keeper::new(place, Identity::new(names()), received, tell);
        keeper.take(tended);
        std::thread::spawn(move || keeper.run());
        Self { orders, told }
    }

    fn append(&self, seqs: std::ops::Range<u64>) {
        let mut post = Post::default();
        for seq in seqs {
            let headers = format!("Nats-Msg-Id: {PAST}-{seq}\r\n");
            post.batch.room().unwrap().push(b"event.1.a", headers.as_bytes(), &[b'x'; 60]).unwrap();
        }
        self.orders.send(Order::Append(post)).unwrap();
    }

    fn hear(&mut self) -> Told {
        self.told.blocking_recv().unwrap()
    }

    /// What is said next of records.
    fn hear_of_records(&mut self) -> Told {
        loop {
            let told = self.hear();
            if !matches!(told, Told::Noted) {
                return told;
            }
        }
    }

    /// Lets it end. Returns the rest of what it says.
    fn end(self) -> Vec<Told> {
        let Self { orders, mut told } = self;
        drop(orders);
        std::iter::from_fn(|| told.blocking_recv()).collect()
    }
}

#[test]
fn records_are_read_back_once_while_others_are_written_and_a_next_keeper_goes_on_behind_them() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    assert!(matches!(kept.hear(), Told::Opened { opening: 1, end: 1, .. }));
    kept.orders.send(Order::Read { opening: 1 }).unwrap();
    let mut read = 0;
    for round in 0..20 {
        kept.append(round * 5..round * 5 + 5);
        assert!(
            matches!(kept.hear_of_records(), Told::Written { sequences, .. } if sequences == (round * 5 + 1..round * 5 + 6))
        );
        let Told::Page(page) = kept.hear_of_records() else { panic!("a page was asked for") };
        assert_eq!((page.records_in_log(), page.missing), (5, 0));
        read += 5;
        kept.orders.send(Order::Read { opening: 1 }).unwrap();
        kept.orders
            .send(Order::Note(Progress { confirmed: read - 2, floor: 7, stream: 8, ..Progress::default() }))
            .unwrap();
    }
    assert!(matches!(kept.end()[..], [Told::Noted, Told::Ended]));
    let mut next = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    let Told::Opened { sent, end, .. } = next.hear() else { panic!("it opens") };
    assert_eq!((sent, end), (Sent { confirmed: 98, mark: 101, floor: 7, stream: 8, ..Sent::default() }, 101));
    next.orders.send(Order::List).unwrap();
    let Told::Listed(listing) = next.hear() else { panic!("it was asked") };
    assert_eq!((listing.doubts.len(), listing.floor, listing.stream), (3, 7, 8));
}

#[test]
fn shadows_are_passed_over_and_count_as_perhaps_sent_in_the_next_life() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    kept.hear();
    kept.append(0..5);
    kept.hear();
    let mut post = Post::default();
    for number in 0..3 {
        post.batch.room().unwrap().push(b"event.1.a", b"", b"in the window").unwrap();
        post.shadows.push(Shadow { number, index: 0 });
    }
    kept.orders.send(Order::Append(post)).unwrap();
    assert!(matches!(kept.hear(), Told::Written { sequences, .. } if sequences == (6..9)));
    kept.append(5..9);
    kept.hear();
    let before = memory.snapshot();
    kept.orders.send(Order::Read { opening: 1 }).unwrap();
    let Told::Page(page) = kept.hear() else { panic!("a page was asked for") };
    assert_eq!((page.records_in_log(), page.missing), (9, 0));
    // The process was killed before that.
    let mut next = Kept::start(&Memory::of(&before), SpoolFull::DropNewest, 1 << 20);
    let Told::Opened { sent, end, .. } = next.hear() else { panic!("it opens") };
    assert_eq!((sent.doubtful(), end), ([1..1, 6..9], 13));
    next.orders.send(Order::List).unwrap();
    let Told::Listed(listing) = next.hear() else { panic!("it was asked") };
    assert_eq!(listing.doubts.len(), 3);
}

#[test]
fn shadows_that_were_passed_over_are_still_in_doubt_when_others_follow_them() {
    let place = Place::new("memory".into(), &Spool::default(), Arc::default());
    let mut backlog = Backlog::new(place.open_in(Arc::new(Memory::new())).unwrap());
    for first in [1, 4, 7] {
        let mut batch = Batch::default();
        (0..3).for_each(|_| batch.room().unwrap().push(b"event.1.a", b"", b"in the window").unwrap());
        backlog.announce_shadow(3);
        let sequences = backlog.tended.log.append(&mut batch, false).unwrap();
        backlog.add_shadow(sequences);
        backlog.tell_all();
        assert!(!backlog.passes_to_unread());
        assert_eq!(backlog.tended.log.sent().doubtful(), [1..1, 1..first + 3]);
    }
}

#[test]
fn a_doubt_that_nobody_has_resolved_outlives_a_close() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    kept.hear();
    kept.append(0..8);
    kept.hear();
    kept.orders.send(Order::Read { opening: 1 }).unwrap();
    kept.hear();
    kept.end();
    for _ in 0..2 {
        let mut next = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
        let Told::Opened { sent, .. } = next.hear() else { panic!("it opens") };
        assert_eq!(sent.doubtful(), [1..9, 9..9]);
        next.end();
    }
}

#[test]
fn what_is_deleted_to_make_room_is_told_with_its_producer() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropOldest, 12_000);
    kept.hear();
    let (mut written, mut evicted) = (0, 0);
    for round in 0..40 {
        kept.append(round * 5..round * 5 + 5);
        loop {
            match kept.hear() {
                Told::Evicted { losses, .. } => {
                    evicted += losses.events;
                    assert_eq!(losses.iter().map(|(_, _, lost)| lost.events).sum::<u64>(), losses.events);
                }
                Told::Written { .. } => break,
                told => panic!("{told:?}"),
            }
        }
        written += 5;
    }
    assert!(evicted > 50 && evicted < written, "{evicted}");
    kept.orders.send(Order::Read { opening: 1 }).unwrap();
    let Told::Page(page) = kept.hear() else { panic!("a page was asked for") };
    assert_eq!((page.records_in_log() as u64, page.missing), (written - evicted, 0));
}

#[test]
fn what_the_disk_refuses_comes_back_in_order_or_is_written_when_the_disk_is_well() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    kept.hear();
    memory.break_down(Fault::Io);
    kept.append(0..3);
    kept.append(3..5);
    kept.append(5..6);
    kept.orders.send(Order::Return).unwrap();
    let Told::Returned(mut page) = kept.hear() else { panic!("it was asked for") };
    let mut records = 0;
    page.drain_unwritten(|_| records += 1);
    assert_eq!(records, 3);
    memory.mend();
    for expected in [1..3, 3..4] {
        assert!(matches!(kept.hear(), Told::Written { sequences, .. } if sequences == expected));
    }
}

#[test]
fn a_part_that_cannot_be_read_is_counted_after_some_tries_and_what_is_behind_it_is_read() {
    let memory = Memory::new();
    let mut kept = Kept::start(&memory, SpoolFull::DropNewest, 1 << 20);
    kept.hear();
    for round in 0..4 {
        kept.append(round * 5..round * 5 + 5);
        kept.hear();
    }
    kept.end();
    let mut files = memory.snapshot();
    let first = files.keys().find(|name| name.ends_with(".seg")).unwrap().clone();
    files.get_mut(&first).unwrap()[64..].fill(0x55);
    let mut next = Kept::start(&Memory::of(&files), SpoolFull::DropNewest, 1 << 20);
    next.hear();
    next.orders.send(Order::Read { opening: 1 }).unwrap();
    let Told::Page(page) = next.hear() else { panic!("a page was asked for") };
    assert!(page.missing >= 5 && page.records_in_log() as u64 + page.missing == 20, "{}", page.missing);
}
