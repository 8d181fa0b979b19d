//! The few properties of Redfish resources that fencing needs (DMTF DSP0266, DSP2046). Everything else is ignored.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A link to another resource.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Link {
    #[serde(rename = "@odata.id")]
    pub(super) id: String,
}

/// The service root.
#[derive(Debug, Deserialize)]
pub(super) struct ServiceRoot {
    #[serde(rename = "Systems")]
    pub(super) systems: Option<Link>,
}

/// A collection of resources.
#[derive(Debug, Deserialize)]
pub(super) struct Collection {
    #[serde(rename = "Members", default, deserialize_with = "null_is_default")]
    pub(super) members: Vec<Link>,
}

/// A ComputerSystem.
#[derive(Debug, Deserialize)]
pub(super) struct System {
    #[serde(rename = "PowerState")]
    pub(super) power: Option<String>,
    #[serde(rename = "UUID")]
    pub(super) uuid: Option<String>,
    #[serde(rename = "Actions", default, deserialize_with = "null_is_default")]
    pub(super) actions: Actions,
    #[serde(rename = "Links", default, deserialize_with = "null_is_default")]
    pub(super) links: SystemLinks,
}

/// What a system is part of, and what manages it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SystemLinks {
    #[serde(rename = "Chassis", default, deserialize_with = "null_is_default")]
    pub(super) chassis: Vec<Link>,
    #[serde(rename = "ManagedBy", default, deserialize_with = "null_is_default")]
    pub(super) managed_by: Vec<Link>,
}

/// What a system can be told to do.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    pub(super) reset: Option<Reset>,
}

/// The Reset action.
#[derive(Debug, Deserialize)]
pub(super) struct Reset {
    pub(super) target: String,
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    pub(super) allowable: Option<Vec<String>>,
    #[serde(rename = "@Redfish.ActionInfo")]
    pub(super) info: Option<String>,
}

/// The parameters of an action, where they are not in the action itself.
#[derive(Debug, Deserialize)]
pub(super) struct ActionInfo {
    #[serde(rename = "Parameters", default, deserialize_with = "null_is_default")]
    pub(super) parameters: Vec<Parameter>,
}

/// One parameter of an action.
#[derive(Debug, Deserialize)]
pub(super) struct Parameter {
    #[serde(rename = "Name")]
    pub(super) name: String,
    #[serde(rename = "AllowableValues")]
    pub(super) allowable: Option<Vec<String>>,
}

/// A Chassis.
#[derive(Debug, Deserialize)]
pub(super) struct Chassis {
    #[serde(rename = "PowerState")]
    pub(super) power: Option<String>,
}

/// A Manager: the BMC itself.
#[derive(Debug, Deserialize)]
pub(super) struct Manager {
    #[serde(rename = "Model")]
    pub(super) model: Option<String>,
    #[serde(rename = "Oem", default)]
    pub(super) oem: Value,
}

/// Some BMCs send `null` for what they do not have.
fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The code and the words of an error answer, empty where it has none (DSP0266, "Error responses").
///
/// The first extended message is more specific than the outer one, which often reads "see ExtendedInfo".
pub(super) fn error_words(body: &[u8]) -> (String, String) {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["error"];
    let info = &error["@Message.ExtendedInfo"];
    let first = if info.is_array() { &info[0] } else { info };
    let text = |specific: &Value, general: &Value| -> String {
        specific.as_str().or_else(|| general.as_str()).unwrap_or_default().to_owned()
    };
    (text(&first["MessageId"], &error["code"]), text(&first["Message"], &error["message"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specific_words_of_an_error_win() {
        let body = br#"{"error":{"code":"Base.1.0.GeneralError","message":"See ExtendedInfo","@Message.ExtendedInfo":
            [{"MessageId":"iLO.2.14.InvalidOperationForSystemState","Message":"The server is off."}]}}"#;
        assert_eq!(
            error_words(body),
            ("iLO.2.14.InvalidOperationForSystemState".to_owned(), "The server is off.".to_owned())
        );
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let system: System = serde_json::from_str(
            r#"{"PowerState":null,"UUID":null,"Actions":null,"Links":{"Chassis":null,"ManagedBy":null}}"#,
        )
        .expect("reads");
        assert!(system.power.is_none() && system.uuid.is_none() && system.actions.reset.is_none());
        assert!(system.links.chassis.is_empty() && system.links.managed_by.is_empty());
    }

    #[test]
    fn an_error_without_words_has_none() {
        for body in [&b"<html>busy</html>"[..], b"", b"[]", br#"{"error":"x"}"#] {
            assert_eq!(error_words(body), (String::new(), String::new()));
        }
        let general = br#"{"error":{"code":"Base.1.0.GeneralError","message":"no"}}"#;
        assert_eq!(error_words(general), ("Base.1.0.GeneralError".to_owned(), "no".to_owned()));
    }
}
