//! The agents' figures: our fence agents beside Debian's scripts, whole processes, against the same BMC, in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use secrecy::ExposeSecret as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::bmc::{ipmi, redfish};
use crate::machine::Machine;
use crate::scratch::Scratch;
use crate::wait::until;

/// Agents that run at the same time where their memory is weighed: a rack's worth, and what the targets were set for.
const AT_ONCE: usize = 50;
/// One run; upstream's take a quarter of a second on an idle machine.
const RUN: Duration = Duration::from_secs(120);
/// Until all agents of [`AT_ONCE`] are loaded, and until all have asked: upstream's need some ten seconds of two cores.
const ALL_ASK: Duration = Duration::from_secs(300);
/// Runs the program that it is given, on its own standard input, and prints when it began and ended (seconds since
/// 1970), its exit code, and the processor time of the shell and of its children. bash knows both in good resolution.
const STOPWATCH: &str = r#"b=$EPOCHREALTIME; "$@" >/dev/null 2>&1; c=$?; e=$EPOCHREALTIME; echo "$b $e $c"; times"#;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The operator's binary, as it is released.
    pub ringfence: PathBuf,
    /// Where upstream's scripts are.
    pub scripts: PathBuf,
    /// Runs of each case.
    pub runs: usize,
}

/// What was measured of one agent.
#[derive(Clone, Copy, Debug)]
struct Figure {
    wall: Duration,
    cpu: Duration,
}

/// A figure that ours must not exceed, as a part of upstream's.
struct Target {
    what: &'static str,
    ours: f64,
    theirs: f64,
    unit: &'static str,
    /// One in so many.
    part: f64,
}

/// Measures, and prints a table on standard output.
///
/// The agents take turns, so that the load of the machine is the same for both.
///
/// # Errors
/// When a run fails, or a target is missed.
pub async fn run(options: &Options) -> Result<()> {
    ensure!(options.runs > 0, "no runs, no figures");
    println!(
        "Our fence agents and upstream's, whole processes, against the same BMC: medians of {} runs.",
        options.runs
    );
    println!("{:<28} {:>12} {:>12} {:>8} {:>8}", "", "ours", "upstream", "ratio", "target");
    let mut missed = Vec::new();
    for protocol in [Protocol::Redfish, Protocol::Ipmi] {
        let bench = Bench::new(options, protocol).await?;
        for Target { what, ours, theirs, unit, part } in bench.measure(options.runs).await? {
            let (what, ratio) = (format!("{} {what}", protocol.name()), theirs / ours);
            println!(
                "{what:<28} {ours:>8.1} {unit:<3} {theirs:>8.1} {unit:<3} {:>8} {:>8}",
                one_in(ratio),
                one_in(part)
            );
            if ratio < part {
                missed.push(what);
            }
        }
    }
    ensure!(missed.is_empty(), "targets missed: {}", missed.join("; "));
    Ok(())
}

fn one_in(part: f64) -> String {
    format!("1/{part:.1}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Redfish,
    Ipmi,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Redfish => "redfish",
            Self::Ipmi => "ipmilan",
        }
    }
}

/// Both agents, and a rack of [`AT_ONCE`] machines with their BMCs.
struct Bench {
    ours: PathBuf,
    theirs: PathBuf,
    machines: Vec<Arc<Machine>>,
    bmc: Bmc,
    scratch: Scratch,
}

enum Bmc {
    Redfish(Box<redfish::Face>),
    Ipmi(ipmi::Face),
}

impl Bmc {
    /// Withholds the answers to what a status asks last.
    fn hold(&self, machine: &Machine) {
        match self {
            Self::Redfish(face) => face.hold(machine, redfish::What::System),
            Self::Ipmi(face) => face.hold(machine, ipmi::What::Status),
        }
    }

    fn release(&self, machine: &Machine) {
        match self {
            Self::Redfish(face) => face.release(machine),
            Self::Ipmi(face) => face.release(machine),
        }
    }

    /// How often that was asked.
    fn asked(&self, machine: &Machine) -> usize {
        match self {
            Self::Redfish(face) => face.count(machine, redfish::What::System),
            Self::Ipmi(face) => face.count(machine, ipmi::What::Status),
        }
    }
}

impl Bench {
    async fn new(options: &Options, protocol: Protocol) -> Result<Self> {
        let agent = format!("fence_{}", protocol.name());
        let theirs = options.scripts.join(&agent);
        ensure!(theirs.exists(), "{} is missing: testbed/setup.sh test installs it", theirs.display());
        let program = fs::canonicalize(&options.ringfence)
            .with_context(|| format!("{}: cargo build --release", options.ringfence.display()))?;
        let scratch = Scratch::new("bench-agents")?;
        let ours = scratch.path().join(&agent);
        std::os::unix::fs::symlink(program, &ours)?;
        let machines: Vec<_> = (1..=AT_ONCE).map(|number| Machine::new(&format!("node-{number}"))).collect();
        let bmc = match protocol {
            Protocol::Redfish => {
                let face = redfish::Face::start(&machines).await?;
                fs::write(scratch.path().join("ca.pem"), face.ca_pem())?;
                Bmc::Redfish(Box::new(face))
            }
            Protocol::Ipmi => Bmc::Ipmi(ipmi::Face::start(&machines).await?),
        };
        Ok(Self { ours, theirs, machines, bmc, scratch })
    }

    async fn measure(&self, runs: usize) -> Result<Vec<Target>> {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let row = |what, of: [f64; 2], unit, part| Target { what, ours: of[0], theirs: of[1], unit, part };
        let status = self.turns(runs, "status", false).await?;
        let off = self.turns(runs, "off", true).await?;
        let memory = [self.memory(&self.ours).await?, self.memory(&self.theirs).await?];
        Ok(vec![
            row("status, wall", status.map(|figure| ms(figure.wall)), "ms", 8.0),
            row("status, CPU", status.map(|figure| ms(figure.cpu)), "ms", 15.0),
            row("off, wall", off.map(|figure| ms(figure.wall)), "ms", 8.0),
            row("50 at once, PSS", memory.map(|bytes| bytes as f64 / f64::from(1 << 20)), "MiB", 20.0),
        ])
    }

    /// Runs both in turns, and returns the medians: ours, theirs.
    async fn turns(&self, runs: usize, action: &str, off: bool) -> Result<[Figure; 2]> {
        let mut figures = [Vec::new(), Vec::new()];
        let machine = &self.machines[0];
        // One more, for what the first reads from the disk.
        for run in 0..=runs {
            for (agent, figures) in [&self.ours, &self.theirs].into_iter().zip(&mut figures) {
                machine.set_power(true, "bench");
                let figure = self.time(agent, machine, action).await?;
                ensure!(machine.state().on != off, "{}: {action} did not do it", agent.display());
                if run > 0 {
                    figures.push(figure);
                }
            }
        }
        Ok(figures.map(|figures| Figure {
            wall: median(figures.iter().map(|figure| figure.wall).collect()),
            cpu: median(figures.iter().map(|figure| figure.cpu).collect()),
        }))
    }

    async fn time(&self, agent: &Path, machine: &Machine, action: &str) -> Result<Figure> {
        let mut command = Command::new("bash");
        command.arg("-c").arg(STOPWATCH).arg("stopwatch").arg(agent);
        let (child, stdin) = self.start(&mut command, machine, action).await?;
        drop(stdin);
        let output = timeout(RUN, child.wait_with_output()).await.context("an agent did not end")??;
        let text = String::from_utf8(output.stdout).context("reading the stopwatch")?;
        let figure = figure(&text).with_context(|| format!("reading the stopwatch: {text:?}"))?;
        let (code, figure) = figure;
        ensure!(code == 0, "{} {action} ended with {code}", agent.display());
        Ok(figure)
    }

    /// The memory of [`AT_ONCE`] agents that all wait for their BMCs, in bytes, with the programs that they run: shared
    /// pages are counted once.
    async fn memory(&self, agent: &Path) -> Result<u64> {
        let (mut agents, mut inputs, mut before) = (Vec::new(), Vec::new(), Vec::new());
        for machine in &self.machines {
            machine.set_power(true, "bench");
            self.bmc.hold(machine);
            before.push(self.bmc.asked(machine));
            let (child, stdin) = self.start(&mut Command::new(agent), machine, "status").await?;
            agents.push(child);
            inputs.push(stdin);
        }
        let ids: Vec<_> = agents.iter().filter_map(Child::id).collect();
        // They are told to begin when all are loaded: ipmitool waits for an answer for some seconds only.
        until("all agents wait for the end of their options", ALL_ASK, async || {
            let asleep = ids.iter().map(|id| is_asleep(*id)).collect::<Result<Vec<_>>>()?;
            Ok(asleep.into_iter().all(|asleep| asleep).then_some(()))
        })
        .await?;
        drop(inputs);
        until("all agents wait for their BMCs", ALL_ASK, async || {
            let mut asked =
                self.machines.iter().zip(&before).map(|(machine, before)| self.bmc.asked(machine) > *before);
            Ok(asked.all(|asked| asked).then_some(()))
        })
        .await?;
        let weighed = ids.iter().map(|id| weigh(*id)).sum::<Result<u64>>();
        self.machines.iter().for_each(|machine| self.bmc.release(machine));
        for agent in agents {
            let output = timeout(RUN, agent.wait_with_output()).await.context("an agent did not end")??;
            ensure!(output.status.success(), "an agent of many: {}", String::from_utf8_lossy(&output.stderr));
        }
        weighed
    }

    /// Starts an agent, or what runs one, and tells it its options; it begins when its standard input ends.
    async fn start(&self, command: &mut Command, machine: &Machine, action: &str) -> Result<(Child, ChildStdin)> {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
        command.env("REQUESTS_CA_BUNDLE", self.scratch.path().join("ca.pem"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting an agent")?;
        let mut stdin = child.stdin.take().context("its standard input")?;
        let (port, username, password, own) = match &self.bmc {
            Bmc::Redfish(face) => {
                let uri = format!("systems_uri={}\n", face.systems_uri(machine));
                (face.port(), face.username(), face.password(), uri)
            }
            // Without a cipher, upstream's asks for the suites first.
            Bmc::Ipmi(face) => {
                let own = "lanplus=1\ncipher=3\n".to_owned();
                (face.port(machine), face.username(), face.password(), own)
            }
        };
        let lines = format!(
            "ip=127.0.0.1\nipport={port}\nusername={username}\npassword={}\n{own}power_wait=0\n\
             disable_timeout=1\naction={action}\n",
            password.expose_secret()
        );
        stdin.write_all(lines.as_bytes()).await.context("telling it its options")?;
        Ok((child, stdin))
    }
}

/// Reads what the stopwatch printed: the exit code, and the figure.
fn figure(text: &str) -> Option<(i32, Figure)> {
    let mut lines = text.lines();
    let mut run = lines.next()?.split(' ');
    let mut time = || run.next()?.parse::<f64>().ok();
    let (began, ended) = (time()?, time()?);
    let code = run.next()?.parse().ok()?;
    // The shell's own, then its children's: user and system.
    let cpu = lines.nth(1)?.split(' ').map(minutes).sum::<Option<f64>>()?;
    let wall = Duration::try_from_secs_f64(ended - began).ok()?;
    Some((code, Figure { wall, cpu: Duration::try_from_secs_f64(cpu).ok()? }))
}

/// Reads "0m1.234s".
fn minutes(text: &str) -> Option<f64> {
    let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
    Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
}

/// Tells whether a process waits for something (proc(5), `stat`: the state follows the name, which may hold anything).
fn is_asleep(id: u32) -> Result<bool> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).context("an agent has ended")?;
    Ok(text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

/// The proportional set size of a process and its children, in bytes.
fn weigh(id: u32) -> Result<u64> {
    let rollup = format!("/proc/{id}/smaps_rollup");
    let text = fs::read_to_string(&rollup).with_context(|| format!("reading {rollup}"))?;
    let pss = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let own = pss.map(|kib| kib * 1024).with_context(|| format!("no Pss in {rollup}"))?;
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).context("reading its children")?;
    children.split_whitespace().map(|child| weigh(child.parse()?)).try_fold(own, |sum, child| Ok(sum + child?))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stopwatch_is_read() {
        let (code, figure) = figure("10.250000 10.375000 2\n0m0.001s 0m0.002s\n1m0.010s 0m0.005s\n").unwrap();
        assert_eq!((code, figure.wall, figure.cpu), (2, Duration::from_millis(125), Duration::from_millis(60_015)));
        assert!(super::figure("").is_none());
    }
}
