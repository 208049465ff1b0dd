//! Samples, kept as they are taken: a run that was ended, or has failed, loses none.

use super::check::check;
use super::child::{Child, cpu_time, peak_mib};
use super::cluster::Cluster;
use super::peer::{Script, Told};
use super::plan::Cell;
use crate::event::NAME;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// One repetition of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) events_per_second: f64,
    pub(crate) client_cpu_us_per_event: f64,
    pub(crate) server_cpu_us_per_event: f64,
    pub(crate) client_peak_mib: f64,
    pub(crate) server_peak_mib: f64,
    pub(crate) ack_latency_us: Told,
}

/// How it stands at one moment.
struct Look {
    at: Instant,
    client: Duration,
    servers: Duration,
}

impl Look {
    fn take(client: Pid, cluster: &Cluster) -> Result<Self> {
        let at = Instant::now();
        let servers = cluster.pids().map(cpu_time).sum::<Result<_>>()?;
        Ok(Self { at, client: cpu_time(client)?, servers })
    }
}

impl Sample {
    /// Measures once, on servers of its own.
    pub(crate) fn take(cell: &Cell) -> Result<Self> {
        let cluster = Cluster::start(cell.replicas, cell.storage)?;
        let script = Script {
            url: cluster.url(),
            subject: format!("event.1.{NAME}"),
            size: cell.size.bytes(),
            events: cell.events,
            warm_up: cell.warm_up,
            every: cell.every.map_or(0, |every| every.as_micros() as u64),
            threads: cell.threads,
        };
        let mut child = Child::start(cell.peer.command()?, &script)?;
        let first = Look::take(child.pid(), &cluster)?;
        child.go()?;
        let last = Look::take(child.pid(), &cluster)?;
        let told = child.told()?;
        ensure!(told.acked == cell.events, "of {} events {} were acknowledged", cell.events, told.acked);
        let events = cell.events as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / events;
        let sample = Self {
            events_per_second: events / (last.at - first.at).as_secs_f64(),
            client_cpu_us_per_event: each(last.client - first.client),
            server_cpu_us_per_event: each(last.servers - first.servers),
            client_peak_mib: peak_mib(child.pid())?,
            server_peak_mib: cluster.pids().map(peak_mib).sum::<Result<_>>()?,
            ack_latency_us: told,
        };
        child.end()?;
        check(&cluster.url(), cell).context("the stream")?;
        Ok(sample)
    }

    pub(crate) fn in_short(&self) -> String {
        let Told { p50, p99, .. } = self.ack_latency_us;
        format!(
            "{:>8.0}/s  client {:>6.3} µs  server {:>6.3} µs  p50 {p50:>8.0} µs  p99 {p99:>8.0} µs  {:>5.0} and {:>5.0} MiB",
            self.events_per_second,
            self.client_cpu_us_per_event,
            self.server_cpu_us_per_event,
            self.client_peak_mib,
            self.server_peak_mib,
        )
    }
}

/// The samples of this program.
#[derive(Debug)]
pub(crate) struct Samples {
    /// As it was before the first of them.
    pub(crate) machine: Machine,
    /// Of this program: the hash of its bytes.
    program: u64,
    file: File,
    all: Vec<Line>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    program: u64,
    group: String,
    peer: String,
    repetition: usize,
    sample: Sample,
}

impl Samples {
    /// Those that are kept in the directory; what another program has left there does not count.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("e2e-samples.jsonl");
        let mut hasher = DefaultHasher::new();
        std::fs::read(std::env::current_exe()?)?.hash(&mut hasher);
        let program = hasher.finish();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A line that was being written when the machine went away is none.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let all: Vec<Line> = lines.filter(|line| line.program == program).collect();
        let machine = machine(&directory.join("e2e-machine.json"), all.is_empty())?;
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self { machine, program, file, all })
    }

    pub(crate) fn has(&self, cell: &Cell, repetition: usize) -> bool {
        self.of(cell).any(|line| line.repetition == repetition)
    }

    pub(crate) fn add(&mut self, cell: &Cell, repetition: usize, sample: Sample) -> Result<()> {
        let (group, peer) = (cell.group.to_owned(), cell.peer.to_string());
        let line = Line { program: self.program, group, peer, repetition, sample };
        writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
        self.all.push(line);
        Ok(())
    }

    /// A cell's samples by their repetitions.
    pub(crate) fn get(&self, cell: &Cell, repetitions: usize) -> Vec<&Sample> {
        let mut lines: Vec<&Line> = self.of(cell).filter(|line| line.repetition <= repetitions).collect();
        lines.sort_by_key(|line| line.repetition);
        lines.into_iter().map(|line| &line.sample).collect()
    }

    fn of(&self, cell: &Cell) -> impl Iterator<Item = &Line> {
        let peer = cell.peer.to_string();
        self.all.iter().filter(move |line| line.group == cell.group && line.peer == peer)
    }
}

/// Describes the machine, or says how it was described when the samples began.
fn machine(path: &Path, is_new: bool) -> Result<Machine> {
    if !is_new {
        return serde_json::from_str(&std::fs::read_to_string(path)?).context("the machine of the samples");
    }
    let machine = Machine::describe();
    std::fs::write(path, serde_json::to_string(&machine)?)?;
    Ok(machine)
}
