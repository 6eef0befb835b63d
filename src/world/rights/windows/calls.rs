//! The calls of Windows about rights: lists of them read from text and told as text, given to
//! folders and to pipes, which account is meant, and what it may do on this machine. Nothing else
//! here is unsafe, and nothing here decides.
#![expect(unsafe_code, reason = "no binding that is kept up knows lists of rights")]

use std::ffi::{OsStr, c_void};
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authentication::Identity::{
    LSA_HANDLE, LSA_OBJECT_ATTRIBUTES, LSA_UNICODE_STRING, LsaAddAccountRights, LsaClose,
    LsaNtStatusToWinError, LsaOpenPolicy, POLICY_CREATE_ACCOUNT, POLICY_LOOKUP_NAMES,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertSidToStringSidW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, ConvertStringSidToSidW,
    GetNamedSecurityInfoW, SDDL_REVISION_1, SE_FILE_OBJECT, SetNamedSecurityInfoW,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetSecurityDescriptorDacl, GetTokenInformation, LookupAccountNameW,
    LookupAccountSidW, OWNER_SECURITY_INFORMATION, PROTECTED_DACL_SECURITY_INFORMATION, PSID,
    SECURITY_ATTRIBUTES, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::CreateDirectoryW;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// An account's id is at most 68 bytes, its name and that of its domain at most 256 letters.
const SID_WORDS: usize = 16;
const NAME_UNITS: usize = 512;
/// As the system calls the right to log on as a service.
const LOG_ON_AS_A_SERVICE: &str = "SeServiceLogonRight";

/// Memory that the system has handed over.
struct Local(*mut c_void);

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: it came from a call that says to free it by this one, and nobody else does.
        unsafe { LocalFree(self.0) };
    }
}

/// Who may do what, as the system has it in memory.
pub(super) struct Descriptor(Local);

impl Descriptor {
    /// Reads it from its text.
    pub(super) fn parse(text: &str) -> io::Result<Self> {
        let text = terminated(OsStr::new(text));
        let mut found = null_mut();
        // SAFETY: the text ends in a zero; the system writes a pointer into `found`, and no size.
        let answer = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut found,
                null_mut(),
            )
        };
        done(answer)?;
        Ok(Self(Local(found)))
    }

    fn attributes(&self) -> io::Result<SECURITY_ATTRIBUTES> {
        let length = u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).map_err(io::Error::other)?;
        Ok(SECURITY_ATTRIBUTES {
            nLength: length,
            lpSecurityDescriptor: self.0.0,
            bInheritHandle: 0,
        })
    }
}

/// Makes a folder that has these rights from its first moment on.
pub(super) fn make_folder(folder: &Path, rights: &Descriptor) -> io::Result<()> {
    let folder = terminated(folder.as_os_str());
    let attributes = rights.attributes()?;
    // SAFETY: the path ends in a zero; the attributes and what they point to outlive the call.
    done(unsafe { CreateDirectoryW(folder.as_ptr(), &raw const attributes) })
}

/// Gives a folder or a file these rights and none that it would inherit; what is below inherits.
pub(super) fn set(path: &Path, rights: &Descriptor) -> io::Result<()> {
    let path = terminated(path.as_os_str());
    let (mut is_there, mut is_default, mut list) = (0, 0, null_mut());
    // SAFETY: the descriptor is a whole one, which the system has made; the three places are ours.
    done(unsafe {
        GetSecurityDescriptorDacl(rights.0.0, &raw mut is_there, &raw mut list, &raw mut is_default)
    })?;
    // SAFETY: the path ends in a zero; the list lies in the descriptor, which outlives the call.
    let code = unsafe {
        SetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION,
            null_mut(),
            null_mut(),
            list,
            null(),
        )
    };
    succeeded(code)
}

/// Owner and rights of a folder or a file, as text.
pub(super) fn get(path: &Path) -> io::Result<String> {
    let path = terminated(path.as_os_str());
    let asked = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    let mut found = null_mut();
    // SAFETY: the path ends in a zero; of the pointers only the last is asked for, and it is ours.
    let code = unsafe {
        GetNamedSecurityInfoW(
            path.as_ptr(),
            SE_FILE_OBJECT,
            asked,
            null_mut(),
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut found,
        )
    };
    succeeded(code)?;
    let found = Local(found);
    let mut text = null_mut();
    // SAFETY: what was found is a whole descriptor; the system writes a pointer into `text`.
    done(unsafe {
        ConvertSecurityDescriptorToStringSecurityDescriptorW(
            found.0,
            SDDL_REVISION_1,
            asked,
            &raw mut text,
            null_mut(),
        )
    })?;
    Ok(taken(text))
}

/// Opens one more instance of a named pipe, with these rights.
pub(super) fn listen(
    options: &ServerOptions,
    name: &str,
    rights: &Descriptor,
) -> io::Result<NamedPipeServer> {
    let mut attributes = rights.attributes()?;
    // SAFETY: the attributes are whole, and outlive the call with what they point to.
    unsafe { options.create_with_security_attributes_raw(name, (&raw mut attributes).cast()) }
}

/// The id of the account that this process runs under.
pub(super) fn own_id() -> io::Result<String> {
    let mut token = null_mut();
    // SAFETY: the process is this one; the system writes a handle into `token`.
    done(unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: the handle was just opened, and nobody else closes it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    // The structure, and the id that it points to.
    let mut words = [0_u64; SID_WORDS + size_of::<TOKEN_USER>()];
    let room = u32::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let mut length = 0;
    // SAFETY: the room is as large as it says, and aligned for what is written into it.
    done(unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            words.as_mut_ptr().cast(),
            room,
            &raw mut length,
        )
    })?;
    // SAFETY: the call has filled the structure, at the start of words that are aligned for it.
    let user = unsafe { words.as_ptr().cast::<TOKEN_USER>().read() };
    told(user.User.Sid)
}

/// The id of an account by its name.
pub(super) fn id_of(account: &str) -> io::Result<String> {
    let account = terminated(OsStr::new(account));
    let mut id = [0_u64; SID_WORDS];
    let mut domain = [0_u16; NAME_UNITS];
    let mut id_bytes = u32::try_from(size_of_val(&id)).map_err(io::Error::other)?;
    let mut domain_units = u32::try_from(domain.len()).map_err(io::Error::other)?;
    let mut kind = 0;
    // SAFETY: the name ends in a zero; the rooms are as large as the two numbers say.
    done(unsafe {
        LookupAccountNameW(
            null(),
            account.as_ptr(),
            id.as_mut_ptr().cast(),
            &raw mut id_bytes,
            domain.as_mut_ptr(),
            &raw mut domain_units,
            &raw mut kind,
        )
    })?;
    told(id.as_mut_ptr().cast())
}

/// The name of an account by its id, or by the two letters that stand for it in lists of rights.
pub(super) fn name_of(id: &str) -> io::Result<String> {
    let found = parsed(id)?;
    let (mut name, mut domain) = ([0_u16; NAME_UNITS], [0_u16; NAME_UNITS]);
    let mut name_units = u32::try_from(name.len()).map_err(io::Error::other)?;
    let mut domain_units = name_units;
    let mut kind = 0;
    // SAFETY: the id is a whole one; the rooms are as large as the two numbers say.
    done(unsafe {
        LookupAccountSidW(
            null(),
            found.0,
            name.as_mut_ptr(),
            &raw mut name_units,
            domain.as_mut_ptr(),
            &raw mut domain_units,
            &raw mut kind,
        )
    })?;
    let (name, domain) = (until_zero(&name), until_zero(&domain));
    Ok(if domain.is_empty() { name } else { format!(r"{domain}\{name}") })
}

/// What this machine lets its accounts do.
struct Policy(LSA_HANDLE);

impl Drop for Policy {
    fn drop(&mut self) {
        // SAFETY: the handle came from the call that opens one, and nobody else closes it.
        unsafe { LsaClose(self.0) };
    }
}

/// Lets an account, by its id, log on as a service.
pub(super) fn let_log_on(id: &str) -> io::Result<()> {
    let id = parsed(id)?;
    let length = u32::try_from(size_of::<LSA_OBJECT_ATTRIBUTES>()).map_err(io::Error::other)?;
    let attributes = LSA_OBJECT_ATTRIBUTES { Length: length, ..Default::default() };
    let access = (POLICY_LOOKUP_NAMES | POLICY_CREATE_ACCOUNT).cast_unsigned();
    let mut policy = 0;
    // SAFETY: the attributes are the empty ones that it wants; it writes a handle into `policy`.
    let status = unsafe { LsaOpenPolicy(null(), &raw const attributes, access, &raw mut policy) };
    granted(status)?;
    let policy = Policy(policy);
    let mut units: Vec<u16> = LOG_ON_AS_A_SERVICE.encode_utf16().collect();
    let bytes = u16::try_from(size_of_val(units.as_slice())).map_err(io::Error::other)?;
    let right =
        LSA_UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_mut_ptr() };
    // SAFETY: the policy is open, the id a whole one, the right one text as long as it says.
    granted(unsafe { LsaAddAccountRights(policy.0, id.0, &raw const right, 1) })
}

/// An id by its text.
fn parsed(id: &str) -> io::Result<Local> {
    let id = terminated(OsStr::new(id));
    let mut found = null_mut();
    // SAFETY: the text ends in a zero; the system writes a pointer into `found`.
    done(unsafe { ConvertStringSidToSidW(id.as_ptr(), &raw mut found) })?;
    Ok(Local(found))
}

/// An id as text.
fn told(id: PSID) -> io::Result<String> {
    let mut text = null_mut();
    // SAFETY: the callers pass ids that the system has just written.
    done(unsafe { ConvertSidToStringSidW(id, &raw mut text) })?;
    Ok(taken(text))
}

/// A text that the system has handed over.
fn taken(text: *mut u16) -> String {
    let text = Local(text.cast());
    let start = text.0.cast_const().cast::<u16>();
    let mut units = Vec::new();
    loop {
        // SAFETY: the text ends in a zero, and nothing behind that is read.
        let unit = unsafe { start.add(units.len()).read() };
        if unit == 0 {
            return String::from_utf16_lossy(&units);
        }
        units.push(unit);
    }
}

fn until_zero(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16_lossy(units.get(..end).unwrap_or_default())
}

fn terminated(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

fn done(answer: i32) -> io::Result<()> {
    if answer == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn succeeded(code: u32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.cast_signed())) }
}

fn granted(status: i32) -> io::Result<()> {
    // SAFETY: it looks a number up in a table, and touches nothing else.
    succeeded(unsafe { LsaNtStatusToWinError(status) })
}
