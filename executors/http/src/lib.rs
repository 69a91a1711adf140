//! The Http step.
