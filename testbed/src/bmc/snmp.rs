//! Debian's SNMP service, bare or as an APC rack PDU: somebody else's SNMP, for the real fence agents that speak it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::outlets::Outlets;
use crate::pki::write_private;
use crate::ports::free_port;
use crate::process::Process;
use crate::scratch::Scratch;

const OUTLETS: &str = include_str!("../../emulators/apc/outlets.py");
/// Runs snmpd, and ends it when our end of the pipe closes: it does not read its standard input itself.
const RUN: &str = r#"exec 3<&0; (cat <&3 >/dev/null; kill "$$") & exec /usr/sbin/snmpd -f -C -c "$0" -Le"#;
/// It starts in a tenth of a second; this is for a machine that compiles at the same time.
const START: Duration = Duration::from_secs(60);
/// What an APC "Switched Rack PDU" says it is, and where its outlets are.
const RPDU_TYPE: &str = ".1.3.6.1.4.1.318.1.3.4.5";
const RPDU_OUTLETS: &str = ".1.3.6.1.4.1.318.1.1.12.3";

/// The community that may read and write.
pub const COMMUNITY: &str = "private";

/// A running snmpd, by SNMP 1 and 2c; killed when dropped.
pub struct Snmpd {
    // In the order in which they are to end.
    _process: Process,
    address: String,
    _dir: Scratch,
}

/// An APC rack PDU, as `fence_apc_snmp` knows one. Dropping it ends it.
pub struct Apc {
    snmpd: Snmpd,
    outlets: Outlets,
}

impl Snmpd {
    /// Starts one that knows nothing but itself, on a free port of 127.0.0.1, and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, ended, or did not answer in time; the end of its log is in the message.
    pub async fn start() -> Result<Self> {
        Self::start_with(Scratch::new("snmpd")?, "").await
    }

    async fn start_with(dir: Scratch, more: &str) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let file = dir.path().join("snmpd.conf");
        let configuration = format!("rwcommunity {COMMUNITY} 127.0.0.1\nagentaddress udp:{address}\n{more}");
        std::fs::write(&file, configuration).context("writing snmpd's configuration")?;
        let mut command = Command::new("sh");
        command.args(["-c", RUN]).arg(&file).env("SNMP_PERSISTENT_DIR", dir.path());
        let mut process = Process::spawn("snmpd", &mut command, &dir.path().join("log"))?;
        let ready = async || {
            let mut get = tokio::process::Command::new("snmpget");
            get.args(["-v2c", "-c", COMMUNITY, "-r0", "-t1", &address, "1.3.6.1.2.1.1.1.0"]).kill_on_drop(true);
            get.output().await.is_ok_and(|output| output.status.success())
        };
        process.until_ready(START, ready).await?;
        Ok(Self { _process: process, address, _dir: dir })
    }

    /// Where it listens: 127.0.0.1 and a UDP port.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Apc {
    /// Puts an snmpd before these outlets. They are numbered from 1 in the order of their plugs, which are their names.
    ///
    /// It asks them one after the other: one that hangs keeps the others waiting.
    ///
    /// # Errors
    /// As [`Snmpd::start`].
    pub async fn start(outlets: Outlets) -> Result<Self> {
        let dir = Scratch::new("apc")?;
        let (script, file) = (dir.path().join("outlets.py"), dir.path().join("outlets.json"));
        std::fs::write(&script, OUTLETS).context("writing the PDU's script")?;
        let known = json!({
            "ip": outlets.address().ip(),
            "port": outlets.address().port(),
            "username": outlets.username(),
            "password": outlets.password().expose_secret(),
            "plugs": outlets.plugs(),
        });
        write_private(&file, &known.to_string().into())?;
        let more = format!(
            "sysobjectid {RPDU_TYPE}\npass_persist {RPDU_OUTLETS} /usr/bin/python3 -I {} {}\n",
            script.display(),
            file.display()
        );
        Ok(Self { snmpd: Snmpd::start_with(dir, &more).await?, outlets })
    }

    /// Where it listens: 127.0.0.1 and a UDP port.
    pub fn address(&self) -> &str {
        self.snmpd.address()
    }

    /// What it switches.
    pub fn outlets(&self) -> &Outlets {
        &self.outlets
    }
}
