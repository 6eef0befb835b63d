//! Is a name in a drop folder ours, and whose? Keeps promise P12: whatever is not a candidate is
//! left for a reason that is counted.

use std::ffi::{OsStr, OsString};

use glob::{MatchOptions, Pattern, PatternError};

use crate::model::file::{Kind, Sighting};
use crate::model::route::{ReadyRules, Select};
use crate::model::time::Wall;

/// Why a file stays where it is for now. The names are what `status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Complete; its turn comes.
    Ready,
    /// It changed a moment ago.
    NotReady,
    /// Another program has it open for writing.
    InUse,
    /// The document in it stops in the middle; perhaps the rest is on its way.
    Truncated,
    /// Its done-marker is not there.
    NoMarker,
    /// An earlier file of the same name is still on its way.
    SameName,
    /// Route or destination is paused.
    Paused,
    /// Its route keeps an order, and it is not its turn.
    InLine,
    /// As many files of its route wait for another attempt as may.
    TooManyDeferred,
    /// Complete; the destination takes no more at present.
    Paced,
    /// Older than `first_sweep_max_age` at the route's first sweep.
    OlderThanFirstSweep,
    /// No `include` matches, or an `exclude` does.
    Ignored,
    /// A name that programs give to files they are still writing.
    Temporary,
    /// Two routes want it.
    TwoRoutes,
    /// It lies in a folder that is no route.
    NoRoute,
    /// It lies in a folder below a drop folder.
    Subfolder,
    /// A symbolic link.
    Link,
    /// A file that has another name elsewhere.
    HardLink,
    /// FIFO, socket or device.
    Special,
    /// This account may not read it.
    Unreadable,
    /// A done-marker whose file is not there (yet).
    Marker,
    /// A sidecar or receipt, never sent.
    Sidecar,
    /// Something in `sending/` that patchdrop did not put there.
    Foreign,
}

impl Reason {
    const ALL: [Self; 23] = [
        Self::Ready,
        Self::NotReady,
        Self::InUse,
        Self::Truncated,
        Self::NoMarker,
        Self::SameName,
        Self::Paused,
        Self::InLine,
        Self::TooManyDeferred,
        Self::Paced,
        Self::OlderThanFirstSweep,
        Self::Ignored,
        Self::Temporary,
        Self::TwoRoutes,
        Self::NoRoute,
        Self::Subfolder,
        Self::Link,
        Self::HardLink,
        Self::Special,
        Self::Unreadable,
        Self::Marker,
        Self::Sidecar,
        Self::Foreign,
    ];

    /// The reason with this stable name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::InUse => "in-use",
            Self::Truncated => "truncated",
            Self::NoMarker => "no-marker",
            Self::SameName => "same-name-on-its-way",
            Self::Paused => "paused",
            Self::InLine => "in-line",
            Self::TooManyDeferred => "too-many-deferred",
            Self::Paced => "paced",
            Self::OlderThanFirstSweep => "older-than-first-sweep",
            Self::Ignored => "ignored",
            Self::Temporary => "temporary",
            Self::TwoRoutes => "two-routes",
            Self::NoRoute => "no-route",
            Self::Subfolder => "in-a-subfolder",
            Self::Link => "link",
            Self::HardLink => "hard-link",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::Marker => "done-marker",
            Self::Sidecar => "sidecar",
            Self::Foreign => "foreign",
        }
    }

    /// What it means, in a few words that fit one file and many.
    #[must_use]
    pub fn plain(self) -> &'static str {
        match self {
            Self::Ready => "complete, next in turn",
            Self::NotReady => "changed a moment ago",
            Self::InUse => "still open in another program",
            Self::Truncated => "incomplete, the rest may be on its way",
            Self::NoMarker => "done-marker not there",
            Self::SameName => "an earlier file of the same name is still on its way",
            Self::Paused => "route or destination is paused",
            Self::InLine => "its route sends in order, and its turn comes",
            Self::TooManyDeferred => "too many files of the route wait for another attempt already",
            Self::Paced => "the destination's rate limit is reached",
            Self::OlderThanFirstSweep => "older than patchdrop's first look",
            Self::Ignored => "no `include` of the route matches, or an `exclude` does",
            Self::Temporary => "a name that programs give to unfinished files",
            Self::TwoRoutes => "wanted by two routes",
            Self::NoRoute => "in a folder that is no route",
            Self::Subfolder => "a folder",
            Self::Link => "a link",
            Self::HardLink => "a file with another name elsewhere",
            Self::Special => "neither file nor folder",
            Self::Unreadable => "not readable for this account",
            Self::Marker => "a done-marker",
            Self::Sidecar => "a sidecar or receipt, never sent",
            Self::Foreign => "not put there by patchdrop",
        }
    }

    /// Whether such a file is sent one day, by itself or when a person lets it go.
    #[must_use]
    pub fn is_to_be_sent(self) -> bool {
        matches!(
            self,
            Self::Ready
                | Self::NotReady
                | Self::InUse
                | Self::Truncated
                | Self::NoMarker
                | Self::SameName
                | Self::Paused
                | Self::InLine
                | Self::TooManyDeferred
                | Self::Paced
                | Self::OlderThanFirstSweep
        )
    }

    /// Whether an administrator should be told once: it will not go by itself.
    #[must_use]
    pub fn needs_a_person(self) -> bool {
        matches!(
            self,
            Self::OlderThanFirstSweep
                | Self::Ignored
                | Self::TwoRoutes
                | Self::NoRoute
                | Self::Subfolder
                | Self::Link
                | Self::HardLink
                | Self::Special
                | Self::Unreadable
                | Self::Foreign
        )
    }

    /// What the administrator can do, one sentence.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OlderThanFirstSweep => {
                "Old files wait for you: `patchdrop release --route NAME` sends them, or move them away."
            }
            Self::Ignored => "Rename them, widen `include` of the route, or move them away.",
            Self::TwoRoutes => "Make `include` of the two routes tell files apart.",
            Self::NoRoute => {
                "Move them into a route's folder, or add a [route.NAME] with this `folder`."
            }
            Self::Subfolder => "Only the drop folder itself is watched; move the files up.",
            Self::Link => "Links are never followed; drop the file itself.",
            Self::HardLink => {
                "Who has the other name could change the file while it is sent: drop a copy."
            }
            Self::Special => "Only regular files are sent; remove it.",
            Self::Unreadable => "Give patchdrop's account the right to read and move them.",
            Self::Foreign => "Nothing but patchdrop may write into `sending`; move it away.",
            Self::Ready
            | Self::NotReady
            | Self::InUse
            | Self::Truncated
            | Self::NoMarker
            | Self::SameName
            | Self::Paused
            | Self::InLine
            | Self::TooManyDeferred
            | Self::Paced
            | Self::Temporary
            | Self::Marker
            | Self::Sidecar => "Nothing to do: patchdrop looks again by itself.",
        }
    }
}

/// A route's name rules, compiled.
#[derive(Clone, Debug)]
pub struct Selector {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
    temporary: Vec<Glob>,
    marker: Option<Marker>,
}

/// A glob. Most ask for the beginning or the end of a name alone, which is much quicker told
/// without the general matcher; every name that lies in a drop folder meets all of them.
#[derive(Clone, Debug)]
enum Glob {
    /// `PART*`
    Begins(String),
    /// `*PART`
    Ends(String),
    /// Anything else.
    Any(Pattern),
}

impl Glob {
    fn new(glob: &str) -> Result<Self, PatternError> {
        let is_plain = |part: &str| part.is_ascii() && !part.contains(['*', '?', '[', ']']);
        let pattern = Pattern::new(glob)?;
        Ok(match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
            (Some(part), _) if is_plain(part) => Self::Ends(part.to_owned()),
            (_, Some(part)) if is_plain(part) => Self::Begins(part.to_owned()),
            _ => Self::Any(pattern),
        })
    }

    /// Capital letters count as small ones, outside ASCII as themselves.
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Begins(part) => begins(name, part),
            Self::Ends(part) => ends(name, part),
            Self::Any(pattern) => pattern.matches_with(name, CASE_INSENSITIVE),
        }
    }
}

/// Whether a name begins with `part`, ASCII letters of either case.
fn begins(name: &str, part: &str) -> bool {
    let head = name.as_bytes().get(..part.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(part.as_bytes()))
}

/// Whether a name ends with `part`, ASCII letters of either case.
fn ends(name: &str, part: &str) -> bool {
    let tail = name.len().checked_sub(part.len()).and_then(|at| name.as_bytes().get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(part.as_bytes()))
}

/// A `done_marker` pattern.
#[derive(Clone, Debug)]
struct Marker {
    before: String,
    after: String,
    of_stem: bool,
}

const CASE_INSENSITIVE: MatchOptions = MatchOptions {
    case_sensitive: false,
    require_literal_separator: false,
    require_literal_leading_dot: false,
};

/// Endings of files that patchdrop writes beside others.
pub const SIDECAR_ENDINGS: [&str; 2] = [".why.txt", ".receipt.json"];

/// Whether a name is a sidecar's or a receipt's.
#[must_use]
pub fn is_sidecar(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    SIDECAR_ENDINGS.iter().any(|ending| ends(&name, ending))
}

impl Selector {
    /// Compiles a route's name rules.
    ///
    /// # Errors
    /// A pattern is no glob.
    pub fn new(select: &Select, ready: &ReadyRules) -> Result<Self, PatternError> {
        let compiled = |globs: &[String]| {
            globs.iter().map(|glob| Glob::new(glob)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            include: compiled(&select.include)?,
            exclude: compiled(&select.exclude)?,
            temporary: compiled(&select.temp_names)?,
            marker: ready.done_marker.as_deref().and_then(Marker::new),
        })
    }

    /// The name of the done-marker of a file, where the route has markers.
    #[must_use]
    pub fn marker_of(&self, name: &OsStr) -> Option<OsString> {
        self.marker.as_ref().map(|marker| marker.of(name))
    }

    fn judge(&self, name: &str) -> Option<Reason> {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        if any(&self.temporary) {
            Some(Reason::Temporary)
        } else if self.marker.as_ref().is_some_and(|marker| marker.fits(name)) {
            Some(Reason::Marker)
        } else if !any(&self.include) || any(&self.exclude) {
            Some(Reason::Ignored)
        } else {
            None
        }
    }
}

impl Marker {
    fn new(pattern: &str) -> Option<Self> {
        let (part, of_stem) =
            if pattern.contains("{stem}") { ("{stem}", true) } else { ("{name}", false) };
        let (before, after) = pattern.split_once(part)?;
        Some(Self { before: before.to_owned(), after: after.to_owned(), of_stem })
    }

    fn of(&self, name: &OsStr) -> OsString {
        let middle = if self.of_stem {
            std::path::Path::new(name).file_stem().unwrap_or(name)
        } else {
            name
        };
        let mut marker = OsString::from(&self.before);
        marker.push(middle);
        marker.push(&self.after);
        marker
    }

    fn fits(&self, name: &str) -> bool {
        name.len() > self.before.len() + self.after.len()
            && name.starts_with(&self.before)
            && name.ends_with(&self.after)
    }
}

/// Whose a sighting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sorted {
    /// A candidate of the selector with this index.
    Candidate(usize),
    /// It stays, for this reason.
    Left(Reason),
    /// One of the folders that patchdrop itself keeps: not counted.
    Ours,
}

/// Sorts one sighting in a drop folder that one or more routes share. `is_ours` knows the names of
/// patchdrop's own folders there.
#[must_use]
pub fn sort(
    sighting: &Sighting,
    selectors: &[&Selector],
    is_ours: impl Fn(&OsString) -> bool,
) -> Sorted {
    match sighting.kind {
        Kind::Folder if is_ours(&sighting.name) => return Sorted::Ours,
        Kind::Folder => return Sorted::Left(Reason::Subfolder),
        Kind::Link => return Sorted::Left(Reason::Link),
        Kind::Special => return Sorted::Left(Reason::Special),
        Kind::Unknown => return Sorted::Left(Reason::Unreadable),
        Kind::File => {}
    }
    let name = sighting.name.to_string_lossy();
    // A copy under way of ours, or what somebody named like one.
    if begins(&name, ".patchdrop-") {
        return Sorted::Left(Reason::Temporary);
    }
    if SIDECAR_ENDINGS.iter().any(|ending| ends(&name, ending)) {
        return Sorted::Left(Reason::Sidecar);
    }
    let mut wanted = None;
    let mut left = Reason::Ignored;
    for (index, selector) in selectors.iter().enumerate() {
        match (selector.judge(&name), wanted) {
            (None, None) => wanted = Some(index),
            (None, Some(_)) => return Sorted::Left(Reason::TwoRoutes),
            (Some(Reason::Ignored), _) => {}
            (Some(reason), _) => left = reason,
        }
    }
    wanted.map_or(Sorted::Left(left), Sorted::Candidate)
}

/// Whether a file waits for a person because it was old when its route was first swept: its change
/// time is not after that sweep, and its mtime is older than `max_age` before it.
#[must_use]
pub fn is_older_than_first_sweep(
    sighting: &Sighting,
    first_sweep_at: Wall,
    rules: &ReadyRules,
) -> bool {
    let Some(max_age) = rules.first_sweep_max_age else { return false };
    let mtime = Wall(sighting.identity.mtime_ns / 1_000_000);
    sighting.changed_at <= first_sweep_at && mtime.plus(max_age) < first_sweep_at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::file::Identity;
    use std::time::Duration;

    fn rules(marker: Option<&str>) -> ReadyRules {
        ReadyRules {
            quiet_for: Duration::from_secs(1),
            truncated_after: Duration::from_secs(30),
            done_marker: marker.map(str::to_owned),
            first_sweep_max_age: Some(Duration::from_hours(24)),
        }
    }

    fn selector(include: &[&str], exclude: &[&str], marker: Option<&str>) -> Selector {
        let own = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let temp = own(&[".*", "*.tmp", "*.part", "*.filepart", "~*", "*~"]);
        let select = Select { include: own(include), exclude: own(exclude), temp_names: temp };
        Selector::new(&select, &rules(marker)).unwrap()
    }

    /// The quick ways say what the general matcher says.
    fn check_glob(glob: &str, name: &str) {
        let quick = Glob::new(glob).unwrap();
        let expected = Pattern::new(glob).unwrap().matches_with(name, CASE_INSENSITIVE);
        assert_eq!(quick.matches(name), expected, "{glob} and {name}");
    }

    #[test]
    fn a_glob_says_the_same_whichever_way_it_is_told() {
        let globs = [
            "*.json", "*", "**", ".*", "~*", "*~", "*.", "a*", "*a*", "?", "*.j[s]on", "*\u{fc}",
            "\u{fc}*", "*.JSON", "[*]x", "*\\a", "a\\*", "*ab", "ab*", "**/*.x",
        ];
        let names = [
            "a.json",
            "A.JSON",
            "a.jsonx",
            "json",
            ".json",
            ".",
            "~",
            "~a",
            "a~",
            "",
            "a",
            "A",
            "x",
            "\u{fc}",
            "\u{dc}",
            "a\u{fc}",
            "\u{212a}.json",
            "*x",
            "ab",
            "AB",
            "aB c",
            "\\a",
            "a\\",
            "b",
            "a.x",
        ];
        for glob in globs {
            if Pattern::new(glob).is_ok() {
                for name in names {
                    check_glob(glob, name);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_beginning_and_an_ending_are_told_as_by_the_general_matcher(
            part in "[ -~&&[^*?\\[\\]]]{0,4}", name in "[ab.~\u{e4}A-C]{0,6}",
        ) {
            check_glob(&format!("*{part}"), &name);
            check_glob(&format!("{part}*"), &name);
            check_glob(&format!("*{part}"), &format!("{name}{part}"));
            check_glob(&format!("{part}*"), &format!("{part}{name}").to_uppercase());
        }
    }

    fn sighting(name: &str, kind: Kind) -> Sighting {
        let identity = Identity { volume: 1, number: 1, size: 1, mtime_ns: 0 };
        Sighting { name: name.into(), kind, identity, changed_at: Wall(0) }
    }

    /// Where a name goes in a folder with one route, whose own folders are `sending` and `sent`.
    fn check_with(selector: &Selector, name: &str, kind: Kind, expected: Sorted) {
        let ours = |name: &OsString| name == "sending" || name == "sent";
        assert_eq!(sort(&sighting(name, kind), &[selector], ours), expected, "{name}");
    }

    #[test]
    fn each_name_is_a_candidate_or_left_for_a_reason() {
        let json = selector(&["*.json"], &["draft*"], Some("{name}.done"));
        let check = |name: &str, kind, expected| check_with(&json, name, kind, expected);
        check("a.json", Kind::File, Sorted::Candidate(0));
        check("A.JSON", Kind::File, Sorted::Candidate(0));
        check("a.xml", Kind::File, Sorted::Left(Reason::Ignored));
        check("Draft1.json", Kind::File, Sorted::Left(Reason::Ignored));
        check("a.json.tmp", Kind::File, Sorted::Left(Reason::Temporary));
        check(".a.json", Kind::File, Sorted::Left(Reason::Temporary));
        check("a.json.done", Kind::File, Sorted::Left(Reason::Marker));
        check("a.json.why.txt", Kind::File, Sorted::Left(Reason::Sidecar));
        check("a.json.receipt.json", Kind::File, Sorted::Left(Reason::Sidecar));
        check("a.json", Kind::Folder, Sorted::Left(Reason::Subfolder));
        check("a.json", Kind::Link, Sorted::Left(Reason::Link));
        check("a.json", Kind::Special, Sorted::Left(Reason::Special));
        check("sending", Kind::Folder, Sorted::Ours);
        check("a\nb.json", Kind::File, Sorted::Candidate(0));
    }

    #[test]
    fn what_is_no_drop_stays_even_where_every_name_is_included() {
        let all = selector(&["*"], &[], Some("{name}.done"));
        let file = |name: &str, expected| check_with(&all, name, Kind::File, expected);
        let folder = |name: &str, expected| check_with(&all, name, Kind::Folder, expected);
        file("scan.pdf", Sorted::Candidate(0));
        file("README", Sorted::Candidate(0));
        file("a.why.txt.pdf", Sorted::Candidate(0));
        file("scan.pdf.why.txt", Sorted::Left(Reason::Sidecar));
        file("scan~2.pdf.WHY.TXT", Sorted::Left(Reason::Sidecar));
        file("scan.pdf.receipt.json", Sorted::Left(Reason::Sidecar));
        file("scan.pdf.part", Sorted::Left(Reason::Temporary));
        file(".scan.pdf", Sorted::Left(Reason::Temporary));
        file("scan.pdf.done", Sorted::Left(Reason::Marker));
        file(".patchdrop-new", Sorted::Left(Reason::Temporary));
        folder("sending", Sorted::Ours);
        folder("sent", Sorted::Ours);
        folder("other", Sorted::Left(Reason::Subfolder));
    }

    #[test]
    fn a_reason_is_known_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.name()), Some(reason));
        }
        assert_eq!(Reason::parse("folder"), None);
    }

    #[test]
    fn a_file_that_two_routes_want_stays() {
        let orders = selector(&["order*.json"], &[], None);
        let all = selector(&["*.json"], &[], None);
        let both = [&orders, &all];
        let check = |name: &str, expected: Sorted| {
            assert_eq!(sort(&sighting(name, Kind::File), &both, |_| false), expected, "{name}");
        };
        check("order1.json", Sorted::Left(Reason::TwoRoutes));
        check("stock.json", Sorted::Candidate(1));
        check("stock.csv", Sorted::Left(Reason::Ignored));
    }

    #[test]
    fn a_marker_is_named_after_the_file_or_its_stem() {
        let check = |pattern: &str, expected: &str| {
            let selector = selector(&["*.json"], &[], Some(pattern));
            assert_eq!(selector.marker_of(OsStr::new("a.json")).unwrap(), expected);
        };
        check("{name}.done", "a.json.done");
        check("{stem}.ok", "a.ok");
        check("ready-{stem}", "ready-a");
    }

    #[test]
    fn only_a_file_old_at_the_first_sweep_waits_for_a_person() {
        let day_ms = 86_400_000;
        let first = Wall(10 * day_ms);
        let check = |changed_at: i64, mtime: i64, expected: bool| {
            let mut seen = sighting("a.json", Kind::File);
            seen.changed_at = Wall(changed_at);
            seen.identity.mtime_ns = mtime * 1_000_000;
            assert_eq!(is_older_than_first_sweep(&seen, first, &rules(None)), expected);
        };
        check(8 * day_ms, 8 * day_ms, true);
        check(10 * day_ms, 9 * day_ms - 1, true);
        check(10 * day_ms, 9 * day_ms, false);
        check(10 * day_ms + 1, 0, false);
    }
}
