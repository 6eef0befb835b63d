//! The pass over a file takes constant memory (promise P10), whatever the file. A binary of its
//! own with a single test, because its allocator counts everything that the program allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use patchdrop::journey::validate::{Checked, Checker, Findings, body_reader};
use patchdrop::model::route::{CheckRules, Encoding, Format, RouteName};
use patchdrop::model::step::Wrap;

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
        let mut body = body_reader(file.rewound(), envelope.conversion, envelope.wrap);
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

fn rules(format: Format) -> CheckRules {
    CheckRules {
        format,
        max_depth: 10_000,
        strict: false,
        schema: None,
        schema_max_bytes: 8_000_000,
        encoding: Encoding::Auto,
        wrap: None,
        body_max_bytes: None,
    }
}

/// `times` is so chosen that a file has 2 MB or more.
fn check(
    what: &str,
    rules: &CheckRules,
    (start, part, end): (&'static [u8], &'static [u8], &'static [u8]),
    code: Option<&str>,
    peak_max: usize,
) {
    let times = 2_000_000 / part.len();
    let file = Generated { start, part, times, end, at: 0, stage: 0 };
    let (findings, peak) = measure(rules, &file);
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
    let auto = |what, parts, code| check(what, &rules(Format::Json), parts, code, SMALL);
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
    let narrow = CheckRules { encoding: Encoding::Windows1252, ..rules(Format::Json) };
    check("windows-1252", &narrow, western, None, SMALL);
    let wrapped = CheckRules { wrap: Some(Wrap::Payload), ..rules(Format::Json) };
    check("rows in an envelope", &wrapped, (b"[", row, b"0]"), None, SMALL);
    other_formats(SMALL);
    xml(SMALL);
    // Here memory does grow, up to the bound on keys that are compared.
    many_keys();
}

fn other_formats(small: usize) {
    for format in [Format::Text, Format::Binary] {
        let rules = rules(format);
        check("lines", &rules, (b"", b"a line of a text\n", b""), None, small);
        check("one line", &rules, (b"", b"a line of", b"\n"), None, small);
    }
    let wrapped = CheckRules { wrap: Some(Wrap::Payload), ..rules(Format::Text) };
    check("escapes alone", &wrapped, (b"x", b"\x01\x02\x03\x04", b"x"), None, small);
    let wide = (&b"\xff\xfe"[..], &b"\"\0\xfc\0"[..], &b"x\0"[..]);
    check("UTF-16 in an envelope", &wrapped, wide, None, small);
    let reserved = (&b"x"[..], &b"\0\0\0\0\0\0\0\0"[..], &b""[..]);
    check("NUL bytes behind a text", &rules(Format::Text), reserved, Some("truncated"), small);
}

fn xml(small: usize) {
    let rules = rules(Format::Xml);
    let xml = |what, parts, code| check(what, &rules, parts, code, small);
    let row: &[u8] = b"<row number=\"1\" name='2'>a text &amp; more<!-- c --></row>\n";
    xml("many elements", (b"<a>", row, b"</a>"), None);
    xml("one text", (b"<a>", b"abcdefg\n", b"</a>"), None);
    xml("references", (b"<a>", b"&lt;&#9;", b"</a>"), None);
    xml("white space", (b"", b"  \n     ", b"<a/>"), None);
    xml("comments", (b"", b"<!-- a comment -->", b"<a/>"), None);
    xml("nothing", (b"", b"  \n     ", b""), Some("empty"));
    xml("a fault at once", (b"<a>&</a>", b"<b/>abcd", b""), Some("not-xml"));
    xml("a fault at the end", (b"<a>", row, b"</b>"), Some("not-xml"));
    xml("NUL bytes", (b"<a>", b"\0\0\0\0\0\0\0\0", b""), Some("truncated"));
    xml("UTF-16", (b"\xff\xfe<\0a\0>\0", b"x\0<\0b\0/\0>\0", b"<\0/\0a\0>\0"), None);
    let western: (&[u8], &[u8], &[u8]) =
        (b"<?xml version='1.0' encoding='windows-1252'?><a>", b"\xfc\x80<b/>", b"</a>");
    xml("windows-1252", western, None);
    let wrapped = CheckRules { wrap: Some(Wrap::Payload), ..rules.clone() };
    check("elements in an envelope", &wrapped, (b"<a>", row, b"</a>"), None, small);
    // These are held: the names of open elements, and a single token.
    let nested = (&b""[..], &b"<nested>"[..], &b""[..]);
    check("nesting", &rules, nested, Some("too-deep"), 3 * small);
    let tag = (&b"<a"[..], &b" b='1234'"[..], &b"/>"[..]);
    check("one tag", &rules, tag, Some("not-xml"), 20 * small);
    let comment = (&b"<!--"[..], &b"a comment"[..], &b"--><a/>"[..]);
    check("one comment", &rules, comment, None, 10 * small);
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
    let rules = CheckRules { strict: true, ..rules(Format::Json) };
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
