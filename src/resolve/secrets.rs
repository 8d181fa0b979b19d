//! The Secrets of one node: the shared one, its own, and the one with the CA. Others are never read: one that is missing
//! for another node must not keep this one from being fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use tokio::time::{Instant, timeout_at};

use super::Error;
use crate::api::{AgentSpec, DEFAULT_SHARED_SECRET};

/// Where a CA Secret holds its certificates.
const CA_KEY: &str = "ca.crt";

/// Secrets read at once: two levels have some five.
const AT_ONCE: usize = 8;

/// The Secrets that the agents of one spec name for one node. Each is read once, whoever names it.
pub(super) struct Store {
    namespace: String,
    /// By name; `None` is not there.
    read: BTreeMap<String, Option<Kept>>,
}

struct Kept {
    version: String,
    values: BTreeMap<String, SecretSlice<u8>>,
}

/// What was read for one agent.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Parameters of all nodes.
    pub(super) shared: Option<SecretValues>,
    /// Parameters of this node.
    pub(super) node: Option<SecretValues>,
    /// Certificates.
    pub(super) ca: Option<Ca>,
}

/// One Secret with parameters.
#[derive(Debug, Default)]
pub(super) struct SecretValues {
    pub(super) name: String,
    pub(super) values: BTreeMap<String, SecretString>,
}

/// Certificates that a device's must chain to. They are public.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) pem: Vec<u8>,
}

impl Store {
    /// Reads them, several at once.
    ///
    /// # Errors
    /// The API server's, which may pass. That a Secret is not there is found out by whoever needs it.
    pub(super) async fn read(
        client: Client,
        namespace: String,
        names: BTreeSet<&str>,
        by: Instant,
    ) -> Result<Self, Error> {
        let reader = &Reader { client, namespace, by };
        let read = futures::stream::iter(names.into_iter().map(str::to_owned))
            .map(|name| async move { reader.get(&name).await.map(|kept| (name, kept)) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(Self { namespace: reader.namespace.clone(), read })
    }

    /// Names what was read, by version: nothing that is derived from a value.
    pub(super) fn inputs(&self, generation: Option<i64>) -> String {
        let mut text = format!("generation {}", generation.unwrap_or_default());
        for (name, kept) in &self.read {
            if let Some(kept) = kept {
                write!(text, ", secret {name} at {}", kept.version).expect("writing to a String");
            }
        }
        text
    }

    fn get(&self, name: &str) -> Option<&Kept> {
        self.read.get(name)?.as_ref()
    }
}

/// The Secrets that an agent names for a node: of all nodes, of this one, and the CA's.
pub(super) fn names<'a>(agent: &AgentSpec<'a>, node: &str) -> [Option<&'a str>; 3] {
    [
        agent.shared_secret_name,
        agent.node_secret_names.get(node).map(String::as_str),
        agent.tls.and_then(|tls| tls.ca_secret_name.as_deref()),
    ]
}

impl Secrets {
    /// Takes what an agent names for a node out of what was read.
    pub(super) fn of(store: &Store, agent: &AgentSpec<'_>, node: &str) -> Result<Self, Error> {
        let [shared, own, ca] = names(agent, node);
        let shared = shared.filter(|name| *name != DEFAULT_SHARED_SECRET || store.get(name).is_some());
        let named = |name: Option<&str>| match name.map(|name| (name, store.get(name))) {
            None => Ok(None),
            Some((name, Some(kept))) => Ok(Some((name.to_owned(), kept))),
            Some((name, None)) => {
                Err(Error::SecretNotFound { name: name.to_owned(), namespace: store.namespace.clone() })
            }
        };
        let values = |name| named(name)?.map(|(name, kept)| SecretValues::of(name, kept)).transpose();
        Ok(Self {
            shared: values(shared)?,
            node: values(own)?,
            ca: named(ca)?.map(|(name, kept)| Ca::of(name, kept)).transpose()?,
        })
    }
}

impl Kept {
    fn of(secret: Secret) -> Self {
        let version = secret.resource_version().unwrap_or_default();
        let values = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0.into()));
        Self { version, values: values.collect() }
    }
}

impl SecretValues {
    /// Takes all keys. A trailing newline is the editor's, not the password's: `echo secret | base64` adds one.
    fn of(name: String, kept: &Kept) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for (key, bytes) in &kept.values {
            let Ok(text) = std::str::from_utf8(bytes.expose_secret()) else {
                return Err(Error::SecretInvalid { name, key: key.clone(), problem: "is not text (UTF-8)" });
            };
            values.insert(key.clone(), text.trim_end_matches(['\r', '\n']).into());
        }
        Ok(Self { name, values })
    }
}

impl Ca {
    fn of(name: String, kept: &Kept) -> Result<Self, Error> {
        match kept.values.get(CA_KEY) {
            Some(pem) => Ok(Self { pem: pem.expose_secret().to_vec() }),
            None => Err(Error::SecretInvalid { name, key: CA_KEY.into(), problem: "is missing" }),
        }
    }
}

struct Reader {
    client: Client,
    namespace: String,
    by: Instant,
}

impl Reader {
    async fn get(&self, name: &str) -> Result<Option<Kept>, Error> {
        // The client puts the name into the path as it is: "../configmaps/x" would be another request.
        if !is_object_name(name) {
            return Ok(None);
        }
        let (name, namespace) = (name.to_owned(), self.namespace.clone());
        match timeout_at(self.by, self.text(&name)).await {
            // Serde's error is dropped: it may quote what it could not parse.
            Ok(Ok(text)) => match serde_json::from_str(&text) {
                Ok(secret) => Ok(Some(Kept::of(secret))),
                Err(_) => Err(Error::SecretUnreadable { name, namespace }),
            },
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(Error::SecretForbidden { name, namespace }),
            Ok(Err(source)) => Err(Error::Api { name, namespace, source: Arc::new(source) }),
            Err(_) => Err(Error::Deadline { name, namespace }),
        }
    }

    /// The Secret as text: kube's typed calls log the whole body when it can't be parsed.
    async fn text(&self, name: &str) -> kube::Result<String> {
        let request = Request::new(Secret::url_path(&(), Some(&self.namespace)));
        let request = request.get(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
        self.client.request_text(request).await
    }
}

/// Tells whether the text may be an object's name: a DNS subdomain (RFC 1123), as the API server demands of Secrets and Nodes.
/// A client puts a name into the path as it is; "../configmaps/x" would be another request.
pub fn is_object_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let label =
        |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner);
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_object_names_are_asked_for() {
        for name in ["a", "bmc-worker-0", "a.b", "0"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../x", "a?b", "A", "a_b", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
