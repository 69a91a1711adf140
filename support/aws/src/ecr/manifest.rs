//! What a manifest says of platforms. **Source**: OCI image spec (index, manifest, config), Docker manifest v2.

use serde_json::Value;
use std::fmt;

/// Media types of lists of manifests, and of single ones.
pub(super) const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`, `windows`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `v8`; empty when none is named.
    pub variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl Platform {
    /// Reads `os/architecture[/variant]`, also as task definitions write the two parts: `LINUX/X86_64`.
    pub fn read(text: &str) -> Option<Platform> {
        let lower = text.trim().to_ascii_lowercase();
        let mut parts = lower.split('/');
        let (os, architecture, variant) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
        if os.is_empty() || architecture.is_empty() || parts.next().is_some() {
            return None;
        }
        // Task definitions name the edition: WINDOWS_SERVER_2022_CORE.
        let os = if os.starts_with("windows") { "windows" } else { os };
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Some(Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() })
    }

    /// Whether an image for `self` runs where `wanted` is asked for.
    pub fn serves(&self, wanted: &Platform) -> bool {
        let variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_str()) {
            // arm64 without a variant is v8.
            ("arm64", "") => "v8".to_owned(),
            (_, variant) => variant.to_owned(),
        };
        let any = wanted.variant.is_empty();
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (any || variant(self) == variant(wanted))
    }

    fn of(value: &Value) -> Option<Platform> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let found = Platform { os: text("os"), architecture: text("architecture"), variant: text("variant") };
        // Attestations stand in an index as images of no platform.
        let real = !found.os.is_empty() && !found.architecture.is_empty() && found.os != "unknown";
        real.then_some(found)
    }
}

/// What a manifest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Manifest {
    /// A list, with the platforms of its entries.
    Index(Vec<Platform>),
    /// One image; its platform stands in the config with this digest.
    Image { config: String },
}

impl Manifest {
    /// Reads the text of a manifest. `None`: it is of a kind that says nothing about platforms.
    pub(super) fn read(text: &str) -> Option<Manifest> {
        let document: Value = serde_json::from_str(text).ok()?;
        if let Some(entries) = document.get("manifests").and_then(Value::as_array) {
            let platforms = entries.iter().filter_map(|entry| Platform::of(entry.get("platform")?));
            return Some(Manifest::Index(platforms.collect()));
        }
        let config = document.get("config")?.get("digest")?.as_str()?;
        Some(Manifest::Image { config: config.to_owned() })
    }
}

/// The platform that an image's config names.
pub(super) fn of_config(text: &[u8]) -> Option<Platform> {
    Platform::of(&serde_json::from_slice(text).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn platform(text: &str) -> Platform {
        Platform::read(text).unwrap()
    }

    #[test]
    fn platforms_serve_each_other() {
        for (has, wanted, serves) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "LINUX/X86_64", true),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/amd64", "linux/arm64", false),
            ("windows/amd64", "WINDOWS_SERVER_2022_CORE/X86_64", true),
        ] {
            assert_eq!(platform(has).serves(&platform(wanted)), serves, "{has} for {wanted}");
        }
        for odd in ["linux", "", "/", "a/b/c/d"] {
            assert_eq!(Platform::read(odd), None, "{odd}");
        }
    }

    #[test]
    fn lists_single_images_and_others_are_told_apart() {
        let index = r#"{"manifests": [
            {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"platform": {"os": "unknown", "architecture": "unknown"}}, {}]}"#;
        assert_eq!(Manifest::read(index), Some(Manifest::Index(vec![platform("linux/arm64/v8")])));
        let image = r#"{"config": {"digest": "sha256:1"}, "layers": []}"#;
        assert_eq!(Manifest::read(image), Some(Manifest::Image { config: "sha256:1".into() }));
        assert_eq!(Manifest::read(r#"{"schemaVersion": 1, "history": []}"#), None);
        let config = br#"{"architecture": "amd64", "os": "linux", "rootfs": {}}"#;
        assert_eq!(of_config(config).unwrap().to_string(), "linux/amd64");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _any = (Manifest::read(&text), Platform::read(&text), of_config(text.as_bytes()));
        }
    }
}
