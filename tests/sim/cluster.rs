//! Kubernetes around the operator: kubelets, taint eviction, pod GC, the StatefulSet's controller with its scheduler, and
//! the attach-detach controller. Each step does what is due; the world lets some time pass between two.

use std::sync::Arc;

use serde_json::{Value, json};

use super::machine::Process;
use super::store::{Key, Part, key};
use super::tally::note;
use super::world::{World, stamp, taints, text};

/// Kubelets renew their Lease this often.
const BEAT: u64 = 10_000;
/// A node whose Lease is older is not Ready.
const GRACE: u64 = 40_000;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
pub const LEASES: &str = "kube-node-lease";
/// Pods with a volume, and it.
const VOLUMES: [(&str, &str); 2] = [("db-0", "pv-0"), ("edge-0", "pv-1")];
/// Workloads' namespace.
const APPS: &str = "apps";

impl World {
    /// Puts up the cluster, and hangs the target.
    pub fn furnish(&mut self) {
        for index in 0..self.machines.len() {
            let machine = &self.machines[index];
            let mut labels = json!({ "kubernetes.io/hostname": machine.name });
            if self.mix.control_plane {
                labels["node-role.kubernetes.io/control-plane"] = json!("");
            }
            let status = json!({
                "nodeInfo": { "systemUUID": machine.uuid, "bootID": machine.boot_id() },
                "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": stamp(0) }],
            });
            let node = json!({ "metadata": { "labels": labels }, "spec": {}, "status": status });
            let _ = self.store.create(&self.node(index), node, 0);
            let lease = json!({ "spec": { "holderIdentity": machine.name, "renewTime": stamp(0) } });
            let _ = self.store.create(&key("leases", LEASES, &format!("n{index}")), lease, 0);
        }
        for (place, volume) in VOLUMES {
            let claim = json!({ "namespace": APPS, "name": format!("data-{place}") });
            let claimed = json!({ "spec": { "claimRef": claim } });
            let _ = self.store.create(&key("persistentvolumes", "", volume), claimed, 0);
        }
        self.place_pod("db-0", "n0");
        if self.mix.tolerant {
            self.place_pod("edge-0", "n0");
        }
        let owner =
            json!([{ "kind": "DaemonSet", "name": "ds", "uid": "d", "apiVersion": "apps/v1", "controller": true }]);
        let daemon = json!({
            "metadata": { "ownerReferences": owner },
            "spec": { "nodeName": "n0", "tolerations": [{ "operator": "Exists" }] },
            "status": { "phase": "Running" },
        });
        let _ = self.store.create(&key("pods", APPS, "ds-n0"), daemon, 0);
        if self.mix.finalizer {
            let held = |pod: &mut Value| pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
            self.store.change(&key("pods", APPS, "db-0"), 0, held);
        }
        self.step();
        self.step();
        self.step();
        self.machines[0].hung = self.mix.hung;
        if !self.mix.powered {
            self.machines[0].cut();
        }
        let silent = self.mix.hung || !self.mix.powered;
        if silent && self.chance.percent(70) {
            let node = self.node(0);
            self.store.change(&node, 0, |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
        }
        self.happen(super::faults::Deed::Secret(true));
        self.remediate();
    }

    /// One round of everybody.
    pub fn step(&mut self) {
        (0..self.machines.len()).for_each(|index| self.kubelet(index));
        self.watch_nodes();
        self.evict();
        self.collect_pods_of_gone_nodes();
        self.replace_pods();
        self.attach_and_detach();
    }

    fn kubelet(&mut self, index: usize) {
        let now = self.now;
        if !self.machines[index].talks(now) {
            return;
        }
        let node = self.node(index);
        if now >= self.machines[index].beats_at {
            let machine = &mut self.machines[index];
            machine.beats_at = now + self.mix.beat;
            let boot = machine.boot_id();
            let lease = key("leases", LEASES, &machine.name);
            self.store.change(&lease, now, |lease| lease["spec"]["renewTime"] = json!(stamp(now)));
            self.store.change(&node, now, |node| {
                let status = &mut node["status"];
                // The kubelet writes a condition when it changes, else every five minutes.
                if status["nodeInfo"]["bootID"] != json!(boot) || status["conditions"][0]["status"] != "True" {
                    status["nodeInfo"]["bootID"] = json!(boot);
                    status["conditions"][0]["status"] = json!("True");
                    status["conditions"][0]["lastHeartbeatTime"] = json!(stamp(now));
                }
            });
        }
        self.sync_pods(index);
        let used: Vec<_> =
            self.machines[index].processes.values().filter_map(|process| process.volume.clone()).collect();
        self.store.change(&node, now, |node| match used.is_empty() {
            true => drop(node["status"].as_object_mut().map(|status| status.remove("volumesInUse"))),
            false => node["status"]["volumesInUse"] = json!(used),
        });
    }

    fn sync_pods(&mut self, index: usize) {
        let name = self.machines[index].name.clone();
        let mut alive = vec![];
        for pod in self.pods_on(&name) {
            let (uid, over) = (text(&pod["metadata"]["uid"]).to_owned(), is_over(&pod));
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.machines[index].processes.remove(&uid);
                let _ = self.store.delete(&key_of(&pod), &Value::Null, None, self.now);
                self.store.change(&key_of(&pod), self.now, |pod| {
                    pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                });
                continue;
            }
            let volume = volume_of(&pod);
            let ready = volume.as_ref().is_none_or(|volume| self.attached_to(volume).as_deref() == Some(&name));
            if over || !ready {
                continue;
            }
            alive.push(uid.clone());
            let place = text(&pod["metadata"]["name"]).to_owned();
            if self.machines[index].processes.insert(uid, Process { place: place.clone(), volume }).is_none() {
                note(|| format!("{place} runs on {name}"));
                self.store.change(&key_of(&pod), self.now, |pod| pod["status"]["phase"] = json!("Running"));
                self.moved = true;
            }
        }
        self.machines[index].processes.retain(|uid, _| alive.contains(uid));
    }

    fn watch_nodes(&mut self) {
        let now = self.now;
        for index in 0..self.machines.len() {
            let silent = !self.machines[index].talks(now) && now > self.machines[index].beats_at + GRACE - BEAT;
            if silent {
                let node = self.node(index);
                self.store.change(&node, now, |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
            }
        }
    }

    fn evict(&mut self) {
        for index in 0..self.machines.len() {
            let Some(node) = self.store.now(&self.node(index)) else { continue };
            let barred = taints(&node).iter().any(|taint| taint["effect"] == "NoExecute");
            let out_of_service = taints(&node).iter().any(|taint| taint["key"] == OUT_OF_SERVICE);
            let ready = node["status"]["conditions"][0]["status"] == "True";
            for pod in self.pods_on(text(&node["metadata"]["name"])) {
                if pod["spec"]["tolerations"].is_array() || !barred {
                    continue;
                }
                let going = !pod["metadata"]["deletionTimestamp"].is_null();
                let grace = if is_over(&pod) { None } else { Some(30) };
                match going {
                    true if out_of_service && !ready => {
                        let _ = self.store.delete(&key_of(&pod), &Value::Null, None, self.now);
                    }
                    true => {}
                    false => {
                        let _ = self.store.delete(&key_of(&pod), &Value::Null, grace, self.now);
                    }
                }
            }
        }
    }

    /// Pod GC: what is bound to a node that there is none of.
    pub fn collect_pods_of_gone_nodes(&mut self) {
        for pod in self.store.all("pods") {
            let node = text(&pod["spec"]["nodeName"]);
            if !node.is_empty() && self.store.now(&key("nodes", "", node)).is_none() {
                let _ = self.store.delete(&key_of(&pod), &Value::Null, None, self.now);
            }
        }
    }

    fn replace_pods(&mut self) {
        let db = key("pods", APPS, "db-0");
        // It goes where its node is, whatever is wrong with that.
        let edge = key("pods", APPS, "edge-0");
        if self.mix.tolerant && self.store.now(&edge).is_none() && self.store.now(&self.node(0)).is_some() {
            self.place_pod("edge-0", "n0");
        }
        match self.store.now(&db) {
            Some(pod) if is_over(&pod) && pod["metadata"]["deletionTimestamp"].is_null() => {
                let _ = self.store.delete(&db, &Value::Null, None, self.now);
            }
            Some(_) => {}
            None => {
                let free = |index: &usize| {
                    let node = self.store.now(&self.node(*index));
                    node.is_some_and(|node| {
                        taints(&node).is_empty() && node["status"]["conditions"][0]["status"] == "True"
                    })
                };
                let order = if self.mix.home { [0, 1, 2] } else { [1, 2, 0] };
                if let Some(index) = order.into_iter().find(free) {
                    self.place_pod("db-0", &format!("n{index}"));
                }
            }
        }
    }

    fn place_pod(&mut self, place: &str, node: &str) {
        let claim = json!({ "claimName": format!("data-{place}") });
        let mut pod = json!({
            "metadata": {},
            "spec": { "nodeName": node, "volumes": [{ "name": "data", "persistentVolumeClaim": claim }] },
            "status": { "phase": "Pending" },
        });
        if place == "edge-0" {
            pod["spec"]["tolerations"] = json!([{ "operator": "Exists" }]);
        }
        let _ = self.store.create(&key("pods", APPS, place), pod, self.now);
    }

    fn attach_and_detach(&mut self) {
        for attachment in self.store.all("volumeattachments") {
            let node = text(&attachment["spec"]["nodeName"]).to_owned();
            let volume = text(&attachment["spec"]["source"]["persistentVolumeName"]).to_owned();
            let wants = |pod: &Arc<Value>| !is_over(pod) && volume_of(pod).as_deref() == Some(&volume);
            if self.pods_on(&node).iter().any(wants) {
                continue;
            }
            let object = self.store.now(&key("nodes", "", &node));
            let free = object.is_none_or(|node| {
                let used = node["status"]["volumesInUse"].as_array().is_some_and(|used| used.contains(&json!(volume)));
                !used || taints(&node).iter().any(|taint| taint["key"] == OUT_OF_SERVICE)
            });
            if free {
                let index = self.machines.iter().position(|machine| machine.name == node);
                if let Some(index) = index {
                    self.judge_detach(index, &volume);
                }
                note(|| format!("{volume} is detached from {node}"));
                let _ = self.store.delete(&key_of_kind("volumeattachments", &attachment), &Value::Null, None, self.now);
            }
        }
        for pod in self.store.all("pods") {
            let (Some(volume), node) = (volume_of(&pod), text(&pod["spec"]["nodeName"]).to_owned()) else { continue };
            let going = is_over(&pod) || !pod["metadata"]["deletionTimestamp"].is_null();
            if !node.is_empty() && !going && self.attached_to(&volume).is_none() {
                let spec = json!({ "attacher": "csi", "nodeName": node, "source": { "persistentVolumeName": volume } });
                let name = format!("va-{volume}-{}", self.store.version());
                let attachment = json!({ "spec": spec, "status": { "attached": true } });
                let _ = self.store.create(&key("volumeattachments", "", &name), attachment, self.now);
            }
        }
    }

    fn attached_to(&self, volume: &str) -> Option<String> {
        let all = self.store.all("volumeattachments");
        let of_volume = all.iter().find(|va| va["spec"]["source"]["persistentVolumeName"] == volume);
        of_volume.map(|va| text(&va["spec"]["nodeName"]).to_owned())
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Value>> {
        self.store.all("pods").into_iter().filter(|pod| pod["spec"]["nodeName"] == node).collect()
    }

    /// Lets what was planned for this phase come.
    pub fn entered(&mut self, phase: &str) {
        use super::faults::When;
        for (when, _) in &mut self.mix.deeds {
            if let When::Phase(of, after) = *when
                && of == phase
            {
                *when = When::At(self.now + after);
            }
        }
    }

    /// A write of the operator.
    pub fn write(&mut self, key: &Key, write: Write<'_>) -> Result<Arc<Value>, super::store::Refusal> {
        let before = self.store.now(key).unwrap_or_default();
        let now = self.now;
        let silent = match (write, self.mix.broken) {
            (Write::Patch(patch, part), Some(broken)) => broken.is_silent(key, part, patch),
            _ => false,
        };
        let done = match write {
            Write::Create(object) => self.store.create(key, object.clone(), now),
            Write::Replace(object, part) => self.store.replace(key, object, part, now),
            Write::Patch(patch, part) => self.store.patch(key, patch, part, now),
            Write::Delete(guards) => self.store.delete(key, guards, Some(0), now).map(|()| before.clone()),
        };
        if done.is_ok() && silent {
            self.store.hush(key, &before);
        }
        if done.is_ok() {
            let after = self.store.now(key);
            self.judge_write(key, &before, after.as_deref());
            if key.0 == super::world::FARS {
                self.remediations_changed();
            }
        }
        done
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Write<'a> {
    Create(&'a Value),
    Replace(&'a Value, Part),
    Patch(&'a Value, Part),
    Delete(&'a Value),
}

fn key_of(pod: &Value) -> Key {
    key_of_kind("pods", pod)
}

fn key_of_kind(plural: &str, object: &Value) -> Key {
    key(plural, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
}

fn volume_of(pod: &Value) -> Option<String> {
    let claim = text(&pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]);
    let volume = VOLUMES.iter().find(|(place, _)| claim.strip_prefix("data-") == Some(place));
    volume.map(|(_, volume)| (*volume).to_owned())
}
