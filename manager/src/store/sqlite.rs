//! Stub while the backend is written.
