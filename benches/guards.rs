//! How many instructions a call takes, judged against the committed numbers of `benches/guards.json`.
//!
//! Times on a shared machine are noise; instructions are not. Each case is executed one instruction at a time in a child
//! ([`steps`]), and what is judged is the number of instructions of our own executable, and of calls that leave it. `make guards` fails
//! if a case has become worse by more than the limit. `make guards ACCEPT=1` writes down what is now.
//!
//! An instruction is not a time: a cache miss more, or a longer chain of dependent instructions, is not seen here. Benches are for
//! that.
//!
//! The numbers are those of one compiler: after a new one, or a change of a dependency that is inlined, they have to be made anew.

#![cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    allow(unused, reason = "nothing to count with")
)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod event;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod steps;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("SKIPPED: guards count instructions on Linux on x86-64 only");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    guards::main()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod guards {
    use crate::event::{HOP, envelope_len, estimate};
    use crate::steps::{self, Failure, Steps, most_common};
    use jetring::__internals::{Doorbell, Ring};
    use jetring::{Budget, Bus, Config, Offer, Reason, Rings, Topic};
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::hint::black_box;
    use std::num::NonZeroUsize;
    use std::process::{Command, ExitCode};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/guards.json");

    /// A case may become worse by so much before it fails.
    const LIMIT_PERCENT: f64 = 3.0;

    /// Calls of a case. One publish of a thousand takes its own time and is not alike.
    const CALLS: usize = 8;
    const ALIKE_MIN: usize = CALLS * 3 / 4;

    /// What is committed.
    #[derive(Serialize, Deserialize)]
    struct Guards {
        compiler: String,
        cases: BTreeMap<String, Figures>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    struct Figures {
        /// Of our own executable.
        instructions: u64,
        /// Into the C library or the vDSO.
        library_calls: u64,
    }

    /// What is done with the numbers.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Mode {
        Print,
        Check,
        Accept,
    }

    pub(crate) fn main() -> ExitCode {
        let has = |flag: &str| std::env::args().any(|argument| argument == flag);
        let mode = match (has("--accept"), has("--check")) {
            (true, _) => Mode::Accept,
            (false, true) => Mode::Check,
            (false, false) => Mode::Print,
        };
        match count_all() {
            Ok(counted) => conclude(mode, &counted),
            Err(Failure::Denied) if std::env::var_os("JETRING_DEMAND_PTRACE").is_none() => {
                eprintln!("SKIPPED: a process may not trace its child here (ptrace); NOTHING WAS COUNTED");
                ExitCode::SUCCESS
            }
            Err(Failure::Denied) => {
                eprintln!(
                    "a process may not trace its child here (ptrace), and JETRING_DEMAND_PTRACE is set"
                );
                ExitCode::FAILURE
            }
            Err(Failure::Broken(why)) => {
                eprintln!("{why}");
                ExitCode::FAILURE
            }
        }
    }

    // ---- the judgement -------------------------------------------------------------------------------------------------

    fn conclude(mode: Mode, counted: &[(&str, Steps)]) -> ExitCode {
        let compiler = compiler();
        if mode == Mode::Accept {
            let cases = counted.iter().map(|(case, steps)| ((*case).to_owned(), Figures::of(steps)));
            let guards = Guards { compiler, cases: cases.collect() };
            let text = serde_json::to_string_pretty(&guards).expect("numbers and names are JSON") + "\n";
            std::fs::write(FILE, text).unwrap_or_else(|error| panic!("{FILE}: {error}"));
            println!("written to benches/guards.json; commit it, and say why in the message");
            return ExitCode::SUCCESS;
        }
        let committed = std::fs::read_to_string(FILE).unwrap_or_default();
        let Ok(committed) = serde_json::from_str::<Guards>(&committed) else {
            eprintln!("no numbers in benches/guards.json; `make guards ACCEPT=1` writes them");
            return if mode == Mode::Check { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        };
        let is_worse = compare(&committed, counted);
        if committed.compiler != compiler {
            println!("the committed numbers are of {:?}, and this is {compiler:?}", committed.compiler);
        }
        if !is_worse || mode != Mode::Check {
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "GUARDS: worse by more than {LIMIT_PERCENT} %. If that is the price of something wanted, accept it: make guards ACCEPT=1"
        );
        ExitCode::FAILURE
    }

    /// Prints all, and returns whether anything is worse than allowed.
    fn compare(committed: &Guards, counted: &[(&str, Steps)]) -> bool {
        let (mut is_worse, mut is_better) = (false, false);
        println!("compared with benches/guards.json:");
        for (case, steps) in counted {
            let now = Figures::of(steps);
            let Some(then) = committed.cases.get(*case) else {
                println!("  {case:<16} NEW: not in the file");
                is_worse = true;
                continue;
            };
            let change = (now.instructions as f64 / then.instructions as f64 - 1.0) * 100.0;
            let worse = change > LIMIT_PERCENT || now.library_calls > then.library_calls;
            let better = !worse && (change < -LIMIT_PERCENT || now.library_calls < then.library_calls);
            let verdict = if worse {
                "WORSE"
            } else if better {
                "better"
            } else {
                "as before"
            };
            println!(
                "  {case:<16} {verdict:<9} {change:+6.1} %: {} instructions (were {}), {} library calls (were {})",
                now.instructions, then.instructions, now.library_calls, then.library_calls
            );
            (is_worse, is_better) = (is_worse || worse, is_better || better);
        }
        for case in committed.cases.keys().filter(|case| !counted.iter().any(|(known, _)| known == case)) {
            println!("  {case:<16} GONE: not counted any more");
            is_worse = true;
        }
        if is_better {
            println!("better than committed: `make guards ACCEPT=1` keeps what was won");
        }
        is_worse
    }

    impl Figures {
        fn of(steps: &Steps) -> Self {
            Self { instructions: steps.own, library_calls: steps.calls }
        }
    }

    fn compiler() -> String {
        let output = Command::new("rustc").arg("--version").output();
        output.map_or_else(
            |_| "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }

    // ---- the cases -----------------------------------------------------------------------------------------------------

    fn count_all() -> Result<Vec<(&'static str, Steps)>, Failure> {
        let empty = counted("nothing", || true, || true)?;
        let mut all = vec![
            (
                "publish_128",
                publish(&Small { order_id: 123_456_789, status: "filled", verified: true }, 128)?,
            ),
            ("publish_414", publish(&estimate(&[HOP]), 414)?),
            ("publish_4096", publish(&estimate(&[HOP; 85]), 4096)?),
            ("shed_full", shed_full()?),
            ("closed", closed()?),
            ("not_initialized", not_initialized()?),
            ("sampled_out", sampled_out()?),
            ("drain_64", drain_64()?),
        ];
        for (_, steps) in &mut all {
            steps.own -= empty.own;
        }
        println!("of one call, the most common of {CALLS}:");
        for (case, steps) in &all {
            println!(
                "  {case:<16} {:>6} instructions, {} locked, {} fences, {} system calls, {} library calls ({} instructions there)",
                steps.own,
                steps.locked.len(),
                steps.fences.len(),
                steps.system_calls.len(),
                steps.calls,
                steps.foreign
            );
        }
        Ok(all)
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Small {
        order_id: u64,
        status: &'static str,
        verified: bool,
    }

    /// An accepted event, on a ring with room.
    fn publish(body: &impl Serialize, envelope_bytes: usize) -> Result<Steps, Failure> {
        let len = envelope_len(body);
        assert!(
            len.abs_diff(envelope_bytes) * 20 <= envelope_bytes,
            "an envelope of {len} bytes, not about {envelope_bytes}"
        );
        let mut config = Config::new("null:", "main", 1).expect("it is valid");
        config.queue.rings = Rings::Count(NonZeroUsize::MIN);
        let (bus, topic) = start(config);
        assert!((0..1_000).all(|_| topic.publish(body).is_accepted()));
        until("the worker has caught up", || bus.stats().held() == 0);
        let publish = || topic.publish(black_box(body)).is_accepted();
        // The first calls in the child wake the worker if it slept at the fork; nobody is there to sleep again.
        counted("publish", || (0..4).all(|_| publish()), publish)
    }

    /// A ring that is full, behind a window that is full.
    fn shed_full() -> Result<Steps, Failure> {
        let mut config = Config::new("nats://127.0.0.1:1", "main", 1).expect("it is valid");
        (config.queue.capacity, config.queue.max_event) = (64 << 10, 1 << 10);
        config.delivery.max_in_flight = 16;
        let (_bus, topic) = start(config);
        let body = estimate(&[HOP]);
        let publish = || topic.publish(black_box(&body)) == Offer::Dropped(Reason::QueueFull);
        until("window and ring are full", || (0..1_000).all(|_| publish()));
        counted("shed_full", publish, publish)
    }

    fn closed() -> Result<Steps, Failure> {
        let (bus, topic) = start(Config::new("null:", "main", 1).expect("it is valid"));
        let _ = bus.close(Duration::from_secs(5));
        let body = estimate(&[HOP]);
        let publish = || topic.publish(black_box(&body)) == Offer::Dropped(Reason::Closed);
        counted("closed", publish, publish)
    }

    fn not_initialized() -> Result<Steps, Failure> {
        let body = estimate(&[HOP]);
        let publish = || {
            jetring::publish(black_box("priceEstimate"), black_box(&body))
                == Offer::Dropped(Reason::NotInitialized)
        };
        counted("not_initialized", publish, publish)
    }

    /// An event of a request that the sample of its name leaves out.
    fn sampled_out() -> Result<Steps, Failure> {
        // As long as the id of a trace.
        const REQUEST: &str = "0af7651916cd43dd8448eb211c80319c";
        let (bus, topic) = start(Config::new("null:", "main", 1).expect("it is valid"));
        let mut budget = Budget::default();
        budget.sample = 100;
        bus.set_budget(topic.name(), budget).expect("it is valid");
        let body = estimate(&[HOP]);
        let publish = || topic.publish_for(black_box(REQUEST), black_box(&body)) == Offer::SampledOut;
        counted("sampled_out", publish, publish)
    }

    /// The consumer takes 64 records that are there, and looks at their first bytes.
    fn drain_64() -> Result<Steps, Failure> {
        let (ring, mut consumer) = Ring::new(4 << 20, 4096, Arc::new(Doorbell::new(|| {})));
        let record = [7; 512];
        assert!((0..64 * (CALLS + 1)).all(|_| ring.push(&[&record]).is_ok()));
        let mut drain = || consumer.drain(64, |bytes| _ = black_box(bytes[0])).records == 64;
        assert!(drain());
        counted("drain_64", || true, drain)
    }

    fn start(config: Config) -> (Bus, Topic) {
        let bus = Bus::start(config).expect("it starts");
        let topic = bus.topic("priceEstimate").expect("it is valid");
        (bus, topic)
    }

    fn counted(
        case: &str,
        prepare: impl FnMut() -> bool,
        work: impl FnMut() -> bool,
    ) -> Result<Steps, Failure> {
        let calls = steps::count(CALLS, prepare, work).map_err(|failure| match failure {
            Failure::Denied => Failure::Denied,
            Failure::Broken(why) => Failure::Broken(format!("{case}: {why}")),
        })?;
        let (steps, alike) = most_common(&calls);
        if alike < ALIKE_MIN {
            let costs: Vec<_> = calls.iter().map(|steps| (steps.own, steps.calls)).collect();
            return Err(Failure::Broken(format!(
                "{case}: only {alike} of {CALLS} calls are alike: {costs:?}"
            )));
        }
        Ok(steps.clone())
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !holds() {
            assert!(Instant::now() < deadline, "gave up waiting until {what}");
            std::thread::yield_now();
        }
    }
}
