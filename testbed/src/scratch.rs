//! Temporary directories that do not outlive their use, not even when the process is killed.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

const PREFIX: &str = "ringfence-";
const LOCK: &str = "lock";

/// A private temporary directory, removed when dropped.
///
/// # Guarantees
///
/// Mode 0700. One that a killed process left behind is removed by the next [`Scratch::new`] of any process: its owner
/// holds a lock on it for life, and what nobody has locked is nobody's.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes a directory; `what` becomes a part of its name.
    pub fn new(what: &str) -> anyhow::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let name = format!("{what}-{}", Uuid::new_v4().simple());
        // Under this name the sweep passes it by; it gets the other one only when its lock is held.
        let unborn = parent.join(format!(".{PREFIX}{name}"));
        let path = parent.join(format!("{PREFIX}{name}"));
        let made = || -> std::io::Result<File> {
            DirBuilder::new().mode(0o700).create(&unborn)?;
            let lock = File::create(unborn.join(LOCK))?;
            lock.lock()?;
            fs::rename(&unborn, &path)?;
            Ok(lock)
        };
        let lock = made().with_context(|| format!("making the temporary directory {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover is harmless: the next sweep takes it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes what killed processes left in `parent`. Errors don't matter: somebody else may be sweeping too.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_is_swept_and_a_live_one_is_not() {
        let live = Scratch::new("live").unwrap();
        let orphan = std::env::temp_dir().join(format!("{PREFIX}orphan-{}", Uuid::new_v4().simple()));
        fs::create_dir(&orphan).unwrap();
        File::create(orphan.join(LOCK)).unwrap();

        let other = Scratch::new("other").unwrap();
        assert!(!orphan.exists());
        assert!(live.path().exists() && other.path().exists());

        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
