//! The API server's objects: versions, preconditions, finalizers, and what they were a moment ago.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

/// Longer than any reader lags behind.
const REMEMBERED: u64 = 100_000;

/// Which object: plural, namespace, name.
pub type Key = (String, String, String);

/// Names an object.
pub fn key(plural: &str, namespace: &str, name: &str) -> Key {
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

/// Why a write was refused: the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub u16);

const CONFLICT: Refusal = Refusal(409);
const NOT_FOUND: Refusal = Refusal(404);

/// What of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
}

/// An object since some time; none: it was gone.
type Version = (u64, Option<Arc<Value>>);

/// Every object, with its last versions.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Vec<Version>>,
    version: u64,
    uids: u64,
}

impl Store {
    /// Counts all writes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns an object as it was at `at`.
    pub fn get(&self, key: &Key, at: u64) -> Option<Arc<Value>> {
        let versions = self.objects.get(key)?;
        versions.iter().rev().find(|(since, _)| *since <= at)?.1.clone()
    }

    /// Returns an object as it is.
    pub fn now(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key)?.last()?.1.clone()
    }

    /// Lists objects as they were at `at`; `None`: in all namespaces.
    pub fn list(&self, plural: &str, namespace: Option<&str>, at: u64) -> Vec<Arc<Value>> {
        let from = key(plural, "", "");
        let of_kind = self.objects.range(from..).take_while(|(key, _)| key.0 == plural);
        let within = of_kind.filter(|(key, _)| namespace.is_none_or(|namespace| key.1 == namespace));
        within.filter_map(|(key, _)| self.get(key, at)).collect()
    }

    /// Lists objects as they are.
    pub fn all(&self, plural: &str) -> Vec<Arc<Value>> {
        self.list(plural, None, u64::MAX)
    }

    pub fn create(&mut self, key: &Key, mut object: Value, at: u64) -> Result<Arc<Value>, Refusal> {
        if self.now(key).is_some() {
            return Err(CONFLICT);
        }
        self.uids += 1;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("{}-{}", key.0, self.uids));
        metadata["name"] = json!(key.2);
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!(super::world::stamp(at));
        if !key.1.is_empty() {
            metadata["namespace"] = json!(key.1);
        }
        Ok(self.put(key, object, at))
    }

    /// Replaces a part of an object, if it still has the version that is given.
    pub fn replace(&mut self, key: &Key, new: &Value, part: Part, at: u64) -> Result<Arc<Value>, Refusal> {
        let old = self.now(key).ok_or(NOT_FOUND)?;
        guard(&old, &new["metadata"])?;
        let mut object = (*old).clone();
        match part {
            Part::Status => object["status"] = new["status"].clone(),
            Part::Main => {
                for field in ["spec", "data"].into_iter().filter(|field| new.get(field).is_some()) {
                    object[field] = new[field].clone();
                }
                for field in ["annotations", "labels", "finalizers"] {
                    object["metadata"][field] = new["metadata"][field].clone();
                }
            }
        }
        Ok(self.settle(key, &old, object, at))
    }

    /// Merges a patch into a part of an object (RFC 7386), if it still has the version that is given.
    pub fn patch(&mut self, key: &Key, patch: &Value, part: Part, at: u64) -> Result<Arc<Value>, Refusal> {
        let old = self.now(key).ok_or(NOT_FOUND)?;
        guard(&old, &patch["metadata"])?;
        let mut object = (*old).clone();
        let parts: &[&str] = match part {
            Part::Main => &["metadata", "spec"],
            Part::Status => &["status"],
        };
        for field in parts {
            if let Some(change) = patch.get(*field) {
                merge(&mut object[*field], change);
            }
        }
        for field in ["resourceVersion", "uid"] {
            object["metadata"][field] = old["metadata"][field].clone();
        }
        Ok(self.settle(key, &old, object, at))
    }

    /// Changes an object as one of Kubernetes' own controllers does, which read it just now.
    pub fn change(&mut self, key: &Key, at: u64, change: impl FnOnce(&mut Value)) {
        if let Some(old) = self.now(key) {
            let mut object = (*old).clone();
            change(&mut object);
            self.settle(key, &old, object, at);
        }
    }

    /// Deletes an object at once, or marks it as being deleted, if it has finalizers or `grace` is given.
    pub fn delete(&mut self, key: &Key, guards: &Value, grace: Option<u64>, at: u64) -> Result<(), Refusal> {
        let old = self.now(key).ok_or(NOT_FOUND)?;
        guard(&old, guards)?;
        let held = old["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if !held && grace.is_none_or(|grace| grace == 0) {
            self.forget(key, at);
            return Ok(());
        }
        let mut object = (*old).clone();
        let metadata = &mut object["metadata"];
        if metadata["deletionTimestamp"].is_null() {
            metadata["deletionTimestamp"] = json!(super::world::stamp(at));
        }
        metadata["deletionGracePeriodSeconds"] = json!(grace.unwrap_or(0));
        self.settle(key, &old, object, at);
        Ok(())
    }

    /// Takes back what tells others of the last write of an object.
    pub fn hush(&mut self, key: &Key, before: &Value) {
        if let Some((_, Some(last))) = self.objects.get_mut(key).and_then(|versions| versions.last_mut()) {
            Arc::make_mut(last)["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
        }
    }

    fn forget(&mut self, key: &Key, at: u64) {
        self.version += 1;
        self.keep(key, None, at);
    }

    /// A write that changes nothing makes no version; the last finalizer of a deleted object takes it along.
    fn settle(&mut self, key: &Key, old: &Arc<Value>, mut object: Value, at: u64) -> Arc<Value> {
        if **old == object {
            return old.clone();
        }
        if old["spec"] != object["spec"] {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_u64().unwrap_or(0) + 1);
        }
        let metadata = &object["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        let graceful = metadata["deletionGracePeriodSeconds"].as_u64().is_some_and(|grace| grace > 0);
        if !metadata["deletionTimestamp"].is_null() && !held && !graceful {
            self.forget(key, at);
            return Arc::new(object);
        }
        self.put(key, object, at)
    }

    fn put(&mut self, key: &Key, mut object: Value, at: u64) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        self.keep(key, Some(object.clone()), at);
        object
    }

    fn keep(&mut self, key: &Key, object: Option<Arc<Value>>, at: u64) {
        let versions = self.objects.entry(key.clone()).or_default();
        versions.push((at, object));
        // The last one before what is remembered stays: it was current then.
        let old = versions.iter().take_while(|(since, _)| since + REMEMBERED < at).count();
        versions.drain(..old.saturating_sub(1));
    }
}

/// Holds preconditions, wherever they are written, against an object.
fn guard(object: &Value, guards: &Value) -> Result<(), Refusal> {
    let holds = |field: &str| guards[field].is_null() || guards[field] == object["metadata"][field];
    if holds("resourceVersion") && holds("uid") { Ok(()) } else { Err(CONFLICT) }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match value.is_null() {
            true => drop(target.as_object_mut().map(|target| target.remove(name))),
            false => merge(&mut target[name.as_str()], value),
        }
    }
}
