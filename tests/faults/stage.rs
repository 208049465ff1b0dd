//! The servers and relays of one scenario, and what is done to them.
//!
//! A stage has one server with an R1 stream, or three with an R3 stream. The bus reaches them directly, or, if the fault
//! is one of the network, through a relay before each; what the stage itself asks of the servers never goes through a relay.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use jetring::Bus;

use crate::proxy::{Cut, End, Link, Place, Proxy};
use crate::server::{NatsServer, PATIENCE, Reserved, stream_config, wait_at_most};
use crate::support::{LOAD, Numbered, STREAM, SUBJECTS, Seen, ask};
use crate::table::Fault;

/// How long a cluster may take to have a leader, or a restarted server to have caught up. An election takes 4 to 9 s.
const CLUSTER_PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for an answer about the cluster before it is asked again. While the stream has no leader, none comes.
const GLANCE: Duration = Duration::from_millis(200);

/// An event above the `max_payload` of [`Act::Reload`]s that lower it, and below `max-event`.
const LARGE_BYTES: usize = 6 << 10;

/// The producer of large events, beside the threads of the load.
const LARGE_THREAD: u64 = 99;

/// Something that is done to the stage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Nothing but that time passes.
    Calm,
    /// All connections fare so from now on.
    Link(Link),
    /// Those to the server that leads the stream fare so, the others well.
    LinkToLeader(Link),
    /// What is open ends.
    Cut(End),
    /// Connections are cut at this place, each `step` further than the one before, from 0 up to `to`; between two of them one is let live for
    /// `BETWEEN` answers. Over when all are cut.
    CutEverywhere {
        place: Place,
        to: usize,
        step: usize,
        end: End,
    },
    /// SIGKILL to the server that leads the stream.
    KillLeader,
    /// What was killed, or has ended, starts again.
    Restart,
    /// SIGSTOP and SIGCONT.
    FreezeLeader,
    Thaw,
    /// SIGUSR2, and wait for the end.
    LameDuck,
    /// The leader reads its configuration again, with this text in it.
    Reload(&'static str),
    /// So many events that are larger than the others.
    PublishLarge(u64),
    DeleteStream,
    CreateStream,
    /// The stream takes so many messages; `None`: as many as come.
    Limit(Option<i64>),
    /// The leader is asked to let another one lead.
    StepDown,
    /// One after the other ends in good order and starts again as this version.
    Upgrade(&'static str),
}

/// Answers that a connection gets between two cuts, so that backoff does not grow and the window opens.
const BETWEEN: usize = 3;

pub(crate) struct Stage {
    config: stream::Config,
    servers: Vec<NatsServer>,
    /// Of the servers to each other; held, since a server that is restarted needs its own again.
    _routes: Vec<Reserved>,
    relays: Vec<Proxy>,
    /// The server that is killed or frozen at the moment.
    absent: Option<usize>,
    /// What was published by acts.
    pub(crate) seen: Seen,
}

impl Stage {
    /// Starts all, and makes the stream.
    pub(crate) fn set(fault: &'static Fault, version: &str, with_batches: bool) -> Self {
        let (servers, routes) = if fault.replicas == 1 {
            (vec![single(version, fault.config)], Vec::new())
        } else {
            cluster(version)
        };
        let config = stream::Config {
            num_replicas: fault.replicas,
            duplicate_window: fault.duplicate_window,
            allow_batch_publish: with_batches,
            discard: stream::DiscardPolicy::New,
            max_messages: fault.limit,
            max_messages_per_subject: fault.subject_limit,
            discard_new_per_subject: fault.subject_limit > 0,
            ..stream_config(STREAM, &[SUBJECTS])
        };
        let relays = if fault.is_of_the_network() { relays(&servers) } else { Vec::new() };
        let stage = Self { config, servers, _routes: routes, relays, absent: None, seen: Seen::default() };
        stage.create_stream();
        stage
    }

    /// Where the bus is to connect to: to the leader first, so that what befalls the leader befalls the connection.
    pub(crate) fn url(&self) -> String {
        let mut urls: Vec<String> = if self.relays.is_empty() {
            self.servers.iter().map(NatsServer::url).collect()
        } else {
            self.relays.iter().map(Proxy::url).collect()
        };
        urls.rotate_left(self.leader());
        urls.join(",")
    }

    /// A server to read the stream from.
    pub(crate) fn direct_url(&self) -> String {
        let is_there = |&at: &usize| Some(at) != self.absent;
        let at = (0..self.servers.len()).find(is_there).expect("at most one of three is absent");
        self.servers[at].url()
    }

    pub(crate) fn act(&mut self, act: Act, bus: &Bus) {
        match act {
            Act::Calm => {}
            Act::Link(link) => self.relays.iter().for_each(|relay| relay.set(link)),
            Act::LinkToLeader(link) => self.relays[self.leader()].set(link),
            Act::Cut(end) => self.relays.iter().for_each(|relay| relay.cut(end)),
            Act::CutEverywhere { place, to, step, end } => self.cut_everywhere(place, to, step, end),
            Act::KillLeader => {
                let leader = self.lose_leader();
                self.servers[leader].kill();
            }
            Act::Restart => {
                let absent = self.absent.take().expect("a server was killed before");
                self.servers[absent].restart();
            }
            Act::FreezeLeader => {
                let leader = self.lose_leader();
                self.servers[leader].pause();
            }
            Act::Thaw => {
                let absent = self.absent.take().expect("a server was frozen before");
                self.servers[absent].resume();
            }
            Act::LameDuck => {
                let leader = self.lose_leader();
                self.servers[leader].lame_duck();
                let server = &mut self.servers[leader];
                wait_at_most(CLUSTER_PATIENCE, "the lame duck has ended", || server.has_ended());
            }
            Act::Reload(text) => {
                let leader = self.leader();
                self.servers[leader].reload(format!("{LAME_DUCK}\n{text}"));
            }
            Act::PublishLarge(events) => self.publish_large(events, bus),
            Act::DeleteStream => {
                ask(async { self.context().await.delete_stream(STREAM).await }).expect("the stream is there");
            }
            Act::CreateStream => self.create_stream(),
            Act::Limit(messages) => {
                let max_messages = messages.unwrap_or(-1);
                let config = stream::Config {
                    max_messages,
                    max_messages_per_subject: -1,
                    discard_new_per_subject: false,
                    ..self.config.clone()
                };
                ask(async { self.context().await.update_stream(config).await }).expect("a limit can change");
            }
            Act::StepDown => self.step_down(),
            Act::Upgrade(version) => self.upgrade(version),
        }
    }

    /// Waits until somebody can store what is sent.
    pub(crate) fn await_leader(&self) {
        self.leader();
    }

    fn lose_leader(&mut self) -> usize {
        let leader = self.leader();
        self.absent = Some(leader);
        leader
    }

    fn cut_everywhere(&self, place: Place, to: usize, step: usize, end: End) {
        let [relay] = &self.relays[..] else { panic!("only with one server") };
        let between = Cut { place: Place::Answers, after: BETWEEN, end };
        let cuts = (0..=to).step_by(step).flat_map(|after| [Cut { place, after, end }, between]);
        relay.cut_next(cuts);
        relay.cut(end);
        let patience = PATIENCE + Duration::from_secs(to as u64 / step as u64);
        wait_at_most(patience, "all cuts are made", || relay.cuts_left() == 0);
    }

    fn publish_large(&mut self, events: u64, bus: &Bus) {
        for _ in 0..events {
            let number = self.seen.offered;
            let event = Numbered { thread: LARGE_THREAD, ..Numbered::with_text(number, LARGE_BYTES) };
            self.seen.call(|| bus.publish(LOAD, &event));
        }
    }

    fn create_stream(&self) {
        wait_at_most(CLUSTER_PATIENCE, "the stream is made", || {
            ask(async { self.context().await.create_stream(self.config.clone()).await }).is_ok()
        });
    }

    fn step_down(&self) {
        let before = self.leader();
        ask(async {
            let client = self.client().await;
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
            client.request(subject, "".into()).await.expect("the leader answers");
        });
        wait_at_most(CLUSTER_PATIENCE, "another server leads", || self.leader() != before);
    }

    fn upgrade(&mut self, version: &str) {
        for at in 0..self.servers.len() {
            self.absent = Some(at);
            self.servers[at].stop();
            self.servers[at].restart_as(version);
            self.absent = None;
            wait_at_most(CLUSTER_PATIENCE, "the server has caught up", || self.is_whole());
        }
    }

    /// The server that leads the stream; the only one if there is one.
    fn leader(&self) -> usize {
        if self.servers.len() == 1 {
            return 0;
        }
        let mut leader = None;
        wait_at_most(CLUSTER_PATIENCE, "the stream has a leader", || {
            let name = self.cluster_info().and_then(|cluster| cluster.leader);
            leader = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
            leader.is_some_and(|leader| Some(leader) != self.absent)
        });
        leader.expect("just found")
    }

    /// Whether all copies of the stream are up to date.
    fn is_whole(&self) -> bool {
        self.cluster_info().is_some_and(|cluster| {
            let replicas = &cluster.replicas;
            cluster.leader.is_some()
                && replicas.len() == 2
                && replicas.iter().all(|peer| peer.current && !peer.offline)
        })
    }

    fn cluster_info(&self) -> Option<stream::ClusterInfo> {
        ask(async {
            let mut context = self.context().await;
            context.set_timeout(GLANCE);
            let stream = context.get_stream(STREAM).await.ok()?;
            stream.cached_info().cluster.clone()
        })
    }

    async fn context(&self) -> jetstream::Context {
        let mut context = jetstream::new(self.client().await);
        context.set_timeout(Duration::from_secs(2));
        context
    }

    async fn client(&self) -> async_nats::Client {
        let options = async_nats::ConnectOptions::new().ignore_discovered_servers();
        options.connect(self.direct_url()).await.expect("this server is there")
    }
}

fn single(version: &str, config: &str) -> NatsServer {
    NatsServer::builder().version(version).config(format!("{LAME_DUCK}\n{config}")).start()
}

/// The least that the server allows of the time over which it sends its clients away.
const LAME_DUCK: &str = "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"1s\"";

/// Three servers that know one another, and the ports by which they do.
fn cluster(version: &str) -> (Vec<NatsServer>, Vec<Reserved>) {
    let routes: Vec<Reserved> = (0..3).map(|_| NatsServer::reserve()).collect();
    let all: Vec<String> = routes.iter().map(|route| format!("\"{}\"", route.url())).collect();
    let start = |(at, route): (usize, &Reserved)| {
        let config = format!(
            "{LAME_DUCK}\nserver_name: n{at}\ncluster {{ name: c, listen: \"127.0.0.1:{}\", routes: [{}] }}",
            route.port(),
            all.join(", ")
        );
        NatsServer::builder().version(version).config(config).start_without_waiting(NatsServer::reserve())
    };
    let mut servers: Vec<NatsServer> = routes.iter().enumerate().map(start).collect();
    servers.iter_mut().for_each(NatsServer::wait_until_ready);
    (servers, routes)
}

fn relays(servers: &[NatsServer]) -> Vec<Proxy> {
    let relays: Vec<Proxy> = servers.iter().map(|server| Proxy::before(server.port())).collect();
    for relay in &relays {
        for (server, other) in servers.iter().zip(&relays) {
            relay.stands_for(format!("127.0.0.1:{}", server.port()), other);
        }
    }
    relays
}
