//! Products whose System says "Off" for other reasons than missing power.
//!
//! On these, and only on these, the Chassis must say Off as well. Elsewhere the Chassis is not asked: many say On for as
//! long as there is standby power, some (sushy-emulator) for ever.

use super::schema::Manager;

/// A product with a row in the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// System PowerState is derived from the *host's* state (bmcweb, `systems.hpp`, from
    /// `xyz.openbmc_project.State.Host`), which is Off also for a running host after the BMC restarted
    /// (openbmc/openbmc#2224). The Chassis's PowerState is that of the supply
    /// (`xyz.openbmc_project.State.Chassis`, `CurrentPowerState`).
    OpenBmc,
    /// Its Manager can't be read, so it may be any. An OpenBMC that starts up, just when it says Off for no reason, must
    /// not pass for another product: no Chassis may contradict the System.
    Unread,
    /// Not in the table: its System PowerState is taken at its word.
    Other,
}

/// Recognises a product by its Manager.
///
/// OpenBMC: bmcweb's `managers.hpp` has always said `Model: OpenBmc`; vendors who change that keep the
/// `Oem.OpenBmc` object.
pub(super) fn recognise(manager: &Manager) -> Product {
    let is_openbmc = |name: &str| name.eq_ignore_ascii_case("OpenBmc");
    let by_model = manager.model.as_deref().is_some_and(is_openbmc);
    let by_oem = manager.oem.as_object().is_some_and(|oem| oem.keys().any(|vendor| is_openbmc(vendor)));
    if by_model || by_oem { Product::OpenBmc } else { Product::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(json: &str) -> Product {
        recognise(&serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn recognises_openbmc_by_model_or_oem() {
        assert_eq!(manager(r#"{"Model":"OpenBmc"}"#), Product::OpenBmc);
        assert_eq!(manager(r#"{"Model":"Titanium","Oem":{"OpenBmc":{}}}"#), Product::OpenBmc);
    }

    #[test]
    fn others_are_others() {
        for json in ["{}", r#"{"Model":"iDRAC"}"#, r#"{"Oem":null}"#, r#"{"Model":null,"Oem":{"Dell":{}}}"#] {
            assert_eq!(manager(json), Product::Other, "{json}");
        }
    }
}
