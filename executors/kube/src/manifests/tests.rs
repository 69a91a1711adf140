use super::fetch::{File, Files};
use super::{Document, Loaded, select, yaml};
use executor_api::StepContext;
use executor_api::testing::World;
use proto::task::{Service, StepTask};
use serde_json::json;

fn files(all: &[(&str, &str)], roots: &[&str]) -> Files {
    let all = all.iter().map(|(path, text)| File { path: (*path).into(), text: (*text).into() }).collect();
    Files { all, roots: roots.iter().map(|root| (*root).to_owned()).collect(), commit: None }
}

fn documents(text: &str) -> Result<Vec<String>, executor_api::StepError> {
    yaml::documents("a.yaml", text, &mut yaml::Size::default())
}

fn task(tag: Option<&str>, image_tag: Option<&str>) -> StepTask {
    let mut task: StepTask = serde_json::from_value(json!({
        "version": 1, "step": {"type": "Noop", "identifier": "s", "name": "s", "spec": {"line": ""}},
        "execution": {},
    }))
    .unwrap();
    if let Some(tag) = tag {
        let spec = json!({"connector": {"identifier": "d", "url": "http://r"}, "imagePath": "x"});
        let artifact = json!({"source": {"type": "DockerRegistry", "spec": spec}, "tag": tag});
        task.artifact = Some(serde_json::from_value(artifact).unwrap());
    }
    if let Some(tag) = image_tag {
        let variables = [("imageTag".to_owned(), proto::text::Text(tag.into()))].into();
        task.service = Some(Service { identifier: "s".into(), name: "s".into(), variables });
    }
    task
}

fn context(task: StepTask) -> (World, StepContext) {
    let world = World::new("t", task, []);
    let context = world.context().1;
    (world, context)
}

#[test]
fn a_file_falls_into_documents_and_empty_ones_are_left_out() {
    let text = "# a comment\n---\na: 1\n---   # second\nb:\n  text: |\n    --- not a marker\n---\n\n--- \nnull\n---\n{\"c\": 3}\n...\n";
    let found = documents(text).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[1].contains("--- not a marker"));
    assert!(found[2].contains("{\"c\": 3}"));
}

#[test]
fn what_is_no_object_is_told_with_its_line() {
    for (text, line, says) in [
        ("a: 1\n---\n- x\n", "line 3", "no mapping"),
        ("a: 1\n---\n\njust text\n", "line 4", "no mapping"),
        ("a: [1\nb: 2\n", "line 2", "not valid YAML"),
        ("a: 1\nb: \0\n", "line 2", "NUL"),
        ("? [a]\n: 1\n", "line 1", "key"),
    ] {
        let error = documents(text).unwrap_err();
        assert_eq!(error.code, "KUBE-064", "{text:?}");
        assert!(error.what.contains(line) && error.what.contains(says), "{text:?}: {}", error.what);
    }
}

#[test]
fn bombs_and_giants_are_refused_before_they_take_memory() {
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..9 {
        let inner = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert_eq!(documents(&bomb).unwrap_err().code, "KUBE-065");
    let deep = format!("a: {}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(documents(&deep).unwrap_err().code, "KUBE-065");
    let long = format!("a: {}\n", "x".repeat(11 << 20));
    assert!(documents(&long).unwrap_err().what.contains("10 MiB"));
    let mut size = yaml::Size::default();
    let half = format!("a: {}\n", "x".repeat(6 << 20));
    yaml::documents("one.yaml", &half, &mut size).unwrap();
    let error = yaml::documents("two.yaml", &half, &mut size).unwrap_err();
    assert!(error.what.starts_with("two.yaml"), "{}", error.what);
}

fn tagged(text: &str, tag: Option<&str>, variable: Option<&str>) -> Result<String, executor_api::StepError> {
    let (_world, cx) = context(task(tag, variable));
    let document = Document { source: "d.yaml".into(), text: text.into(), skip_for_deploy: false };
    let mut all = vec![document];
    yaml::put_image_tags(&mut all, &cx)?;
    Ok(all.remove(0).text)
}

#[test]
fn r13_puts_the_tag_into_images_and_nowhere_else() {
    let text = "metadata:\n  labels: {v: PLACEHOLDER_TAG, note: 'x:PLACEHOLDER_TAG'}\nspec:\n  # é: characters are not bytes\n  a:\n  - image: reg:5000/app:PLACEHOLDER_TAG # why\n  - {image: \"b:PLACEHOLDER_TAG\", name: x}\n  - image: c:PLACEHOLDER_TAG2\n  - image: d:1\n";
    let expected = text
        .replace("reg:5000/app:PLACEHOLDER_TAG", "reg:5000/app:v2.3.1")
        .replace("\"b:PLACEHOLDER_TAG\"", "\"b:v2.3.1\"");
    assert_eq!(tagged(text, Some("v2.3.1"), Some("other")).unwrap(), expected);
    assert_eq!(
        tagged(text, None, Some("v2.3.1")).unwrap(),
        expected,
        "the variable stands in for an artifact"
    );
}

#[test]
fn r13_without_a_tag_fails_before_anything_is_applied() {
    let text = "image: app:PLACEHOLDER_TAG\n";
    let error = tagged(text, None, None).unwrap_err();
    assert_eq!(error.code, "KUBE-066");
    assert!(error.what.contains("d.yaml"), "{}", error.what);
    for wrong in ["", "a b", "x\nkind: Secret", "PLACEHOLDER_TAG", &"x".repeat(129)] {
        assert_eq!(tagged(text, None, Some(wrong)).unwrap_err().code, "KUBE-066", "{wrong:?}");
    }
    assert_eq!(
        tagged("image: app:1\n", None, None).unwrap(),
        "image: app:1\n",
        "nothing to do, nothing needed"
    );
}

#[test]
fn files_are_chosen_from_the_root_and_then_from_each_path() {
    let all = [
        ("gen/prod/manifests.yaml", "a: 1"),
        ("gen/prod/extra/b.yml", "b: 1"),
        ("gen/prod/values.yaml", "v: 1"),
        ("gen/prod/README.md", "text"),
        ("base/values-prod.yaml", "v: 2"),
    ];
    let primary = files(&all, &["gen/prod"]);
    let paths = |files: &[&str]| {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        select::manifests(&primary, &files).map(|found| found.paths())
    };
    assert_eq!(paths(&[]).unwrap(), ["gen/prod/manifests.yaml", "gen/prod/extra/b.yml"]);
    assert_eq!(paths(&["./gen/prod/manifests.yaml"]).unwrap(), ["gen/prod/manifests.yaml"]);
    assert_eq!(paths(&["extra", "extra/b.yml"]).unwrap(), ["gen/prod/extra/b.yml"]);
    let error = paths(&["manifest.yaml", "extra/c.yml"]).unwrap_err();
    assert_eq!(error.code, "KUBE-062");
    assert!(error.what.contains("`manifest.yaml` (near: gen/prod/manifests.yaml)"), "{}", error.what);
    assert!(error.what.contains("`extra/c.yml`"), "every missing path is named: {}", error.what);
    // The store names a file: its folder is where paths begin.
    let single = files(&all, &["gen/prod/manifests.yaml"]);
    let found = select::manifests(&single, &["manifests.yaml".to_owned()]).unwrap();
    assert_eq!(found.paths(), ["gen/prod/manifests.yaml"]);
}

#[test]
fn values_alone_are_no_manifest() {
    let error = select::manifests(&files(&[("a/values.yaml", "x: 1"), ("a/notes.txt", "")], &["a"]), &[]);
    let error = error.map(|files| files.paths()).unwrap_err();
    assert_eq!(error.code, "KUBE-063");
    assert!(error.what.contains("a/values.yaml, a/notes.txt"), "{}", error.what);
}

#[test]
fn a_comment_in_the_first_line_takes_a_file_out_of_deployments() {
    let text = "# harness.io/skip-file-for-deploy\nkind: Job\n";
    let found = select::verbatim(&files(&[("a.yaml", text), ("b.yaml", "kind: Job\n")], &["."])).unwrap();
    assert_eq!(found.iter().map(|one| one.skip_for_deploy).collect::<Vec<_>>(), [true, false]);
    assert!(!format!("{found:?}").contains("kind"), "rendered text may hold secrets");
}

#[test]
fn values_are_one_mapping() {
    let values = |text: &str| yaml::check_values(&File { path: "v.yaml".into(), text: text.into() });
    values("a: 1").unwrap();
    values("# nothing\n").unwrap();
    assert!(values("- a").unwrap_err().what.contains("expected values"));
    assert!(values("a: 1\n---\nb: 1").unwrap_err().what.contains("one document"));
}

#[test]
fn number_and_colour_of_the_release_reach_what_values_asked_for() {
    let text = "a: $__HARNESS_INTERNAL_RELEASE_REVISION__-$__HARNESS_INTERNAL_RELEASE_COLOR__";
    let document = Document { source: "a".into(), text: text.into(), skip_for_deploy: false };
    let mut loaded = Loaded { documents: vec![document], ..Loaded::default() };
    loaded.with_release(7, Some("blue"));
    assert_eq!(loaded.documents[0].text, "a: 7-blue");
}
