use super::*;

#[test]
fn the_node_is_the_annotation_s_if_the_key_exists() {
    let mut far = remediation(serde_json::json!({"agent": "fence_redfish"}));
    assert_eq!(far.node_name(), "worker-1");
    let annotate = |value: &str| Some(BTreeMap::from([(NODE_NAME_ANNOTATION.to_owned(), value.to_owned())]));
    far.metadata.annotations = annotate("worker-2");
    assert_eq!(far.node_name(), "worker-2");
    far.metadata.annotations = annotate("");
    assert_eq!(far.node_name(), "", "an empty annotation names no node, not the one of the CR's name");
}

#[test]
fn defaults_are_fars() {
    let spec = remediation(serde_json::json!({"agent": "fence_redfish"})).spec;
    assert_eq!(spec.attempts(), 5);
    assert_eq!(spec.retry_interval(), Ok(Duration::from_secs(5)));
    assert_eq!(spec.timeout(), Ok(Duration::from_secs(60)));
    assert_eq!(spec.release_timeout(), Ok(Duration::from_secs(60)));
    assert_eq!(spec.remediation_strategy, RemediationStrategy::ResourceDeletion);
    assert_eq!(spec.driver, DriverChoice::Auto);
    assert_eq!(spec.identity_policy(), IdentityPolicy::Enforce);
}

#[test]
fn odd_stored_objects_can_be_read() {
    let cases = [(-1, 1), (0, 1), (1, 1), (7, 7), (i64::MAX, i32::MAX)];
    for (stored, attempts) in cases {
        let spec = serde_json::json!({"agent": "fence_redfish", "retrycount": stored, "remediationStrategy": ""});
        let spec = remediation(spec).spec;
        assert_eq!(spec.attempts(), attempts, "{stored}");
        assert_eq!(spec.remediation_strategy, RemediationStrategy::ResourceDeletion);
    }
}

#[test]
fn a_level_has_the_numbers_of_the_spec_where_it_has_none_of_its_own() {
    let spec = remediation(serde_json::json!({
        "agent": "fence_redfish", "retrycount": 3, "timeout": "20s",
        "levels": [
            {"agents": [{"agent": "fence_apc"}, {"agent": "fence_apc"}], "retrycount": 2, "retryinterval": "1s"},
            {"agents": [{"agent": "fence_meatware"}], "retrycount": -7, "timeout": "1h"}
        ]
    }))
    .spec;
    let seconds = |level| {
        let (gap, timeout) = (spec.retry_interval_at(level), spec.timeout_at(level));
        (spec.attempts_at(level), gap.expect("a duration").as_secs(), timeout.expect("a duration").as_secs())
    };
    assert_eq!([1, 2, 3, 4, 0].map(seconds), [(3, 5, 20), (2, 1, 20), (1, 5, 3600), (3, 5, 20), (3, 5, 20)]);
    let of = |level: &Level| level.agents().map(|agent| agent.is_person()).collect::<Vec<_>>();
    assert_eq!(spec.levels.iter().map(of).collect::<Vec<_>>(), [vec![false, false], vec![true]]);
}

/// What the name of FAR's webhook stands for is the credentials of the spec's own agent, not of a PDU.
#[test]
fn only_the_spec_s_own_agent_has_a_secret_that_nobody_named() {
    for (named, own, later) in [
        (None, DEFAULT_SHARED_SECRET, None),
        (Some(""), DEFAULT_SHARED_SECRET, None),
        (Some("bmc"), "bmc", Some("bmc")),
    ] {
        let mut spec = serde_json::json!({"agent": "fence_redfish", "levels": [{"agents": [{"agent": "fence_apc"}]}]});
        if let Some(named) = named {
            spec["sharedSecretName"] = named.into();
            spec["levels"][0]["agents"][0]["sharedSecretName"] = named.into();
        }
        let spec = remediation(spec).spec;
        assert_eq!(spec.own_agent().shared_secret_name, Some(own));
        let names: Vec<_> = spec.levels[0].agents().map(|agent| agent.shared_secret_name).collect();
        assert_eq!(names, [later]);
    }
}

#[test]
fn debug_shows_no_value_of_a_parameter() {
    let far = remediation(serde_json::json!({
        "agent": "fence_redfish",
        "sharedparameters": {"--password": "hunter2"},
        "nodeparameters": {"--password": {"worker-1": "hunter3"}},
        "levels": [{"agents": [{"agent": "fence_apc", "sharedparameters": {"--password": "hunter4"}}]}]
    }));
    let debug = format!("{far:?}");
    assert!(!debug.contains("hunter"), "{debug}");
    assert!(debug.contains("--password") && debug.contains("worker-1"), "{debug}");
}

#[test]
fn the_timeline_is_bounded_and_drops_the_oldest() {
    let mut status = FenceAgentsRemediationStatus::default();
    for n in 0..TIMELINE_MAX + 3 {
        let at = jiff::Timestamp::UNIX_EPOCH.into();
        status.record(TimelineEntry { at, phase: "Proving".into(), message: n.to_string() });
    }
    assert_eq!(status.timeline.len(), TIMELINE_MAX);
    assert_eq!(status.timeline[0].message, "3");
}

#[test]
fn an_operation_survives_the_round_trip() {
    let at = |micros| Some(jiff::Timestamp::from_microsecond(micros).expect("in range").into());
    let operation = Operation {
        order: Some(Order {
            agent: "fence_redfish".into(),
            driver: Driver::Native,
            address: "https://10.0.0.7:443".into(),
            plug: Some("/redfish/v1/Systems/1".into()),
            system_uuid: Some("30303030-3030-3030-3030-303030303031".into()),
        }),
        entry: 4,
        attempt: 2,
        phase_since: at(1_700_000_000_000_001),
        answered: true,
        set: Some(Set {
            pods: vec![SetPod { namespace: "default".into(), name: "db-0".into(), uid: "u".into() }],
            volume_attachments: vec!["csi-1".into()],
        }),
        ..Operation::default()
    };
    let json = serde_json::to_value(&operation).expect("plain data");
    assert_eq!(json["phaseSince"], "2023-11-14T22:13:20.000001Z");
    assert_eq!(json["order"]["systemUUID"], "30303030-3030-3030-3030-303030303031");
    assert_eq!(serde_json::from_value::<Operation>(json).expect("readable"), operation);
}

fn remediation(spec: serde_json::Value) -> FenceAgentsRemediation {
    serde_json::from_value(serde_json::json!({
        "apiVersion": "fence-agents-remediation.medik8s.io/v1alpha1",
        "kind": "FenceAgentsRemediation",
        "metadata": {"name": "worker-1"},
        "spec": spec
    }))
    .expect("a remediation")
}
