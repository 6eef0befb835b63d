//! The pass over a file takes constant memory (promise P10), whatever the file. A binary of its
//! own with a single test, because its allocator counts everything that the program allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use patchdrop::journey::validate::{Checked, Checker, Findings, body_reader};
use patchdrop::model::route::{CheckRules, Encoding, Format, RouteName};

/// Counts what is allocated, and the most that ever was since the last look.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator that counts is written no other way")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A file that exists nowhere: a beginning, a part repeated, an end.
struct Generated {
    start: &'static [u8],
    part: &'static [u8],
    times: usize,
    end: &'static [u8],
    /// How much of the current piece has been read.
    at: usize,
    stage: usize,
}

impl Generated {
    fn size(&self) -> u64 {
        (self.start.len() + self.part.len() * self.times + self.end.len()) as u64
    }

    fn rewound(&self) -> Self {
        Self { at: 0, stage: 0, ..*self }
    }
}

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.stage <= self.times + 1 {
            let piece = match self.stage {
                0 => self.start,
                stage if stage <= self.times => self.part,
                _ => self.end,
            };
            let rest = &piece[self.at..];
            let length = rest.len().min(buffer.len() - filled);
            buffer[filled..filled + length].copy_from_slice(&rest[..length]);
            filled += length;
            self.at += length;
            if self.at == piece.len() {
                (self.at, self.stage) = (0, self.stage + 1);
            }
        }
        Ok(filled)
    }
}

/// What a pass over the file, and reading its body again, took in memory at most.
fn measure(rules: &CheckRules, file: &Generated) -> (Findings, usize) {
    let checker = Checker::new(rules).expect("no schema");
    let route = RouteName::new("orders");
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let findings = checker.validate(&route, &mut file.rewound(), file.size(), 64 * 1024);
    if let Checked::Sound { envelope, .. } = &findings.result {
        let mut body = body_reader(file.rewound(), envelope.conversion);
        let mut buffer = [0; 4096];
        let mut bytes = 0;
        loop {
            match body.read(&mut buffer).expect("it was read before") {
                0 => break,
                length => bytes += length as u64,
            }
        }
        assert_eq!(bytes, envelope.bytes);
    }
    (findings, PEAK.load(Ordering::Relaxed) - before)
}

/// `times` is so chosen that a file has 2 MB or more.
fn check(
    what: &str,
    encoding: Encoding,
    (start, part, end): (&'static [u8], &'static [u8], &'static [u8]),
    code: Option<&str>,
    peak_max: usize,
) {
    let times = 2_000_000 / part.len();
    let file = Generated { start, part, times, end, at: 0, stage: 0 };
    let rules = CheckRules {
        format: Format::Json,
        max_depth: 10_000,
        strict: false,
        schema: None,
        schema_max_bytes: 8_000_000,
        encoding,
        body_max_bytes: None,
    };
    let (findings, peak) = measure(&rules, &file);
    let found = match &findings.result {
        Checked::Sound { .. } => None,
        Checked::Truncated(fault) | Checked::Faulty(fault) => Some(fault.cause.code.to_string()),
        Checked::Unread(error) => panic!("{what}: {error}"),
    };
    assert_eq!(found.as_deref(), code, "{what}: {findings:?}");
    assert_eq!(findings.read_bytes, file.size(), "{what}");
    assert!(peak < peak_max, "{what} took {peak} bytes");
}

#[test]
fn memory_does_not_grow_with_a_file() {
    const SMALL: usize = 512 * 1024;
    let auto = |what, parts, code| check(what, Encoding::Auto, parts, code, SMALL);
    let row: &[u8] = b"{\"number\": 12345, \"name\": \"a rather long name, and another\"},\n";
    auto("many rows", (b"[", row, b"0]"), None);
    auto("one string", (b"\"", b"abcdefgh", b"\""), None);
    auto("one key", (b"{\"", b"abcdefgh", b"\": 1}"), None);
    auto("one number", (b"[0.", b"12345678", b"]"), None);
    auto("white space", (b"", b"  \n     ", b"[]"), None);
    auto("nesting", (b"", b"[[[[[[[[", b""), Some("too-deep"));
    auto("a fault at once", (b"[x", b"abcdefgh", b"]"), Some("not-json"));
    auto("a fault at the end", (b"[", row, b"]"), Some("not-json"));
    auto("nothing but NUL bytes", (b"", b"\0\0\0\0\0\0\0\0", b""), Some("truncated"));
    auto("one line break a byte", (b"", b"\n\n\n\n\n\n\n\n", b""), Some("empty"));
    auto("the same key", (b"{", b"\"a\":1,", b"\"a\":1}"), None);
    auto("UTF-16", (b"\xff\xfe[\0", b"1\x000\0,\0 \0", b"1\0]\0"), None);
    let western = (&b"[\""[..], &b"\xfc\x80bcdefg"[..], &b"\"]"[..]);
    check("windows-1252", Encoding::Windows1252, western, None, SMALL);
    // Here memory does grow, up to the bound on keys that are compared.
    many_keys();
}

/// A flat object with 300,000 different keys.
struct Keys {
    next: u32,
    rest: Vec<u8>,
}

impl Read for Keys {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && self.next <= 300_000 {
            self.rest = match self.next {
                0 => b"{\"0\":0".to_vec(),
                300_000 => b"}".to_vec(),
                key => format!(",\"{key}\":0").into_bytes(),
            };
            self.next += 1;
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        Ok(length)
    }
}

fn many_keys() {
    let rules = CheckRules {
        format: Format::Json,
        max_depth: 512,
        strict: true,
        schema: None,
        schema_max_bytes: 0,
        encoding: Encoding::Auto,
        body_max_bytes: None,
    };
    let checker = Checker::new(&rules).expect("no schema");
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut keys = Keys { next: 0, rest: Vec::new() };
    let findings = checker.validate(&RouteName::new("orders"), &mut keys, 3_600_000, 0);
    let Checked::Sound { envelope, .. } = findings.result else { panic!("{findings:?}") };
    assert_eq!(envelope.remarks.len(), 1, "{:?}", envelope.remarks);
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert!(peak < 1024 * 1024, "many keys took {peak} bytes");
}
