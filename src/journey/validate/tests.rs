//! Claims about the whole pass, as tables.

use std::io::{Cursor, Error, ErrorKind};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod formats;
mod xml;

const SECRET: &str = "Wolkenkuckucksheim";

fn rules() -> CheckRules {
    CheckRules {
        format: Format::Json,
        max_depth: 512,
        strict: false,
        schema: None,
        schema_max_bytes: 8_000_000,
        encoding: Encoding::Auto,
        wrap: None,
        body_max_bytes: None,
    }
}

fn strict() -> CheckRules {
    CheckRules { strict: true, ..rules() }
}

fn in_encoding(encoding: Encoding) -> CheckRules {
    CheckRules { encoding, ..rules() }
}

fn with_schema(schema: Value) -> CheckRules {
    CheckRules { schema: Some(Arc::new(schema)), ..rules() }
}

fn orders() -> RouteName {
    RouteName::new("orders")
}

/// Yields a file in small pieces of different lengths.
struct Trickle<'a> {
    rest: &'a [u8],
    lengths: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl<'a> Trickle<'a> {
    fn new(rest: &'a [u8], lengths: &[usize]) -> Self {
        let lengths: Vec<usize> = lengths.into();
        Self { rest, lengths: lengths.into_iter().cycle() }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.lengths.next().unwrap_or(1).min(buffer.len()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.rest = later;
        Ok(length)
    }
}

fn pass(rules: &CheckRules, file: &[u8], block_bytes: usize) -> Findings {
    let checker = Checker::new(rules).unwrap();
    let mut input = Trickle::new(file, &[1, 2, 7, 100]);
    checker.in_blocks(&orders(), &mut input, file.len() as u64, usize::MAX, block_bytes)
}

fn utf16(text: &str, bytes_of: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes_of).collect()
}

/// The fault of a file, the same for every length of blocks, and without content in its words.
fn fault(rules: &CheckRules, file: &[u8]) -> (bool, Fault) {
    let mut faults = [BLOCK_BYTES, 16, 17, 23].map(|block_bytes| {
        let findings = pass(rules, file, block_bytes);
        assert_eq!(findings.digest, Some(Digest(Sha256::digest(file).into())));
        assert_eq!(findings.read_bytes, file.len() as u64);
        let (may_grow, fault) = match findings.result {
            Checked::Truncated(fault) => (true, fault),
            Checked::Faulty(fault) => (false, fault),
            other @ (Checked::Sound { .. } | Checked::Unread(_)) => {
                panic!("{} is {other:?}", String::from_utf8_lossy(file))
            }
        };
        assert!(!format!("{} {}", fault.cause.plain, fault.remedy).contains(SECRET));
        assert!(fault.remedy.ends_with('.') && !fault.cause.plain.ends_with('.'), "{fault:?}");
        let excerpt = fault.cause.excerpt.clone().unwrap_or_default();
        assert!(excerpt.chars().count() <= 80 && !excerpt.chars().any(char::is_control));
        (may_grow, fault)
    });
    let [whole, cut @ ..] = &mut faults;
    for (may_grow, fault) in cut {
        assert_eq!(
            (*may_grow, &fault.cause.code, &fault.cause.plain),
            (whole.0, &whole.1.cause.code, &whole.1.cause.plain)
        );
    }
    whole.clone()
}

/// A faulty file: its code, and what its plain sentence says.
fn check_fault(rules: &CheckRules, file: impl AsRef<[u8]>, code: &str, says: &str) {
    let (may_grow, fault) = fault(rules, file.as_ref());
    let shown = String::from_utf8_lossy(file.as_ref()).into_owned();
    assert_eq!(fault.cause.code.0, code, "{shown}: {fault:?}");
    assert!(fault.cause.plain.contains(says), "{shown}: {fault:?}");
    assert_eq!(may_grow, matches!(code, "empty" | "truncated"), "{shown}: {fault:?}");
}

/// A sound file: its body, and the remarks on record.
fn check_sound(
    rules: &CheckRules,
    file: &[u8],
    body: &[u8],
    conversion: Option<Conversion>,
) -> Vec<String> {
    let mut remarks = Vec::new();
    for block_bytes in [BLOCK_BYTES, 16, 17, 23] {
        let findings = pass(rules, file, block_bytes);
        assert_eq!(findings.digest, Some(Digest(Sha256::digest(file).into())));
        let Checked::Sound { envelope, body: kept } = findings.result else {
            panic!("{}: {:?}", String::from_utf8_lossy(file), findings.result);
        };
        assert_eq!(kept.as_deref(), Some(body));
        assert_eq!(envelope.digest, Digest(Sha256::digest(body).into()));
        assert_eq!((envelope.bytes, envelope.conversion), (body.len() as u64, conversion));
        assert_eq!(envelope.wrap, rules.wrap);
        remarks = envelope.remarks;
    }
    for lengths in [&[1][..], &[3, 1], &[100_000]] {
        let mut again = Vec::new();
        let mut reader = body_reader(Trickle::new(file, lengths), conversion, rules.wrap);
        let mut buffer = [0; 100];
        for length in [1, 2, 3, 5, 100].into_iter().cycle() {
            let read = reader.read(&mut buffer[..length]).unwrap();
            if read == 0 {
                break;
            }
            again.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(again, body);
    }
    remarks
}

#[test]
fn what_json_forbids_is_refused_in_words_of_its_own() {
    for (file, says) in [
        ("[NaN]", "NaN, which JSON does not have, at line 1, column 2"),
        ("[-Infinity]", "Infinity, which JSON does not have, at line 1, column 3"),
        ("[Infinity]", "Infinity, which JSON does not have, at line 1, column 2"),
        ("[undefined]", "undefined, which"),
        ("[True]", "True, which JSON writes true, at"),
        ("{\"a\":None}", "None, which JSON writes null, at line 1, column 6"),
        ("[01]", "a number with a leading zero at line 1, column 3"),
        ("[-01]", "a leading zero"),
        ("[0x1f]", "a hexadecimal number"),
        ("[+1]", "a plus sign"),
        ("[.5]", "without a digit before its point"),
        ("[1.]", "without a digit after its point"),
        ("[1e]", "without a digit in its exponent"),
        ("[1e+]", "without a digit in its exponent"),
        ("[-]", "a minus without a digit"),
        ("[1,]", "trailing comma) at line 1, column 4"),
        ("{\"a\":1,\n}", "trailing comma) at line 2, column 1"),
        ("[,1]", "a comma with nothing before it"),
        ("{,}", "a comma with nothing before it"),
        ("[1 2]", "a comma is missing between two values"),
        ("{\"a\":1 \"b\":2}", "a comma is missing"),
        ("{\"a\" 1}", "a key without a colon"),
        ("{\"a\":}", "a key without a value"),
        ("{a:1}", "a key without double quotes at line 1, column 2"),
        ("{1:1}", "a key without double quotes"),
        ("{'a':1}", "a single quote where JSON has double quotes"),
        ("['a']", "a single quote"),
        ("// x\n[]", "a comment"),
        ("[1, /* x */ 2]", "a comment, which JSON does not have, at line 1, column 5"),
        ("# x\n[]", "a comment"),
        ("[1}", "a } that closes an array"),
        ("{\"a\":1]", "a ] that closes an object"),
        ("{]", "a ] that closes an object"),
        ("]", "something that begins no value at line 1, column 1"),
        ("[tru]", "a word other than true, false and null at line 1, column 5"),
        ("[nulL]", "a word other than"),
        ("[truest]", "something other than a comma"),
        ("hello", "text without quotes"),
        ("<html></html>", "markup such as HTML or XML"),
        ("[\"\\x\"]", "a backslash before a character that needs none"),
        ("[\"\\u12G4\"]", "without four hexadecimal digits at line 1, column 7"),
        ("[“a”]", "typographic quotes"),
        ("[\u{a0}1]", "a character outside ASCII"),
        ("[1, \u{feff}2]", "a byte order mark that is not at the beginning"),
        ("[1,\0 2]", "a NUL byte"),
        ("{\"a\":1:2}", "a colon that belongs to no key"),
    ] {
        // A sign of several letters may be cut by a block, so no small blocks here.
        let findings = pass(&rules(), file.as_bytes(), BLOCK_BYTES);
        let Checked::Faulty(fault) = findings.result else { panic!("{file}: {findings:?}") };
        assert_eq!(fault.cause.code.0, "not-json", "{file}");
        assert!(fault.cause.plain.contains(says), "{file}: {}", fault.cause.plain);
    }
}

#[test]
fn each_code_is_reached_and_names_the_place() {
    let check = |file: &[u8], code, says| check_fault(&rules(), file, code, says);
    check(b"", "empty", "truncated_after");
    check(b" \r\n\t ", "empty", "the file is empty");
    check(b"{\"a\":[1,\n 2", "truncated", "line 2, column 3, 2 arrays and objects are open");
    check(b"[", "truncated", "line 1, column 2, one array or object is open");
    check(b"\"ab", "truncated", "line 1, column 4");
    check(b"-", "truncated", "");
    check(b"tru", "truncated", "");
    check(b"[\"\xc3", "truncated", "line 1, column 3");
    check(b"\xef", "truncated", "line 1, column 1");
    check(b"\xef\xbb", "truncated", "");
    check(b"\xff", "truncated", "");
    check(b"\xef\xbb\xbf", "empty", "");
    check(b"\xff\xfe", "empty", "");
    check(b"{}\xc3", "invalid-utf8", "byte C3 at line 1, column 3 is not UTF-8");
    check(b"{} x", "trailing-content", "line 1, column 4");
    check(b"{}]", "trailing-content", "line 1, column 3");
    check(b"{}\nabc", "trailing-content", "line 2, column 1");
    check(b"{\"a\":1}\n{\"a\":2}\n", "several-documents", "begins at line 2, column 1");
    check(b"[][]", "several-documents", "line 1, column 3");
    check(b"1\n2\n", "several-documents", "line 2, column 1");
    check(b"\"a\" \"b\"", "trailing-content", "");
    check(b"[\"a\nb\"]", "control-character", "a raw line break in a string at line 1, column 4");
    check(b"[\"a\tb\"]", "control-character", "a raw tab in a string");
    check(b"{\"a\x01\":1}", "control-character", "control character 01 in a string");
    check(b"[\"\xff\"]", "invalid-utf8", "byte FF at line 1, column 3 looks like ");
    check(b"[\"a\xe4b\"]", "invalid-utf8", "byte E4 at line 1, column 4");
    check(b"[\"\x81\"]", "invalid-utf8", "byte 81 at line 1, column 3 is not UTF-8");
    check(b"[\xe4]", "invalid-utf8", "byte E4 at line 1, column 2 is not UTF-8");
    check(b"[\"\xc0\xaf\"]", "invalid-utf8", "byte C0");
    check(b"[\"\xe0\x80\xaf\"]", "invalid-utf8", "byte E0");
    check(b"[\"\xed\xa0\x80\"]", "invalid-utf8", "byte ED");
    check(b"[\"\xf4\x90\x80\x80\"]", "invalid-utf8", "byte F4");
    check(b"\xff\xfe\0\0[\0\0\0", "wrong-encoding", "UTF-32");
    check(b"\0\0\xfe\xff\0\0\0[", "wrong-encoding", "UTF-32");
    check(b"[\0\0\0]\0\0\0", "wrong-encoding", "UTF-32");
    check(b"[\0]\0", "wrong-encoding", "set encoding = 'utf-16' for route orders");
    check(b"\0[\0]", "wrong-encoding", "big-endian UTF-16 without a byte order mark");
}

#[test]
fn a_byte_that_looks_like_windows_1252_is_said_so() {
    let file = b"{\n \"order\": 1,\n  \"name\": \"M\xc3\xa4rz f\xfcr\"}";
    let (_, fault) = fault(&rules(), file);
    assert_eq!(
        fault.cause.plain,
        "byte FC at line 3, column 18 looks like \u{fc} in windows-1252; set encoding = \
         'windows-1252' for route orders"
    );
    assert_eq!(
        fault.cause.excerpt.unwrap(),
        "{\\n \"order\": 1,\\n  \"name\": \"M\u{e4}rz f▸\\xfcr\"}"
    );
}

#[test]
fn a_route_is_told_when_its_encoding_does_not_fit() {
    let check = |encoding, file: &[u8], code, says| {
        check_fault(&in_encoding(encoding), file, code, says);
    };
    check(
        Encoding::Utf8,
        b"\xef\xbb\xbf[]",
        "bom-refused",
        "byte order mark, which route orders refuses",
    );
    check(Encoding::Utf8, b"\xff\xfe[\0]\0", "wrong-encoding", "UTF-16 byte order mark");
    check(Encoding::Utf16, b"\xef\xbb\xbf[]", "wrong-encoding", "UTF-8 byte order mark");
    check(Encoding::Utf16, b"[1]", "wrong-encoding", "does not look like UTF-16");
    check(Encoding::Utf16, b"\0[\0]", "wrong-encoding", "big-endian");
    check(Encoding::Utf16, b"[", "truncated", "(byte offset 0)");
    check(Encoding::Windows1252, b"\xef\xbb\xbf[]", "wrong-encoding", "UTF-8 byte order mark");
    check(Encoding::Windows1252, b"\xff\xfe[\0]\0", "wrong-encoding", "UTF-16 byte order mark");
    check(
        Encoding::Windows1252,
        b"[\"\xfc\x80\x8d\"]",
        "wrong-encoding",
        "byte 8D at line 1, column 5 (byte offset 4)",
    );
    check(
        Encoding::Windows1252,
        b"[\"\xfc\x80\", x]",
        "not-json",
        "line 1, column 8 (byte offset 7)",
    );
}

#[test]
fn utf_16_that_stands_for_no_text_is_refused_and_not_replaced() {
    let marked = |text: &[u8]| [b"\xff\xfe", text].concat();
    let check = |text: &[u8], code, says| check_fault(&rules(), marked(text), code, says);
    check(b"[\0\"\0\x3d\xd8\"\0]\0", "invalid-utf16", "line 1, column 3 (byte offset 6)");
    check(b"[\0\"\0\x00\xdc\"\0]\0", "invalid-utf16", "line 1, column 3 (byte offset 6)");
    check(b"[\0\"\0\x3d\xd8", "truncated", "");
    check(b"[\0]\0\0", "truncated", "");
    check(b"[\0]", "truncated", "");
    let long = utf16("[\"\u{1f600}\u{e4}\",\n x]", u16::to_le_bytes);
    check(&long, "not-json", "line 2, column 2 (byte offset 20)");
}

#[test]
fn sound_files_are_converted_and_sent_as_hashed() {
    let text = "{\"näme\": [\"😀€\", 1.5e3, true, null, -0, \"\\ud83d\\ude00\"]}\n";
    let body = text.as_bytes();
    let check = |encoding, file: &[u8], body: &[u8], conversion| {
        assert_eq!(check_sound(&in_encoding(encoding), file, body, conversion), [""; 0]);
    };
    check(Encoding::Auto, body, body, None);
    check(Encoding::Utf8, body, body, None);
    let marked = [b"\xef\xbb\xbf", body].concat();
    check(Encoding::Auto, &marked, body, Some(Conversion::Utf8BomDropped));
    let little = utf16(text, u16::to_le_bytes);
    check(Encoding::Utf16, &little, body, Some(Conversion::Utf16Le));
    let marked = [b"\xff\xfe", little.as_slice()].concat();
    check(Encoding::Auto, &marked, body, Some(Conversion::Utf16Le));
    check(Encoding::Utf16, &marked, body, Some(Conversion::Utf16Le));
    let big = [b"\xfe\xff", utf16(text, u16::to_be_bytes).as_slice()].concat();
    check(Encoding::Auto, &big, body, Some(Conversion::Utf16Be));
    check(Encoding::Utf16, &big, body, Some(Conversion::Utf16Be));
    let (western, body) = (b"[\"f\xfcr 5 \x80\"]", "[\"für 5 €\"]".as_bytes());
    check(Encoding::Windows1252, western, body, Some(Conversion::Windows1252));
    for scalar in ["0", "-1.5E-7", "\"\"", "true", "false", "null", " [ ] ", "{ }\r\n", "1e999"] {
        let rules = in_encoding(Encoding::Auto);
        check_sound(&rules, scalar.as_bytes(), scalar.as_bytes(), None);
    }
}

#[test]
fn utf_8_on_a_route_for_windows_1252_is_remarked() {
    let check = |file: &[u8], is_remarked: bool| {
        for block_bytes in [BLOCK_BYTES, 16, 17, 18, 19] {
            let findings = pass(&in_encoding(Encoding::Windows1252), file, block_bytes);
            let Checked::Sound { envelope, .. } = findings.result else { panic!("{findings:?}") };
            let remarked = envelope.remarks.iter().any(|remark| remark.contains("UTF-8 too"));
            assert_eq!(remarked, is_remarked, "{:?}", envelope.remarks);
        }
    };
    check("[\"12345678901ä€üxxxxxxxxxxx\", \"ß\", 1234567]".as_bytes(), true);
    check(b"[\"nothing beyond ASCII, and quite long\"]", false);
    check(b"[\"f\xfcr, and quite a long text after it\"]", false);
    check(b"[\"\xc3\xa4 and then, quite a bit later, \xe4\"]", false);
    check(b"[\"123456789012\xe4\", 1]", false);
}

#[test]
fn a_document_cut_anywhere_is_truncated_and_nothing_else() {
    let text = "{\"ä\\u00e4\\ud83d\\ude00\": [1, -2.5e+10, true, false, null, \"😀\"], \"b\": {\"c\": []},\n\
                \"d\": \"€ x\"}";
    let array = "[[], [{}], \"abc\", 0]";
    let with_mark = |mark: &[u8], rest: Vec<u8>| [mark, rest.as_slice()].concat();
    let check = |rules: &CheckRules, file: &[u8]| {
        for end in 0..file.len() {
            for block_bytes in [BLOCK_BYTES, 16] {
                let findings = pass(rules, &file[..end], block_bytes);
                let is_truncated = matches!(findings.result, Checked::Truncated(_));
                assert!(is_truncated, "{end} of {file:?}: {findings:?}");
            }
        }
        assert!(matches!(pass(rules, file, 16).result, Checked::Sound { .. }), "{file:?}");
    };
    for text in [text, array] {
        for rules in [rules(), strict(), with_schema(json!(true)), in_encoding(Encoding::Utf8)] {
            check(&rules, text.as_bytes());
        }
        check(&rules(), &with_mark(b"\xef\xbb\xbf", text.into()));
        check(&rules(), &with_mark(b"\xff\xfe", utf16(text, u16::to_le_bytes)));
        check(&rules(), &with_mark(b"\xfe\xff", utf16(text, u16::to_be_bytes)));
        check(&in_encoding(Encoding::Utf16), &utf16(text, u16::to_le_bytes));
        check(
            &in_encoding(Encoding::Utf16),
            &with_mark(b"\xff\xfe", utf16(text, u16::to_le_bytes)),
        );
    }
    check(&in_encoding(Encoding::Windows1252), b"{\"a\xfc\": [1, \"\x80\"]}");
}

#[test]
fn space_reserved_and_not_yet_filled_counts_as_unfinished() {
    for start in [&b""[..], b"[", b"{\"a\":1", b"{\"a\": \"xy", b"{\"a\": tr", b"{\"a\":1}", b"[1,"]
    {
        for tail in [20, 70_000] {
            let file = [start, vec![0; tail].as_slice()].concat();
            for block_bytes in [BLOCK_BYTES, 16] {
                let findings = pass(&rules(), &file, block_bytes);
                let Checked::Truncated(fault) = findings.result else { panic!("{findings:?}") };
                let place = format!("NUL bytes from line 1, column {} on", start.len() + 1);
                assert!(fault.cause.plain.contains(&place), "{fault:?}");
                assert_eq!(fault.cause.code.0, "truncated");
                let findings = pass(&rules(), &[&file, &b"]"[..]].concat(), block_bytes);
                assert!(matches!(findings.result, Checked::Faulty(_)), "{findings:?}");
            }
        }
    }
    let wide = [b"\xff\xfe[\0".as_slice(), &[0; 50]].concat();
    assert!(matches!(pass(&rules(), &wide, 16).result, Checked::Truncated(_)));
}

#[test]
fn strict_refuses_what_otherwise_is_remarked() {
    let check = |file: &str, code: &str, place: &str, remark: &str| {
        check_fault(&strict(), file, code, place);
        let remarks = check_sound(&rules(), file.as_bytes(), file.as_bytes(), None);
        assert_eq!(remarks.len(), 1, "{file}: {remarks:?}");
        assert!(remarks[0].contains(remark), "{file}: {remarks:?}");
        assert!(remarks[0].contains(place), "{file}: {remarks:?}");
    };
    let duplicate = "keys that occur twice in one object: 1,";
    check("{\"a\":1, \"b\":2,\n \"a\":3}", "duplicate-key", "line 2, column 2", duplicate);
    check("{\"a\":1,\"\\u0061\":3}", "duplicate-key", "line 1, column 8", duplicate);
    check("{\"\":1,\"\":3}", "duplicate-key", "column 7", duplicate);
    check("{\"\\n\":1,\"\\u000a\":3}", "duplicate-key", "column 9", duplicate);
    check("{\"😀\":1,\"\\ud83d\\uDE00\":3}", "duplicate-key", "column 8", duplicate);
    check("[{\"a\":{\"a\":[{\"b\":0}]},\"a\":2}]", "duplicate-key", "column 23", duplicate);
    let number = "numbers that a double cannot hold exactly: 1,";
    check("[9007199254740992]", "number-too-large", "column 2", number);
    check("[1, -9007199254740992]", "number-too-large", "column 5", number);
    check("[123456789012345678901234567890]", "number-too-large", "column 2", number);
    check("9007199254740993", "number-too-large", "column 1", number);
    check("[1e309]", "number-too-large", "column 2", number);
    check("[-0.18e309]", "number-too-large", "column 2", number);
    check("[0.0001e99999999999999999999]", "number-too-large", "column 2", number);
    let lone = "escaped halves of surrogate pairs: 1,";
    check("[\"\\ud800\"]", "lone-surrogate", "column 3", lone);
    check("[\"ab\\udc00\"]", "lone-surrogate", "column 5", lone);
    check("[\"\\ud800\\n\"]", "lone-surrogate", "column 3", lone);
    check("[\"\\ud800x\"]", "lone-surrogate", "column 3", lone);
    check("[\"\\ud800\\u0041\"]", "lone-surrogate", "column 3", lone);
    check("[\"\\ud800\\ud83d\\ude00\"]", "lone-surrogate", "column 3", lone);
}

#[test]
fn strict_takes_what_is_interoperable() {
    for file in [
        "{\"a\":1,\"b\":{\"a\":1},\"c\":[{\"a\":1},{\"a\":2}]}",
        "[9007199254740991, -9007199254740991, 1.7976931348623157e308, 1e-999, 0e99999, 12345.678901234567890123]",
        "[\"\\ud83d\\ude00\", \"\\\\ud800\"]",
        "{\"ab\":1,\"a\":2,\"b\":3,\"\":4}",
        "[0.17976931348623157e309]",
    ] {
        let remarks = check_sound(&strict(), file.as_bytes(), file.as_bytes(), None);
        assert_eq!(remarks, [""; 0], "{file}");
    }
    // Different halves of pairs are different keys.
    let file = b"{\"\\ud800\":1,\"\\ud801\":2,\"\\ud800x\":3}";
    let remarks = check_sound(&rules(), file, file, None);
    assert!(remarks.len() == 1 && remarks[0].contains("pairs: 3,"), "{remarks:?}");
}

#[test]
fn long_keys_are_compared_to_their_end_and_many_keys_up_to_a_bound() {
    for length in [1, 255, 256, 257, 511, 512, 513, 5000] {
        let (key, rest) = ("k".repeat(length), "k".repeat(length - 1));
        let same = format!("{{\"{key}\":1,\"\\u006b{rest}\":2}}");
        check_fault(&strict(), same, "duplicate-key", "line 1, column");
        let other = format!("{{\"{key}\":1,\"{key}k\":2,\"{rest}\":3}}");
        assert_eq!(check_sound(&strict(), other.as_bytes(), other.as_bytes(), None), [""; 0]);
    }
    let object = |keys: usize, last: &str| {
        let keys: Vec<String> = (0..keys).map(|key| format!("\"k{key}\":0,")).collect();
        format!("{{{}{last}:0}}", keys.concat())
    };
    for keys in [31, 32, 33, 34, 9_999] {
        let twice = object(keys, "\"k7\"");
        assert_eq!(fault(&strict(), twice.as_bytes()).1.cause.code.0, "duplicate-key", "{keys}");
        let once = object(keys, "\"other\"");
        assert_eq!(pass_remarks(&strict(), &once), [""; 0], "{keys}");
    }
    let many = object(10_001, "\"k10000\"");
    assert!(pass_remarks(&strict(), &many)[0].contains("not searched for duplicates"));
    let siblings = format!("[{0},{0},{{\"a\":{0},\"b\":{0}}}]", object(40, "\"x\""));
    assert_eq!(pass_remarks(&strict(), &siblings), [""; 0]);
    let inner = format!("{{\"a\":{0},\"b\":{0},\"a\":1}}", object(40, "\"x\""));
    assert!(pass_remarks(&rules(), &inner)[0].contains("occur twice in one object: 1,"));
}

fn pass_remarks(rules: &CheckRules, file: &str) -> Vec<String> {
    let findings = pass(rules, file.as_bytes(), BLOCK_BYTES);
    let Checked::Sound { envelope, .. } = findings.result else { panic!("{findings:?}") };
    envelope.remarks
}

#[test]
fn nesting_is_bounded_and_takes_no_stack() {
    let nest = |open: &str, close: &str, depth| [open.repeat(depth), close.repeat(depth)].concat();
    let limited = |max_depth| CheckRules { max_depth, ..rules() };
    for (open, close) in [("[", "]"), ("[{\"a\":", "}]")] {
        let depth = 6 / open.len().min(2) / 3 * 50;
        let depth = if open == "[" { 100 } else { depth };
        let levels = if open == "[" { depth } else { 2 * depth };
        let file = nest(open, if open == "[" { close } else { "" }, depth);
        let file = if open == "[" { file } else { format!("{file}1{}", close.repeat(depth)) };
        check_sound(&limited(levels), file.as_bytes(), file.as_bytes(), None);
        check_fault(
            &limited(levels - 1),
            file,
            "too-deep",
            &format!("more than {} deep", levels - 1),
        );
    }
    let deep = nest("[", "]", 100_000);
    check_fault(&limited(10_000), &deep, "too-deep", "line 1, column 10001");
    check_sound(&limited(100_000), deep.as_bytes(), deep.as_bytes(), None);
    let rules = CheckRules { max_depth: 512, ..with_schema(json!(true)) };
    check_sound(&rules, nest("[", "]", 127).as_bytes(), nest("[", "]", 127).as_bytes(), None);
    check_fault(&rules, nest("[", "]", 128), "too-deep", "deeper than a schema is applied to");
}

/// Fails the test when it is read.
struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("it was read")
    }
}

#[test]
fn a_file_too_large_by_its_size_is_not_read() {
    let check = |encoding, size: u64| {
        let rules = CheckRules { body_max_bytes: Some(1000), ..in_encoding(encoding) };
        let findings = Checker::new(&rules).unwrap().validate(&orders(), &mut Unreadable, size, 0);
        let Checked::Faulty(fault) = findings.result else { panic!("{findings:?}") };
        assert_eq!(fault.cause.code.0, "body-too-large");
        assert_eq!((findings.digest, findings.read_bytes), (None, 0));
        assert!(fault.cause.plain.contains(&size.to_string()), "{fault:?}");
    };
    check(Encoding::Utf8, 1001);
    check(Encoding::Windows1252, 1001);
    check(Encoding::Auto, 2004);
    check(Encoding::Utf16, 5_000_000_000);
}

#[test]
fn max_body_counts_the_body_and_not_the_file() {
    let check = |encoding, file: &[u8], body: u64| {
        let at_most = |max| {
            let rules = CheckRules { body_max_bytes: Some(max), ..in_encoding(encoding) };
            pass(&rules, file, 64)
        };
        let findings = at_most(body);
        assert!(matches!(findings.result, Checked::Sound { .. }), "{findings:?}");
        let findings = at_most(body - 1);
        let Checked::Faulty(fault) = &findings.result else { panic!("{findings:?}") };
        assert_eq!(fault.cause.code.0, "body-too-large");
        assert_eq!(findings.digest, None);
    };
    let text = format!("[{}1]", "1,".repeat(100));
    check(Encoding::Auto, text.as_bytes(), 203);
    check(Encoding::Auto, &[b"\xef\xbb\xbf", text.as_bytes()].concat(), 203);
    check(Encoding::Auto, &[b"\xff\xfe", &*utf16(&text, u16::to_le_bytes)].concat(), 203);
    check(Encoding::Utf16, &utf16(&text, u16::to_le_bytes), 203);
    check(Encoding::Windows1252, &[b"[\"", &[0x80; 100][..], b"\"]"].concat(), 304);
    let rules = CheckRules { body_max_bytes: Some(100), ..rules() };
    let findings = pass(&rules, text.as_bytes(), 64);
    assert_eq!(findings.read_bytes, HEAD_BYTES as u64, "no more than what tells the encoding");
}

#[test]
fn only_a_body_within_the_bound_is_kept() {
    let long = format!("[{}1]", "1,".repeat(50_000));
    let check = |rules: &CheckRules, file: &str, keep_max, is_kept: bool| {
        let mut input = Cursor::new(file);
        let findings = Checker::new(rules).unwrap().validate(
            &orders(),
            &mut input,
            file.len() as u64,
            keep_max,
        );
        let Checked::Sound { body, .. } = findings.result else { panic!("{findings:?}") };
        assert_eq!(body.as_deref(), is_kept.then_some(file.as_bytes()));
    };
    for rules in [rules(), with_schema(json!(true))] {
        check(&rules, "[1]", 3, true);
        check(&rules, "[1]", 2, false);
        check(&rules, &long, long.len(), true);
        check(&rules, &long, long.len() - 1, false);
    }
}

#[test]
fn a_size_that_lies_changes_nothing() {
    let file = format!("[{}1]", "1,".repeat(500));
    for size in [0, 10, file.len() as u64 - 1, file.len() as u64 + 1, 1 << 40] {
        let checker = Checker::new(&rules()).unwrap();
        let findings = checker.validate(&orders(), &mut Cursor::new(&file), size, 1 << 20);
        let Checked::Sound { envelope, .. } = findings.result else { panic!("{findings:?}") };
        assert_eq!(envelope.digest, Digest(Sha256::digest(&file).into()));
        assert_eq!(findings.read_bytes, file.len() as u64);
    }
}

/// Fails after its bytes.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(Error::new(ErrorKind::ConnectionReset, "the share is gone")),
            length => Ok(length),
        }
    }
}

#[test]
fn a_read_error_is_no_finding_about_the_file() {
    for start in [&b""[..], b"[1, 2", b"[x", b"{} {", b"\0["] {
        let checker = Checker::new(&rules()).unwrap();
        let findings = checker.validate(&orders(), &mut Breaks(start), 1000, 1000);
        assert!(matches!(findings.result, Checked::Unread(_)), "{start:?}: {findings:?}");
        assert_eq!(findings.digest, None);
    }
}

#[test]
fn an_excerpt_shows_the_surroundings_and_is_short() {
    let check = |file: &str, expected: &str| {
        assert_eq!(fault(&rules(), file.as_bytes()).1.cause.excerpt.unwrap(), expected);
    };
    check("{\"a\": x}", "{\"a\": ▸x}");
    check("[1,\r\n\t2 3]", "[1,\\r\\n\\t2 ▸3]");
    check("[\u{202e}]", "[▸\\u{202e}]");
    let (a, b) = ("a".repeat(500), "b".repeat(500));
    check(
        &format!("[\"{a}\", x, \"{b}\"]"),
        &format!("{}\", ▸x, \"{}", "a".repeat(36), "b".repeat(35)),
    );
    let secret = format!("{{\"{SECRET}\": \"{SECRET}\", \"{SECRET}\": [{SECRET}]}}");
    let (_, fault) = fault(&rules(), secret.as_bytes());
    assert!(fault.cause.excerpt.unwrap().contains(SECRET));
    let findings = format!("{:?}", pass(&rules(), secret.as_bytes(), 64));
    assert!(!findings.contains(SECRET), "{findings}");
}

#[test]
fn a_schema_is_applied_and_content_stays_in_the_excerpt() {
    let schema = json!({
        "type": "object",
        "required": ["lines"],
        "additionalProperties": false,
        "properties": {"lines": {"items": {"properties": {"qty": {"type": "number", "maximum": 9}}}}}
    });
    let check = |file: &str, plain: &str, excerpt: &str| {
        let rules = with_schema(schema.clone());
        let (_, fault) = fault(&rules, file.as_bytes());
        assert_eq!(fault.cause.code.0, "schema-violation");
        assert_eq!(fault.cause.plain, format!("a value breaks the schema: {plain}"));
        assert_eq!(fault.cause.excerpt.as_deref(), Some(excerpt));
    };
    check(
        &format!("{{\"lines\": [{{}}, {{\"qty\": \"{SECRET}\"}}]}}"),
        "must be a number (schema keyword /properties/lines/items/properties/qty/type)",
        &format!("at /lines/1/qty: \"{SECRET}\""),
    );
    check(
        "{\"lines\": [{\"qty\": 10}]}",
        "must be at most 9 (schema keyword /properties/lines/items/properties/qty/maximum)",
        "at /lines/0/qty: 10",
    );
    check("{}", "must have the property \"lines\" (schema keyword /required)", "at the root: {}");
    check(
        &format!("{{\"lines\": [], \"{SECRET}\": 1}}"),
        "has a property that is not allowed (schema keyword /additionalProperties)",
        &format!("at the root: {SECRET}"),
    );
    let sound = b"\xef\xbb\xbf{\"lines\": [{\"qty\": 3}]}";
    let body = &sound[3..];
    check_sound(&with_schema(schema), sound, body, Some(Conversion::Utf8BomDropped));
}

#[test]
fn what_a_tree_cannot_hold_is_refused_before_the_schema() {
    let rules = with_schema(json!({"type": "array"}));
    check_fault(&rules, "[\"\\ud800\"]", "lone-surrogate", "column 3");
    check_fault(&rules, "[1e400]", "number-too-large", "column 2");
    check_sound(
        &rules,
        b"[123456789012345678901234567890]",
        b"[123456789012345678901234567890]",
        None,
    );
    let small = CheckRules { schema_max_bytes: 10, ..rules };
    check_sound(&small, b"[1,2,3,45]", b"[1,2,3,45]", None);
    check_fault(&small, "[1,2,3,456]", "schema-too-large", "11 bytes");
}

#[test]
fn a_schema_that_is_none_or_refers_elsewhere_is_refused() {
    let check = |schema: Value, says: &str, hint: &str| {
        let fault = Checker::new(&with_schema(schema)).unwrap_err();
        assert!(fault.plain.contains(says), "{fault:?}");
        assert!(fault.hint.contains(hint), "{fault:?}");
    };
    check(json!({"type": "nonsense"}), "no valid JSON Schema: at /type", "Mend");
    check(json!(7), "no valid JSON Schema", "Mend");
    check(json!({"$ref": "https://example.com/order.json"}), "not in it", "fetches no schemas");
    check(json!({"$ref": "file:///srv/order.json"}), "not in it", "fetches no schemas");
    check(json!({"$ref": "other.json#/a"}), "not in it", "$defs");
    for draft in [
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let schema = json!({"$schema": draft, "properties": {"a": {"type": "integer"}}});
        check_fault(&with_schema(schema), "{\"a\": 1.5}", "schema-violation", "must be an integer");
    }
}

#[test]
fn a_checker_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Checker>();
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z\\\\\"\u{e4}\u{1f600}]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A change to a file: at a place (in thousandths) some bytes go and others come.
type Change = (usize, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    let letters: Vec<u8> =
        b" \n\t\"\\{}[]:,0123456789.eE+-truefalsn/u'DdcC8\x00\x1f\x7f\x80\xc3\xe4\xff".to_vec();
    let byte = prop::sample::select(letters);
    (0_usize..1000, 0_usize..3, prop::collection::vec(byte, 0..4))
}

fn changed(mut file: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (place, gone, come) in changes {
        let from = place * (file.len() + 1) / 1000;
        let to = (from + gone).min(file.len());
        file.splice(from..to, come.iter().copied());
    }
    file
}

/// `serde_json`'s verdict on the same document. It builds a tree, as a schema needs it, and
/// refuses exactly what such a route refuses.
fn compare(file: &[u8], block_bytes: usize, lengths: &[usize]) {
    let expected =
        std::str::from_utf8(file).is_ok_and(|text| serde_json::from_str::<Value>(text).is_ok());
    let checker = Checker::new(&with_schema(json!(true))).unwrap();
    let mut input = Trickle::new(file, lengths);
    let size = file.len() as u64;
    let findings = checker.in_blocks(&orders(), &mut input, size, usize::MAX, block_bytes);
    let is_sound = matches!(findings.result, Checked::Sound { .. });
    let shown = String::from_utf8_lossy(file);
    assert_eq!(is_sound, expected, "{shown} {file:?}: {findings:?}");
    assert_eq!(findings.digest, Some(Digest(Sha256::digest(file).into())));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_accepts_what_serde_json_accepts_and_nothing_else(
        document in document(),
        pretty: bool,
        changes in prop::collection::vec(change(), 0..4),
        block_bytes in 16_usize..200,
        lengths in prop::collection::vec(1_usize..60, 1..5),
    ) {
        let text = if pretty {
            serde_json::to_string_pretty(&document)
        } else {
            serde_json::to_string(&document)
        };
        let file = text.unwrap().into_bytes();
        // A byte order mark is the one thing that this pass takes and serde_json does not.
        let file = changed(file, &changes);
        prop_assume!(!matches!(file.as_slice(), [0xff | 0xfe | 0xef, ..]));
        compare(&file, block_bytes, &lengths);
    }

    #[test]
    fn numbers_are_judged_as_serde_json_judges_them(
        number in "-?[0-9]{0,22}(\\.[0-9]{0,4})?([eE][+-]?[0-9]{0,3})?",
        block_bytes in 16_usize..40,
    ) {
        compare(format!("[{number}]").as_bytes(), block_bytes, &[1, 5]);
    }

    #[test]
    fn strings_are_judged_as_serde_json_judges_them(
        inside in "(a|\u{e4}|\\\\|\"|\\\\u[dD][89abcCdDeEfF][0-9a-fA-F]{2}|\\\\u00[0-9a-f]{2}|\\\\n|\t){0,8}",
        block_bytes in 16_usize..40,
    ) {
        compare(format!("{{\"{inside}\":\"{inside}\"}}").as_bytes(), block_bytes, &[1, 5]);
    }

    #[test]
    fn bytes_of_any_kind_neither_panic_nor_differ_from_serde_json(
        file in prop::collection::vec(any::<u8>(), 0..40),
        inside: bool,
    ) {
        let file = if inside { [b"[\"", file.as_slice(), b"\"]"].concat() } else { file };
        prop_assume!(!matches!(file.as_slice(), [0xff | 0xfe | 0xef, ..]));
        compare(&file, 16, &[1, 2]);
    }

    #[test]
    fn a_converted_body_is_the_text_and_is_streamed_again_as_it_was(
        document in document(),
        little: bool,
        block_bytes in 16_usize..200,
        lengths in prop::collection::vec(1_usize..60, 1..5),
        buffer_bytes in 1_usize..70,
    ) {
        let text = document.to_string();
        let marked = format!("\u{feff}{text}");
        let file = utf16(&marked, if little { u16::to_le_bytes } else { u16::to_be_bytes });
        let findings = pass(&rules(), &file, block_bytes);
        let Checked::Sound { envelope, body } = findings.result else { panic!("{findings:?}") };
        prop_assert_eq!(body.as_deref(), Some(text.as_bytes()));
        let trickle = Trickle::new(&file, &lengths);
        let mut reader = body_reader(trickle, envelope.conversion, envelope.wrap);
        let mut again = Vec::new();
        let mut buffer = vec![0; buffer_bytes];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break,
                length => again.extend_from_slice(&buffer[..length]),
            }
        }
        prop_assert_eq!(envelope.digest, Digest(Sha256::digest(&again).into()));
        prop_assert_eq!(envelope.bytes, again.len() as u64);
    }
}
