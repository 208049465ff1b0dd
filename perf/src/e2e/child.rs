//! A client as a process of its own: started, given its word, looked at from outside.

use super::peer::Script;
use super::peer::{DONE, GO, READY, Told};
use anyhow::{Context, Result, bail, ensure};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// How long a client may take for its warm-up, and for its events.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running client. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    words: ChildStdin,
    lines: Receiver<String>,
}

impl Child {
    /// Starts it, and waits until it is warm.
    pub(crate) fn start(mut command: Command, script: &Script) -> Result<Self> {
        command.args(script.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let words = process.stdin.take().context("its input is a pipe")?;
        let lines = follow(process.stdout.take().context("its output is a pipe")?);
        let mut child = Self { process, words, lines };
        child.expect(READY)?;
        Ok(child)
    }

    /// Has it publish, and returns when all is acknowledged.
    pub(crate) fn go(&mut self) -> Result<()> {
        writeln!(self.words, "{GO}")?;
        self.expect(DONE)
    }

    /// What it tells of itself.
    pub(crate) fn told(&mut self) -> Result<Told> {
        serde_json::from_str(&self.line()?).context("what the client tells")
    }

    /// Lets it end.
    pub(crate) fn end(mut self) -> Result<()> {
        writeln!(self.words, "end")?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the client ended with {status}");
        Ok(())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.line()?;
        if line == word { Ok(()) } else { bail!("the client said {line:?} and not {word:?}") }
    }

    fn line(&mut self) -> Result<String> {
        self.lines.recv_timeout(PATIENCE).context("the client has ended, or says nothing")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Neither does anything to one that has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Its lines as they come, so that we can wait for them with a limit.
fn follow(output: ChildStdout) -> Receiver<String> {
    let (lines, received) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| lines.send(line))
    });
    received
}

/// What a process has used of the processors since its start, its threads that have ended included.
pub(crate) fn cpu_time(pid: Pid) -> Result<Duration> {
    let clock: ClockId = clock_getcpuclockid(pid).with_context(|| format!("the clock of process {pid}"))?;
    Ok(clock.now()?.into())
}

/// The most memory that a process has had, in MiB.
pub(crate) fn peak_mib(pid: Pid) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("VmHWM")?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn another_process_is_seen_to_work_and_to_have_memory() {
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = Pid::from_raw(busy.id() as i32);
        let start = std::time::Instant::now();
        let mut used = Duration::ZERO;
        while used < Duration::from_millis(20) && start.elapsed() < Duration::from_secs(20) {
            used = cpu_time(pid).unwrap();
        }
        let memory = peak_mib(pid).unwrap();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(used >= Duration::from_millis(20) && memory > 0.1, "{used:?}, {memory} MiB");
    }
}
