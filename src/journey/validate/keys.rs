//! Whether a key occurs twice in one object, in bounded memory.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// Keys of one object that are compared; of the later ones nothing is said.
const OBJECT_KEYS_MAX: usize = 10_000;
/// Keys of all open objects together that are compared: under 3 MB.
const OPEN_KEYS_MAX: usize = 100_000;
/// Up to here a look at every earlier key is quicker than a tree.
const LIST_MAX: usize = 32;
/// A key is hashed in blocks of this many bytes, so that neither chunk boundaries nor escapes
/// change its hash.
const BLOCK: usize = 256;

/// The keys of all open objects, as 64-bit hashes. They are keyed at random, so nobody can
/// write a file whose different keys collide, and by accident that takes billions of keys.
pub(super) struct Keys {
    random: RandomState,
    /// Hashes of the keys of open objects, the innermost object's last.
    list: Vec<u64>,
    /// Where each open object begins in `list`.
    starts: Vec<usize>,
    /// The keys of objects that have many, with the object's number among the open ones.
    trees: Vec<(usize, BTreeSet<u64>)>,
    in_trees: usize,
    hasher: DefaultHasher,
    block: [u8; BLOCK],
    filled: usize,
    /// Whether the current key has been hashed in part.
    begun: bool,
    /// Whether some keys were too many to be compared.
    pub(super) gave_up: bool,
}

impl Keys {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        let hasher = random.build_hasher();
        Self {
            random,
            list: Vec::new(),
            starts: Vec::new(),
            trees: Vec::new(),
            in_trees: 0,
            hasher,
            block: [0; BLOCK],
            filled: 0,
            begun: false,
            gave_up: false,
        }
    }

    pub(super) fn open_object(&mut self) {
        self.starts.push(self.list.len());
    }

    pub(super) fn close_object(&mut self) {
        if let Some((_, tree)) = self.trees.pop_if(|(object, _)| *object == self.starts.len()) {
            self.in_trees -= tree.len();
        }
        if let Some(start) = self.starts.pop() {
            self.list.truncate(start);
        }
    }

    /// Takes a part of the current key, unescaped.
    pub(super) fn add(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            if self.filled == BLOCK {
                self.hasher.write(&self.block);
                self.begun = true;
                self.filled = 0;
            }
            let length = part.len().min(BLOCK - self.filled);
            let (now, later) = part.split_at(length);
            self.block[self.filled..self.filled + length].copy_from_slice(now);
            self.filled += length;
            part = later;
        }
    }

    /// Takes the last part of the current key; whether it occurred before in this object.
    pub(super) fn end(&mut self, part: &[u8]) -> bool {
        let hash = if self.filled == 0 && !self.begun && part.len() <= BLOCK {
            let mut hasher = self.random.build_hasher();
            hasher.write(part);
            hasher.finish()
        } else {
            self.add(part);
            let mut hasher = std::mem::replace(&mut self.hasher, self.random.build_hasher());
            hasher.write(&self.block[..self.filled]);
            self.filled = 0;
            self.begun = false;
            hasher.finish()
        };
        self.is_known(hash)
    }

    fn is_known(&mut self, hash: u64) -> bool {
        let object = self.starts.len();
        let start = self.starts.last().copied().unwrap_or(0);
        let full = self.list.len() + self.in_trees >= OPEN_KEYS_MAX;
        if let Some((_, tree)) = self.trees.last_mut().filter(|(owner, _)| *owner == object) {
            if full || tree.len() >= OBJECT_KEYS_MAX {
                self.gave_up = true;
                return tree.contains(&hash);
            }
            let known = !tree.insert(hash);
            self.in_trees += usize::from(!known);
            return known;
        }
        if self.list[start..].contains(&hash) {
            return true;
        }
        if full {
            self.gave_up = true;
            return false;
        }
        self.list.push(hash);
        if self.list.len() - start > LIST_MAX {
            let tree: BTreeSet<u64> = self.list.drain(start..).collect();
            self.in_trees += tree.len();
            self.trees.push((object, tree));
        }
        false
    }
}
