//! The resources a face shows: the least that a client which follows links needs.

use serde_json::{Value, json};

use super::fault::Fault;
use super::unit::Belief;

const ROOT: &str = "/redfish/v1";
const RESET_TYPES: &[&str] = &["On", "ForceOff", "GracefulShutdown", "ForceRestart", "Nmi"];

/// The URI of the system with this name.
pub(super) fn system_uri(name: &str) -> String {
    format!("{ROOT}/Systems/{name}")
}

/// The parts of a path below the service root; a trailing slash makes no difference. `[""]`-like for anything else.
pub(super) fn segments(path: &str) -> Vec<&str> {
    match path.strip_prefix(ROOT) {
        Some(rest) => rest.split('/').filter(|segment| !segment.is_empty()).collect(),
        None => vec!["elsewhere"],
    }
}

/// The machine's name in a path that has one.
pub(super) fn name_in(path: &str) -> Option<&str> {
    match *segments(path).as_slice() {
        ["Systems" | "Chassis" | "Managers", name, ..] => Some(name),
        _ => None,
    }
}

/// The service root.
pub(super) fn root() -> Value {
    json!({
        "@odata.id": "/redfish/v1/",
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Ringfence testbed",
        "RedfishVersion": "1.15.0",
        "Systems": { "@odata.id": format!("{ROOT}/Systems") },
    })
}

/// The list of the systems.
pub(super) fn systems<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let members: Vec<Value> = names.map(|name| json!({ "@odata.id": system_uri(name) })).collect();
    json!({
        "@odata.id": format!("{ROOT}/Systems"),
        "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
        "Name": "Systems",
        "Members@odata.count": members.len(),
        "Members": members,
    })
}

/// A system, as its BMC sees it.
pub(super) fn system(name: &str, belief: &Belief, faults: &[Fault]) -> Value {
    let uri = system_uri(name);
    let mut system = json!({
        "@odata.id": uri,
        "@odata.type": "#ComputerSystem.v1_20_0.ComputerSystem",
        "Id": name,
        "Name": name,
        "PowerState": belief.power,
        "UUID": belief.uuid,
        "Links": {
            "Chassis": [{ "@odata.id": format!("{ROOT}/Chassis/{name}") }],
            "ManagedBy": [{ "@odata.id": format!("{ROOT}/Managers/{name}") }],
        },
        "Actions": { "#ComputerSystem.Reset": reset(&uri, faults) },
    });
    let object = system.as_object_mut().expect("made as an object above");
    for (fault, property) in
        [(Fault::NoReset, "Actions"), (Fault::NoPowerState, "PowerState"), (Fault::NoIdentity, "UUID")]
    {
        if faults.contains(&fault) {
            object.remove(property);
        }
    }
    system
}

fn reset(uri: &str, faults: &[Fault]) -> Value {
    let mut target = format!("{uri}/Actions/ComputerSystem.Reset");
    let mut offered = Some(("ResetType@Redfish.AllowableValues", json!(RESET_TYPES)));
    for fault in faults {
        if let Fault::Offers(types) = fault {
            offered = (!types.is_empty()).then(|| ("ResetType@Redfish.AllowableValues", json!(types)));
        }
        if let Fault::OffersInActionInfo(_) = fault {
            offered = Some(("@Redfish.ActionInfo", json!(format!("{uri}/ResetActionInfo"))));
        }
        if *fault == Fault::ForeignTarget {
            target = "https://192.0.2.1/reset".to_owned();
        }
    }
    let mut reset = json!({ "target": target });
    if let Some((property, value)) = offered {
        reset[property] = value;
    }
    reset
}

/// The ActionInfo of a system's Reset.
pub(super) fn action_info(name: &str, faults: &[Fault]) -> Value {
    let offered =
        faults.iter().find_map(|fault| if let Fault::OffersInActionInfo(types) = fault { Some(*types) } else { None });
    json!({
        "@odata.id": format!("{}/ResetActionInfo", system_uri(name)),
        "@odata.type": "#ActionInfo.v1_3_0.ActionInfo",
        "Id": "ResetActionInfo",
        "Name": "Reset Action Info",
        "Parameters": [{
            "Name": "ResetType",
            "Required": true,
            "DataType": "String",
            "AllowableValues": offered.unwrap_or(RESET_TYPES),
        }],
    })
}

/// A chassis: with standby power always On, except where it is said to tell the truth.
pub(super) fn chassis(name: &str, on: bool, faults: &[Fault]) -> Value {
    let off = faults.contains(&Fault::OpenBmc) && !on;
    json!({
        "@odata.id": format!("{ROOT}/Chassis/{name}"),
        "@odata.type": "#Chassis.v1_22_0.Chassis",
        "Id": name,
        "Name": name,
        "ChassisType": "RackMount",
        "PowerState": if off { "Off" } else { "On" },
    })
}

/// A manager: the BMC itself.
pub(super) fn manager(name: &str, faults: &[Fault]) -> Value {
    let openbmc = faults.contains(&Fault::OpenBmc);
    json!({
        "@odata.id": format!("{ROOT}/Managers/{name}"),
        "@odata.type": "#Manager.v1_18_0.Manager",
        "Id": name,
        "Name": if openbmc { "OpenBmc Manager" } else { "Manager" },
        "ManagerType": "BMC",
        "Model": if openbmc { "OpenBmc" } else { "Testbed" },
        "PowerState": "On",
    })
}

/// An error in Redfish's words.
pub(super) fn error(id: &str, message: &str) -> Value {
    json!({ "error": {
        "code": "Base.1.18.GeneralError",
        "message": "A general error has occurred. See ExtendedInfo for more information.",
        "@Message.ExtendedInfo": [{
            "@odata.type": "#Message.v1_2_0.Message",
            "MessageId": id,
            "Message": message,
        }],
    }})
}
