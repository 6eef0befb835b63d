//! Claims about plain text, any bytes, and envelopes.

use super::super::encoding::HEAD_BYTES;
use super::*;

fn text() -> CheckRules {
    CheckRules { format: Format::Text, ..rules() }
}

fn binary() -> CheckRules {
    CheckRules { format: Format::Binary, ..rules() }
}

fn wrapped(rules: CheckRules) -> CheckRules {
    CheckRules { wrap: Some(Wrap::Payload), ..rules }
}

/// The body that an envelope is to have, as somebody else writes it.
pub(super) fn payload(text: &str) -> Vec<u8> {
    let text = serde_json::to_string(text).unwrap();
    format!("{{\"payload\":{text}}}").into_bytes()
}

#[test]
fn a_text_is_sent_in_utf_8_whatever_it_came_in() {
    let words = "Grüße,\t\"Köln\" \\ €\u{1}\u{0}\u{7f}\u{2028}😀\n";
    check_sound(&text(), words.as_bytes(), words.as_bytes(), None);
    let marked = format!("\u{feff}{words}");
    check_sound(&text(), marked.as_bytes(), words.as_bytes(), Some(Conversion::Utf8BomDropped));
    for (bytes_of, conversion) in [
        (u16::to_le_bytes as fn(u16) -> [u8; 2], Conversion::Utf16Le),
        (u16::to_be_bytes, Conversion::Utf16Be),
    ] {
        let wide = utf16(&marked, bytes_of);
        check_sound(&text(), &wide, words.as_bytes(), Some(conversion));
        check_sound(&wrapped(text()), &wide, &payload(words), Some(conversion));
    }
    let western = CheckRules { encoding: Encoding::Windows1252, ..text() };
    check_sound(&western, b"Gr\xfc\xdfe \x80", "Grüße €".as_bytes(), Some(Conversion::Windows1252));
}

#[test]
fn a_text_that_is_none_is_refused() {
    for (file, code, says) in [
        (&b""[..], "empty", "the file is empty"),
        (b" \r\n", "empty", "the file is empty"),
        (b"\xef\xbb\xbf", "empty", "the file is empty"),
        (b"\xef\xbb", "truncated", "within a character"),
        (b"Stra\xdfe", "invalid-utf8", "DF at line 1, column 5 looks like ß in windows-1252"),
        (b"one\ntwo \xff", "invalid-utf8", "FF at line 2, column 5 looks like ÿ"),
        (b"Gr\xc3", "truncated", "stops within a character at line 1, column 3"),
        (b"some\nthing\0\0\0", "truncated", "NUL bytes from line 2, column 6 on"),
        (b"\0\0\0\0\0\0\0\0\0\0\0", "truncated", "NUL bytes from line 1, column 1 on"),
        (b"\xff\xfea\0b", "truncated", "within a character"),
        (b"\xff\xfea\0\0\xd8b\0c\0", "invalid-utf16", "half a surrogate pair at line 1, column 2"),
        (b"a\0b\0c\0d\0e\0", "wrong-encoding", "UTF-16 without a byte order mark"),
    ] {
        check_fault(&text(), file, code, says);
        check_fault(&wrapped(text()), file, code, says);
    }
    let strict = CheckRules { encoding: Encoding::Utf8, ..text() };
    check_fault(&strict, b"\xef\xbb\xbfx", "bom-refused", "byte order mark");
    let western = CheckRules { encoding: Encoding::Windows1252, ..text() };
    check_fault(&western, b"Gr\x81", "wrong-encoding", "stands for nothing in windows-1252");
}

#[test]
fn any_bytes_are_sent_as_they_are_but_none_is_not() {
    let all: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    for file in [&all[..], b"\xff\xfe\0\0", b"\xef\xbb\xbf", b"\0\0\0\0\0\0\0", b" ", b"\xef"] {
        check_sound(&binary(), file, file, None);
    }
    check_fault(&binary(), b"", "empty", "the file is empty");
    let limited = CheckRules { body_max_bytes: Some(999), ..binary() };
    let result = pass(&limited, &all, BLOCK_BYTES).result;
    assert!(matches!(&result, Checked::Faulty(fault) if fault.cause.code.0 == "body-too-large"));
}

#[test]
fn an_envelope_has_the_text_as_a_json_string() {
    for text_of in ["[1, 2]", "{\"a\": \"\\u00e4 \\ud800 \\\\\"}\r\n", "\t\"ü\u{2028}\u{7f}😀\""]
    {
        let body = payload(text_of);
        check_sound(&wrapped(rules()), text_of.as_bytes(), &body, None);
        check_sound(&wrapped(text()), text_of.as_bytes(), &body, None);
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value, json!({ "payload": text_of }));
    }
    check_fault(&wrapped(rules()), "{\"a\":", "truncated", "stops in the middle");
    check_fault(&wrapped(rules()), "{\"a\":1,}", "not-json", "trailing comma");
}

#[test]
fn a_schema_is_applied_to_the_document_and_not_to_its_envelope() {
    let rules = wrapped(with_schema(json!({ "required": ["a"] })));
    check_sound(&rules, b"{\"a\":1}", &payload("{\"a\":1}"), None);
    check_fault(&rules, "{\"payload\":\"\"}", "schema-violation", "must have the property");
    let small = CheckRules { schema_max_bytes: 8, ..rules };
    check_sound(&small, b"{\"a\":12}", &payload("{\"a\":12}"), None);
    check_fault(&small, b"{\"a\":123}", "schema-too-large", "the document has 9 bytes");
    // Nothing is to be kept for sending, and yet the document is there for its schema.
    let checker = Checker::new(&small).unwrap();
    let result = checker.validate(&orders(), &mut Cursor::new(b"{\"a\":12}"), 8, 0).result;
    assert!(matches!(result, Checked::Sound { body: None, .. }), "{result:?}");
}

#[test]
fn the_limit_of_a_body_counts_the_envelope() {
    let quotes = "\"".repeat(100);
    let limited = |max| CheckRules { body_max_bytes: Some(max), ..wrapped(text()) };
    let check = |max: u64, file: &str, says: &str| {
        let result = pass(&limited(max), file.as_bytes(), BLOCK_BYTES).result;
        let Checked::Faulty(fault) = result else { panic!("{max}: {result:?}") };
        assert_eq!(fault.cause.code.0, "body-too-large");
        assert!(fault.cause.plain.contains(says), "{fault:?}");
    };
    check_sound(&limited(214), quotes.as_bytes(), &payload(&quotes), None);
    check(213, &quotes, "its 100 bytes become 214 or more in an envelope, route orders sends up");
    check(63, &quotes, "its 100 bytes become 114 or more in an envelope");
    check(10, &quotes, "in an envelope");
    for format in [rules(), CheckRules { format: Format::Xml, ..rules() }] {
        let limited = CheckRules { body_max_bytes: Some(19), ..wrapped(format) };
        let result = pass(&limited, b"<a>\"</a>", BLOCK_BYTES).result;
        assert!(
            matches!(&result, Checked::Faulty(fault) if fault.cause.code.0 == "body-too-large")
        );
    }
}

/// The body of an envelope as it is read for sending.
fn read_again(file: &[u8], lengths: &[usize], envelope: &Envelope) -> Vec<u8> {
    let mut again = Vec::new();
    let mut reader = body_reader(Trickle::new(file, lengths), envelope.conversion, envelope.wrap);
    let mut buffer = vec![0; *lengths.iter().max().unwrap()];
    for length in lengths.iter().cycle() {
        match reader.read(&mut buffer[..*length]).unwrap() {
            0 => break,
            read => again.extend_from_slice(&buffer[..read]),
        }
    }
    again
}

/// What is announced of an envelope, what is kept and what is sent are one, and hold the text.
fn check_round_trip(rules: &CheckRules, file: &[u8], text: &str, blocks: usize, lengths: &[usize]) {
    let findings = pass(rules, file, blocks);
    let Checked::Sound { envelope, body } = findings.result else {
        panic!("{text:?}: {:?}", findings.result)
    };
    let again = read_again(file, lengths, &envelope);
    assert_eq!(envelope.bytes, again.len() as u64);
    assert_eq!(envelope.digest, Digest(Sha256::digest(&again).into()));
    assert!(body.is_some_and(|body| body == again));
    let value: Value = serde_json::from_slice(&again).unwrap();
    assert!(value.as_object().is_some_and(|object| object.len() == 1));
    assert!(value["payload"].as_str() == Some(text), "{text:?}");
}

#[test]
fn every_character_comes_through_an_envelope() {
    let all: String = ('\0'..=char::MAX).chain("end".chars()).collect();
    let text_of = format!("every {all}");
    check_round_trip(&wrapped(text()), text_of.as_bytes(), &text_of, BLOCK_BYTES, &[4_096]);
    let wide = utf16(&format!("\u{feff}{text_of}"), u16::to_le_bytes);
    check_round_trip(&wrapped(text()), &wide, &text_of, BLOCK_BYTES, &[1_000, 77]);
}

#[test]
fn ten_megabytes_come_through_an_envelope_with_escapes_at_every_border() {
    let part = "0123456\"\\\n\u{1f}ü😀\u{c}";
    let text_of = part.repeat(10_000_000 / part.len());
    assert!(!text_of.len().is_multiple_of(BLOCK_BYTES));
    let lengths = [65_536, 8_191, 3, 8_193];
    check_round_trip(&wrapped(text()), text_of.as_bytes(), &text_of, BLOCK_BYTES, &lengths);
}

#[test]
fn an_envelope_too_large_to_be_kept_is_not() {
    let quotes = "\"".repeat(100);
    let checker = Checker::new(&wrapped(text())).unwrap();
    for (keep_max, kept) in [(99, false), (100, false), (213, false), (214, true)] {
        let mut input = Cursor::new(quotes.as_bytes());
        let findings = checker.validate(&orders(), &mut input, 100, keep_max);
        let Checked::Sound { body, .. } = findings.result else { panic!("{findings:?}") };
        assert_eq!(body.is_some(), kept, "{keep_max}");
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        4 => any::<char>(),
        2 => prop::sample::select(&['"', '\\', '\n', '\r', '\t', '\0', '\u{8}', '\u{c}', '/'][..]),
        1 => prop::char::range('\0', ' '),
        1 => prop::char::range('a', 'z'),
    ];
    let part = prop::collection::vec(letter, 0..200);
    // What a file's first bytes are is told by their pattern, and white space alone is empty.
    part.prop_map(|letters| format!("text {}!", letters.into_iter().collect::<String>()))
}

proptest! {
    #[test]
    fn any_text_comes_through_an_envelope(
        text_of in any_text(),
        blocks in 2 * HEAD_BYTES..60,
        lengths in prop::collection::vec(1_usize..50, 1..6),
    ) {
        let rules = wrapped(text());
        check_round_trip(&rules, text_of.as_bytes(), &text_of, blocks, &lengths);
        let marked = format!("\u{feff}{text_of}");
        check_round_trip(&rules, marked.as_bytes(), &text_of, blocks, &lengths);
        for bytes_of in [u16::to_le_bytes, u16::to_be_bytes] {
            check_round_trip(&rules, &utf16(&marked, bytes_of), &text_of, blocks, &lengths);
        }
        let western = CheckRules { encoding: Encoding::Windows1252, ..rules };
        let (narrow, _, lossy) = encoding_rs::WINDOWS_1252.encode(&text_of);
        let assigned = narrow.iter().all(|byte| !encoding::is_unassigned(*byte));
        if !lossy && assigned {
            check_round_trip(&western, &narrow, &text_of, blocks, &lengths);
        }
    }
}
