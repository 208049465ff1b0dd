//! Processes that publish numbered events, say how far they have come, and are killed. Shared by the tests of crashes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use jetring::{Bus, Config, Rings};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The test that is the publisher. It is started in a process of its own.
const ROLE: &str = "a_publisher_that_is_going_to_be_killed";

/// Threads of a publisher.
const THREADS: u64 = 2;

/// How long a publisher may take to begin.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An event. Each thread of each life numbers its own, from 1.
#[derive(Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) life: u64,
    pub(crate) thread: u64,
    pub(crate) number: u64,
    filling: String,
}

pub(crate) fn number_of(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What a publisher needs so that the order of each of its threads is visible: a ring for each.
pub(crate) fn give_each_thread_a_ring(config: &mut Config) {
    config.queue.rings = Rings::Count(usize::try_from(THREADS).unwrap().try_into().unwrap());
}

/// A publisher, in a process of its own.
pub(crate) struct Publisher {
    process: Child,
}

impl Publisher {
    pub(crate) fn start<'a>(variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ROLE, "--ignored", "--nocapture", "--test-threads=1"])
            .envs(variables)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process }
    }

    /// Hears what it says from now on, line by line, as `parse` understands it.
    pub(crate) fn listen<T: Send + 'static>(
        mut self,
        parse: impl Fn(&str) -> Option<T> + Send + 'static,
    ) -> Heard<T> {
        let (tell, told) = mpsc::channel();
        let output = BufReader::new(self.process.stdout.take().unwrap());
        let listener = std::thread::spawn(move || {
            for said in output.lines().map_while(Result::ok).filter_map(|line| parse(&line)) {
                let _ = tell.send(said);
            }
        });
        Heard { publisher: self, told, listener }
    }

    /// By SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// At about the time when it opens the log.
    pub(crate) fn kill_early(self, random: &mut impl Rng) {
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        self.kill();
    }
}

/// A publisher that is listened to.
pub(crate) struct Heard<T> {
    publisher: Publisher,
    pub(crate) told: mpsc::Receiver<T>,
    listener: JoinHandle<()>,
}

impl<T> Heard<T> {
    /// Kills it. Returns what it has said and nobody has taken yet: also what was in the pipe was told before the end.
    pub(crate) fn kill(self) -> impl Iterator<Item = T> {
        self.publisher.kill();
        self.listener.join().unwrap();
        self.told.into_iter()
    }
}

/// How much is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Events of each thread in a millisecond.
    pub(crate) at_once: u64,
    /// An event has less than so many bytes beside its numbers.
    pub(crate) filling: u64,
}

/// Publishes by all threads, as long as `goes_on`.
pub(crate) fn publish(bus: &Bus, life: u64, load: Load, goes_on: impl Fn() -> bool + Copy + Send + 'static) {
    for thread in 0..THREADS {
        let (bus, topic) = (bus.clone(), bus.topic("numbered").unwrap());
        std::thread::spawn(move || {
            let mut number = 0;
            while goes_on() {
                for _ in 0..load.at_once {
                    let filling = "x".repeat((number * 13 % load.filling) as usize);
                    let event = Numbered { life, thread, number: number + 1, filling };
                    if bus.has_room(400) && topic.publish(&event).is_accepted() {
                        number += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}

pub(crate) fn ask<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(question)
}
