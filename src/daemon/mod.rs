//! Joins decisions and effects.
