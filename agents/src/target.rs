//! Which machine a fence agent's script is pointed at, as the two texts that an order has for it: address and plug.

use std::collections::BTreeMap;

use url::form_urlencoded;

/// Which machine a fence agent's script is pointed at. Everything that chooses it is in here, and none of it is a secret:
/// an order is pinned with it, and commands and looks use the pinned one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Host name or IP address of the device; none for agents that have no such parameter.
    pub ip: Option<String>,
    /// Its port.
    pub ipport: Option<u16>,
    /// Which of the machines behind it.
    pub plug: Option<String>,
    /// What else chooses the machine (`zone`, `systems_uri`), by the agent's own names.
    pub others: BTreeMap<String, String>,
}

impl Target {
    /// Returns the address: `ip`, `ip:ipport`, or `[ip]:ipport` for an IPv6 address; empty without one.
    pub fn address(&self) -> String {
        match (&self.ip, self.ipport) {
            (None, _) => String::new(),
            (Some(ip), None) => ip.clone(),
            (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
            (Some(ip), Some(port)) => format!("{ip}:{port}"),
        }
    }

    /// Returns what chooses a machine behind the address: the plug as it is, or all of it as `name=value&…`,
    /// percent-encoded, where there is more to say (or the plug itself has an equals sign).
    pub fn plug(&self) -> Option<String> {
        match &self.plug {
            Some(plug) if self.others.is_empty() && !plug.contains('=') => Some(plug.clone()),
            None if self.others.is_empty() => None,
            plug => {
                let mut text = form_urlencoded::Serializer::new(String::new());
                text.extend_pairs(plug.iter().map(|plug| ("plug", plug)));
                text.extend_pairs(&self.others);
                Some(text.finish())
            }
        }
    }

    /// Reads both texts back.
    pub fn read(address: &str, plug: Option<&str>) -> Self {
        let (ip, ipport) = match address.rsplit_once(':').and_then(|(ip, port)| Some((ip, port.parse().ok()?))) {
            Some((ip, port)) if ip.starts_with('[') && ip.ends_with(']') => (&ip[1..ip.len() - 1], Some(port)),
            Some((ip, port)) if !ip.contains(':') => (ip, Some(port)),
            Some(_) | None => (address, None),
        };
        let mut target = Self { ip: Some(ip.to_owned()).filter(|ip| !ip.is_empty()), ipport, ..Self::default() };
        match plug {
            Some(pairs) if pairs.contains('=') => {
                target.others = form_urlencoded::parse(pairs.as_bytes()).into_owned().collect();
                target.plug = target.others.remove("plug");
            }
            plug => target.plug = plug.map(str::to_owned),
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_all_of_it() {
        let others = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let target = |ip: &str, ipport, plug: Option<&str>, pairs: &[(&str, &str)]| Target {
            ip: Some(ip.to_owned()).filter(|ip| !ip.is_empty()),
            ipport,
            plug: plug.map(str::to_owned),
            others: others(pairs),
        };
        let cases = [
            (target("pdu", None, Some("3"), &[]), "pdu", Some("3")),
            (target("10.0.0.7", Some(161), Some("1,2"), &[]), "10.0.0.7:161", Some("1,2")),
            (target("fd00::7", None, None, &[]), "fd00::7", None),
            (target("fd00::7", Some(623), None, &[]), "[fd00::7]:623", None),
            (target("", None, Some("a=b&c"), &[("zone", "eu 1")]), "", Some("plug=a%3Db%26c&zone=eu+1")),
            (target("", None, Some("a=b"), &[]), "", Some("plug=a%3Db")),
            (target("h", None, None, &[("systems_uri", "/r/1")]), "h", Some("systems_uri=%2Fr%2F1")),
        ];
        for (target, address, plug) in cases {
            assert_eq!((target.address().as_str(), target.plug().as_deref()), (address, plug));
            assert_eq!(Target::read(address, plug), target);
        }
    }
}
