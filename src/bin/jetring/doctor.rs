//! `jetring doctor`: whether server, account, stream and credentials are fit for this configuration, before or while a bus runs.
//!
//! ```text
//!   gather ──► Facts ──► server, stream, permission, hygiene ──► Finding, Finding, … ──► print
//!   asks, and changes nothing      judge, and ask nobody                                  text, JSON, exit status
//! ```
//!
//! A finding says what is, with its number, and where something is to be done also why it matters and what to do. Its id is a
//! contract: scripts look for it.
//!
//! | id | of |
//! | --- | --- |
//! | `server.*` | `reach`, `round-trip`, `version`, `max-payload` |
//! | `account.*`, `clock.*` | `jetstream` (enabled, heard, with room); `skew` |
//! | `connection.*`, `auth.*` | `tls`; `url`, `file` |
//! | `spool.*` | `leftovers` |
//! | `stream.*` | `exists`, `subjects`, `sealed`, `mirror`, `no-ack`, `engine`, `replicas`, `storage`, `persist-mode`, `ack`, `retention`, `discard`, `limits`, `max-msg-size`, `duplicate-window`, `transform` |
//! | `permission.*` | `publish`, `read-back`, `consume` |
//!
//! With `--json`: `{"verdict":"<worst severity>","errors":n,"warnings":n,"findings":[{"id","severity","streams","what","why","do"}]}`,
//! where `streams`, `why` and `do` are left out when there is nothing to say.

mod finding;
mod gather;
mod hygiene;
mod monitor;
mod permission;
mod print;
mod quantity;
mod server;
mod stream;

use crate::args;
use crate::{Failure, Outcome, Result};
use finding::{Finding, Severity};
use gather::Facts;
use jetring::{Config, Endpoint};
use std::path::Path;

pub(crate) async fn run(
    config: &Config,
    args: &args::Doctor,
    file: Option<&Path>,
    json: bool,
) -> Result<Outcome> {
    let Endpoint::Nats(servers) = &config.url else {
        return Err(Failure::Usage(format!(
            "doctor: {} has no server to look at; give --url, or see jetring spool for a directory",
            config.url
        )));
    };
    let facts = gather::gather(config, servers, args, file).await;
    let findings = examine(config, args, &facts);
    print::print(&findings, json)?;
    Ok(match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Error) => Outcome::Unfit,
        Some(Severity::Warning) => Outcome::Loss,
        Some(Severity::Ok | Severity::Note) | None => Outcome::Well,
    })
}

/// All that there is to say, from the outside inwards.
fn examine(config: &Config, args: &args::Doctor, facts: &Facts) -> Vec<Finding> {
    let mut findings = server::examine(config, facts);
    findings.extend(hygiene::examine(facts));
    findings.extend(hygiene::leftovers(config));
    if let Some(server) = facts.server() {
        for sight in &facts.streams {
            findings.extend(stream::examine(config, args, server, facts, sight));
            findings.extend(permission::examine(args, sight));
        }
    }
    finding::together(findings)
}
