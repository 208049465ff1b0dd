//! What the tool says of itself: the reference of the configuration, completions, manual pages.

use crate::cli::{assert_status, command, jetring, json_of, stderr, stdout};
use jetring::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// `cargo run --features cli -- config > docs/configuration.md` writes it anew.
#[test]
fn the_reference_of_the_configuration_is_what_the_tool_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let reference = fs::read_to_string(path).expect("the page is there");
    let output = jetring(&["config"], "");
    assert_status(&output, 0);
    assert!(
        stdout(&output) == reference,
        "docs/configuration.md is not what `jetring config` prints; write it anew"
    );
    for key in Config::keys() {
        assert!(stdout(&output).contains(&format!("\n## `{}`\n", key.name)), "{}", key.name);
    }
}

#[test]
fn one_key_or_one_table_can_be_asked_for() {
    let output = jetring(&["config", "queue.max_event"], "");
    assert_status(&output, 0);
    assert!(stdout(&output).starts_with("## `queue.max-event`\n"), "{}", stdout(&output));
    assert_eq!(stdout(&output).matches("## `").count(), 1);
    let output = jetring(&["config", "tls", "shutdown", "--json"], "");
    let names: Vec<_> = json_of(&output)
        .as_array()
        .expect("a list")
        .iter()
        .map(|key| key["name"].as_str().expect("a text").to_owned())
        .collect();
    let is_of_them = |name: &&str| name.starts_with("tls.") || name.starts_with("shutdown.");
    let expected: Vec<_> = Config::keys().iter().map(|key| key.name).filter(is_of_them).collect();
    assert_eq!(names, expected);
    assert!(names.len() > 4, "{names:?}");
    let output = jetring(&["config", "queue.capcity"], "");
    assert_status(&output, 2);
    assert!(stderr(&output).contains("queue.capcity is neither a key nor a table"), "{}", stderr(&output));
}

#[test]
fn the_file_to_begin_with_is_the_default_with_and_without_its_comments() {
    let output = jetring(&["config", "--toml"], "");
    assert_status(&output, 0);
    let least = Config::from_toml("event-bus.chain-id = 1").expect("it is right");
    assert_eq!(Config::from_toml(stdout(&output)).expect("it is right"), least);
    // How long to block is the other half of a choice that is not the default.
    let is_told = |line: &&str| !line.contains('…') && !line.contains("max-block");
    let told: Vec<_> =
        stdout(&output).lines().filter(is_told).map(|line| line.trim_start_matches("# ")).collect();
    assert!(told.len() > Config::keys().len() / 2, "{told:?}");
    assert_eq!(Config::from_toml(&told.join("\n")).expect("it is right"), least);
    assert_status(&jetring(&["config", "--toml", "--json"], ""), 2);
}

/// A script that the shell itself refuses would be there, and of no use.
#[test]
fn completions_come_out_for_each_shell_and_know_each_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = jetring(&["completions", shell], "");
        assert_status(&output, 0);
        for command in commands() {
            assert!(stdout(&output).contains(&command), "{shell} does not know {command}");
        }
    }
    let script = jetring(&["completions", "bash"], "");
    let checked = std::process::Command::new("bash").args(["-n", "-c", stdout(&script)]).status();
    assert!(checked.expect("bash is there").success());
    assert_status(&jetring(&["completions", "tcsh"], ""), 2);
}

#[test]
fn each_command_has_a_page_of_the_manual() {
    let dir = tempfile::tempdir().expect("a directory");
    let below = dir.path().join("man1");
    let output = jetring(&["man", below.to_str().expect("it is text")], "");
    assert_status(&output, 0);
    let written: BTreeMap<_, _> = fs::read_dir(&below)
        .expect("it was made")
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| {
            (
                path.file_name().expect("a name").to_string_lossy().into_owned(),
                fs::read_to_string(&path).expect("it is text"),
            )
        })
        .collect();
    let mut expected: BTreeSet<_> = commands().iter().map(|command| format!("jetring-{command}.1")).collect();
    expected.insert("jetring.1".to_owned());
    expected.extend(["ls", "verify", "dump", "repair"].map(|action| format!("jetring-spool-{action}.1")));
    assert!(expected.iter().all(|page| written.contains_key(page)), "{expected:?}\n{:?}", written.keys());
    for (name, page) in &written {
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{name}: {page}");
    }
    assert_eq!(stdout(&output).lines().count(), written.len());
    let printed = jetring(&["man"], "");
    assert_status(&printed, 0);
    assert_eq!(stdout(&printed), written["jetring.1"]);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let output = jetring(&["man", "/proc/nowhere"], "");
    assert_status(&output, 1);
    assert!(stderr(&output).contains("/proc/nowhere: "), "{}", stderr(&output));
}

/// The commands, as the tool's help lists them.
fn commands() -> Vec<String> {
    let output = command(&["--help"]).output().expect("the tool runs");
    let help = stdout(&output);
    let listed = help.split_once("Commands:\n").expect("it lists its commands").1;
    let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        // What goes on with a description is indented further.
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    let names: Vec<_> = names.collect();
    assert!(names.len() > 8, "{names:?}");
    names
}
