//! What the end-to-end tests stand on: the product's own processes ([`world`]) and the real systems around them
//! ([`peers`]).

pub mod peers;
pub mod recorder;
pub mod wait;
pub mod world;
