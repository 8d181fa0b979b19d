//! What an agent tells while it works: lines on standard error, and in the debug file.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use super::failure::Failure;

/// Where the lines go. Nothing that is told here holds a secret.
#[derive(Debug, Default)]
pub(super) struct Log {
    quiet: bool,
    verbose: bool,
    file: Option<File>,
}

impl Log {
    /// Opens the debug file, if there is one to be. A new one is for its owner only.
    ///
    /// Errors: [`Failure::File`] if that fails.
    pub(super) fn open(quiet: bool, verbose: bool, file: Option<&str>) -> Result<Self, Failure> {
        let open = |path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        let file = file.map(open).transpose().map_err(|source| Failure::File { what: "debug_file", source })?;
        Ok(Self { quiet, verbose, file })
    }

    /// Tells a step; on standard error only if asked to.
    pub(super) fn debug(&mut self, text: &str) {
        self.write("DEBUG", text, self.verbose);
    }

    /// Tells what the caller may have got wrong.
    pub(super) fn warn(&mut self, text: &str) {
        self.write("WARNING", text, !self.quiet);
    }

    /// Tells why it failed.
    pub(super) fn error(&mut self, text: &str) {
        self.write("ERROR", text, !self.quiet);
    }

    fn write(&mut self, level: &str, text: &str, shown: bool) {
        let line = format!("{} {level}: {text}\n", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S,%3f"));
        // Nobody is left to tell if these fail; the exit code stays.
        if shown {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(line.as_bytes());
        }
    }
}
