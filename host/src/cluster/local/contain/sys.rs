//! The system calls of containment for which no library in use has a safe function.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{c_int, c_long, c_ulong};

/// Moves this process, or its future children for `CLONE_NEWPID`, into namespaces of their own.
///
/// # Errors
///
/// When the kernel or the operator does not allow it.
pub fn unshare(namespaces: c_int) -> io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "rustix has it behind a feature that nothing else needs"
    )]
    // SAFETY: it takes a number only, and no memory or open file is unshared.
    check(unsafe { libc::unshare(namespaces) })
}

/// A mount, as mount(2).
pub struct Mount<'a> {
    pub source: &'a Path,
    pub target: &'a Path,
    /// The kind of file system, if it is a new one.
    pub kind: &'a str,
    pub flags: c_ulong,
    pub options: &'a str,
}

impl Mount<'_> {
    /// # Errors
    ///
    /// The kernel does not allow it.
    pub fn make(&self) -> io::Result<()> {
        let [source, target] = [self.source, self.target].map(|path| text(path.as_os_str()));
        let [kind, options] = [self.kind, self.options].map(|word| text(OsStr::new(word)));
        let (source, target, kind, options) = (source?, target?, kind?, options?);
        #[expect(
            unsafe_code,
            reason = "rustix has it behind a feature that nothing else needs"
        )]
        // SAFETY: all four are strings that end with 0 and live until the call is over.
        let done = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                self.flags,
                options.as_ptr().cast(),
            )
        };
        check(done).map_err(|error| {
            let message = format!("mounting on {}: {error}", self.target.display());
            io::Error::new(error.kind(), message)
        })
    }
}

/// Makes a mount and all mounts under it read-only.
///
/// # Errors
///
/// When the kernel does not allow it.
pub fn make_read_only(tree: &Path) -> io::Result<()> {
    let path = text(tree.as_os_str())?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    #[expect(unsafe_code, reason = "no library has a safe function for it")]
    // SAFETY: the path ends with 0, and the kernel reads `size_of_val` bytes of the attributes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    check_long(done)
}

/// Takes a capability from this process's bounding set, so that no program it starts can have it.
///
/// # Errors
///
/// When there is no such capability.
pub fn drop_from_bounding_set(capability: c_ulong) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, [capability, 0])
}

/// Lets no program that this process starts gain rights, not even a setuid one.
///
/// # Errors
///
/// Never on the kernels that have it.
pub fn allow_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0])
}

/// Lets the program that this process becomes or starts keep some of its capabilities.
///
/// # Errors
///
/// When this process does not have them.
pub fn pass_on(capabilities: &[c_ulong]) -> io::Result<()> {
    /// The layout with 64 capabilities in two halves (capset(2)).
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut halves = [Half::default(); 2];
    #[expect(
        unsafe_code,
        reason = "rustix has it behind a feature that nothing else needs"
    )]
    // SAFETY: both structures have the layout of this version, and live until the call is over.
    check_long(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut halves) })?;
    for half in &mut halves {
        half.inheritable = half.permitted;
    }
    #[expect(
        unsafe_code,
        reason = "rustix has it behind a feature that nothing else needs"
    )]
    // SAFETY: as above.
    check_long(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const halves) })?;
    let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
    let mut capabilities = capabilities.iter();
    capabilities.try_for_each(|capability| prctl(libc::PR_CAP_AMBIENT, [raise, *capability]))
}

/// Ends what [`pass_on`] began.
///
/// # Errors
///
/// Never on the kernels that have it.
pub fn pass_on_nothing() -> io::Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong;
    prctl(libc::PR_CAP_AMBIENT, [clear, 0])
}

/// What a process does about a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    Default,
    Ignore,
}

/// Sets what this process does about SIGTERM, and what the programs that it starts begin with.
///
/// # Errors
///
/// Never: the signal exists.
pub fn on_termination(disposition: Disposition) -> io::Result<()> {
    let handler = match disposition {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
    };
    #[expect(unsafe_code, reason = "no library in use has a safe function for it")]
    // SAFETY: neither handler is a function.
    match unsafe { libc::signal(libc::SIGTERM, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn prctl(option: c_int, [one, other]: [c_ulong; 2]) -> io::Result<()> {
    let none: c_ulong = 0;
    #[expect(unsafe_code, reason = "the options used here take numbers only")]
    // SAFETY: no argument is an address.
    check(unsafe { libc::prctl(option, one, other, none, none) })
}

fn check(done: c_int) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn check_long(done: c_long) -> io::Result<()> {
    check(c_int::from(done != 0))
}

fn text(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(io::Error::other)
}
