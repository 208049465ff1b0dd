//! The server is away, late, frozen, or cut off, and comes back.
//!
//! The trouble differs; what must be true does not. In every test here a load goes on through the trouble, and after it:
//! everything is delivered, once, in each thread's order, and no call of a publish waited (`support.rs` proves it). The queue
//! holds far more than these outages last, so not one event may be dropped; and since the stream remembers message ids, not
//! one may stay indeterminate.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use jetring::{Auth, Bus, Config, Secret, SecretSource};

use crate::proxy::{Cut, End, Link, Place, Proxy, Way};
use crate::server::{NatsServer, wait_until};
use crate::support::{CLOSE, Load, Seen, bus, bus_with, flood, make_stream, prove, server_with_stream, wide};

/// How long the server is away. Longer than a publish may take by `support::CALL_MAX`, several tries to connect long, and
/// short enough for a test; nothing in the bus changes between this and an hour.
const AWAY: Duration = Duration::from_millis(2500);

/// Enough events for some of them to be in every state when the trouble begins.
const A_WHILE: Duration = Duration::from_millis(400);

/// The smallest time for an answer that a busy machine does not miss by itself; a frozen server is frozen for longer.
const ACK_TIMEOUT: Duration = Duration::from_millis(700);

#[test]
fn a_server_that_is_killed_and_restarted_twice_costs_nothing() {
    let mut server = server_with_stream();
    let url = server.url();
    survives(&url, &bus(&url), |load| {
        for _ in 0..2 {
            load.goes_on_for(A_WHILE);
            server.kill();
            load.goes_on_for(AWAY);
            server.restart();
            load.flows_again();
        }
    });
}

#[test]
fn a_server_that_stops_in_good_order_and_starts_again_costs_nothing() {
    let mut server = server_with_stream();
    let url = server.url();
    survives(&url, &bus(&url), |load| {
        load.goes_on_for(A_WHILE);
        server.stop();
        load.goes_on_for(A_WHILE);
        server.restart();
        load.flows_again();
    });
}

#[test]
fn a_server_that_comes_late_gets_everything_from_the_first_event_on() {
    let reserved = NatsServer::reserve();
    let url = reserved.url();
    let mut server = None;
    survives(&url, &bus(&url), |load| {
        load.goes_on_for(AWAY);
        server = Some(reserved.start());
        make_stream(&url);
        load.flows_again();
    });
}

#[test]
fn a_stream_that_is_made_late_gets_everything_from_the_first_event_on() {
    let server = NatsServer::start();
    let url = server.url();
    let bus = bus(&url);
    survives(&url, &bus, |load| {
        wait_until("the bus is connected", || bus.is_connected());
        load.goes_on_for(AWAY);
        assert_eq!(bus.stats().acked, 0);
        make_stream(&url);
        load.flows_again();
    });
}

#[test]
fn a_password_that_is_put_right_on_the_server_heals_without_a_restart() {
    let mut server = NatsServer::builder().config(password("old")).start();
    let url = server.url();
    make_stream(&url);
    let bus = bus_with(&url, sign_in(SecretSource::Value(Secret::new("new"))));
    survives(&url, &bus, |load| {
        load.goes_on_for(AWAY);
        assert!(!bus.is_connected());
        server.reload(password("new"));
        load.flows_again();
    });
}

#[test]
fn a_password_file_that_is_put_right_heals_without_a_restart() {
    let server = NatsServer::builder().config(password("right")).start();
    let url = server.url();
    make_stream(&url);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), "wrong\n").expect("our own file");
    let bus = bus_with(&url, sign_in(SecretSource::File(file.path().to_owned())));
    survives(&url, &bus, |load| {
        load.goes_on_for(AWAY);
        assert!(!bus.is_connected());
        fs::write(file.path(), "right\n").expect("our own file");
        load.flows_again();
    });
}

#[test]
fn a_password_that_is_changed_under_a_running_bus_cuts_it_off_until_it_is_put_back() {
    let mut server = NatsServer::builder().config(password("right")).start();
    let url = server.url();
    make_stream(&url);
    let bus = bus_with(&url, sign_in(SecretSource::Value(Secret::new("right"))));
    survives(&url, &bus, |load| {
        load.goes_on_for(A_WHILE);
        server.reload(password("other"));
        wait_until("the bus is thrown out", || !bus.is_connected());
        load.goes_on_for(A_WHILE);
        server.reload(password("right"));
        load.flows_again();
    });
}

#[test]
fn a_server_that_is_frozen_for_longer_than_the_ack_timeout_costs_nothing() {
    let server = server_with_stream();
    let url = server.url();
    survives(&url, &bus_with(&url, patience_of(ACK_TIMEOUT)), |load| {
        for _ in 0..2 {
            load.goes_on_for(A_WHILE);
            server.pause();
            load.goes_on_for(ACK_TIMEOUT * 3);
            server.resume();
            load.flows_again();
        }
    });
}

#[test]
fn a_server_that_is_frozen_for_less_than_the_ack_timeout_costs_nothing() {
    let server = server_with_stream();
    let url = server.url();
    let bus = bus(&url);
    survives(&url, &bus, |load| {
        for _ in 0..3 {
            load.goes_on_for(A_WHILE);
            server.pause();
            load.goes_on_for(A_WHILE);
            server.resume();
            load.flows_again();
        }
    });
}

#[test]
fn a_connection_that_is_cut_anywhere_in_a_message_or_an_answer_costs_nothing() {
    let server = server_with_stream();
    let cut = |place, after| Cut { place, after, end: End::Fin };
    // Within the greeting, within the first messages, and then at uneven places, on the way there and on the way back.
    let greeting = [cut(Place::Hello, 60), cut(Place::Greeting, 100)];
    let there = (0..8).map(|i| cut(Place::Events, 1_600 + 6_007 * i));
    let back = (0..8).map(|i| cut(Place::Acks, 1_900 + 1_009 * i));
    let cuts: Vec<Cut> = greeting.into_iter().chain(there).chain(back).collect();
    let count = cuts.len();
    let proxy = Proxy::before(server.port());
    proxy.cut_next(cuts);
    survives(&server.url(), &bus(&proxy.url()), |load| {
        wait_until("all cuts are made and the connection holds", || proxy.connections() > count);
        load.flows_again();
    });
}

#[test]
fn a_connection_that_is_cut_again_and_again_costs_nothing() {
    let server = server_with_stream();
    let proxy = Proxy::before(server.port());
    survives(&server.url(), &bus(&proxy.url()), |load| {
        for _ in 0..10 {
            load.goes_on_for(Duration::from_millis(50));
            proxy.cut(End::Fin);
            load.flows_again();
        }
    });
}

#[test]
fn a_connection_that_goes_silent_without_an_end_is_given_up_for_a_new_one() {
    let server = server_with_stream();
    let proxy = Proxy::before(server.port());
    survives(&server.url(), &bus_with(&proxy.url(), patience_of(ACK_TIMEOUT)), |load| {
        load.goes_on_for(A_WHILE);
        proxy.set(Link { up: Way::Lost, down: Way::Lost, ..Link::CLEAR });
        load.goes_on_for(A_WHILE);
        // The connection that there is stays lost.
        proxy.set(Link::CLEAR);
        load.goes_on_for(ACK_TIMEOUT * 2);
        load.flows_again();
        assert!(proxy.connections() > 1);
    });
}

#[test]
fn more_than_the_socket_holds_waits_for_a_frozen_server() {
    flooded(|server| server.resume());
}

#[test]
fn more_than_the_socket_holds_waits_for_a_frozen_server_that_is_then_killed() {
    flooded(NatsServer::restart);
}

/// A frozen server is flooded until even the client's own queue is full, and then it is healed.
#[track_caller]
fn flooded(heal: impl FnOnce(&mut NatsServer)) {
    let mut server = server_with_stream();
    let url = server.url();
    let bus = bus_with(&url, wide);
    let mut seen = Seen::default();
    flood(&server, &bus, &mut seen);
    assert!(!bus.flush(AWAY).complete);
    heal(&mut server);
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.acked, report.stats.offered, "{report:?}");
    prove(&url, &bus, &report, &seen);
}

/// A load goes on through the trouble. Then all of it is delivered, once and in order.
#[track_caller]
/// Each of the others would take 2 s, so that trying them one after the other would take longer than anything here may.
#[test]
fn servers_that_are_named_and_never_answer_do_not_keep_the_bus_from_the_one_that_does() {
    let server = server_with_stream();
    // The system accepts for them, and nobody says a word.
    let silent: Vec<_> =
        (0..63).map(|_| TcpListener::bind("127.0.0.1:0").expect("there is a free port")).collect();
    let addresses = silent.iter().map(|silent| silent.local_addr().expect("it is bound").to_string());
    let proxy = Proxy::before(server.port());
    proxy.gossips(addresses.collect());
    let bus = bus(&proxy.url());
    survives(&server.url(), &bus, |load| {
        for _ in 0..3 {
            load.flows_again();
            proxy.cut(End::Rst);
        }
        load.flows_again();
    });
}

fn survives(url: &str, bus: &Bus, trouble: impl FnOnce(&Load)) {
    let load = Load::on(bus);
    trouble(&load);
    load.goes_on_for(A_WHILE);
    let (report, _) = load.close_and_prove(url);
    assert!(report.complete, "{report:?}");
    assert_eq!(report.stats.acked, report.stats.offered, "every event is delivered: {report:?}");
}

fn patience_of(ack_timeout: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.delivery.ack_timeout = ack_timeout
}

/// The bus needs this password. The test itself gives none and is taken for another user.
fn password(password: &str) -> String {
    format!(
        "authorization {{ users: [{{ user: me, password: {password:?} }}, {{ user: test, password: test }}] }}\n\
         no_auth_user: test"
    )
}

fn sign_in(password: SecretSource) -> impl FnOnce(&mut Config) {
    move |config| config.auth = Auth::User { user: "me".to_owned(), password }
}
