//! Drive letters that a service does not see: those that people give to shares and folders hold for
//! their own sessions alone.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::page::{At, Sink};

/// Warns about paths on drives that may be there for whoever types this, and not for a service.
/// Each drive is said once, where it comes first.
pub(super) fn check<'a>(sink: &Sink, paths: impl IntoIterator<Item = &'a At<PathBuf>>) {
    if cfg!(windows) {
        check_by(sink, paths, |root| Path::new(root).canonicalize());
    }
}

/// `real` says what the root of a drive stands for.
fn check_by<'a>(
    sink: &Sink,
    paths: impl IntoIterator<Item = &'a At<PathBuf>>,
    real: impl Fn(&str) -> io::Result<PathBuf>,
) {
    let mut seen = BTreeSet::new();
    for path in paths {
        let text = path.value.display().to_string();
        let Some(root) = root_of(&text) else { continue };
        // Its separator may be either.
        if !seen.insert(root.get(..2).map(str::to_ascii_lowercase)) {
            continue;
        }
        let real = match real(root) {
            Ok(real) => Some(real.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // It is there, and this account may not look: no mistake of the config.
            Err(_) => continue,
        };
        if let Some((text, hint)) = mistake(&text, real.as_deref()) {
            sink.warn(path.notice(text, hint));
        }
    }
}

/// The drive that a path begins with: `Z:\`.
fn root_of(path: &str) -> Option<&str> {
    let is_drive =
        matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
    if is_drive { path.get(..3) } else { None }
}

/// What is wrong with the drive of a path, and what to write; `real` is what the drive stands for,
/// as the system says it, where there is one.
fn mistake(path: &str, real: Option<&str>) -> Option<(String, String)> {
    let root = root_of(path)?;
    let (drive, rest) = (root.get(..2)?, path.get(3..)?);
    let Some(real) = real else {
        let text = format!(
            "there is no drive {drive} here; one that somebody has mapped is not there for a service"
        );
        let hint = format!(
            r"write '\\SERVER\SHARE\{rest}'; `net use`, typed by whoever has mapped it, says what {drive} stands for"
        );
        return Some((text, hint));
    };
    let real = match real.strip_prefix(r"\\?\UNC\") {
        Some(share) => format!(r"\\{share}"),
        None => real.strip_prefix(r"\\?\").unwrap_or(real).to_owned(),
    };
    let real = real.trim_end_matches('\\');
    if real.eq_ignore_ascii_case(drive) || real.starts_with(r"\\?\") {
        return None;
    }
    let text = format!("{drive} stands for {real} here, and is not there for a service");
    Some((text, format!(r"write '{real}\{rest}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_drive_is_said_once_where_it_comes_first() {
        let sink = Sink::default();
        let at = |path: &str, line| At { value: path.into(), line, key: "root".to_owned() };
        let paths = [at(r"Z:\drop", 3), at(r"C:\drop", 4), at(r"z:/other", 5), at(r"Y:\drop", 6)];
        check_by(&sink, &paths, |root| match root {
            r"C:\" => Ok(r"\\?\C:\".into()),
            r"Y:\" => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        let lines = sink.finish().1.iter().map(|notice| notice.line).collect::<Vec<_>>();
        assert_eq!(lines, [Some(3)]);
    }

    #[test]
    fn a_drive_that_a_service_does_not_see_is_told_with_what_to_write() {
        let check = |path: &str, real: Option<&str>, expected: Option<(&str, &str)>| {
            let found = mistake(path, real);
            let found = found.as_ref().map(|(text, hint)| (text.as_str(), hint.as_str()));
            assert_eq!(found, expected, "{path}");
        };
        check(r"C:\drop\orders", Some(r"\\?\C:\"), None);
        check(r"c:/drop", Some(r"\\?\C:\"), None);
        check(r"\\server\share\drop", None, None);
        check("/srv/drop", None, None);
        check("drop", None, None);
        check("Z:drop", None, None);
        check(
            r"Z:\drop\orders",
            Some(r"\\?\UNC\files\erp\"),
            Some((
                r"Z: stands for \\files\erp here, and is not there for a service",
                r"write '\\files\erp\drop\orders'",
            )),
        );
        check(
            r"X:\drop",
            Some(r"\\?\D:\erp"),
            Some((
                r"X: stands for D:\erp here, and is not there for a service",
                r"write 'D:\erp\drop'",
            )),
        );
        check(
            r"Z:\drop",
            None,
            Some((
                "there is no drive Z: here; one that somebody has mapped is not there for a service",
                r"write '\\SERVER\SHARE\drop'; `net use`, typed by whoever has mapped it, says what Z: stands for",
            )),
        );
    }
}
