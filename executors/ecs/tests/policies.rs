//! The IAM policies in `deploy/aws` are those that the code's own table gives.

use executor_ecs::rights;
use std::path::Path;

#[test]
fn the_policies_in_deploy_are_those_of_the_code() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/aws");
    let mut differ = Vec::new();
    for kind in rights::kinds() {
        let path = dir.join(format!("{kind}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&rights::policy(kind)).unwrap());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            differ.push(path.display().to_string());
        }
    }
    assert!(
        differ.is_empty(),
        "run UPDATE_GOLDEN=1 cargo test -p executor-ecs --test policies: {}",
        differ.join(", ")
    );
    let files = std::fs::read_dir(&dir).unwrap().flatten();
    let left: Vec<String> = files
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| {
            name.ends_with(".json") && !rights::kinds().any(|kind| name == &format!("{kind}.json"))
        })
        .collect();
    assert!(left.is_empty(), "policies of no step: {}", left.join(", "));
}
