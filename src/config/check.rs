//! From what is written to what is meant.

/// What a discovered route is made of.
#[derive(Debug)]
pub struct Template;
