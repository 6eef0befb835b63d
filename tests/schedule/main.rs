//! `journey::schedule` through its public face: what starts when, who waits for whom, what pauses
//! and what lets go again. No clock, no disk: time is a number that the scene counts.

mod chance;
mod footing;
mod order;
mod paced;
mod pauses;
mod scene;
mod turns;
