//! Whose state folder and whose roots these are: one lock, and a mark in each root.
