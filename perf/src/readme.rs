//! Puts the figures of the records into the README of the repository, between two marks, so that no figure there was typed by hand.

use crate::histogram::Spread;
use crate::plan::{Plan, QUEUE_ONLY};
use crate::record::{Cell, Record};
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- perf:begin -->";
const END: &str = "<!-- perf:end -->";

const PRODUCERS: [usize; 5] = [1, 2, 4, 16, 64];

/// Writes the README's block anew, or, to `check`, fails if that would change it.
pub(crate) fn update(records: &Path, readme: &Path, check: bool) -> Result<()> {
    let publish = Record::load(records, Plan::Publish)?;
    let throughput = Record::load(records, Plan::Throughput)?;
    let outage = Record::load(records, Plan::Outage)?;
    Block { begin: BEGIN, end: END, text: block(&publish, &throughput, &outage)? }.update(readme, check)
}

/// What stands between two marks of a file.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) begin: &'static str,
    pub(crate) end: &'static str,
    pub(crate) text: String,
}

impl Block {
    /// Writes it, or, to `check`, fails if that would change the file.
    pub(crate) fn update(&self, readme: &Path, check: bool) -> Result<()> {
        let text = std::fs::read_to_string(readme).context("reading README.md")?;
        let wanted = self.put_into(&text)?;
        if wanted == text {
            return Ok(());
        }
        if check {
            bail!(
                "a README.md does not say what the records say; `cargo run --release -- readme` in perf/ writes it"
            );
        }
        std::fs::write(readme, wanted).context("writing README.md")
    }

    /// The text with what is between the marks replaced.
    fn put_into(&self, text: &str) -> Result<String> {
        let Self { begin, end, text: block } = self;
        let (before, rest) = text.split_once(begin).with_context(|| format!("README.md has no {begin}"))?;
        let (_, after) =
            rest.split_once(end).with_context(|| format!("README.md has no {end} behind {begin}"))?;
        ensure!(!after.contains(begin), "README.md has {begin} twice");
        Ok(format!("{before}{begin}\n{block}\n{end}{after}"))
    }
}

fn block(publish: &Record, throughput: &Record, outage: &Record) -> Result<String> {
    let parts = [
        preface(publish)?,
        calls(publish)?,
        queues(publish)?,
        plot("service", "Distribution of the duration of a publish, jetring beside its peers"),
        plot("response", "Distribution of the response time of the same calls"),
        servers(outage)?,
        plot(
            "outage",
            "Distribution of the duration of a publish with the server up, killed, frozen, restarting",
        ),
        rates(throughput, "flood", "accepted each second (dropped), where nobody waits")?,
        crowds(throughput)?,
        rates(throughput, "deliver", "delivered each second, where each thread waits for room")?,
        deliveries(throughput)?,
        plot("throughput", "Events accepted each second by number of producing threads"),
        worker(publish, throughput)?,
    ];
    Ok(parts.map(|part| part.trim_end().to_owned()).join("\n\n"))
}

fn plot(name: &str, text: &str) -> String {
    format!("![{text}](perf/plots/{name}.svg)")
}

fn preface(record: &Record) -> Result<String> {
    let machine = &record.machine;
    let control = record.cell("paced-1", "control")?.service.as_ref().context("calls were timed")?;
    Ok(format!(
        "`make perf` on {} {}cores of {}, which producers, workers and server share: compare the ratios. Medians of {} interleaved \
         repetitions, in brackets the least and the greatest; commit {}{}, {}. Two readings of the clock with nothing between them take \
         {} (p50), and the loop without a call {} (p50), {} (p99.9), {} (max). The records, and how to read them: \
         [perf/](perf/README.md).",
        machine.cores,
        if machine.virtual_machine { "virtual " } else { "" },
        machine.cpu,
        record.repetitions,
        machine.commit,
        if machine.modified { " with changes" } else { "" },
        machine.date,
        time(record.timer.cost.p50),
        time(control.p50.median),
        time(control.p999.median),
        time(control.max.median),
    ))
}

fn calls(record: &Record) -> Result<String> {
    let mut text =
        String::from("| publish of 414 bytes, one thread | a call | × jetring |\n| --- | --- | --- |\n");
    for (peer, name) in [
        ("jetring", "**jetring**, a struct"),
        ("jetring json", "jetring, a body that is JSON already"),
        ("original", "the original design, its task draining: a call may have to wake it"),
        ("original, polled", "the original design at its best: nobody to wake"),
        ("floor", "floor: one TSC reading, one compare-and-swap, one copy"),
    ] {
        let cell = record.cell("call-414", peer)?;
        writeln!(text, "| {name} | {} | {} |", spread(batched(cell)?), ratio(cell))?;
    }
    for (peer, name) in
        [("jetring", "jetring, refused: the ring is full"), ("original", "the original design, refused")]
    {
        let refused = batched(record.cell("full", peer)?)?;
        let accepted = batched(record.cell("call-414", "jetring")?)?;
        writeln!(text, "| {name} | {} | {:.2} |", spread(refused), refused.median / accepted.median)?;
    }
    Ok(text)
}

fn queues(record: &Record) -> Result<String> {
    let mut text = String::from(
        "| queues of the same size, one thread | carries encoded bytes | the whole job: time stamp, `serde_json`, queue | × jetring |\n\
         | --- | --- | --- | --- |\n",
    );
    let mut queues: Vec<&Cell> = record.group("call-414").filter(|cell| cell.job == QUEUE_ONLY).collect();
    queues.sort_by_key(|cell| (!is_ours(cell), cell.peer.to_lowercase()));
    for ready in queues {
        let (queue, bytes) = (&ready.peer, spread(batched(ready)?));
        if is_ours(ready) {
            writeln!(text, "| {queue}: ours, without the bus | {bytes} | | |")?;
            continue;
        }
        let encoding = record.cell("call-414", &format!("{queue} + encode"))?;
        writeln!(text, "| {queue} | {bytes} | {} | {} |", spread(batched(encoding)?), ratio(encoding))?;
    }
    Ok(text)
}

fn servers(record: &Record) -> Result<String> {
    let mut text = String::from(
        "| 414 bytes to a nats-server, one thread | p50 | p99 | p99.9 | accepted calls: p50 | p99 | dropped |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (group, state) in [
        ("up-slow", "every 20 µs, up"),
        ("restarting-slow", "every 20 µs, restarting"),
        ("up", "every 2 µs, up"),
        ("down", "every 2 µs, killed"),
        ("stalled", "every 2 µs, frozen"),
        ("restarting", "every 2 µs, restarting"),
    ] {
        for peer in ["jetring", "original"] {
            let cell = record.cell(group, peer)?;
            let all = cell.service.as_ref().context("calls were timed")?;
            let accepted = cell.service_accepted.as_ref().unwrap_or(all);
            writeln!(
                text,
                "| {peer}, {state} | {} | {} | {} | {} | {} | {} |",
                time(all.p50.median),
                time(all.p99.median),
                time(all.p999.median),
                time(accepted.p50.median),
                time(accepted.p99.median),
                share(cell),
            )?;
        }
    }
    Ok(text)
}

/// What got through, by threads, in the groups whose names begin so.
fn rates(record: &Record, load: &str, what: &str) -> Result<String> {
    let heads: String = PRODUCERS.iter().map(|producers| format!(" {producers} |")).collect();
    let mut text = format!(
        "| 414 bytes back to back: thousands {what}, by threads |{heads}\n| --- |{}\n",
        " --- |".repeat(PRODUCERS.len())
    );
    let first = format!("{load}-1");
    let mut peers: Vec<&Cell> = record.group(&first).collect();
    // Those who do the whole job first; jetring stands at the head of them.
    peers.sort_by_key(|cell| cell.job != "whole");
    for peer in peers {
        write!(text, "| {}, {} |", peer.peer, peer.job)?;
        for producers in PRODUCERS {
            let cell = record.cell(&format!("{load}-{producers}"), &peer.peer)?;
            let lost = if cell.dropped == 0 { String::new() } else { format!(" ({})", share(cell)) };
            write!(text, " {}{lost} |", thousands(accepted(cell)?))?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// What the claims about a crowd that loses nothing rest upon.
fn deliveries(record: &Record) -> Result<String> {
    let rate = |producers| accepted(record.cell(&format!("deliver-{producers}"), "jetring")?);
    let ratio = rate(16)?.median / rate(2)?.median;
    let faster = faster_than(record, "deliver", "jetring")?;
    Ok(format!(
        "With 16 threads jetring delivers {ratio:.2} times as many as with 2. Who delivered more than jetring: {faster}."
    ))
}

/// What is the same for all who do the whole job, and what is not.
const WHOLE: &str =
    "the whole job (their consumers drop each event; its worker renders, numbers and accounts for it)";

/// What the claims about crowds of threads rest upon: how many calls there were, and who accepted more than we did.
fn crowds(record: &Record) -> Result<String> {
    let mut text = String::from("Calls in a second, by thousands:");
    let mut rivals = String::new();
    for (peer, job) in [("jetring", WHOLE), ("jetring ring", "the job of a queue only")] {
        // A record that was made before the peer was there says nothing of it.
        if record.cell("flood-2", peer).is_err() {
            continue;
        }
        write!(text, " {peer},")?;
        for (producers, end) in [(2, ","), (16, ";")] {
            let cell = record.cell(&format!("flood-{producers}"), peer)?;
            let offered = cell.offered_per_second.context("a flood has a rate")?;
            let (offered, accepted) = (thousands(offered), thousands(accepted(cell)?));
            write!(text, " {producers} threads: {offered} offered, {accepted} accepted{end}")?;
        }
        write!(rivals, " Who accepted more than {peer} at {job}: {}.", faster_than(record, "flood", peer)?)?;
    }
    Ok(format!("{}.{rivals}", text.trim_end_matches(';')))
}

/// Those of others that accepted more at the same job, by number of producers.
fn faster_than(record: &Record, load: &str, peer: &str) -> Result<String> {
    let mut parts = Vec::new();
    for producers in PRODUCERS {
        let group = format!("{load}-{producers}");
        let ours = record.cell(&group, peer)?;
        let mut faster = Vec::new();
        for cell in record.group(&group).filter(|cell| cell.job == ours.job && !is_ours(cell)) {
            let times = accepted(cell)?.median / accepted(ours)?.median;
            if times > 1.0 {
                faster.push(format!("{} ({times:.2} times)", cell.peer));
            }
        }
        if !faster.is_empty() {
            let threads = if producers == 1 { "thread" } else { "threads" };
            parts.push(format!("with {producers} {threads} {}", faster.join(", ")));
        }
    }
    Ok(if parts.is_empty() { "nobody".to_owned() } else { parts.join("; ") })
}

fn worker(publish: &Record, throughput: &Record) -> Result<String> {
    let full = publish.cell("full", "jetring")?;
    let (refused, serialized) = full.refused_and_serialized.context("refused calls were watched")?;
    let flood = throughput.cell("flood-1", "jetring")?;
    let rate = flood.consumed_per_second.context("the consumer was watched")?;
    let cpu = flood.consumer_cpu_nanos_per_event.context("the consumer was watched")?;
    Ok(format!(
        "The worker takes {:.0} thousand events of 414 bytes a second out of a ring that one thread floods, to a sink that throws them \
         away, with {} of processor time for each. Of {refused} publishes into a full ring {serialized} called the body's `Serialize`.",
        rate.median / 1e3,
        spread(cpu),
    ))
}

fn batched(cell: &Cell) -> Result<Spread> {
    cell.batched.with_context(|| format!("{} of {} was not measured in batches", cell.group, cell.peer))
}

fn accepted(cell: &Cell) -> Result<Spread> {
    cell.accepted_per_second.with_context(|| format!("{} of {} was not a flood", cell.group, cell.peer))
}

fn is_ours(cell: &Cell) -> bool {
    cell.peer.starts_with("jetring")
}

fn ratio(cell: &Cell) -> String {
    cell.times_jetring.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))
}

fn share(cell: &Cell) -> String {
    match 100.0 * cell.dropped_share.median {
        0.0 => "0 %".to_owned(),
        percent if percent < 1.0 => format!("{percent:.2} %"),
        percent if percent > 99.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

fn thousands(rate: Spread) -> String {
    format!("{:.0}", rate.median / 1e3)
}

fn spread(spread: Spread) -> String {
    format!("{} ({}–{})", time(spread.median), bare(spread.min), bare(spread.max))
}

fn bare(nanos: f64) -> String {
    if nanos < 10.0 { format!("{nanos:.1}") } else { format!("{nanos:.0}") }
}

fn time(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 1e4 => format!("{} ns", bare(nanos)),
        nanos if nanos < 1e6 => format!("{:.0} µs", nanos / 1e3),
        nanos => format!("{:.1} ms", nanos / 1e6),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::record::tests::record;

    fn replaced(text: &str) -> Result<String> {
        Block { begin: BEGIN, end: END, text: "new\nlines".to_owned() }.put_into(text)
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced_and_doing_it_again_changes_nothing() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let once = replaced(&text).unwrap();
        assert_eq!(once, format!("before\n{BEGIN}\nnew\nlines\n{END}\nafter\n"));
        assert_eq!(replaced(&once).unwrap(), once);
    }

    #[test]
    fn a_readme_without_its_marks_is_left_alone() {
        for text in ["nothing", BEGIN, END, &format!("{END} {BEGIN}"), &format!("{BEGIN}{END}{BEGIN}")] {
            assert!(replaced(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_stale_readme_is_found_and_one_that_was_written_is_not() {
        let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("record");
        let directory = tempfile::tempdir().unwrap();
        let readme = directory.path().join("README.md");
        std::fs::write(&readme, format!("{BEGIN}\n{END}\n")).unwrap();
        assert!(update(&records, &readme, true).is_err());
        update(&records, &readme, false).unwrap();
        update(&records, &readme, true).unwrap();
        let text = std::fs::read_to_string(&readme).unwrap();
        assert!(text.contains("**jetring**") && text.contains("perf/plots/throughput.svg"), "{text}");
    }

    #[test]
    fn whoever_accepts_more_than_we_at_the_same_job_is_named_and_nobody_else() {
        let cell = |producers: usize, peer: &str, job: &str, rate: f64| Cell {
            group: format!("flood-{producers}"),
            peer: peer.to_owned(),
            job: job.to_owned(),
            offered_per_second: Some(Spread::of([rate * 2.0])),
            accepted_per_second: Some(Spread::of([rate])),
            ..Cell::default()
        };
        let floods = |producers| {
            let rival = if producers == 16 { 3e6 } else { 1e6 };
            [
                cell(producers, "jetring", "whole", 1e6),
                cell(producers, "jetring ring", QUEUE_ONLY, 2e6),
                cell(producers, "slow", QUEUE_ONLY, 1e6),
                cell(producers, "rival", QUEUE_ONLY, rival),
                cell(producers, "rival + encode", "whole", rival / 4.0),
            ]
        };
        let record = record(Plan::Throughput, PRODUCERS.into_iter().flat_map(floods).collect());
        assert_eq!(
            crowds(&record).unwrap(),
            format!(
                "Calls in a second, by thousands: \
                 jetring, 2 threads: 2000 offered, 1000 accepted, 16 threads: 2000 offered, 1000 accepted; \
                 jetring ring, 2 threads: 4000 offered, 2000 accepted, 16 threads: 4000 offered, 2000 accepted. \
                 Who accepted more than jetring at {WHOLE}: nobody. \
                 Who accepted more than jetring ring at the job of a queue only: with 16 threads rival (1.50 times)."
            )
        );
    }

    #[test]
    fn a_crowd_that_loses_nothing_is_compared_with_a_pair() {
        let cell = |producers: usize, peer: &str, rate: f64| Cell {
            group: format!("deliver-{producers}"),
            peer: peer.to_owned(),
            job: "whole".to_owned(),
            accepted_per_second: Some(Spread::of([rate])),
            ..Cell::default()
        };
        let crowd = |producers| {
            let ours = if producers == 16 { 3e6 } else { 2e6 };
            [
                cell(producers, "jetring", ours),
                cell(producers, "rival", if producers == 4 { 2.5e6 } else { 1e6 }),
            ]
        };
        let record = record(Plan::Throughput, PRODUCERS.into_iter().flat_map(crowd).collect());
        assert_eq!(
            deliveries(&record).unwrap(),
            "With 16 threads jetring delivers 1.50 times as many as with 2. \
             Who delivered more than jetring: with 4 threads rival (1.25 times)."
        );
    }

    #[test]
    fn times_have_as_many_digits_as_they_are_worth() {
        let texts = [7.25, 414.4, 9_999.0, 14_800.0, 2_300_000.0].map(time);
        assert_eq!(texts, ["7.2 ns", "414 ns", "9999 ns", "15 µs", "2.3 ms"]);
    }
}
