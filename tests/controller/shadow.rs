//! Shadow mode beside the real FAR and Debian's real fence_redfish: what it says, and that it does nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::bmc::redfish::Fault;
use testbed::machine::Machine;
use testbed::operator::Operator;
use testbed::upstream::{self, NAMESPACE, Upstream};
use testbed::wait;

use crate::site::Site;
use crate::stage::{SOON, play};

/// A BMC that takes its time, as real ones do.
const LATE: Duration = Duration::from_secs(3);

/// FAR beside its shadow.
struct Watched {
    site: Site,
    _far: Upstream,
    shadow: Operator,
}

impl Watched {
    /// Waits for a finding about a machine's node, and returns its fields.
    async fn finds(&self, machine: &Machine, finding: &str, fields: Value) -> Result<Value> {
        let what = format!("the shadow to find {finding} {fields} of {}", machine.name());
        wait::until(&what, SOON, || async {
            let found = self.findings(machine).into_iter().find(|found| {
                found["finding"] == finding
                    && fields.as_object().is_some_and(|all| all.iter().all(|(k, v)| found[k] == *v))
            });
            Ok(found)
        })
        .await
        .with_context(|| format!("it said:\n{}", self.shadow.tail()))
    }

    fn findings(&self, machine: &Machine) -> Vec<Value> {
        let lines = self.shadow.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
        lines.filter(|line| line["span"]["node"] == machine.name()).map(|line| line["fields"].clone()).collect()
    }
}

/// A proof that was seen, a success without one (W1: FAR with a negative retrycount never runs its agent), the wrong machine
/// (W5), and a BMC that refuses the account.
#[test]
fn far_is_judged_by_what_its_machines_say() {
    play(async {
        let site = Site::new("shadow", 5).await?;
        site.plane.apply_yaml(&std::fs::read_to_string(rbac())?).await?;
        let (shadow, far) = (site.shadow().await?, site.far().await?);
        let watched = &Watched { site, _far: far, shadow };
        futures::try_join!(honest(watched), lie(watched), crossed(watched), refused(watched))?;
        watched.wrote_nothing()
    });
}

async fn honest(watched: &Watched) -> Result<()> {
    let site = &watched.site;
    let machine = site.machine(0);
    site.face.set_fault(machine, Some(Fault::Late(LATE)));
    site.remediate(machine, machine, json!({})).await?;
    let plan = watched
        .finds(machine, "plan", json!({"agent": "fence_redfish", "driver": "Native", "action": "reboot"}))
        .await?;
    ensure!(plan["plug"] == site.face.systems_uri(machine), "{plan}");
    ensure!(plan["expected_uuid"] == machine.uuid().to_string(), "{plan}");
    watched.finds(machine, "reading", json!({"read": "On", "identity": "same"})).await?;
    watched.finds(machine, "reading", json!({"read": "Off", "identity": "same"})).await?;
    let success = watched.finds(machine, "success", json!({"proof": "seen"})).await?;
    ensure!(success["series"].as_str().is_some_and(|series| series.starts_with("On 0.")), "{success}");
    site.far_says(machine, "True").await?;
    site.node_ready(machine).await?;
    site.delete(machine).await?;
    watched.finds(machine, "aftermath", json!({"restarted": true})).await?;
    // It looks once a second, and only while the remediation is under way: FAR's own requests are the others.
    let looks = success["looks"].as_u64().context("a number")?;
    ensure!((3..30).contains(&looks), "{success}");
    Ok(())
}

async fn lie(watched: &Watched) -> Result<()> {
    let site = &watched.site;
    let machine = site.machine(1);
    site.remediate(machine, machine, json!({"retrycount": -1})).await?;
    let success = watched.finds(machine, "success", json!({"proof": "none"})).await?;
    let message = success["message"].as_str().unwrap_or_default();
    ensure!(message.contains("power was never read Off") && message.contains("NO PROOF"), "{message}");
    ensure!(site.face.commands(machine).is_empty() && machine.history().is_empty(), "nobody switched it off");
    site.far_says(machine, "True").await?;
    site.delete(machine).await?;
    let after = watched.finds(machine, "aftermath", json!({"restarted": false})).await?;
    ensure!(after["message"].as_str().is_some_and(|text| text.contains("NEVER RESTARTED")), "{after}");
    Ok(())
}

async fn crossed(watched: &Watched) -> Result<()> {
    let site = &watched.site;
    let (machine, innocent) = (site.machine(2), site.machine(3));
    site.face.set_fault(innocent, Some(Fault::Late(LATE)));
    site.remediate(machine, innocent, json!({"sharedparameters": {"--action": "off"}})).await?;
    watched.finds(machine, "reading", json!({"read": "Off", "identity": "other"})).await?;
    let success = watched.finds(machine, "success", json!({"proof": "none"})).await?;
    ensure!(success["message"].as_str().is_some_and(|text| text.contains("another machine's")), "{success}");
    ensure!(machine.state().on && !innocent.state().on, "FAR switches off what it is told");
    Ok(())
}

async fn refused(watched: &Watched) -> Result<()> {
    let site = &watched.site;
    let machine = site.machine(4);
    site.remediate_with(machine, machine, "wrong", json!({"retrycount": 3, "retryinterval": "2s"})).await?;
    watched.finds(machine, "reading", json!({"read": "refused"})).await?;
    let failure = watched.finds(machine, "failure", json!({"reason": "FenceAgentFailed"})).await?;
    ensure!(failure["looks"] == 1, "a refused account is tried once: {failure}");
    site.far_says(machine, "False").await
}

impl Watched {
    /// The API server's own word: its audit log has every write to nodes, pods, volumes and remediations; the permissions
    /// have no verb for another.
    fn wrote_nothing(&self) -> Result<()> {
        let text = std::fs::read_to_string(self.site.plane.audit_log())?;
        let users: BTreeSet<_> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|event| event["user"]["username"].as_str().map(str::to_owned))
            .collect();
        let account = |name: &str| format!("system:serviceaccount:{NAMESPACE}:{name}");
        ensure!(users.contains(&account(upstream::DEPLOYMENT)), "the log shows who writes: {users:?}");
        ensure!(!users.contains(&account("ringfence-shadow")), "the shadow wrote");
        for document in serde_yaml_ng::Deserializer::from_str(&std::fs::read_to_string(rbac())?) {
            let document = Value::deserialize(document)?;
            let rules = document["rules"].as_array().into_iter().flatten();
            let verbs = rules.flat_map(|rule| rule["verbs"].as_array().into_iter().flatten());
            for verb in verbs {
                ensure!(["get", "list", "watch"].iter().any(|reads| verb == reads), "{document}");
            }
        }
        Ok(())
    }
}

fn rbac() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/shadow/rbac.yaml")
}
