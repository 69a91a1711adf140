//! An admission webhook that says no, served over TLS by the test to the real API server.

use crate::https::Https;
use crate::peer::plane::ControlPlane;
use crate::peer::{Place, until};
use crate::{fails, inline, live, ok, run, snapshot, web};
use executor_api::Class;
use proto::task::KubernetesSpec;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Why an object is refused; `None` lets it in.
type Verdict = fn(&Value) -> Option<&'static str>;

/// A webhook on a loopback port, with the certificate that the control plane made for 127.0.0.1.
struct Webhook {
    url: String,
    /// Reviews that were asked for.
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    fn start(plane: &ControlPlane, verdict: Verdict) -> Webhook {
        let pki = |name: &str| plane.dir().join("pki").join(name);
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let record = Arc::clone(&seen);
        let server = Https::start(&pki("server.crt"), &pki("server.key"), move |_, body| {
            let review: Value = serde_json::from_slice(body).unwrap();
            let request = review["request"].clone();
            let refusal = verdict(&request["object"]);
            let mut response = json!({"uid": request["uid"], "allowed": refusal.is_none()});
            if let Some(message) = refusal {
                response["status"] = json!({"message": message});
            }
            record.lock().unwrap().push(request);
            (
                200,
                json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
            )
        });
        Webhook { url: format!("{}/review", server.url()), seen }
    }

    /// Registers it for a resource of the place's namespace, and waits until the server asks it about `probe`.
    async fn register(&self, place: &Place, resource: &str, probe: Value) {
        use base64::Engine as _;
        let ca = std::fs::read(place.plane.dir().join("pki/ca.crt")).unwrap();
        let name = &place.namespace;
        let api = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
        let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": [{
                "name": format!("{name}.example.com"), "sideEffects": "None", "failurePolicy": "Fail",
                "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
                "clientConfig": {"url": self.url, "caBundle": base64::engine::general_purpose::STANDARD.encode(ca)},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": [resource]}]}]});
        place.post(api, configuration).await.unwrap();
        let path = format!("{}?dryRun=All", place.path("v1", resource));
        until("the webhook", async || place.post(&path, probe.clone()).await.is_err()).await;
    }
}

fn rolling(place: &Place, image: &str) -> KubernetesSpec {
    KubernetesSpec {
        manifest: inline(web("web", image, 2)),
        ..crate::peer::spec(place, crate::peer::rolling(false))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_refuses_is_told_in_its_words_before_the_first_change() {
    let place = Place::new("webhook-objects").await;
    let unsigned: Verdict =
        |object| (object["data"]["image"] == "app:2").then_some("app:2 is not signed by anybody");
    let webhook = Webhook::start(place.plane, unsigned);
    let probe = json!({"metadata": {"name": "probe"}, "data": {"image": "app:2"}});
    webhook.register(&place, "configmaps", probe).await;

    ok(&place, "t1", &rolling(&place, "app:1")).await;
    let asked = webhook.seen.lock().unwrap().clone();
    let of = |dry: bool| {
        let name = |one: &Value| one["name"].as_str().unwrap_or_default().starts_with("web-conf");
        asked.iter().filter(|one| name(one) && one["dryRun"] == dry).count()
    };
    assert!(of(true) >= 1 && of(false) >= 1, "asked in the dry run and for the change itself: {asked:#?}");

    let before = snapshot(&place).await;
    let (world, result) = run(&place, "t2", &rolling(&place, "app:2")).await;
    let error = result.expect_err("it is refused");
    println!("{} {error}\n  hint: {:?}", error.code, error.hint);
    assert_eq!((error.code, error.class), ("KUBE-021", Class::RemoteFailed { code: 400 }), "{error}");
    let words = "admission webhook \"webhook-objects.example.com\" denied the request: app:2 is not signed by anybody";
    assert!(error.what.contains(words) && error.what.contains("ConfigMap/web-conf"), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("webhook")), "{:?}", error.hint);
    assert_eq!(world.marks.calls(), Vec::<String>::new(), "nothing was changed");
    assert_eq!(snapshot(&place).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_a_webhook_refuses_fail_the_rollout_in_its_words() {
    let place = Place::new("webhook-pods").await;
    let unsigned: Verdict = |pod| {
        let image = &pod["spec"]["containers"][0]["image"];
        (image == "app:2").then_some("images need a signature")
    };
    let webhook = Webhook::start(place.plane, unsigned);
    let probe =
        json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "a", "image": "app:2"}]}});
    webhook.register(&place, "pods", probe).await;
    ok(&place, "t1", &rolling(&place, "app:1")).await;
    let said = fails(&place, "t2", &rolling(&place, "app:2"), "KUBE-044").await;
    println!("{said}");
    let words = "admission webhook \"webhook-pods.example.com\" denied the request: images need a signature";
    assert!(said.contains(words), "{said}");
    let web = live(&place, "apps/v1", "deployments/web").await;
    assert!(web["status"]["availableReplicas"].as_u64() >= Some(1), "the version before goes on: {web:#}");
}
