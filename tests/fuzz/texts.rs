//! Configs, documents and names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;

use patchdrop::config::{self, Environment, LoadOptions};
use patchdrop::journey::detect::is_sidecar;
use patchdrop::journey::settle::{
    NAME_MAX_BYTES, beside, claimed_id, claimed_name, name_of_claimed, targets,
};
use patchdrop::journey::validate::{Checked, Checker};
use patchdrop::model::file::FileId;
use patchdrop::model::route::{CheckRules, Encoding, Format, RouteName};
use patchdrop::model::step::Wrap;
use proptest::prelude::*;

use super::{fuzz, mutated};

const CONFIG: &str = include_str!("../../examples/config.toml");

/// What stands in configs and is easily got wrong.
const CONFIG_PARTS: &[&[u8]] = &[
    b"'",
    b"\"",
    b"\n",
    b"[",
    b"]]",
    b"=",
    b"{ file = 'x' }",
    b"{ env = \"X\" }",
    b"'99999999999d'",
    b"-1",
    b"1e400",
    b"'{vanity}'",
    b"{name}",
    b"'0s'",
    b"[route.a]\n",
    b"[defaults]\n",
    b"\xff",
    b"'8EB'",
    b"..",
    b"/",
    b"'*'",
    b"[[",
    b"'\\",
    b"\xc3\xa4",
    b"'https://'",
    b"http://[::1",
    b"#",
];

#[test]
fn no_text_is_too_odd_for_the_config() {
    // With its examples switched on, it has every key.
    let all: String = CONFIG
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let wild = prop::collection::vec(any::<u8>(), 0..400);
    let texts = prop_oneof![
        4 => mutated(CONFIG.into(), CONFIG_PARTS),
        4 => mutated(all.into_bytes(), CONFIG_PARTS),
        1 => wild,
    ];
    let options = LoadOptions {
        base: Some(Path::new("/nowhere").to_owned()),
        environment: Environment::Given(BTreeMap::new()),
        secrets_may_be_missing: false,
        ..LoadOptions::default()
    };
    fuzz(texts, |text| match config::read(&text, Path::new("config.toml"), &options) {
        Ok(config) => drop(config),
        Err(faults) => assert!(!faults.to_string().is_empty(), "refused without a word"),
    });
}

const DOCUMENT_PARTS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud83d",
    b"\\udc00",
    b"1e999",
    b"-",
    b"-0.0e-",
    b"null",
    b",",
    b":",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\0",
    b"\xed\xa0\x80",
    b"\x81",
    b"{\"a\":{\"a\":",
    b"[[[[[[[[",
    b"<!DOCTYPE a [",
    b"<a>",
    b"</a>",
    b"<![CDATA[",
    b"]]>",
    b"&#x0;",
    b"&amp",
    b"<?xml version='1.0' encoding='UTF-16'?>",
    b"<!--",
    b"-->",
    b"xmlns:a=''",
];

fn rules(format: Format, encoding: Encoding, wrap: bool) -> CheckRules {
    CheckRules {
        format,
        max_depth: 64,
        strict: true,
        schema: None,
        schema_max_bytes: 0,
        encoding,
        wrap: wrap.then_some(Wrap::Payload),
        body_max_bytes: Some(1_000_000),
    }
}

#[test]
fn no_bytes_are_too_odd_for_validation() {
    let json = "{\"order\": [1, -2.5e3, \"gr\u{fc}n \u{1f600}\", {\"a\": null, \"b\": true}]}";
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let xml = "<?xml version='1.0'?><a xmlns:b='urn:b'><b:c d='1'>&lt;x</b:c><!-- c --></a>";
    let documents = prop_oneof![
        mutated(json.into(), DOCUMENT_PARTS),
        mutated(utf16(json), DOCUMENT_PARTS),
        mutated(xml.into(), DOCUMENT_PARTS),
        mutated(utf16(xml), DOCUMENT_PARTS),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let formats =
        prop::sample::select(vec![Format::Json, Format::Xml, Format::Text, Format::Binary]);
    let encodings = prop::sample::select(vec![
        Encoding::Auto,
        Encoding::Utf8,
        Encoding::Utf16,
        Encoding::Windows1252,
    ]);
    let route = RouteName::new("orders");
    fuzz((documents, formats, encodings, any::<bool>()), |(document, format, encoding, wrap)| {
        let Ok(checker) = Checker::new(&rules(format, encoding, wrap)) else { return };
        let size = document.len() as u64;
        let found = checker.validate(&route, &mut document.as_slice(), size, 4_096);
        if let Checked::Faulty(fault) = &found.result {
            assert!(!format!("{fault:?}").is_empty());
        } else {
            assert_eq!(found.read_bytes, size, "called good and not read to its end");
        }
    });
}

/// What a file system lets somebody call a file.
fn names() -> impl Strategy<Value = OsString> {
    let odd = prop::sample::select(vec![
        ".",
        "..",
        "~",
        "~2",
        ".json",
        "a~2.json",
        "x.why.txt",
        "x.receipt.json",
        ".patchdrop",
        ".patchdrop-1-2.part",
        "01m815ce5n~a.json",
        "01m815ce5n~",
        "01m815ce5n~01m815ce5n~a.json",
        "a.json.",
        "CON",
        "a\u{202e}b.json",
        "\u{1f600}.json",
        "zzzzzzzzzzzz~a",
    ]);
    prop_oneof![
        odd.prop_map(OsString::from),
        "[a-z~.0-9\u{e4}\u{1f600} -]{1,80}".prop_map(OsString::from),
        prop::collection::vec(1_u8..=255, 1..=NAME_MAX_BYTES).prop_map(os_string),
    ]
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> OsString {
    let bytes = bytes.into_iter().filter(|byte| *byte != b'/').collect();
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).replace(['/', '\\'], "").into()
}

#[test]
fn no_name_is_too_odd_for_a_target() {
    fuzz((names(), 0_u64..1 << 50), |(name, number)| {
        if name.is_empty() || name == "." || name == ".." {
            return;
        }
        let id = FileId(number);
        let is_one_name = |target: &OsStr| {
            Path::new(target).file_name() == Some(target)
                && target.len() <= NAME_MAX_BYTES.max(name.len())
        };
        let all: Vec<OsString> = targets(&name, id).collect();
        let different: BTreeSet<&OsString> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{name:?} leads to {all:?}");
        for target in &all {
            assert!(is_one_name(target), "{name:?} leads to {target:?}");
        }
        for ending in [".why.txt", ".receipt.json"] {
            let sidecar = beside(&name, id, ending);
            assert!(is_one_name(&sidecar), "{name:?} has {sidecar:?} beside it");
        }
        let claimed = claimed_name(id, &name);
        assert!(is_one_name(&claimed), "{name:?} is claimed as {claimed:?}");
        assert_eq!(claimed_id(&claimed), Some(id), "{name:?} is claimed as {claimed:?}");
        // Whatever lies in `sending/` is only looked at.
        drop((claimed_id(&name), name_of_claimed(&name), is_sidecar(&name)));
    });
}
