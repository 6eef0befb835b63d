//! A service of Windows: an entry of the service manager, and one in the registry so that the Event
//! Log can show what it says.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use windows_registry::LOCAL_MACHINE;
use windows_service::Error;
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl, ServiceExitCode,
    ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
    ServiceStatus, ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};

use crate::service::{
    Installation, Instance, NEEDS_A_PERSON, Report, Runs, ServiceError, Standing, Step,
};

/// What the manager and the Event Log call it.
const NAME: &str = "patchdrop";
const DESCRIPTION: &str = "Sends files that are dropped into folders, and moves them to sent or failed. \
     `patchdrop status` says how things stand.";
/// How long after an end that nobody asked for it is started again: the first time, the second, and
/// from then on.
const RESTARTS_AFTER: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_mins(1)];
/// After so long without one the next end counts as the first.
const FORGIVES_AFTER: Duration = Duration::from_hours(1);
/// Before the system goes down it waits so much longer than what is in flight may take.
const RESERVE: Duration = Duration::from_secs(30);

/// Where sources of the Application log are registered.
const SOURCES: &str = r"SYSTEM\CurrentControlSet\Services\EventLog\Application";
/// A part of each Windows, whose messages 1 to 1000 are the text as it was given.
const MESSAGES: &str = r"%SystemRoot%\System32\EventCreate.exe";
/// Errors, warnings and information.
const TYPES: u32 = 7;

/// The manager tells nobody when a state has changed: it is asked again after this long.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A service that has told of no progress for so long will not do so any more.
const NO_PROGRESS_FOR: Duration = Duration::from_mins(2);

const ERROR_FILE_NOT_FOUND: i32 = 2;
const ERROR_PATH_NOT_FOUND: i32 = 3;
const ERROR_ACCESS_DENIED: i32 = 5;
const ERROR_SERVICE_ALREADY_RUNNING: i32 = 1056;
const ERROR_INVALID_SERVICE_ACCOUNT: i32 = 1057;
const ERROR_SERVICE_DISABLED: i32 = 1058;
const ERROR_SERVICE_DOES_NOT_EXIST: i32 = 1060;
const ERROR_SERVICE_NOT_ACTIVE: i32 = 1062;
const ERROR_SERVICE_LOGON_FAILED: i32 = 1069;
const ERROR_SERVICE_MARKED_FOR_DELETE: i32 = 1072;
const ERROR_SERVICE_EXISTS: i32 = 1073;
const ERROR_SERVICE_NEVER_STARTED: u32 = 1077;

/// `patchdrop`, or `patchdrop-NAME`.
pub(in crate::service) fn service_name(instance: &Instance) -> String {
    instance.name().map_or_else(|| NAME.to_owned(), |name| format!("{NAME}-{name}"))
}

pub(in crate::service) fn draft(installation: &Installation) -> Result<String, ServiceError> {
    let info = entry(installation)?;
    let mut text = format!(
        "service {}, called \"{}\"\n  runs {}",
        info.name.display(),
        info.display_name.display(),
        info.executable_path.display()
    );
    for argument in &info.launch_arguments {
        text.push_str(&format!(" {}", argument.display()));
    }
    let seconds = RESTARTS_AFTER.map(|after| after.as_secs().to_string()).join(", ");
    text.push_str(&format!(
        "\n  as {}\n  starts with the system, some minutes after it\n  \
         started again {seconds} s after an end that nobody asked for\n  \
         has {} s for what is in flight when the system goes down\n\
         source {} of the Application log: {MESSAGES}\n",
        account(installation)?,
        (installation.drain + RESERVE).as_secs(),
        info.name.display(),
    ));
    for path in &installation.closes {
        text.push_str(&format!(
            "{}: open to it, to administrators and to the system alone\n",
            path.display()
        ));
    }
    for step in steps(installation)? {
        text.push_str(&format!("left to you: {}\n  {}\n", step.why, step.command));
    }
    Ok(text)
}

pub(in crate::service) fn install(installation: &Installation) -> Result<Report, ServiceError> {
    let doing = "install";
    let info = entry(installation)?;
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = manager(access, doing)?;
    let name = service_name(&installation.instance);
    let mut report = Report::default();
    let service = match manager.create_service(&info, ServiceAccess::ALL_ACCESS) {
        Ok(service) => {
            report.done.push(format!("service {name} is installed"));
            service
        }
        Err(error) if code(&error) == Some(ERROR_SERVICE_EXISTS) => {
            let service = manager
                .open_service(&name, ServiceAccess::ALL_ACCESS)
                .map_err(|error| refused(error, doing, &name))?;
            service.change_config(&info).map_err(|error| refused(error, doing, &name))?;
            report.done.push(format!("service {name} is brought up to date"));
            service
        }
        Err(error) => return Err(refused(error, doing, &name)),
    };
    report.done.push(format!("it runs as {}", account(installation)?));
    for (what, result) in refine(&service, installation) {
        if let Err(error) = result {
            report.done.push(format!("{what} could not be set: {}", said(&error)));
        }
    }
    register_source(&name)
        .map_err(|error| refused(Error::Winapi(io::Error::from(error)), doing, &name))?;
    report.next = steps(installation)?;
    report.account = Some(account(installation)?);
    Ok(report)
}

/// What an instance runs as, if it is installed and we may look.
pub(in crate::service) fn installed_account(instance: &Instance) -> Option<String> {
    let service = open(instance, ServiceAccess::QUERY_CONFIG, "look at").ok()?;
    Some(service.query_config().ok()?.account_name?.to_string_lossy().into_owned())
}

/// Whether an account has to be allowed to log on as a service. Windows sees to those of its own.
#[must_use]
pub(in crate::service) fn must_log_on(account: &str) -> bool {
    let account = account.to_ascii_lowercase();
    let is_own = ["nt service\\", "nt authority\\"].iter().any(|own| account.starts_with(own));
    !is_own && account != "localsystem"
}

/// What an entry has besides. A system that cannot set one of these has a service all the same.
fn refine(
    service: &Service,
    installation: &Installation,
) -> [(&'static str, Result<(), Error>); 5] {
    let actions = RESTARTS_AFTER
        .map(|delay| ServiceAction { action_type: ServiceActionType::Restart, delay })
        .to_vec();
    let recovery = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(FORGIVES_AFTER),
        reboot_msg: None,
        command: None,
        actions: Some(actions),
    };
    [
        ("the description", service.set_description(DESCRIPTION)),
        ("the delayed start", service.set_delayed_auto_start(true)),
        ("the restart after a failure", service.update_failure_actions(recovery)),
        // A config at fault ends with a code, and no restart mends it; see the service's own side.
        (
            "that an end with a code is not followed by a restart",
            service.set_failure_actions_on_non_crash_failures(false),
        ),
        (
            "the time to drain when the system goes down",
            service.set_preshutdown_timeout(installation.drain + RESERVE),
        ),
    ]
}

pub(in crate::service) fn uninstall(instance: &Instance) -> Result<Report, ServiceError> {
    let doing = "uninstall";
    let name = service_name(instance);
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let service = open(instance, access, doing)?;
    let mut report = Report::default();
    if halt(&service, doing, &name)? {
        report.done.push(format!("service {name} has stopped"));
    }
    service.delete().map_err(|error| refused(error, doing, &name))?;
    report.done.push(format!("service {name} is uninstalled; config, state and drop folders stay"));
    // Entries that are there would be shown without their text; that is said by who looks at them.
    if let Err(error) = LOCAL_MACHINE.open(SOURCES).and_then(|key| key.remove_tree(&name)) {
        report.done.push(format!("its source in the Event Log stays: {error}"));
    }
    Ok(report)
}

pub(in crate::service) fn start(instance: &Instance) -> Result<Report, ServiceError> {
    let doing = "start";
    let name = service_name(instance);
    let service = open(instance, ServiceAccess::QUERY_STATUS | ServiceAccess::START, doing)?;
    let mut report = Report::default();
    match service.start(&[] as &[&OsStr]) {
        Ok(()) => {}
        Err(error) if code(&error) == Some(ERROR_SERVICE_ALREADY_RUNNING) => {
            report.done.push(format!("service {name} runs already"));
            return Ok(report);
        }
        Err(error) => return Err(refused(error, doing, &name)),
    }
    let status = wait(&service, doing, &name, ServiceState::StartPending)?;
    if status.current_state != ServiceState::Stopped {
        report.done.push(format!("service {name} {}", runs(&status).in_words()));
        return Ok(report);
    }
    let (said, hint) = match status.exit_code {
        ServiceExitCode::ServiceSpecific(code)
            if NEEDS_A_PERSON.iter().any(|it| u32::from(*it) == code) =>
        {
            (format!("it has ended with {code}: its config is at fault"), "patchdrop check")
        }
        ServiceExitCode::ServiceSpecific(code) | ServiceExitCode::Win32(code) => {
            (format!("it has ended with {code}"), "patchdrop doctor")
        }
    };
    let hint = format!(
        "{hint}; why it ended stands in the Event Log (eventvwr.msc, Application, {name}) and in its log file"
    );
    Err(ServiceError::Refused { what: format!("{doing} {name}"), said, hint })
}

pub(in crate::service) fn stop(instance: &Instance) -> Result<Report, ServiceError> {
    let doing = "stop";
    let name = service_name(instance);
    let service = open(instance, ServiceAccess::QUERY_STATUS | ServiceAccess::STOP, doing)?;
    let how = if halt(&service, doing, &name)? { "has stopped" } else { "does not run" };
    Ok(Report { done: vec![format!("service {name} {how}")], ..Report::default() })
}

pub(in crate::service) fn status(instance: &Instance) -> Result<Standing, ServiceError> {
    let doing = "look at";
    let name = service_name(instance);
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::QUERY_CONFIG;
    let service = match open(instance, access, doing) {
        Ok(service) => service,
        Err(ServiceError::NotInstalled { service }) => {
            return Ok(Standing {
                service,
                runs: Runs::NotInstalled,
                starts_with_system: false,
                facts: Vec::new(),
            });
        }
        Err(error) => return Err(error),
    };
    let config = service.query_config().map_err(|error| refused(error, doing, &name))?;
    let status = service.query_status().map_err(|error| refused(error, doing, &name))?;
    let mut facts = vec![format!("runs {}", config.executable_path.display())];
    facts.extend(config.account_name.map(|account| format!("as {}", account.display())));
    facts.extend(status.process_id.filter(|pid| *pid > 0).map(|pid| format!("process {pid}")));
    let runs = runs(&status);
    if runs == Runs::Failed {
        let (ServiceExitCode::Win32(code) | ServiceExitCode::ServiceSpecific(code)) =
            status.exit_code;
        facts.push(format!("ended with {code}: see the Event Log (Application, {name})"));
    }
    let starts_with_system = config.start_type == ServiceStartType::AutoStart;
    Ok(Standing { service: name, runs, starts_with_system, facts })
}

fn runs(status: &ServiceStatus) -> Runs {
    match status.current_state {
        ServiceState::Stopped => match status.exit_code {
            ServiceExitCode::Win32(0 | ERROR_SERVICE_NEVER_STARTED) => Runs::Stopped,
            ServiceExitCode::Win32(_) | ServiceExitCode::ServiceSpecific(_) => Runs::Failed,
        },
        ServiceState::StartPending => Runs::Starting,
        ServiceState::StopPending => Runs::Stopping,
        ServiceState::Running | ServiceState::PausePending | ServiceState::ContinuePending => {
            Runs::Running
        }
        ServiceState::Paused => Runs::Paused,
    }
}

/// What is to be entered.
fn entry(installation: &Installation) -> Result<ServiceInfo, ServiceError> {
    let display_name = match installation.instance.name() {
        Some(name) => format!("{NAME} ({name})"),
        None => NAME.to_owned(),
    };
    let account = account(installation)?;
    let password = installation.password.as_ref().map(|it| OsString::from(it.reveal()));
    if password.is_none() && wants_password(&account) {
        return Err(ServiceError::Unfit {
            what: format!("Windows wants the password of {account}"),
            hint: "write it into standard input and add --stdin; an account of its own, which has \
                   none, is what you get without --account"
                .to_owned(),
        });
    }
    let mut arguments = vec![
        "--config".into(),
        installation.config.clone().into(),
        "run".into(),
        "--service".into(),
    ];
    arguments.extend(installation.instance.name().map(OsString::from));
    Ok(ServiceInfo {
        name: service_name(&installation.instance).into(),
        display_name: display_name.into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: installation.program.clone(),
        launch_arguments: arguments,
        dependencies: Vec::new(),
        account_name: Some(account.into()),
        account_password: password,
    })
}

/// The account, as the manager wants it written. The usual one exists for this service alone, has
/// no password and no rights but those that it is given.
fn account(installation: &Installation) -> Result<String, ServiceError> {
    let Some(account) = &installation.account else {
        return Ok(format!(r"NT SERVICE\{}", service_name(&installation.instance)));
    };
    Ok(match account.to_ascii_lowercase().as_str() {
        "localservice" | "local service" => r"NT AUTHORITY\LocalService".to_owned(),
        "networkservice" | "network service" => r"NT AUTHORITY\NetworkService".to_owned(),
        "localsystem" | "system" => "LocalSystem".to_owned(),
        "" => {
            return Err(ServiceError::Unfit {
                what: "the account has no name".to_owned(),
                hint: "leave --account out for an account of its own".to_owned(),
            });
        }
        _ if account.contains(['\\', '@']) => account.clone(),
        _ => format!(r".\{account}"),
    })
}

/// One that is managed for a group of machines ends in `$`, and has none that anybody knows.
fn wants_password(account: &str) -> bool {
    must_log_on(account) && !account.ends_with('$')
}

/// The rights that the account needs and an installation does not give.
fn steps(installation: &Installation) -> Result<Vec<Step>, ServiceError> {
    let account = account(installation)?;
    if account == "LocalSystem" {
        return Ok(Vec::new());
    }
    let grant = |path: &Path, rights: &str| {
        format!("icacls \"{}\" /grant \"{account}:{rights}\"", path.display())
    };
    let mut steps = Vec::new();
    if !installation.closes.contains(&installation.config) {
        steps.push(Step {
            why: format!("{account} must be able to read the config"),
            command: grant(&installation.config, "(R)"),
        });
    }
    for folder in &installation.writes {
        let is_share = folder.to_string_lossy().starts_with(r"\\");
        if !folder.exists() {
            let shown = folder.display();
            steps.push(Step {
                why: format!("{shown} is not there, and nothing can be dropped into it"),
                command: format!("mkdir \"{shown}\""),
            });
        }
        let why = if is_share {
            format!(
                "on the share, whoever {account} is to the other machine must be able to change \
                 files (an account of Windows' own is this machine's there: DOMAIN\\MACHINE$)"
            )
        } else {
            format!("{account} must be able to move files there")
        };
        steps.push(Step { why, command: grant(folder, "(OI)(CI)(M)") });
    }
    Ok(steps)
}

/// Lets the Event Log show what is entered under a name.
fn register_source(name: &str) -> windows_registry::Result<()> {
    let key = LOCAL_MACHINE.create(format!(r"{SOURCES}\{name}"))?;
    key.set_expand_string("EventMessageFile", MESSAGES)?;
    key.set_u32("TypesSupported", TYPES)
}

fn manager(
    access: ServiceManagerAccess,
    doing: &'static str,
) -> Result<ServiceManager, ServiceError> {
    ServiceManager::local_computer(None::<&OsStr>, access)
        .map_err(|error| refused(error, doing, "the service manager"))
}

fn open(
    instance: &Instance,
    access: ServiceAccess,
    doing: &'static str,
) -> Result<Service, ServiceError> {
    let name = service_name(instance);
    manager(ServiceManagerAccess::CONNECT, doing)?
        .open_service(&name, access)
        .map_err(|error| refused(error, doing, &name))
}

/// Asks for a stop and waits for it; false where it did not run.
fn halt(service: &Service, doing: &'static str, name: &str) -> Result<bool, ServiceError> {
    match service.stop() {
        Ok(_) => {}
        Err(error) if code(&error) == Some(ERROR_SERVICE_NOT_ACTIVE) => return Ok(false),
        Err(error) => return Err(refused(error, doing, name)),
    }
    loop {
        let status = wait(service, doing, name, ServiceState::StopPending)?;
        if status.current_state == ServiceState::Stopped {
            return Ok(true);
        }
        sleep(ASK_EVERY);
    }
}

/// Waits until a state has passed, for as long as the service tells of progress.
fn wait(
    service: &Service,
    doing: &'static str,
    name: &str,
    passing: ServiceState,
) -> Result<ServiceStatus, ServiceError> {
    let (mut checkpoint, mut waited) = (None, Duration::ZERO);
    loop {
        let status = service.query_status().map_err(|error| refused(error, doing, name))?;
        if status.current_state != passing {
            return Ok(status);
        }
        if checkpoint != Some(status.checkpoint) {
            (checkpoint, waited) = (Some(status.checkpoint), Duration::ZERO);
        }
        if waited >= NO_PROGRESS_FOR {
            return Err(ServiceError::Refused {
                what: format!("{doing} {name}"),
                said: format!("no progress for {} s", NO_PROGRESS_FOR.as_secs()),
                hint: "see its log file; as a last resort end its process: no file is lost by that"
                    .to_owned(),
            });
        }
        sleep(ASK_EVERY);
        waited += ASK_EVERY;
    }
}

fn code(error: &Error) -> Option<i32> {
    match error {
        Error::Winapi(error) => error.raw_os_error(),
        _ => None,
    }
}

fn said(error: &Error) -> String {
    match error {
        Error::Winapi(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn refused(error: Error, doing: &'static str, name: &str) -> ServiceError {
    match code(&error) {
        Some(ERROR_ACCESS_DENIED) => ServiceError::NoRights { doing },
        Some(ERROR_SERVICE_DOES_NOT_EXIST) => {
            ServiceError::NotInstalled { service: name.to_owned() }
        }
        _ => ServiceError::Refused {
            what: format!("{doing} {name}"),
            said: said(&error),
            hint: hint(code(&error)).to_owned(),
        },
    }
}

/// What to do about the errors that have a cause which an administrator can mend.
fn hint(code: Option<i32>) -> &'static str {
    match code {
        Some(ERROR_FILE_NOT_FOUND | ERROR_PATH_NOT_FOUND) => {
            "the program is not where it was: put it where it is to stay, and have it there install \
             the service again"
        }
        Some(ERROR_INVALID_SERVICE_ACCOUNT) => {
            "Windows has no such account, or its password is another one: write DOMAIN\\NAME, or \
             .\\NAME for one of this machine, and its password into standard input (--stdin)"
        }
        Some(ERROR_SERVICE_DISABLED) => {
            "somebody has disabled it: patchdrop service install enables it again"
        }
        Some(ERROR_SERVICE_LOGON_FAILED) => {
            "its account's password is another one by now, or the account may not log on as a \
             service: patchdrop service install --account NAME --stdin sets both"
        }
        Some(ERROR_SERVICE_MARKED_FOR_DELETE) => {
            "it goes when nobody looks at it any more: close services.msc and try again"
        }
        _ => "close services.msc and try again; `sc.exe query` shows what is there",
    }
}
