//! The conformance kit that every executor passes in its own tests (DESIGN §6).
