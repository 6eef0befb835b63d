//! Claims about XML files, as tables.

use super::super::xml::{TOKEN_FREE, TOKEN_MAX};
use super::formats::payload;
use super::*;

fn xml() -> CheckRules {
    CheckRules { format: Format::Xml, ..rules() }
}

fn in_envelope() -> CheckRules {
    CheckRules { wrap: Some(Wrap::Payload), ..xml() }
}

const ENTITIES: &str = r#"<!DOCTYPE a [
  <!ELEMENT a (#PCDATA)>
  <!-- a > and a ] and a " -->
  <?pi ]> ?>
  <!ENTITY gruss "Guten ]> Tag">
  <!ENTITY % teil SYSTEM "file:///etc/passwd">
  %teil;
  <!ATTLIST a b CDATA "c>d">
]>
<a b="&gruss;">&gruss;</a>"#;

#[test]
fn well_formed_documents_are_sent_as_they_are() {
    for file in [
        "<a/>",
        "<a></a>",
        "<a ></a >",
        "<a\n/>",
        "\n <a/>\r\n\t",
        "<?xml version=\"1.0\"?><a/>",
        "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<a/>",
        "<?xml version=\"1.1\" encoding=\"utf-8\"?><a/>",
        "<?xml version=\"1.0\" encoding=\"US-ASCII\"?><a>x</a>",
        "<!-- c --><?pi?><a/><!----><?pi with > and ? ?>\n",
        "<!DOCTYPE a><a/>",
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML>\" 'http://x/[y].dtd'><html/>",
        ENTITIES,
        "<a>Text &amp; &lt;&gt;&apos;&quot; &#65;&#x1F600;&#xA; ]] > ]>]</a>",
        "<a b=\"1\" c='2'\n d = \"it's\" e='\"&amp;&#9;>'/>",
        "<a><![CDATA[<b>&nbsp;]] > ]]]></a>",
        "<a><![CDATA[]]></a>",
        "<x:a xmlns:x=\"urn:x\" x:b=\"1\" b=\"2\"><x:c/></x:a>",
        "<größe länge=\"5\">Ö 😀 \u{2028}\u{85}\u{7f}</größe>",
        "<_a.-1:b/>",
        "<a><a><a/></a><a/></a>",
        "<a>\n<b>\r\n</b>\t</a>",
    ] {
        assert_eq!(check_sound(&xml(), file.as_bytes(), file.as_bytes(), None), [""; 0]);
        check_sound(&in_envelope(), file.as_bytes(), &payload(file), None);
        if file.contains("ASCII") {
            continue;
        }
        let marked = format!("\u{feff}{file}");
        check_sound(&xml(), marked.as_bytes(), marked.as_bytes(), None);
        let dropped = Some(Conversion::Utf8BomDropped);
        check_sound(&in_envelope(), marked.as_bytes(), &payload(file), dropped);
    }
}

/// Documents against the grammar, and what is said of them.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "<a></b>",
        "an end tag at line 1, column 4 that is not that of the open element, which begins on line 1",
    ),
    (
        "<a>\n<b>\n</a></b>",
        "at line 3, column 1 that is not that of the open element, which begins on line 2",
    ),
    ("<a></A>", "an end tag"),
    ("<a></a b=\"1\">", "an end tag"),
    ("<a></ a>", "an end tag"),
    ("</a>", "an end tag where no element is open at line 1, column 1"),
    ("<a/></a>", "an end tag where no element is open at line 1, column 5"),
    ("<a b=\"<\"/>", "a < in an attribute's value, which XML writes &lt;, at line 1, column 7"),
    ("<a b=\"1\" b='2'/>", "an attribute that occurs twice in one tag at line 1, column 10"),
    ("<a c='1' b=\"1\" c='2' b='2'/>", "twice in one tag at line 1, column 16"),
    ("<a b=1/>", "an attribute's value without quotes at line 1, column 6"),
    ("<a b/>", "an attribute without a value at line 1, column 5"),
    ("<a b=\"1\"c=\"2\"/>", "two attributes without white space between them at line 1, column 9"),
    ("<a =\"1\"/>", "something that is no attribute's name at line 1, column 4"),
    ("<a / >", "no attribute's name"),
    ("<a/b/>", "a character that no element's name has at line 1, column 3"),
    ("<a!/>", "a character that no element's name has"),
    ("<1/>", "a < that begins no tag (XML writes the character itself &lt;) at line 1, column 1"),
    ("<a>1 < 2</a>x>", "a < that begins no tag"),
    ("<>", "a < that begins no tag"),
    ("< a/>", "a < that begins no tag"),
    ("<-a/>", "a < that begins no tag"),
    ("<×/>", "a < that begins no tag"),
    ("<a>&#0;</a>", "a reference to a character that XML does not allow at line 1, column 4"),
    ("<a>&#x1F;</a>", "a reference to a character that XML does not allow"),
    ("<a>&#xD800;</a>", "a reference to a character that XML does not allow"),
    ("<a>&#xFFFE;</a>", "a reference to a character that XML does not allow"),
    ("<a>&#99999999999;</a>", "a reference to a character that XML does not allow"),
    ("<a>&#;</a>", "a character reference that is no number"),
    ("<a>&#12a;</a>", "a character reference that is no number"),
    ("<a>&#X41;</a>", "a character reference that is no number"),
    ("<a>&nbsp;</a>", "a reference to an entity that nothing declares at line 1, column 4"),
    ("<a b='&nbsp;'/>", "a reference to an entity that nothing declares at line 1, column 7"),
    ("<a b='&#0;'/>", "a reference to a character that XML does not allow at line 1, column 7"),
    (
        "<a>Müller & Söhne</a>",
        "an & that begins no reference (XML writes the character itself &amp;) at line 1, column 11",
    ),
    ("<a>x&y</a>", "an & that begins no reference"),
    ("<a>&;</a>", "an & that begins no reference"),
    ("<a>&1;</a>", "an & that begins no reference"),
    ("<a b='x & y'/>", "an & that begins no reference"),
    ("<a b='&amp'/>", "an & that begins no reference"),
    ("<a>]]></a>", "]]> outside a CDATA section, which XML writes ]]&gt;, at line 1, column 6"),
    ("<a>]]]></a>", "]]> outside"),
    ("<a><!-- -- --></a>", "two hyphens within a comment at line 1, column 9"),
    ("<a><!-- ---></a>", "two hyphens within a comment"),
    ("x<a/>", "something other than markup before the root element at line 1, column 1"),
    ("&amp;<a/>", "something other than markup before the root element"),
    ("<!-- --> x<a/>", "before the root element at line 1, column 10"),
    ("{\"a\":1}", "something other than markup"),
    ("<![CDATA[x]]><a/>", "a CDATA section before the root element"),
    (
        "\n<?xml version='1.0'?><a/>",
        "an XML declaration that is not the very first of the file at line 2, column 1",
    ),
    ("<!-- --><?xml version='1.0'?><a/>", "an XML declaration that is not the very first"),
    ("<a><?xml version='1.0'?></a>", "an XML declaration that is not the very first"),
    ("<?XML version='1.0'?><a/>", "an XML declaration that is not written <?xml"),
    ("<?xml?><a/>", "an XML declaration without a version"),
    (
        "<?xml encoding='UTF-8'?><a/>",
        "an XML declaration that is not version, encoding and standalone in order",
    ),
    (
        "<?xml version='1.0' standalone='yes' encoding='UTF-8'?><a/>",
        "in order at line 1, column 38",
    ),
    ("<?xml version='1.0' version='1.0'?><a/>", "in order"),
    (
        "<?xml version='2.0'?><a/>",
        "a value that an XML declaration cannot have at line 1, column 16",
    ),
    ("<?xml version='1.0' standalone='maybe'?><a/>", "a value that an XML declaration"),
    ("<?xml version='1.0'encoding='UTF-8'?><a/>", "white space missing"),
    ("<? a?><a/>", "a processing instruction without a name"),
    ("<?a!?><a/>", "a character that no processing instruction's name has"),
    ("<?><a/>", "markup"),
    ("<!doctype a><a/>", "a DOCTYPE that is not written in capitals"),
    ("<!DOCTYPE><a/>", "markup that"),
    ("<!DOCTYPEa><a/>", "a DOCTYPE without a name"),
    ("<!DOCTYPE a><!DOCTYPE a><a/>", "a second DOCTYPE at line 1, column 13"),
    ("<a/><!DOCTYPE a>", "a DOCTYPE that does not stand before the root element"),
    ("<!ELEMENT a ANY><a/>", "markup that begins like a tag and is none that XML has"),
    ("<a><!x></a>", "markup that begins like a tag"),
    ("<a><![cdata[x]]></a>", "markup that begins like a tag"),
    ("<a>\u{fffe}</a>", "character U+FFFE, which XML does not allow, at line 1, column 4"),
    ("<a b='\u{ffff}'/>", "character U+FFFF, which XML does not allow, at line 1, column 7"),
    ("<a>\u{feff}</a>\u{feff}", "followed by"),
];

/// What has a code of its own.
const PRECISE: &[(&str, &str, &str)] = &[
    (
        "<a/><b/>",
        "several-documents",
        "the root element is followed by another element at line 1, column 5",
    ),
    ("<a></a>\n<a></a>", "several-documents", "at line 2, column 1"),
    (
        "<a/>text",
        "trailing-content",
        "the root element is followed by other content at line 1, column 5",
    ),
    ("<a/>&amp;", "trailing-content", "other content"),
    ("<a/><![CDATA[]]>", "trailing-content", "other content"),
    (
        "<a>\u{1}</a>",
        "control-character",
        "character U+0001, which XML does not allow, at line 1, column 4",
    ),
    ("<a b='\u{1b}'/>", "control-character", "at line 1, column 7"),
    ("<a>\0</a>", "control-character", "character U+0000"),
    ("<!-- \u{8} --><a/>", "control-character", "at line 1, column 6"),
    ("<!DOCTYPE a [<!-- \u{8} -->]><a/>", "control-character", "at line 1, column 19"),
];

#[test]
fn what_xml_forbids_is_refused_in_words_of_its_own() {
    for &(file, says) in FORBIDDEN {
        let code = if says == "followed by" { "trailing-content" } else { "not-xml" };
        check_fault(&xml(), file, code, says);
        check_fault(&in_envelope(), file, code, says);
    }
    for &(file, code, says) in PRECISE {
        check_fault(&xml(), file, code, says);
    }
}

#[test]
fn a_document_that_stops_in_the_middle_may_still_be_written() {
    let whole = "<?xml version=\"1.0\"?>\n<!DOCTYPE a [<!ENTITY b \"c\">]><!-- - --><a b=\"1\">t&amp;\
                 <![CDATA[x]]><b/><?pi y?>ü</a>";
    let end = whole.len();
    for length in 1..end {
        check_fault(&xml(), &whole.as_bytes()[..length], "truncated", "");
        let text = String::from_utf8_lossy(&whole.as_bytes()[..length]).into_owned();
        if !text.ends_with('\u{fffd}') {
            let mut reserved = text.clone().into_bytes();
            reserved.resize(length + 100, 0);
            check_fault(&xml(), &reserved, "truncated", "NUL bytes");
            let mut wide = utf16(&format!("\u{feff}{text}"), u16::to_le_bytes);
            check_fault(&xml(), &wide, "truncated", "");
            wide.push(b'<');
            check_fault(&xml(), &wide, "truncated", "within a character");
            wide.pop();
            wide.resize(wide.len() + 100, 0);
            check_fault(&xml(), &wide, "truncated", "NUL bytes");
        }
    }
    for (file, code, says) in [
        ("", "empty", "the file is empty"),
        (" \r\n\t", "empty", "the file is empty"),
        ("\u{feff}", "empty", "the file is empty"),
        (
            "<a><b>\n<c>",
            "truncated",
            "stops in the middle at line 2, column 4, 3 elements are open",
        ),
        ("<a>", "truncated", "at line 1, column 4, one element is open"),
        ("<!-- nothing yet -->", "truncated", "stops in the middle at line 1, column 21"),
        ("<a/>\0\0\0", "truncated", "NUL bytes from line 1, column 5 on"),
        ("\0\0\0\0\0\0", "truncated", "NUL bytes from line 1, column 1 on"),
    ] {
        check_fault(&xml(), file, code, says);
    }
}

#[test]
fn a_document_is_in_the_encoding_that_it_declares() {
    let text = "<a b=\"ä\">Grüße €</a>";
    for (file, bytes_of) in [
        (format!("\u{feff}{text}"), u16::to_le_bytes as fn(u16) -> [u8; 2]),
        (format!("\u{feff}{text}"), u16::to_be_bytes),
        (format!("\u{feff}<?xml version='1.0' encoding='UTF-16'?>{text}"), u16::to_le_bytes),
        (format!("\u{feff}<?xml version='1.0' encoding='utf-16'?>{text}"), u16::to_be_bytes),
        (format!("<?xml version='1.0' encoding='UTF-16'?>{text}"), u16::to_be_bytes),
        (format!("<?xml version='1.0' encoding='UTF-16LE'?>{text}"), u16::to_le_bytes),
    ] {
        let file = utf16(&file, bytes_of);
        check_sound(&xml(), &file, &file, None);
        check_fault(&in_envelope(), &file, "wrong-encoding", "in UTF-16");
    }
}

/// A document that declares its encoding, with these bytes in its root element.
fn declared(label: &str, rest: &[u8]) -> Vec<u8> {
    let head = format!("<?xml version=\"1.0\" encoding=\"{label}\"?>\n<a>");
    [head.as_bytes(), rest, b"</a>"].concat()
}

#[test]
fn declared_encodings_are_read_by_their_names() {
    for (label, rest) in [
        ("windows-1252", &b"Gr\xfc\xdfe \x80"[..]),
        ("ISO-8859-1", b"Gr\xfc\xdfe \x81"),
        ("iso-8859-15", b"\xa4"),
        ("Shift_JIS", b"\x82\xa0"),
        ("GB18030", b"\x94\x39\xda\x33"),
        ("koi8-r", b"\xc1"),
    ] {
        let file = declared(label, rest);
        check_sound(&xml(), &file, &file, None);
        check_fault(&in_envelope(), &file, "wrong-encoding", "an envelope carries it as a text");
    }
}

#[test]
fn a_document_that_is_not_in_its_encoding_is_refused() {
    for (file, code, says) in [
        (
            declared("windows-1252", b"\x81"),
            "wrong-encoding",
            "not windows-1252 at line 2, column 4",
        ),
        (declared("ISO-8859-1", b"\x01"), "control-character", "U+0001"),
        (
            declared("us-ascii", b"\xe4"),
            "wrong-encoding",
            "bytes that are not US-ASCII at line 2, column 4",
        ),
        (declared("Shift_JIS", b"\x82 x"), "wrong-encoding", "not Shift_JIS at line 2, column 4"),
        (
            declared("UTF-8", b"\xe4x"),
            "invalid-utf8",
            "bytes that are not UTF-8 at line 2, column 4",
        ),
        (declared("klingon", b""), "wrong-encoding", "that is not known at line 1, column 31"),
        (declared("UTF-32", b""), "wrong-encoding", "that is not known"),
        (declared("UTF-16", b""), "wrong-encoding", "another encoding at line 1, column 31"),
        (
            [b"\xef\xbb\xbf", &declared("ISO-8859-1", b"")[..]].concat(),
            "wrong-encoding",
            "than UTF-8, in which",
        ),
        (
            utf16("\u{feff}<?xml version='1.0' encoding='UTF-8'?><a/>", u16::to_le_bytes),
            "wrong-encoding",
            "than UTF-16LE",
        ),
        (
            utf16("\u{feff}<?xml version='1.0' encoding='UTF-16BE'?><a/>", u16::to_le_bytes),
            "wrong-encoding",
            "than UTF-16LE",
        ),
        (
            [
                utf16("\u{feff}<a>x", u16::to_le_bytes),
                vec![0, 0xd8, b'<', 0],
                utf16("</a>", u16::to_le_bytes),
            ]
            .concat(),
            "invalid-utf16",
            "not UTF-16LE at line 1, column 5 (byte offset 10)",
        ),
        (b"<a>\xe4</a>".to_vec(), "invalid-utf8", "at line 1, column 4"),
        (b"\xff\xfe\0\0<\0\0\0".to_vec(), "wrong-encoding", "UTF-32"),
        (b"<\0\0\0a\0\0\0".to_vec(), "wrong-encoding", "UTF-32"),
    ] {
        check_fault(&xml(), file, code, says);
    }
}

#[test]
fn nesting_is_bounded_as_the_route_says() {
    let limited = |max_depth| CheckRules { max_depth, ..xml() };
    let nested = |depth: usize| "<a>".repeat(depth) + "<b/>" + &"</a>".repeat(depth);
    check_sound(&limited(10), nested(9).as_bytes(), nested(9).as_bytes(), None);
    let says = "elements nest more than 10 deep at line 1, column 31";
    check_fault(&limited(10), nested(10), "too-deep", says);
    check_fault(&limited(10), nested(100_000), "too-deep", says);
    check_sound(&limited(10_000), nested(9_999).as_bytes(), nested(9_999).as_bytes(), None);
}

fn pass_alone(rules: &CheckRules, file: &[u8]) -> Checked {
    let checker = Checker::new(rules).unwrap();
    checker.validate(&orders(), &mut Cursor::new(file), file.len() as u64, 0).result
}

#[test]
fn a_token_that_is_too_large_to_be_held_is_refused_and_text_never_is() {
    const MAX: usize = 256 * 1024;
    let mut checker = Checker::new(&xml()).unwrap();
    assert_eq!(checker.token_max, TOKEN_MAX);
    checker.token_max = MAX;
    let check = |file: &str, code: Option<&str>| {
        for block_bytes in [BLOCK_BYTES, 1_000] {
            let size = file.len() as u64;
            let mut input = Cursor::new(file);
            let findings = checker.in_blocks(&orders(), &mut input, size, 0, block_bytes);
            let found = match findings.result {
                Checked::Sound { .. } => None,
                Checked::Faulty(fault) => {
                    assert!(fault.remedy.contains("format = 'binary'"), "{fault:?}");
                    Some(fault.cause.code.0)
                }
                other @ (Checked::Truncated(_) | Checked::Unread(_)) => panic!("{other:?}"),
            };
            assert_eq!(found.as_deref(), code);
        }
    };
    let comment = |length: usize| format!("<a><!--{}--></a>", " ".repeat(length - 7));
    let too_large = Some("xml-token-too-large");
    check(&comment(MAX), None);
    check(&comment(MAX + 1), too_large);
    check(&format!("<a>\n<b c='{}'/></a>", "x".repeat(MAX)), too_large);
    check(&format!("<a><![CDATA[{}", "x".repeat(MAX + BLOCK_BYTES)), too_large);
    check(&format!("<!DOCTYPE a [{}", " ".repeat(MAX + BLOCK_BYTES)), too_large);
    let name = "n".repeat(MAX / 32 - 1);
    check(&format!("<{name}><{name}></{name}></{name}>"), None);
    check(&format!("<{name}><{name}><{name}/></{name}></{name}>"), None);
    check(&format!("<{name}><{name}><{name}></{name}></{name}></{name}>"), too_large);
    check(&format!("<a>{}</a>", "x".repeat(2 * MAX)), None);
}

#[test]
fn a_token_that_takes_its_turn_gives_it_back() {
    let large = format!("<a><!--{}--><b/></a>", "-x".repeat(TOKEN_FREE));
    for _ in 0..2 {
        assert!(matches!(pass_alone(&xml(), large.as_bytes()), Checked::Sound { .. }));
    }
}

#[test]
fn very_many_attributes_are_compared_in_good_time() {
    let many: String =
        (0..100_000).fold(String::new(), |many, number| many + &format!(" a{number}='1'"));
    let sound = format!("<a{many}/>");
    assert!(matches!(pass_alone(&xml(), sound.as_bytes()), Checked::Sound { .. }));
    let twice = format!("<a{many} a7=''/>");
    let Checked::Faulty(fault) = pass_alone(&xml(), twice.as_bytes()) else { panic!("sound") };
    assert!(fault.cause.plain.contains("twice"), "{fault:?}");
}

#[test]
fn places_hold_however_far_in_the_file() {
    let lines = "<row name=\"ü\">ß &amp; x</row>\n".repeat(5_000);
    let file = format!("<a>\n{lines}<row b=\"1\" b=\"2\"/></a>");
    let Checked::Faulty(fault) = pass_alone(&xml(), file.as_bytes()) else { panic!("sound") };
    assert!(fault.cause.plain.contains("at line 5002, column 12"), "{fault:?}");
    let excerpt = fault.cause.excerpt.unwrap();
    assert!(excerpt.contains("<row b=\"1\" ▸b=\"2\"/>"), "{excerpt}");
}

/// Parts of which documents are, right and wrong.
const PARTS: [&str; 40] = [
    "<a>",
    "</a>",
    "<a/>",
    "<b c='",
    "'/>",
    "<b c=\"d\"",
    ">",
    "/>",
    "<",
    "&amp;",
    "&#65;",
    "&",
    ";",
    "<!--",
    "-->",
    "--",
    "<![CDATA[",
    "]]>",
    "]]",
    "]",
    "<?xml version='1.0'?>",
    "<?p",
    "?>",
    "?",
    "<!DOCTYPE a",
    " [",
    "<!ENTITY x '",
    "'>",
    "<!ELEMENT",
    "<!NOT",
    "<!ATTLIST",
    "<!-",
    "<!",
    "!",
    " ",
    "\n",
    "ü",
    "x",
    "\0",
    "\u{feff}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_way_of_cutting_a_document_changes_what_it_is(
        parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..30),
        block_bytes in prop::collection::vec(2 * HEAD_BYTES..40, 3),
    ) {
        let file = parts.concat();
        let told = |block_bytes| match pass(&xml(), file.as_bytes(), block_bytes).result {
            Checked::Sound { envelope, body } => {
                assert_eq!(body.as_deref(), Some(file.as_bytes()));
                (envelope.bytes, envelope.digest.to_string())
            }
            Checked::Truncated(fault) => (1, fault.cause.plain),
            Checked::Faulty(fault) => (2, fault.cause.plain),
            Checked::Unread(error) => panic!("{error}"),
        };
        let whole = told(BLOCK_BYTES);
        for block_bytes in block_bytes {
            prop_assert_eq!(&told(block_bytes), &whole, "{:?} {}", &file, block_bytes);
        }
    }
}
