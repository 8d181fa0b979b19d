//! Whoever is judged: Ringfence in two replicas, or somebody else's program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::api_proxy::Proxy;
use crate::controlplane::ControlPlane;
use crate::operator::{Installed, Operator, Settings};
use crate::wait;

/// From the end of a leader to the next one: a lease of 3 s, and its margins; the rest is for a starved machine.
const ELECTION: Duration = Duration::from_secs(60);

/// The processes that remediate.
pub(super) struct Remediator {
    replicas: Vec<Operator>,
    /// The replicas' ways to the API server; none before somebody else's program.
    proxies: Vec<Proxy>,
    /// It says who leads.
    elects: bool,
}

impl Remediator {
    /// Starts two replicas of Ringfence, which run the scripts in `agents` too.
    pub(super) async fn ringfence(
        binary: &Path,
        installed: &Installed,
        control: &ControlPlane,
        agents: &Path,
    ) -> Result<Self> {
        let (mut replicas, mut proxies) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            let proxy = Proxy::before_api_server(control).await?;
            let log = control.dir().join(format!("operator-{name}.log"));
            let mut settings = Settings::new(binary, installed, &log);
            settings.kubeconfig = proxy.kubeconfig(&installed.kubeconfig)?;
            settings.flags.push(format!("--agent-dir={}", agents.display()));
            replicas.push(Operator::start(settings)?);
            proxies.push(proxy);
        }
        Ok(Self { replicas, proxies, elects: true })
    }

    /// Starts a command, with `KUBECONFIG` and `NAMESPACE` in its environment.
    pub(super) fn command(command: &str, control: &ControlPlane, namespace: &str) -> Result<Self> {
        // An operator is started as `binary controller --kubeconfig FILE --namespace NAME`.
        let script = control.dir().join("remediator.sh");
        fs::write(&script, format!("#!/bin/sh\nexport KUBECONFIG=\"$3\" NAMESPACE=\"$5\"\nexec {command}\n"))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
        let settings = Settings {
            binary: script,
            kubeconfig: control.admin_kubeconfig().to_owned(),
            namespace: namespace.to_owned(),
            flags: Vec::new(),
            log: control.dir().join("remediator.log"),
        };
        Ok(Self { replicas: vec![Operator::start(settings)?], proxies: Vec::new(), elects: false })
    }

    /// Waits until one of them leads, if it says so.
    pub(super) async fn is_led(&self) -> Result<()> {
        wait::until("a leader", ELECTION, || async { Ok((!self.elects || self.leader().is_some()).then_some(())) })
            .await
            .with_context(|| self.tail())
    }

    /// Kills the leader, or all, and starts again who was killed.
    pub(super) async fn kill(&mut self, all: bool) -> Result<()> {
        let leader = self.leader().unwrap_or(0);
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            if all || index == leader {
                replica.restart().await?;
            }
        }
        Ok(())
    }

    /// Stops the leader for a while (SIGSTOP).
    pub(super) async fn pause(&self, time: Duration) -> Result<()> {
        let leader = &self.replicas[self.leader().unwrap_or(0)];
        leader.pause().await?;
        tokio::time::sleep(time).await;
        leader.resume().await
    }

    /// Cuts the leader, or all, off from the API server for a while: connections break, or stall.
    pub(super) async fn cut_off(&self, all: bool, stalls: bool, time: Duration) {
        let leader = self.leader().unwrap_or(0);
        let those = || self.proxies.iter().enumerate().filter(|(index, _)| all || *index == leader);
        those().for_each(|(_, proxy)| if stalls { proxy.stall() } else { proxy.cut() });
        tokio::time::sleep(time).await;
        those().for_each(|(_, proxy)| proxy.mend());
    }

    /// Sends all to the API server at `url`.
    pub(super) fn move_to(&self, url: &str) {
        self.proxies.iter().for_each(|proxy| proxy.point_at(url));
    }

    /// Names those that have ended by themselves.
    pub(super) fn ended(&mut self) -> Vec<String> {
        let gone = |(index, replica): (usize, &mut Operator)| {
            (!replica.is_running()).then(|| format!("replica {index} has ended:\n{}", replica.tail()))
        };
        self.replicas.iter_mut().enumerate().filter_map(gone).collect()
    }

    /// The ends of their logs.
    pub(super) fn tail(&self) -> String {
        let each = self.replicas.iter().enumerate();
        each.map(|(index, replica)| format!("the last lines of replica {index}:\n{}", replica.tail())).collect()
    }

    /// The replica whose last word is that it leads.
    fn leader(&self) -> Option<usize> {
        self.replicas.iter().position(|replica| {
            let lines = replica.lines();
            let said = lines.iter().rev().find(|line| ["Leads", "Follows"].iter().any(|word| line.text.contains(word)));
            said.is_some_and(|line| line.text.contains("Leads"))
        })
    }
}
