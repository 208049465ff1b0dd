//! What came of a scenario, counted; and whether that is what its row in the table says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jetring::audit::Audit;
use jetring::envelope::Envelope;
use jetring::{Reason, Report};
use serde::{Deserialize, Serialize};

use crate::support::Numbered;
use crate::table::Fault;

/// A departure from "each event is stored once, in order, and acknowledged".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flaw {
    /// The ledger says that it is stored, and it is not.
    Lost,
    /// It is not stored, and no gap report says so.
    Undeclared,
    Duplicated,
    Reordered,
    Indeterminate,
    Dropped(Reason),
}

/// As much as one wants to read.
const EVIDENCE_MAX: usize = 6;

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) fault: String,
    pub(crate) engine: String,
    pub(crate) server: String,
    pub(crate) offered: u64,
    pub(crate) acked: u64,
    pub(crate) dropped: BTreeMap<String, u64>,
    pub(crate) indeterminate: u64,
    /// Distinct events in the stream.
    pub(crate) stored: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) undeclared: u64,
    /// Connections after the first one.
    pub(crate) reconnects: u64,
    /// Messages that were tried again.
    pub(crate) retries: u64,
    /// From the end of the cause to the next acknowledgement; the longest of the row's troubles.
    pub(crate) recovery_ms: u64,
    /// From the end of the cause until what had gathered is delivered.
    pub(crate) caught_up_ms: u64,
    pub(crate) seconds: f64,
    /// The first events that stand in the wrong place, for who looks for the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) evidence: Vec<String>,
    /// `exact`, `as said` (drops or doubts that the table allows), or what is wrong.
    pub(crate) verdict: String,
}

impl Outcome {
    /// Takes in the ledger's last words.
    pub(crate) fn add_report(&mut self, report: &Report) {
        let stats = &report.stats;
        (self.offered, self.acked, self.indeterminate) = (stats.offered, stats.acked, stats.indeterminate);
        let dropped = stats.dropped.iter().filter(|&(_, events)| events > 0);
        self.dropped = dropped.map(|(reason, events)| (reason.to_string(), events)).collect();
    }

    /// Takes in what the stream holds, by the bodies and by the stamps; the two must agree.
    ///
    /// # Panics
    ///
    /// If they don't, or a message is no envelope.
    pub(crate) fn add_messages(&mut self, messages: &[(u64, String, Vec<u8>)], process: &str) {
        let mut audit = Audit::of_process(process);
        let (mut seen, mut last) = (HashSet::new(), HashMap::new());
        for (sequence, subject, payload) in messages {
            audit.observe(payload);
            if subject.contains("._bus.") {
                continue;
            }
            let envelope =
                Envelope::parse(payload).unwrap_or_else(|error| panic!("message {sequence}: {error}"));
            let event: Numbered = serde_json::from_str(envelope.body.get()).expect("our own body");
            let place = format!("message {sequence}: thread {} number {}", event.thread, event.number);
            if !seen.insert((event.thread, event.number)) {
                self.duplicates += 1;
                self.note(format!("{place} again"));
                continue;
            }
            let highest = last.entry(event.thread).or_insert(event.number);
            if event.number < *highest {
                self.reordered += 1;
                self.note(format!("{place} behind {highest}"));
            }
            *highest = event.number.max(*highest);
        }
        self.stored = seen.len() as u64;
        let verdict = audit.verdict();
        assert_eq!((verdict.unreadable, verdict.delivered), (0, self.stored), "{verdict:?}");
        assert_eq!(verdict.duplicates, self.duplicates, "{verdict:?}");
        // Threads that share a ring share its order, so the audit may see more than the threads do.
        assert!(verdict.reordered >= self.reordered, "{verdict:?}");
        self.reordered = verdict.reordered;
        self.undeclared = verdict.lost_undeclared;
    }

    fn note(&mut self, evidence: String) {
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(evidence);
        }
    }

    fn flaws(&self, fault: &Fault) -> BTreeSet<Flaw> {
        let mut flaws: BTreeSet<Flaw> = Reason::ALL
            .into_iter()
            .filter(|reason| self.dropped.contains_key(reason.as_str()))
            .map(Flaw::Dropped)
            .collect();
        // What is stored of a stream that was deleted meanwhile says nothing of what was acknowledged before.
        let is_lost = self.stored < self.acked && !fault.deletes_the_stream();
        for (is_there, flaw) in [
            (is_lost, Flaw::Lost),
            (self.undeclared > 0, Flaw::Undeclared),
            (self.duplicates > 0, Flaw::Duplicated),
            (self.reordered > 0, Flaw::Reordered),
            (self.indeterminate > 0, Flaw::Indeterminate),
        ] {
            if is_there {
                flaws.insert(flaw);
            }
        }
        flaws
    }

    /// Judges it by the row. The verdict is noted either way.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(crate) fn judge(&mut self, fault: &Fault) -> Result<(), String> {
        let required: BTreeSet<Flaw> = fault.required.iter().copied().collect();
        let found = self.flaws(fault);
        let one_by_one = if self.engine == "async" { fault.allowed_one_by_one } else { &[] };
        let is_said = |flaw: &Flaw| {
            required.contains(flaw) || fault.allowed.contains(flaw) || one_by_one.contains(flaw)
        };
        let mut wrong: Vec<String> =
            found.iter().filter(|&flaw| !is_said(flaw)).map(|flaw| format!("{flaw:?}")).collect();
        wrong
            .extend(required.difference(&found).map(|flaw| format!("no {flaw:?}, which the table requires")));
        if fault.is_felt && self.reconnects + self.retries == 0 {
            wrong.push("the bus has felt nothing of the fault".to_owned());
        }
        self.verdict = if !wrong.is_empty() {
            wrong.join(", ")
        } else if found.is_empty() {
            "exact".to_owned()
        } else {
            "as said".to_owned()
        };
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{self:#?}", self.verdict)) }
    }
}
