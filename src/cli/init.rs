//! `patchdrop init`: a config to start from, and a first drop folder.
#![expect(clippy::disallowed_methods, reason = "it makes files that are not there, nothing else")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{MAIN_SEPARATOR, Path, PathBuf};

use super::exit_code::Exit;
use super::failure::{Failure, Kind};
use super::screen::Screen;
use crate::config;
use crate::model::quoted::quoted;

/// The name of the config in the folder.
const CONFIG: &str = "config.toml";
/// What the example config can name as its `root`, and a first route in it.
const DROP: [&str; 2] = ["drop", "orders"];

/// Write a config to start from and a first drop folder; what is there stays as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    patchdrop init /srv/patchdrop")]
pub(super) struct Arguments {
    /// The folder; made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let folder = std::path::absolute(&arguments.folder).unwrap_or(arguments.folder.clone());
    let config = folder.join(CONFIG);
    let drop: PathBuf = [folder.as_path()].into_iter().chain(DROP.map(Path::new)).collect();
    fs::create_dir_all(&drop).map_err(|error| cannot("make", &drop, error))?;
    let written = write_new(&config, rooted(config::EXAMPLE).as_bytes())
        .map_err(|error| cannot("write", &config, error))?;
    let named = quoted(&config);
    let (config, drop) = (config.display(), drop.display());
    if written {
        writeln!(screen.out, "{config} is written.")?;
    } else {
        writeln!(screen.out, "{config} is there already and stays as it is.")?;
    }
    write!(
        screen.out,
        "{drop}{MAIN_SEPARATOR} is a drop folder: the folder's name is the last part of the URL.\n\n\
         Next:\n  \
         1. write your company and credential into {config}\n  \
         2. patchdrop --config {named} check\n  \
         3. patchdrop --config {named} run\n"
    )?;
    Ok(Exit::Done)
}

/// The example with its `root` beside the config.
fn rooted(example: &str) -> String {
    let mut text = String::new();
    for line in example.lines() {
        let key = line.split('=').next().map(str::trim);
        text.push_str(if key == Some("root") { "root    = 'drop'" } else { line });
        text.push('\n');
    }
    text
}

/// Writes a file that is not there yet, whole or not at all; whether it was written. Others may
/// not read it: a password may end up in it in spite of all advice.
fn write_new(path: &Path, content: &[u8]) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| {
        fs::remove_file(path).ok();
    })?;
    Ok(true)
}

fn cannot(doing: &str, path: &Path, error: io::Error) -> Failure {
    Failure::because(Kind::Machine, format!("cannot {doing} {}", path.display()), error)
        .hint("give another folder: patchdrop init DIR")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::fixture;

    fn init(folder: &Path) -> (String, Result<Exit, Failure>) {
        let arguments = Arguments { folder: folder.to_owned() };
        let (text, result) = fixture::shown(|screen| run(&arguments, screen));
        (fixture::portable(&text, folder).replace("ROOT", "DIR"), result)
    }

    #[test]
    fn a_config_and_a_drop_folder_are_made_and_the_next_steps_told() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("new");
        let (text, result) = init(&folder);
        assert_eq!(result.unwrap(), Exit::Done);
        insta::assert_snapshot!(text, @r"
        DIR/config.toml is written.
        DIR/drop/orders/ is a drop folder: the folder's name is the last part of the URL.

        Next:
          1. write your company and credential into DIR/config.toml
          2. patchdrop --config DIR/config.toml check
          3. patchdrop --config DIR/config.toml run
        ");
        assert!(folder.join("drop/orders").is_dir());
        let config = fs::read_to_string(folder.join("config.toml")).unwrap();
        assert!(config.lines().any(|line| line == "root    = 'drop'"), "{config}");
    }

    #[test]
    fn nothing_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("config.toml"), "mine").unwrap();
        let (text, result) = init(root.path());
        assert_eq!(result.unwrap(), Exit::Done);
        assert!(text.starts_with("DIR/config.toml is there already and stays as it is.\n"));
        assert_eq!(fs::read_to_string(root.path().join("config.toml")).unwrap(), "mine");

        let blocked = root.path().join("config.toml");
        let failure = init(&blocked).1.unwrap_err();
        assert_eq!(failure.kind, Kind::Machine);
    }
}
