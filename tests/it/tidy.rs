//! What must not be in the sources. Each rule stands in ARCHITECTURE.md as an absence; here it is looked for.
//!
//! The checks read text, not syntax: comments, texts in quotes and test modules are cut off first, and what is left of a line
//! must not have the word. That can be fooled, but hardly by accident.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file that one still reads in one go, its tests not counted.
const LINES_MAX: usize = 650;

#[test]
fn unsafe_code_is_in_four_places_only() {
    forbid("unsafe", &word("unsafe"), |path| {
        path.starts_with("ring/") || ["encode/buffer.rs", "clock/tsc.rs", "fork.rs"].contains(&path)
    });
}

#[test]
fn atomics_and_model_checkers_are_named_in_sync_only() {
    let is_named =
        |line: &str| ["loom::", "shuttle::", "sync::atomic"].iter().any(|name| line.contains(name));
    forbid("loom::, shuttle:: or std::sync::atomic", &is_named, |path| path == "sync.rs");
}

/// A worker must not wait for a scraper, and a publisher for nobody. A budget's lock is for who sets budgets; the one of `fork.rs` for who starts a
/// bus or forks.
#[test]
fn locks_are_not_on_the_way_of_an_event() {
    let may = ["budget.rs", "fork.rs", "sync.rs", "spool/storage/memory.rs", "ring/crowds.rs"];
    for lock in ["Mutex", "RwLock", "Condvar"] {
        forbid(lock, &word(lock), |path| may.contains(&path) || path.starts_with("testing"));
    }
    // Its waiters are behind a lock.
    forbid("Notify", &word("Notify"), |path| {
        ["sync.rs", "sink/null.rs"].contains(&path) || path.starts_with("testing")
    });
}

/// Models are tests, so the rule above does not look at them; they must be the ring's models and not a checker's.
#[test]
fn models_reach_their_checker_through_sync() {
    let models = all_sources().into_iter().filter(|source| is_model(&source.path));
    let checked = models.map(|source| {
        let named = source.code.iter().find(|line| line.contains("loom::") || line.contains("shuttle::"));
        assert_eq!(named, None, "src/{}", source.path);
        assert!(source.code.iter().any(|line| line.starts_with("use crate::sync::")), "src/{}", source.path);
    });
    assert_eq!(checked.count(), 3, "a file of models was renamed");
}

#[test]
fn the_nats_client_is_named_under_nats_only() {
    forbid("async_nats", &word("async_nats"), |path| path == "nats.rs" || path.starts_with("nats/"));
}

#[test]
fn the_core_of_the_publisher_has_no_clock_no_runtime_and_no_chance() {
    let core = [
        "pipeline",
        "pipeline/single",
        "pipeline/fast",
        "pipeline/look",
        "pipeline/obstacles",
        "pipeline/read_back",
        "batch",
        "engine",
        "outgoing",
        "window",
        "payloads",
        "route",
        "congestion",
        "retry",
        "reply",
        "server",
        "stamp",
    ];
    let files = core.map(|name| format!("publisher/{name}.rs"));
    let all = sources();
    assert!(files.iter().all(|file| all.iter().any(|source| source.path == *file)), "a file was renamed");
    for banned in ["Instant::now", "timer", "SystemTime::now", "Timestamp::now", "tokio", "rand"] {
        forbid(banned, &word(banned), |path| !files.iter().any(|file| file == path));
    }
}

#[test]
fn the_timeline_has_no_clock() {
    for banned in ["Instant", "SystemTime", "Timestamp::now", "tsc", "Clock"] {
        forbid(banned, &word(banned), |path| path != "clock/timeline.rs");
    }
}

#[test]
fn the_ring_knows_nothing_of_ours_but_sync() {
    let is_ours = |line: &str| line.split("crate::").skip(1).any(|rest| !rest.starts_with("sync"));
    forbid("crate:: other than crate::sync", &is_ours, |path| {
        path != "ring.rs" && !path.starts_with("ring/")
    });
}

/// A generator in memory is the same in all children of a process.
#[test]
fn chance_comes_from_the_operating_system() {
    forbid("rand", &word("rand"), |path| path == "entropy.rs" || path.starts_with("bin/"));
}

/// Who catches a panic has its payload, whose `Drop` may panic as well.
#[test]
fn panics_are_caught_in_one_place_and_those_of_futures_in_another() {
    forbid("catch_unwind", &word("catch_unwind"), |path| {
        ["foreign.rs", "nats/sink.rs"].contains(&path) || path.starts_with("publisher/sim")
    });
}

#[test]
fn the_tool_uses_the_public_interface_only() {
    forbid("__internals", &word("__internals"), |path| !path.starts_with("bin/"));
}

#[test]
fn nothing_is_left_to_be_done() {
    let is_left = |line: &str| {
        let is_marked = |mark| line.contains(mark);
        ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("].iter().any(is_marked)
    };
    for source in all_sources() {
        let found = source.text.lines().position(is_left);
        assert!(found.is_none(), "src/{}:{}", source.path, found.unwrap_or(0) + 1);
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for source in sources() {
        let lines = source.code.len();
        assert!(
            lines <= LINES_MAX,
            "src/{} has {lines} lines besides its tests; {LINES_MAX} is the limit",
            source.path
        );
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    let text = r##"//! unsafe
        let a = "unsafe"; // unsafe
        #![deny(unsafe_code)]
        unsafe { b() }
        let url = "nats://a \" b"; unsafe { c('"') };
#[cfg(all(test, not(x)))]
mod tests {
        unsafe { d() }
"##;
    let code = without_tests_and_comments(text);
    let is_unsafe = word("unsafe");
    let found: Vec<_> = (1..).zip(&code).filter(|(_, line)| is_unsafe(line)).map(|(at, _)| at).collect();
    assert_eq!((found, code.len()), (vec![4, 5], 5));
    assert!(sources().len() > 30);
}

/// No line of the sources is of this kind, but in the files that `may` have it.
#[track_caller]
fn forbid(what: &str, is_found: &dyn Fn(&str) -> bool, may: impl Fn(&str) -> bool) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !may(&source.path)) {
        let lines = (1..).zip(&source.code).filter(|(_, line)| is_found(line));
        found.extend(lines.map(|(number, line)| format!("src/{}:{number}: {line}", source.path)));
    }
    assert!(found.is_empty(), "{what} is not allowed here:\n{}", found.join("\n"));
}

/// Whether a line has this word, not as part of a longer one.
fn word(word: &str) -> impl Fn(&str) -> bool {
    let word = word.to_owned();
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    move |line| {
        line.match_indices(&word)
            .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
    }
}

struct Source {
    /// From `src/`, with slashes.
    path: String,
    text: String,
    /// The lines up to the tests, without comments.
    code: Vec<String>,
}

/// All of `src` but files that are tests as a whole.
fn sources() -> Vec<Source> {
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/") || is_model(path);
    all_sources().into_iter().filter(|source| !is_test(&source.path)).collect()
}

/// What loom and shuttle run.
fn is_model(path: &str) -> bool {
    path.ends_with("/models.rs") || path.ends_with("/crowds.rs")
}

fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let source = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let path =
            file.strip_prefix(&root).expect("the walk began there").to_string_lossy().replace('\\', "/");
        let code = without_tests_and_comments(&text);
        Source { path, text, code }
    };
    files.iter().map(source).collect()
}

/// Finds all files of Rust in a directory and below.
pub(crate) fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines before the first test module, which stands at the end of a file by our custom.
fn without_tests_and_comments(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let begins_tests = |at: &usize| {
        let is_gate = lines[*at].starts_with("#[cfg(test)]") || lines[*at].starts_with("#[cfg(all(test");
        // A gate may be followed by other attributes; what is gated must be a module with its body here.
        let gated = lines[*at..].iter().find(|line| !line.starts_with("#["));
        is_gate && gated.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    let end = (0..lines.len()).find(begins_tests).unwrap_or(lines.len());
    lines[..end].iter().map(|line| without_quotes_and_comment(line)).collect()
}

fn without_quotes_and_comment(line: &str) -> String {
    let (mut code, mut quoted) = (String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quoted, character) {
            (true, '\\') => drop(characters.next()),
            // A quote as a character is in single quotes.
            (false, '"') if code.ends_with('\'') => {}
            (_, '"') => quoted = !quoted,
            (true, _) => {}
            (false, '/') if characters.peek() == Some(&'/') => break,
            (false, _) => code.push(character),
        }
    }
    code
}
