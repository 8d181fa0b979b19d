//! What people, NHC and other operators do.

use serde_json::{Value, json};

use super::faults::{Deed, Says};
use super::store::{Part, key};
use super::tally::note;
use super::world::{FARS, NAMESPACE, NODE_LEASES, World, stamp, text};

const TIMED_OUT: &str = "remediation.medik8s.io/nhc-timed-out";
/// `admin` and `secret`.
const ACCOUNT: (&str, &str) = ("YWRtaW4=", "c2VjcmV0");

impl World {
    pub fn happen(&mut self, deed: Deed) {
        note(|| format!("happens: {deed:?}"));
        let now = self.now;
        let target = self.node(0);
        match deed {
            Deed::Bmc(index, manner) => self.machines[index].bmc.manner = manner,
            Deed::Hearsay => self.machines[0].bmc.hearsay = self.machines[0].power,
            Deed::Button => self.press(0),
            Deed::Owner(after) => self.machines[0].bmc.owner = Some(after),
            // What was released of it meanwhile, and why that is excused, stays.
            Deed::Wake => self.machines[0].hung = false,
            Deed::Hang => {
                self.machines[0].hung = true;
                self.misplug();
            }
            Deed::Delete => {
                if let Some(far) = self.oldest() {
                    self.delete(&far);
                }
            }
            Deed::TimeOut => {
                if let Some(name) = self.oldest() {
                    let annotations = json!({ TIMED_OUT: "now" });
                    let patch = json!({ "metadata": { "annotations": annotations } });
                    let _ = self.store.patch(&key(FARS, NAMESPACE, &name), &patch, Part::Main, now);
                    let all = self.store.all(FARS);
                    if all.iter().all(|far| far["metadata"]["annotations"].get(TIMED_OUT).is_some()) {
                        self.oracle.stopped(now);
                    }
                    self.oracle.given_up = true;
                    self.remediations_changed();
                }
            }
            Deed::Replace => {
                let Some(node) = self.store.now(&target) else { return };
                let mut node = (*node).clone();
                let labels = node["metadata"]["labels"].clone();
                node["metadata"] = json!({ "labels": labels });
                node["spec"] = json!({});
                let _ = self.store.delete(&target, &Value::Null, None, now);
                self.collect_pods_of_gone_nodes();
                let _ = self.store.create(&target, node, now);
                self.machines[0].excused = Some("its Node was replaced");
                self.oracle.given_up = true;
                if self.store.all(FARS).iter().all(|far| far["status"]["node"]["uid"].is_string()) {
                    self.oracle.stopped(now);
                }
            }
            Deed::Address(machine) => {
                self.address = machine;
                self.oracle.named.insert(machine);
                self.misplug();
                self.respecify();
            }
            Deed::Nonsense(on) => {
                self.nonsense = on;
                self.respecify();
            }
            Deed::Secret(true) => {
                let data = json!({ "--username": ACCOUNT.0, "--password": ACCOUNT.1 });
                let _ = self.store.create(&key("secrets", NAMESPACE, "bmc"), json!({ "data": data }), now);
            }
            Deed::Secret(false) => {
                let _ = self.store.delete(&key("secrets", NAMESPACE, "bmc"), &Value::Null, None, now);
            }
            Deed::Edit => {
                let edited =
                    |secret: &mut Value| secret["metadata"]["annotations"] = json!({ "edited": now.to_string() });
                self.store.change(&key("secrets", NAMESPACE, "bmc"), now, edited);
                if self.machines[0].bmc.manner == super::faults::Manner::Locked {
                    self.machines[0].bmc.manner = super::faults::Manner::Honest;
                }
            }
            Deed::Exclude(on) => self.store.change(&target, now, |node| {
                node["metadata"]["labels"]["remediation.medik8s.io/exclude-from-remediation"] = json!(on.to_string());
            }),
            Deed::Lease(on) => {
                let lease = key("leases", NODE_LEASES, "node-n0");
                let _ = self.store.delete(&lease, &Value::Null, None, now);
                if on {
                    let spec = json!({
                        "holderIdentity": "node-maintenance",
                        "leaseDurationSeconds": 3600,
                        "renewTime": stamp(now),
                    });
                    let _ = self.store.create(&lease, json!({ "spec": spec }), now);
                }
            }
            Deed::Foreign(on) => {
                let foreign = key("selfnoderemediations", NAMESPACE, "n0");
                let _ = self.store.delete(&foreign, &Value::Null, None, now);
                if on {
                    let _ = self.store.create(&foreign, json!({ "status": {} }), now);
                }
            }
            Deed::Quorum(there) => {
                for index in 1..3 {
                    self.machines[index].hung = !there;
                    let status = if there { "True" } else { "Unknown" };
                    let node = self.node(index);
                    self.store.change(&node, now, |node| node["status"]["conditions"][0]["status"] = json!(status));
                }
            }
            Deed::Another => {
                if self.store.all(FARS).len() < 2 {
                    self.remediate();
                }
            }
            Deed::Crash(replica, polls) => self.replicas[replica].crash = Some(polls),
            Deed::Pause(replica, polls, length) => self.replicas[replica].pause = Some((polls, length)),
            Deed::CutOff(replica, length) => self.replicas[replica].cut_off_until = now + length,
            Deed::Stand(replica, length) => self.replicas[replica].stands_until = now + length,
            Deed::Behind(replica, length, ago) => {
                self.replicas[replica].view = Some((now + length, now.saturating_sub(ago)));
                self.remediations_changed();
            }
        }
        self.moved = true;
    }

    /// Known limits 4.
    fn misplug(&mut self) {
        let wrong_plug = self.oracle.named.iter().any(|machine| *machine != 0);
        if wrong_plug && self.mix.says == Says::Nothing && self.machines[0].hung {
            self.machines[0].excused = Some("witness only, wrong plug, and the node hung");
        }
    }

    /// Creates a remediation of the target.
    pub fn remediate(&mut self) {
        self.oracle.created += 1;
        let name = format!("n0-{}", self.oracle.created);
        let metadata = json!({ "annotations": { "remediation.medik8s.io/node-name": "n0" } });
        let far = json!({
            "apiVersion": "fence-agents-remediation.medik8s.io/v1alpha1",
            "kind": "FenceAgentsRemediation",
            "metadata": metadata,
            "spec": self.spec(),
        });
        let _ = self.store.create(&key(FARS, NAMESPACE, &name), far, self.now);
        self.oracle.begun(self.now);
        self.remediations_changed();
    }

    /// Deletes a remediation.
    pub fn delete(&mut self, name: &str) {
        let _ = self.store.delete(&key(FARS, NAMESPACE, name), &Value::Null, None, self.now);
        let all = self.store.all(FARS);
        if all.iter().all(|far| !far["metadata"]["deletionTimestamp"].is_null()) {
            self.oracle.deleted(self.now);
        }
        self.remediations_changed();
    }

    pub fn remediations_changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The name of the remediation that was created first and is not being deleted.
    fn oldest(&self) -> Option<String> {
        let all = self.store.all(FARS);
        let alive = all.iter().find(|far| far["metadata"]["deletionTimestamp"].is_null());
        alive.map(|far| text(&far["metadata"]["name"]).to_owned())
    }

    fn respecify(&mut self) {
        let spec = self.spec();
        for far in self.store.all(FARS) {
            let name = text(&far["metadata"]["name"]);
            self.store.change(&key(FARS, NAMESPACE, name), self.now, |far| far["spec"] = spec.clone());
        }
        self.remediations_changed();
    }

    fn spec(&self) -> Value {
        let mix = &self.mix;
        let mut shared = json!({ "--ssl-insecure": "" });
        if !mix.restore {
            shared["--action"] = json!("off");
        }
        if self.nonsense {
            shared["--nonsense"] = json!("1");
        }
        json!({
            "agent": "fence_redfish",
            "retrycount": mix.attempts,
            "retryinterval": format!("{}s", mix.gap),
            "timeout": format!("{}s", mix.patience),
            "releaseTimeout": format!("{}s", mix.release_timeout),
            "remediationStrategy": if mix.out_of_service { "OutOfServiceTaint" } else { "ResourceDeletion" },
            "sharedSecretName": "bmc",
            "sharedparameters": shared,
            "nodeparameters": { "--ip": { "n0": format!("bmc-n{}", self.address) } },
        })
    }
}
