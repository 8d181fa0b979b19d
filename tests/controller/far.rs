//! FAR's contract on a real API server: what is accepted, what is refused, what an update may do, and FAR's own test of a
//! whole remediation. `docs/far.md` says which of FAR's cases is which test.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config, ResourceExt};
use ringfence::api::{self, FINALIZER, FenceAgentsRemediation, OUT_OF_SERVICE_TAINT, REMEDIATION_TAINT};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testbed::controlplane::ControlPlane;
use testbed::wait;

use crate::stage::{Cluster, NAMESPACE, Remediation, SOON, condition, merge, namespace, phase_of, play};

const GROUP: &str = "fence-agents-remediation.medik8s.io";

/// Section 1.3: upstream's samples, and objects with every field set: what was written is there, with nothing but defaults
/// beside it; and it stays as it is when a program that knows the types (NHC, ours) writes it back.
#[test]
fn samples_and_objects_with_every_field_come_back_unchanged() {
    play(async {
        let client = Cluster::shared().await?.plane.client();
        namespace(&client, "far-samples").await?;
        let mut count = 0;
        for entry in std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples"))? {
            let path = entry?.path();
            let mut given: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&path)?)?;
            given["metadata"]["namespace"] = json!("far-samples");
            given.as_object_mut().context("an object")?.remove("status"); // a subresource: not taken at creation
            let api = objects(&client, GROUP, given["kind"].as_str().context("no kind")?, "far-samples");
            let stored = api.create(&PostParams::default(), &serde_json::from_value(given.clone())?).await;
            let stored = stored.with_context(|| format!("{}", path.display()))?;
            let name = stored.name_any();
            let mut wanted = given["spec"].clone();
            defaults(if wanted["template"].is_null() { &mut wanted } else { &mut wanted["template"]["spec"] });
            ensure!(stored.data["spec"] == wanted, "{name}: {} is not {wanted}", stored.data["spec"]);
            for (key, value) in given["metadata"]["annotations"].as_object().into_iter().flatten() {
                ensure!(stored.annotations().get(key).map(String::as_str) == value.as_str(), "{name}: {key}");
            }
            written_back(&api, &name, &wanted).await.with_context(|| name.clone())?;
            count += 1;
        }
        ensure!(count >= 6, "only {count} samples");
        Ok(())
    });
}

/// Reads and replaces the object as our types have it.
async fn written_back(api: &Api<DynamicObject>, name: &str, wanted: &Value) -> Result<()> {
    wait::until("the object to be written back", SOON, || async {
        let read = api.get(name).await?;
        let typed: Value = match read.types.as_ref().context("no kind")?.kind.as_str() {
            "FenceAgentsRemediation" => serde_json::to_value(read.try_parse::<FenceAgentsRemediation>()?)?,
            _ => serde_json::to_value(read.try_parse::<api::FenceAgentsRemediationTemplate>()?)?,
        };
        match api.replace(name, &PostParams::default(), &serde_json::from_value(typed)?).await {
            Ok(again) => {
                ensure!(again.data["spec"] == *wanted, "{} is not {wanted}", again.data["spec"]);
                Ok(Some(()))
            }
            // The operator writes its finalizer and annotations at the same time.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// What the schema adds to a spec.
fn defaults(spec: &mut Value) {
    let given = std::mem::replace(
        spec,
        json!({
            "retrycount": 5, "retryinterval": "5s", "timeout": "60s", "releaseTimeout": "60s",
            "remediationStrategy": "ResourceDeletion", "driver": "Auto",
        }),
    );
    merge(spec, given);
    if let Some(proof) = spec.get_mut("proof") {
        let given = std::mem::replace(proof, json!({"identity": "Enforce"}));
        merge(proof, given);
    }
}

/// Sections 6.3 and 6.4: whatever the object itself shows is said at once, in upstream's words; the same rules hold for the
/// remediation and its template.
#[test]
fn far_6_3_and_6_4_what_an_object_shows_is_refused_at_once() {
    play(async {
        let client = Cluster::shared().await?.plane.client();
        const ACTION: &str = "FAR doesn't support any other action than `reboot` or `off`";
        let refused = [
            (json!({"agent": "reboot"}), "spec.agent"),
            (json!({"agent": "../bin/fence_redfish"}), "spec.agent"), // W19
            (json!({"agent": "fence_x/../../bin/sh"}), "spec.agent"),
            (json!({"agent": "/bin/sh -c fence_x"}), "spec.agent"),
            (json!({"sharedparameters": {"--action": "shutdown"}}), ACTION),
            (json!({"sharedparameters": {"action": "cycle"}}), ACTION),
            (json!({"sharedparameters": {"--action": "Off"}}), ACTION),
            (json!({"nodeparameters": {"--action": {"w1": "reboot", "w2": "on"}}}), ACTION),
            (json!({"sharedparameters": {"--ip": "{{.NodeName"}}), "unclosed action"),
            (json!({"sharedparameters": {"--ip": "{{.NodeName}} and {{ .NodeName }"}}), "unclosed action"),
            (json!({"retrycount": 0}), "retrycount"), // W1
            (json!({"retrycount": -1}), "retrycount"),
            (json!({"timeout": "soon"}), "timeout"),
            (json!({"remediationStrategy": "Hope"}), "remediationStrategy"),
            (json!({"tls": {"caSecretName": "a", "pinnedSHA256": ["ab".repeat(32)]}}), "exclude each other"),
            (json!({"tls": {"pinnedSHA256": ["abcd"]}}), "pinnedSHA256"),
        ];
        for (changes, words) in refused {
            for object in both(&changes) {
                let error = dry_run(&client, &object).await.expect_err(&format!("accepted: {changes}"));
                let text = error.to_string();
                ensure!(text.contains(words), "{changes}: {text}");
            }
        }
        let accepted = [
            json!({}),
            json!({"sharedparameters": {"--action": "reboot"}}),
            json!({"sharedparameters": {"--action": "off", "--ip": "{{.NodeName}}"}}),
            json!({"sharedparameters": {"--action": ""}, "nodeparameters": {"--action": {"w1": "off"}}}),
            json!({"sharedparameters": {"--ip": r#"{{- printf "%s" .NodeName -}} }} {"#}}),
            json!({"sharedparameters": {"--password": "a } b }} c { d"}}),
            json!({"sharedparameters": {"--ip": "a"}, "nodeparameters": {"--ip": {"w1": "b"}}}),
            json!({"remediationStrategy": "OutOfServiceTaint"}),
            json!({"agent": "fence_vmware_rest.v2-x"}),
            // What only a look-up shows: a condition on the object, not a refusal.
            json!({"agent": "fence_unheard_of"}),
            json!({"sharedSecretName": "no-such-secret", "nodeSecretNames": {"w1": "nor-this"}}),
            json!({"sharedparameters": {"--ip": "{{.Node}}"}}),
            json!({"sharedparameters": {"--unknown-to-fars-schema-too": "x"}}),
        ];
        for changes in accepted {
            for object in both(&changes) {
                dry_run(&client, &object).await.with_context(|| changes.to_string())?;
            }
        }
        Ok(())
    });
}

/// What no FAR has: devices for when the first one is dead.
#[test]
fn levels_that_an_object_shows_to_be_wrong_are_refused() {
    play(async {
        let client = Cluster::shared().await?.plane.client();
        let level = |agents: Value| json!({"levels": [{"agents": agents}]});
        let pdu = |changes: Value| {
            let mut agent =
                json!({"agent": "fence_apc_snmp", "sharedparameters": {"--ip": "pdu", "--plug": "{{.NodeName}}"}});
            merge(&mut agent, changes);
            agent
        };
        let with = |changes: Value| level(json!([pdu(changes)]));
        let numbers = |numbers: Value| {
            let mut level = json!({"agents": [pdu(json!({}))]});
            merge(&mut level, numbers);
            json!({"levels": [level]})
        };
        let person = json!({"agent": "fence_meatware"});
        let refused = [
            (level(json!([])), "agents"),
            (level(json!([person, pdu(json!({}))])), "only agent of its level"),
            (level(json!([person, person])), "only agent of its level"),
            (level(json!(vec![pdu(json!({})); 9])), "must have at most 8 items"),
            (json!({"levels": vec![json!({"agents": [person]}); 9]}), "must have at most 8 items"),
            (with(json!({"agent": "../fence_apc"})), "agent"),
            (with(json!({"agent": format!("fence_{}", "a".repeat(128))})), "agent"),
            (with(json!({"sharedparameters": {"--action": "off"}})), "the spec's own agent"),
            (with(json!({"nodeparameters": {"action": {"w1": "off"}}})), "the spec's own agent"),
            (with(json!({"sharedparameters": {"--ip": "{{.NodeName"}})), "unclosed action"),
            (with(json!({"sharedparameters": {"--ip": "a".repeat(1025)}})), "1024"),
            (with(json!({"tls": {"caSecretName": "a", "pinnedSHA256": ["ab".repeat(32)]}})), "exclude each other"),
            (numbers(json!({"retrycount": 0})), "retrycount"),
            (numbers(json!({"retryinterval": "-1s"})), "retryinterval"),
            (numbers(json!({"timeout": "soon"})), "timeout"),
        ];
        for (changes, words) in refused {
            for object in both(&changes) {
                let error = dry_run(&client, &object).await.expect_err(&format!("accepted: {changes}"));
                ensure!(error.to_string().contains(words), "{changes}: {error}");
            }
        }
        let accepted = [
            json!({"levels": []}),
            level(json!([person])),
            level(json!(vec![pdu(json!({})); 8])),
            json!({"agent": "fence_meatware", "nodeparameters": null}),
            json!({"levels": vec![json!({"agents": vec![pdu(json!({})); 8]}); 8]}),
            numbers(json!({"retrycount": 1, "retryinterval": "0s", "timeout": "1m30s"})),
        ];
        for changes in accepted {
            for object in both(&changes) {
                dry_run(&client, &object).await.with_context(|| changes.to_string())?;
            }
        }
        Ok(())
    });
}

/// Section 6.4: the values of `statusValidationSample`.
#[test]
fn far_6_4_status_validation_sample() {
    play(async {
        let client = Cluster::shared().await?.plane.client();
        for (sample, ok) in [
            (Value::Null, true),
            (json!("10"), false),
            (json!("05%"), false),
            (json!("string"), false),
            (json!("-42%"), false),
            (json!("5%"), true),
            (json!("55%"), true),
            (json!("100%"), true),
            (json!("101%"), false),
            (json!(-5), false),
            (json!(0), true),
            (json!(105), true),
        ] {
            let [_, mut template] = both(&json!({}));
            template["spec"]["statusValidationSample"] = sample.clone();
            let answer = dry_run(&client, &template).await;
            ensure!(answer.is_ok() == ok, "{sample}: {answer:?}");
            if let Err(error) = answer {
                let words = "Value must be an integer >=0, or string between 0% and 100%";
                ensure!(error.to_string().contains(words), "{sample}: {error}");
            }
        }
        Ok(())
    });
}

/// A remediation and a template with this spec.
fn both(changes: &Value) -> [Value; 2] {
    let mut spec = json!({"agent": "fence_ipmilan", "nodeparameters": {"--ipport": {"w1": "6233"}}});
    merge(&mut spec, changes.clone());
    let of = |kind: &str, spec: Value| json!({"apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind, "metadata": {"name": "dry"}, "spec": spec});
    [
        of("FenceAgentsRemediation", spec.clone()),
        of("FenceAgentsRemediationTemplate", json!({"template": {"spec": spec}})),
    ]
}

async fn dry_run(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    let api = objects(client, GROUP, object["kind"].as_str().unwrap_or_default(), NAMESPACE);
    let object = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await
}

/// W14: an object that was stored before there was any rule against it: its finalizers, annotations and status can be
/// written, its spec corrected, and the object deleted; only what is edited must be right. Shown with our definition under
/// another group, first without its rules, as FAR's is.
#[test]
fn an_update_that_changes_no_spec_is_never_blocked() {
    play(async {
        const OTHER: &str = "far.before.ringfence.dev";
        let plane = &Cluster::shared().await?.plane;
        let ours = serde_json::to_string(&api::crds()[0])?.replace(GROUP, OTHER);
        let mut loose: Value = serde_json::from_str(&ours)?;
        without_rules(&mut loose);
        loose["spec"]["names"]["shortNames"] = json!(["farbefore"]);
        plane.apply_yaml(&serde_yaml_ng::to_string(&loose)?).await?;

        let client = plane.client();
        let api = objects(&client, OTHER, "FenceAgentsRemediation", "default");
        let bad = json!({
            "agent": "../sbin/fence_ipmilan", "retrycount": -1,
            "sharedparameters": {"--action": "cycle", "--ip": "{{.NodeName", "--lanplus": ""},
            "nodeparameters": {"--action": {"w1": "on"}},
        });
        let object = |name: &str| -> Result<DynamicObject> {
            Ok(serde_json::from_value(json!({
                "apiVersion": format!("{OTHER}/v1alpha1"), "kind": "FenceAgentsRemediation",
                "metadata": {"name": name}, "spec": bad,
            }))?)
        };
        let creation = wait::until("the definition to take objects", SOON, || async {
            Ok(api.create(&PostParams::default(), &object("old")?).await.ok())
        });
        creation.await?;

        let mut strict: Value = serde_json::from_str(&ours)?;
        strict["spec"]["names"]["shortNames"] = json!(["farbefore"]);
        plane.apply_yaml(&serde_yaml_ng::to_string(&strict)?).await?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        wait::until("the rules to hold", SOON, || async {
            let answer = api.create(&dry, &object("new")?).await;
            Ok(answer.err().map(|error| error.to_string()).filter(|text| text.contains("other action")))
        })
        .await?;

        let patch = |patch: Value| {
            let api = &api;
            async move { api.patch("old", &PatchParams::default(), &Patch::Merge(patch)).await }
        };
        patch(json!({"metadata": {"finalizers": [FINALIZER]}})).await.context("a finalizer")?;
        patch(json!({"metadata": {"annotations": {api::NHC_TIMED_OUT_ANNOTATION: "now"}}})).await.context("NHC's")?;
        let status = Patch::Merge(json!({"status": {"phase": "Halted", "message": "seen"}}));
        api.patch_status("old", &PatchParams::default(), &status).await.context("a status")?;
        let mut whole = api.get("old").await?; // FAR and NHC write the whole object
        whole.labels_mut().insert("by".to_owned(), "put".to_owned());
        api.replace("old", &PostParams::default(), &whole).await.context("the whole object")?;
        patch(json!({"spec": {"timeout": "30s"}})).await.context("its neighbour")?;
        patch(json!({"spec": {"sharedparameters": {"--action": "on"}}})).await.expect_err("another bad action");
        patch(json!({"spec": {"sharedparameters": {"--action": "off"}}})).await.context("put right")?;
        api.delete("old", &Default::default()).await?;
        patch(json!({"metadata": {"finalizers": null}})).await.context("the finalizer of a deleted one")?;
        wait::until("it to be gone", SOON, || async { Ok(api.get_opt("old").await?.is_none().then_some(())) }).await
    });
}

/// What FAR's definition does not have.
fn without_rules(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for rule in ["x-kubernetes-validations", "pattern", "maxProperties", "maxLength", "minimum"] {
                // A property may have such a name, too.
                fields.retain(|name, value| name != rule || value.is_object());
            }
            fields.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `deploy/admission.yaml`: whoever may write the status may not write what the operator resumes from. FAR, which writes
/// conditions and whole objects without our fields, is not disturbed.
#[test]
fn only_the_operator_says_where_a_remediation_stands() {
    play(async {
        let cluster = Cluster::shared().await?;
        let admin = cluster.plane.client();
        let far = json!({
            "metadata": {"name": "forged", "annotations": {"remediation.medik8s.io/node-name": "no-such-node"}},
            "spec": {"agent": "fence_redfish"},
        });
        let far = Remediation::create(&admin, far).await?;
        let halted = far.halted_for("RemediationFinishedNodeNotFound", "NodeNotFound", SOON).await?;
        cluster.plane.apply_yaml(WRITER).await?;
        let client = impersonating(&cluster.plane, &format!("system:serviceaccount:{NAMESPACE}:far-writer")).await?;
        let api: Api<FenceAgentsRemediation> = Api::namespaced(client, NAMESPACE);
        let write = |status: Value| {
            let (api, patch) = (&api, Patch::Merge(json!({ "status": status })));
            async move { api.patch_status("forged", &PatchParams::default(), &patch).await }
        };
        let forged = [
            json!({"operation": {"sentOffAt": "2026-01-01T00:00:00.000000Z", "answered": true}}),
            json!({"phase": "Releasing"}),
            json!({"node": {"name": "another"}}),
        ];
        for status in forged {
            // Permissions and policies reach the API server's caches a moment after they are written.
            let text = wait::until("the policy to refuse it", SOON, || async {
                let answer = write(status.clone()).await;
                Ok(answer.err().map(|error| error.to_string()).filter(|text| text.contains("alone")))
            });
            text.await.with_context(|| status.to_string())?;
        }
        ensure!(far.get().await?.status.and_then(|status| status.phase) == halted.status.and_then(|s| s.phase));
        write(json!({"lastUpdateTime": "2026-01-01T00:00:00Z"})).await.context("what FAR writes")?;
        write(json!({"phase": null, "operation": null, "node": null})).await.context("FAR's whole object")?;
        far.delete().await?;
        far.gone(SOON).await
    });
}

/// The rights that FAR has.
const WRITER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: far-writer, namespace: ringfence-system}
rules:
- apiGroups: [fence-agents-remediation.medik8s.io]
  resources: [fenceagentsremediations, fenceagentsremediations/status]
  verbs: [create, delete, get, list, patch, update, watch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: far-writer, namespace: ringfence-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: far-writer}
subjects: [{kind: ServiceAccount, name: far-writer, namespace: ringfence-system}]
";

/// Section 6.1, cases 12 and 20: the node by its name alone; finalizer, both taints, the pod gone, every condition and
/// event; and nothing left afterwards.
#[test]
fn far_6_1_12_and_20_success_by_the_nodes_name_with_both_taints() {
    play(async {
        let stage = Cluster::shared().await?.stage("far-success").await?;
        let node = stage.victim().name().to_owned();
        let old = stage.site.running("db", 1, SOON).await?.remove(0);
        stage.rack.attacher().hold();
        stage.victim().hang();
        let spec = stage.spec(json!({"remediationStrategy": "OutOfServiceTaint"}));
        let far = Remediation::create(&stage.client, json!({"metadata": {"name": node}, "spec": spec})).await?;

        let under_way = far.phase("Releasing", SOON).await?;
        ensure!(under_way.finalizers() == [FINALIZER], "{:?}", under_way.finalizers());
        wait::until("both taints", SOON, || async {
            let taints = stage.node(stage.victim()).await?.spec.unwrap_or_default().taints.unwrap_or_default();
            let has = |key: &str, value: Option<&str>, effect: &str| {
                taints.iter().any(|t| {
                    t.key == key
                        && t.value.as_deref().unwrap_or_default() == value.unwrap_or_default()
                        && t.effect == effect
                })
            };
            let both = has(REMEDIATION_TAINT, None, "NoSchedule")
                && has(OUT_OF_SERVICE_TAINT, Some(api::OUT_OF_SERVICE_VALUE), "NoExecute");
            Ok(both.then_some(()))
        })
        .await?;
        let expected = [("Processing", "True"), ("FenceAgentActionSucceeded", "True"), ("Succeeded", "Unknown")];
        is_told(&far.get().await?, &expected)?;

        stage.rack.attacher().release();
        stage.replacement(SOON).await?;
        let pods: Api<Pod> = Api::namespaced(stage.client.clone(), &old.namespace().unwrap_or_default());
        let left = pods.get_opt(&old.name_any()).await?;
        ensure!(left.is_none_or(|pod| pod.uid() != old.uid()), "the old pod is still there");
        let done = far.phase("Done", SOON).await?;
        is_told(&done, &[("Processing", "False"), ("FenceAgentActionSucceeded", "True"), ("Succeeded", "True")])?;
        let succeeded = condition(&done, "Succeeded");
        ensure!(succeeded.1 == "RemediationFinishedSuccessfully", "{succeeded:?}");
        far.delete().await?;
        far.gone(SOON).await?;
        stage.node_is_clean(stage.victim(), SOON).await?;

        let of_remediation = [
            "RemediationStarted",
            "AddFinalizer",
            "FenceAgentExecuted",
            "FenceAgentSucceeded",
            "RemediationFinished",
            "RemoveFinalizer",
        ];
        events(&stage.client, NAMESPACE, &far.name, &of_remediation).await?;
        let of_node = [
            "AddRemediationTaint",
            "AddOutOfServiceTaint",
            "DeleteResources",
            "NodeRemediationCompleted",
            "RemoveOutOfServiceTaint",
            "RemoveRemediationTaint",
        ];
        events(&stage.client, "default", &node, &of_node).await?;
        stage.judged().await
    });
}

/// W2, W3 and section 7b: an operator died, or was refused, between the finalizer and the first status: FAR never fenced such
/// a node, and panicked for ever at the deletion.
#[test]
fn w2_w3_7b_a_finalizer_without_a_status_is_taken_on() {
    play(async {
        let stage = Cluster::shared().await?.stage("far-gap").await?;
        let metadata = |suffix: &str| {
            let node = stage.victim().name();
            json!({
                "name": format!("{node}-{suffix}"), "finalizers": [FINALIZER],
                "annotations": {"remediation.medik8s.io/node-name": node},
            })
        };
        stage.victim().hang();
        let spec = stage.spec(json!({}));
        let far = Remediation::create(&stage.client, json!({"metadata": metadata("a"), "spec": spec})).await?;
        stage.replacement(SOON).await?;
        is_told(&far.phase("Done", SOON).await?, &[("Processing", "False"), ("Succeeded", "True")])?;
        // The second one waits for the first, and is deleted whatever it has come to.
        let second = Remediation::create(&stage.client, json!({"metadata": metadata("b"), "spec": spec})).await?;
        for far in [&second, &far] {
            far.delete().await?;
            far.gone(SOON).await?;
        }
        stage.node_is_clean(stage.victim(), SOON).await?;
        stage.judged().await
    });
}

/// Section 6.6: `off` with resource deletion, the credentials in clear in the spec: off for good, and shown nowhere else.
#[test]
fn far_6_6_off_with_credentials_in_the_spec() {
    play(async {
        let cluster = Cluster::shared().await?;
        let stage = cluster.stage("far-off").await?;
        let password = stage.face.password().expose_secret();
        let parameters = json!({"--action": "off", "--username": stage.face.username(), "--password": password});
        stage.victim().hang();
        let far = stage.remediate(json!({"sharedSecretName": null, "sharedparameters": parameters})).await?;
        stage.replacement(SOON).await?;
        let done = far.phase("Done", SOON).await?;
        is_told(&done, &[("Processing", "False"), ("FenceAgentActionSucceeded", "True"), ("Succeeded", "True")])?;
        ensure!(!stage.victim().state().on, "left on");
        ensure!(!serde_json::to_string(&done.status)?.contains(password), "a password in the status");
        ensure!(cluster.operator.lines().iter().all(|line| !line.text.contains(password)), "a password in the log");
        far.delete().await?;
        far.gone(SOON).await?;
        ensure!(!stage.victim().state().on, "switched on afterwards");
        stage.judged().await
    });
}

/// FAR's names and no others, each with the status that is wanted.
fn is_told(far: &FenceAgentsRemediation, expected: &[(&str, &str)]) -> Result<()> {
    for (type_, status) in expected {
        let found = condition(far, type_);
        ensure!(found.0 == *status, "{type_} is {found:?} in {}", phase_of(far));
    }
    Ok(())
}

async fn events(client: &Client, namespace: &str, about: &str, reasons: &[&str]) -> Result<()> {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    wait::until(&format!("the events about {about}"), SOON, || async {
        let list = api.list(&ListParams::default().fields(&format!("regarding.name={about}"))).await?.items;
        let has = |reason: &&str| list.iter().any(|event| event.reason.as_deref() == Some(reason));
        let missing: Vec<_> = reasons.iter().filter(|reason| !has(reason)).collect();
        Ok(missing.is_empty().then_some(()))
    })
    .await
}

fn objects(client: &Client, group: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

async fn impersonating(plane: &ControlPlane, user: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(plane.admin_kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    Ok(Client::try_from(config)?)
}
