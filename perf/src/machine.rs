//! Where and of what a record was made. No name of a host and no path in it.

use crate::server;
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;

/// The sources that decide about the figures.
const SOURCES: [&str; 6] = ["src", "Cargo.toml", "Cargo.lock", "perf/src", "perf/peers", "perf/Cargo.lock"];

/// The machine and the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) virtual_machine: bool,
    kernel: String,
    /// `unknown` where the machine does not say, as virtual ones do not.
    governor: String,
    rustc: String,
    nats_server: String,
    pub(crate) commit: String,
    /// Sources differ from the commit.
    pub(crate) modified: bool,
    pub(crate) date: String,
    /// Of the minute before the run: 0 on a quiet machine.
    pub(crate) load_before: Option<f64>,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let status: Vec<&str> = ["status", "--porcelain", "--"].into_iter().chain(SOURCES).collect();
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor ")),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            rustc: answer("rustc", &["-V"]).unwrap_or_else(unknown),
            nats_server: server::version().unwrap_or_else(unknown),
            commit: git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_else(unknown),
            modified: git(&status).is_none_or(|changes| !changes.is_empty()),
            date: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()),
        }
    }
}

/// Time on a processor of this process's newest thread of that name, in nanoseconds. `None` where the system does not tell.
///
/// The kernel brings it up to date at each of its ticks, so it may be some milliseconds behind.
pub(crate) fn thread_cpu_nanos(name: &str) -> Option<u64> {
    let newest = fs::read_dir("/proc/self/task")
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let comm = fs::read_to_string(path.join("comm")).ok()?;
            let id: u64 = path.file_name()?.to_str()?.parse().ok()?;
            (comm.trim() == name).then_some((id, path))
        })
        .max()?;
    let schedstat = fs::read_to_string(newest.1.join("schedstat")).ok()?;
    schedstat.split(' ').next()?.parse().ok()
}

fn field(cpuinfo: &str, name: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| unknown(), |text| text.trim().to_owned())
}

/// Asked from the repository's root, wherever this program was started.
fn git(arguments: &[&str]) -> Option<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    answer("git", &[&["--no-optional-locks", "-C", root], arguments].concat())
}

fn answer(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_thread_is_found_by_its_name() {
        let thread = std::thread::Builder::new().name("counted".to_owned());
        let busy = || {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 20 {}
            thread_cpu_nanos("counted")
        };
        let nanos = thread.spawn(busy).unwrap().join().unwrap();
        assert!(nanos.is_none_or(|nanos| nanos > 0));
        assert_eq!(thread_cpu_nanos("there is none"), None);
    }
}
