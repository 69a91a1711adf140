//! Command steps and host scripts over SSH; the only crate that names russh.
