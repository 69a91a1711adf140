//! The log service's HTTP API.
