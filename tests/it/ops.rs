//! What `ops/` and the runbook say of the metrics is true: whoever is woken by an alert reads names that are there.
//!
//! Prometheus takes a rule on a metric that nobody exports without a word, and it never fires. `promtool` (`make rules`) checks the
//! syntax and runs the rules' tests, on series that the tests themselves make up; here the names are held against a bus.

use crate::support::{NO_SERVER, Scrape, bus};
use jetring::Reason;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const RECORDING: &str = "ops/prometheus/recording.yml";
const ALERTS: &str = "ops/prometheus/alerts.yml";
const RULES_TESTS: &str = "ops/prometheus/tests.yml";
const DASHBOARD: &str = "ops/grafana/jetring.json";
const RUNBOOK: &str = "docs/runbook.md";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a text that can be names of metrics, ours or recorded ones.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    text.split(|character| !is_part(character)).filter(|word| word.contains("event_bus_")).collect()
}

/// The values of a key of YAML, with a dash before it or without.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(move |line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

fn alerts() -> Vec<String> {
    let alerts: Vec<_> = values(&read(ALERTS), "alert").map(str::to_owned).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    alerts
}

#[test]
fn every_metric_that_is_watched_is_exported_or_recorded() {
    let bus = bus(NO_SERVER);
    let scrape = Scrape::of(&bus);
    let mut known: BTreeSet<String> = scrape.names().into_iter().map(str::to_owned).collect();
    let histograms = known.iter().filter(|name| name.ends_with("_seconds") || name.ends_with("batch_events"));
    let parts: Vec<_> =
        histograms.flat_map(|name| ["bucket", "sum", "count"].map(|part| format!("{name}_{part}"))).collect();
    known.extend(parts);
    known.extend(values(&read(RECORDING), "record").map(str::to_owned));
    for path in [RECORDING, ALERTS, RULES_TESTS, DASHBOARD, RUNBOOK] {
        let text = read(path);
        let named = metrics_named(&text);
        assert!(!named.is_empty(), "{path}");
        // The prefix alone stands for all.
        let unknown: Vec<_> =
            named.iter().filter(|&&name| name != "event_bus_" && !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}, which nobody exports or records");
    }
}

#[test]
fn every_reason_that_is_watched_is_one_and_the_runbook_explains_all() {
    let runbook = read(RUNBOOK);
    for reason in Reason::ALL {
        assert!(runbook.contains(&format!("\n| `{reason}` | ")), "{RUNBOOK} does not explain {reason}");
    }
    for path in [RECORDING, ALERTS, RULES_TESTS, DASHBOARD] {
        let text = read(path).replace("\\\"", "\"");
        for named in text.split("reason=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(
                Reason::ALL.iter().any(|reason| reason.as_str() == named),
                "{path} names the reason {named:?}, and there is none"
            );
        }
    }
}

#[test]
fn every_alert_leads_to_its_section_of_the_runbook() {
    let (text, runbook) = (read(ALERTS), read(RUNBOOK));
    let rules: Vec<_> = text.split("- alert: ").skip(1).collect();
    for (alert, rule) in alerts().iter().zip(rules) {
        // Where GitHub jumps to for this heading.
        let link = format!("/docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(rule.contains(&link), "{alert} is not linked to its section");
        let section = runbook.split_once(&format!("\n## {alert}\n"));
        let section = section.unwrap_or_else(|| panic!("{RUNBOOK} has no section on {alert}")).1;
        let section = section.split("\n## ").next().unwrap_or_default();
        for part in ["\n**Means** ", "\n**Look** ", "\n**Do**"] {
            assert!(section.contains(part), "{alert}: its section has no {}", part.trim());
        }
    }
    let sections = runbook.matches("\n## Jetring").count();
    assert_eq!(sections, alerts().len(), "{RUNBOOK} has sections on alerts that are not there");
    let anchors = runbook.split("](#").skip(1).filter_map(|rest| rest.split(')').next());
    for anchor in anchors {
        assert!(alerts().iter().any(|alert| alert.to_lowercase() == anchor), "{RUNBOOK} links to #{anchor}");
    }
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let text = read(RULES_TESTS);
    for alert in alerts() {
        let of_it = format!("alertname: {alert}\n");
        let cases = text.split(&of_it).skip(1);
        let quiet: Vec<_> = cases.map(|case| case.trim_start().starts_with("exp_alerts: []")).collect();
        assert!(quiet.contains(&true), "{alert}: no test says when it does not fire");
        assert!(quiet.contains(&false), "{alert}: no test says when it fires");
    }
}

#[test]
fn the_dashboard_takes_its_data_from_the_source_that_one_chooses() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let panels: Vec<_> = panels.iter().filter(|panel| panel["type"] != "row").collect();
    assert!(panels.len() > 10);
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        let targets = panel["targets"].as_array().expect("it has targets");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().expect("it is an expression");
            let chosen = "job=~\"$job\", instance=~\"$instance\"";
            assert!(expression.contains(chosen), "{}: {expression}", panel["title"]);
        }
    }
}
