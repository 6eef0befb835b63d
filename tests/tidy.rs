//! The habits of this repository, held by tests: which layer may name which, what the documents
//! say exists, and words and shapes that we do not want.
//!
//! Every scan is a function from text to findings, so that each is also shown a planted violation.
#![expect(clippy::disallowed_methods, reason = "reads the repository itself, not drop folders")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Which layers a layer may name besides itself. A new arrow is an edit here, where everyone
/// notices it.
const LAYERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("journey", &["model"]),
    ("world", &["model"]),
    ("config", &["model"]),
    ("daemon", &["model", "journey", "world", "config"]),
    ("web", &["model", "world", "daemon"]),
    ("service", &["model"]),
    ("telemetry", &["model", "config"]),
    ("simulator", &["model", "config"]),
    (
        "cli",
        &[
            "model",
            "journey",
            "world",
            "config",
            "daemon",
            "web",
            "service",
            "telemetry",
            "simulator",
        ],
    ),
    ("main", &["cli"]),
];

/// The files that may wait for a clock, and why. A new one is an edit here.
const WAITS: &[&str] = &[
    // The door to the system's clock.
    "src/world/clock.rs",
    // A nap of half a millisecond instead of a wake-up for each request that joins a group commit.
    "src/world/gather.rs",
    // No progress for too long ends an attempt: the timeout itself, reset as bytes move.
    "src/world/endpoint/mod.rs",
    // After a failed `accept` (out of descriptors) there is nothing else to wait for; and a pipe has
    // no queue, so a caller that finds it taken comes again.
    "src/world/control/unix.rs",
    "src/world/control/pipe.rs",
    "src/simulator/mod.rs",
    // Windows' service manager tells nobody when a service has started or stopped.
    "src/service/windows/install.rs",
    // A slow server is one of the things that it plays.
    "src/simulator/door.rs",
    // The sim's own clock: tokio's, paused, so that it costs no time.
    "tests/sim/main.rs",
    "tests/sim/world.rs",
];

/// Longest file that still fits in one head.
const LINES_MAX: usize = 1200;

/// As in rustfmt.toml, which leaves comments alone. What a string holds does not count: a message
/// on one line is found by searching for it. Nor does a row of a table in a doc comment: it cannot
/// be broken.
const WIDTH_MAX: usize = 100;

/// Endings of type names that hide what the type is.
const VAGUE_ENDINGS: &[&str] =
    &["Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Info", "Data"];

/// File names that say nothing about what is in them.
const VAGUE_FILES: &[&str] =
    &["util.rs", "utils.rs", "helper.rs", "helpers.rs", "misc.rs", "common.rs", "manager.rs"];

/// Notes to oneself. Written apart so that this file is clean itself.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Beginnings of paths that exist on one person's machine only.
const HOMES: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/wo", "rk/"),
    concat!(r"C:\Us", r"ers\"),
];

// The repository as text.

/// Text files by path from the top, with `/` between the parts.
type Tree = BTreeMap<String, String>;

fn repository() -> Tree {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    collect(top, "", &mut tree);
    assert!(tree.contains_key("src/lib.rs"), "the repository was not found at {}", top.display());
    tree
}

fn collect(folder: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(folder).expect("the repository can be listed") {
        let entry = entry.expect("the repository can be listed");
        let name = entry.file_name().into_string().expect("names in the repository are UTF-8");
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the type of an entry is known");
        if kind.is_dir() {
            if path != "target" && name != ".git" {
                collect(&entry.path(), &format!("{path}/"), tree);
            }
        } else if kind.is_file() && name != ".git" {
            let bytes = fs::read(entry.path()).expect("a file of the repository can be read");
            tree.insert(path, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

fn rust_files<'a>(
    tree: &'a Tree,
    folders: &'a [&str],
) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
    tree.iter()
        .filter(|(path, _)| is_rust(path) && folders.iter().any(|f| path.starts_with(f)))
        .map(|(path, text)| (path.as_str(), text.as_str()))
}

fn report(findings: &[String]) {
    assert!(findings.is_empty(), "{} to mend:\n{}\n", findings.len(), findings.join("\n"));
}

// A small reader of Rust: comments, strings and characters become blanks, the rest becomes tokens.

fn code_only(text: &str) -> String {
    let blank =
        |piece: &[char]| piece.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }).collect();
    rewritten(text, |_, piece| blank(piece))
}

/// The text with what its strings hold taken out.
fn without_strings(text: &str) -> String {
    let line_ends = |piece: &[char]| piece.iter().filter(|c| **c == '\n').collect();
    rewritten(
        text,
        |is_comment, piece| {
            if is_comment { piece.iter().collect() } else { line_ends(piece) }
        },
    )
}

/// The text with each comment (true) and each literal (false) replaced.
fn rewritten(text: &str, replace: impl Fn(bool, &[char]) -> String) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let (is_comment, end) = match (chars[at], chars.get(at + 1).copied()) {
            ('/', Some('/')) => (true, line_end(&chars, at)),
            ('/', Some('*')) => (true, comment_end(&chars, at)),
            ('"', _) => (false, string_end(&chars, at)),
            ('r', Some('"' | '#')) if !is_word_before(&chars, at) => {
                (false, raw_string_end(&chars, at))
            }
            ('\'', _) => (false, character_end(&chars, at)),
            _ => (false, at),
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.push_str(&replace(is_comment, &chars[at..end]));
            at = end;
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a word is still going on before this place; the prefix of `br""` or `cr""` is none.
fn is_word_before(chars: &[char], at: usize) -> bool {
    let is_word_at = |n: usize| at >= n && is_word(chars[at - n]);
    is_word_at(1) && (is_word_at(2) || !matches!(chars[at - 1], 'b' | 'c'))
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < chars.len() {
        match (chars[here], chars.get(here + 1)) {
            ('/', Some('*')) => (depth, here) = (depth + 1, here + 2),
            ('*', Some('/')) => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            return here;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut here = at + 1;
    while here < chars.len() {
        match chars[here] {
            '\\' => here += 2,
            '"' => return here + 1,
            _ => here += 1,
        }
    }
    chars.len()
}

/// `at` itself when this is not a raw string after all (`r#type`, `br`).
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let quote = at + 1 + hashes;
    if chars.get(quote) != Some(&'"') {
        return at;
    }
    (quote + 1..chars.len())
        .find(|end| {
            chars[*end] == '"'
                && chars[end + 1..].iter().take_while(|c| **c == '#').count() >= hashes
        })
        .map_or(chars.len(), |end| end + 1 + hashes)
}

/// `at` itself when this is a lifetime.
fn character_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let after = (at + 3).min(chars.len());
            chars[after..].iter().position(|c| *c == '\'').map_or(chars.len(), |n| after + n + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        if c.is_whitespace() {
            continue;
        }
        let mut text = String::from(c);
        if is_word(c) {
            while let Some(next) = chars.next_if(|c| is_word(*c)) {
                text.push(next);
            }
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            text.push(':');
        }
        tokens.push(Token { text, line });
    }
    tokens
}

fn read(text: &str) -> Vec<Token> {
    tokens(&code_only(text))
}

fn text_at(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// One path as written, `use` groups unfolded, with how many inline modules it stands in.
#[derive(Debug)]
struct Named {
    segments: Vec<String>,
    line: usize,
    depth: usize,
}

fn paths(tokens: &[Token]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = text_at(tokens, at);
        if text == "{" {
            braces.push(at >= 2 && text_at(tokens, at - 2) == "mod");
        } else if text == "}" {
            braces.pop();
        } else if is_name(text) {
            let depth = braces.iter().filter(|is_module| **is_module).count();
            at = unfold(tokens, at, &[], depth, &mut found);
            continue;
        }
        at += 1;
    }
    found
}

/// Reads one path (or `use` tree) that begins at `at`; returns where it ends.
fn unfold(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    depth: usize,
    found: &mut Vec<Named>,
) -> usize {
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    loop {
        segments.push(text_at(tokens, at).to_owned());
        at += 1;
        if text_at(tokens, at) != "::" {
            break;
        }
        let next = text_at(tokens, at + 1);
        if next == "{" {
            return unfold_group(tokens, at + 2, &segments, depth, found);
        }
        if !is_name(next) && next != "*" {
            at += 1;
            break;
        }
        at += 1;
    }
    found.push(Named { segments, line, depth });
    at
}

fn unfold_group(
    tokens: &[Token],
    mut at: usize,
    prefix: &[String],
    depth: usize,
    found: &mut Vec<Named>,
) -> usize {
    while at < tokens.len() {
        match text_at(tokens, at) {
            "}" => return at + 1,
            text if is_name(text) || text == "*" => at = unfold(tokens, at, prefix, depth, found),
            _ => at += 1,
        }
    }
    at
}

// Layers.

/// The layer a file belongs to, and how deep its module lies below the crate.
fn layer_of(path: &str) -> (&str, usize) {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let layer = inside.split('/').next().unwrap_or(inside);
    let parts = inside.split('/').filter(|part| *part != "mod").count();
    (layer, if layer == "main" || layer == "lib" { 0 } else { parts })
}

/// What a path names at the top of the crate; `None` when it does not reach up there.
fn top_name(named: &Named, file_depth: usize) -> Option<&str> {
    let segments: Vec<&str> =
        named.segments.iter().map(String::as_str).skip_while(|s| *s == "self").collect();
    let ups = segments.iter().take_while(|s| **s == "super").count();
    match segments.first().copied() {
        Some("crate" | "patchdrop") => Some(segments.get(1).copied().unwrap_or("")),
        Some("super") if ups >= file_depth + named.depth => {
            Some(segments.get(ups).copied().unwrap_or(""))
        }
        _ => None,
    }
}

fn layer_findings(path: &str, text: &str) -> Vec<String> {
    let (layer, file_depth) = layer_of(path);
    if layer == "lib" {
        return Vec::new();
    }
    let Some((_, may_name)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{path}: `{layer}` is in no layer; give it one in tests/tidy.rs")];
    };
    let all = read(text);
    let mut findings = Vec::new();
    for named in paths(&all) {
        let line = named.line;
        match top_name(&named, file_depth) {
            None => {}
            Some("") if is_visibility(&all, line) => {}
            Some("" | "*") => {
                findings.push(format!("{path}:{line}: takes the whole crate; name what you need"));
            }
            Some(other) if other == layer || may_name.contains(&other) => {}
            Some(other) => findings.push(format!(
                "{path}:{line}: {layer} names `{other}`; it may name only: {}",
                if may_name.is_empty() { "none".to_owned() } else { may_name.join(", ") }
            )),
        }
    }
    findings
}

/// Whether a bare `crate` or `super` on this line is that of `pub(crate)`.
fn is_visibility(tokens: &[Token], line: usize) -> bool {
    let on_line: Vec<&str> =
        tokens.iter().filter(|t| t.line == line).map(|t| t.text.as_str()).collect();
    on_line.windows(4).any(|w| {
        w[0] == "pub" && w[1] == "(" && matches!(w[2], "crate" | "super" | "self") && w[3] == ")"
    })
}

#[test]
fn each_layer_names_only_what_it_may() {
    let tree = repository();
    let findings: Vec<String> =
        rust_files(&tree, &["src/"]).flat_map(|(path, text)| layer_findings(path, text)).collect();
    report(&findings);
}

#[test]
fn a_planted_arrow_between_layers_is_found() {
    #[track_caller]
    fn check(path: &str, text: &str, expected: usize) {
        let findings = layer_findings(path, text);
        assert_eq!(findings.len(), expected, "{path}: {text}\n{findings:#?}");
    }
    check("src/journey/send.rs", "use crate::model::file::FileId;", 0);
    check("src/journey/send.rs", "use crate::journey::ready;", 0);
    check("src/journey/send.rs", "use crate::world::clock::Clock;", 1);
    check("src/journey/send.rs", "use crate::{model::time::Now, world::{self, clock}};", 2);
    check("src/journey/send.rs", "fn f() { crate::world::clock::now() }", 1);
    check("src/journey/send.rs", "mod tests { use crate::daemon::carry; }", 1);
    check("src/journey/send.rs", "use super::super::world::clock;", 1);
    check("src/journey/send.rs", "use super::ready; mod tests { use super::super::ready; }", 0);
    check("src/journey/send.rs", "mod tests { use super::super::super::world; }", 1);
    check("src/journey/send.rs", "use super::{ready, super::world::clock};", 1);
    check("src/journey/mod.rs", "use super::world;", 1);
    check("src/telemetry.rs", "use super::config::LogRules; use super::daemon;", 1);
    check("src/telemetry.rs", "mod tests { use super::*; }", 0);
    check("src/model/file.rs", "use crate::journey::ready;", 1);
    check("src/model/file.rs", "use crate::*;", 1);
    check("src/model/file.rs", "use crate as root;", 1);
    check("src/model/file.rs", "use crate::FileId;", 1);
    check("src/model/file.rs", "pub(crate) fn f() {} pub(super) fn g() {}", 0);
    check("src/model/file.rs", "// use crate::world;\n/* crate::world /* */ */", 0);
    check("src/model/file.rs", "const A: &str = \"crate::world\"; const B: char = '\"';", 0);
    check("src/model/file.rs", "const A: &str = r#\"\"crate::world\"#; use crate::cli::run;", 1);
    check("src/model/file.rs", "fn f<'a>(a: &'a str) { crate::cli::run() }", 1);
    check("src/cli/run.rs", "use crate::daemon::event; use crate::web;", 0);
    check("src/main.rs", "fn main() { patchdrop::cli::run() }", 0);
    check("src/main.rs", "fn main() { patchdrop::daemon::run() }", 1);
    check("src/glue.rs", "", 1);
}

#[test]
fn the_table_of_layers_has_no_cycle() {
    let mut settled = BTreeSet::new();
    while settled.len() < LAYERS.len() {
        let next = LAYERS.iter().find(|(layer, may_name)| {
            !settled.contains(layer) && may_name.iter().all(|other| settled.contains(other))
        });
        let (layer, _) = next.expect("some layer names only settled ones");
        settled.insert(layer);
    }
}

// Documents.

/// Inline code of a Markdown text, with its line; fenced blocks are left out.
fn inline_code(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            let inside = line.split('`').skip(1).step_by(2);
            found.extend(inside.map(|code| (number + 1, code.to_owned())));
        }
    }
    found
}

/// The path that a piece of inline code means in this repository, if it looks like one.
fn meant_path(code: &str) -> Option<&str> {
    const FOLDERS: &[&str] = &["src/", "tests/", "benches/", "examples/", "packaging/", ".ci/"];
    let path = code.split_whitespace().next()?.trim_start_matches("./");
    let stem = path.strip_suffix(".md").unwrap_or("");
    let is_document = !stem.is_empty() && stem.chars().all(|c| c.is_ascii_uppercase());
    let is_ours = FOLDERS.iter().any(|folder| path.starts_with(folder))
        || (is_rust(path) && !path.starts_with('/'))
        || is_document;
    (is_ours && !path.contains(['*', '<', '{', '…'])).then_some(path)
}

fn path_findings(document: &str, text: &str, tree: &Tree) -> Vec<String> {
    let exists = |path: &str| {
        let folder = format!("{}/", path.trim_end_matches('/'));
        tree.contains_key(path) || tree.keys().any(|known| known.starts_with(&folder))
    };
    inline_code(text)
        .iter()
        .filter_map(|(line, code)| meant_path(code).map(|path| (line, path)))
        .filter(|(_, path)| !exists(path) && !exists(&format!("src/{path}")))
        .map(|(line, path)| format!("{document}:{line}: `{path}` does not exist"))
        .collect()
}

#[test]
fn every_path_in_the_documents_exists() {
    let tree = repository();
    let mut findings = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"] {
        match tree.get(document) {
            Some(text) => findings.extend(path_findings(document, text, &tree)),
            None => findings.push(format!("{document} is missing")),
        }
    }
    report(&findings);
}

#[test]
fn a_planted_dead_path_is_found() {
    let tree = Tree::from([
        ("src/world/folder.rs".to_owned(), String::new()),
        ("tests/run".to_owned(), String::new()),
    ]);
    let check = |text: &str, expected: usize| {
        let findings = path_findings("README.md", text, &tree);
        assert_eq!(findings.len(), expected, "{text}\n{findings:#?}");
    };
    check("`src/world/folder.rs`, `world/folder.rs`, `./tests/run quick`, `src/world/`", 0);
    check("`src/world/folders.rs`", 1);
    check("`world/folders.rs` and `tests/runs`", 2);
    check("`SECURITY.md`", 1);
    check("`/etc/patchdrop/config.toml`, `root/orders/`, `src/*.rs`, `sent/`", 0);
    check("```\n`src/gone.rs`\n```\n`src/gone.rs`", 1);
}

/// A file directly in a layer is named itself; for what is deeper its folder may stand;
/// `tests.rs` belongs to the file that it tests.
fn map_findings(map: &str, tree: &Tree) -> Vec<String> {
    let named: BTreeSet<String> = inline_code(map)
        .into_iter()
        .map(|(_, code)| code.trim_start_matches("src/").to_owned())
        .collect();
    let is_named = |path: &str| {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let may_stand = file == "mod.rs" || folder.contains('/');
        file == "tests.rs"
            || named.contains(path)
            || (may_stand && named.contains(&format!("{folder}/")))
    };
    rust_files(tree, &["src/"])
        .filter_map(|(path, _)| path.strip_prefix("src/"))
        .filter(|path| !is_named(path))
        .map(|path| format!("ARCHITECTURE.md: the code map does not name `src/{path}`"))
        .collect()
}

#[test]
fn the_code_map_names_every_module() {
    let tree = repository();
    let map = tree.get("ARCHITECTURE.md").expect("ARCHITECTURE.md is at the top");
    report(&map_findings(map, &tree));
}

#[test]
fn a_module_left_out_of_the_code_map_is_found() {
    let tree = ["src/lib.rs", "src/world/mod.rs", "src/world/clock.rs", "src/world/ledger/text.rs"];
    let tree: Tree = tree.iter().map(|path| ((*path).to_owned(), String::new())).collect();
    let count = |map: &str| map_findings(map, &tree).len();
    assert_eq!(count("`src/lib.rs` `world/` `world/clock.rs` `world/ledger/`"), 0);
    assert_eq!(count("`lib.rs` `world/mod.rs` `src/world/clock.rs` `world/ledger/text.rs`"), 0);
    assert_eq!(count("`lib.rs` `world/` `world/ledger/` and clock.rs"), 1);
    assert_eq!(count("`lib.rs` `world/` `world/clock.rs`"), 1);
    assert_eq!(count("```\nsrc/world/clock.rs\n```"), 4);
}

/// Tables of ARCHITECTURE.md whose last cell names tests, or says why there is none.
const TABLES: [&str; 2] = ["Faults", "What others suffered"];

/// The last cells of a table's rows.
fn last_cells<'d>(document: &'d str, section: &str) -> Vec<&'d str> {
    let table = document.split(&format!("\n## {section}\n")).nth(1).unwrap_or_default();
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| row.trim_end_matches('|').rsplit('|').next()).map(str::trim).collect()
}

/// The tests named in these tables must exist, and who names none must say something.
fn fault_findings(document: &str, tree: &Tree) -> Vec<String> {
    let cells = TABLES.iter().flat_map(|section| last_cells(document, section));
    let mut findings = Vec::new();
    for cell in cells {
        if cell.is_empty() {
            findings.push("ARCHITECTURE.md: a row names no test and says not why".to_owned());
        }
        findings.extend(
            cell.split('`')
                .skip(1)
                .step_by(2)
                .filter(|name| {
                    let function = format!("fn {name}(");
                    !tree.values().any(|text| text.contains(&function))
                })
                .map(|name| format!("ARCHITECTURE.md: there is no test `{name}`")),
        );
    }
    findings
}

#[test]
fn every_test_in_the_tables_of_faults_exists() {
    let tree = repository();
    let document = tree.get("ARCHITECTURE.md").expect("ARCHITECTURE.md is at the top");
    for section in TABLES {
        assert!(last_cells(document, section).len() > 9, "the table {section:?} is gone");
    }
    report(&fault_findings(document, &tree));
}

#[test]
fn a_test_that_is_gone_is_found_in_the_tables_of_faults() {
    let tree = Tree::from([("tests/a.rs".to_owned(), "fn it_holds() {}".to_owned())]);
    let count = |row: &str| {
        let findings = TABLES.map(|section| {
            let document =
                format!("\n## {section}\n\n| a | b | c |\n|---|---|---|\n{row}\n\n## B\n");
            fault_findings(&document, &tree).len()
        });
        assert_eq!(findings[0], findings[1]);
        findings[0]
    };
    assert_eq!(count("| `no_test` | x | `it_holds` |"), 0);
    assert_eq!(count("| x | x | `it_holds`, `it_held` |"), 1);
    assert_eq!(count("| x | x | |"), 1);
    assert_eq!(count("| x | x | no test: it cannot be |"), 0);
}

// Shapes and words.

fn long_findings(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = (lines > LINES_MAX)
        .then(|| format!("{path}: {lines} lines; would two rooms be clearer? (max {LINES_MAX})"));
    let is_row = |line: &str| {
        line.trim_start().starts_with("//! |") || line.trim_start().starts_with("/// |")
    };
    let bare = if path.starts_with("src/") { without_strings(text) } else { String::new() };
    let wide = bare
        .lines()
        .enumerate()
        .filter(|(_, line)| line.chars().count() > WIDTH_MAX && !is_row(line))
        .map(|(number, _)| format!("{path}:{}: wider than {WIDTH_MAX}", number + 1));
    long.into_iter().chain(wide).collect()
}

#[test]
fn files_are_short_and_lines_narrow() {
    let tree = repository();
    let findings: Vec<String> = rust_files(&tree, &["src/", "tests/", "benches/"])
        .flat_map(|(path, text)| long_findings(path, text))
        .collect();
    report(&findings);
}

#[test]
fn a_planted_long_file_or_line_is_found() {
    assert_eq!(long_findings("src/a.rs", &"\n".repeat(LINES_MAX)).len(), 0);
    assert_eq!(long_findings("src/a.rs", &"\n".repeat(LINES_MAX + 1)).len(), 1);
    assert_eq!(long_findings("src/a.rs", &"ü".repeat(WIDTH_MAX)).len(), 0);
    assert_eq!(long_findings("src/a.rs", &"x".repeat(WIDTH_MAX + 1)).len(), 1);
    let literal = format!("say(\"{}\")", "x".repeat(WIDTH_MAX));
    assert_eq!(long_findings("src/a.rs", &literal).len(), 0);
    assert_eq!(long_findings("src/a.rs", &format!("{literal};\n// {literal}")).len(), 1);
    assert_eq!(long_findings("src/a.rs", &format!("//! | {literal} |")).len(), 0);
    assert_eq!(long_findings("src/a.rs", &format!("//! {literal} |")).len(), 1);
}

fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line.get(..start).and_then(|s| s.chars().next_back());
        let after = line.get(start + word.len()..).and_then(|s| s.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn note_findings(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for note in NOTES.iter().filter(|note| holds_word(line, note)) {
            findings.push(format!("{path}:{}: {note}: do it, or open an issue", number + 1));
        }
    }
    findings
}

/// A home folder, unless it is the middle of a longer path.
fn home_findings(path: &str, text: &str) -> Vec<String> {
    let begins_here = |line: &str, home: &str| {
        line.match_indices(home).any(|(start, _)| {
            let before = line.get(..start).and_then(|s| s.chars().next_back());
            !before.is_some_and(|c| is_word(c) || matches!(c, '/' | '.' | '}' | '-' | '\\'))
        })
    };
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| HOMES.iter().any(|home| begins_here(line, home)))
        .map(|(number, _)| format!("{path}:{}: names a path of one machine", number + 1))
        .collect()
}

#[test]
fn nothing_is_left_as_a_note_and_no_path_is_one_machines() {
    let tree = repository();
    let findings: Vec<String> = tree
        .iter()
        .filter(|(path, _)| *path != "Cargo.lock")
        .flat_map(|(path, text)| [note_findings(path, text), home_findings(path, text)].concat())
        .collect();
    report(&findings);
}

#[test]
fn a_planted_note_or_home_folder_is_found() {
    let note = |text: String| note_findings("a.rs", &text).len();
    assert_eq!(note(format!("// {}: later", NOTES[0])), 1);
    assert_eq!(note(format!("// {}(me)", NOTES[1])), 1);
    assert_eq!(note(format!("let {}S = 1; // the {}X", NOTES[0], NOTES[2])), 0);
    let home = |text: String| home_findings("a.md", &text).len();
    assert_eq!(home(format!("see `{}me/notes`", HOMES[0])), 1);
    assert_eq!(home(format!("cd {}main", HOMES[3])), 1);
    assert_eq!(home(format!("'{}me'", HOMES[4])), 1);
    assert_eq!(home(format!("/srv{}orders and ${{drop}}{}orders", HOMES[1], HOMES[1])), 0);
}

/// Tests that are switched off, and waits that make tests slow and then wrong.
fn habit_findings(path: &str, text: &str) -> Vec<String> {
    let all = read(text);
    let mut findings = Vec::new();
    for (at, token) in all.iter().enumerate() {
        let before = |n: usize| at.checked_sub(n).map_or("", |at| text_at(&all, at));
        let after = text_at(&all, at + 1);
        let line = token.line;
        if token.text == "ignore" && before(1) == "[" && before(2) == "#" {
            findings.push(format!("{path}:{line}: an ignored test is no test"));
        }
        let is_free_call = after == "(" && !matches!(before(1), "." | "::" | "fn");
        if token.text.starts_with("sleep") && !WAITS.contains(&path) && is_free_call {
            findings.push(format!("{path}:{line}: sleeps; wait for what you wait for"));
        }
    }
    let may_wait = WAITS.contains(&path);
    for named in paths(&all).iter().filter(|named| !may_wait && named.segments.len() > 1) {
        let last = named.segments.last().map_or("", String::as_str);
        let parent = &named.segments[named.segments.len() - 2];
        if last.starts_with("sleep") && (parent == "thread" || parent == "time") {
            findings.push(format!("{path}:{}: sleeps; wait for what you wait for", named.line));
        }
    }
    findings
}

#[test]
fn no_test_is_ignored_and_nothing_sleeps() {
    let tree = repository();
    let findings: Vec<String> = rust_files(&tree, &["src/", "tests/"])
        .flat_map(|(path, text)| habit_findings(path, text))
        .collect();
    report(&findings);
}

#[test]
fn a_planted_ignore_or_sleep_is_found() {
    let is_found = |text: &str| !habit_findings("src/a.rs", text).is_empty();
    assert!(is_found("#[test]\n#[ignore]\nfn f() {}"));
    assert!(is_found("#[ignore = \"slow\"] fn f() {}"));
    assert!(is_found("fn f() { std::thread::sleep(span) }"));
    assert!(is_found("fn f() { thread::sleep(span) }"));
    assert!(is_found("fn f() { tokio::time::sleep(span).await }"));
    assert!(is_found("use std::{thread::sleep, time::Duration};"));
    assert!(is_found("use tokio::time::{sleep_until, Instant};"));
    assert!(is_found("fn f() { sleep(span) }"));
    assert!(!is_found("fn f() { clock.sleep(span).await; Clock::sleep(&clock, span) }"));
    assert!(!is_found("fn sleep(&self) {} // thread::sleep\nconst A: &str = \"#[ignore]\";"));
    assert!(habit_findings(WAITS[0], "fn f() { tokio::time::sleep(span) }").is_empty());
}

fn word_findings(path: &str, text: &str) -> Vec<String> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut findings: Vec<String> = VAGUE_FILES
        .iter()
        .filter(|vague| **vague == file)
        .map(|_| format!("{path}: a name that says nothing; what is in it?"))
        .collect();
    for pair in read(text).windows(2) {
        let is_type = matches!(pair[0].text.as_str(), "struct" | "enum" | "trait" | "type");
        let name = &pair[1].text;
        // An associated type may have to be called that: `type Data = Bytes;`.
        let is_chosen = pair[0].text != "type" || !VAGUE_ENDINGS.contains(&name.as_str());
        if is_type && is_chosen && VAGUE_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            let line = pair[1].line;
            findings.push(format!("{path}:{line}: `{name}` hides what it is; see the glossary"));
        }
    }
    findings
}

#[test]
fn names_say_what_a_thing_is() {
    let tree = repository();
    let findings: Vec<String> = rust_files(&tree, &["src/", "tests/", "benches/"])
        .flat_map(|(path, text)| word_findings(path, text))
        .collect();
    report(&findings);
}

#[test]
fn a_planted_vague_name_is_found() {
    let count = |path: &str, text: &str| word_findings(path, text).len();
    assert_eq!(count("src/a.rs", "pub struct FileManager;"), 1);
    assert_eq!(count("src/a.rs", "trait EventHandler {} enum RouteInfo {}"), 2);
    assert_eq!(count("src/a.rs", "// struct FileManager\nstruct Managers; use x::FileData;"), 0);
    assert_eq!(count("src/a.rs", "type OrderData = u8; impl Body for A { type Data = u8; }"), 1);
    assert_eq!(count("src/utils.rs", ""), 1);
}

/// A door to the system in a layer that must not have one.
fn door_findings(path: &str, text: &str) -> Vec<String> {
    let is_pure = ["src/model/", "src/journey/", "src/daemon/"].iter().any(|l| path.starts_with(l));
    read(text)
        .iter()
        .filter(|token| is_pure && token.text == "disallowed_methods")
        .map(|token| format!("{path}:{}: effects belong in src/world", token.line))
        .collect()
}

#[test]
fn words_decisions_and_the_daemon_have_no_door_of_their_own() {
    let tree = repository();
    let findings: Vec<String> =
        rust_files(&tree, &["src/"]).flat_map(|(path, text)| door_findings(path, text)).collect();
    report(&findings);
}

#[test]
fn a_planted_door_is_found() {
    let text = "#![expect(clippy::disallowed_methods, reason = \"quicker\")]";
    assert_eq!(door_findings("src/journey/send.rs", text).len(), 1);
    assert_eq!(door_findings("src/world/folder.rs", text).len(), 0);
}

// Dependencies.

/// Names of the crates under `table` of a manifest, also in its `target` tables.
fn crates_in(manifest: &toml::Table, table: &str) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let per_target = targets.into_iter().flat_map(|t| t.values()).filter_map(|t| t.get(table));
    manifest
        .get(table)
        .into_iter()
        .chain(per_target)
        .filter_map(toml::Value::as_table)
        .flat_map(|crates| crates.keys().cloned())
        .collect()
}

fn crate_findings(manifest: &str, tree: &Tree) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml parses");
    let used_in = |folders: &[&str]| -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (_, text) in rust_files(tree, folders) {
            names.extend(paths(&read(text)).into_iter().map(|named| named.segments[0].clone()));
        }
        names
    };
    let own = used_in(&["src/"]);
    let all = used_in(&["src/", "tests/", "benches/"]);
    let unused = |table: &str, used: &BTreeSet<String>| -> Vec<String> {
        crates_in(&manifest, table)
            .into_iter()
            .filter(|name| !used.contains(&name.replace('-', "_")))
            .map(|name| format!("Cargo.toml: nothing uses `{name}` of [{table}]; take it out"))
            .collect()
    };
    [unused("dependencies", &own), unused("dev-dependencies", &all)].concat()
}

#[test]
fn every_dependency_is_used() {
    let tree = repository();
    report(&crate_findings(&tree["Cargo.toml"], &tree));
}

#[test]
fn a_planted_unused_dependency_is_found() {
    let manifest = "[dependencies]\nserde_json = \"1\"\nfutures-util = \"0.3\"\n\
                    [target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n\
                    [dev-dependencies]\ninsta = \"1\"";
    let check = |source: &str, test: &str, expected: usize| {
        let tree = Tree::from([
            ("src/lib.rs".to_owned(), source.to_owned()),
            ("tests/a.rs".to_owned(), test.to_owned()),
        ]);
        let findings = crate_findings(manifest, &tree);
        assert_eq!(findings.len(), expected, "{source} {test}\n{findings:#?}");
    };
    let all = "use futures_util::FutureExt; fn f() { serde_json::from_slice(libc::X) }";
    check(all, "insta::assert_snapshot!(x);", 0);
    check(all, "// insta::assert_snapshot!(x);", 1);
    check("use futures_util::FutureExt;", "use insta::x; use libc::y; use serde_json::z;", 2);
}
