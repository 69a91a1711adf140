//! Registries, artifact repositories and Git: resolve, list, download with checksum and resume.
