//! What README, guide and runbook point to is there: files, headings, tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tidy::walk;

/// Where the pages are that people read, from the root of the repository.
const PAGES: [&str; 4] = [".", "docs", "docs/guide", "perf"];

/// Pages whose tables name the tests that hold what they say.
const WITH_TESTS: [&str; 3] = ["docs/guide/promises.md", "docs/guide/what-happens-when.md", "docs/faults.md"];

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for page in pages() {
        let text = read(&page);
        for link in links_of(&text).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().expect("a page is in a directory").join(file),
            };
            assert!(root().join(&target).exists(), "{} links to {link}, and there is none", page.display());
            if !heading.is_empty() {
                let there = anchors_of(&read(&target));
                assert!(
                    there.contains(heading),
                    "{} links to {link}, and there is no such heading",
                    page.display()
                );
            }
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links were found");
}

#[test]
fn every_page_of_the_guide_is_in_its_list() {
    let list = read(Path::new("docs/guide/README.md"));
    for page in pages().iter().filter(|page| page.starts_with("docs/guide")) {
        let name = page.file_name().expect("a page has a name").to_string_lossy();
        assert!(name == "README.md" || list.contains(&format!("]({name})")), "{name} is not in the list");
    }
}

/// `src/lib.rs` gives these pages to `cargo test --doc`.
#[test]
fn every_program_in_the_pages_is_compiled() {
    let compiled = read(Path::new("src/lib.rs"));
    let mut programs = 0;
    for page in pages().iter().filter(|page| page.starts_with("docs/guide") || page.ends_with("README.md")) {
        let text = read(page);
        let blocks = text.matches("```rust").count();
        if blocks > 0 {
            assert!(
                compiled.contains(&format!("\"{}\"", page.display())),
                "the programs of {} are not compiled",
                page.display()
            );
            assert!(!text.contains("```rust,ignore"), "a program of {} is not compiled", page.display());
        }
        programs += blocks;
    }
    assert!(programs > 5, "only {programs} programs were found");
}

/// Whoever reads what holds a promise shall find it.
#[test]
fn the_tests_that_are_named_are_there() {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    walk(&root().join("tests"), &mut files);
    let code: String = files.iter().map(|file| read(file)).collect();
    let faults = read(Path::new("tests/faults/table.rs"));
    let (mut tests, mut scenarios) = (0, 0);
    for page in WITH_TESTS {
        let text = read(Path::new(page));
        let rows = text.lines().filter(|line| line.starts_with('|'));
        for cell in rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next()) {
            let named =
                |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
            let (before, after) = cell.split_once("*fault*").unwrap_or((cell, ""));
            for test in named(before).iter().filter(|name| name.contains("::") && !name.contains(['{', '(']))
            {
                let (_, name) = test.rsplit_once("::").expect("it is a path");
                assert!(
                    code.contains(&format!("fn {name}(")),
                    "{page} names the test {test}, and there is none"
                );
                tests += 1;
            }
            for scenario in named(after) {
                let is_there = faults.contains(&format!("name: \"{scenario}\""));
                assert!(is_there, "{page} names the fault {scenario}, and there is none");
                scenarios += 1;
            }
        }
    }
    assert!(
        tests > 20 && scenarios > 10,
        "only {tests} tests and {scenarios} faults were found in the tables"
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file by its path, or by that from the root of the repository.
#[track_caller]
fn read(path: &Path) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All pages, by their paths from the root.
fn pages() -> Vec<PathBuf> {
    let of_directory = |directory: &&str| {
        let entries = fs::read_dir(root().join(directory)).expect("the directory is there");
        let names = entries.map(|entry| entry.expect("it can be read").file_name());
        let directory = Path::new(if *directory == "." { "" } else { directory }).to_owned();
        names.map(move |name| directory.join(name)).collect::<Vec<_>>()
    };
    let all = PAGES.iter().flat_map(of_directory);
    let pages: Vec<_> =
        all.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The lines of a page that are not in blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

fn links_of(text: &str) -> impl Iterator<Item = &str> {
    prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split(')').next()))
}

/// Where GitHub jumps to for the headings of a page.
fn anchors_of(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
