use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;

use super::units::tests::installation;
use super::*;

/// A machine whose files lie in a folder of the test's, and whose programs write down what they are
/// told.
struct Machine {
    root: tempfile::TempDir,
    told: RefCell<Vec<String>>,
    /// Accounts that are there, each with its number, which is that of its group, too.
    accounts: RefCell<Vec<(&'static str, u32)>>,
    /// What `systemctl show` answers.
    shows: &'static str,
    /// The verb that `systemctl` refuses.
    refuses: &'static str,
    is_administrator: bool,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            told: RefCell::default(),
            accounts: RefCell::new(vec![("patchdrop", me()), ("erp", me())]),
            shows: "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\n",
            refuses: "nothing",
            is_administrator: true,
        };
        fs::create_dir_all(machine.path("run/systemd/system")).unwrap();
        fs::create_dir_all(machine.path("srv/patchdrop")).unwrap();
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Said {
        let line = format!("{program} {}", arguments.join(" "));
        let said = |is_well, out: String, err: &str| Said { is_well, out, err: err.to_owned() };
        let number = |name: &str| {
            let accounts = self.accounts.borrow();
            accounts.iter().find(|(account, _)| *account == name).map(|(_, number)| *number)
        };
        match (program, arguments) {
            ("getent", ["passwd", name]) => match number(name) {
                Some(number) => said(true, format!("{name}:x:{number}:{number}::/:/x\n"), ""),
                None => said(false, String::new(), ""),
            },
            ("id", ["-G", name]) => said(true, format!("{}\n", number(name).unwrap()), ""),
            ("id", ["-gn", _]) => said(true, "staff\n".to_owned(), ""),
            ("systemctl", ["show", ..]) => said(true, self.shows.to_owned(), ""),
            _ => {
                self.told.borrow_mut().push(line);
                if program == "useradd" {
                    self.accounts.borrow_mut().push(("patchdrop", me()));
                }
                let is_well = arguments.first() != Some(&self.refuses);
                said(is_well, String::new(), "Job failed.\nSee the log.\n")
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Host<'_>) -> T) -> T {
        let run = |program: &str, arguments: &[&str]| Ok(self.run(program, arguments));
        let root = self.root.path().to_owned();
        act(&Host { root, is_administrator: self.is_administrator, run: &run })
    }

    fn install(&self, installation: &Installation) -> Report {
        self.with(|host| host.install(installation)).unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.told.take()
    }
}

fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

const ROOT_CONF: &str = "etc/systemd/system/patchdrop.service.d/root.conf";

#[test]
fn an_installation_writes_unit_and_drop_in_and_has_it_start_with_the_system() {
    let machine = Machine::new();
    let report = machine.install(&installation(None));
    assert_eq!(machine.text("etc/systemd/system/patchdrop.service"), units::unit(&only()).1);
    assert!(machine.text(ROOT_CONF).contains("\nReadWritePaths=/srv/patchdrop\n"));
    assert_eq!(machine.told(), ["systemctl daemon-reload", "systemctl enable patchdrop.service"]);
    assert_eq!(report.next, []);
    let mode = fs::metadata(machine.path(ROOT_CONF)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

fn only() -> Instance {
    Instance::default()
}

#[test]
fn each_instance_has_a_drop_in_of_its_own_and_shares_the_unit() {
    let machine = Machine::new();
    let (shop7, shop8) = (installation(Some("shop7")), installation(Some("shop8")));
    machine.install(&shop7);
    machine.install(&shop8);
    let unit = "etc/systemd/system/patchdrop@.service";
    let drop_in = |name: &str| format!("etc/systemd/system/patchdrop@{name}.service.d/root.conf");
    assert!(machine.text(&drop_in("shop7")).contains("/srv/patchdrop"));
    machine.told();
    machine.with(|host| host.uninstall(&shop7.instance)).unwrap();
    assert_eq!(
        machine.told(),
        [
            "systemctl disable --now patchdrop@shop7.service",
            "systemctl daemon-reload",
            "systemctl reset-failed patchdrop@shop7.service",
        ]
    );
    assert!(!machine.path(&drop_in("shop7")).exists());
    assert!(machine.path(&drop_in("shop8")).exists() && machine.path(unit).exists());
    machine.with(|host| host.uninstall(&shop8.instance)).unwrap();
    assert!(!machine.path(unit).exists());
}

#[test]
fn the_unit_of_a_package_and_one_that_an_administrator_has_changed_stay() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("usr/lib/systemd/system")).unwrap();
    fs::write(machine.path("usr/lib/systemd/system/patchdrop.service"), "packaged").unwrap();
    machine.install(&installation(None));
    let own = "etc/systemd/system/patchdrop.service";
    assert!(!machine.path(own).exists());
    fs::write(machine.path(own), "changed").unwrap();
    let report = machine.install(&installation(None));
    assert_eq!(machine.text(own), "changed");
    assert!(report.done.iter().any(|line| line.contains("stays as it is")), "{report:?}");
    machine.with(|host| host.uninstall(&only())).unwrap();
    assert_eq!(machine.text(own), "changed");
}

#[test]
fn a_missing_account_is_made_if_it_is_the_units_and_refused_if_it_was_named() {
    let machine = Machine::new();
    machine.accounts.borrow_mut().retain(|(name, _)| *name == "erp");
    machine.install(&installation(None));
    let told = machine.told();
    assert!(
        told[0].starts_with("useradd --system ") && told[0].ends_with(" patchdrop"),
        "{told:?}"
    );
    let named =
        |account: &str| Installation { account: Some(account.to_owned()), ..installation(None) };
    let error = machine.with(|host| host.install(&named("nobody-here"))).unwrap_err();
    assert!(matches!(&error, ServiceError::Unfit { what, .. } if what.contains("nobody-here")));
    assert_eq!(machine.told(), [] as [&str; 0]);
    machine.install(&named("erp"));
    assert!(machine.text(ROOT_CONF).contains("\nUser=erp\nGroup=staff\n"));
}

#[test]
fn what_keeps_the_account_from_its_work_is_said_with_the_command_that_mends_it() {
    let check = |prepare: &dyn Fn(&Machine), wanted: &[&str]| {
        let machine = Machine::new();
        machine.accounts.borrow_mut()[0].1 = 4_242;
        prepare(&machine);
        let report = machine.install(&installation(None));
        let commands: Vec<&str> = report.next.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(commands, wanted);
    };
    let mode = |machine: &Machine, path: &str, mode: u32| {
        fs::set_permissions(machine.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    check(&|machine| mode(machine, "srv/patchdrop", 0o777), &[]);
    check(
        &|machine| mode(machine, "srv/patchdrop", 0o755),
        &["chown patchdrop: /srv/patchdrop && chmod 3770 /srv/patchdrop"],
    );
    check(
        &|machine| fs::remove_dir(machine.path("srv/patchdrop")).unwrap(),
        &["install -d -m 3770 -o patchdrop -g patchdrop /srv/patchdrop"],
    );
    check(
        &|machine| {
            mode(machine, "srv/patchdrop", 0o777);
            fs::create_dir_all(machine.path("etc/patchdrop")).unwrap();
            fs::write(machine.path("etc/patchdrop/config.toml"), "").unwrap();
            mode(machine, "etc/patchdrop/config.toml", 0o600);
        },
        &["chgrp patchdrop /etc/patchdrop/config.toml && chmod 640 /etc/patchdrop/config.toml"],
    );
    check(
        &|machine| {
            mode(machine, "srv/patchdrop", 0o777);
            mode(machine, "srv", 0o700);
        },
        &["chmod o+x /srv"],
    );
    check(
        &|machine| {
            mode(machine, "srv/patchdrop", 0o777);
            fs::create_dir_all(machine.path("usr/bin")).unwrap();
            fs::write(machine.path("usr/bin/patchdrop"), "").unwrap();
            mode(machine, "usr/bin/patchdrop", 0o700);
        },
        &["chmod 755 /usr/bin/patchdrop"],
    );
}

#[test]
fn what_the_service_would_not_find_is_refused_before_anything_is_written() {
    let machine = Machine::new();
    let check = |change: &dyn Fn(&mut Installation), path: &str| {
        let mut wanted = installation(None);
        change(&mut wanted);
        for done in [
            machine.with(|host| host.draft(&wanted)).map(drop),
            machine.with(|host| host.install(&wanted)).map(drop),
        ] {
            let said = done.unwrap_err().to_string();
            assert!(said.starts_with(&format!("{path} lies in ")), "{said}");
        }
    };
    check(&|it| it.program = "/tmp/patchdrop".into(), "/tmp/patchdrop");
    check(&|it| it.config = "/var/tmp/config.toml".into(), "/var/tmp/config.toml");
    assert!(!machine.path("etc").exists());
}

#[test]
fn a_draft_says_what_is_left_to_do_as_well() {
    let machine = Machine::new();
    machine.accounts.borrow_mut()[0].1 = 4_242;
    fs::set_permissions(machine.path("srv/patchdrop"), fs::Permissions::from_mode(0o755)).unwrap();
    let text = machine.with(|host| host.draft(&installation(None))).unwrap();
    assert!(text.contains("$ chown patchdrop: /srv/patchdrop"), "{text}");
}

#[test]
fn a_draft_says_it_all_and_changes_nothing() {
    let mut machine = Machine::new();
    machine.is_administrator = false;
    machine.accounts.borrow_mut().clear();
    let text = machine.with(|host| host.draft(&installation(None))).unwrap();
    for part in [
        "$ useradd --system",
        "── /etc/systemd/system/patchdrop.service\n",
        "── /etc/systemd/system/patchdrop.service.d/root.conf\n",
        "ReadWritePaths=/srv/patchdrop",
        "$ systemctl enable patchdrop.service\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!machine.path("etc").exists());
    assert_eq!(machine.told(), [] as [&str; 0]);
}

#[test]
fn without_the_rights_nothing_is_done() {
    let mut machine = Machine::new();
    machine.is_administrator = false;
    machine.with(|host| {
        let errors = [
            host.install(&installation(None)).unwrap_err(),
            host.uninstall(&only()).unwrap_err(),
            host.turn("start", &only()).unwrap_err(),
            host.turn("stop", &only()).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, ServiceError::NoRights { .. }), "{error}");
        }
        assert_eq!(host.status(&only()).unwrap().runs, Runs::Stopped);
    });
    assert!(!machine.path("etc").exists());
    assert_eq!(machine.told(), [] as [&str; 0]);
}

#[test]
fn where_systemd_is_not_running_files_are_written_and_nothing_is_started() {
    let machine = Machine::new();
    fs::remove_dir(machine.path("run/systemd/system")).unwrap();
    machine.install(&installation(None));
    assert_eq!(machine.told(), ["systemctl enable patchdrop.service"]);
    let error = machine.with(|host| host.turn("start", &only())).unwrap_err();
    assert!(matches!(error, ServiceError::Absent { .. }), "{error}");
    machine.with(|host| host.uninstall(&only())).unwrap();
    assert_eq!(machine.told(), ["systemctl disable patchdrop.service"]);
}

#[test]
fn a_second_installation_changes_nothing_and_a_second_removal_is_refused() {
    let machine = Machine::new();
    machine.install(&installation(None));
    let report = machine.install(&installation(None));
    assert!(report.done.iter().any(|line| line.contains("is there already")), "{report:?}");
    let beside = machine.path("etc/systemd/system/patchdrop.service.d/own.conf");
    fs::write(&beside, "[Service]\n").unwrap();
    machine.with(|host| host.uninstall(&only())).unwrap();
    assert!(beside.exists());
    let error = machine.with(|host| host.uninstall(&only())).unwrap_err();
    assert!(matches!(error, ServiceError::NotInstalled { .. }), "{error}");
}

#[test]
fn what_systemctl_refuses_is_said_with_where_to_look() {
    let mut machine = Machine::new();
    machine.refuses = "start";
    let error = machine.with(|host| host.turn("start", &only())).unwrap_err();
    let ServiceError::Refused { what, said, hint } = error else { panic!("{error}") };
    assert_eq!(what, "systemctl start patchdrop.service");
    assert_eq!(said, "Job failed.; See the log.");
    assert!(hint.starts_with("journalctl -u patchdrop.service"), "{hint}");
    machine.shows = "LoadState=not-found\nActiveState=inactive\n";
    let error = machine.with(|host| host.turn("start", &only())).unwrap_err();
    assert!(matches!(error, ServiceError::NotInstalled { .. }), "{error}");
}

#[test]
fn how_a_service_stands_is_read_from_its_properties() {
    let check = |shown: &str, runs: Runs, starts: bool, facts: &[&str]| {
        let found = standing("patchdrop.service".to_owned(), shown);
        assert_eq!((found.runs, found.starts_with_system), (runs, starts), "{shown}");
        assert_eq!(found.facts, facts, "{shown}");
    };
    check("LoadState=not-found\nActiveState=inactive\n", Runs::NotInstalled, false, &[]);
    check("LoadState=loaded\nActiveState=inactive\nMainPID=0\n", Runs::Stopped, false, &[]);
    check("LoadState=loaded\nActiveState=activating\n", Runs::Starting, false, &[]);
    check("LoadState=loaded\nActiveState=deactivating\n", Runs::Stopping, false, &[]);
    check(
        "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nMainPID=7\n\
         StatusText=2 routes, a=b\nReadWritePaths=/srv/patchdrop\n",
        Runs::Running,
        true,
        &["2 routes, a=b", "process 7", "may write: /srv/patchdrop"],
    );
    check(
        "LoadState=loaded\nActiveState=failed\nResult=exit-code\nExecMainStatus=78\n",
        Runs::Failed,
        false,
        &["ended with exit code 78", "systemd says: exit-code"],
    );
}
