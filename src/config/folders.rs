//! Paths: made absolute, compared as the disk sees them, and kept out of one another's way.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Stands for the folder's own name in `folder`.
pub(super) const VANITY: &str = "{vanity}";
/// Stands for the local date of the outcome in `sent`, `failed` and `held`.
pub(super) const DATE: &str = "{date}";

/// `path` below `base`, without `.` and `..`.
pub(super) fn absolute(base: &Path, path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// The path with the links of all that exists resolved, so that two names of one folder are equal.
fn resolved(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => real,
                Ok(rest) => real.join(rest),
                Err(_) => real,
            };
        }
    }
    path.to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Exact(OsString),
    /// `{vanity}`: any name.
    Any,
    /// A part with `{date}`: what stands before and after it.
    Dated(String, String),
}

impl Part {
    fn may_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(name), Self::Dated(before, after))
            | (Self::Dated(before, after), Self::Exact(name)) => is_dated(name, before, after),
            (Self::Any, _) | (_, Self::Any) | (Self::Dated(..), Self::Dated(..)) => true,
        }
    }
}

fn is_dated(name: &OsStr, before: &str, after: &str) -> bool {
    let date = name.to_str().and_then(|name| name.strip_prefix(before)?.strip_suffix(after));
    date.is_some_and(|date| {
        date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    })
}

/// A path, or all paths of a pattern, as the disk sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape(Vec<Part>);

impl Shape {
    /// The shape of a path that may hold `{vanity}` and `{date}`.
    pub(super) fn of(path: &Path) -> Self {
        let is_pattern = |part: &Component<'_>| {
            part.as_os_str().to_str().is_some_and(|text| text == VANITY || text.contains(DATE))
        };
        let fixed: PathBuf = path.components().take_while(|part| !is_pattern(part)).collect();
        let rest: PathBuf = path.components().skip_while(|part| !is_pattern(part)).collect();
        let exact = |part| Part::Exact(same_case(part));
        Self(resolved(&fixed).components().map(exact).collect()).below(&rest)
    }

    /// The shape of a path below this one, as it is written: no link in it is followed.
    pub(super) fn below(&self, rest: &Path) -> Self {
        let mut parts = self.0.clone();
        parts.extend(rest.components().map(|part| match part.as_os_str().to_str() {
            Some(VANITY) => Part::Any,
            Some(text) => match text.split_once(DATE) {
                Some((before, after)) => Part::Dated(before.to_owned(), after.replace(DATE, "")),
                None => Part::Exact(same_case(part)),
            },
            None => Part::Exact(same_case(part)),
        }));
        Self(parts)
    }

    /// Whether `other` may be this path or lie below it.
    pub(super) fn holds(&self, other: &Self) -> bool {
        self.0.len() <= other.0.len()
            && self.0.iter().zip(&other.0).all(|(one, other)| one.may_equal(other))
    }

    /// Whether both may be the same path.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.holds(other)
    }

    /// Whether it stands for several folders.
    pub(super) fn has_vanity(&self) -> bool {
        self.0.contains(&Part::Any)
    }

    /// The part before `{vanity}`.
    pub(super) fn parent(&self) -> Self {
        Self(self.0.iter().take_while(|part| **part != Part::Any).cloned().collect())
    }
}

#[cfg(windows)]
fn same_case(part: Component<'_>) -> OsString {
    part.as_os_str().to_ascii_lowercase()
}

#[cfg(not(windows))]
fn same_case(part: Component<'_>) -> OsString {
    part.as_os_str().to_owned()
}

#[cfg(test)]
#[cfg_attr(unix, expect(clippy::disallowed_methods, reason = "the tests make folders to look at"))]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_dots() {
        let check = |path: &str, plain: &str| {
            assert_eq!(
                absolute(Path::new("/srv/drop"), Path::new(path)),
                Path::new(plain),
                "{path}"
            );
        };
        check("orders", "/srv/drop/orders");
        check("./orders/", "/srv/drop/orders");
        check("../other/./x", "/srv/other/x");
        check("/abs/../x", "/x");
        check("../../../..", "/");
    }

    #[test]
    fn a_shape_holds_what_is_below_it_and_nothing_beside_it() {
        let check = |outer: &str, inner: &str, holds: bool, meets: bool| {
            let outer_shape = Shape::of(Path::new(outer));
            let inner_shape = Shape::of(Path::new(inner));
            assert_eq!(outer_shape.holds(&inner_shape), holds, "{outer} holds {inner}");
            assert_eq!(outer_shape.meets(&inner_shape), meets, "{outer} meets {inner}");
        };
        check("/nowhere/a", "/nowhere/a", true, true);
        check("/nowhere/a", "/nowhere/a/b", true, false);
        check("/nowhere/a", "/nowhere/ab", false, false);
        check("/nowhere/a/b", "/nowhere/a", false, false);
        check("/nowhere/{vanity}/export", "/nowhere/x/export/sent", true, false);
        check("/nowhere/{vanity}/export", "/nowhere/x/import", false, false);
        check("/nowhere/{date}", "/nowhere/2026-11-21/x", true, false);
        check("/nowhere/{date}", "/nowhere/orders", false, false);
        check("/nowhere/sent-{date}", "/nowhere/sent-2026-11-21", true, true);
        check("/nowhere/{vanity}", "/nowhere/{date}", true, true);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_below_a_shape_is_taken_as_it_is_written() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("other")).unwrap();
        std::os::unix::fs::symlink("other", scratch.path().join("sent")).unwrap();
        let inbox = Shape::of(scratch.path());
        assert!(!inbox.below(Path::new("sent")).meets(&inbox.below(Path::new("other"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_does_not_hide_that_two_paths_are_one() {
        let scratch = tempfile::tempdir().unwrap();
        let real = scratch.path().join("real");
        std::fs::create_dir_all(&real).unwrap();
        std::os::unix::fs::symlink(&real, scratch.path().join("link")).unwrap();
        let by_link = Shape::of(&scratch.path().join("link/orders"));
        assert!(by_link.meets(&Shape::of(&real.join("orders"))));
    }
}
