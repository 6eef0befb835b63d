//! What a look at the surroundings finds: one line each, in sections, with what mends it. Shown by
//! `doctor` and by `check --online`.

use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::{Screen, counted};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and will not for ever, or not for everything.
    Warning,
    /// Something outside is not there: it may come back by itself.
    Away,
    /// A credential, a URL or a key is refused: a person must change something.
    Refused,
}

impl Level {
    /// In one word.
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Away | Self::Refused => "fault",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) level: Level,
    /// What was looked at: a credential, a host, a thing of this machine.
    pub(super) subject: String,
    /// What was tried and what came of it. Never a secret, a token or a URL's path.
    pub(super) text: String,
    /// The command or key that mends it; empty where nothing is to be mended.
    pub(super) remedy: String,
}

impl Finding {
    /// Nothing to mend.
    pub(super) fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, text, "")
    }

    pub(super) fn new(
        level: Level,
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level, subject: subject.into(), text: text.into(), remedy: remedy.into() }
    }
}

/// What belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// In a word or two.
    pub(super) title: &'static str,
    /// In the order in which they are read.
    pub(super) findings: Vec<Finding>,
}

/// How a command with these findings ends: what a person must change comes before what may pass.
pub(super) fn exit(sections: &[Section]) -> Exit {
    let findings = sections.iter().flat_map(|section| &section.findings);
    match findings.map(|finding| finding.level).max() {
        Some(Level::Refused) => Exit::Config,
        Some(Level::Away) => Exit::Unavailable,
        Some(Level::Ok | Level::Warning) | None => Exit::Done,
    }
}

/// The sections for a script.
pub(super) fn as_json(sections: &[Section]) -> serde_json::Value {
    let finding = |finding: &Finding| {
        serde_json::json!({
            "level": finding.level.name(),
            "subject": finding.subject,
            "text": finding.text,
            "remedy": (!finding.remedy.is_empty()).then_some(&finding.remedy),
        })
    };
    let section = |section: &Section| {
        let findings: Vec<_> = section.findings.iter().map(finding).collect();
        serde_json::json!({ "title": section.title, "findings": findings })
    };
    sections.iter().map(section).collect()
}

/// The sections for a person, and how many of them need one.
pub(super) fn render(sections: &[Section], screen: &mut Screen<'_>) -> Result<(), Failure> {
    let style = screen.style.clone();
    for section in sections.iter().filter(|section| !section.findings.is_empty()) {
        writeln!(screen.out, "{}", style.bold(section.title))?;
        let subjects = section.findings.iter().map(|finding| finding.subject.chars().count());
        let width = subjects.max().unwrap_or(0);
        for Finding { level, subject, text, remedy } in &section.findings {
            let word = format!("{:<7}", level.name());
            let word = match level {
                Level::Ok => style.well(&word),
                Level::Warning | Level::Away | Level::Refused => style.alarm(&word),
            };
            let gap = " ".repeat(width - subject.chars().count());
            writeln!(screen.out, "  {word}  {subject}{gap}  {text}")?;
            if !remedy.is_empty() {
                writeln!(screen.out, "           hint: {remedy}")?;
            }
        }
    }
    let count = |wanted: &[Level]| {
        let all = sections.iter().flat_map(|section| &section.findings);
        all.filter(|finding| wanted.contains(&finding.level)).count() as u64
    };
    let (faults, warnings) = (count(&[Level::Away, Level::Refused]), count(&[Level::Warning]));
    let summary = match (faults, warnings) {
        (0, 0) => style.well("Everything is as it should be."),
        (0, warnings) => {
            format!("Nothing is broken; {}.", counted(warnings, "warning"))
        }
        (faults, 0) => style.alarm(&format!("{}.", counted(faults, "fault"))),
        (faults, warnings) => style.alarm(&format!(
            "{} and {}.",
            counted(faults, "fault"),
            counted(warnings, "warning")
        )),
    };
    Ok(writeln!(screen.out, "\n{summary}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    fn sections(levels: &[Level]) -> Vec<Section> {
        let findings = levels.iter().map(|&level| Finding::new(level, "x", "y", "z")).collect();
        vec![Section { title: "One", findings }, Section { title: "None", findings: Vec::new() }]
    }

    #[test]
    fn what_a_person_must_change_comes_before_what_may_pass() {
        use Level::{Away, Ok, Refused, Warning};
        for (levels, expected) in [
            (&[][..], Exit::Done),
            (&[Ok, Warning], Exit::Done),
            (&[Ok, Away, Warning], Exit::Unavailable),
            (&[Refused, Away, Ok], Exit::Config),
        ] {
            assert_eq!(exit(&sections(levels)), expected, "{levels:?}");
        }
    }

    #[test]
    fn each_fault_stands_with_what_mends_it() {
        let findings = vec![
            Finding::ok("shop.example", "reached in 30ms"),
            Finding::new(Level::Away, "b.example", "connection refused", "start it"),
            Finding::new(Level::Warning, "c.example", "ends soon", "renew it"),
        ];
        let sections = [Section { title: "Servers", findings }];
        let (text, shown) = fixture::shown(|screen| render(&sections, screen));
        shown.unwrap();
        insta::assert_snapshot!(text, @r"
        Servers
          ok       shop.example  reached in 30ms
          fault    b.example     connection refused
                   hint: start it
          warning  c.example     ends soon
                   hint: renew it

        1 fault and 1 warning.
        ");
        assert_eq!(as_json(&sections)[0]["findings"][1]["level"], "fault");
        assert!(as_json(&sections)[0]["findings"][0]["remedy"].is_null());
    }
}
