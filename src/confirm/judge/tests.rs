//! Each refusal, its words, and each boundary.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time as ApiTime};

use super::*;
use crate::api::{RemediationConfirmationSpec, RemediationConfirmationStatus, Statement};

const NOW: Time = 1_700_000_000_000;
/// The request was opened two minutes ago, and the node last spoke a minute before that.
const OPENED: Time = NOW - 120_000;
const UID: &str = "6b8a2f0e-9e4c-4a53-8f7e-0d7c1f1f7a01";
const BOOT: &str = "0f1c7c1e-41a4-4f6b-9d2b-0a3a5b1c2d3e";

fn timestamp(at: Time) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(at).unwrap()).unwrap()
}

fn request() -> ConfirmationRequest {
    ConfirmationRequest {
        id: request_id("far-uid", OPENED),
        node_name: "worker-1".to_owned(),
        node_uid: UID.to_owned(),
        boot_id: Some(BOOT.to_owned()),
        opened_at: Some(MicroTime(timestamp(OPENED))),
        ..ConfirmationRequest::default()
    }
}

/// A confirmation that is right in everything, but for `change`.
fn confirmation(change: impl FnOnce(&mut RemediationConfirmationSpec)) -> RemediationConfirmation {
    let ConfirmationRequest { id, node_name, node_uid, boot_id, .. } = request();
    let mut spec = RemediationConfirmationSpec {
        request: id,
        node_name,
        node_uid,
        boot_id,
        statement: Some(Statement::PoweredOff),
        decision: Decision::Approve,
        comment: None,
        by: "jane".to_owned(),
    };
    change(&mut spec);
    let mut confirmation = RemediationConfirmation::new("jane-1", spec);
    confirmation.metadata.creation_timestamp = Some(ApiTime(timestamp(NOW - 1_000)));
    confirmation
}

fn facts() -> Facts<'static> {
    Facts {
        node_uid: Some(UID),
        boot_id: Some(BOOT),
        ready: false,
        last_beat: Some(OPENED - 60_000),
        says_on: None,
        policy_since: Some(NOW - 86_400_000),
        now: NOW,
    }
}

/// Judges a confirmation with this change.
fn with(change: impl FnOnce(&mut RemediationConfirmationSpec)) -> Judgement {
    judge(&confirmation(change), &request(), &facts())
}

/// Judges the right confirmation in a world with this change.
fn when(change: impl FnOnce(&mut Facts<'static>)) -> Judgement {
    let mut facts = facts();
    change(&mut facts);
    judge(&confirmation(|_| {}), &request(), &facts)
}

/// The code and the words.
fn said(judgement: Judgement) -> (&'static str, String) {
    (judgement.reason(), judgement.message())
}

#[test]
fn an_id_names_one_off_of_one_remediation() {
    assert_eq!(request_id("c1ad5a6e-0000-4000-8000-000000000001", NOW), "5fb0a4d745642fb7");
    assert_ne!(request_id("a", NOW), request_id("a", NOW + 1));
    assert_ne!(request_id("a", NOW), request_id("b", NOW));
    assert_ne!(request_id("a", 11), request_id("a1", 1));
}

#[test]
fn what_is_right_is_accepted_and_what_is_denied_is_denied() {
    let accepted = with(|_| {});
    assert_eq!((accepted.verdict(), accepted.reason()), (Verdict::Accepted, "Accepted"));
    assert!(accepted.message().contains("it has proven nothing"));
    let denied = with(|spec| (spec.decision, spec.statement) = (Decision::Deny, None));
    assert_eq!((denied.verdict(), denied.reason()), (Verdict::Denied, "Denied"));
    assert_eq!(denied.message(), "the release is denied: the node's workloads stay where they are");
}

/// One may deny because of that.
#[test]
fn a_node_that_lives_can_be_denied_its_release() {
    let deny = confirmation(|spec| spec.decision = Decision::Deny);
    let facts = Facts { ready: true, last_beat: Some(NOW), says_on: Some("the BMC"), ..facts() };
    assert_eq!(judge(&deny, &request(), &facts), Judgement::Denied);
}

#[test]
fn each_refusal_names_its_cause_and_what_to_do() {
    let cases = [
        (
            unasked(&confirmation(|_| {})),
            "NoRequest",
            "no remediation in this namespace waits for request 8ed9cdaba698b6fd: it was never made, or the node came back or was fenced otherwise; confirm only what status.request of a remediation asks for",
        ),
        (
            with(|spec| spec.request = "0123456789abcdef".to_owned()),
            "WrongRequest",
            "it answers request 0123456789abcdef, and the node is now asked about by 8ed9cdaba698b6fd, because it showed life or was switched since: see to the machine again, and confirm 8ed9cdaba698b6fd",
        ),
        (
            with(|spec| spec.node_name = "worker-2".to_owned()),
            "WrongNode",
            "it is about node worker-2 (UID 6b8a2f0e-9e4c-4a53-8f7e-0d7c1f1f7a01), and the request about worker-1 (UID 6b8a2f0e-9e4c-4a53-8f7e-0d7c1f1f7a01): make sure which machine you have switched off, and confirm that one",
        ),
        (
            with(|spec| spec.node_uid = "another".to_owned()),
            "WrongNode",
            "it is about node worker-1 (UID another), and the request about worker-1 (UID 6b8a2f0e-9e4c-4a53-8f7e-0d7c1f1f7a01): make sure which machine you have switched off, and confirm that one",
        ),
        (
            when(|facts| facts.node_uid = Some("another")),
            "WrongNode",
            "the Node worker-1 that the request is about was deleted or made anew: there is nothing left to confirm",
        ),
        (
            when(|facts| facts.node_uid = None),
            "WrongNode",
            "the Node worker-1 that the request is about was deleted or made anew: there is nothing left to confirm",
        ),
        (
            with(|spec| spec.boot_id = Some("another".to_owned())),
            "WrongBoot",
            "it is about boot another, and the request about 0f1c7c1e-41a4-4f6b-9d2b-0a3a5b1c2d3e: see to the machine again, and copy bootID from the request",
        ),
        (
            with(|spec| spec.boot_id = None),
            "WrongBoot",
            "it is about boot (none), and the request about 0f1c7c1e-41a4-4f6b-9d2b-0a3a5b1c2d3e: see to the machine again, and copy bootID from the request",
        ),
        (
            when(|facts| facts.policy_since = None),
            "PolicyMissing",
            "the ValidatingAdmissionPolicy ringfence-confirmation or its binding is missing or changed, so nobody vouches for spec.by: apply deploy/confirmation.yaml, and confirm once more",
        ),
        (
            when(|facts| facts.policy_since = Some(NOW)),
            "PolicyMissing",
            "the ValidatingAdmissionPolicy ringfence-confirmation and its binding came into force too late to vouch for its spec.by: confirm once more",
        ),
        (
            with(|spec| spec.by = "system:node:worker-1".to_owned()),
            "NotAPerson",
            "system:node:worker-1 is no person: whoever saw to the machine has to confirm it, under their own name",
        ),
        (
            with(|spec| spec.statement = None),
            "NoStatement",
            "it approves and does not say why the node can't write: confirm once more, with a statement",
        ),
        (
            when(|facts| facts.ready = true),
            "NodeAlive",
            "the node is Ready: switch it off, wait until it was silent for 40 s, and confirm once more",
        ),
        (
            when(|facts| facts.last_beat = Some(NOW - 12_345)),
            "NodeAlive",
            "the node was heard 12 s ago: switch it off, wait until it was silent for 40 s, and confirm once more",
        ),
        (
            when(|facts| facts.last_beat = Some(OPENED + 1)),
            "NodeAlive",
            "the node was heard after the request was opened: switch it off, wait until it was silent for 40 s, and confirm once more",
        ),
        (
            when(|facts| facts.boot_id = Some("another")),
            "NodeAlive",
            "the node has booted since the request was opened: switch it off, wait until it was silent for 40 s, and confirm once more",
        ),
        (
            when(|facts| facts.says_on = Some("fence_redfish at https://10.0.0.7")),
            "MachineOn",
            "fence_redfish at https://10.0.0.7 says that the machine is on: switch it off, or correct which device is this node's, and confirm once more",
        ),
    ];
    for (judgement, reason, message) in cases {
        assert_eq!(judgement.verdict(), Verdict::Refused, "{message}");
        assert_eq!(said(judgement), (reason, message.to_owned()));
    }
}

/// A denial that nobody vouches for, or that is about something else, is none either.
#[test]
fn a_denial_is_asked_who_speaks_and_of_what() {
    let denies = |change: fn(&mut RemediationConfirmationSpec), facts: Facts<'_>| {
        let deny = |spec: &mut RemediationConfirmationSpec| {
            spec.decision = Decision::Deny;
            change(spec);
        };
        judge(&confirmation(deny), &request(), &facts).reason()
    };
    assert_eq!(denies(|spec| spec.by = "system:anonymous".to_owned(), facts()), "NotAPerson");
    assert_eq!(denies(|spec| spec.node_uid = "another".to_owned(), facts()), "WrongNode");
    assert_eq!(denies(|_| {}, Facts { policy_since: None, ..facts() }), "PolicyMissing");
}

#[test]
fn who_is_a_person() {
    let refused = [
        "",
        "system:",
        "system:node:worker-1",
        "system:serviceaccount:ringfence-system:ringfence",
        "system:kube-controller-manager",
        "system:anonymous",
        "system:admin2",
        "system:administrator",
    ];
    for by in refused {
        assert_eq!(with(|spec| spec.by = by.to_owned()).reason(), "NotAPerson", "{by:?}");
    }
    for by in ["jane", "kubernetes-admin", "system:admin", "oidc:jane@example.com", "the-system:"] {
        assert_eq!(with(|spec| spec.by = by.to_owned()), Judgement::Accepted, "{by:?}");
    }
}

#[test]
fn silence_begins_with_the_last_beat() {
    let beat = |at| {
        let opened = Some(MicroTime(timestamp(NOW - 10_000)));
        let request = ConfirmationRequest { opened_at: opened, ..request() };
        judge(&confirmation(|_| {}), &request, &Facts { last_beat: Some(at), ..facts() })
    };
    assert_eq!(beat(NOW - 40_000), Judgement::Accepted);
    assert_eq!(beat(NOW - 39_999), Judgement::Refused(Refusal::NodeAlive(Life::Spoke { ago: 39_999 })));
    assert_eq!(beat(NOW), Judgement::Refused(Refusal::NodeAlive(Life::Spoke { ago: 0 })));
    assert_eq!(
        beat(NOW + 3_600_000),
        Judgement::Refused(Refusal::NodeAlive(Life::Spoke { ago: 0 })),
        "its clock is ahead"
    );
    assert_eq!(when(|facts| facts.last_beat = Some(OPENED)), Judgement::Accepted);
    assert_eq!(when(|facts| facts.last_beat = None), Judgement::Accepted, "it never spoke");
}

#[test]
fn a_request_without_its_time_is_younger_than_no_beat() {
    let request = ConfirmationRequest { opened_at: None, ..request() };
    let judged = judge(&confirmation(|_| {}), &request, &facts());
    assert_eq!(judged, Judgement::Refused(Refusal::NodeAlive(Life::SpokeSince)));
}

#[test]
fn the_policy_must_have_been_in_force_when_it_was_created() {
    let created = NOW - 1_000;
    assert_eq!(when(|facts| facts.policy_since = Some(created - 5_000)), Judgement::Accepted);
    let too_late = Judgement::Refused(Refusal::PolicyMissing(Vouching::TooLate));
    assert_eq!(when(|facts| facts.policy_since = Some(created - 4_999)), too_late);
    let mut timeless = confirmation(|_| {});
    timeless.metadata.creation_timestamp = None;
    assert_eq!(judge(&timeless, &request(), &facts()), too_late);
}

#[test]
fn a_node_without_a_boot_id_is_confirmed_without() {
    let none = confirmation(|spec| spec.boot_id = None);
    for id in [None, Some("")] {
        let request = ConfirmationRequest { boot_id: id.map(str::to_owned), ..request() };
        assert_eq!(judge(&none, &request, &Facts { boot_id: id, ..facts() }), Judgement::Accepted);
    }
}

/// A verdict, written at a time.
fn judged(name: &str, request: &str, verdict: Option<Verdict>, at: Time) -> RemediationConfirmation {
    let mut confirmation = confirmation(|spec| spec.request = request.to_owned());
    confirmation.metadata.name = Some(name.to_owned());
    let at = Some(MicroTime(timestamp(at)));
    confirmation.status =
        Some(RemediationConfirmationStatus { verdict, at, ..RemediationConfirmationStatus::default() });
    confirmation
}

#[test]
fn a_denial_outweighs_approvals_and_the_first_word_counts() {
    let (request, other) = (request(), "0123456789abcdef");
    let id = request.id.as_str();
    let name = |all: &[RemediationConfirmation]| {
        counts(all, &request).map(|(verdict, word)| (verdict, word.metadata.name.clone().unwrap_or_default()))
    };
    let all = [
        judged("refused", id, Some(Verdict::Refused), NOW - 50),
        judged("late", id, Some(Verdict::Accepted), NOW),
        judged("first", id, Some(Verdict::Accepted), NOW - 10),
        judged("another", other, Some(Verdict::Denied), NOW - 60),
        judged("unheard", id, None, NOW - 70),
    ];
    assert_eq!(name(&all), Some((Verdict::Accepted, "first".to_owned())));
    let denied = [&all[..], &[judged("no", id, Some(Verdict::Denied), NOW + 5)]].concat();
    assert_eq!(name(&denied), Some((Verdict::Denied, "no".to_owned())));
    assert_eq!(name(&all[3..]), None);
    assert_eq!(name(&all[..1]), None);
}

#[test]
fn a_remediation_judges_what_names_its_request_or_its_node() {
    let request = request();
    assert!(concerns(&confirmation(|_| {}), &request));
    assert!(concerns(&confirmation(|spec| spec.node_name = "worker-2".to_owned()), &request));
    assert!(concerns(&confirmation(|spec| spec.request = "0123456789abcdef".to_owned()), &request));
    let another = |spec: &mut RemediationConfirmationSpec| {
        (spec.request, spec.node_name) = ("0123456789abcdef".to_owned(), "worker-2".to_owned());
    };
    assert!(!concerns(&confirmation(another), &request));
    assert!(!concerns(&judged("done", &request.id, Some(Verdict::Refused), NOW), &request));
}

/// People paste it: it must be what the definition takes, and nothing that the node made up may get out of its quotes.
#[test]
fn instructions_hold_the_confirmation_to_create() {
    let evil = Some("\"\n$(reboot)`id`'\\".to_owned());
    for (request, boot) in
        [(request(), Some(BOOT)), (ConfirmationRequest { boot_id: evil, ..request() }, Some("rebootid"))]
    {
        let text = instructions("ringfence-system", &request);
        let (words, yaml) = text.split_at(text.find("apiVersion").expect("a manifest"));
        assert!(words.contains("worker-1") && words.contains("data will be lost"), "{words}");
        let given: RemediationConfirmation = serde_yaml_ng::from_str(yaml).expect("a confirmation");
        assert_eq!(given.metadata.namespace.as_deref(), Some("ringfence-system"));
        let RemediationConfirmation { spec, .. } = given;
        assert_eq!(
            (&spec.request, &spec.node_name, &spec.node_uid),
            (&request.id, &request.node_name, &request.node_uid)
        );
        assert_eq!((spec.boot_id.as_deref(), spec.statement), (boot, Some(Statement::PoweredOff)));
    }
    let none = instructions("ns", &ConfirmationRequest { boot_id: None, ..request() });
    assert!(!none.contains("bootID"), "{none}");
}
