use super::*;

fn service(name: &str, color: Option<&str>) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "resourceVersion": "7"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    if let Some(color) = color {
        service["spec"]["selector"][COLOR] = color.into();
    }
    service
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}}})
}

fn marked(name: &str, key: &str) -> Value {
    let mut service = service(name, None);
    service["metadata"]["annotations"] = json!({key: "true"});
    service
}

#[test]
fn the_live_service_decides() {
    assert_eq!(primary_color(None, "ns").unwrap(), Color::Green);
    assert_eq!(primary_color(Some(&service("web", Some("blue"))), "ns").unwrap(), Color::Blue);
    let error = primary_color(Some(&service("web", None)), "ns").unwrap_err();
    assert_eq!(error, Fault::Colourless { service: "ns/Service/web".into(), selector: "app=web".into() });
    assert_eq!(error.into_step().code, "KUBE-082");
    let error = primary_color(Some(&service("web", Some("red"))), "ns").unwrap_err();
    assert!(error.to_string().contains("\"red\""), "{error}");
}

#[test]
fn services_are_found_by_annotation_or_by_being_the_only_one() {
    let find = |documents: &[Value]| services(documents, "ns");
    assert_eq!(find(&[deployment(), service("a", None)]).unwrap(), Services { primary: 1, stage: None });
    assert_eq!(
        find(&[marked("s", STAGE), service("a", None)]).unwrap(),
        Services { primary: 1, stage: Some(0) }
    );
    assert_eq!(
        find(&[service("x", None), marked("p", PRIMARY), marked("s", STAGE)]).unwrap(),
        Services { primary: 1, stage: Some(2) }
    );
    assert_eq!(find(&[deployment()]).unwrap_err(), Fault::NoService);
    let error = find(&[service("a", None), service("b", None)]).unwrap_err();
    assert!(error.to_string().contains("ns/Service/a, ns/Service/b"), "{error}");
    assert!(find(&[marked("a", PRIMARY), marked("b", PRIMARY)]).is_err());
    assert!(find(&[marked("a", STAGE), marked("b", STAGE), service("c", None)]).is_err());
}

#[test]
fn the_stage_colour_is_deployed_and_production_stays() {
    let mut primary = service("web", None);
    primary["metadata"]["annotations"] = json!({
        "external-dns.alpha.kubernetes.io/hostname": "web.example.com", "cloud/internal": "yes", PRIMARY: "true"});
    primary["spec"]["clusterIP"] = "10.0.0.9".into();
    primary["spec"]["ports"][0]["nodePort"] = 30_000.into();
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let prepared = prepare(vec![primary, deployment(), config], "rel", "ns", false, Color::Blue).unwrap();
    assert_eq!(prepared.color, Color::Green);
    let at = |place: usize| &prepared.documents[place];
    assert_eq!(at(prepared.primary)["spec"]["selector"], json!({"app": "web", COLOR: "blue"}));
    assert_eq!(at(prepared.primary)["spec"]["clusterIP"], "10.0.0.9");
    let stage = at(prepared.stage);
    assert_eq!(stage["metadata"]["name"], "web-stage");
    assert_eq!(stage["spec"]["selector"], json!({"app": "web", COLOR: "green"}));
    assert_eq!(stage["metadata"]["annotations"], json!({"cloud/internal": "yes", STAGE: "true"}));
    assert_eq!(stage["spec"]["ports"], json!([{"port": 80}]));
    assert!(stage["spec"].get("clusterIP").is_none());
    let workload = at(prepared.workload);
    assert_eq!(workload["metadata"]["name"], "web-green");
    assert_eq!(workload["spec"]["selector"]["matchLabels"][COLOR], "green");
    assert_eq!(workload["spec"]["template"]["metadata"]["labels"]["harness.io/release-name"], "rel");
    assert_eq!(at(2)["metadata"]["name"], "c-green");
}

#[test]
fn a_headless_service_stays_headless() {
    let mut primary = service("web", None);
    primary["spec"]["clusterIP"] = "None".into();
    let prepared = prepare(vec![primary, deployment()], "rel", "ns", false, Color::Green).unwrap();
    assert_eq!(prepared.documents[prepared.stage]["spec"]["clusterIP"], "None");
}

#[test]
fn a_swap_is_two_guarded_changes_and_a_repeated_one_none() {
    let (blue, green) = (service("web", Some("blue")), service("web-stage", Some("green")));
    let both = changes(&blue, &green, Color::Green, "ns").unwrap();
    assert_eq!(
        both.iter().map(|c| (c.role, c.from, c.to)).collect::<Vec<_>>(),
        [(Role::Primary, Color::Blue, Color::Green), (Role::Stage, Color::Green, Color::Blue)]
    );
    assert_eq!(
        both[0].patch,
        json!({"metadata": {"resourceVersion": "7"}, "spec": {"selector": {COLOR: "green"}}})
    );
    assert_eq!(changes(&blue, &green, Color::Blue, "ns").unwrap(), []);
    // The crash between the two: both select green.
    let half = changes(&service("web", Some("green")), &green, Color::Green, "ns").unwrap();
    assert_eq!(half.len(), 1);
    assert_eq!((half[0].role, half[0].to), (Role::Stage, Color::Blue));
    assert!(changes(&service("web", None), &green, Color::Green, "ns").is_err());
}

#[test]
fn the_fingerprint_is_of_the_content() {
    let (a, b) = (service("a", None), service("b", None));
    let one = fingerprint(&[a.clone(), b.clone()]);
    assert_eq!(one, fingerprint(&[b.clone(), a.clone()]));
    assert_ne!(one, fingerprint(&[a.clone(), a]));
    assert!(one.len() < 64 && one.chars().all(|c| c.is_ascii_hexdigit()));
}
