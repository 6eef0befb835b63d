//! A system whose service manager patchdrop does not know.

use super::{Installation, Instance, Report, ServiceError, Standing};

const ABSENT: ServiceError =
    ServiceError::Absent { why: "patchdrop does not know this system's service manager" };

pub(super) fn draft(_installation: &Installation) -> Result<String, ServiceError> {
    Err(ABSENT)
}

pub(super) fn install(_installation: &Installation) -> Result<Report, ServiceError> {
    Err(ABSENT)
}

pub(super) fn uninstall(_instance: &Instance) -> Result<Report, ServiceError> {
    Err(ABSENT)
}

pub(super) fn start(_instance: &Instance) -> Result<Report, ServiceError> {
    Err(ABSENT)
}

pub(super) fn stop(_instance: &Instance) -> Result<Report, ServiceError> {
    Err(ABSENT)
}

pub(super) fn status(_instance: &Instance) -> Result<Standing, ServiceError> {
    Err(ABSENT)
}
