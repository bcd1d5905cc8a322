package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// onlyHere are calls that have another name on this architecture.
var onlyHere = []uint32{unix.SYS_FSTATAT}

// forks are the calls that only programs with child processes make.
var forks = []uint32{unix.SYS_WAIT4, unix.SYS_WAITID, unix.SYS_SETPGID, unix.SYS_SETSID}

// modes are the calls that change who may do what with a file.
var modes = []uint32{unix.SYS_FCHMOD, unix.SYS_FCHMODAT}
