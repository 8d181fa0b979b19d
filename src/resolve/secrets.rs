//! The Secrets of one node: the shared one, its own, and the one with the CA. Others are never read: one that is missing
//! for another node must not keep this one from being fenced.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Secret;
use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use secrecy::SecretString;
use tokio::time::{Instant, timeout_at};

use super::Error;
use crate::api::FenceAgentsRemediation;

/// The shared Secret where the spec names none. FAR's webhook writes this name into new objects if the Secret exists,
/// and takes it out if it does not; without a webhook the same is done here.
const DEFAULT_SHARED: &str = "fence-agents-credentials-shared";

/// Where a CA Secret holds its certificates.
const CA_KEY: &str = "ca.crt";

/// What was read for one node.
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
    pub(super) version: String,
    pub(super) values: BTreeMap<String, SecretString>,
}

/// Certificates that a device's must chain to. They are public.
#[derive(Debug)]
pub(super) struct Ca {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) pem: Vec<u8>,
}

impl Secrets {
    /// Reads them, all at once.
    pub(super) async fn read(
        client: Client,
        far: &FenceAgentsRemediation,
        node: &str,
        by: Instant,
    ) -> Result<Self, Error> {
        let namespace = far.namespace().unwrap_or_default();
        let reader = Reader { client, namespace, by };
        let spec = &far.spec;
        let ca_name = spec.tls.as_ref().and_then(|tls| tls.ca_secret_name.as_deref());
        let (shared, node, ca) = futures::future::try_join3(
            reader.shared(spec.shared_secret_name.as_deref()),
            reader.named(spec.node_secret_names.get(node).map(String::as_str)),
            reader.named(ca_name),
        )
        .await?;
        Ok(Self {
            shared: shared.map(SecretValues::of).transpose()?,
            node: node.map(SecretValues::of).transpose()?,
            ca: ca.map(Ca::of).transpose()?,
        })
    }

    /// Names what was read, by version: nothing that is derived from a value.
    pub(super) fn inputs(&self, generation: Option<i64>) -> String {
        let mut text = format!("generation {}", generation.unwrap_or_default());
        let values = [&self.shared, &self.node].into_iter().flatten().map(|secret| (&secret.name, &secret.version));
        for (name, version) in values.chain(self.ca.iter().map(|ca| (&ca.name, &ca.version))) {
            write!(text, ", secret {name} at {version}").expect("writing to a String");
        }
        text
    }
}

impl SecretValues {
    /// Takes all keys. A trailing newline is the editor's, not the password's: `echo secret | base64` adds one.
    fn of(secret: Secret) -> Result<Self, Error> {
        let (name, version) = (secret.name_any(), secret.resource_version().unwrap_or_default());
        let mut values = BTreeMap::new();
        for (key, bytes) in secret.data.unwrap_or_default() {
            let Ok(text) = std::str::from_utf8(&bytes.0) else {
                return Err(Error::SecretInvalid { name, key, problem: "is not text (UTF-8)" });
            };
            values.insert(key, text.trim_end_matches(['\r', '\n']).into());
        }
        Ok(Self { name, version, values })
    }
}

impl Ca {
    fn of(secret: Secret) -> Result<Self, Error> {
        let (name, version) = (secret.name_any(), secret.resource_version().unwrap_or_default());
        match secret.data.unwrap_or_default().remove(CA_KEY) {
            Some(pem) => Ok(Self { name, version, pem: pem.0 }),
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
    async fn shared(&self, name: Option<&str>) -> Result<Option<Secret>, Error> {
        match name.filter(|name| !name.is_empty()) {
            None | Some(DEFAULT_SHARED) => self.get(DEFAULT_SHARED).await,
            named => self.named(named).await,
        }
    }

    async fn named(&self, name: Option<&str>) -> Result<Option<Secret>, Error> {
        let Some(name) = name else { return Ok(None) };
        match self.get(name).await? {
            Some(secret) => Ok(Some(secret)),
            None => Err(Error::SecretNotFound { name: name.to_owned(), namespace: self.namespace.clone() }),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        // The client puts the name into the path as it is: "../configmaps/x" would be another request.
        if !is_object_name(name) {
            return Ok(None);
        }
        let (name, namespace) = (name.to_owned(), self.namespace.clone());
        match timeout_at(self.by, self.text(&name)).await {
            // Serde's error is dropped: it may quote what it could not parse.
            Ok(Ok(text)) => match serde_json::from_str(&text) {
                Ok(secret) => Ok(Some(secret)),
                Err(_) => Err(Error::SecretUnreadable { name, namespace }),
            },
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(None),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(Error::SecretForbidden { name, namespace }),
            Ok(Err(source)) => Err(Error::Api { name, namespace, source: Box::new(source) }),
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
