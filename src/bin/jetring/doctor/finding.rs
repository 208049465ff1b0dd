//! A finding, and how those of several streams are put together.

use serde::Serialize;

/// How much a finding matters; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Nothing is wrong, and one should know it.
    Note,
    /// It works, and something will be lost, late or unseen in a case that happens.
    Warning,
    /// Events are lost, or nothing can be sent.
    Error,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// `<thing>.<aspect>`; stays as it is from version to version.
    pub(super) id: &'static str,
    pub(super) severity: Severity,
    /// The streams that it is about, if it is about any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) streams: Vec<String>,
    /// What is, in a sentence with its number.
    pub(super) what: String,
    /// Why it matters. Empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    /// What to do. Empty where there is nothing to be done.
    #[serde(rename = "do", skip_serializing_if = "String::is_empty")]
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn new(id: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        let (streams, why, remedy) = (Vec::new(), String::new(), String::new());
        Self { id, severity, streams, what: what.into(), why, remedy }
    }

    pub(super) fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, what)
    }

    pub(super) fn note(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Note, what)
    }

    pub(super) fn warning(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, what)
    }

    pub(super) fn error(id: &'static str, what: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, what)
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(super) fn of(mut self, stream: &str) -> Self {
        self.streams = vec![stream.to_owned()];
        self
    }
}

/// Says once what is the same for several streams, at the place of the first.
pub(super) fn together(findings: Vec<Finding>) -> Vec<Finding> {
    let mut all: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        let is_same = |other: &&mut Finding| {
            !finding.streams.is_empty()
                && !other.streams.is_empty()
                && (other.id, other.severity, &other.what, &other.why, &other.remedy)
                    == (finding.id, finding.severity, &finding.what, &finding.why, &finding.remedy)
        };
        match all.iter_mut().find(is_same) {
            Some(other) => other.streams.extend(finding.streams),
            None => all.push(finding),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_for_several_streams_is_said_once() {
        let memory = |stream| Finding::warning("stream.storage", "in memory").of(stream);
        let findings = vec![
            Finding::ok("server.reach", "here"),
            memory("main-0"),
            Finding::ok("stream.exists", "3 messages").of("main-0"),
            memory("main-1"),
            Finding::ok("stream.exists", "4 messages").of("main-1"),
        ];
        let together = together(findings);
        let streams: Vec<_> = together.iter().map(|finding| finding.streams.join(" ")).collect();
        assert_eq!(streams, ["", "main-0 main-1", "main-0", "main-1"]);
    }

    #[test]
    fn the_worst_severity_is_the_greatest() {
        let mut all = [Severity::Error, Severity::Ok, Severity::Warning, Severity::Note];
        all.sort();
        assert_eq!(all.map(Severity::as_str), ["ok", "note", "warning", "error"]);
    }
}
