//! The few properties of Redfish resources that fencing needs (DMTF DSP0266, DSP2046). Everything else is ignored.

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A resource that is read for what it says itself, so it must be what it is taken for.
pub(super) trait Resource: DeserializeOwned {
    /// What its `@odata.type` begins with, if it has one. Many kinds of resource have a PowerState, and each means
    /// another power.
    const KIND: &'static str;
}

impl Resource for System {
    const KIND: &'static str = "#ComputerSystem.";
}

impl Resource for Chassis {
    const KIND: &'static str = "#Chassis.";
}

impl Resource for Manager {
    const KIND: &'static str = "#Manager.";
}

/// Where no state is read, the kind is not looked at: firmware of the first Redfish years has other names.
impl Resource for ServiceRoot {
    const KIND: &'static str = "";
}

impl Resource for Collection {
    const KIND: &'static str = "";
}

impl Resource for ActionInfo {
    const KIND: &'static str = "";
}

/// What tells a resource from something else in its place.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "@odata.type")]
    kind: Option<String>,
    error: Option<IgnoredAny>,
}

/// Reads a resource: one JSON object of the right kind that is no error report.
pub(super) fn read<T: Resource>(body: &[u8]) -> Result<T, String> {
    // Serde takes an array for a struct too, by position: `["Off"]` would be a system that is off.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("not a JSON object".into());
    }
    let envelope: Envelope = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if envelope.error.is_some() {
        let (code, message) = error_words(body);
        return Err(format!("an error instead of the resource: {code} {message}"));
    }
    match envelope.kind {
        Some(kind) if !kind.starts_with(T::KIND) => Err(format!("{kind} instead of {}*", T::KIND)),
        Some(_) | None => serde_json::from_slice(body).map_err(|error| error.to_string()),
    }
}

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
    #[serde(rename = "Members@odata.count", default)]
    count: Value,
    #[serde(rename = "Members@odata.nextLink", default)]
    next: Value,
}

impl Collection {
    /// Tells whether there are members that are not in the list: on the next page, or hidden.
    pub(super) fn is_partial(&self) -> bool {
        !self.next.is_null() || self.count.as_u64().is_some_and(|count| count > self.members.len() as u64)
    }
}

/// A ComputerSystem.
#[derive(Debug, Deserialize)]
pub(super) struct System {
    #[serde(rename = "@odata.id")]
    pub(super) id: Option<String>,
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
    pub(super) target: Option<String>,
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
    #[serde(rename = "@odata.id")]
    pub(super) id: Option<String>,
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

/// Tells whether the answer to a command, by its status a success, reports an error all the same.
///
/// HPE and Huawei report successes in an `error` too, with a message whose ID ends in "Success".
pub(super) fn is_refusal(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &answer["error"];
    let info = &error["@Message.ExtendedInfo"];
    let messages = info.as_array().map_or(std::slice::from_ref(info), Vec::as_slice);
    let mut ids = messages.iter().map(|message| &message["MessageId"]).chain([&error["code"]]);
    !error.is_null() && !ids.any(|id| id.as_str().is_some_and(|id| id.ends_with("Success")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(json: &str) -> Result<Option<String>, String> {
        read::<System>(json.as_bytes()).map(|system| system.power)
    }

    #[test]
    fn only_a_system_has_a_systems_power() {
        let off = || Ok(Some("Off".to_owned()));
        assert_eq!(system(r#"{"PowerState":"Off"}"#), off());
        assert_eq!(
            system(" \n{\"@odata.type\":\"#ComputerSystem.v1_5_0.ComputerSystem\",\"PowerState\":\"Off\"}\n"),
            off()
        );
        assert_eq!(system(r##"{"@odata.type":"#ComputerSystem.1.0.1.ComputerSystem","PowerState":"Off"}"##), off());
        assert_eq!(system(r#"{"powerstate":"Off","POWERSTATE":"Off","Status":{"PowerState":"Off"}}"#), Ok(None));
        for nonsense in [
            r#"["Off",null]"#,
            r#"[null,"Off",null,{},{}]"#,
            r#"[{"PowerState":"Off"}]"#,
            r#""Off""#,
            "",
            r#"{"PowerState":"On","PowerState":"Off"}"#,
            r#"{"PowerState":["Off"]}"#,
            r#"{"PowerState":"Off"} {}"#,
            r#"{"PowerState":"Off""#,
            r#"{"error":{"code":"Base.1.0.GeneralError"},"PowerState":"Off"}"#,
            r##"{"@odata.type":"#Chassis.v1_0_0.Chassis","PowerState":"Off"}"##,
            r##"{"@odata.type":"#ComputerSystemCollection.ComputerSystemCollection","PowerState":"Off"}"##,
            r#"{"@odata.type":"","PowerState":"Off"}"#,
            "\u{feff}{\"PowerState\":\"Off\"}",
        ] {
            assert!(system(nonsense).is_err(), "{nonsense}");
        }
        // By position this would be a manager of no known product.
        assert!(read::<Manager>(b"[null,null]").is_err());
    }

    #[test]
    fn a_list_may_not_be_whole() {
        let partial = |json: &str| read::<Collection>(json.as_bytes()).expect("a list").is_partial();
        assert!(!partial(r#"{"Members":[{"@odata.id":"/a"}]}"#));
        assert!(!partial(r#"{"Members":[{"@odata.id":"/a"}],"Members@odata.count":1,"Members@odata.nextLink":null}"#));
        assert!(partial(r#"{"Members":[{"@odata.id":"/a"}],"Members@odata.count":2}"#));
        assert!(partial(r#"{"Members":[{"@odata.id":"/a"}],"Members@odata.nextLink":"/b?$skip=1"}"#));
    }

    #[test]
    fn a_success_may_be_called_an_error() {
        for success in [
            "",
            "<html>",
            "{}",
            r#"{"Success":{"code":"Base.v1_4_0.Success"}}"#,
            r#"{"error":{"code":"iLO.0.10.ExtendedInfo","@Message.ExtendedInfo":[{"MessageId":"Base.0.10.Success"}]}}"#,
            r#"{"error":{"code":"Base.1.0.Success"}}"#,
        ] {
            assert!(!is_refusal(success.as_bytes()), "{success}");
        }
        for refusal in [
            r#"{"error":{}}"#,
            r#"{"error":"no"}"#,
            r#"{"error":{"code":"Base.1.0.GeneralError","@Message.ExtendedInfo":[{"MessageId":"A.1.NotNow"}]}}"#,
            r#"{"error":{"code":"Base.1.0.GeneralError","@Message.ExtendedInfo":{"MessageId":"A.1.NotNow"}}}"#,
        ] {
            assert!(is_refusal(refusal.as_bytes()), "{refusal}");
        }
    }

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
