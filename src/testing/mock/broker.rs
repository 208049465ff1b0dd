//! The server without its sockets: what is done with what clients say, and what they are told.
//!
//! ```text
//!   connection ──op──► handle ──┬─► router ──────────────► outboxes of the subscribers
//!                               ├─► $JS.API ──► answer ──►      "
//!                               └─► fault? stream ─► ack ─►     "
//! ```
//!
//! It has no clock and waits for nothing. What is due later stands in a table of deadlines, which [`Broker::next_due`] and
//! [`Broker::handle_time`] are for. All connections share one broker, and one operation is done after the other.

use super::api::{self, Outcome};
use super::faults::{Fault, Script};
use super::jetstream::JetStream;
use super::message::{Delivery, Message};
use super::protocol::{self, ClientOp, ConnectOptions, Violation};
use super::subjects::{Router, is_literal, is_pattern};
use bytes::{BufMut, BytesMut};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// Connections at once.
const CONNECTIONS_MAX: usize = 256;

/// What a client may leave unread before it is cut off as a slow consumer; the server's default.
const OUTBOX_BYTES_MAX: usize = 64 << 20;

/// What `max_payload` may be: as with the server, no more than a client may leave unread.
pub(super) const PAYLOAD_BYTES_MAX: usize = OUTBOX_BYTES_MAX;

/// The server's default of `max_payload`.
const MAX_PAYLOAD: usize = 1 << 20;

/// Answers that are late at once. What would be one more is not late.
const LATE_MAX: usize = 1 << 16;

pub(super) struct Broker {
    pub(super) port: u16,
    pub(super) max_payload: usize,
    pub(super) jetstream: JetStream,
    pub(super) script: Script,
    /// Nothing is read or said.
    pub(super) frozen: watch::Sender<bool>,
    /// Nobody gets in.
    pub(super) is_down: bool,
    connections: BTreeMap<u64, Connection>,
    connections_so_far: u64,
    router: Router,
    late: BTreeMap<(Instant, u64), Vec<Delivery>>,
    late_so_far: u64,
}

struct Connection {
    options: ConnectOptions,
    outbox: BytesMut,
    /// It is told what is in the outbox, and then it ends; what it says is not listened to any more.
    is_ending: bool,
    /// Wakes who writes.
    wake: Arc<Notify>,
}

impl Connection {
    fn end(&mut self) {
        self.is_ending = true;
        self.wake.notify_one();
    }
}

/// What there is to write to a connection.
pub(super) struct Outgoing {
    pub(super) bytes: BytesMut,
    pub(super) is_last: bool,
}

impl Broker {
    pub(super) fn new(port: u16) -> Self {
        Self {
            port,
            max_payload: MAX_PAYLOAD,
            jetstream: JetStream::default(),
            script: Script::new(),
            frozen: watch::Sender::new(false),
            is_down: false,
            connections: BTreeMap::new(),
            connections_so_far: 0,
            router: Router::default(),
            late: BTreeMap::new(),
            late_so_far: 0,
        }
    }

    // ---- connections --------------------------------------------------------------------------------------------------------

    /// Greets a new connection: its number, and what wakes who writes to it. None if it is not let in.
    pub(super) fn admit(&mut self) -> Option<(u64, Arc<Notify>)> {
        if self.is_down || self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        self.connections_so_far += 1;
        let (id, wake) = (self.connections_so_far, Arc::new(Notify::new()));
        let options = ConnectOptions::default();
        let connection =
            Connection { options, outbox: BytesMut::new(), is_ending: false, wake: Arc::clone(&wake) };
        self.connections.insert(id, connection);
        self.tell_info(id);
        Some((id, wake))
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.connections.remove(&id);
        self.router.forget(id);
    }

    /// What is to be written next; none if it has ended.
    pub(super) fn take_outgoing(&mut self, id: u64) -> Option<Outgoing> {
        let connection = self.connections.get_mut(&id)?;
        Some(Outgoing { bytes: connection.outbox.split(), is_last: connection.is_ending })
    }

    /// Ends a connection behind what it has been told.
    pub(super) fn end(&mut self, id: u64) {
        self.router.forget(id);
        self.connections.get_mut(&id).into_iter().for_each(Connection::end);
    }

    pub(super) fn end_all(&mut self) {
        self.router = Router::default();
        self.connections.values_mut().for_each(Connection::end);
    }

    pub(super) fn restart(&mut self) {
        self.end_all();
        self.jetstream.restart();
        self.late.clear();
    }

    pub(super) fn violate(&mut self, id: u64, violation: Violation) {
        if let Some(words) = violation.words() {
            self.tell(id, |out| protocol::write_error(out, words));
        }
        self.end(id);
    }

    fn tell_info(&mut self, id: u64) {
        let info = json!({
            "server_id": super::SERVER_NAME,
            "server_name": super::SERVER_NAME,
            "version": super::VERSION,
            "proto": 1,
            "host": "127.0.0.1",
            "port": self.port,
            "headers": true,
            "max_payload": self.max_payload,
            "jetstream": true,
            "client_id": id,
            "client_ip": "127.0.0.1",
            "api_lvl": super::API_LEVEL,
        });
        self.tell(id, |out| out.put_slice(format!("INFO {info}\r\n").as_bytes()));
    }

    fn tell(&mut self, id: u64, write: impl FnOnce(&mut BytesMut)) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_ending)
        else {
            return;
        };
        write(&mut connection.outbox);
        connection.wake.notify_one();
        if connection.outbox.len() > OUTBOX_BYTES_MAX {
            connection.outbox.clear();
            self.end(id);
        }
    }

    // ---- what clients say ---------------------------------------------------------------------------------------------------

    pub(super) fn handle(&mut self, now: Instant, id: u64, op: ClientOp) {
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_ending)
        else {
            return;
        };
        let is_well = match op {
            ClientOp::Ping => return self.tell(id, |out| out.put_slice(b"PONG\r\n")),
            ClientOp::Pong => return,
            ClientOp::Connect(options) => {
                connection.options = options;
                true
            }
            ClientOp::Subscribe { subject, queue, sid } => self.subscribe(id, subject, queue, sid),
            ClientOp::Unsubscribe { sid, max } => {
                self.router.unsubscribe(id, &sid, max);
                true
            }
            ClientOp::Publish(message) => self.publish(now, id, message),
        };
        if is_well && self.options(id).verbose {
            self.tell(id, |out| out.put_slice(b"+OK\r\n"));
        }
        self.serve_consumers(now);
    }

    fn options(&self, id: u64) -> ConnectOptions {
        self.connections.get(&id).map(|connection| connection.options.clone()).unwrap_or_default()
    }

    fn subscribe(&mut self, id: u64, subject: String, queue: Option<String>, sid: String) -> bool {
        let problem = match () {
            () if !is_pattern(&subject) => "Invalid Subject",
            () if !self.router.subscribe(id, sid, subject, queue) => "maximum subscriptions exceeded",
            () => return true,
        };
        self.tell(id, |out| protocol::write_error(out, problem));
        false
    }

    /// Returns whether there is nothing to complain of.
    fn publish(&mut self, now: Instant, id: u64, message: Message) -> bool {
        let options = self.options(id);
        if !message.headers.is_empty() && !options.headers {
            self.end(id);
            return false;
        }
        // It is to be traced and not carried out (ADR-41), and there are no traces here.
        if message.header("Nats-Trace-Only").is_some_and(|value| ["true", "1", "on"].contains(&value)) {
            return true;
        }
        // It is carried out all the same, as by the real one.
        let is_well = !options.pedantic || is_literal(&message.subject);
        if !is_well {
            self.tell(id, |out| protocol::write_error(out, "Invalid Publish Subject"));
        }
        let meets_script = self.jetstream.takes(&message.subject);
        let fault = if meets_script { self.script.next() } else { None };
        match fault {
            Some(fault) if !fault.is_stored() => self.fail(id, &message, fault),
            fault => {
                let answers = self.carry_out(now, id, &options, message);
                self.answer(now, id, answers, fault);
            }
        }
        is_well
    }

    /// Brings a message to its subscribers, to JetStream and to the streams, and returns what is answered.
    fn carry_out(
        &mut self,
        now: Instant,
        id: u64,
        options: &ConnectOptions,
        message: Message,
    ) -> Vec<Delivery> {
        let is_heard = self.deliver(&Delivery::of(message.clone()), (!options.echo).then_some(id)) > 0;
        match api::take(&mut self.jetstream, now, &message) {
            Outcome::Answered(answers) => return answers,
            Outcome::Other if self.jetstream.takes(&message.subject) => {
                return self.jetstream.publish(now, &message);
            }
            Outcome::Other | Outcome::NobodyListens => {}
        }
        if is_heard || !options.no_responders { Vec::new() } else { nobody(&message) }
    }

    /// Says what there is to say, as the fault will have it.
    fn answer(&mut self, now: Instant, id: u64, answers: Vec<Delivery>, fault: Option<Fault>) {
        match fault {
            Some(Fault::AckLost) => {}
            Some(Fault::CutAfter) => self.end(id),
            Some(Fault::AckLate(delay)) if self.late.len() < LATE_MAX => {
                self.late_so_far += 1;
                // What is due behind the end of time never comes.
                if let Some(due) = now.checked_add(delay) {
                    self.late.insert((due, self.late_so_far), answers);
                }
            }
            Some(Fault::AckDoubled) => {
                self.deliver_all(&answers);
                self.deliver_all(&answers);
            }
            Some(Fault::CutInAck) => {
                let told = |broker: &Self| broker.connections.get(&id).map_or(0, |one| one.outbox.len());
                let before = told(self);
                self.deliver_all(&answers);
                // An answer that was too much for a slow client has emptied its outbox.
                let half = before + told(self).saturating_sub(before) / 2;
                self.connections.entry(id).and_modify(|one| one.outbox.truncate(half));
                self.end(id);
            }
            Some(Fault::Freeze) => {
                self.frozen.send_replace(true);
                self.deliver_all(&answers);
            }
            _ => self.deliver_all(&answers),
        }
    }

    /// Does what a fault does in the place of storing.
    fn fail(&mut self, id: u64, message: &Message, fault: Fault) {
        match fault {
            Fault::NoResponders => self.deliver_all(&nobody(message)),
            Fault::Refused(error) => self.deliver_all(&self.jetstream.refuse(message, &error)),
            Fault::Denied => {
                let words = format!("Permissions Violation for Publish to \"{}\"", message.subject);
                self.tell(id, |out| protocol::write_error(out, &words));
            }
            Fault::CutBefore => self.end(id),
            Fault::Restart => self.restart(),
            // It is swallowed; and the others are stored, and none of this function's business.
            Fault::MessageLost
            | Fault::AckLate(_)
            | Fault::AckLost
            | Fault::AckDoubled
            | Fault::CutAfter
            | Fault::CutInAck
            | Fault::Freeze => {}
        }
    }

    // ---- what clients are told ----------------------------------------------------------------------------------------------

    /// Returns how many have got it.
    fn deliver(&mut self, delivery: &Delivery, without: Option<u64>) -> usize {
        let routed = self.router.route(delivery, without);
        for (id, sid) in &routed {
            self.tell(*id, |out| protocol::write_message(out, sid, &delivery.message));
        }
        routed.len()
    }

    fn deliver_all(&mut self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            self.deliver(delivery, None);
        }
    }

    fn serve_consumers(&mut self, now: Instant) {
        let router = &self.router;
        let deliveries = self.jetstream.serve(now, |subject| router.has_interest(subject));
        self.deliver_all(&deliveries);
    }

    /// When something is due that nobody asks for.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let late = self.late.first_key_value().map(|((due, _), _)| *due);
        late.into_iter().chain(self.jetstream.next_due()).min()
    }

    pub(super) fn handle_time(&mut self, now: Instant) {
        while let Some(entry) = self.late.first_entry()
            && entry.key().0 <= now
        {
            let answers = entry.remove();
            self.deliver_all(&answers);
        }
        self.serve_consumers(now);
    }
}

/// The status that says that nobody listens to a subject.
fn nobody(message: &Message) -> Vec<Delivery> {
    let reply = message.reply.as_deref();
    let status = |reply: &str| Delivery::status(reply, "503", &[("Nats-Subject", &message.subject)]);
    reply.map(status).into_iter().collect()
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    /// What is published to.
    const SUBJECTS: &[&str] = &[
        "$JS.API.STREAM.CREATE.s",
        "$JS.API.STREAM.UPDATE.s",
        "$JS.API.STREAM.INFO.s",
        "$JS.API.STREAM.PURGE.s",
        "$JS.API.STREAM.MSG.GET.s",
        "$JS.API.STREAM.MSG.DELETE.s",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.DIRECT.GET.s",
        "$JS.API.DIRECT.GET.s.s",
        "$JS.API.CONSUMER.CREATE.s.c",
        "$JS.API.CONSUMER.MSG.NEXT.s.c",
        "$JS.API.CONSUMER.INFO.s.c",
        "$JS.API.CONSUMER.NAMES.s",
        "$JS.API.CONSUMER.DELETE.s.c",
        "$JS.API",
        "s",
        "r",
        "a..b",
        "",
    ];

    fn subject() -> impl Strategy<Value = String> {
        prop_oneof![proptest::sample::select(SUBJECTS).prop_map(str::to_owned), ".{0,8}"]
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![0..5u64, any::<u64>()]
    }

    fn reply() -> impl Strategy<Value = String> {
        let of_batch = (number(), prop_oneof![Just("ok"), Just("fail")], number(), 0..6u64);
        prop_oneof![
            Just("r".to_owned()),
            of_batch.prop_map(|(flow, mode, place, op)| format!("r.b.{flow}.{mode}.{place}.{op}.$FI")),
        ]
    }

    fn payload() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(String::new()),
            ".{0,8}",
            number().prop_map(|n| n.to_string()),
            (number(), number(), any::<bool>()).prop_map(|(a, b, flag)| json!({
                "name": "s", "subjects": ["s"], "allow_batched": true, "allow_direct": true, "max_msgs": b % 4,
                "discard_new_per_subject": flag, "seq": a, "keep": b, "next_by_subj": "s", "batch": a, "expires": b,
                "idle_heartbeat": a, "max_bytes": b, "offset": a,
            }).to_string()),
            (number(), any::<bool>()).prop_map(|(start, flag)| json!({
                "stream_name": "s",
                "config": {
                    "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": start,
                    "inactive_threshold": start, "headers_only": flag,
                },
            }).to_string()),
        ]
    }

    /// A broker with a stream `s`, and a client that hears what goes to `r.>`.
    fn broker_with_client(now: Instant) -> (Broker, u64) {
        let mut broker = Broker::new(1);
        let streams = json!({ "name": "s", "subjects": ["s"], "allow_batched": true });
        broker.jetstream.create(streams).expect("it can be made");
        let Some((id, _)) = broker.admit() else { unreachable!("there is room") };
        let options = ConnectOptions { headers: true, no_responders: true, ..ConnectOptions::default() };
        broker.handle(now, id, ClientOp::Connect(options));
        let (subject, sid) = ("r.>".to_owned(), "1".to_owned());
        broker.handle(now, id, ClientOp::Subscribe { subject, queue: None, sid });
        (broker, id)
    }

    /// Publishes to the stream, with an answer to the client.
    fn publish_to_stream(broker: &mut Broker, now: Instant, id: u64) {
        let reply = Some("r.a".to_owned());
        let message = Message { subject: "s".to_owned(), reply, ..Message::default() };
        broker.handle(now, id, ClientOp::Publish(message));
    }

    #[test]
    fn half_an_answer_that_is_too_much_for_a_slow_client_is_none() {
        let now = Instant::now();
        let (mut broker, id) = broker_with_client(now);
        let unread = |broker: &Broker| broker.connections[&id].outbox.len();
        let payload = vec![0; OUTBOX_BYTES_MAX - unread(&broker) - 40].into();
        let filling = Message { subject: "r.x".to_owned(), payload, ..Message::default() };
        broker.handle(now, id, ClientOp::Publish(filling));
        assert!(
            (OUTBOX_BYTES_MAX - 20..=OUTBOX_BYTES_MAX).contains(&unread(&broker)),
            "there is room for no answer"
        );
        broker.script = Script::new().fault(Fault::CutInAck);
        publish_to_stream(&mut broker, now, id);
        let outgoing = broker.take_outgoing(id).expect("the connection is there");
        assert_eq!((outgoing.bytes.len(), outgoing.is_last), (0, true));
    }

    #[test]
    fn an_answer_that_is_late_for_ever_never_comes() {
        let now = Instant::now();
        let (mut broker, id) = broker_with_client(now);
        let _ = broker.take_outgoing(id);
        broker.script = Script::new().fault(Fault::AckLate(Duration::MAX));
        publish_to_stream(&mut broker, now, id);
        assert_eq!(broker.next_due(), None);
        let outgoing = broker.take_outgoing(id).expect("the connection is there");
        assert_eq!(&*outgoing.bytes, b"+OK\r\n", "the client is verbose");
    }

    proptest! {
        /// Whatever clients say, and whenever they say it.
        #[test]
        fn no_message_makes_the_broker_panic(
            messages in proptest::collection::vec((subject(), reply(), payload(), any::<bool>(), 0..20u64), 1..40)
        ) {
            let mut now = Instant::now();
            let (mut broker, id) = broker_with_client(now);
            for (subject, reply, payload, has_id, seconds) in messages {
                let headers = if has_id { "NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n" } else { "" };
                let message =
                    Message { subject, reply: Some(reply), headers: headers.into(), payload: payload.into() };
                broker.handle(now, id, ClientOp::Publish(message));
                now += Duration::from_secs(seconds);
                broker.handle_time(now);
                broker.next_due();
            }
            prop_assert!(broker.take_outgoing(id).is_some_and(|outgoing| outgoing.bytes.starts_with(b"INFO ")));
        }
    }
}
