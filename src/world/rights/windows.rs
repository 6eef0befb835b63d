//! Lists of rights as Windows has them, written and read as text (SDDL): what is ours is the
//! system's, administrators' and one account's.
//!
//! `D:P` begins a list that takes nothing over from above. In each entry: allow (`A`), hand down to
//! folders and files (`OICI`), everything (`FA`), to the system (`SY`), to administrators (`BA`).

mod calls;

use std::io;
use std::path::Path;

use sha1::Digest as _;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

use super::super::folder::long;

/// In lists the two that may always.
const ALWAYS: [&str; 2] = ["SY", "BA"];
/// Whoever makes a thing in a folder, and whoever owns it: the owner is looked at for itself.
const WHOEVER_OWNS_IT: [&str; 2] = ["CO", "OW"];
/// Before the name of a service this is the account that is its own.
const OF_A_SERVICE: &str = r"NT SERVICE\";

/// A pipe that nobody else can open.
pub(in crate::world) struct Closed(String);

impl Closed {
    /// For the account that this process runs under.
    pub(in crate::world) fn to_others() -> io::Result<Self> {
        Ok(Self(list(&[calls::own_id()?], "")))
    }

    /// Opens one more instance of a pipe.
    pub(in crate::world) fn listen(
        &self,
        options: &ServerOptions,
        name: &str,
    ) -> io::Result<NamedPipeServer> {
        calls::listen(options, name, &calls::Descriptor::parse(&self.0)?)
    }
}

pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    let above = folder.ancestors().filter(|it| !it.as_os_str().is_empty());
    let missing = above.take_while(|it| std::fs::symlink_metadata(long(it)).is_err());
    if let Some(highest) = missing.last() {
        let rights = calls::Descriptor::parse(&list(&[calls::own_id()?], "OICI"))?;
        match calls::make_folder(&long(highest), &rights) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    // The others take over the rights of the highest.
    std::fs::DirBuilder::new().recursive(true).create(long(folder))
}

pub(super) fn close(path: &Path, account: Option<&str>) -> io::Result<()> {
    close_to(path, &[id_of(account)?])
}

pub(super) fn close_to_all(path: &Path, accounts: &[String]) -> io::Result<()> {
    let ids = accounts.iter().map(|account| id_of(Some(account)));
    close_to(path, &ids.collect::<io::Result<Vec<String>>>()?)
}

fn close_to(path: &Path, ids: &[String]) -> io::Result<()> {
    let path = long(path);
    let hands_down = if std::fs::symlink_metadata(&path)?.is_dir() { "OICI" } else { "" };
    calls::set(&path, &calls::Descriptor::parse(&list(ids, hands_down))?)
}

pub(super) fn let_log_on(account: &str) -> io::Result<()> {
    calls::let_log_on(&id_of(Some(account))?)
}

pub(super) fn others(path: &Path, account: Option<&str>) -> io::Result<Vec<String>> {
    let text = calls::get(&long(path))?;
    let named = |id: &str| calls::name_of(id).unwrap_or_else(|_| id.to_owned());
    Ok(strangers(&text, &id_of(account)?, &calls::own_id()?, named))
}

/// Accounts as the service manager has them written, which names some in a way of its own.
fn id_of(account: Option<&str>) -> io::Result<String> {
    let Some(account) = account else { return calls::own_id() };
    if let Some(service) = own_account_of(account) {
        return Ok(id_of_service(service));
    }
    let plain: String = account.to_lowercase().split_whitespace().collect();
    match plain.strip_prefix(r"ntauthority\").unwrap_or(&plain) {
        "localsystem" | "system" => Ok("S-1-5-18".to_owned()),
        "localservice" => Ok("S-1-5-19".to_owned()),
        "networkservice" => Ok("S-1-5-20".to_owned()),
        // A dot is this machine.
        _ => calls::id_of(account.strip_prefix(r".\").unwrap_or(account)),
    }
}

fn own_account_of(account: &str) -> Option<&str> {
    let (before, service) = account.split_at_checked(OF_A_SERVICE.len())?;
    before.eq_ignore_ascii_case(OF_A_SERVICE).then_some(service)
}

/// The account of a service has an id that is computed from the service's name, so that rights can
/// be given to it before there is the service.
fn id_of_service(name: &str) -> String {
    let units = name.to_uppercase();
    let bytes: Vec<u8> = units.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut id = "S-1-5-80".to_owned();
    for word in sha1::Sha1::digest(bytes).as_chunks().0 {
        id.push('-');
        id.push_str(&u32::from_le_bytes(*word).to_string());
    }
    id
}

/// Full rights to the two and to some accounts, nothing to others.
fn list(ids: &[String], hands_down: &str) -> String {
    let everybody = ALWAYS.into_iter().chain(ids.iter().map(String::as_str));
    let entries: Vec<String> =
        everybody.map(|who| format!("(A;{hands_down};FA;;;{who})")).collect();
    format!("D:P{}", entries.concat())
}

/// Who else owns a thing or is allowed something by its list. `account`, who may, `own`, who asks
/// and may own it, and what is named are ids.
fn strangers(text: &str, account: &str, own: &str, named: impl Fn(&str) -> String) -> Vec<String> {
    let (owner, list) = text.split_once("D:").unwrap_or((text, "NO_ACCESS_CONTROL"));
    if list.contains("NO_ACCESS_CONTROL") {
        return vec!["everybody".to_owned()];
    }
    let mut found = Vec::new();
    // The text has letters in place of ids that are the same everywhere.
    let mut tell = |id: &str, ours: &[&str]| {
        let name = named(id);
        if !ours.iter().any(|ours| *ours == id || named(ours) == name) && !found.contains(&name) {
            found.push(name);
        }
    };
    if let Some(owner) = owner.strip_prefix("O:") {
        tell(owner.split("G:").next().unwrap_or(owner), &[&ALWAYS[..], &[account, own]].concat());
    }
    let ours = [&ALWAYS[..], &WHOEVER_OWNS_IT, &[account]].concat();
    for entry in list.split('(').skip(1) {
        let mut fields = entry.trim_end_matches(')').split(';');
        let allows = fields.next().is_some_and(|kind| matches!(kind, "A" | "XA" | "OA"));
        if let (true, Some(who)) = (allows, fields.nth(4)) {
            tell(who, &ours);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_service_is_known_by_its_name() {
        let installer = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464";
        assert_eq!(id_of(Some(r"NT SERVICE\TrustedInstaller")).unwrap(), installer);
        assert_eq!(id_of(Some(r"nt service\trustedinstaller")).unwrap(), installer);
    }

    #[test]
    fn accounts_are_known_by_the_names_that_the_service_manager_has_for_them() {
        let check = |account: &str, id: &str| {
            assert_eq!(id_of(Some(account)).unwrap(), id, "{account}");
        };
        check("LocalSystem", "S-1-5-18");
        check(r"NT AUTHORITY\SYSTEM", "S-1-5-18");
        check(r"NT AUTHORITY\LocalService", "S-1-5-19");
        check(r"nt authority\local service", "S-1-5-19");
        check(r"NT AUTHORITY\NetworkService", "S-1-5-20");
        let own = calls::own_id().unwrap();
        assert_eq!(id_of(None).unwrap(), own);
        let name = calls::name_of(&own).unwrap();
        let plain = name.rsplit('\\').next().unwrap();
        assert_eq!(id_of(Some(&format!(r".\{plain}"))).unwrap(), own, "{name}");
        id_of(Some("nobody of this name")).unwrap_err();
    }

    #[test]
    fn a_list_gives_full_rights_to_three_and_is_understood_by_the_system() {
        let text = list(&["S-1-5-19".to_owned()], "OICI");
        assert_eq!(text, "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;S-1-5-19)");
        calls::Descriptor::parse(&text).unwrap();
        let text = list(&["S-1-5-19", "S-1-5-20"].map(str::to_owned), "");
        assert_eq!(text, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;S-1-5-19)(A;;FA;;;S-1-5-20)");
        assert!(calls::Descriptor::parse("D:P(A;OICI;FA;;;nobody)").is_err());
    }

    #[test]
    fn whoever_may_or_owns_beside_the_three_is_told() {
        let check = |text: &str, expected: &[&str]| {
            let found = strangers(text, "S-1-5-19", "S-1-5-21-1", str::to_owned);
            assert_eq!(found, expected, "{text}");
        };
        check("O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;S-1-5-19)", &[]);
        check("O:SYG:SYD:PAI(A;OICIID;FA;;;SY)(A;OICIIO;GA;;;CO)", &[]);
        check("O:BAD:(A;;FA;;;SY)(A;;0x1200a9;;;BU)(A;;FR;;;WD)(A;ID;FR;;;BU)", &["BU", "WD"]);
        check("O:BAD:(D;;FA;;;WD)(A;;FA;;;BA)", &[]);
        check("O:S-1-5-21-7G:BAD:P(A;;FA;;;BA)", &["S-1-5-21-7"]);
        check("O:S-1-5-21-1D:P(A;;FA;;;BA)", &[]);
        check("O:BAD:P(A;;FA;;;S-1-5-21-1)", &["S-1-5-21-1"]);
        check("O:BAD:NO_ACCESS_CONTROL", &["everybody"]);
        check("O:BA", &["everybody"]);
    }
}
