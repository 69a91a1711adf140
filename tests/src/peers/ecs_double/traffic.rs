//! Who answers the requests of a service's clients: the data plane of the double.
//!
//! `GET /production/SERVICE` and `GET /test/SERVICE` are its two listeners. The image of the revision that answers is the body;
//! an image with `sick` in its name answers 503. `GET /metrics` tells Prometheus how many percent of production that is.

use super::region::Region;
use std::fmt::Write as _;

const TEXT: &str = "text/plain; version=0.0.4";

/// Whether a revision of this image fails its requests.
fn sick(image: &str) -> bool {
    image.contains("sick")
}

/// Status, type and body of the answer to a GET.
pub(super) fn get(region: &mut Region, path: &str) -> (u16, &'static str, String) {
    if path == "/metrics" {
        return (200, TEXT, metrics(region));
    }
    let (listener, service) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let test = match listener {
        "production" => false,
        "test" => true,
        _ => return (404, TEXT, format!("the double has no {path}")),
    };
    match next(region, service, test) {
        Some(image) => (if sick(&image) { 503 } else { 200 }, TEXT, image),
        None => (503, TEXT, format!("nothing serves {service}")),
    }
}

fn metrics(region: &Region) -> String {
    let mut text = "# TYPE double_failing_percent gauge\n".to_owned();
    for service in region.names() {
        let behind = region.behind(&service, false);
        let failing: f64 = behind.iter().filter(|(image, _)| sick(image)).map(|(_, share)| share).sum();
        writeln!(text, "double_failing_percent{{service=\"{service}\"}} {failing}").expect("a text");
    }
    text
}

/// The image that answers the next request: shares are kept exactly, over each hundred requests.
fn next(region: &mut Region, service: &str, test: bool) -> Option<String> {
    let behind = region.behind(service, test);
    let asked = region.asked.entry((service.to_owned(), test)).or_default();
    let before = *asked as f64;
    *asked += 1;
    let (first, share) = behind.first()?;
    let turns = |requests: f64| (requests * share / 100.0).floor();
    let other = behind.get(1).filter(|_| turns(before + 1.0) == turns(before));
    Some(other.map_or(first, |(image, _)| image).clone())
}
