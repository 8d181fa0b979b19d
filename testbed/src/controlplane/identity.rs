//! Clients under other names than the administrator's: what they may do, RBAC and admission say.

use anyhow::Context;
use kube::Client;
use kube::config::AuthInfo;

use super::{ControlPlane, client, config};

impl ControlPlane {
    /// A client of a person: the API server sees `user`, in `groups` and in `system:authenticated`. Nobody needs to have
    /// heard of the name before; without a role it may do nothing.
    ///
    /// The administrator impersonates, so admission sees the person and nobody else.
    ///
    /// # Errors
    /// When no client can be made of that.
    pub async fn client_as(&self, user: &str, groups: &[&str]) -> anyhow::Result<Client> {
        let mut config = config(self.admin_kubeconfig()).await?;
        config.auth_info.impersonate = Some(user.to_owned());
        config.auth_info.impersonate_groups = Some(groups.iter().map(|group| (*group).to_owned()).collect());
        Client::try_from(config).with_context(|| format!("making a client as {user}"))
    }

    /// A client of a node's kubelet.
    ///
    /// # Errors
    /// As [`client_as`](Self::client_as).
    pub async fn client_as_node(&self, node: &str) -> anyhow::Result<Client> {
        self.client_as(&format!("system:node:{node}"), &["system:nodes"]).await
    }

    /// A client of an existing service account, by a token of its own.
    ///
    /// # Errors
    /// When it gets no token.
    pub async fn client_as_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Client> {
        client(&self.service_account_kubeconfig(namespace, name).await?).await
    }

    /// A client that doesn't say who it is: `system:anonymous`.
    ///
    /// # Errors
    /// When no client can be made.
    pub async fn client_as_nobody(&self) -> anyhow::Result<Client> {
        let mut config = config(self.admin_kubeconfig()).await?;
        config.auth_info = AuthInfo::default();
        Client::try_from(config).context("making a client of nobody")
    }
}
