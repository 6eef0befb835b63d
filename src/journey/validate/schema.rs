//! Whether a document is what a JSON Schema says (draft 4 to 2020-12).

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::flaw;
use crate::model::file::shown;
use crate::model::outcome::Fault;
use crate::model::route::RouteName;

/// The deepest nesting that a tree is built of (`serde_json`'s own limit), which also bounds the
/// stack that a check takes.
pub(super) const DEPTH_MAX: usize = 127;
/// An excerpt has at most this many characters.
const EXCERPT_MAX: usize = 80;

/// A tree takes many times the memory of its document, so there is one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// A schema that is none, or that needs something patchdrop does not fetch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{plain}")]
pub struct SchemaFault {
    /// What is wrong, one sentence without full stop. It shows the schema, never a file.
    pub plain: String,
    /// What the administrator can do.
    pub hint: String,
}

/// A schema, compiled.
pub(super) struct Schema(Validator);

impl Schema {
    pub(super) fn new(document: &Value) -> Result<Self, SchemaFault> {
        jsonschema::options().offline().build(document).map(Self).map_err(|error| refused(&error))
    }

    /// Waits until no other tree is in memory.
    pub(super) fn turn() -> MutexGuard<'static, ()> {
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a sound document, nested no deeper than [`DEPTH_MAX`].
    pub(super) fn check(
        &self,
        body: &[u8],
        route: &RouteName,
        turn: MutexGuard<'static, ()>,
    ) -> Result<(), Fault> {
        let document: Value = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            flaw::fault(
                "not-json",
                format!(
                    "the document cannot be built for its schema at line {line}, column {column}"
                ),
                format!("Mend the file, or remove schema from route {route}."),
            )
        })?;
        let result = self.0.validate(&document).map_err(|error| violation(&error, route));
        drop(document);
        drop(turn);
        result
    }
}

fn refused(error: &ValidationError<'_>) -> SchemaFault {
    let place = error.schema_path().as_str();
    if let ValidationErrorKind::Referencing(cause) = error.kind() {
        return SchemaFault {
            plain: format!("the schema refers to something that is not in it: {cause}"),
            hint: "patchdrop fetches no schemas, from the network or from files: put what it \
                   refers to under \"$defs\" of the same file."
                .to_owned(),
        };
    }
    let at = error.instance_path().as_str();
    let at = if at.is_empty() { "its root" } else { at };
    SchemaFault {
        plain: format!("the schema is no valid JSON Schema: at {at}: {error} ({place})"),
        hint: "Mend the schema file; its \"$schema\" names the draft, 2020-12 if it names none."
            .to_owned(),
    }
}

fn violation(error: &ValidationError<'_>, route: &RouteName) -> Fault {
    let keyword = error.kind().keyword();
    let place = error.schema_path().as_str();
    let plain = match demand(error.kind()) {
        Some(demand) => format!("a value breaks the schema: {demand} (schema keyword {place})"),
        None => format!(
            "a value breaks the schema: it does not meet {keyword} (schema keyword {place})"
        ),
    };
    let pointer = error.instance_path().as_str();
    let mut text = format!("at {}: ", if pointer.is_empty() { "the root" } else { pointer });
    if let ValidationErrorKind::AdditionalProperties { unexpected }
    | ValidationErrorKind::UnevaluatedProperties { unexpected } = error.kind()
    {
        text.push_str(&unexpected.join(", "));
    } else {
        // Writing a value stops as soon as the excerpt is full: it may be the whole document.
        let mut sink = Sink { text, room: EXCERPT_MAX };
        let _full = write!(sink, "{}", error.instance());
        text = sink.text;
    }
    let remedy = format!("Mend the file, or the schema of route {route}.");
    let mut fault = flaw::fault("schema-violation", plain, remedy);
    fault.cause.excerpt = Some(cut(&text));
    fault
}

/// What the schema demands; in the schema's words, without content of the file.
fn demand(kind: &ValidationErrorKind) -> Option<String> {
    use ValidationErrorKind as Kind;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are told by their keyword")]
    Some(match kind {
        Kind::Type { kind: TypeKind::Single(single) } => {
            format!("must be {}", noun(&single.to_string()))
        }
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<String> = several.iter().map(|one| noun(&one.to_string())).collect();
            format!("must be {}", names.join(" or "))
        }
        Kind::Required { property } => format!("must have the property {property}"),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => {
            "has a property that is not allowed".to_owned()
        }
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::Enum { .. } => "must be one of the values listed".to_owned(),
        _ => return None,
    })
}

fn noun(kind: &str) -> String {
    match kind {
        "null" => "null".to_owned(),
        "array" | "object" | "integer" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn cut(text: &str) -> String {
    let shown = shown(text.as_ref());
    if shown.chars().count() <= EXCERPT_MAX {
        return shown;
    }
    shown.chars().take(EXCERPT_MAX - 1).chain(['…']).collect()
}

/// A text that takes so many more characters and then fails.
struct Sink {
    text: String,
    room: usize,
}

impl std::fmt::Write for Sink {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        for letter in part.chars() {
            self.room = self.room.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(letter);
        }
        Ok(())
    }
}
