//! A real directory.
//!
//! It is opened once, and everything in it is reached through that handle and never through its path again, so that nobody can put
//! another directory, or a link to one, in between. It must be ours, and nobody else may write to it: who can write to it could make us
//! publish what we never said. Links are not followed, and what is no plain file is not opened.

use super::{File, Ownership, Space, Storage};
use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use std::fs::{self, TryLockError};
use std::io;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

/// A file whose lock the owner has beside that of the directory, for earlier versions of us know no other. A lock ends with its process, however that
/// ends, so none is ever left over.
pub(crate) const LOCK: &str = "LOCK";

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Bits of a directory's mode by which others could write to it.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: OwnedFd,
    path: PathBuf,
}

impl Disk {
    /// Opens a directory, and makes it and those above it if they are not there.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
        match made {
            // `recursive` forgives only a directory; what else is there is for `open` to refuse.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Self::open(path)
    }

    /// Opens a directory that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let text = format!("{} is no directory (a link to one is not followed)", path.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
            }
            Err(error) => return Err(error.into()),
        };
        let disk = Self { directory, path: path.to_owned() };
        disk.refuse_a_strangers()?;
        Ok(disk)
    }

    fn refuse_a_strangers(&self) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.directory)?;
        let problem = if stat.st_uid != rustix::process::geteuid().as_raw() {
            "belongs to another user"
        } else if stat.st_mode & WRITABLE_BY_OTHERS != 0 {
            "can be written to by other users; chmod go-w helps"
        } else {
            return Ok(());
        };
        let text = format!("{} {problem}", self.path.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        // NONBLOCK, so that a pipe does not hold us up before we see what it is.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(&self.directory, name, flags, FILE_MODE) {
            Ok(file) => fs::File::from(file),
            Err(Errno::LOOP) => return Err(self.no_plain_file(name)),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if is_plain && is_ours { Ok(file) } else { Err(self.no_plain_file(name)) }
    }

    fn no_plain_file(&self, name: &str) -> io::Error {
        let text = format!("{} is no plain file of ours", self.path.join(name).display());
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    }
}

impl Storage for Disk {
    fn names(&self) -> io::Result<Vec<String>> {
        // A handle of its own: the position in a directory belongs to the open handle.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, ".", flags, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            // What is not UTF-8 is not ours.
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(self.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?)))
    }

    fn open(&self, name: &str, for_writing: bool) -> io::Result<Box<dyn File>> {
        let flags = if for_writing { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(Box::new(DiskFile(self.open_file(name, flags)?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.directory, from, &self.directory, to, AtFlags::empty())?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        // Some file systems make files as they need them, and say that they have none.
        let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
        let of_blocks = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: of_blocks(stat.f_blocks), free: of_blocks(stat.f_bavail), files })
    }

    /// The lock is on the directory itself. A file in it can be deleted and made again while its lock is held; then there would be two owners.
    fn lock(&self) -> io::Result<Box<dyn Ownership>> {
        // A handle of its own: a lock belongs to the open handle, and ends with it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&self.directory, ".", flags, Mode::empty())?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::WouldBlock.into()),
            // A file system whose directories cannot be locked leaves the file.
            Err(Errno::BADF | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let file = self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(Locked { _directory: directory, _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// The locks end with their handles.
#[derive(Debug)]
struct Locked {
    _directory: OwnedFd,
    _file: fs::File,
}

impl Ownership for Locked {}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn write_at(&mut self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        while rest.iter().any(|slice| !slice.is_empty()) {
            match rustix::io::pwritev(&self.0, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Err(io::ErrorKind::Unsupported.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // What is needed to read the data again, the size among it, is written too.
        self.0.sync_data()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        // We read and write at places that we name, so it does not matter where this leaves the file.
        match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Ok(next) => Ok(Some(next)),
            Err(Errno::NXIO) => Ok(None),
            // Where holes are not told, all of it is data.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(rustix::fs::fstat(&self.0)?.st_nlink > 0)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn disk() -> (tempfile::TempDir, PathBuf, Disk) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("log");
        let disk = Disk::make(&path).unwrap();
        (parent, path, disk)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn nobody_else_can_read_what_is_written() {
        let (_parent, path, disk) = disk();
        disk.create("a").unwrap();
        let _owner = disk.lock().unwrap();
        assert_eq!((mode(&path), mode(&path.join("a")), mode(&path.join(LOCK))), (0o700, 0o600, 0o600));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_and_one_that_they_can_read_is_not() {
        let (_parent, path, _disk) = disk();
        for (mode, is_refused) in [(0o755, false), (0o770, true), (0o702, true), (0o700, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Disk::make(&path).is_err(), is_refused, "{mode:o}");
        }
    }

    #[test]
    fn links_are_not_followed_whether_to_the_directory_or_to_a_file() {
        let (parent, path, disk) = disk();
        let link = parent.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(Disk::make(&link).unwrap_err().to_string().contains("a link to one is not followed"));
        let victim = parent.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, path.join("a")).unwrap();
        assert!(disk.open("a", true).unwrap_err().to_string().contains("is no plain file"));
        assert!(disk.create("a").is_err());
        symlink(&victim, path.join(LOCK)).unwrap();
        assert!(disk.lock().is_err());
        disk.remove("a").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_pipe_or_a_directory_in_the_place_of_a_file_is_refused_and_holds_nobody_up() {
        let (_parent, path, disk) = disk();
        fs::create_dir(path.join("d")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path.join("p"), FileType::Fifo, FILE_MODE, 0).unwrap();
        for name in ["d", "p"] {
            assert!(disk.open(name, false).is_err(), "{name}");
        }
    }

    #[test]
    fn a_lock_has_one_owner_and_is_free_when_he_is_gone() {
        let (_parent, path, disk) = disk();
        let other = Disk::open(&path).unwrap();
        let owner = disk.lock().unwrap();
        assert_eq!(other.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(owner);
        assert!(other.lock().is_ok());
    }

    #[test]
    fn a_lock_is_held_whatever_becomes_of_the_names_in_the_directory_and_of_its_own() {
        let (parent, path, disk) = disk();
        let _owner = disk.lock().unwrap();
        let assert_held = |path: &Path| {
            let other = Disk::open(path).unwrap();
            assert_eq!(other.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        };
        fs::remove_file(path.join(LOCK)).unwrap();
        assert_held(&path);
        fs::write(path.join(LOCK), "").unwrap();
        assert_held(&path);
        fs::write(path.join("other"), "").unwrap();
        fs::rename(path.join("other"), path.join(LOCK)).unwrap();
        assert_held(&path);
        let moved = parent.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        assert_held(&moved);
        // Another directory in its place is another log.
        assert!(Disk::make(&path).unwrap().lock().is_ok());
    }

    #[test]
    fn a_file_without_a_name_says_so() {
        let (_parent, path, disk) = disk();
        let mut file = disk.create("a").unwrap();
        file.write_at(&[b"one", b"", b"two"], 2).unwrap();
        let mut bytes = [0; 8];
        assert_eq!((super::super::read_full(&*file, &mut bytes, 0).unwrap(), &bytes), (8, b"\0\0onetwo"));
        assert!(file.is_linked().unwrap());
        fs::remove_dir_all(&path).unwrap();
        assert!(!file.is_linked().unwrap());
        assert!(disk.create("b").is_err());
    }

    #[test]
    fn names_are_those_of_all_files() {
        let (_parent, _path, disk) = disk();
        for name in ["a", "b", "c"] {
            disk.create(name).unwrap();
        }
        disk.rename("a", "d").unwrap();
        disk.link("b", "e").unwrap();
        disk.remove("c").unwrap();
        let mut names = disk.names().unwrap();
        names.sort();
        assert_eq!(names, ["b", "d", "e"]);
    }
}
