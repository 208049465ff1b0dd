//! A real directory, and what befalls one.

use super::*;
use crate::spool::storage::disk::Disk;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

fn open_at(path: &Path, options: Options) -> std::io::Result<(Log, Recovery)> {
    Log::open(Arc::new(Disk::make(path)?), options)
}

fn read_at(path: &Path) -> Read {
    Read::of(Arc::new(Disk::open(path).expect("it is there")))
}

#[test]
fn a_directory_is_made_and_what_goes_in_comes_out() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a/b");
    for _ in 0..3 {
        let (mut log, _) = open_at(&path, options()).unwrap();
        assert!(open_at(&path, options()).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        (0..20).for_each(|_| append(&mut log, 5).unwrap());
        log.close().unwrap();
    }
    let read = read_at(&path);
    read.assert_true();
    assert_eq!((read.records.len(), read.missing.is_empty(), read.damage), (300, true, Vec::new()));
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_directory_that_is_removed_is_noticed_before_anything_more_is_confirmed() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let (mut log, _) = open_at(&path, options()).unwrap();
    append(&mut log, 1).unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert!(matches!(append(&mut log, 1), Err(Refusal::Gone)));
    drop(log);
    // It can be had again, from the start.
    let (log, _) = open_at(&path, options()).unwrap();
    assert_eq!(log.sequences(), 1..1);
}

#[test]
fn a_directory_that_cannot_be_written_to_can_be_read() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let (mut log, _) = open_at(&path, options()).unwrap();
    append(&mut log, 7).unwrap();
    log.close().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o500)).unwrap();
    read_at(&path).assert_holds(1..8);
    // Who is root may write nevertheless, and then nothing is refused.
    let is_root = rustix::process::geteuid().is_root();
    let appended = open_at(&path, options()).map(|(mut log, _)| append(&mut log, 1).is_ok());
    assert_eq!(appended.is_ok_and(|appended| appended), is_root);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn opening_a_large_log_reads_its_last_segment_only() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let large = Options { segment_bytes: 4 << 20, ..Options::new(256 << 20, SpoolFull::DropNewest, false) };
    let (mut log, _) = open_at(&path, large).unwrap();
    let mut batch = Batch::default();
    for _ in 0..64 {
        while !batch.is_full() {
            batch.room().unwrap().push(b"event.1.a", b"", &[b'x'; 4000]).unwrap();
        }
        log.append(&mut batch, false).unwrap();
    }
    log.close().unwrap();
    // An open that read the other segments would find this, and put them aside.
    let mut segments: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|segment| segment.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    segments.pop();
    assert!(segments.len() > 10, "{segments:?}");
    for segment in segments {
        let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
        file.write_all_at(&[0xff; 64], 1 << 20).unwrap();
    }
    let (log, recovery) = open_at(&path, large).unwrap();
    assert!(!recovery.is_unclean && recovery.damage.is_empty(), "{recovery:?}");
    assert!(log.bytes() > 60 << 20);
}
