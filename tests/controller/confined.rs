//! A program under the limits that a container has: control groups where this process may make them (version 1: as in our
//! containers; there is no other here to try), else nothing but a measurement of the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::operator::Operator;
use testbed::scratch::Scratch;
use uuid::Uuid;

/// The kernel's default.
const PERIOD_US: u64 = 100_000;
/// What USER_HZ is wherever Linux runs today: the unit of /proc/PID/stat.
const TICKS: f64 = 100.0;

/// A memory and a processor limit.
pub struct Confined {
    memory: u64,
    cores: f64,
    groups: Option<[PathBuf; 2]>,
    scratch: Scratch,
}

impl Confined {
    /// Prepares the limits: bytes of memory, and a share of one core.
    pub fn new(memory: u64, cores: f64) -> Result<Self> {
        let name = format!("ringfence-{}", Uuid::new_v4().simple());
        let groups = ["memory", "cpu"].map(|kind| Path::new("/sys/fs/cgroup").join(kind).join(&name));
        let quota = (PERIOD_US as f64 * cores) as u64;
        let make = || -> std::io::Result<()> {
            groups.iter().try_for_each(fs::create_dir)?;
            fs::write(groups[0].join("memory.limit_in_bytes"), memory.to_string())?;
            fs::write(groups[1].join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(groups[1].join("cpu.cfs_quota_us"), quota.to_string())
        };
        let made = make().is_ok();
        let confined = Self { memory, cores, groups: Some(groups), scratch: Scratch::new("confined")? };
        Ok(if made { confined } else { confined.without_groups() })
    }

    /// A program that is `binary`, under the limits from its first instruction.
    pub fn program(&self, binary: &Path) -> PathBuf {
        let path = self.scratch.path().join("confined");
        let enter: String = self
            .groups
            .iter()
            .flatten()
            .map(|group| format!("echo $$ > {}\n", group.join("cgroup.procs").display()))
            .collect();
        let script = format!("#!/bin/sh\nset -e\n{enter}exec {} \"$@\"\n", binary.display());
        fs::write(&path, script).expect("a directory of our own");
        fs::set_permissions(&path, Permissions::from_mode(0o700)).expect("a file of our own");
        path
    }

    /// What it took, in words; `time` is how long it worked.
    pub fn usage(&self, operator: &Operator, time: Duration) -> Result<String> {
        let how = if self.groups.is_some() { "limited" } else { "not limited, only measured" };
        let (memory, cores) = (self.memory >> 20, self.cores);
        Ok(format!(
            "{:.1} MiB resident at most, {:.2} cores in the mean ({how}, to {memory} MiB and {cores} cores)",
            peak(operator)? as f64 / f64::from(1 << 20),
            seconds(operator)? / time.as_secs_f64(),
        ))
    }

    /// Fails if it had more memory than it may.
    pub fn kept(&self, operator: &Operator) -> Result<()> {
        let peak = peak(operator)?;
        ensure!(peak < self.memory, "{peak} bytes resident");
        Ok(())
    }

    fn without_groups(mut self) -> Self {
        self.remove();
        self.groups = None;
        self
    }

    fn remove(&self) {
        for group in self.groups.iter().flatten() {
            // Not there, or a child still in it: nothing that a next run would stumble over.
            let _ = fs::remove_dir(group);
        }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The most memory it ever had resident, in bytes.
fn peak(operator: &Operator) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.pid()?)).context("reading its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("VmHWM in kB")?;
    Ok(kib * 1024)
}

/// The processor time that it took.
fn seconds(operator: &Operator) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", operator.pid()?)).context("reading its times")?;
    // Behind the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("a short stat")?.parse::<u64>()? as f64) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}
