//! Accounts that a BMC has refused. Trying one again may lock it, for fencing too.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use agents::Access;
use secrecy::ExposeSecret;

use crate::api::Order;
use crate::isolate::{Sight, State};

/// Refusals remembered; with more, all are forgotten, which costs one more try each.
const MAX: usize = 4096;

/// Tells one account from another. It is a keyed hash: no password can be read from it, nor guessed at without the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account(u64);

/// One who asks a device.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Which device, and which machine behind it.
    pub order: &'a Order,
    /// With which account.
    pub account: Account,
    /// Who asks: a remediation's UID, or a template's with the node.
    pub asker: &'a str,
    /// What spec and Secrets were, by version ([`Resolved::inputs`](crate::resolve::Resolved::inputs)).
    pub inputs: &'a str,
}

#[derive(Default)]
pub(super) struct Refusals(HashMap<(String, Account), Refusal>);

struct Refusal {
    /// What was seen.
    sight: Sight,
    /// Who has had this answer, by its inputs: other inputs are a change, and worth one more try.
    told: BTreeMap<String, String>,
}

impl Account {
    pub(super) fn of(access: &Access, key: &RandomState) -> Self {
        let mut hash = key.build_hasher();
        match access {
            Access::Redfish { credentials, .. } => {
                ("redfish", &credentials.username, credentials.password.expose_secret()).hash(&mut hash);
            }
            Access::Ipmi { credentials, kg, .. } => {
                let kg = kg.as_ref().map(ExposeSecret::expose_secret);
                ("ipmi", &credentials.username, credentials.password.expose_secret(), kg).hash(&mut hash);
            }
            // Which of them is the password only the script knows.
            Access::Script(parameters) => {
                for (name, value) in &parameters.values {
                    ("script", name, value.expose_secret()).hash(&mut hash);
                }
            }
        }
        Self(hash.finish())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

impl Refusals {
    pub(super) fn known(&mut self, host: &str, asking: &Asking<'_>) -> Option<Sight> {
        let refusal = self.0.get_mut(&(host.to_owned(), asking.account))?;
        let told = refusal.told.entry(asking.asker.to_owned()).or_insert_with(|| asking.inputs.to_owned());
        (told == asking.inputs).then(|| refusal.sight.clone())
    }

    pub(super) fn note(&mut self, host: String, asking: &Asking<'_>, sight: &Sight) {
        match sight.state {
            // Whoever else asks has not changed anything that has not just been tried.
            State::Refused if sight.account_refused => {
                if self.0.len() >= MAX {
                    self.0.clear();
                }
                let told = BTreeMap::from([(asking.asker.to_owned(), asking.inputs.to_owned())]);
                self.0.insert((host, asking.account), Refusal { sight: sight.clone(), told });
            }
            State::Isolated | State::Off | State::Running => drop(self.0.remove(&(host, asking.account))),
            // Nothing was said of the account.
            State::Refused | State::Unknown => {}
        }
    }
}
